"""How much a train is like a trapezoid: low, up a ramp, a plateau, down a ramp, low."""

import itertools
from typing import NamedTuple

import numpy as np

from jaxmr.core.types import Float

COARSE = 32
"""Places that a corner may take at first."""


class Trapezoid(NamedTuple):
    """The best-fitting one: its corners in pulses (from 0), base and plateau in the train's unit, and the curve.

    correlation: Pearson's, of train and curve.
    """

    corners: tuple[float, float, float, float]
    base: float
    plateau: float
    curve: Float[np.ndarray, "n"]
    correlation: float


def fit_trapezoid(train) -> Trapezoid:
    """The trapezoid of the highest correlation with a train (n,), base below plateau; ramps may have no length.

    Its corners may lie up to a quarter of the train outside of it. Over all corners on a coarse grid, which is then
    halved around the best down to quarters of a pulse. The trapezoid that stands on its head is that of `-train`.
    Raises `ValueError` for a constant train.
    """
    train = np.asarray(train, float)
    if train.ndim != 1 or train.size < 4 or not np.ptp(train) > 0:
        raise ValueError(f"train must have 4 or more flips that differ, got shape {train.shape}")
    n = train.size
    low, high = -0.25 * n, 1.25 * n
    places = np.linspace(low, high, COARSE)
    quartets = np.array(list(itertools.combinations_with_replacement(places, 4)))
    best, correlation = _best(quartets, train)
    step = (places[1] - places[0]) / 2
    moves = np.array(list(itertools.product((-1, 0, 1), repeat=4)))
    while step > 0.25:
        near = best + step * moves
        near = near[(np.diff(near) >= 0).all(axis=1) & (near[:, 0] >= low) & (near[:, 3] <= high)]
        moved, found = _best(near, train)
        if found > correlation:
            best, correlation = moved, found
        else:
            step /= 2
    shape = _shapes(best[None], n)[0]
    slope, base = np.polyfit(shape, train, 1)
    rise, top, fall, end = map(float, best)
    return Trapezoid((rise, top, fall, end), float(base), float(base + slope), base + slope * shape, correlation)


def _best(quartets: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, float]:
    centred = train - train.mean()
    correlations = []
    for some in np.array_split(quartets, -(-len(quartets) // 4096)):
        shapes = _shapes(some, train.size)
        shapes = shapes - shapes.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(shapes, axis=1) * np.linalg.norm(centred)
        correlations.append(np.where(norm > 1e-12, shapes @ centred / np.where(norm > 1e-12, norm, 1), -1))
    found = np.concatenate(correlations)
    i = int(found.argmax())
    return quartets[i], float(found[i])


def _shapes(quartets: np.ndarray, n: int) -> np.ndarray:
    """Trapezoids of base 0 and plateau 1 with these corners, (shapes, n)."""
    a, b, c, d = quartets.T[:, :, None]
    pulse = np.arange(n)
    width = lambda low, high: np.maximum(high - low, 1e-9)  # noqa: E731
    return np.clip(np.minimum((pulse - a) / width(a, b), (d - pulse) / width(c, d)), 0, 1)
