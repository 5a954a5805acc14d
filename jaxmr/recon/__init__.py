"""From samples to images and maps: adjoint and parallel-imaging reconstruction, voxelwise fits."""

from jaxmr.recon.fitting import Fit, fit
from jaxmr.recon.refining import Refined, refine
from jaxmr.recon.relaxometry import (
    SignalModel,
    inversion_recovery,
    magnitude,
    saturation_recovery,
    t2_decay,
    variable_flip_angle,
)
from jaxmr.recon.sense import adjoint_reconstruction, cg_sense, root_sum_of_squares

__all__ = [
    "Fit",
    "Refined",
    "SignalModel",
    "adjoint_reconstruction",
    "cg_sense",
    "fit",
    "inversion_recovery",
    "magnitude",
    "refine",
    "root_sum_of_squares",
    "saturation_recovery",
    "t2_decay",
    "variable_flip_angle",
]
