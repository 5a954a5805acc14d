"""Sequences as data, the families that build them, and flip-angle trains (`sequences.trains`)."""

from jaxmr.sequences import readouts, trains
from jaxmr.sequences.families import bssfp, cpmg, fisp, spgr, tse
from jaxmr.sequences.imaging import epi, gre, mprage, rare
from jaxmr.sequences.kspace import sample_times, trajectory
from jaxmr.sequences.readouts import Readout
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence, duration, scale_flips

__all__ = [
    "Event",
    "Inversion",
    "Pulse",
    "Readout",
    "Segment",
    "Sequence",
    "bssfp",
    "cpmg",
    "duration",
    "epi",
    "fisp",
    "gre",
    "mprage",
    "rare",
    "readouts",
    "sample_times",
    "scale_flips",
    "spgr",
    "trains",
    "trajectory",
    "tse",
]
