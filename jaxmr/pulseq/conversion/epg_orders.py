"""EPG orders of a sequence read from gradients: which whole multiple of one moment every event winds, if any does.

EPG needs integers, a .seq file has moments. They are found where the net moments between pulses are multiples of the
smallest of them; encoding that is rewound before the next pulse counts 0. Host side, on concrete numbers.
"""

import numpy as np

from jaxmr.pulseq.conversion.stretches import Span
from jaxmr.pulseq.live import value

SMALLEST = 2 * np.pi
"""Net moments of less, rad/m, are none: a thousandth of a turn over a millimetre."""
WHOLE = 1e-3
"""Multiples are whole to within this."""


def orders(spans: list[Span]) -> list[list[int | None]]:
    """Of each stretch of each span the EPG orders that it winds; None for all of them where no integers describe it."""
    moments = [np.array([_moment(stretch.moment) for stretch in span.stretches]).reshape(-1, 3) for span in spans]
    nets = np.array([moment.sum(axis=0) for moment in moments])
    sizes = np.linalg.norm(nets, axis=1)
    if not (sizes > SMALLEST).any():
        return [[0] * len(span.stretches) for span in spans]
    unit = nets[np.argmin(np.where(sizes > SMALLEST, sizes, np.inf))]
    unit = unit / (unit @ unit)
    multiples = np.round(nets @ unit)
    apart = np.linalg.norm(nets - np.outer(multiples, unit / (unit @ unit)), axis=1)
    whole = apart * np.linalg.norm(unit) <= WHOLE
    # After a preparation a spoiler of any size may stand, which never comes back.
    for i, span in enumerate(spans):
        if (
            not whole[i]
            and span.rf is not None
            and getattr(span.rf, "use", "") in ("inversion", "saturation", "preparation")
        ):
            whole[i], multiples[i] = True, np.abs(multiples[whole]).sum() + 1
    if not whole.all():
        return [[None] * len(span.stretches) for span in spans]
    return [
        _dealt(span, moment @ unit, int(multiple))
        for span, moment, multiple in zip(spans, moments, multiples, strict=True)
    ]


def _moment(moment) -> list[float]:
    return [0.0] * 3 if moment is None else [float(value(part)) for part in moment]


def _dealt(span: Span, along: np.ndarray, multiple: int) -> list[int | None]:
    """The orders of one span: readouts wind none, what stands before them as many as are wound by their middle."""
    found: list[int | None] = [0] * len(span.stretches)
    wound, total = np.concatenate([[0.0], np.cumsum(along)]), 0
    for i, stretch in enumerate(span.stretches):
        if stretch.samples and i > 0:
            middle = int(np.round((wound[i] + wound[i + 1]) / 2))
            found[i - 1], total = (found[i - 1] or 0) + middle - total, middle
    if found:
        last = len(found) - 1 if not span.stretches[-1].samples else None
        if last is None:
            return found if multiple == total else [None] * len(found)
        found[last] = (found[last] or 0) + multiple - total
    return found
