"""Sequences as data, the families that build them, and flip-angle trains."""

from jaxmr.sequences.families import bssfp, cpmg, fisp, spgr, tse
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence, duration

__all__ = [
    "Event",
    "Inversion",
    "Pulse",
    "Segment",
    "Sequence",
    "bssfp",
    "cpmg",
    "duration",
    "fisp",
    "spgr",
    "tse",
]
