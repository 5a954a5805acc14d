"""The sequences of `jaxmr scan`: what the options leave open is chosen as on a scanner. SI units.

Readouts stay below gradients of 40 mT/m (30 mT/m for spirals, as fast as 120 T/m/s allow), spoilers wind two turns
over the thickness of a slice, which empties a voxel of either shape.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmr import sequences
from jaxmr.cli.parser import PROTOCOLS
from jaxmr.cli.scan_subject import Geometry
from jaxmr.encoding import trajectory
from jaxmr.sequences import Readout, Segment, Sequence, readouts
from jaxmr.units import GAMMA, deg, ms, mT, us

DWELL, EPI_DWELL = 20 * us, 4 * us
"""Between samples, where the echo time leaves room."""
MAX_GRADIENT, SPIRAL_GRADIENT = 40 * mT, 30 * mT
"""Of readouts, per metre."""
OVERSAMPLING, MARGIN = 2, 1.2
"""Of the field of view along radial spokes and of spirals, so that the corners of the image do not fold back."""
MOST_ECHOES = 16
"""Of a shot of turbo spin echo."""


class Protocol(NamedTuple):
    """A scan, SI units.

    k: of each sample. trajectory, timing: as raw data files name them. samples: of a line. n_dummies: repetitions or
    shots. diagram: the sequence without them, and how many pulses show what repeats.
    """

    sequence: Sequence
    k: np.ndarray
    trajectory: str
    samples: int
    oversampling: int
    dwell: float
    timing: dict[str, float]
    n_dummies: int
    diagram: tuple[Sequence, int]


def protocol(options: Any, geometry: Geometry) -> Protocol:
    """The scan of `--sequence`. Raises `ValueError` for options that it does not have or that do not fit."""
    name, usual = options.sequence, PROTOCOLS[options.sequence]
    for option in ("tr", "inversion_time"):
        if getattr(usual, option) is None and getattr(options, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} is no option of {name}; leave it out")
    numbers = {key: getattr(usual if getattr(options, key) is None else options, key) for key in usual._fields}
    for key in ("flip", "tr", "te", "inversion_time"):
        if numbers[key] is not None and not (math.isfinite(numbers[key]) and numbers[key] > 0):
            unit = "degrees" if key == "flip" else "ms"
            raise ValueError(f"--{key.replace('_', '-')} must be positive, {unit}, got {numbers[key]:g}")
    if numbers["dummies"] < 0 or (name == "epi" and numbers["dummies"]):
        raise ValueError(f"--dummies must be 0 (always with epi) or more, got {numbers['dummies']}")
    numbers["flip"] *= deg
    timing = {key: numbers[key] for key in ("flip", "tr", "te", "inversion_time") if numbers[key] is not None}
    timing |= {key: value * ms for key, value in timing.items() if key != "flip"}
    return _FAMILIES[name](geometry, timing, numbers["dummies"])


def _gre(geometry: Geometry, at: dict[str, float], n_dummies: int) -> Protocol:
    return _steady(geometry, at, n_dummies, "cartesian", _lines(geometry, at["te"], at["tr"]))


def _bssfp(geometry: Geometry, at: dict[str, float], n_dummies: int) -> Protocol:
    lines = _lines(geometry, at["te"], at["tr"])

    def build(n):
        return sequences.bssfp(jnp.full(n + lines.n_lines, at["flip"]), at["tr"], at["te"], readout=lines)

    return _protocol(build(n_dummies), build(0), "cartesian", lines, at, n_dummies)


def _radial(geometry: Geometry, at: dict[str, float], n_dummies: int) -> Protocol:
    n, voxel = _square(geometry, "radial")
    n_spokes = math.ceil(math.pi / 2 * n)
    dwell = _dwell(OVERSAMPLING * n, OVERSAMPLING * geometry.fov[0], min(at["te"], at["tr"] - at["te"]))
    spokes = readouts.radial(n_spokes, OVERSAMPLING * n, voxel, math.pi / n_spokes, dwell)
    return _steady(geometry, at, n_dummies, "radial", spokes)


def _spiral(geometry: Geometry, at: dict[str, float], n_dummies: int) -> Protocol:
    n, voxel = _square(geometry, "spiral")
    fov = MARGIN * geometry.fov[0]
    dwell = 0.95 * 2 * math.pi / (fov * GAMMA * SPIRAL_GRADIENT)
    k, dwell = trajectory.spiral(math.ceil(n / 5), fov, voxel, max_gradient=SPIRAL_GRADIENT, dwell=dwell)
    return _steady(geometry, at, n_dummies, "spiral", readouts.along_path(k, dwell))


def _steady(geometry, at, n_dummies: int, kind: str, lines: Readout) -> Protocol:
    """A spoiled steady state with any readout."""
    _require_room(lines, at["te"], at["tr"] - at["te"])

    def build(n):
        flips, spoiler = jnp.full(n + lines.n_lines, at["flip"]), _spoiler(geometry)
        return sequences.spgr(flips, at["tr"], at["te"], readout=lines, spoiler=spoiler)

    return _protocol(build(n_dummies), build(0), kind, lines, at, n_dummies, n_pulses=2)


def _tse(geometry: Geometry, at: dict[str, float], n_dummies: int) -> Protocol:
    """Shots interleave, so that the row in the middle of k-space is taken in the middle of each: at `te`."""
    n = geometry.matrix[0]
    n_echoes = max(count for count in range(1, min(MOST_ECHOES, n) + 1) if n % count == 0)
    n_shots = n // n_echoes
    esp = at["te"] / (n // 2 // n_shots + 1)
    dwell = _dwell(geometry.matrix[1], geometry.fov[0], esp / 2)
    line = readouts.cartesian(geometry.matrix, geometry.fov[:2], [0], dwell)
    _require_room(line, esp / 2, esp / 2, 2 * at["te"] / esp)
    rows = np.arange(n).reshape(-1, n_shots).T.ravel()

    def build(n_dummies):
        # Dummies are the first shot, again and again.
        played = np.concatenate([*[rows[:n_echoes]] * n_dummies, rows])
        sequence = sequences.rare(
            jnp.full(n_echoes, at["flip"]), esp, at["tr"],
            matrix=geometry.matrix, fov=geometry.fov[:2], rows=played, dwell=dwell, spoiler=_spoiler(geometry),
        )  # fmt: skip
        n_silent = n_dummies * 3  # excitation, train and rest
        return Sequence((*map(_silent, sequence.segments[:n_silent]), *sequence.segments[n_silent:]))

    return _protocol(build(n_dummies), build(0), "cartesian", line, at, n_dummies, n_pulses=min(4, 1 + n_echoes))


def _epi(geometry: Geometry, at: dict[str, float], n_dummies: int) -> Protocol:
    dwell = max(EPI_DWELL, _least_dwell(geometry.fov[0]))
    line = readouts.cartesian(geometry.matrix, geometry.fov[:2], [0], dwell)
    n_y, n_x = geometry.matrix
    sequence = sequences.epi(at["flip"], at["te"], matrix=(n_y, n_x), fov=geometry.fov[:2], dwell=dwell)
    return _protocol(sequence, sequence, "epi", line, at, n_dummies)


def _mprage(geometry: Geometry, at: dict[str, float], n_dummies: int) -> Protocol:
    """`tr` goes from inversion to inversion; the lines of a train follow each other every 2 te + 2 ms."""
    n_z, n_y, n_x = geometry.matrix
    matrix = n_z, n_y, n_x
    spacing = 2 * at["te"] + 2 * ms
    dwell = _dwell(n_x, geometry.fov[0], at["te"])
    line = readouts.cartesian(matrix, geometry.fov, [(0, 0)], dwell)
    _require_room(line, at["te"], spacing - at["te"])
    sequence = sequences.mprage(
        at["flip"], spacing, at["te"], at["inversion_time"], at["tr"],
        matrix=matrix, fov=geometry.fov, dwell=dwell, spoiler=_spoiler(geometry),
    )  # fmt: skip
    shot = sequence.segments[: len(sequence.segments) // n_y]
    prepared = Sequence((*map(_silent, shot * n_dummies), *sequence.segments))
    timing = {"ti" if name == "inversion_time" else name: value for name, value in at.items()}
    # Shown from the first train on: nothing happens while the inversion recovers.
    return _protocol(prepared, Sequence(sequence.segments[1:]), "cartesian", line, timing, n_dummies)


_FAMILIES = {
    "gre": _gre,
    "bssfp": _bssfp,
    "tse": _tse,
    "epi": _epi,
    "mprage": _mprage,
    "radial": _radial,
    "spiral": _spiral,
}


def _protocol(sequence, shown, kind: str, lines: Readout, timing, n_dummies: int, n_pulses: int = 3) -> Protocol:
    dwell = float(lines.time) / lines.samples
    oversampling = OVERSAMPLING if kind == "radial" else 1
    k = np.asarray(sequences.trajectory(sequence))
    return Protocol(sequence, k, kind, lines.samples, oversampling, dwell, timing, n_dummies, (shown, n_pulses))


def _silent(segment: Segment) -> Segment:
    """The same, but nothing is sampled."""
    quiet = {"samples": 0, "path": None, "receiver_phase": None, "modulation": None}
    return dataclasses.replace(segment, events=tuple(dataclasses.replace(e, **quiet) for e in segment.events))


def _spoiler(geometry: Geometry) -> float:
    return 2 * 2 * math.pi / geometry.voxel_size[2]


def _lines(geometry: Geometry, te: float, tr: float) -> Readout:
    dwell = _dwell(geometry.matrix[1], geometry.fov[0], min(te, tr - te))
    lines = readouts.cartesian(geometry.matrix, geometry.fov[:2], dwell=dwell)
    _require_room(lines, te, tr - te)
    return lines


def _least_dwell(extent: float) -> float:
    """With the largest gradient, when samples are 2 pi / extent apart."""
    return 2 * math.pi / (extent * GAMMA * MAX_GRADIENT)


def _dwell(n: int, extent: float, room: float) -> float:
    """As long as it may be when half a line of `n` samples and its prephaser have `room` seconds."""
    return max(min(DWELL, 0.8 * room / (n // 2 + 1)), _least_dwell(extent))


def _require_room(lines: Readout, before: float, after: float, scale: float = 1.0) -> None:
    """Whether a line fits into the times before and after its echo; the echo time is `scale` times the first."""
    first, last = float(lines.echo), float(lines.time - lines.echo)
    if before < first * (1 - 1e-6):
        raise ValueError(
            f"--te {scale * before / ms:.4g} ms is too short for lines of {lines.samples} samples with the gradients "
            f"of a scanner; at least {scale * first / ms:.3g} ms serve, or a smaller --matrix"
        )
    if after < last * (1 - 1e-6):
        raise ValueError(
            f"--tr leaves {after / ms:.4g} ms after the echo, where a line of {lines.samples} samples needs "
            f"{last / ms:.3g} ms; make it longer, or --te shorter"
        )


def _square(geometry: Geometry, name: str) -> tuple[int, float]:
    """Voxels along each axis, and their size."""
    (n_y, n_x), (dx, dy, _) = geometry.matrix, geometry.voxel_size
    if n_y != n_x or not math.isclose(dx, dy):
        raise ValueError(f"--matrix and --fov of {name} must be square, got {n_y}x{n_x}; give one number each")
    return n_x, dx
