"""Distributions of tissues as points and weights, for designs that should be good on average.

Parameters are independent, in SI units: a number, `Lognormal(median, spread)` or `Uniform(low, high)`. Points whose
t2 exceeds their t1 are no tissues: they are left out, and the weights of the others add up to 1.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmr.core.types import Array, Float
from jaxmr.objects.tissue import Tissue


class Lognormal(NamedTuple):
    """exp(N(log median, spread^2)): a spread of 0.1 is about 10 %."""

    median: float
    spread: float


class Uniform(NamedTuple):
    """Every value between `low` and `high` alike."""

    low: float
    high: float


class Distribution(NamedTuple):
    """Tissues (n,), and the probability of each."""

    tissue: Tissue
    weights: Float[Array, "n"]


def quadrature(n: int = 3, **parameters: float | Lognormal | Uniform) -> Distribution:
    """Gauss quadrature with `n` points along each parameter that varies: exact for polynomials up to degree 2 n - 1.

    Hermite's over the logarithm of a lognormal, Legendre's over a uniform one.
    """
    if n < 1:
        raise ValueError(f"quadrature needs n of at least 1 point for each parameter, got {n}")
    rules = {name: _rule(name, value, n) for name, value in parameters.items()}
    grids = np.meshgrid(*(points for points, _ in rules.values()), indexing="ij")
    weights = functools.reduce(np.multiply.outer, (weights for _, weights in rules.values()), np.ones(()))
    return _tissues({name: grid.ravel() for name, grid in zip(rules, grids, strict=True)}, weights.ravel())


def sampled(n: int, seed: int = 0, **parameters: float | Lognormal | Uniform) -> Distribution:
    """`n` random tissues of equal weight, the same for the same seed."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name, value in parameters.items():
        if isinstance(value, Lognormal):
            columns[name] = _positive(name, value).median * np.exp(value.spread * rng.normal(size=n))
        elif isinstance(value, Uniform):
            columns[name] = rng.uniform(*_ordered(name, value), n)
        else:
            columns[name] = np.full(n, float(value))
    return _tissues(columns, np.ones(n))


def over_b1(tissue: Tissue, low: float, high: float, n: int = 3) -> Tissue:
    """Each tissue at `n` transmit fields from `low` to `high`, along a new last axis of its batch."""
    if not 0 < low <= high or n < 1:
        raise ValueError(f"b1 must run from low > 0 to high >= low in n >= 1 steps, got {low:g} ... {high:g} in {n}")
    shape = (*tissue.shape, n)
    leaves = {
        name: jnp.broadcast_to(value[..., None], shape) for name, value in vars(tissue).items() if value is not None
    }
    return Tissue(**{**leaves, "b1": jnp.broadcast_to(jnp.linspace(low, high, n, dtype=tissue.t1.dtype), shape)})


def _rule(name: str, value, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points, and weights up to a factor."""
    if isinstance(value, Lognormal):
        points, weights = np.polynomial.hermite_e.hermegauss(n)
        return _positive(name, value).median * np.exp(value.spread * points), weights
    if isinstance(value, Uniform):
        points, weights = np.polynomial.legendre.leggauss(n)
        low, high = _ordered(name, value)
        return low + (high - low) * (points + 1) / 2, weights
    return np.array([float(value)]), np.ones(1)


def _positive(name: str, value: Lognormal) -> Lognormal:
    if not (value.median > 0 and value.spread >= 0):
        raise ValueError(f"{name} must have a median > 0 and a spread >= 0, got {value}")
    return value


def _ordered(name: str, value: Uniform) -> Uniform:
    if not value.low <= value.high:
        raise ValueError(f"{name} must have low <= high, got {value}")
    return value


def _tissues(columns: dict[str, np.ndarray], weights: np.ndarray) -> Distribution:
    for name in ("t1", "t2"):
        if name not in columns:
            raise ValueError(f"a distribution of tissues needs {name}=, a number, Lognormal or Uniform")
    possible = columns["t2"] <= columns["t1"]
    if not possible.any():
        raise ValueError("no point has t2 <= t1; give other t1= and t2=")
    kept = weights[possible] / weights[possible].sum()
    leaves = {name: jnp.asarray(values[possible], float) for name, values in columns.items()}
    return Distribution(Tissue(**leaves), jnp.asarray(kept, float))
