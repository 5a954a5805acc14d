"""From image to k-space and back: Fourier operators, trajectories, density compensation.

Every operator is s = sum over voxels of m exp(-i k.r), the plain sum: no voxel volume, no 1/N. Images are
`(*batch, z, y, x)` or `(*batch, y, x)`; voxel i of N sits at (i - N // 2) times the voxel size; k is in rad/m with
columns (kx, ky, kz).
"""

from jaxmr.encoding import coils, trajectory
from jaxmr.encoding.density import pipe_menon_weights, radial_weights
from jaxmr.encoding.fourier import centred_fft, centred_ifft, to_grid
from jaxmr.encoding.nufft import adjoint_nufft, forward_nufft
from jaxmr.encoding.operators import Encoding, Fourier, Nufft, SubspaceNufft
from jaxmr.encoding.toeplitz import SubspaceToeplitz, Toeplitz, coil_normal, normal_operator, subspace_normal_operator

__all__ = [
    "Encoding",
    "Fourier",
    "Nufft",
    "SubspaceNufft",
    "SubspaceToeplitz",
    "Toeplitz",
    "adjoint_nufft",
    "centred_fft",
    "centred_ifft",
    "coil_normal",
    "coils",
    "forward_nufft",
    "normal_operator",
    "pipe_menon_weights",
    "radial_weights",
    "subspace_normal_operator",
    "to_grid",
    "trajectory",
]
