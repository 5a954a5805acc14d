"""What a sequence asks of the scanner and the patient, with gradients: amplitude, slew, duration, RF energy.

Units as in Pulseq: Hz/m, Hz/m/s, s, Hz^2 s, Hz.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmr.pulseq.blocks import AXES, Block
from jaxmr.pulseq.live import factored, stack, value
from jaxmr.pulseq.live.evaluation import evaluate


class Constraints(NamedTuple):
    """gradient, slew: the largest of each axis, (3,). rf_energy: integral of |B1|^2. peak_b1: the largest |B1|."""

    gradient: Any
    slew: Any
    duration: Any
    rf_energy: Any
    peak_b1: Any


def constraints(sequence: Any) -> Constraints:
    """The constraint quantities of a drop-in `Sequence`, differentiable in its live numbers."""
    return evaluate(demands(sequence.blocks()), {})


def demands(blocks: Sequence[Block]) -> Constraints:
    """The same with live numbers, of a list of blocks."""
    if any(block.rotation is not None for block in blocks):
        raise ValueError("the blocks have rotations; constraints are per axis: turn the gradients themselves first")
    amplitudes: list[list] = [[0.0], [0.0], [0.0]]
    slews: list[list] = [[0.0], [0.0], [0.0]]
    energies, peaks = [0.0], [0.0]
    seen: dict[int, tuple] = {}
    for block in blocks:
        for i, axis in enumerate(AXES):
            gradient = getattr(block, axis)
            if gradient is not None:
                amplitude, slew = seen.setdefault(id(gradient), gradient_demand(gradient))
                amplitudes[i].append(amplitude)
                slews[i].append(slew)
        if block.rf is not None:
            energy, peak = seen.setdefault(id(block.rf), rf_demand(block.rf))
            energies.append(energy)
            peaks.append(peak)
    return Constraints(
        stack([np.max(stack(axis)) for axis in amplitudes]),
        stack([np.max(stack(axis)) for axis in slews]),
        np.sum(stack([block.duration for block in blocks])),
        np.sum(stack(energies)),
        np.max(stack(peaks)),
    )


def gradient_demand(gradient: Any) -> tuple[Any, Any]:
    """Largest amplitude and slew of one gradient; edges of no duration have no slew."""
    if gradient.type == "trap":
        edges = [abs(gradient.amplitude) / t for t in (gradient.rise_time, gradient.fall_time) if value(t) > 0]
        return abs(gradient.amplitude), np.max(stack(edges)) if edges else 0.0
    start, end = int(value(gradient.tt)[0] > 0), int(value(gradient.tt)[-1] < value(gradient.shape_dur))
    times = np.concatenate([[0.0] * start, gradient.tt, [gradient.shape_dur] * end])
    waveform = np.concatenate([[gradient.first] * start, gradient.waveform, [gradient.last] * end])
    return np.max(np.abs(waveform)), np.max(np.abs(np.diff(waveform) / np.diff(times)))


def rf_demand(rf: Any) -> tuple[Any, Any]:
    """Energy and peak of one pulse: samples hold for their dwell time, points at the edges are joined by lines."""
    parts = factored(rf.signal)
    if parts is not None:
        energy, peak = rf_demand_of(parts[0], rf)
        return energy * abs(parts[1]) ** 2, peak * abs(parts[1])
    return rf_demand_of(rf.signal, rf)


def rf_demand_of(signal: Any, rf: Any) -> tuple[Any, Any]:
    magnitude = np.abs(signal)
    if value(rf.t)[0] > 0:
        return np.sum(magnitude**2) * rf.shape_dur / len(signal), np.max(magnitude)
    left, right = magnitude[:-1], magnitude[1:]
    return np.sum((left**2 + left * right + right**2) * np.diff(rf.t) / 3), np.max(magnitude)
