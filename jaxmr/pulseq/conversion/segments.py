"""From blocks to a `Sequence`: pulses at their RF centres, and what happens between them.

Repetitions that are alike become one segment: what differs between them is an array, what does not a scalar. The time
before the first pulse is left out unless it is sampled. Numbers may be live; then the structure is that of their
concrete side, except that they are one number only where they are one expression, whatever their values.
"""

from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Any, NamedTuple

import numpy as np

from jaxmr.physics.rf import Waveform
from jaxmr.pulseq.blocks import Block
from jaxmr.pulseq.conversion.epg_orders import orders
from jaxmr.pulseq.conversion.moments import Windings
from jaxmr.pulseq.conversion.pulses import Library, Shape, Turn
from jaxmr.pulseq.conversion.stretches import Span, Stretch, spans
from jaxmr.pulseq.live import is_live, node_of, stack
from jaxmr.pulseq.live.graph import Alike
from jaxmr.sequences.sequence import Event, Pulse, Segment, Sequence
from jaxmr.units import GAMMA


class Draft(NamedTuple):
    """A sequence whose numbers may still be live: its leaves, and how they become one."""

    leaves: list[Any]
    assemble: Callable[[list[Any]], Sequence]


class _Leaves(NamedTuple):
    """The numbers of a sequence in the making, and which of the live ones are one expression."""

    numbers: list[Any]
    alike: Alike


class Place(NamedTuple):
    """Where a repetition of the sequence comes from: the numbers of its blocks, pulse first."""

    segment: int
    repetition: int
    span: Span


def to_sequence(blocks: Many[Block], b0: float | None = None) -> Sequence:
    """Blocks with plain numbers as a `Sequence` with leaves of NumPy, float64.

    b0: main field, T, that offsets in ppm refer to. Raises `ValueError` for offsets in ppm without it, and for blocks
    that nothing can play.
    """
    made = draft(blocks, b0)
    return made.assemble([np.asarray(leaf) for leaf in made.leaves])


def draft(blocks: Many[Block], b0: float | None = None) -> Draft:
    """The same of numbers that may be live."""
    return drafted(blocks, b0)[0]


def drafted(blocks: Many[Block], b0: float | None = None) -> tuple[Draft, list[Place]]:
    """A draft, and where each of its repetitions comes from."""
    windings = Windings()
    leaves = _Leaves([], Alike())
    library = Library(windings, leaves.alike)
    field = None if b0 is None else GAMMA / (2 * np.pi) * b0
    found = spans(list(blocks), windings, field)
    if len(found) > 1 and not any(stretch.samples for stretch in found[0].stretches):
        found = found[1:]
    _complete(found)
    turns = [None if span.rf is None else library.turn(blocks[span.block], field) for span in found]
    wound = orders(found)
    kinds = [_kind(*one) for one in zip(found, turns, wound, strict=True)]
    starts = [i for i in range(len(kinds)) if i == 0 or kinds[i] != kinds[i - 1]]
    parts, places = [], []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(kinds)], strict=True)):
        same = range(start, end)
        places += [Place(number, i - start, found[i]) for i in same]
        parts.append(_segment([found[i] for i in same], [turns[i] for i in same], wound[start], leaves))
    shapes = [_shape(shape, leaves) for shape in library.shapes]

    def assemble(values: list[Any]) -> Sequence:
        return Sequence(tuple(part(values) for part in parts), tuple(shape(values) for shape in shapes))

    return Draft(leaves.numbers, assemble), places


def _complete(found: list[Span]) -> None:
    """Let the last repetition end as the one before it, in stretches of no length: no pulse follows that cuts it so."""
    if len(found) < 2:
        return
    before, last = (_stretch_kinds(span) for span in found[-2:])
    if before[: len(last)] == last and not any(samples for samples, *_ in before[len(last) :]):
        number = (found[-1].stretches or found)[-1].block
        for missing in found[-2].stretches[len(last) :]:
            moment = None if missing.moment is None else [0.0] * 3
            found[-1].stretches.append(missing._replace(duration=0.0, moment=moment, block=number))


def _kind(span: Span, turn: Turn | None, wound: list[int | None]) -> Any:
    """What has to be equal for repetitions to share a segment."""
    pulse = None if turn is None else (turn.shape, turn.use, turn.frequency is None)
    return pulse, _stretch_kinds(span), wound


def _stretch_kinds(span: Span) -> list[tuple]:
    return [
        (s.samples, s.moment is None, s.path is None, s.phase is None, s.modulation is None) for s in span.stretches
    ]


def _segment(same: list[Span], turns: list[Turn | None], wound: list[int | None], leaves: _Leaves) -> Callable:
    """Repetitions of one kind: their numbers go to `leaves`, their structure into what makes the segment of them."""
    pulse = None
    if turns[0] is not None:
        numbers = {name: [getattr(t, name) for t in turns] for name in ("flip", "phase", "frequency")}
        numbers["phase"] = _unless_zero(numbers["phase"])
        parts = {name: _train(values, leaves) for name, values in numbers.items()}
        pulse = parts, turns[0].shape, turns[0].use
    columns = [_event(list(column), leaves) for column in zip(*(span.stretches for span in same), strict=True)]

    def make(values: list[Any]) -> Segment:
        played = None
        if pulse is not None:
            parts, shape, use = pulse
            numbers: dict[str, Any] = {name: None if at is None else values[at] for name, at in parts.items()}
            played = Pulse(**numbers, shape=shape, use=use)
        events = tuple(column(values, order) for column, order in zip(columns, wound, strict=True))
        return Segment(played, events, len(same))

    return make


def _event(column: list[Stretch], leaves: _Leaves) -> Callable:
    """One event of all repetitions."""
    first = column[0]
    at = {
        "duration": _train([s.duration for s in column], leaves),
        "moment": _train([None if s.moment is None else stack(s.moment) for s in column], leaves),
        "receiver_phase": _train(_unless_zero([s.phase for s in column]), leaves),
        "path": _train([s.path for s in column], leaves),
        "modulation": _train([s.modulation for s in column], leaves),
    }

    def make(values: list[Any], order: int | None) -> Event:
        numbers: dict[str, Any] = {name: None if place is None else values[place] for name, place in at.items()}
        return Event(**numbers, order=order, samples=first.samples)

    return make


def _unless_zero(phases: list[Any]) -> list[Any]:
    """Phases, or None for all where all are 0."""
    some = any(is_live(phase) or phase != 0 for phase in phases if phase is not None)
    return phases if some else [None] * len(phases)


def _train(numbers: list[Any], leaves: _Leaves) -> int | None:
    """Where in `leaves` the numbers of all repetitions stand: one for all that are the same, or one each."""
    first = numbers[0]
    if first is None:
        return None
    if any(is_live(number) for number in numbers):
        leader = leaves.alike.leader(node_of(first))
        same = all(leaves.alike.leader(node_of(number)) is leader for number in numbers[1:])
    else:
        same = all(number is first or np.array_equal(number, first) for number in numbers[1:])
    leaves.numbers.append(first if same else stack(numbers))
    return len(leaves.numbers) - 1


def _shape(shape: Shape, leaves: _Leaves) -> Callable[[list[Any]], Waveform]:
    """A shape whose arrays go to `leaves`."""
    start = len(leaves.numbers)
    leaves.numbers.extend([shape.samples, shape.duration, shape.gradient, shape.thickness, shape.centre])
    return lambda values: Waveform(*values[start : start + 5], symmetric=shape.symmetric)
