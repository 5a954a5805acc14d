"""From samples to images and maps: parallel imaging, priors, fingerprinting in a subspace, voxelwise fits."""

from jaxmr.recon.fitting import Fit, fit
from jaxmr.recon.lowrank import LowRank, lowrank_admm, subspace_reconstruction
from jaxmr.recon.priors import LocallyLowRank, Prior, Wavelet
from jaxmr.recon.refining import Refined, refine
from jaxmr.recon.regularised import Regularised, regularised_reconstruction
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
    "LocallyLowRank",
    "LowRank",
    "Prior",
    "Refined",
    "Regularised",
    "SignalModel",
    "Wavelet",
    "adjoint_reconstruction",
    "cg_sense",
    "fit",
    "inversion_recovery",
    "lowrank_admm",
    "magnitude",
    "refine",
    "regularised_reconstruction",
    "root_sum_of_squares",
    "saturation_recovery",
    "subspace_reconstruction",
    "t2_decay",
    "variable_flip_angle",
]
