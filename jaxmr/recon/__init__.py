"""From samples to images and maps: parallel imaging, priors, and fingerprinting in the subspace of a dictionary."""

from jaxmr.recon.lowrank import LowRank, lowrank_admm, subspace_reconstruction
from jaxmr.recon.priors import LocallyLowRank, Prior, Wavelet
from jaxmr.recon.regularised import Regularised, regularised_reconstruction
from jaxmr.recon.sense import adjoint_reconstruction, cg_sense, root_sum_of_squares

__all__ = [
    "LocallyLowRank",
    "LowRank",
    "Prior",
    "Regularised",
    "Wavelet",
    "adjoint_reconstruction",
    "cg_sense",
    "lowrank_admm",
    "regularised_reconstruction",
    "root_sum_of_squares",
    "subspace_reconstruction",
]
