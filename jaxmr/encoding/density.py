r"""Density compensation: weights W that make A^H W A nearly the identity.

A sample stands for a share of k-space; its weight is that area times (voxel area) / (2 pi)^2, without a unit. A full
Cartesian grid of N voxels has 1 / N throughout. References: Pipe and Menon, MRM 41:179 (1999).
"""

import functools
import math

import jax
import jax.numpy as jnp

from jaxmr.core.checks import as_float
from jaxmr.core.types import Array, Float
from jaxmr.encoding.nufft import adjoint_nufft, forward_nufft


def radial_weights(k, voxel_size) -> Float[Array, "n_spokes n_samples"]:
    """Weights of spokes through the centre, `(n_spokes, n_samples, 2)`, spread evenly over the half circle: a ramp.

    The central sample has what the trapezoidal rule misses at the kink of the ramp (Euler and Maclaurin): step^2 / 6
    in the place of step times radius. voxel_size: m, one number or (dx, dy).
    """
    k, size = as_float("k", k), as_float("voxel_size", voxel_size)
    if k.ndim != 3 or k.shape[-1] != 2 or k.shape[1] < 2:
        raise ValueError(f"k must have shape (n_spokes, n_samples, 2), as from trajectory.radial, got {k.shape}")
    # Squares: the norm has no derivative at the centre.
    square = jnp.sum(k**2, axis=-1)
    centre = square < 1e-6 * jnp.max(square)
    radius = jnp.sqrt(jnp.where(centre, 1, square))
    step = jnp.linalg.norm(k[:, 1] - k[:, 0], axis=-1)[:, None]
    area = math.pi * step * jnp.where(centre, step / 6, radius) / k.shape[0]
    return area * jnp.prod(jnp.broadcast_to(size, (2,))) / (2 * math.pi) ** 2


def pipe_menon_weights(
    k, voxel_size, matrix: tuple[int, ...], *, n_iterations: int = 30, method: str = "auto"
) -> Float[Array, "*samples"]:
    r"""Weights of any trajectory `(*samples, n_axes)` by iteration: w <- w / (density that w makes at each sample).

    The density is the sum over samples of $w_j \prod |D(k - k_j)|^2$, D the point spread function of the image's
    field of view: nowhere negative, so that weights stay positive, and zero from one place of the image's own grid to
    the next. k: rad/m; voxel_size: m, one number or one per column of k. Costs two transforms an iteration.
    """
    k = as_float("k", k)
    grid = tuple(2 * size for size in matrix)
    # The transform of |D|^2 is a triangle along every axis.
    triangles = [1 - jnp.abs(jnp.arange(2 * n) - n).astype(k.dtype) / n for n in matrix]
    window = functools.reduce(lambda a, b: a[..., None] * jnp.expand_dims(b, range(a.ndim)), triangles)

    def step(_, weights):
        spread = adjoint_nufft(weights, k, voxel_size, grid, method=method) * window
        density = forward_nufft(spread, k, voxel_size, method=method).real
        return weights / jnp.maximum(density, 1e-3 * jnp.max(density)).astype(weights.dtype)

    start = jnp.full(k.shape[:-1], 1 / math.prod(matrix), k.dtype)
    return jax.lax.fori_loop(0, n_iterations, step, start)
