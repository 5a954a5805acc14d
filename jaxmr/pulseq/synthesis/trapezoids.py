"""Trapezoids within the limits of a scanner: ramps, the shortest that wind a moment, blocks of aligned ones.

Times in s, moments in rad/m; amplitudes in Hz/m as in `blocks`.
"""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxmr.pulseq.blocks import AXES, Block
from jaxmr.pulseq.synthesis.limits import SLACK, Limits, near, up

NOTHING = 1e-6
"""Moments of less, rad/m, are none."""


def ramp(amplitude: float, limits: Limits) -> float:
    """Time to get to that amplitude (Hz/m)."""
    return max(up(abs(amplitude) / limits.steepest, limits.rasters.grad), limits.rasters.grad)


def rise_of(moment: np.ndarray, time: float, limits: Limits) -> float | None:
    """Ramps of the trapezoids that wind a moment (3,) in this time, the shortest ones; None if it is too short."""
    area, raster = np.abs(moment).max() / (2 * math.pi), limits.rasters.grad
    root = time**2 - 4 * area / limits.steepest
    if time < 2 * raster or root < -(raster**2):
        return None
    rise = max(up((time - math.sqrt(max(root, 0.0))) / 2, raster), raster)
    fits = 2 * rise <= time + SLACK * raster and area <= limits.strongest * (time - rise) * (1 + 1e-9)
    return rise if fits and area <= limits.steepest * rise * (time - rise) * (1 + 1e-9) else None


def shortest(moment: np.ndarray, limits: Limits) -> float:
    """The least time in which trapezoids wind a moment (3,)."""
    area = np.abs(moment).max() / (2 * math.pi)
    if 2 * math.pi * area < NOTHING:
        return 0.0
    time = 2 * math.sqrt(area / limits.steepest)
    if time * limits.steepest / 2 > limits.strongest:
        time = area / limits.strongest + limits.strongest / limits.steepest
    time = up(time, limits.raster)
    while rise_of(moment, time, limits) is None:
        time += limits.raster
    return time


def trapezoid(axis: int, amplitude: float, rise: float, flat: float, delay: float = 0.0) -> SimpleNamespace:
    """One gradient event."""
    return SimpleNamespace(
        type="trap",
        channel="xyz"[axis],
        amplitude=amplitude,
        rise_time=rise,
        flat_time=flat,
        fall_time=rise,
        delay=delay,
    )


def winder(moment: np.ndarray, time: float, limits: Limits) -> Block | None:
    """A block of this time that winds a moment (3,) by aligned trapezoids; None if it is too short."""
    time = near(time, limits.raster)
    if np.abs(moment).max() < NOTHING:
        return Block(time) if time >= 0 else None
    rise = rise_of(moment, time, limits)
    if rise is None:
        return None
    flat = near(time - 2 * rise, limits.rasters.grad)
    amplitudes = moment / (2 * math.pi * (rise + flat))
    events: dict[str, Any] = {
        AXES[axis]: trapezoid(axis, float(amplitude), rise, flat)
        for axis, amplitude in enumerate(amplitudes)
        if abs(moment[axis]) >= NOTHING
    }
    return Block(time, **events)
