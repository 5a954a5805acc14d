"""From samples to images: adjoint, parallel-imaging and regularised reconstruction."""

from jaxmr.recon.priors import LocallyLowRank, Prior, Wavelet
from jaxmr.recon.regularised import Regularised, regularised_reconstruction
from jaxmr.recon.sense import adjoint_reconstruction, cg_sense, root_sum_of_squares

__all__ = [
    "LocallyLowRank",
    "Prior",
    "Regularised",
    "Wavelet",
    "adjoint_reconstruction",
    "cg_sense",
    "regularised_reconstruction",
    "root_sum_of_squares",
]
