"""The discrete Fourier transform of an image whose origin is voxel N // 2, and samples put on its grid.

Row j of N of the grid is k = 2 pi (j - N // 2) / (N voxel_size), rad/m. The forward transform is the plain sum
over voxels; only the inverse divides by their number.
"""

import math

import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import as_float, is_concrete
from jaxmr.core.types import Array, Complex


def centred_fft(image, n_axes: int = 2) -> Complex[Array, "*shape"]:
    """k-space grid of an image: sum over voxels of m exp(-i k.r) along the last `n_axes` axes."""
    axes = tuple(range(-n_axes, 0))
    return jnp.fft.fftshift(jnp.fft.fftn(jnp.fft.ifftshift(image, axes), axes=axes), axes)


def centred_ifft(kspace, n_axes: int = 2) -> Complex[Array, "*shape"]:
    """Image of a full k-space grid, the inverse of `centred_fft` (its adjoint divided by the number of voxels)."""
    axes = tuple(range(-n_axes, 0))
    return jnp.fft.fftshift(jnp.fft.ifftn(jnp.fft.ifftshift(kspace, axes), axes=axes), axes)


def to_grid(samples, k, matrix: tuple[int, ...], voxel_size) -> Complex[Array, "*shape"]:
    """Samples of a Cartesian trajectory sorted into the grid of an image: `(*batch, n)` to `(*batch, *matrix)`.

    k: (n, 2 or 3), rad/m. Places never sampled hold 0, those sampled more than once the mean. Raises `ValueError`
    when a concrete k is off the grid by more than 1 % of its spacing, or outside it: use `Nufft` for those.
    """
    samples, k = jnp.asarray(samples), as_float("k", k)
    n_axes, n = len(matrix), math.prod(matrix)
    if k.ndim != 2 or k.shape[1] < n_axes or samples.shape[-1] != k.shape[0]:
        raise ValueError(f"k must have shape ({samples.shape[-1]}, >= {n_axes}), a row per sample, got {k.shape}")
    size = as_float("voxel_size", voxel_size)
    size = jnp.broadcast_to(size if size.ndim == 0 else size[:n_axes], n_axes)
    extent = jnp.asarray(matrix[::-1], k.dtype) * size
    place = k[:, :n_axes] * extent[None] / (2 * jnp.pi)
    index = jnp.round(place).astype(int) + jnp.asarray([size // 2 for size in matrix[::-1]])[None]
    if is_concrete(place):
        off = float(np.abs(place - np.round(place)).max(initial=0))
        if off > 0.01 or bool(((index < 0) | (index >= jnp.asarray(matrix[::-1])[None])).any()):
            raise ValueError(f"k must lie on the grid of matrix {matrix}, it is {off:.2g} of a step off or outside")
    flat = jnp.ravel_multi_index(tuple(index[:, ::-1].T), matrix, mode="clip")
    count = jnp.zeros(n, k.dtype).at[flat].add(1)
    batch = samples.reshape(-1, samples.shape[-1])
    grid = jnp.zeros((batch.shape[0], n), batch.dtype).at[:, flat].add(batch) / jnp.maximum(count, 1)[None]
    return grid.reshape(*samples.shape[:-1], *matrix)
