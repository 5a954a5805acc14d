"""From samples to images: adjoint, parallel-imaging and subspace reconstruction."""

from jaxmr.recon.lowrank import LowRank, lowrank_admm, subspace_reconstruction
from jaxmr.recon.sense import adjoint_reconstruction, cg_sense, root_sum_of_squares

__all__ = [
    "LowRank",
    "adjoint_reconstruction",
    "cg_sense",
    "lowrank_admm",
    "root_sum_of_squares",
    "subspace_reconstruction",
]
