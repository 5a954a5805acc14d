r"""Least squares of many voxels at once, each with a handful of unknowns of its own.

Unknowns lie in the leading axes and voxels in the last, `(p, voxels)`: the small systems are written out, number
by number, so that every operation runs along the voxels. Pure numerics, no units. Reference: Nocedal and Wright,
Numerical Optimization, 2nd ed., chapter 10 (2006).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Float, Shaped

DAMPING = 1e-3
"""First damping, relative to the diagonal of the curvature; a tenth after a step that succeeds, tenfold after one
that fails."""
LARGEST_STEP = 1.0
"""Of any unknown: a factor of e where unknowns are logarithms."""
STUCK = 1e8
"""Damping beyond which a voxel has nowhere left to go."""
ROUNDING = 16
"""Units of rounding within which two signals are the same."""


class Expansion(NamedTuple):
    """A sum of squares about a point: half of it, its gradient and its (Gauss-Newton) curvature.

    energy: of the signal explained there; what changes it by less than rounding is no change.
    """

    cost: Float[Array, "voxels"]
    gradient: Float[Array, "p voxels"]
    curvature: Float[Array, "p p voxels"]
    energy: Float[Array, "voxels"]


class Minimum(NamedTuple):
    """Where a descent ended: the point, steps taken per voxel, and whether the last ones changed nothing."""

    point: Float[Array, "p voxels"]
    iterations: Shaped[Array, "voxels"]
    converged: Shaped[Array, "voxels"]


def solve_small(
    matrix: Float[Array, "p p voxels"], rhs: Float[Array, "p voxels"], floor: Float[Array, "voxels"]
) -> Float[Array, "p voxels"]:
    """Solutions of symmetric positive systems by elimination, without pivoting.

    An unknown whose pivot does not exceed `floor` is not determined by the system: it gets 0. Linear in `rhs`.
    """
    p = len(rhs)
    lower: list[list[Array]] = [[] for _ in range(p)]
    inverse: list[Array] = []
    for i in range(p):
        # Rows of L D, L being unit lower triangular.
        for j in range(i):
            known = sum((lower[i][k] * inverse[k] * lower[j][k] for k in range(j)), jnp.zeros_like(floor))
            lower[i].append(matrix[i, j] - known)
        pivot = matrix[i, i] - sum((lower[i][k] ** 2 * inverse[k] for k in range(i)), jnp.zeros_like(floor))
        sound = pivot > floor
        inverse.append(jnp.where(sound, 1 / jnp.where(sound, pivot, 1), 0))
    forward: list[Array] = []
    for i in range(p):
        forward.append(rhs[i] - sum((lower[i][k] * inverse[k] * forward[k] for k in range(i)), jnp.zeros_like(floor)))
    solution: list[Array] = [jnp.zeros_like(floor)] * p
    for i in reversed(range(p)):
        later = sum((lower[k][i] * solution[k] for k in range(i + 1, p)), jnp.zeros_like(floor))
        solution[i] = (forward[i] - later) * inverse[i]
    return jnp.stack(solution)


def undetermined(energy: Float[Array, "voxels"]) -> Float[Array, "voxels"]:
    """Curvature below which an unknown leaves no trace in a signal of this energy."""
    return ROUNDING * jnp.finfo(energy.dtype).eps * energy


def held(
    point: Float[Array, "p voxels"], gradient: Float[Array, "p voxels"], low: Float[Array, "p"], high: Float[Array, "p"]
) -> Shaped[Array, "p voxels"]:
    """Unknowns that lie at a bound and would leave it."""
    below, above = point <= low[:, None], point >= high[:, None]
    return below & (gradient > 0) | above & (gradient < 0)


def free_only(
    matrix: Float[Array, "p p voxels"], fixed: Shaped[Array, "p voxels"]
) -> tuple[Float[Array, "p p voxels"], Shaped[Array, "p voxels"]]:
    """The system of the unknowns that are free, and 1 or 0 for each: those held keep a row of zeros."""
    free = (~fixed).astype(matrix.dtype)
    return matrix * free[:, None] * free[None], free


def levenberg_marquardt(
    expand: Callable[[Float[Array, "p voxels"]], Expansion],
    start: Float[Array, "p voxels"],
    low: Float[Array, "p"],
    high: Float[Array, "p"],
    *,
    tolerance: float,
    max_iterations: int,
) -> Minimum:
    """Descend to the nearest minimum of each voxel's sum of squares within `low <= point <= high`.

    A voxel has converged when a step moves every unknown by at most `tolerance`, or when it changes the signal by
    less than rounding does. All voxels step until the last one has ended, or `max_iterations`; those that ended
    stay where they are. No derivatives: see what calls it.
    """
    p, n = start.shape
    same = ROUNDING * jnp.finfo(start.dtype).eps
    diagonal = jnp.eye(p, dtype=start.dtype)[..., None]

    def unfinished(state):
        *_, going, evaluations = state
        return jnp.any(going) & (evaluations <= max_iterations)

    def step(state):
        trial, point, at, damping, settled, iterations, going, evaluations = state
        there = expand(trial)
        # Rounding of the signal, by `same` of its norm, changes the cost by that times the residual.
        whole = at.energy + 2 * at.cost
        better = there.cost <= at.cost + same * jnp.sqrt(at.cost * whole) + same**2 * whole
        point = _choose(going & better, trial, point)
        at = Expansion(*(_choose(going & better, new, old) for new, old in zip(there, at, strict=True)))
        damping = jnp.where(better, damping / 10, damping * 10)
        iterations = iterations + (going & (evaluations > 0))
        going = going & ~settled & (damping < STUCK)

        curvature, free = free_only(at.curvature, held(point, at.gradient, low, high))
        damped = curvature * (1 + damping[None, None] * diagonal)
        move = -solve_small(damped, at.gradient * free, undetermined(at.energy))
        trial = jnp.clip(point + jnp.clip(move, -LARGEST_STEP, LARGEST_STEP), low[:, None], high[:, None])
        moved = trial - point
        small = jnp.max(jnp.abs(moved), axis=0) <= tolerance
        change = jnp.sum(moved[:, None] * curvature * moved[None], axis=(0, 1))
        # A damped step is small for another reason.
        ending = (small | (change <= same**2 * (at.energy + 2 * at.cost))) & (damping <= 1)
        settled = jnp.where(going, ending, settled)
        return trial, point, at, damping, settled, iterations, going, evaluations + 1

    # The first evaluation, that of the start, is better than nothing.
    zero = jnp.zeros(n, start.dtype)
    nothing = Expansion(zero + jnp.inf, jnp.zeros((p, n), start.dtype), jnp.zeros((p, p, n), start.dtype), zero)
    counts = jnp.zeros(n, jnp.int32), jnp.ones(n, bool), jnp.zeros((), jnp.int32)
    state = start, start, nothing, zero + 10 * DAMPING, jnp.zeros(n, bool), *counts
    _, point, _, _, settled, iterations, going, _ = jax.lax.while_loop(unfinished, step, state)
    return Minimum(point, iterations, settled & ~going)


def _choose(first, these, those):
    """Entries of `these` where `first`, of `those` elsewhere, along the last axis."""
    return jnp.where(first.reshape(*[1] * (these.ndim - 1), -1), these, those)
