r"""Least squares with one complex factor: the maths of `jaxmr.recon.fit`, voxel axis last.

    minimise  |m0 f(p) - y|^2 + sum_k lambda_k |p_k - prior_k|^2

m0 is eliminated (variable projection: Golub and Pereyra, Inverse Problems 19:R1, 2003); the unknowns p are counted
in coordinates, the logarithm of those that are positive.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Float, Shaped
from jaxmr.core.voxelwise import Expansion, free_only, solve_small, undetermined
from jaxmr.recon.relaxometry import SignalModel

WRITTEN_OUT = 16
"""Times whose sum is written out: a quarter of the time of a reduction on a CPU."""


class Problem(eqx.Module):
    """What defines the minimum: leaves `(n_times, voxels)` and `(voxels,)`. Names without a prior are left out."""

    model: SignalModel
    data: Shaped[Array, "n_times voxels"]
    known: dict[str, Shaped[Array, "voxels"]]
    prior: dict[str, Shaped[Array, "voxels"]]
    weights: dict[str, Float[Array, "voxels"]]


@eqx.filter_custom_jvp
def at_minimum(problem: Problem, point):
    """Coordinates of the unknowns and m0 at a minimum, `point` of `problem`: no search, but its derivatives."""
    shape = signal(problem, point)
    total, projection = projected(problem, shape)
    return point, projection / jnp.where(total > 0, total, 1)


@at_minimum.def_jvp
def _implicit(primals, tangents):
    """dx = -H^-1 dF: F is the gradient of the sum of squares, 0 at the minimum, H its derivative there.

    H is (unknowns, m0) with a multiple of the identity for m0, so that one p x p system remains.
    """
    problem, given = primals
    point, m0 = at_minimum(problem, given)
    _, changes = eqx.filter_jvp(lambda problem: _stationarity(problem, point, m0), (problem,), (tangents[0],))
    # None where nothing changes.
    d_unknowns, d_m0 = (jnp.zeros_like(x) if d is None else d for x, d in zip((point, m0), changes, strict=True))
    columns = [
        jax.jvp(lambda point: _stationarity(problem, point, m0), (point,), (one,))[1] for one in _directions(point)
    ]
    hessian = jnp.stack([column for column, _ in columns])
    coupling = jnp.stack([column for _, column in columns])
    total, _ = projected(problem, signal(problem, point))
    share = 1 / jnp.where(total > 0, total, 1)
    reduced = hessian - (coupling.conj()[:, None] * coupling[None]).real * share[None, None]
    rhs = d_unknowns - (coupling.conj() * (d_m0 * share)[None]).real
    low, high = limits(problem.model, point.dtype)
    reduced, free = free_only(reduced, (point <= low[:, None]) | (point >= high[:, None]))
    moved = -solve_small(reduced, rhs * free, undetermined(_energy(problem, point, m0, total)))
    return (point, m0), (moved, -(d_m0 + jnp.sum(coupling * moved, axis=0)) * share)


def _stationarity(problem, point, m0):
    """Half the gradient of the sum of squares by the unknowns' coordinates (real) and by m0 (as d/d conj(m0) x 2)."""
    shape, slopes = _signal_and_slopes(problem, point)
    left = m0[None] * shape - problem.data
    by_m0 = inner(shape, left)
    if "m0" in problem.prior:
        by_m0 = by_m0 + problem.weights["m0"] * (m0 - problem.prior["m0"])
    data_part = [(m0.conj() * inner(slope, left)).real for slope in slopes]
    pull, _, _ = penalties(problem, point)
    return jnp.stack(data_part) + pull, by_m0


def expand(problem, point) -> Expansion:
    """The sum of squares after m0 is eliminated, with the Gauss-Newton curvature of what is left."""
    shape, slopes = _signal_and_slopes(problem, point)
    total, projection = projected(problem, shape)
    share = 1 / jnp.where(total > 0, total, 1)
    m0 = projection * share
    left = m0[None] * shape - problem.data
    pull, curvature, penalty = penalties(problem, point)
    cost = (inner(left, left).real + penalty) / 2
    if "m0" in problem.prior:
        off = m0 - problem.prior["m0"]
        cost = cost + problem.weights["m0"] * (off.conj() * off).real / 2
    size = (m0.conj() * m0).real
    gradient = jnp.stack([(m0.conj() * inner(slope, left)).real for slope in slopes]) + pull
    mixed = [inner(shape, slope) * share for slope in slopes]
    rows = [
        [size * (inner(a, b) - total * u.conj() * v).real for b, v in zip(slopes, mixed, strict=True)]
        for a, u in zip(slopes, mixed, strict=True)
    ]
    matrix = (
        jnp.stack([jnp.stack(row) for row in rows])
        + curvature[None] * jnp.eye(len(slopes), dtype=size.dtype)[..., None]
    )
    return Expansion(cost, gradient, matrix, _energy(problem, point, m0, total))


def limits(model: SignalModel, dtype) -> tuple[Float[Array, "p"], Float[Array, "p"]]:
    """Bounds of the unknowns' coordinates."""
    edges = [(jnp.log(low), jnp.log(high)) if low > 0 else (low, high) for _, low, high in model.bounds]
    low, high = zip(*edges, strict=True)
    return jnp.array(low, dtype), jnp.array(high, dtype)


def values_at(model: SignalModel, point: Any) -> dict[str, Any]:
    """Unknowns by name from their coordinates `(p, ...)`."""
    return {name: jnp.exp(x) if low > 0 else x for (name, low, _), x in zip(model.bounds, point, strict=True)}


def coordinates_of(model: SignalModel, values: dict[str, Any]) -> Float[Array, "p voxels"]:
    """Coordinates of unknowns, within the bounds."""
    clipped = {name: jnp.clip(values[name], low, high) for name, low, high in model.bounds}
    return jnp.stack([jnp.log(clipped[name]) if low > 0 else clipped[name] for name, low, _ in model.bounds])


def signal(problem, point):
    """Signals of m0 = 1, (n_times, voxels); one column serves all voxels where no map differs between them."""
    model = problem.model

    def one(point, known):
        return model.shape(**values_at(model, point), **known)

    shape = jax.vmap(one, in_axes=(-1, 0), out_axes=-1)(point, problem.known)
    return shape if jnp.iscomplexobj(shape) else shape.astype(point.dtype)


def _signal_and_slopes(problem, point):
    """Signals of m0 = 1 and their derivatives by each coordinate of the unknowns."""
    shape, slopes = signal(problem, point), []
    for one in _directions(point):
        slopes.append(jax.jvp(lambda point: signal(problem, point), (point,), (one,))[1])
    return shape, slopes


def _directions(point):
    """One tangent per unknown, for all voxels at once: each voxel's signal is its own."""
    return [jnp.zeros_like(point).at[k].set(1) for k in range(len(point))]


def projected(problem, shape):
    """The quadratic in m0: its curvature |f|^2 + lambda, and what that is to be equal to m0 times."""
    total, projection = inner(shape, shape).real, inner(shape, problem.data)
    if "m0" in problem.prior:
        weight = problem.weights["m0"]
        total, projection = total + weight, projection + weight * problem.prior["m0"]
    return total, projection


def penalties(problem, point):
    """Gradient and curvature of half the penalty by the coordinates, both (p, voxels), and the penalty (voxels,)."""
    values = values_at(problem.model, point)
    pulls, curvatures, penalty = [], [], jnp.zeros_like(point[0])
    for (name, low, _), value in zip(problem.model.bounds, values.values(), strict=True):
        slope = value if low > 0 else jnp.ones_like(value)
        weight = problem.weights.get(name, jnp.zeros_like(value))
        off = value - problem.prior.get(name, jnp.zeros_like(value))
        pulls.append(weight * slope * off)
        curvatures.append(weight * slope**2)
        penalty = penalty + weight * off**2
    return jnp.stack(pulls), jnp.stack(curvatures), penalty


def _energy(problem, point, m0, total):
    """Of signal and penalties: the scale against which a curvature is nothing."""
    _, curvature, _ = penalties(problem, point)
    return (m0.conj() * m0).real * total + jnp.sum(curvature, axis=0)


def inner(a, b):
    """Sum over times of conj(a) b, per voxel; a real factor multiplies the parts of a complex one."""
    if jnp.iscomplexobj(b) and not jnp.iscomplexobj(a):
        return jax.lax.complex(_total(a * b.real), _total(a * b.imag))
    return _total(a.conj() * b)


def _total(products):
    """Sum over the leading axis; written out where it is short, so that it fuses with what makes the terms."""
    return functools.reduce(jnp.add, products) if len(products) <= WRITTEN_OUT else jnp.sum(products, axis=0)
