"""Encoding operators: what to sample is data, how to go forth and back are methods with one name each.

Every one is linear, A m = s with s = sum over voxels of m exp(-i k.r), its adjoint the exact conjugate transpose in
the plain inner products. None knows coils: these are one more batch axis, in front.
"""

import math
from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp

from jaxmr.core.checks import as_float, is_concrete
from jaxmr.core.types import Array, Complex, Float, Shaped
from jaxmr.encoding.fourier import centred_fft, centred_ifft
from jaxmr.encoding.nufft import TOLERANCE, adjoint_nufft, chosen_method, forward_nufft
from jaxmr.encoding.toeplitz import SubspaceToeplitz, Toeplitz, normal_operator, subspace_normal_operator


class Encoding(eqx.Module):
    """A linear map from images to samples."""

    matrix: eqx.AbstractVar[tuple[int, ...]]

    @abstractmethod
    def forward(self, image) -> Complex[Array, "*shape"]:
        """Samples of images."""

    @abstractmethod
    def adjoint(self, samples) -> Complex[Array, "*shape"]:
        """Conjugate transpose of `forward`."""

    @abstractmethod
    def gram(self, weights=None) -> Toeplitz | SubspaceToeplitz:
        """A^H W A as a convolution, its kernel computed once; weights: real, one per sample, by default 1."""

    def normal(self, image) -> Complex[Array, "*shape"]:
        """A^H A of images, forth and back; where it is applied often, `gram().normal` is far cheaper."""
        return self.adjoint(self.forward(image))


class Fourier(Encoding):
    """Cartesian sampling: images `(*batch, *matrix)` to the grid of k-space, `(*batch, *matrix)`.

    mask: (*matrix), 1 where sampled and 0 elsewhere, the centre of k-space at N // 2; None: all of it.
    """

    mask: Float[Array, "*matrix"] | None
    matrix: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, matrix: tuple[int, ...], mask=None):
        self.matrix = tuple(int(size) for size in matrix)
        self.mask = None if mask is None else jnp.asarray(mask).astype(float)
        if self.mask is not None and self.mask.shape != self.matrix:
            raise ValueError(f"mask must have the shape of matrix, {self.matrix}, got {self.mask.shape}")

    def forward(self, image) -> Complex[Array, "*shape"]:
        """k-space grids, 0 where not sampled."""
        return self._sampled(centred_fft(image, len(self.matrix)))

    def adjoint(self, samples) -> Complex[Array, "*shape"]:
        """Sum over the sampled places of s exp(+i k.r): the inverse FFT times the number of voxels."""
        return centred_ifft(self._sampled(jnp.asarray(samples)), len(self.matrix)) * math.prod(self.matrix)

    def gram(self, weights=None) -> Toeplitz:
        """A^H W A, a periodic convolution; weights: (*matrix)."""
        taken = jnp.ones(self.matrix) if weights is None else as_float("weights", weights)
        if taken.shape != self.matrix:
            raise ValueError(f"weights must have the shape of matrix, {self.matrix}, got {taken.shape}")
        if self.mask is not None:
            taken = taken * self.mask**2
        return Toeplitz(jnp.fft.ifftshift(taken) * math.prod(self.matrix))

    def _sampled(self, grid):
        if self.mask is None:
            return grid
        # In the data's precision: a mask has no digits to lose.
        mask = self.mask.astype(grid.real.dtype)
        return grid * jnp.expand_dims(mask, tuple(range(grid.ndim - mask.ndim)))


class Nufft(Encoding):
    """Sampling anywhere: images `(*batch, *matrix)` to samples `(*batch, *samples)`.

    k: (*samples, n_axes), rad/m, columns (kx, ky[, kz]); the kz of a slice is not needed, and ignored. voxel_size: m,
    one number or one per column. method, tolerance: as for `forward_nufft`.
    """

    k: Float[Array, "*samples n_axes"]
    voxel_size: Float[Array, "..."]
    matrix: tuple[int, ...] = eqx.field(static=True)
    method: str = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    def __init__(self, k, voxel_size, matrix: tuple[int, ...], method: str = "auto", tolerance: float = TOLERANCE):
        self.matrix = tuple(int(size) for size in matrix)
        self.k, self.voxel_size = _of_axes(k, voxel_size, len(self.matrix))
        self.method, self.tolerance = chosen_method(method), tolerance

    def forward(self, image) -> Complex[Array, "*shape"]:
        """Samples `(*batch, *samples)`."""
        _require_matrix(image, self.matrix)
        return forward_nufft(image, self.k, self.voxel_size, method=self.method, tolerance=self.tolerance)

    def adjoint(self, samples) -> Complex[Array, "*shape"]:
        """Sum over samples of s exp(+i k.r), `(*batch, *matrix)`."""
        return adjoint_nufft(
            samples, self.k, self.voxel_size, self.matrix, method=self.method, tolerance=self.tolerance
        )

    def gram(self, weights=None) -> Toeplitz:
        """A^H W A; weights: (*samples)."""
        return normal_operator(
            self.k, self.voxel_size, self.matrix, weights, method=self.method, tolerance=self.tolerance
        )


class SubspaceNufft(Encoding):
    """Sampling of a series of images: coefficient images `(*batch, R, *matrix)` to samples `(*batch, T, *samples)`.

    Image t is the sum over r of basis[t, r] times coefficient image r. k: (T, *samples, n_axes), rad/m; basis: (T, R),
    kept real if its imaginary part is zero, which halves the work of `gram`; voxel_size: m. method, tolerance: as for
    `forward_nufft`.
    """

    k: Float[Array, "T *samples n_axes"]
    basis: Shaped[Array, "T R"]
    voxel_size: Float[Array, "..."]
    matrix: tuple[int, ...] = eqx.field(static=True)
    method: str = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    def __init__(
        self, k, basis, voxel_size, matrix: tuple[int, ...], method: str = "auto", tolerance: float = TOLERANCE
    ):
        self.matrix = tuple(int(size) for size in matrix)
        self.k, self.voxel_size = _of_axes(k, voxel_size, len(self.matrix))
        self.basis = jnp.asarray(basis)
        if is_concrete(basis) and jnp.iscomplexobj(self.basis) and not self.basis.imag.any():
            self.basis = self.basis.real
        if self.k.ndim < 3 or self.basis.ndim != 2 or self.basis.shape[0] != self.k.shape[0]:
            raise ValueError(
                "k must have shape (T, samples, n_axes) and basis (T, R), a row per time, "
                f"got {self.k.shape} and {self.basis.shape}"
            )
        self.method, self.tolerance = chosen_method(method), tolerance

    def forward(self, image) -> Complex[Array, "*shape"]:
        """Samples `(*batch, T, *samples)` of coefficient images."""
        _require_matrix(image, self.matrix)
        samples = forward_nufft(image, self.k, self.voxel_size, method=self.method, tolerance=self.tolerance)
        flat = samples.reshape(*samples.shape[: 1 - self.k.ndim], self.k.shape[0], -1)
        mixed = jnp.einsum("...rtn,tr->...tn", flat, self.basis, precision="highest")
        return mixed.reshape(*mixed.shape[:-1], *self.k.shape[1:-1])

    def adjoint(self, samples) -> Complex[Array, "*shape"]:
        """Coefficient images `(*batch, R, *matrix)`."""
        samples = jnp.asarray(samples)
        flat = samples.reshape(*samples.shape[: 2 - self.k.ndim], -1)
        parts = jnp.einsum("...tn,tr->...rtn", flat, self.basis.conj(), precision="highest")
        return adjoint_nufft(
            parts.reshape(*parts.shape[:-1], *self.k.shape[1:-1]),
            self.k,
            self.voxel_size,
            self.matrix,
            method=self.method,
            tolerance=self.tolerance,
        )

    def gram(self, weights=None) -> SubspaceToeplitz:
        """A^H W A; weights: (T, *samples)."""
        return subspace_normal_operator(
            self.k, self.basis, self.voxel_size, self.matrix, weights, method=self.method, tolerance=self.tolerance
        )


def _of_axes(k, voxel_size, n_axes):
    """k and voxel size with as many columns as the image has axes."""
    k, size = as_float("k", k), as_float("voxel_size", voxel_size)
    if k.ndim < 2 or k.shape[-1] < n_axes:
        raise ValueError(f"k must have shape (..., samples, {n_axes}), a column per image axis, got {k.shape}")
    return k[..., :n_axes], size if size.ndim == 0 else size[:n_axes]


def _require_matrix(image, matrix):
    if image.shape[-len(matrix) :] != matrix:
        raise ValueError(f"image must have shape (..., {', '.join(map(str, matrix))}), got {image.shape}")
