"""A sequence as the times and gradient moments that a model of k-space needs, repetition by repetition.

Leading axis of every array: the repetitions of a segment. Times in seconds from the pulse, moments in rad/m wound
since the pulse.
"""

from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence


class Readout(NamedTuple):
    """An event that takes samples.

    start_time (n,), start_moment (n, 3): at its begin. step_time () or (n,), step_moment (3,) or (n, 3): from one
    sample to the next. path: moments at the samples instead, (samples, 3) or (n, samples, 3). receiver: phase, () or
    (n,), or None.
    """

    start_time: Any
    start_moment: Any
    step_time: Any
    step_moment: Any
    path: Any
    receiver: Any
    samples: int


class Timeline(NamedTuple):
    """One segment.

    flip, phase (n,), None without a pulse; a quarter turn in quadrature is part of the phase. efficiency: of an
    inversion, None without one. time (n,), moment (n, 3): of the whole repetition. spread: for diffusion, the
    moments m(t) of the repetition as `(integral of m dt (n, 3), integral of m^2 dt (n,))`.
    """

    flip: Any
    phase: Any
    efficiency: Any
    time: Any
    moment: Any
    spread: tuple[Any, Any]
    readouts: tuple[Readout, ...]
    repetitions: int


def timelines(sequence: Sequence, xp: ModuleType) -> list[Timeline]:
    """All segments, computed by `xp`: NumPy in float64 for plans, jax.numpy in a simulation."""
    if xp is np:
        sequence = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sequence)
    return [_timeline(segment, xp) for segment in sequence.segments]


def _timeline(segment: Segment, xp: ModuleType) -> Timeline:
    n, pulse = segment.repetitions, segment.pulse
    flip = phase = efficiency = None
    if isinstance(pulse, Pulse):
        flip = xp.broadcast_to(pulse.flip, (n,))
        phase = xp.zeros_like(flip) if pulse.phase is None else xp.broadcast_to(pulse.phase, (n,))
        phase = phase + xp.pi / 2 if pulse.quadrature else phase
    elif isinstance(pulse, Inversion):
        efficiency = 1.0 if pulse.efficiency is None else pulse.efficiency
    time, moment = xp.zeros(n), xp.zeros((n, 3))
    first, second = xp.zeros((n, 3)), xp.zeros(n)
    readouts = []
    for event in segment.events:
        change = xp.zeros(3) if event.moment is None else event.moment
        if event.samples:
            readouts.append(_readout(event, time, moment, change))
        path = change[..., None, :] if event.path is None else event.path
        linear, square = _integrals(moment, path, xp.broadcast_to(event.duration, (n,)), xp)
        first, second = first + linear, second + square
        time, moment = time + event.duration, moment + change
    return Timeline(flip, phase, efficiency, time, moment, (first, second), tuple(readouts), n)


def _readout(event: Event, time, moment, change) -> Readout:
    step = event.duration / event.samples
    return Readout(time, moment, step, change / event.samples, event.path, event.receiver_phase, event.samples)


def _integrals(start, path, duration, xp: ModuleType) -> tuple[Any, Any]:
    """Of an event that begins at the moment `start` (n, 3): the integrals of m and of m^2 over its duration (n,)."""
    n, steps = duration.shape[0], path.shape[-2]
    after = start[:, None] + xp.broadcast_to(path, (n, steps, 3))
    before = xp.concatenate([start[:, None], after[:, :-1]], axis=1)
    step = (duration / steps)[:, None]
    linear = step * xp.sum(before + after, axis=1) / 2
    square = step[:, 0] * xp.sum(before**2 + before * after + after**2, axis=(1, 2)) / 3
    return linear, square
