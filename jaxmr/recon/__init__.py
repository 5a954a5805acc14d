"""From samples to images: adjoint and parallel-imaging reconstruction."""

from jaxmr.recon.sense import adjoint_reconstruction, cg_sense, root_sum_of_squares

__all__ = ["adjoint_reconstruction", "cg_sense", "root_sum_of_squares"]
