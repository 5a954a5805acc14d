"""The time between two RF centres, cut into stretches: free precession under gradients, and readouts.

Times in s, moments in rad/m; numbers may be live, what is cut where is decided by their concrete side.
"""

import itertools
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxmr.pulseq.blocks import Block
from jaxmr.pulseq.conversion.moments import Windings
from jaxmr.pulseq.live import is_live, stack, value

SAME = 1e-12
"""Times that are closer, s, are one."""
STRAIGHT = 1e-7
"""Readouts whose path strays less than this from a straight line, relative to its length, have a constant gradient."""


class Stretch(NamedTuple):
    """One event of a sequence.

    moment (x, y, z): None without any gradient. path (samples, 3): of the samples, where the gradient is not constant.
    phase: of the receiver; modulation (samples,): what it adds sample by sample. block: its number.
    """

    duration: Any
    moment: list[Any] | None
    samples: int
    path: Any
    phase: Any
    modulation: Any
    block: int


class Span(NamedTuple):
    """A pulse (None before the first), the number of its block, and what follows until the next."""

    rf: SimpleNamespace | None
    block: int
    stretches: list[Stretch]


def spans(blocks: list[Block], windings: Windings, field: float | None) -> list[Span]:
    """A sequence of blocks from pulse to pulse. field: Hz of the protons, for offsets in ppm."""
    found, known = [Span(None, 0, [])], {}
    for number, block in enumerate(blocks):
        cuts = _cuts(block, windings)
        for (start, kind), (end, _) in itertools.pairwise(cuts):
            if kind == "rf":
                found.append(Span(block.rf, number, []))
            stretches = found[-1].stretches
            if kind == "adc":
                for lead, stretch in _readout(block, number, start, end, windings, known, field):
                    _lead(stretches, lead, number)
                    stretches.append(stretch)
            else:
                _append(stretches, _free(block, number, start, end, windings))
    return found


def centre(rf: SimpleNamespace) -> Any:
    """Time of the RF centre in its block."""
    return rf.delay + rf.center


def offset(event: SimpleNamespace, name: str, field: float | None) -> Any:
    """`name`_offset of an event with its part in ppm of the field."""
    ppm = getattr(event, f"{name}_ppm", 0.0)
    whole = getattr(event, f"{name}_offset")
    if value(ppm) == 0:
        return whole
    if field is None:
        raise ValueError(
            f"an event has {name}_ppm={float(value(ppm)):g}, which is relative to the main field; give b0= in tesla"
        )
    return whole + 1e-6 * ppm * field


def _begin(adc: SimpleNamespace) -> Any:
    """A dwell before the first sample, which lies in the middle of its own."""
    return adc.delay - adc.dwell / 2


def _cuts(block: Block, windings: Windings) -> list[tuple[Any, str]]:
    """Begin of each stretch and what it is: "rf" follows the RF centre, "adc" holds samples, "" is free; the end."""
    named, plain = [], [0.0, *windings.edges(block)]
    if block.rf is not None:
        named.append((centre(block.rf), "rf"))
    if block.adc is not None:
        begin = _begin(block.adc)
        end = begin + block.adc.num_samples * block.adc.dwell
        inside = lambda at: value(begin) + SAME < value(at) < value(end) - SAME  # noqa: E731
        if any(inside(at) for at, _ in named):
            raise ValueError("a block has its RF centre among its ADC samples; play them in blocks of their own")
        plain = [at for at in plain if not inside(at)] + [end]
        named.append((begin if value(begin) > SAME else 0.0, "adc"))
    cuts = named
    for at in plain:
        if all(abs(value(at) - value(other)) > SAME for other, _ in cuts):
            cuts = [*cuts, (at, "")]
    cuts = [*sorted(cuts, key=lambda cut: value(cut[0])), (block.duration, "")]
    for (before, _), (after, _) in itertools.pairwise(cuts):
        # On live numbers the order is a guard: it is part of the structure.
        if not before <= after + SAME:
            raise ValueError(f"an event lasts until {value(before):g} s in a block of {value(after):g} s")
    return cuts


def _free(block: Block, number: int, start: Any, end: Any, windings: Windings) -> Stretch:
    active = any(
        value(windings.of(g).begin) < value(end) - SAME and value(windings.of(g).end) > value(start) + SAME
        for g in (block.gx, block.gy, block.gz)
        if g is not None
    )
    moment = windings.between(block, start, end) if active else None
    return Stretch(end - start, moment, 0, None, None, None, number)


def _append(stretches: list[Stretch], new: Stretch) -> None:
    """At the end, as part of the last one where neither has gradients."""
    if not is_live(new.duration) and abs(new.duration) < SAME:
        return
    last = stretches[-1] if stretches else None
    if last is not None and not last.samples and last.moment is None and new.moment is None:
        stretches[-1] = last._replace(duration=last.duration + new.duration)
    else:
        stretches.append(new)


def _lead(stretches: list[Stretch], lead: list[Any] | None, number: int) -> None:
    """Wind `lead` before a readout."""
    if lead is None:
        return
    if not stretches or stretches[-1].samples:
        stretches.append(Stretch(0.0, lead, 0, None, None, None, number))
    else:
        before = stretches[-1].moment or [0.0] * 3
        stretches[-1] = stretches[-1]._replace(moment=[m + more for m, more in zip(before, lead, strict=True)])


def _readout(block: Block, number: int, start, end, windings: Windings, known: dict, field) -> list[tuple]:
    """The samples of a block, and what is wound ahead of them; the first one apart if its dwell begins too early."""
    adc = block.adc
    assert adc is not None
    n = int(value(adc.num_samples))
    phase, modulation = _receiver(adc, n, field)
    parts = [(start, end, 0, n)]
    if value(_begin(adc)) < -SAME:
        first = adc.delay + adc.dwell / 2
        parts = [(0.0, first, 0, 1), (first, end, 1, n)] if n > 1 else [(0.0, first, 0, 1)]
    found = []
    for since, until, low, high in parts:
        lead, moment, path = _path(block, since, until, high - low, windings, known)
        shift = None if modulation is None else modulation[low:high]
        found.append((lead, Stretch(until - since, moment, high - low, path, phase, shift, number)))
    return found


def _receiver(adc: SimpleNamespace, n: int, field: float | None) -> tuple[Any, Any]:
    """Phase of the receiver, and what it adds at each sample; None for nothing."""
    phase, frequency = offset(adc, "phase", field), offset(adc, "freq", field)
    modulation = getattr(adc, "phase_modulation", None)
    if is_live(frequency) or frequency != 0:
        turning = 2 * np.pi * frequency * adc.dwell * (np.arange(n) + 0.5)
        modulation = turning if modulation is None else modulation + turning
    return phase, modulation


def _path(block: Block, since, until, n: int, windings: Windings, known: dict) -> tuple[Any, Any, Any]:
    """What a readout winds: ahead of its first step, in all of its steps, and until each where they are not alike.

    Samples lie in the middle of their dwells, so that the first step may begin on the ramp before a plateau that holds
    all samples. Then all steps are made alike, and what the first one lacks is wound ahead of it.
    """
    gradients = [g for g in (block.gx, block.gy, block.gz) if g is not None]
    if not gradients:
        return None, None, None
    events = (id(event) for event in (block.gx, block.gy, block.gz, block.rotation))
    key = (*events, float(value(since)), float(value(until)), n)
    plain = not (is_live(since) or is_live(until) or any(is_live(windings.of(g).wound) for g in gradients))
    if plain and key in known:
        return known[key]
    times = since + (until - since) * (np.arange(1, n + 1) / n)
    wound = [w + np.zeros(n) for w in windings.between(block, since, times)]
    path = np.stack([value(w) for w in wound], axis=-1)
    steps = np.diff(path, axis=0)
    scale = max(np.abs(path).max(), 1.0)
    if n > 1 and np.abs(steps - steps.mean(axis=0)).max() * n <= STRAIGHT * scale:
        step = [(w[-1] - w[0]) / (n - 1) for w in wound]
        lead = [w[0] - s for w, s in zip(wound, step, strict=True)]
        lead = lead if any(is_live(part) or abs(part) > STRAIGHT * scale for part in lead) else None
        found = lead, [n * s for s in step], None
    else:
        found = None, [w[-1] for w in wound], stack(wound).T if n > 1 else None
    if plain:
        known[key] = found
    return found
