r"""What a search turns: from a few numbers to a train, and from named numbers to a sequence.

    build = composed(fisp, {"flip": spline_within(336, 0.0, 90 * deg)}, tr=8.7 * ms, te=4.9 * ms, inversion_time=0.0)
    build({"flip": control})

A map of a train is a pure function of an array, linear or nearly so. A family's other arguments may be unknowns as
well (tr, te, phase, inversion_time), as they are or through a map. Keep the bounds of te below those of tr: a traced
value cannot be checked.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Float
from jaxmr.sequences import trains
from jaxmr.sequences.sequence import Sequence

Map = Callable[[Any], Any]


def composed(
    family: Callable[..., Sequence], maps: Mapping[str, Map] | None = None, **fixed: Any
) -> Callable[[Mapping[str, Any]], Sequence]:
    """The build of `optimise`: parameters by name, through their map if they have one, beside the `fixed` arguments.

    Raises `ValueError` for a map or a parameter of a name that is also fixed, and for a map without a parameter.
    """
    maps = {} if maps is None else dict(maps)
    twice = sorted(set(maps) & set(fixed))
    if twice:
        raise ValueError(f"{', '.join(twice)} cannot be both unknown and fixed; leave it out of one of them")

    def build(parameters: Mapping[str, Any]) -> Sequence:
        twice, missing = sorted(set(parameters) & set(fixed)), sorted(set(maps) - set(parameters))
        if twice or missing:
            raise ValueError(
                f"parameters must be those that are not fixed: {', '.join(twice) or 'none'} fixed as well, "
                f"{', '.join(missing) or 'none'} missing"
            )
        return family(**fixed, **{name: maps.get(name, _same)(value) for name, value in parameters.items()})

    return build


def spline_within(n: int, lowest: float, highest: float) -> Map:
    """A map from control points (m,) to a train (n,): `trains.spline`, clipped to `lowest` ... `highest`.

    A spline overshoots control points that are themselves within the bounds; clipping, as in `trains.random_train`,
    keeps the train within them exactly, and leaves it as it is wherever it is inside. Where it is clipped it has no
    derivative. A `b_spline` needs no clipping.
    """
    if not lowest < highest:
        raise ValueError(f"lowest must be below highest, got {lowest:g} and {highest:g} rad")
    return lambda control: jnp.clip(trains.spline(control, n), lowest, highest)


def b_spline(n: int, degree: int = 3) -> Map:
    """A map from coefficients (m,) to a train (n,): B-splines of `degree` on m - degree equal pieces.

    Every entry is a mean of neighbouring coefficients, the first and the last are those at the ends: bounds of the
    coefficients hold for the train. de Boor, A Practical Guide to Splines (1978).
    """
    if degree < 0 or n < 2:
        raise ValueError(f"b_spline needs a train of n >= 2 and a degree >= 0, got n = {n}, degree = {degree}")

    def train(coefficients: Float[Array, "m"]) -> Float[Array, "n"]:
        m = coefficients.shape[0]
        if not degree < m <= n:
            raise ValueError(f"b_spline of degree {degree} needs {degree + 1} ... n = {n} coefficients, got {m}")
        return matmul(jnp.asarray(_b_spline_basis(m, n, degree), coefficients.dtype), coefficients)

    return train


@functools.lru_cache(maxsize=8)
def _b_spline_basis(m: int, n: int, degree: int) -> np.ndarray:
    """Column i is the i-th B-spline at the pulses, shape (n, m)."""
    from scipy.interpolate import BSpline

    inner = np.linspace(0, 1, m - degree + 1)
    knots = np.concatenate([np.zeros(degree), inner, np.ones(degree)])
    return BSpline.design_matrix(np.linspace(0, 1, n), knots, degree).toarray()


def shared_time(total: float, n: int, shortest: float) -> Map:
    """A map from shares (n,) >= 0 to times (n,) of at least `shortest` that add up to `total`, s.

    A limit on the time of a scan that holds exactly, in place of a penalty.
    """
    spare = total - n * shortest
    if not (shortest >= 0 and spare > 0):
        raise ValueError(f"total must exceed n times shortest, got {total:g} s for {n} times of {shortest:g} s or more")
    return lambda shares: shortest + spare * shares / jnp.sum(shares)


def limited_energy(limit: float, inner: Map | None = None) -> Map:
    """A map to a train whose sum of squared flips is at most `limit`, rad^2: scaled down where it would be more.

    inner: the map before it. The deposited energy (SAR) of pulses of one shape; holds exactly.
    """
    if not limit > 0:
        raise ValueError(f"limit must be a positive sum of squared flips in rad^2, got {limit:g}")
    before = _same if inner is None else inner

    def train(value):
        flips = before(value)
        energy = jnp.sum(flips**2)
        return flips * jnp.sqrt(limit / jnp.maximum(energy, limit))

    return train


def _same(value):
    return value
