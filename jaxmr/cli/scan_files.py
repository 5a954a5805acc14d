"""The sequence files of `jaxmr scan`: how they are read, and which image their k-space holds. SI units."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmr import sequences
from jaxmr.cli.scan_sequences import Protocol
from jaxmr.objects.brains import FOV
from jaxmr.pulseq.conversion.segments import to_sequence
from jaxmr.pulseq.seqfile.reading import load
from jaxmr.sequences import Sequence
from jaxmr.units import mm

FEWEST, MOST = 2, 1024
"""Voxels along an axis of an image."""
SUFFIX = ".seq"


class File(NamedTuple):
    """A sequence read from a file. k: of its samples, rad/m. lines: samples of each readout. dwell: s. fov: m."""

    sequence: Sequence
    k: np.ndarray
    lines: int
    dwell: float
    fov: tuple[float, ...] | None


def opened(path: str, field: float) -> File:
    """The file. Raises `ValueError` for one that cannot be read or takes no sample.

    field: T, for offsets in ppm.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    scan = load(path)
    sequence = to_sequence(scan.blocks, field)
    if sequence.n_echoes == 0:
        raise ValueError(f"{path} takes no sample: none of its blocks has an ADC event")
    readouts = [block.adc for block in scan.blocks if block.adc is not None]
    lines = math.gcd(*(int(adc.num_samples) for adc in readouts))
    return File(sequence, np.asarray(sequences.trajectory(sequence)), lines, float(readouts[0].dwell), _fov(scan))


def _fov(scan: Any) -> tuple[float, ...] | None:
    """As the file states it: (x, y, z), m."""
    try:
        sizes = [float(size) for size in scan.definitions.get("FOV", "").split()]
    except ValueError:
        return None
    # Some write millimetres.
    sizes = [size * mm if size > 10 else size for size in sizes]
    return tuple(sizes) if len(sizes) == 3 and min(sizes) > 0 else None


def asked(file: File, options: Any) -> tuple[tuple[int, ...], list[float]]:
    """Matrix and field of view (mm) of the image, as the options say or as k-space has it.

    Raises `ValueError` for k-space that covers no plane.
    """
    fov = options.fov or [size / mm for size in (file.fov or (FOV, FOV, FOV))[:2]]
    sides = [size * mm for size in (fov * 2 if len(fov) == 1 else fov)]
    spans = np.ptp(file.k, axis=0)
    steps = [int(spans[axis] * sides[axis] / (2 * math.pi) + 1e-3) for axis in (1, 0)]
    counts = [n + 1 + (n + 1) % 2 for n in steps]
    if min(counts) < FEWEST + 1 and options.matrix is None:
        raise ValueError(
            f"{options.sequence} covers no plane of k-space ({counts[1]} x {counts[0]} voxels of {fov[0]:g} mm): there "
            "is no image to make; give --matrix to make one all the same"
        )
    matrix = options.matrix or tuple(min(count, MOST) for count in counts)
    return (matrix * 2 if len(matrix) == 1 else matrix), fov


def protocol_of(file: File) -> Protocol:
    """The file as a scan."""
    return Protocol(file.sequence, file.k, "other", file.lines, 1, file.dwell, {}, 0, (file.sequence, 3))
