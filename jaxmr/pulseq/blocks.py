"""Blocks: what a Pulseq sequence plays, one after the other, and the scan that they make.

Events are namespaces with PyPulseq's names, so that those of its `make_*` functions and those read from a file are
one kind. Units as in Pulseq: s, Hz, Hz/m, rad. Numbers may be live (see `live`).

rf: signal (n,) Hz, t (n,) time of each sample from the begin of the shape, shape_dur, delay, center (from the begin of
the shape), use, freq_offset, phase_offset, freq_ppm, phase_ppm, dead_time, ringdown_time.
gradients: type "trap" (amplitude, rise_time, flat_time, fall_time, delay) or "grad" (waveform (n,), tt (n,), first and
last at the edges of the shape, shape_dur, delay).
adc: num_samples, dwell, delay, freq_offset, phase_offset, freq_ppm, phase_ppm, phase_modulation (n,) or None.
Reference: Layton et al., MRM 77:1544 (2017); the specification of Pulseq 1.5.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

AXES = ("gx", "gy", "gz")
PLAYERS = ("rf", *AXES, "adc")
"""The events of a block that act on the magnetisation, or measure it."""


class Block(NamedTuple):
    """Events that begin together.

    duration: s. rotation: (3, 3), turns the gradients; None leaves them. extras: other events (labels, triggers, soft
    delays), namespaces, which nothing simulates.
    """

    duration: Any
    rf: SimpleNamespace | None = None
    gx: SimpleNamespace | None = None
    gy: SimpleNamespace | None = None
    gz: SimpleNamespace | None = None
    adc: SimpleNamespace | None = None
    rotation: np.ndarray | None = None
    extras: tuple[SimpleNamespace, ...] = ()


class Rasters(NamedTuple):
    """Steps of time, s: of RF and gradient samples, of ADC dwell times, of block durations."""

    rf: float = 1e-6
    grad: float = 1e-5
    adc: float = 1e-7
    block: float = 1e-5


class Scan(NamedTuple):
    """What a .seq file says. definitions: the text of each, in the order of the file.

    Events of one id are one namespace in all blocks (of the same axis, if gradients).
    """

    version: tuple[int, int, int]
    definitions: dict[str, str]
    rasters: Rasters
    blocks: tuple[Block, ...]


def end(event: SimpleNamespace) -> float:
    """When an RF, gradient or ADC event ends, s after the begin of its block."""
    if event.type == "adc":
        return event.delay + event.num_samples * event.dwell
    if event.type == "trap":
        return event.delay + event.rise_time + event.flat_time + event.fall_time
    return event.delay + event.shape_dur
