"""What a scanner can play: limits of its gradients, RF and receiver, and the trapezoids within them.

Times in s, moments in rad/m; amplitudes of gradients in Hz/m as in `blocks`. Times lie on rasters.
"""

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxmr.pulseq.blocks import Block
from jaxmr.pulseq.conversion.moments import AXES
from jaxmr.pulseq.seqfile.events import Rasters
from jaxmr.units import GAMMA, ms, mT, us

SLACK = 1e-6
"""Part of a raster step by which times may miss it."""
NOTHING = 1e-6
"""Moments of less, rad/m, are none."""


class Limits(NamedTuple):
    """max_grad: T/m. max_slew: T/m/s. max_b1: T. rf_dead_time, rf_ringdown_time: s before and after a pulse.

    adc_dead_time: s before and after samples. gamma: rad/(s T).
    """

    max_grad: float = 40 * mT
    max_slew: float = 150.0
    max_b1: float = 0.02 * mT
    rf_dead_time: float = 0.1 * ms
    rf_ringdown_time: float = 30 * us
    adc_dead_time: float = 10 * us
    rasters: Rasters = Rasters()
    gamma: float = GAMMA

    @property
    def steepest(self) -> float:
        """Hz/m/s."""
        return self.max_slew * self.gamma / (2 * math.pi)

    @property
    def strongest(self) -> float:
        """Hz/m."""
        return self.max_grad * self.gamma / (2 * math.pi)

    @property
    def raster(self) -> float:
        """Of gradients that begin and end with blocks."""
        return max(self.rasters.grad, self.rasters.block)


USUAL = Limits()
"""Those of a clinical scanner, taken gently."""


def down(time: float, raster: float) -> float:
    """The last multiple of the raster that is not later."""
    return math.floor(time / raster + SLACK) * raster


def up(time: float, raster: float) -> float:
    """The first that is not earlier."""
    return math.ceil(time / raster - SLACK) * raster


def near(time: float, raster: float) -> float:
    """The nearest one."""
    return round(time / raster) * raster


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


def winding(moment: np.ndarray, time: float, limits: Limits) -> Block | None:
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
