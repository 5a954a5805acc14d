"""jaxmr: MRI physics as composable, differentiable JAX functions, from pulse sequence to parameter map.

    import jaxmr as mr
    from jaxmr.units import ms

    signal = mr.simulate(sequence, tissue, mr.EPG())

Every name loads when it is first used: importing jaxmr is light, sets no JAX flag and starts no device.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmr import design, encoding, io, mrf, objects, plot, pulseq, recon, sequences, units
    from jaxmr.core.batch import use_cores
    from jaxmr.models import (
        EPG,
        PDG,
        AccuracyWarning,
        EPGBloch,
        ImagingModel,
        Isochromats,
        Model,
        plan,
        simulate,
        simulate_with_jacobian,
    )
    from jaxmr.mrf.surrogate import RNN
    from jaxmr.objects import Phantom, Tissue, grid, literature
    from jaxmr.physics import bloch, epg, rf

__version__ = "0.1.0"

_ROOMS = {
    "bloch": "jaxmr.physics.bloch",
    "design": "jaxmr.design",
    "encoding": "jaxmr.encoding",
    "epg": "jaxmr.physics.epg",
    "io": "jaxmr.io",
    "mrf": "jaxmr.mrf",
    "objects": "jaxmr.objects",
    "plot": "jaxmr.plot",
    "pulseq": "jaxmr.pulseq",
    "recon": "jaxmr.recon",
    "rf": "jaxmr.physics.rf",
    "sequences": "jaxmr.sequences",
    "units": "jaxmr.units",
}
_HOMES = {
    "EPG": "jaxmr.models",
    "AccuracyWarning": "jaxmr.models",
    "EPGBloch": "jaxmr.models",
    "ImagingModel": "jaxmr.models",
    "Isochromats": "jaxmr.models",
    "Model": "jaxmr.models",
    "PDG": "jaxmr.models",
    "Phantom": "jaxmr.objects",
    "RNN": "jaxmr.mrf.surrogate",
    "Tissue": "jaxmr.objects",
    "grid": "jaxmr.objects",
    "literature": "jaxmr.objects",
    "plan": "jaxmr.models",
    "simulate": "jaxmr.models",
    "simulate_with_jacobian": "jaxmr.models",
    "use_cores": "jaxmr.core.batch",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(_ROOMS[name])
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'jaxmr' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "EPG",
    "PDG",
    "RNN",
    "AccuracyWarning",
    "EPGBloch",
    "ImagingModel",
    "Isochromats",
    "Model",
    "Phantom",
    "Tissue",
    "bloch",
    "design",
    "encoding",
    "epg",
    "grid",
    "io",
    "literature",
    "mrf",
    "objects",
    "plan",
    "plot",
    "pulseq",
    "recon",
    "rf",
    "sequences",
    "simulate",
    "simulate_with_jacobian",
    "units",
    "use_cores",
]
