r"""Gradients that follow given moments: the smoothest straight lines between raster times whose integrals they are.

$\min_g \|D_2 g\|^2$ with the integral of $g$ from each time to the next given, as one sparse linear system; where the
times are closer than the raster, the integrals are met as well as they can be. Times in s, moments in rad/m.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from jaxmr.core.types import Float
from jaxmr.pulseq.synthesis.limits import Limits, down, up
from jaxmr.pulseq.synthesis.trapezoids import ramp

SOFT = 1e-11
"""Weight of the integrals against the roughness: they are met to about this."""


class Curve(NamedTuple):
    """A gradient that begins and ends at 0. times (nodes,) from any origin; heights (nodes, 3), Hz/m."""

    times: np.ndarray
    heights: np.ndarray

    def moment_until(self, time: float) -> np.ndarray:
        """Wound since the begin, (3,), rad/m."""
        nodes = np.append(self.times[self.times < time], min(time, self.times[-1]))
        heights = np.stack([np.interp(nodes, self.times, column) for column in self.heights.T], axis=-1)
        return 2 * math.pi * np.trapezoid(heights, nodes, axis=0)

    def excess(self, limits: Limits) -> tuple[float, float]:
        """Largest amplitude and slew rate over what is allowed."""
        slew = np.abs(np.diff(self.heights, axis=0) / np.diff(self.times)[:, None]).max()
        return float(np.abs(self.heights).max() / limits.strongest), float(slew / limits.steepest)


def following(times: Float[np.ndarray, "n"], moments: Float[np.ndarray, "n 3"], limits: Limits) -> Curve:
    """The gradient that winds, from the first time to each, what the moments differ; ramps are before and after."""
    from scipy.sparse import block_array, csr_array, eye_array
    from scipy.sparse.linalg import spsolve

    raster = limits.rasters.grad
    first = down(times[0], raster)
    nodes = first + raster * np.arange(max(round((up(times[-1], raster) - first) / raster), 2) + 1)
    integrals = csr_array(_integrals((times - first) / raster, len(nodes)))
    wanted = np.diff(moments, axis=0) / (2 * math.pi * raster)
    bend = csr_array(np.diff(np.eye(len(nodes)), 2, axis=0))
    soft = -SOFT * eye_array(len(wanted))
    system = block_array([[bend.T @ bend, integrals.T], [integrals, soft]], format="csc")
    heights = np.asarray(spsolve(system, np.concatenate([np.zeros((len(nodes), 3)), wanted])))[: len(nodes)]
    before, after = (ramp(float(np.abs(heights[end]).max()), limits) for end in (0, -1))
    return Curve(
        np.concatenate([[first - before], nodes, [nodes[-1] + after]]),
        np.concatenate([np.zeros((1, 3)), heights, np.zeros((1, 3))]),
    )


def _integrals(times: np.ndarray, n: int) -> np.ndarray:
    """Of a line between `n` nodes a unit apart, from each time to the next, as weights of the nodes, (times - 1, n)."""
    weights = np.zeros((len(times) - 1, n))
    for i, (start, stop) in enumerate(itertools.pairwise(times.tolist())):
        cuts = [start, *range(math.floor(start) + 1, math.ceil(stop)), stop]
        for low, high in itertools.pairwise(cuts):
            cell = min(math.floor((low + high) / 2), n - 2)
            since, until = low - cell, high - cell
            later = (until**2 - since**2) / 2
            weights[i, cell] += until - since - later
            weights[i, cell + 1] += later
    return weights
