"""Sequences from .seq files and back."""

import os

from jaxmr.pulseq.conversion.segments import to_sequence
from jaxmr.pulseq.seqfile.reading import load
from jaxmr.pulseq.seqfile.writing import save
from jaxmr.pulseq.synthesis.limits import USUAL, Limits
from jaxmr.pulseq.synthesis.scheduling import synthesised
from jaxmr.pulseq.template.updating import updated
from jaxmr.sequences.sequence import Sequence


def read(path: str | os.PathLike, b0: float | None = None) -> Sequence:
    """The sequence of a .seq file of version 1.2 to 1.5, with leaves of NumPy in float64.

    b0: main field, T, that offsets in ppm refer to. Raises `ValueError` for files that are broken, for offsets in ppm
    without `b0`, and for blocks that nothing can play.
    """
    return to_sequence(load(path).blocks, b0)


def write(
    path: str | os.PathLike,
    sequence: Sequence,
    template: str | os.PathLike | None = None,
    limits: Limits = USUAL,
    selective: float | None = None,
    b0: float | None = None,
) -> None:
    """Write a sequence as a .seq file of version 1.5.

    template: the file that it was read from; all of it is kept but the numbers that were changed (`template.updating`).
    Without one the sequence is made playable within `limits` (`synthesis.scheduling`); selective: slice thickness, m,
    of pulses without shape. Raises `ValueError` for what the template cannot say, and for `selective` with a template.
    """
    if template is None:
        save(synthesised(sequence, limits, selective=selective), path)
        return
    if selective is not None:
        raise ValueError(f"selective={selective:g} was given with a template, whose pulses are what they are; drop one")
    save(updated(load(template), sequence, b0), path)
