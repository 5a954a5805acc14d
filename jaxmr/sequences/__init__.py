"""Sequences as data, the families that build them, and flip-angle trains (`sequences.trains`)."""

from jaxmr.sequences import trains
from jaxmr.sequences.families import bssfp, cpmg, fisp, spgr, tse
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence, duration, scale_flips

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
    "scale_flips",
    "spgr",
    "trains",
    "tse",
]
