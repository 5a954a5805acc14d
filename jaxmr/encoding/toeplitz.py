r"""Encoding and back, A^H W A, as one convolution: no trajectory, two FFTs of the doubled grid.

    (A^H W A m)(r) = sum over r' of T(r - r') m(r'),     T(d) = sum over samples of w exp(i k.d)

Kernels here are Fourier transforms of T. With a temporal basis phi (T, R), where image t is the sum over r of
phi[t, r] c_r, every pair (r, s) of coefficients has its own: T_rs with weights w conj(phi[t, r]) phi[t, s].
References: Fessler et al., IEEE TSP 53:3393 (2005); Assländer et al., MRM 79:83 (2018).
"""

import equinox as eqx
import jax.numpy as jnp

from jaxmr.core.checks import as_float
from jaxmr.core.types import Array, Complex, Shaped
from jaxmr.encoding.nufft import TOLERANCE, adjoint_nufft


class Toeplitz(eqx.Module):
    """Convolution of images with a point spread function.

    kernel: its Fourier transform, on the image's grid (a periodic convolution, as of Cartesian sampling) or on the
    doubled one. Real, because A^H W A is Hermitian.
    """

    kernel: Shaped[Array, "*grid"]

    def normal(self, image) -> Complex[Array, "*shape"]:
        """A^H W A of images `(*batch, *matrix)`."""
        axes = tuple(range(-self.kernel.ndim, 0))
        spectrum = jnp.fft.fftn(image, self.kernel.shape, axes)
        kernel = jnp.expand_dims(self.kernel, tuple(range(image.ndim - self.kernel.ndim)))
        return _cropped(jnp.fft.ifftn(spectrum * kernel, axes=axes), image.shape, axes)


class SubspaceToeplitz(eqx.Module):
    """Convolutions of every coefficient image with every other.

    kernel: Fourier transforms of the point spread functions, (R, R, *doubled grid), Hermitian in its first axes.
    """

    kernel: Shaped[Array, "R R *grid"]

    def normal(self, coefficients) -> Complex[Array, "*shape"]:
        """A^H W A of coefficient images `(*batch, R, *matrix)`."""
        grid = self.kernel.shape[2:]
        axes = tuple(range(-len(grid), 0))
        spectrum = jnp.expand_dims(jnp.fft.fftn(coefficients, grid, axes), -len(grid) - 2)
        kernel = jnp.expand_dims(self.kernel, tuple(range(spectrum.ndim - self.kernel.ndim)))
        # Not an einsum: as a matrix product for every frequency it took ten times as long on CPUs.
        mixed = jnp.sum(kernel * spectrum, axis=-len(grid) - 1)
        return _cropped(jnp.fft.ifftn(mixed, axes=axes), coefficients.shape, axes)


def normal_operator(
    k, voxel_size, matrix: tuple[int, ...], weights=None, *, method: str = "auto", tolerance: float = TOLERANCE
) -> Toeplitz:
    """The operator A^H W A of the samples at k `(*samples, n_axes)`, with real weights `(*samples)`, by default 1."""
    k = as_float("k", k)
    weights = jnp.ones(k.shape[:-1], k.dtype) if weights is None else as_float("weights", weights)
    return Toeplitz(_kernel(weights, k, voxel_size, matrix, method, tolerance).real)


def subspace_normal_operator(
    k, basis, voxel_size, matrix: tuple[int, ...], weights=None, *, method: str = "auto", tolerance: float = TOLERANCE
) -> SubspaceToeplitz:
    """The operator A^H W A of coefficient images in a temporal basis.

    k: (T, *samples, n_axes), the samples grouped by time. basis: (T, R). weights: real, (T, *samples), by default 1.
    """
    k, basis = as_float("k", k), jnp.asarray(basis)
    if basis.ndim != 2 or basis.shape[0] != k.shape[0]:
        raise ValueError(f"basis must have shape ({k.shape[0]}, R), a row per time of k, got {basis.shape}")
    weights = jnp.ones(k.shape[:-1], k.dtype) if weights is None else as_float("weights", weights)
    rank = basis.shape[1]
    rows, columns = jnp.triu_indices(rank)
    pairs = (basis[:, rows].conj() * basis[:, columns]).T
    pairs = jnp.expand_dims(pairs, tuple(range(2, weights.ndim + 1)))
    upper = _kernel(weights[None] * pairs, k, voxel_size, matrix, method, tolerance)
    # T_sr(d) = conj T_rs(-d): its transform is the conjugate. Of a real basis all of them are real.
    if not jnp.iscomplexobj(basis):
        upper = upper.real
    kernel = jnp.zeros((rank, rank, *upper.shape[1:]), upper.dtype)
    return SubspaceToeplitz(kernel.at[columns, rows].set(upper.conj()).at[rows, columns].set(upper))


def coil_normal(gram: Toeplitz | SubspaceToeplitz, coils, image) -> Complex[Array, "*shape"]:
    """Sum over coils of conj(c) A^H W A (c m), for coils `(coils, *matrix)` and m `(*batch, *matrix)`."""
    coils = over_batch(coils, image.ndim)
    return jnp.sum(coils.conj() * gram.normal(coils * image[None]), axis=0)


def over_batch(coils, n_axes: int):
    """Coil maps `(coils, *matrix)` ready to multiply images of `n_axes` axes behind an axis of coils."""
    coils = jnp.asarray(coils)
    return jnp.expand_dims(coils, tuple(range(1, 2 + n_axes - coils.ndim)))


def _kernel(weights, k, voxel_size, matrix, method, tolerance):
    """Fourier transform of T on the doubled grid, for weights `(*batch, *samples)`."""
    grid = tuple(2 * size for size in matrix)
    spread = adjoint_nufft(weights, k, voxel_size, grid, method=method, tolerance=tolerance)
    axes = tuple(range(-len(grid), 0))
    # Displacement -N is never used; without it T is Hermitian, its transform real.
    for axis in axes:
        keep = (jnp.arange(spread.shape[axis]) > 0).astype(spread.real.dtype)
        spread = spread * jnp.expand_dims(keep, [a for a in range(-spread.ndim, 0) if a != axis])
    return jnp.fft.fftn(jnp.fft.ifftshift(spread, axes), axes=axes)


def _cropped(images, shape, axes):
    return images[(..., *(slice(shape[axis]) for axis in axes))]
