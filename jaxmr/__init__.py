"""jaxmr: MRI physics as composable, differentiable JAX functions, from pulse sequence to parameter map.

    import jaxmr as mr
    from jaxmr.units import ms

    signal = mr.simulate(sequence, tissue, mr.EPG())

The namespaces `rf`, `sequences`, `mrf`, `design`, `io` and `plot` load when first used; importing
jaxmr pulls neither SciPy nor matplotlib and sets no JAX flag.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxmr.core.batch import use_cores
from jaxmr.models import EPG, AccuracyWarning, EPGBloch, Model, plan, simulate, simulate_with_jacobian
from jaxmr.objects import Phantom, Tissue, grid, literature

if TYPE_CHECKING:
    from jaxmr import design, io, mrf, objects, plot, sequences, units
    from jaxmr.physics import bloch, epg, rf

__version__ = "0.1.0"

_NAMESPACES = {
    "bloch": "jaxmr.physics.bloch",
    "design": "jaxmr.design",
    "epg": "jaxmr.physics.epg",
    "io": "jaxmr.io",
    "mrf": "jaxmr.mrf",
    "objects": "jaxmr.objects",
    "plot": "jaxmr.plot",
    "rf": "jaxmr.physics.rf",
    "sequences": "jaxmr.sequences",
    "units": "jaxmr.units",
}


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return importlib.import_module(_NAMESPACES[name])
    raise AttributeError(f"module 'jaxmr' has no attribute {name!r}; it has {', '.join(__all__)}")


__all__ = [
    "EPG",
    "AccuracyWarning",
    "EPGBloch",
    "Model",
    "Phantom",
    "Tissue",
    "bloch",
    "design",
    "epg",
    "grid",
    "io",
    "literature",
    "mrf",
    "objects",
    "plan",
    "plot",
    "rf",
    "sequences",
    "simulate",
    "simulate_with_jacobian",
    "units",
    "use_cores",
]
