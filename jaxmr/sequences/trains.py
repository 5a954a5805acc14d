"""Flip-angle trains: pulses 1 ... n of a transient sequence, from a few numbers, at random or from a file.

Flips in radians, times in seconds; files hold degrees and milliseconds. The maps from a few numbers to a
train (`spline`, `sin_squared`, `piecewise_constant`, `sine_lobes`) are differentiable, so that a design may
search over those numbers; only the random draws happen on the host. Reference: Liu et al., "Fast and accurate
modeling of transient-state sequences by recurrent neural networks", appendix B.
"""

import functools
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Float, Train
from jaxmr.units import deg, ms

Seed = np.random.Generator | int

KINDS = ("Spline5", "Spline11", "SinSquared5", "SplineNoise11", "PieceConstant5")
"""The five families of appendix B."""
LARGEST = 120 * deg
NOISE = np.sqrt(10) * deg
SHORTEST_PIECE = 20
LOBE, PAUSE = 200, 10


class Schedule(NamedTuple):
    """A flip-angle train and its timing; what a file or family leaves open is None."""

    flip: Float[Array, "n"]
    tr: Train | None = None
    te: Train | None = None


def spline(control: Float[Array, "m"], n: int) -> Float[Array, "n"]:
    """Cubic spline through (0, 0) and (floor(i n / m), control i), i = 1 ... m, with zero slope at both ends.

    It is linear in `control` and may overshoot its control points, even below zero.
    """
    m = control.shape[0]
    if not 1 <= m <= n:
        raise ValueError(f"control must have 1 ... n = {n} points, got {m}; lengthen the train")
    return matmul(jnp.asarray(_spline_basis(m, n), control.dtype), control)


@functools.lru_cache(maxsize=8)
def _spline_basis(m: int, n: int) -> np.ndarray:
    """Column i is the spline through 1 at knot i and 0 at the others, shape (n, m)."""
    from scipy.interpolate import CubicSpline

    knots = np.arange(m + 1) * n // m
    return CubicSpline(knots, np.eye(m + 1)[:, 1:], bc_type="clamped")(np.arange(1, n + 1))


def sin_squared(amplitudes: Float[Array, "m"], n: int) -> Float[Array, "n"]:
    """One squared-sine lobe per amplitude: amplitude sin^2(pi i / (n / m)) with i = mod(pulse, floor(n / m)).

    When m does not divide n, the few pulses left over begin another lobe of the last amplitude.
    """
    m = amplitudes.shape[0]
    if not 1 <= m <= n:
        raise ValueError(f"amplitudes must have 1 ... n = {n} entries, got {m}; lengthen the train")
    lobe, i = np.divmod(np.arange(1, n + 1), n // m)
    return amplitudes[np.minimum(lobe, m - 1)] * np.sin(np.pi * i * m / n) ** 2


def piecewise_constant(levels: Float[Array, "m"], edges, n: int) -> Float[Array, "n"]:
    """`levels[i]` from pulse `edges[i - 1]` up to the one before `edges[i]`.

    edges: ascending integers (m - 1,), the first pulse (counted from 1) of each level after the first.
    """
    edges = jnp.asarray(edges)
    if edges.shape != (levels.shape[0] - 1,):
        raise ValueError(f"edges must have shape ({levels.shape[0] - 1},), one fewer than levels, got {edges.shape}")
    return levels[jnp.searchsorted(edges, jnp.arange(1, n + 1), side="right")]


def sine_lobes(peaks: Float[Array, "m"], n: int) -> Float[Array, "n"]:
    """The first n pulses of half-sine lobes: 200 from 5 degrees to a peak and back, then 10 of zero flip.

    The train of Jiang et al., MRM 74:1621 (2015), whose peaks are 35, 43, 70, 45 and 27 degrees.
    """
    lobe, i = np.divmod(np.arange(n), LOBE + PAUSE)
    if not 1 <= n <= peaks.shape[0] * (LOBE + PAUSE):
        raise ValueError(f"n must be 1 ... {LOBE + PAUSE} per peak, got {n} for {peaks.shape[0]}; add peaks")
    flip = 5 * deg + (peaks[lobe] - 5 * deg) * np.sin(np.pi * (i + 1) / LOBE)
    return jnp.where(i < LOBE, flip, 0.0)


def random_train(kind: str, n: int, rng: Seed) -> Float[Array, "n"]:
    """A random train of one of `KINDS`: control points, amplitudes and levels uniform in 0 ... 120 degrees.

    SplineNoise11 adds Gaussian noise of variance 10 deg^2. As the paper asks for flips in 0 ... 120 degrees,
    overshoot and noise are clipped to that range. The pieces of PieceConstant5 are uniform over all choices
    of at least 20 pulses each. rng: a NumPy generator, or a seed; the same seed gives the same train.
    """
    return random_trains(kind, n, 1, rng)[0]


def random_trains(kind: str, n: int, count: int, rng: Seed) -> Float[Array, "count n"]:
    """So many of what `random_train` draws."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    rng = np.random.default_rng(rng)
    m = 11 if kind.endswith("11") else 5
    heights = jnp.asarray(rng.uniform(0, LARGEST, (count, m)), float)
    if kind == "PieceConstant5":
        edges = np.stack([_random_edges(m, n, rng) for _ in range(count)])
        return jax.vmap(lambda levels, edges: piecewise_constant(levels, edges, n))(heights, edges)
    if kind == "SinSquared5":
        return jax.vmap(lambda amplitudes: sin_squared(amplitudes, n))(heights)
    trains = jax.vmap(lambda control: spline(control, n))(heights)
    if kind == "SplineNoise11":
        trains += jnp.asarray(rng.normal(0, NOISE, (count, n)), trains.dtype)
    return jnp.clip(trains, 0, LARGEST)


def _random_edges(m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """First pulses of pieces 2 ... m, at least 20 from each other and from pulses 1 and n (k_0 and k_m)."""
    spare = n - 1 - m * SHORTEST_PIECE
    if spare < 0:
        raise ValueError(
            f"n must be at least {m * SHORTEST_PIECE + 1} for {m} pieces of {SHORTEST_PIECE} pulses, got {n}"
        )
    # A sorted choice without repetition from a longer range is one with repetition, each equally likely.
    gaps = np.sort(rng.choice(spare + m - 1, m - 1, replace=False)) - np.arange(m - 1)
    return 1 + SHORTEST_PIECE * np.arange(1, m) + gaps


def fisp_sine(n: int = 1000, rng: Seed = 0) -> Schedule:
    """A FISP fingerprinting schedule like that of Jiang et al., MRM 74:1621 (2015).

    Half-sine lobes with random peaks of 20 ... 70 degrees, and a repetition time of 11.5 ... 14.5 ms that
    wanders as Perlin noise.
    """
    rng = np.random.default_rng(rng)
    peaks = jnp.asarray(rng.uniform(20 * deg, 70 * deg, -(-n // (LOBE + PAUSE))), float)
    return Schedule(sine_lobes(peaks, n), perlin(n, 11.5 * ms, 14.5 * ms, rng))


def perlin(n: int, low: float, high: float, rng: Seed) -> Float[Array, "n"]:
    """Perlin noise stretched to `low` ... `high`: smooth, with features of about 60 and 30 entries."""
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    rng = np.random.default_rng(rng)
    noise = sum(weight * _octave(n, spacing, rng) for spacing, weight in ((60, 1.0), (30, 0.5)))
    shape = (noise - np.min(noise)) / np.ptp(noise)
    return jnp.asarray(low + (high - low) * shape, float)


def _octave(n: int, spacing: int, rng: np.random.Generator) -> np.ndarray:
    """Gradient noise of one spacing: random slopes at lattice points, faded by 6 t^5 - 15 t^4 + 10 t^3."""
    lattice, offset = np.divmod(np.arange(n), spacing)
    slopes = rng.uniform(-1, 1, lattice[-1] + 2)
    t = (offset + 0.5) / spacing
    fade = t**3 * (10 + t * (6 * t - 15))
    return (1 - fade) * slopes[lattice] * t + fade * slopes[lattice + 1] * (t - 1)


def read(path: str | Path) -> Schedule:
    """Read a schedule from text (degrees, milliseconds) or from a MATLAB file (degrees, seconds).

    Text: columns separated by commas, semicolons or white space; one column holds flips, a second TR, a third
    TE, unless a header line names them (flip or fa, tr, te). MATLAB: variables named so, as in `FA_all`.
    Raises `ValueError` for a file that holds something else, or other units.
    """
    path = Path(path)
    matlab = path.suffix == ".mat"
    columns = _read_matlab(path) if matlab else _read_text(path)
    if "flip" not in columns:
        raise ValueError(f"{path} names no flip angles, only {', '.join(columns)}; call a column flip or fa")
    for name, column in columns.items():
        if not np.isfinite(column).all():
            where = int(np.argmin(np.isfinite(column)))
            raise ValueError(f"{path}: {name} of pulse {where + 1} is {column.flat[where]:g}; fill or drop it")
    largest = np.abs(columns["flip"]).max()
    if largest < 3.2:
        raise ValueError(
            f"{path}: flips must be in degrees, but the largest is {largest:g}, as if in radians; "
            "convert them with np.degrees, or build a Schedule yourself"
        )
    times = {name: np.asarray(columns[name] * (1.0 if matlab else ms)) for name in ("tr", "te") if name in columns}
    _check_times(path, "seconds" if matlab else "milliseconds", **times)
    flip = jnp.asarray(columns["flip"] * deg, float)
    return Schedule(flip, **{name: jnp.asarray(time, float) for name, time in times.items()})


def _check_times(path: Path, unit: str, tr: np.ndarray | None = None, te: np.ndarray | None = None) -> None:
    """Refuse times (s) that no train of pulses has, which is how a wrong unit shows."""
    if tr is not None and not 0.5 * ms <= tr.min() <= 3.0:
        raise ValueError(f"{path}: tr must be in {unit}, but its shortest is {tr.min():g} s; convert the file")
    if te is not None and te.min() < 0:
        raise ValueError(f"{path}: te must not be negative, got {te.min():g} s; times count from the RF centre")
    if tr is not None and te is not None and (te > tr).any():
        pulse = int(np.argmax(te > tr)) + 1
        raise ValueError(f"{path}: te of pulse {pulse} is longer than its tr; check the order of the columns")


def _column_name(word: str) -> str | None:
    """flip, tr or te for a heading such as `FA_all`, `flip angle (deg)` or `TR_ms`; None for another."""
    match = re.match(r"flip|(fa|tr|te)(?![a-z])", word.strip().lower())
    return {"fa": "flip"}.get(match[0], match[0]) if match else None


def _read_matlab(path: Path) -> dict[str, np.ndarray]:
    """The variables of a MATLAB file (before version 7.3) that are named like a column."""
    from scipy.io import loadmat

    try:
        variables = loadmat(path)
    except (ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a MATLAB file that SciPy reads; save it with -v7") from error
    columns = {}
    for variable, value in variables.items():
        name = _column_name(variable)
        if name is None:
            continue
        if name in columns:
            raise ValueError(f"{path} has two variables for {name}; keep one of them")
        if not np.issubdtype(value.dtype, np.number) or np.iscomplexobj(value) or value.size == 0:
            raise ValueError(f"{path}: {variable} must hold real numbers, got {value.dtype} {value.shape}")
        columns[name] = value.ravel().astype(float)
    n = columns["flip"].size if "flip" in columns else 0
    for name, column in columns.items():
        if column.size not in (1, n):
            raise ValueError(f"{path}: {name} has {column.size} entries for {n} flips; give one or {n}")
        columns[name] = column if column.size == n else column.reshape(())
    return columns


def _read_text(path: Path) -> dict[str, np.ndarray]:
    """The columns of a text file; empty lines and comments (# ...) other than the header are skipped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text; write numbers in columns, or a MATLAB file .mat") from error
    names: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        separator = r"[,;\t]" if re.search(r"[,;\t]", line.strip()) else r"\s+"
        words = [word.strip() for word in re.split(separator, line.strip().lstrip("#").strip())]
        heading = [name for name in map(_column_name, words) if name]
        if not rows and not names and len(heading) == len(words):
            names = heading
        elif line.strip() and not line.lstrip().startswith("#"):
            rows.append(_numbers(path, number, words))
    if not rows:
        raise ValueError(f"{path} holds no numbers; write one line per pulse")
    width = len(rows[0])
    names = names or ["flip", "tr", "te"][:width]
    if len(set(names)) < len(names) or len(names) != width or any(len(row) != width for row in rows):
        found = ", ".join(str(size) for size in sorted({len(row) for row in rows}))
        raise ValueError(
            f"{path} must have the columns {', '.join(names)} on every line, got {found} per line; "
            "write flips, then TR, then TE, or name the columns in a header"
        )
    return dict(zip(names, np.array(rows).T, strict=True))


def _numbers(path: Path, number: int, words: list[str]) -> list[float]:
    """One line of a text file as numbers."""
    try:
        return [float(word) for word in words]
    except ValueError as error:
        line = ", ".join(words)
        raise ValueError(f"{path}, line {number}: expected numbers, got {line!r}; write one pulse per line") from error
