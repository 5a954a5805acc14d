"""A `Sequence` of moments and times as a scan that a machine can play.

Pulses and readouts stand where the sequence has them (RF centre to RF centre), with the ramps of their gradients
around; what the events between them wind is wound by trapezoids in the time that is left: each event by its own where
it fits, else all together, else the sequence gets longer, and says so. An inversion is a hard pulse, not selective,
and a crusher along z after it.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxmr.pulseq.blocks import Block, Scan
from jaxmr.pulseq.synthesis.limits import USUAL, Limits, near
from jaxmr.pulseq.synthesis.playables import (
    Played,
    Shot,
    hard,
    of_waveform,
    pulse,
    repetition,
    sample,
    samples,
    selective_sinc,
)
from jaxmr.pulseq.synthesis.trapezoids import NOTHING, shortest, winder
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence

CRUSHER = np.array([0.0, 0.0, 8e3 * math.pi])
"""Wound after an inversion, rad/m: four turns a millimetre."""


class _Wait(NamedTuple):
    """A time without pulse or samples, and the moment (3,) wound in it."""

    start: float
    end: float
    moment: np.ndarray


class _Act(NamedTuple):
    """A pulse or a readout, played at a time. before: waits until then. first: moment that its first sample adds.

    after: moment that belongs after it. time: since the begin of the sequence, as the sequence has it.
    """

    before: list[_Wait]
    time: float
    play: Callable[[float], Played]
    first: np.ndarray
    after: np.ndarray


def synthesised(sequence: Sequence, limits: Limits = USUAL, *, selective: float | None = None) -> Scan:
    """The sequence as blocks within `limits`, on their rasters.

    Pulses without a shape are block pulses, as short as the peak B1 allows (0.1 ms at least), or with
    `selective=thickness` (m) sinc pulses of 1 ms (longer where the peak B1 asks it) and time-bandwidth 4, selecting
    along z; the rephaser is part of what is wound after them. Warns of times that had to be made longer. Raises
    `ValueError` for an initial magnetisation and for pulses whose gradient is beyond the limits.
    """
    if sequence.initial is not None:
        raise ValueError("sequence has an initial magnetisation, which no scanner can begin with; play what makes it")
    acts, rest = _acts(sequence, limits, selective)
    blocks: list[Block] = []
    shift, cursor, owed, late = 0.0, None, np.zeros(3), []
    for act in acts:
        played = act.play(act.time + shift)
        moment = owed + act.first - played.before
        if cursor is None:
            # Everything begins as late as the first block needs.
            idle = sum(wait.end - wait.start for wait in act.before)
            cursor = near(played.begin - max(idle, shortest(moment + _total(act.before), limits)), limits.raster)
        made, missing = _between(act.before, shift, cursor, played.begin, moment, limits), 0.0
        while made is None:
            needed = shortest(moment + _total(act.before), limits) - (played.begin - cursor)
            step = max(near(needed, limits.raster), limits.raster)
            shift, missing = shift + step, missing + step
            played = act.play(act.time + shift)
            moment = owed + act.first - played.before
            made = _between(act.before, shift, cursor, played.begin, moment, limits)
        late += [extra for extra in (missing, played.longer) if extra]
        blocks += [*made, played.block]
        cursor, owed, shift = played.end, act.after - played.after, shift + played.longer
    if rest or np.abs(owed).max() >= NOTHING:
        begin = 0.0 if cursor is None else cursor
        end = max(near(rest[-1].end + shift, limits.raster) if rest else begin, begin)
        made = _between(rest, shift, begin, end, owed, limits)
        if made is None:
            needed = shortest(owed + _total(rest), limits)
            late += [begin + needed - end] if rest else []
            made = _between([], shift, begin, begin + needed, owed + _total(rest), limits) or []
        blocks += made
    if late:
        warnings.warn(
            f"{len(late)} events were too short for their gradients and pulses and were lengthened, by up to "
            f"{max(late):.3g} s, {sum(late):.3g} s in all",
            stacklevel=2,
        )
    return Scan((1, 5, 0), {}, limits.rasters, tuple(blocks))


def _acts(sequence: Sequence, limits: Limits, selective: float | None) -> tuple[list[_Act], list[_Wait]]:
    """What is played when, and what follows the last of it."""
    acts: list[_Act] = []
    time, waits, known, zero = 0.0, [], {}, np.zeros(3)
    for segment in sequence.segments:
        shot = _shot(segment, sequence, limits, selective)
        for i in range(segment.repetitions):
            if shot is not None:
                crusher = CRUSHER if isinstance(segment.pulse, Inversion) else zero
                acts.append(_Act(waits, time, _pulse(segment, shot, limits, known, i), zero, crusher))
                waits = []
            for event in segment.events:
                duration = float(repetition(event.duration, i, 0))
                moment = zero if event.moment is None else repetition(event.moment, i, 1)
                if event.samples > 1:
                    first = moment / event.samples if event.path is None else repetition(event.path, i, 2)[0]
                    acts.append(_Act(waits, time, _readout(event, limits, i), first, zero))
                    waits = []
                else:
                    waits.append(_Wait(time, time + duration, moment))
                time += duration
                if event.samples == 1:
                    acts.append(_Act(waits, time, _single(event, limits, i), zero, zero))
                    waits = []
    return acts, waits


def _shot(segment: Segment, sequence: Sequence, limits: Limits, selective: float | None) -> Shot | None:
    """What the pulses of a segment are played as."""
    if segment.pulse is None:
        return None
    if isinstance(segment.pulse, Inversion):
        return hard(math.pi, limits)
    if segment.pulse.shape is not None:
        return of_waveform(sequence.shapes[segment.pulse.shape])
    largest = float(np.abs(np.asarray(segment.pulse.flip)).max())
    return hard(largest, limits) if selective is None else selective_sinc(largest, selective, limits)


def _pulse(segment: Segment, shot: Shot, limits: Limits, known: dict, i: int) -> Callable[[float], Played]:
    played = segment.pulse
    if isinstance(played, Pulse):
        flip = float(repetition(played.flip, i, 0))
        phase = 0.0 if played.phase is None else float(repetition(played.phase, i, 0))
        phase += math.pi / 2 if played.quadrature else 0.0
        # Instantaneous pulses do not see their carrier.
        carried = played.frequency is not None and played.shape is not None
        frequency = float(repetition(played.frequency, i, 0)) if carried else 0.0
        return lambda time: pulse(shot, flip, phase, frequency, played.use, time, limits, known)
    assert isinstance(played, Inversion)
    efficiency = 1.0 if played.efficiency is None else float(played.efficiency)
    flip = math.acos(max(-1.0, min(1.0, -efficiency)))
    return lambda time: pulse(shot, flip, 0.0, 0.0, "inversion", time, limits, known)


def _readout(event: Event, limits: Limits, i: int) -> Callable[[float], Played]:
    return lambda time: samples(event, time, limits, i)


def _single(event: Event, limits: Limits, i: int) -> Callable[[float], Played]:
    return lambda time: sample(event, time, limits, i)


def _total(waits: list[_Wait]) -> np.ndarray:
    return sum((wait.moment for wait in waits), np.zeros(3))


def _between(
    waits: list[_Wait], shift: float, begin: float, end: float, moment: np.ndarray, limits: Limits
) -> list[Block] | None:
    """Blocks from begin to end that wind the moments of the waits and one more; None if there is no time for it."""
    if end < begin - limits.raster / 2:
        return None
    whole = winder(_total(waits) + moment, end - begin, limits)
    if len(waits) > 1 and whole is not None:
        cuts = [near(wait.end + shift, limits.raster) for wait in waits[:-1]]
        edges = np.clip([begin, *cuts, end], begin, end)
        moments = [wait.moment for wait in waits]
        # What ramps and slices wind is made up for where there is most time.
        largest = int(np.argmax(np.diff(edges)))
        moments[largest] = moments[largest] + moment
        parts = [winder(m, t, limits) for m, t in zip(moments, np.diff(edges).tolist(), strict=True)]
        if all(part is not None for part in parts):
            return [part for part in parts if part is not None and part.duration > 0]
    if whole is None:
        return None
    return [whole] if whole.duration > 0 else []
