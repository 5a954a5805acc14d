"""A sequence as the times and gradient moments that a model of k-space needs, repetition by repetition.

Leading axis of every array: the repetitions of a segment. Times in seconds from the pulse, moments in rad/m wound
since the pulse.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.types import Array
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence

LONGEST = 8
"""Segments of a period: shots have a preparation, a train and a recovery."""
MANY = 16
"""Events in a row from which they are scanned: compiled one by one, each costs isochromats a quarter of a second."""


class Readout(NamedTuple):
    """An event that takes samples.

    start_time (n,), start_moment (n, 3), start_spread: time, moment and spread (as in `Timeline`) until its begin.
    step_time () or (n,), step_moment (3,) or (n, 3): from one sample to the next. path: moments at the samples
    instead, (samples, 3) or (n, samples, 3). receiver: phase, () or (n,), or (n, samples), or None.
    """

    start_time: Any
    start_moment: Any
    start_spread: tuple[Any, Any]
    step_time: Any
    step_moment: Any
    path: Any
    receiver: Any
    samples: int


class Timeline(NamedTuple):
    """One segment.

    flip, phase (n,), None without a pulse; a quarter turn in quadrature is part of the phase. frequency (n,): of its
    carrier, None on resonance. shape: which of the sequence's shapes is played. efficiency: of an inversion,
    None without one. time (n,), moment (n, 3): of the whole repetition. spread: for diffusion, the
    moments m(t) of the repetition as `(integral of m dt (n, 3), integral of m^2 dt (n,))`.
    """

    flip: Any
    phase: Any
    frequency: Any
    shape: int | None
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
    return [timeline_of(segment, xp) for segment in sequence.segments]


def periods(parts: list[Any]) -> list[tuple[int, int, int]]:
    """Runs of `parts` that repeat in structure, (start, length, count) each.

    parts: trees, such as segments; they are alike if they differ in numbers only.
    """
    kinds = [
        (jax.tree.structure(part), tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(part))) for part in parts
    ]
    found, start = [], 0
    while start < len(kinds):
        length, count = 1, 1
        for candidate in range(1, min(LONGEST, len(kinds) - start) + 1):
            n = 1
            while kinds[start : start + candidate] == kinds[start + n * candidate : start + (n + 1) * candidate]:
                n += 1
            if n > 1 and n * candidate > length * count:
                length, count = candidate, n
        found.append((start, length, count))
        start += length * count
    return found


class Run(NamedTuple):
    """Parts played one after the other, `repeats` times; where that is more than once, with leaves (repeats, ...)."""

    parts: list[Any]
    repeats: int


def runs(parts: list[Any], fewest: int = 2) -> list[Run]:
    """All `parts` in order, those `periods` stacked that have at least `fewest` parts."""
    found = []
    for start, length, count in periods(parts):
        chosen = parts[start : start + length * count]
        if count > 1 and len(chosen) >= fewest:
            stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
            found.append(Run([jax.tree.map(stack, *chosen[i::length]) for i in range(length)], count))
        else:
            found.append(Run(chosen, 1))
    return found


def event_runs(segment: Segment) -> list[Run]:
    """The events of one repetition; in an echo-planar train the same few come again and again."""
    return runs(list(segment.events), MANY)


def over_run(play: Callable[[Any, Any], tuple[Any, Any]], carry: Any, run: Run) -> tuple[Any, list]:
    """What is carried after a run, compiled once however often it is played, and its samples (coils, n).

    play(carry, part) -> carry, samples (coils, ...) of the part, or None.
    """

    def period(carry, parts):
        taken = []
        for part in parts:
            carry, samples = play(carry, part)
            taken += [] if samples is None else [samples]
        return carry, taken

    if run.repeats == 1:
        return period(carry, run.parts)
    carry, taken = jax.lax.scan(period, carry, run.parts)
    if not taken:
        return carry, []
    shots = jnp.concatenate([jnp.moveaxis(samples, 0, 1) for samples in taken], axis=2)
    return carry, [shots.reshape(shots.shape[0], -1)]


def over_periods(play: Callable[[Any, Any], tuple[Any, Any]], carry: Any, parts: list[Any]) -> Array:
    """Samples (coils, n) of `parts` played one after the other, each of the `periods` compiled once."""
    total = []
    for run in runs(parts):
        carry, taken = over_run(play, carry, run)
        total += taken
    return jnp.concatenate(total, axis=1)


def timeline_of(segment: Segment, xp: ModuleType) -> Timeline:
    """One segment, computed by `xp`."""
    n, pulse = segment.repetitions, segment.pulse
    flip = phase = frequency = shape = efficiency = None
    if isinstance(pulse, Pulse):
        flip = xp.broadcast_to(pulse.flip, (n,))
        phase = xp.zeros_like(flip) if pulse.phase is None else xp.broadcast_to(pulse.phase, (n,))
        phase, shape = phase + xp.pi / 2 if pulse.quadrature else phase, pulse.shape
        frequency = None if pulse.frequency is None else xp.broadcast_to(pulse.frequency, (n,))
    elif isinstance(pulse, Inversion):
        efficiency = 1.0 if pulse.efficiency is None else pulse.efficiency
    durations = _columns([event.duration for event in segment.events], n, xp)
    changes = _columns([xp.zeros(3) if e.moment is None else e.moment for e in segment.events], n, xp, 3)
    times, moments = _until(durations, xp), _until(changes, xp)
    first, second = _integrals(segment.events, durations, changes, moments[:, :-1], xp)
    first, second = _until(first, xp), _until(second, xp)
    readouts = []
    for i, event in enumerate(segment.events):
        if event.samples:
            change = xp.zeros(3) if event.moment is None else event.moment
            start = times[:, i], moments[:, i], (first[:, i], second[:, i])
            steps = event.duration / event.samples, change / event.samples
            readouts.append(Readout(*start, *steps, event.path, _receiver(event, n, xp), event.samples))
    spread = first[:, -1], second[:, -1]
    played = flip, phase, frequency, shape, efficiency
    return Timeline(*played, times[:, -1], moments[:, -1], spread, tuple(readouts), n)


def _receiver(event: Event, n: int, xp: ModuleType) -> Any:
    if event.modulation is None:
        return event.receiver_phase
    phase = xp.zeros(()) if event.receiver_phase is None else event.receiver_phase
    shape = (n, event.samples)
    return xp.broadcast_to(event.modulation, shape) + xp.broadcast_to(xp.reshape(phase, (-1, 1)), shape)


def _columns(values: list, n: int, xp: ModuleType, *rest: int) -> Any:
    """One column for each event, (n, events, *rest)."""
    if not values:
        return xp.zeros((n, 0, *rest))
    return xp.stack([xp.broadcast_to(value, (n, *rest)) for value in values], axis=1)


def _until(values: Any, xp: ModuleType) -> Any:
    """Sums over the events before each, and over all of them."""
    return xp.concatenate([xp.zeros_like(values[:, :1]), xp.cumsum(values, axis=1)], axis=1)


def _integrals(events: tuple[Event, ...], durations, changes, starts, xp: ModuleType) -> tuple[Any, Any]:
    """Of each event: the integrals of m (n, events, 3) and of m^2 (n, events) over its duration."""
    linear = durations[..., None] * (starts + changes / 2)
    square = durations * xp.sum(starts**2 + starts * changes + changes**2 / 3, axis=-1)
    # Where gradients are not constant, the same step by step; paths of one length together.
    for samples in sorted({event.samples for event in events if event.path is not None}):
        bent = [i for i, event in enumerate(events) if event.path is not None and event.samples == samples]
        shape = (durations.shape[0], samples, 3)
        paths = xp.stack([xp.broadcast_to(events[i].path, shape) for i in bent], axis=1)
        after = starts[:, bent, None] + paths
        before = xp.concatenate([starts[:, bent, None], after[:, :, :-1]], axis=2)
        step = durations[:, bent] / samples
        wound = step[..., None] * xp.sum(before + after, axis=2) / 2
        energy = step * xp.sum(before**2 + before * after + after**2, axis=(2, 3)) / 3
        linear, square = _replaced(linear, bent, wound), _replaced(square, bent, energy)
    return linear, square


def _replaced(values: Any, columns: list[int], new: Any) -> Any:
    if isinstance(values, np.ndarray):
        values = values.copy()
        values[:, columns] = new
        return values
    return values.at[:, np.array(columns)].set(new)
