"""The fit of closed-form models, voxel axis last: the search for a minimum and the derivatives of it.

`jaxmr.recon.fitting` is its front door, `jaxmr.recon.separable` the sum of squares.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.types import Array, Float, Shaped
from jaxmr.core.voxelwise import Expansion, free_only, solve_small, undetermined
from jaxmr.recon import separable
from jaxmr.recon.relaxometry import SignalModel
from jaxmr.recon.separable import Objective

GRID = (64, 16, 8)
"""Starting values along each of one, two or three and more unknowns."""


class Problem(eqx.Module):
    """What defines the minima of many voxels."""

    model: SignalModel
    known: dict[str, Shaped[Array, "voxels"]]
    objective: Objective


def signal(problem: Problem, point) -> Shaped[Array, "n_times voxels"]:
    """Signals of m0 = 1; one column serves all voxels where no map differs between them."""

    def one(point, known):
        return problem.model.shape(**separable.values_at(problem.model.bounds, point), **known)

    shape = jax.vmap(one, in_axes=(-1, 0), out_axes=-1)(point, problem.known)
    return shape if jnp.iscomplexobj(shape) else shape.astype(point.dtype)


def expand(problem: Problem, point) -> Expansion:
    """The sum of squares about a point."""
    return separable.expansion(problem.objective, point, *_signal_and_slopes(problem, point))


def best_on_grid(problem: Problem) -> Float[Array, "p voxels"]:
    """The point of a coarse grid with the smallest sum of squares, voxel by voxel; its middle without signal."""
    objective = problem.objective
    low, high = separable.limits(problem.model.bounds, objective.data.real.dtype)
    p, n_voxels = len(low), objective.data.shape[1]
    n = GRID[min(p, len(GRID)) - 1]
    places = np.array(list(itertools.product((np.arange(n) + 0.5) / n, repeat=p)))
    nodes = low[None] + (high - low)[None] * jnp.asarray(places, low.dtype)

    def attempt(state, node):
        best, lowest = state
        i, place = node
        point = jnp.broadcast_to(place[:, None], (p, n_voxels if problem.known else 1))
        total, projection = separable.projected(objective, signal(problem, point))
        gain = (projection.conj() * projection).real / jnp.where(total > 0, total, 1)
        cost = separable.penalties(objective, jnp.broadcast_to(point, (p, n_voxels)))[2] - gain
        return (jnp.where(cost < lowest, i, best), jnp.minimum(cost, lowest)), None

    # Where no node gains anything: the middle.
    lowest = jnp.full(n_voxels, jnp.inf if objective.prior else 0, low.dtype)
    state = jnp.full(n_voxels, len(nodes)), lowest
    (best, _), _ = jax.lax.scan(attempt, state, (jnp.arange(len(nodes)), nodes), unroll=4)
    return jnp.concatenate([nodes, (low + high)[None] / 2]).T[:, best]


@eqx.filter_custom_jvp
def at_minimum(problem: Problem, point):
    """Coordinates of the unknowns, and m0, at a minimum `point` of `problem`: no search, but its derivatives."""
    return point, separable.best_m0(problem.objective, signal(problem, point))


@at_minimum.def_jvp
def _implicit(primals, tangents):
    """dx = -H^-1 dF: F is the gradient of the sum of squares, 0 at the minimum, H its derivative there.

    H is a multiple of the identity for m0, so that one p x p system of the unknowns remains. `point` itself has no
    derivative: it says where the minimum lies, and no more.
    """
    problem, given = primals
    point, m0 = at_minimum(problem, given)
    _, changes = eqx.filter_jvp(lambda problem: _gradient(problem, point, m0), (problem,), (tangents[0],))
    # None where nothing changes.
    d_unknowns, d_m0 = (jnp.zeros_like(x) if d is None else d for x, d in zip((point, m0), changes, strict=True))
    columns = [jax.jvp(lambda point: _gradient(problem, point, m0), (point,), (one,))[1] for one in _directions(point)]
    hessian = jnp.stack([column for column, _ in columns])
    coupling = jnp.stack([column for _, column in columns])
    total, _ = separable.projected(problem.objective, signal(problem, point))
    share = 1 / jnp.where(total > 0, total, 1)
    reduced = hessian - (coupling.conj()[:, None] * coupling[None]).real * share[None, None]
    rhs = d_unknowns - (coupling.conj() * (d_m0 * share)[None]).real
    low, high = separable.limits(problem.model.bounds, point.dtype)
    reduced, free = free_only(reduced, (point <= low[:, None]) | (point >= high[:, None]))
    floor = undetermined(separable.energy(problem.objective, point, m0, total))
    moved = -solve_small(reduced, rhs * free, floor)
    return (point, m0), (moved, -(d_m0 + jnp.sum(coupling * moved, axis=0)) * share)


def _gradient(problem, point, m0):
    return separable.gradient(problem.objective, point, m0, *_signal_and_slopes(problem, point))


def _signal_and_slopes(problem, point):
    """Signals of m0 = 1 and their derivatives by each coordinate of the unknowns."""
    of = lambda point: signal(problem, point)  # noqa: E731
    return of(point), [jax.jvp(of, (point,), (one,))[1] for one in _directions(point)]


def _directions(point):
    """One tangent per unknown, for all voxels at once: each voxel's signal is its own."""
    return [jnp.zeros_like(point).at[k].set(1) for k in range(len(point))]
