"""Gradients of a block: what they have wound by any time, as integrals of straight lines between nodes.

Times in s from the begin of the block, moments in rad/m; numbers may be live.
"""

import bisect
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxmr.pulseq.blocks import Block
from jaxmr.pulseq.live import stack, value


class Winding:
    """The moment that one gradient winds, as a function of time; made once for an event that many blocks play."""

    def __init__(self, gradient: SimpleNamespace):
        self.times, self.heights = _nodes(gradient)
        lengths = self.times[1:] - self.times[:-1]
        areas = (self.heights[1:] + self.heights[:-1]) * lengths / 2
        self.wound = 2 * np.pi * np.concatenate([np.zeros(1), np.cumsum(areas)])
        # Steps of no length are jumps, which no time lies in.
        rises = self.heights[1:] - self.heights[:-1]
        self.slopes = rises / np.where(value(lengths) > 0, lengths, 1.0)
        self.begin, self.end = self.times[0], self.times[-1]
        self._nodes = value(self.times).tolist()

    def until(self, time: Any) -> Any:
        """Moment at `time`, one or many."""
        at = value(time)
        if np.ndim(at):
            i = np.clip(np.searchsorted(self._nodes, at, side="right") - 1, 0, len(self._nodes) - 2)
            return self._within(i, np.clip(time, self.begin, self.end))
        if at >= self._nodes[-1]:
            return self.wound[-1]
        if at <= self._nodes[0]:
            return 0.0
        return self._within(bisect.bisect_right(self._nodes, at) - 1, time)

    def _within(self, i: Any, time: Any) -> Any:
        """Moment at `time` in the step from node `i` on."""
        since = time - self.times[i]
        return self.wound[i] + 2 * np.pi * since * (self.heights[i] + self.slopes[i] * since / 2)


def _nodes(gradient: SimpleNamespace) -> tuple[Any, Any]:
    """Times and heights (Hz/m) between which the gradient is straight."""
    g = gradient
    if g.type == "trap":
        flat = g.delay + g.rise_time
        times = [g.delay, flat, flat + g.flat_time, flat + g.flat_time + g.fall_time]
        return stack(times), stack([0.0, g.amplitude, g.amplitude, 0.0])
    times, heights = stack([g.delay + np.zeros(len(g.tt))]).reshape(-1) + g.tt, g.waveform
    if value(g.tt[0]) > 0:
        times = np.concatenate([stack([g.delay]), times])
        heights = np.concatenate([stack([g.first]), heights])
    if value(g.tt[-1]) < value(g.shape_dur) - 1e-12:
        times = np.concatenate([times, stack([g.delay + g.shape_dur])])
        heights = np.concatenate([heights, stack([g.last])])
    return times, heights


class Windings:
    """The gradients of blocks, each event looked at once."""

    def __init__(self):
        self._known: dict[int, tuple[SimpleNamespace, Winding]] = {}

    def of(self, gradient: SimpleNamespace) -> Winding:
        """Of one event."""
        if id(gradient) not in self._known:
            # The event is kept, so that no other can take its id.
            self._known[id(gradient)] = gradient, Winding(gradient)
        return self._known[id(gradient)][1]

    def edges(self, block: Block) -> list[Any]:
        """Begin of the first gradient and end of the last; none without gradients."""
        found = [self.of(g) for g in (block.gx, block.gy, block.gz) if g is not None]
        first = sorted((winding.begin for winding in found), key=value)
        last = sorted((winding.end for winding in found), key=value)
        return [*first[:1], *last[-1:]]

    def between(self, block: Block, start: Any, end: Any) -> list[Any]:
        """Moment (x, y, z) wound from `start` to `end`, one time or many; 0.0 where there is no gradient."""
        gradients = (block.gx, block.gy, block.gz)
        moment = [0.0 if g is None else self.of(g).until(end) - self.of(g).until(start) for g in gradients]
        if block.rotation is None:
            return moment
        return [sum(block.rotation[row, axis] * moment[axis] for axis in range(3)) for row in range(3)]
