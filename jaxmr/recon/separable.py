r"""Least squares with one factor that is linear, the voxel axis last: what closed-form and exact models share.

    minimise over p, m0    |m0 f(p) - y|^2 + sum_k lambda_k |p_k - prior_k|^2,    m0 among the p_k

m0 is eliminated (variable projection: Golub and Pereyra, Inverse Problems 19:R1, 2003). The unknowns p are counted
in coordinates: the logarithm of those that are positive.
"""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Float, Shaped
from jaxmr.core.voxelwise import Expansion

WRITTEN_OUT = 16
"""Times whose sum is written out: a quarter of the time of a reduction on a CPU."""
Bounds = tuple[tuple[str, float, float], ...]
"""Name, lowest and highest value of each unknown; one whose lowest is positive is counted in its logarithm."""


class Objective(eqx.Module):
    """What is minimised, but for the signal. Names without a prior are left out."""

    bounds: Bounds = eqx.field(static=True)
    data: Shaped[Array, "n_times voxels"]
    prior: dict[str, Shaped[Array, "voxels"]]
    weights: dict[str, Float[Array, "voxels"]]


def limits(bounds: Bounds, dtype) -> tuple[Float[Array, "p"], Float[Array, "p"]]:
    """Bounds of the unknowns' coordinates."""
    edges = [(jnp.log(low), jnp.log(high)) if low > 0 else (low, high) for _, low, high in bounds]
    low, high = zip(*edges, strict=True)
    return jnp.array(low, dtype), jnp.array(high, dtype)


def values_at(bounds: Bounds, point: Any) -> dict[str, Any]:
    """Unknowns by name from their coordinates `(p, ...)`."""
    return {name: jnp.exp(x) if low > 0 else x for (name, low, _), x in zip(bounds, point, strict=True)}


def coordinates_of(bounds: Bounds, values: dict[str, Any]) -> Float[Array, "p voxels"]:
    """Coordinates of unknowns, brought within their bounds."""
    clipped = {name: jnp.clip(values[name], low, high) for name, low, high in bounds}
    return jnp.stack([jnp.log(clipped[name]) if low > 0 else clipped[name] for name, low, _ in bounds])


def projected(objective: Objective, shape) -> tuple[Array, Array]:
    """The quadratic in m0: its curvature |f|^2 + lambda, and what m0 times that must be.

    shape: `(n_times, voxels)`, or one column for all voxels, whose curvature then is one number, too.
    """
    total, projection = inner(shape, shape).real, inner(shape, objective.data)
    if "m0" in objective.prior:
        weight = objective.weights["m0"]
        total, projection = total + weight, projection + weight * objective.prior["m0"]
    return total, projection


def best_m0(objective: Objective, shape) -> Shaped[Array, "voxels"]:
    """The m0 that goes with signals `(n_times, voxels)`; 0 where they are."""
    total, projection = projected(objective, shape)
    return projection / jnp.where(total > 0, total, 1)


def penalties(objective: Objective, point) -> tuple[Array, Array, Array]:
    """Gradient and curvature of half the penalty by the coordinates, (p, voxels), and the penalty, (voxels,)."""
    values = values_at(objective.bounds, point)
    pulls, curvatures, penalty = [], [], jnp.zeros_like(point[0])
    for (name, low, _), value in zip(objective.bounds, values.values(), strict=True):
        slope = value if low > 0 else jnp.ones_like(value)
        weight = objective.weights.get(name, jnp.zeros_like(value))
        off = value - objective.prior.get(name, jnp.zeros_like(value))
        pulls.append(weight * slope * off)
        curvatures.append(weight * slope**2)
        penalty = penalty + weight * off**2
    return jnp.stack(pulls), jnp.stack(curvatures), penalty


def gradient(objective: Objective, point, m0, shape, slopes: Sequence) -> tuple[Array, Array]:
    """Half the derivative of the sum of squares by the coordinates, real, and by m0, its parts as a complex number.

    shape, slopes: signal of m0 = 1 and its derivatives by the coordinates, `(n_times, voxels)` each.
    """
    left = m0[None] * shape - objective.data
    by_m0 = inner(shape, left)
    if "m0" in objective.prior:
        by_m0 = by_m0 + objective.weights["m0"] * (m0 - objective.prior["m0"])
    pull, _, _ = penalties(objective, point)
    return jnp.stack([(m0.conj() * inner(slope, left)).real for slope in slopes]) + pull, by_m0


def expansion(objective: Objective, point, shape, slopes: Sequence) -> Expansion:
    """The sum of squares after m0 is eliminated, with the Gauss-Newton curvature of what is left."""
    total, projection = projected(objective, shape)
    share = 1 / jnp.where(total > 0, total, 1)
    m0 = projection * share
    left = m0[None] * shape - objective.data
    _, curvature, penalty = penalties(objective, point)
    if "m0" in objective.prior:
        off = m0 - objective.prior["m0"]
        penalty = penalty + objective.weights["m0"] * (off.conj() * off).real
    size = (m0.conj() * m0).real
    along = [inner(shape, slope) for slope in slopes]
    rows = [
        jnp.stack([size * (inner(a, b) - u.conj() * v * share).real for b, v in zip(slopes, along, strict=True)])
        for a, u in zip(slopes, along, strict=True)
    ]
    matrix = jnp.stack(rows) + curvature[None] * jnp.eye(len(slopes), dtype=size.dtype)[..., None]
    by_point, _ = gradient(objective, point, m0, shape, slopes)
    cost = (inner(left, left).real + penalty) / 2
    return Expansion(cost, by_point, matrix, energy(objective, point, m0, total))


def energy(objective: Objective, point, m0, total) -> Float[Array, "voxels"]:
    """Of signal and penalties: the scale against which a curvature is nothing."""
    _, curvature, _ = penalties(objective, point)
    return (m0.conj() * m0).real * total + jnp.sum(curvature, axis=0)


def inner(a, b):
    """Sum over times of conj(a) b, per voxel; a real factor multiplies the parts of a complex one."""
    if jnp.iscomplexobj(b) and not jnp.iscomplexobj(a):
        return jax.lax.complex(_total(a * b.real), _total(a * b.imag))
    return _total(a.conj() * b)


def _total(products):
    """Sum over the leading axis; written out where it is short, so that it fuses with what makes the terms."""
    return functools.reduce(jnp.add, products) if len(products) <= WRITTEN_OUT else jnp.sum(products, axis=0)
