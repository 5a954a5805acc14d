"""What the commands' shared options mean: scan, model, grid, phantom and devices, in SI units."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxmr as mr
from jaxmr import objects
from jaxmr.cli.parser import DEFAULT_GRID, PULSE
from jaxmr.cli.timing_options import TE, TR
from jaxmr.io.hdf5 import load_dictionary, read_about
from jaxmr.models import Model
from jaxmr.mrf import Dictionary, Store, store
from jaxmr.objects import Phantom
from jaxmr.sequences import Sequence, fisp, trains
from jaxmr.units import deg, mm, ms

PULSES = 1000
"""Of the built-in schedule."""
UNITS = {"t1": ms, "t2": ms, "b1": 1.0, "b0": 1.0}
"""Of axes on the command line."""
SUFFIXES = {"t1": " ms", "t2": " ms", "b0": " Hz"}


class Scan(NamedTuple):
    """A sequence and the numbers that it was made of: times in s, scalars where they are constant."""

    sequence: Sequence
    flip: np.ndarray
    tr: np.ndarray
    te: np.ndarray
    inversion_time: float | None
    source: str

    @property
    def constant(self) -> bool:
        """Whether TR and TE are constant, so that off-resonance is only a phase of the voxel."""
        return self.tr.ndim == self.te.ndim == 0


@contextlib.contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Note how long the block takes."""
    started = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - started


def use_cores() -> None:
    """One device per core; in a process where JAX has started, the devices that there are."""
    with contextlib.suppress(RuntimeError):
        mr.use_cores()


def scan(options: Any) -> Scan:
    """The scan of `--schedule`, `--tr`, `--te` and `--inversion-time`, or the built-in one."""
    if options.schedule is None:
        schedule, source = trains.Schedule(trains.fisp_sine(PULSES).flip), "built-in"
        given = {"tr": TR if options.tr is None else options.tr, "te": TE if options.te is None else options.te}
    else:
        schedule, source = trains.read(options.schedule), str(options.schedule)
        given = {"tr": options.tr, "te": options.te}
    times = {}
    for name, option in given.items():
        column = getattr(schedule, name)
        if (column is None) == (option is None):
            lacks = "has no column" if column is None else "has a column"
            remedy = f"give --{name} in ms" if column is None else f"leave out --{name}"
            raise ValueError(f"{source} {lacks} {name}; {remedy}")
        time = np.asarray(option * ms if column is None else column)
        # A scalar says that the time is the same for all pulses, which models make use of.
        times[name] = time if np.ptp(time) > 0 else np.asarray(time.flat[0])
    inversion_time = None if options.inversion_time is None else options.inversion_time * ms
    sequence = fisp(schedule.flip, times["tr"], times["te"], inversion_time)
    return Scan(sequence, np.asarray(schedule.flip), times["tr"], times["te"], inversion_time, source)


def describe_scan(scan: Scan) -> str:
    inversion = "no inversion" if scan.inversion_time is None else f"inversion {scan.inversion_time / ms:g} ms before"
    return (
        f"{scan.flip.size} pulses, TR {span(scan.tr / ms)} ms, TE {span(scan.te / ms)} ms, {inversion} ({scan.source})"
    )


def schedule_columns(scan: Scan) -> np.ndarray:
    """The scan as `--schedule` reads it, `(n, 3)`: flip in degrees, TR and TE in ms."""
    return np.stack(np.broadcast_arrays(scan.flip / deg, scan.tr / ms, scan.te / ms), axis=1)


def span(values: Any) -> str:
    """`12`, or `11.5 ... 14.5`."""
    low, high = np.min(values), np.max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} ... {high:.4g}"


def model(options: Any) -> Model:
    """The model of `--model`, `--tolerance` and `--slices`."""
    if options.model == "epg":
        return mr.EPG(tolerance=options.tolerance)
    return mr.EPGBloch(pulse=mr.rf.gaussian(*PULSE), n_z=options.slices, tolerance=options.tolerance)


def describe_model(options: Any) -> str:
    duration, bandwidth, thickness = PULSE
    pulse = f"Gaussian pulse {duration / ms:g} ms, time-bandwidth {bandwidth:g}, slice {thickness / mm:g} mm"
    slices = "as many sub-slices as needed" if options.slices is None else f"{options.slices} sub-slices"
    name = "EPG, instantaneous pulses" if options.model == "epg" else f"EPG-Bloch, {pulse}, {slices}"
    return f"{name}, tolerance {options.tolerance:g}"


def grid(words: list[str], scan: Scan) -> dict[str, Any]:
    """Axes of a dictionary, SI units, from words such as `t1=300:3000:40` and the default ones.

    Raises `ValueError` for a word of another form, and for a B0 axis that the scan cannot tell.
    """
    axes = dict(_axis(word) for word in (*DEFAULT_GRID, *words))
    if scan.constant and axes.get("b0", np.zeros(1)).size > 1:
        raise ValueError(
            "--grid b0=...: with a constant TR and TE off-resonance is only a phase of M0, which no match can tell; "
            "leave that axis out"
        )
    return axes


def _axis(word: str) -> tuple[str, np.ndarray]:
    name, _, text = word.partition("=")
    try:
        if name not in UNITS:
            raise ValueError
        if ":" in text:
            start, stop, count = text.split(":")
            ends = float(start), float(stop)
            spaced = np.geomspace if name in ("t1", "t2") else np.linspace
            if int(count) < 2 or not ends[0] < ends[1] or (name != "b0" and ends[0] <= 0):
                raise ValueError
            values = spaced(*ends, int(count))
        else:
            values = np.unique([float(value) for value in text.split(",")])
        if not np.isfinite(values).all() or (name != "b0" and values[0] <= 0):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"--grid {word}: expected t1=START:STOP:COUNT or t1=A,B,C with t1 or t2 in ms, b1 relative or b0 in Hz, "
            "positive (except b0) and ascending"
        ) from None
    return name, UNITS[name] * values


def describe_axes(axes: dict[str, np.ndarray]) -> str:
    """`T1 38 (300 ... 5500 ms), T2 40 (...)`."""
    return ", ".join(
        f"{name.upper()} {axis.size} ({span(axis / UNITS[name])}{SUFFIXES.get(name, '')})"
        for name, axis in axes.items()
    )


def phantom(what: str | None, seed: int = 0, **size: int) -> tuple[Phantom, str]:
    """The phantom that `--phantom` names and what to call it; without a name the brain, if it is installed.

    size: `matrix` of those that are not read from files, if not their own.
    """
    if what == "procedural":
        return objects.procedural(seed=seed, **size), "procedural brain"
    if what not in (None, "brain"):
        return objects.load(what), what
    try:
        return objects.brain(**size), "brain (ICBM 152)"
    except ImportError:
        if what is not None:
            raise
        print(
            "jaxmr: nilearn is missing, so an invented brain stands in; the real one: uv sync --extra brain",
            file=sys.stderr,
        )
        return objects.procedural(seed=seed, **size), "procedural brain (nilearn is missing)"


def read_dictionary(path: str) -> tuple[Dictionary | Store, dict[str, Any]]:
    """The dictionary of an HDF5 file, or the store of a zarr folder, and what was said of it."""
    if Path(path).is_dir():
        found = store.read(path)
        return found, found.about
    return load_dictionary(path), read_about(path)


def about(options: Any, scan: Scan) -> dict[str, str | int | float]:
    """What a dictionary's file tells of its making."""
    flips = " ".join(f"{angle:.5g}" for angle in scan.flip / deg)
    told: dict[str, str | int | float] = {
        "scan": describe_scan(scan),
        "model": describe_model(options),
        "n_pulses": scan.flip.size,
        "jaxmr": mr.__version__,
    }
    # HDF5 keeps attributes of at most 64 kB.
    return told | ({"flip_deg": flips} if len(flips) < 50_000 else {})
