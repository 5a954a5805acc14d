"""How physics is computed: models behind one call, and the plan that chooses their sizes."""

from jaxmr.models.epg import EPG, EPGBloch
from jaxmr.models.imaging import ImagingModel
from jaxmr.models.isochromats import Isochromats
from jaxmr.models.model import Model, simulate, simulate_with_jacobian
from jaxmr.models.pdg import PDG
from jaxmr.models.planning import AccuracyWarning, plan

__all__ = [
    "EPG",
    "PDG",
    "AccuracyWarning",
    "EPGBloch",
    "ImagingModel",
    "Isochromats",
    "Model",
    "plan",
    "simulate",
    "simulate_with_jacobian",
]
