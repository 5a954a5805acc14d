"""Diffusion of isochromats: every spin walks at random, by the exact law of a stretch of time.

Under a constant gradient a spin's phase depends on two Gaussians per axis: how far it has come in the end, e, of
variance 2 D T, and on average meanwhile, a, of variance 2 D T/3; their covariance is D T. So a = e/2 + b, with b
independent of e and of variance D T/6, and a stretch of any length is one step. Units: m, s, m2/s.

Every voxel draws from a key of its own, counting steps, in single precision: groups of voxels, devices and the
precision of the rest change no walk. Reference: Stejskal & Tanner, J. Chem. Phys. 42:288 (1965).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Float, Shaped

GENERATOR = "threefry2x32"
"""Draws the same for a key, however many keys draw together."""


class Walk(NamedTuple):
    """How the spins of some voxels walk. diffusivity: m2/s. keys: of each voxel's random numbers."""

    diffusivity: Float[Array, "1 voxels"]
    keys: Shaped[Array, "voxels"]


class Drift(NamedTuple):
    """How far spins have come from where they began, m; steps: made so far, by all of them."""

    displacement: Float[Array, "3 spins voxels"]
    steps: Shaped[Array, ""]


def seeds(seed: Any, first: Any, n: int) -> Shaped[Array, "n 2"]:
    """Keys as plain numbers of the voxels `first`, ..., `first` + n - 1."""
    root = jax.random.key(seed, impl=GENERATOR)
    return jax.random.key_data(jax.vmap(jax.random.fold_in, (None, 0))(root, first + jnp.arange(n)))


def walk_of(diffusivity: Float[Array, "voxels"], numbers: Shaped[Array, "voxels 2"]) -> Walk:
    """The walk of voxels with such `seeds`."""
    return Walk(diffusivity[None], jax.random.wrap_key_data(numbers, impl=GENERATOR))


def start(walk: Walk | None, shape: tuple[int, int]) -> Drift | None:
    """Before the first step, of (isochromats, voxels); None where nothing diffuses."""
    if walk is None:
        return None
    return Drift(jnp.zeros((3, *shape), walk.diffusivity.dtype), jnp.zeros((), jnp.int32))


def stray(walk: Walk, drift: Drift, time: Any, encoded: bool) -> tuple[Float[Array, "3 spins voxels"] | None, Drift]:
    """Mean displacement over a step of `time`, where a gradient encodes it, and what the step leaves."""
    displacement, steps = drift
    shape = (6 if encoded else 3, displacement.shape[1])

    def draw(key):
        return jax.random.normal(jax.random.fold_in(key, steps), shape, jnp.float32)

    # Or else XLA draws again for every use of a number.
    normal = jax.lax.optimization_barrier(jax.vmap(draw, out_axes=-1)(walk.keys)).astype(displacement.dtype)
    size = _root(walk.diffusivity * time)[None]
    end = 2**0.5 * size * normal[:3]
    mean = displacement + end / 2 + 6**-0.5 * size * normal[3:] if encoded else None
    return mean, Drift(displacement + end, steps + 1)


def _root(square: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Square root whose derivative at 0 is 0, not infinite."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
