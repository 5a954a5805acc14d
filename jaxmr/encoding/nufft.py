"""The non-uniform Fourier transform: an image at any k, and its adjoint, differentiable in image and trajectory.

    s(k) = sum over voxels of m exp(-i k.r)

with r the position of a voxel, m, and k in rad/m. The methods differ in speed only: "finufft" on CPUs, "gridding"
(plain JAX) elsewhere, "exact" for tests; "auto" chooses by the platform.
References: Barnett et al., SIAM J. Sci. Comput. 41:C479 (2019); Fessler and Sutton, IEEE TSP 51:560 (2003).
"""

import math

import jax
import jax.numpy as jnp

from jaxmr.core.checks import as_float
from jaxmr.core.types import Array, Complex
from jaxmr.encoding import nonuniform

TOLERANCE = 1e-6
"""Relative error asked of the fast methods; in float32 rounding adds about as much."""


def forward_nufft(
    image, k, voxel_size, *, method: str = "auto", tolerance: float = TOLERANCE
) -> Complex[Array, "*shape"]:
    """Samples of images at k: `(*batch, *matrix)` and `(*samples, n_axes)` to complex `(*batch, *samples)`.

    k: rad/m, columns (kx, ky) for images (y, x), (kx, ky, kz) for (z, y, x). voxel_size: m, one number or one per
    column of k. tolerance: relative error of a fast method. Raises `ValueError` for an unknown method, or a k with
    other columns.
    """
    image, k = jnp.asarray(image), as_float("k", k)
    n_axes = _require_columns(k)
    if image.ndim < n_axes:
        raise ValueError(f"image must have the {n_axes} axes that the columns of k name, got shape {image.shape}")
    matrix = image.shape[image.ndim - n_axes :]
    batch = image.shape[: image.ndim - n_axes]
    values, w = _alike(image.reshape(math.prod(batch), *matrix), _radians_per_voxel(k, voxel_size))
    samples = nonuniform.to_samples(values, w, sign=-1, method=chosen_method(method), tolerance=tolerance)
    return samples.reshape(*batch, *k.shape[:-1])


def adjoint_nufft(
    samples, k, voxel_size, matrix: tuple[int, ...], *, method: str = "auto", tolerance: float = TOLERANCE
) -> Complex[Array, "*shape"]:
    """Sum over samples of s exp(+i k.r): `(*batch, *samples)` and `(*samples, n_axes)` to `(*batch, *matrix)`.

    The adjoint of `forward_nufft`, whose arguments these are; weigh the samples by their density to see an image.
    """
    samples, k = jnp.asarray(samples), as_float("k", k)
    if _require_columns(k) != len(matrix):
        raise ValueError(
            f"matrix {matrix} has {len(matrix)} axes, k {k.shape[-1]} columns; pass k[..., :{len(matrix)}]"
        )
    n_shape = k.ndim - 1
    if samples.ndim < n_shape or samples.shape[samples.ndim - n_shape :] != k.shape[:-1]:
        raise ValueError(f"samples must have shape (..., {', '.join(map(str, k.shape[:-1]))}), got {samples.shape}")
    batch = samples.shape[: samples.ndim - n_shape]
    values, w = _alike(samples.reshape(math.prod(batch), math.prod(k.shape[:-1])), _radians_per_voxel(k, voxel_size))
    image = nonuniform.to_image(values, w, matrix, sign=1, method=chosen_method(method), tolerance=tolerance)
    return image.reshape(*batch, *matrix)


def chosen_method(method: str) -> str:
    """The method "auto" stands for on this platform, or `method` itself; `ValueError` when there is none such."""
    if method == "auto":
        return "finufft" if jax.default_backend() == "cpu" else "gridding"
    if method not in nonuniform.METHODS:
        raise ValueError(f"method must be 'auto' or one of {', '.join(nonuniform.METHODS)}, got {method!r}")
    return method


def _require_columns(k) -> int:
    if k.ndim < 2 or k.shape[-1] not in (1, 2, 3):
        raise ValueError(f"k must have shape (..., samples, 1 to 3), columns kx, ky, kz, got {k.shape}")
    return k.shape[-1]


def _radians_per_voxel(k, voxel_size):
    """k as phase per voxel, `(n, n_axes)`, columns in the order of the image's axes."""
    size = as_float("voxel_size", voxel_size)
    if size.ndim > 1 or (size.ndim == 1 and size.shape != k.shape[-1:]):
        raise ValueError(f"voxel_size must be one number or one per column of k, {k.shape[-1]}, got {size.shape}")
    size = jnp.broadcast_to(size.astype(k.dtype), k.shape[-1:])
    return (k.reshape(-1, k.shape[-1]) * size[None])[:, ::-1]


def _alike(values, w):
    """Complex values and real points of one precision, that of the more precise."""
    dtype = jnp.result_type(values.dtype, w.dtype, jnp.complex64)
    return values.astype(dtype), w.astype(jnp.finfo(dtype).dtype)
