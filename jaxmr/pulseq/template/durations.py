"""Changed durations of a sequence as durations of the blocks that it was read from."""

from collections.abc import Sequence as Many
from typing import Any

import numpy as np

from jaxmr.pulseq.blocks import PLAYERS, Block, end
from jaxmr.pulseq.conversion.segments import Place
from jaxmr.pulseq.conversion.stretches import centre


def begins_of(blocks: Many[Block]) -> np.ndarray:
    """When each block begins, s, and the last ends."""
    return np.concatenate([[0.0], np.cumsum([float(block.duration) for block in blocks])])


def starts_of(place: Place, begins: np.ndarray) -> np.ndarray:
    """When each stretch of a repetition begins, s, and the last ends."""
    span = place.span
    first = 0.0 if span.rf is None else begins[span.block] + float(centre(span.rf))
    return first + np.concatenate([[0.0], np.cumsum([float(stretch.duration) for stretch in span.stretches])])


def stretched(
    blocks: Many[Block], places: list[Place], wanted: dict[tuple[int, int], Any], raster: float
) -> dict[int, float]:
    """New durations of blocks, by number. wanted: s to be added to a stretch, by place and stretch.

    Blocks without RF, gradients and samples give and take first, then the idle ends of others. A `ValueError` where
    a stretch is not idle, or not long enough.
    """
    begins, steps = begins_of(blocks), {}
    for (i, j), added in wanted.items():
        place = places[i]
        where = f"segment {place.segment}, event {j}, repetition {place.repetition}"
        start, stop = starts_of(place, begins)[j : j + 2].tolist()
        if place.span.stretches[j].samples or _active(blocks, begins, start, stop):
            raise ValueError(
                f"{where}: its duration was changed by {float(added):g} s, but it has gradients or samples, whose "
                "times stay; change the duration of an idle event beside it, or write without a template"
            )
        left = round(float(added) / raster)
        for number in _givers(blocks, begins, start, stop):
            idle = begins[number + 1] - max(start, begins[number] + _busy(blocks[number]))
            room = int(np.floor(max(idle, 0.0) / raster + 1e-6)) + steps.get(number, 0)
            step = left if left > 0 else max(left, -room)
            steps[number] = steps.get(number, 0) + step
            left -= step
        if left:
            raise ValueError(
                f"{where}: its duration was changed by {float(added):g} s, for which no block of the template has "
                f"room, {abs(left) * raster:g} s too much; add a delay to the template, or write without one"
            )
    return {
        number: raster * (round(float(blocks[number].duration) / raster) + step)
        for number, step in steps.items()
        if step
    }


def _active(blocks: Many[Block], begins: np.ndarray, start: float, stop: float) -> bool:
    """Whether a gradient is played between these times."""
    first, last = np.searchsorted(begins, [start, stop], side="right").tolist()
    for number in range(max(first - 1, 0), min(last, len(blocks))):
        block = blocks[number]
        for gradient in (block.gx, block.gy, block.gz):
            if gradient is not None:
                since, until = begins[number] + gradient.delay, begins[number] + end(gradient)
                if since < stop - 1e-9 and until > start + 1e-9:
                    return True
    return False


def _givers(blocks: Many[Block], begins: np.ndarray, start: float, stop: float) -> list[int]:
    """Blocks whose end lies in the stretch, plain delays first; that which ends where it begins as the last resort."""
    before, first, last = np.searchsorted(begins[1:], [start - 1e-9, start + 1e-9, stop + 1e-9], side="right").tolist()
    inside = sorted(range(first, last), key=lambda n: any(getattr(blocks[n], name) is not None for name in PLAYERS))
    return inside or list(range(before, first))[-1:]


def _busy(block: Block) -> float:
    """When the last event of a block ends, s after its begin."""
    events = [getattr(block, name) for name in PLAYERS]
    triggers = [extra.delay + extra.duration for extra in block.extras if hasattr(extra, "duration")]
    return max([float(end(event)) for event in events if event is not None] + triggers, default=0.0)
