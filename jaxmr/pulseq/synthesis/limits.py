"""What a scanner can play: limits of its gradients, RF and receiver, and the rasters on which times lie.

Times in s; amplitudes of gradients in Hz/m as in `blocks`.
"""

import math
from typing import NamedTuple

from jaxmr.pulseq.blocks import Rasters
from jaxmr.units import GAMMA, ms, mT, us

SLACK = 1e-6
"""Part of a raster step by which times may miss it."""


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
