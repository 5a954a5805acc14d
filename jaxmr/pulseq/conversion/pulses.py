"""RF events as pulses: an angle, a phase, a carrier, and a shape of unit angle that many of them share.

Units: Hz and s on Pulseq's side; rad, rad/s and rad/(s m) here. Numbers may be live.
"""

import functools
import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxmr.pulseq.blocks import Block
from jaxmr.pulseq.conversion.moments import Windings
from jaxmr.pulseq.conversion.stretches import offset
from jaxmr.pulseq.live import factored, is_live, node_of, stack, value
from jaxmr.pulseq.live.graph import Alike

CELLS, MOST_CELLS = 16, 1000
"""Constant steps of a pulse that is given by few nodes, at least; and of any, about half of these at least."""
TURN = 0.02
"""Most turns of an off-resonant carrier during a step."""
NO_AREA = 1e-3
"""Area over absolute area of a pulse below which it turns by its sweep."""
SILENT = "silent"
"""In place of the key of a shape, where there is none."""
LARGEST_EXCITATION = math.radians(90.01)
"""Pulses of more, whose use no one states, refocus."""


class Shape(NamedTuple):
    """A `Waveform` in the making: what of it may be live. duration, centre: s. gradient: (), (3,) or (n, 3)."""

    samples: Any
    duration: Any
    gradient: Any
    thickness: float
    centre: Any
    symmetric: bool


class Turn(NamedTuple):
    """What a pulse of the sequence is; shape: which one of the library."""

    flip: Any
    phase: Any
    frequency: Any
    shape: int
    use: str


class Library:
    """Shapes, those that are alike only once: plain ones by value, live ones by `alike`."""

    def __init__(self, windings: Windings, alike: Alike):
        self.windings, self.alike = windings, alike
        self.shapes: list[Shape] = []
        self._known: dict[tuple, int] = {}

    def turn(self, block: Block, field: float | None) -> Turn:
        """The pulse of a block."""
        rf = block.rf
        assert rf is not None
        frequency, phase = offset(rf, "freq", field), offset(rf, "phase", field)
        off = is_live(frequency) or frequency != 0
        times = np.ascontiguousarray(value(rf.t), float)
        edges, cells = constant_steps(times.tobytes(), float(value(rf.shape_dur)), float(value(frequency)))
        scale, samples, key = _unit(rf, cells, self.alike)
        gradient, thickness, wound = self._gradient(block, rf, edges, samples)
        symmetric = _symmetric(value(samples), value(rf.center), value(rf.shape_dur))
        middle = _told(self.alike, rf.center, np.round(value(rf.center) / value(rf.shape_dur), 9))
        frame = middle, _told(self.alike, rf.shape_dur, float(value(rf.shape_dur))), wound
        key = (key, *frame)
        if key[0] == SILENT:
            # A pulse without amplitude is any shape's: the one that its neighbours have keeps them together.
            key = next((known for known in self._known if known[1:] == frame), key)
        if key not in self._known:
            self._known[key] = len(self.shapes)
            self.shapes.append(Shape(samples, rf.shape_dur, gradient, thickness, rf.center, symmetric))
        if off:
            # Pulseq turns the carrier from the begin of the shape, a pulse here from its centre.
            phase = phase + 2 * np.pi * frequency * rf.center
        return Turn(scale, _wrapped(phase), frequency if off else None, self._known[key], _use(rf, scale))

    def _gradient(self, block: Block, rf: SimpleNamespace, edges: np.ndarray, samples) -> tuple[Any, float, Any]:
        """Gradient during a pulse, the thickness of its slice, and a key that tells gradients apart."""
        if block.gx is None and block.gy is None and block.gz is None:
            return 0.0, 1.0, 0.0
        times = rf.delay + rf.shape_dur * edges
        wound = self.windings.between(block, times[:-1], times[1:])
        lengths = rf.shape_dur * np.diff(edges)
        heights = [w / lengths if np.ndim(value(w)) else np.zeros(len(lengths)) for w in wound]
        plain = np.stack([value(h) for h in heights], axis=-1)
        live = any(is_live(h) for h in heights)
        peak = np.abs(plain).max()
        if peak == 0 and not live:
            return 0.0, 1.0, 0.0
        steady = np.abs(plain - plain.mean(axis=0)).max() <= 1e-6 * peak
        told = tuple(self.alike.leader(node_of(h)) for h in heights) if live else np.round(plain / peak, 7).tobytes()
        key = (told, float(peak), steady)
        if not steady:
            return stack(heights).T, 1.0, key
        constant = [h[len(lengths) // 2] for h in heights]
        thickness = _thickness(value(samples), float(value(rf.shape_dur)), float(np.linalg.norm(plain.mean(axis=0))))
        if not any(is_live(g) or g != 0 for g in constant[:2]):
            return constant[2], thickness, key
        return stack(constant), thickness, key


@functools.lru_cache(maxsize=64)
def constant_steps(times: bytes, duration: float, frequency: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges of constant steps, relative to the duration, and the matrix of their means over the samples.

    times: of the samples, the bytes of an array, so that pulses of one raster share them.
    """
    t = np.frombuffer(times)
    n = len(t)
    if n > 1 and np.allclose(t, duration * (np.arange(n) + 0.5) / n, rtol=0, atol=1e-9):
        together = max(n // (MOST_CELLS // 2), 1) if n > MOST_CELLS else 1
        n_cells = -(-n // together)
        edges = np.minimum(np.arange(n_cells + 1) * together, n) / n
        if n % together == 0:
            return edges, np.repeat(np.eye(n_cells) / together, together, axis=1)
        # Steps are of one length: the last one would be shorter.
        n_cells, fine = n // together, np.arange(n + 1) / n
    else:
        n_cells = int(np.clip(math.ceil(abs(frequency) * duration / TURN), CELLS, MOST_CELLS))
        n_cells = max(n_cells, min(n, MOST_CELLS))
        fine = None
    edges = np.arange(n_cells + 1) / n_cells
    if fine is not None:
        overlap = np.minimum(edges[1:, None], fine[None, 1:]) - np.maximum(edges[:-1, None], fine[None, :-1])
        return edges, np.clip(overlap, 0, None) * n_cells
    return edges, means_over(t / duration, edges)


def means_over(nodes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Means over cells of what is straight between nodes, and flat outside, (cells, nodes)."""
    nodes = np.clip(nodes, 0, 1)
    unit = np.eye(len(nodes))
    grid = np.union1d(nodes, edges)
    # Nodes at one time are a jump, of which interpolation takes the later side.
    heights = np.stack([np.interp(grid, nodes, row) for row in unit])
    areas = np.concatenate(
        [np.zeros((len(nodes), 1)), np.cumsum((heights[:, 1:] + heights[:, :-1]) / 2 * np.diff(grid), 1)], 1
    )
    at = areas[:, np.searchsorted(grid, edges)]
    return (np.diff(at, axis=1) / np.diff(edges)).T


def _unit(rf: SimpleNamespace, cells: np.ndarray, alike: Alike) -> tuple[Any, Any, Any]:
    """Flip of a pulse, its samples for a flip of 1, and a key that tells shapes apart."""
    parts = factored(rf.signal)
    profile, factor = parts if parts is not None else (rf.signal, 1.0)
    means: Any = cells @ profile
    plain = value(means)
    if np.isrealobj(plain) or not np.abs(plain.imag).max() > 1e-9 * np.abs(plain).max():
        means, plain = means.real, plain.real
    area = 2 * np.pi * np.sum(means) * rf.shape_dur / len(means)
    size = 2 * np.pi * np.abs(plain).sum() * float(value(rf.shape_dur)) / len(plain)
    if size == 0:
        return 0.0 * factor, np.ones(len(plain)) / rf.shape_dur, SILENT
    if abs(value(area)) < NO_AREA * size:
        angle = _swept(plain, float(value(rf.shape_dur)))
    else:
        angle = np.abs(area) if np.iscomplexobj(plain) else area
    unit = 2 * np.pi * means / angle
    key = _told(alike, profile, np.round(value(unit) * float(value(rf.shape_dur)), 8).tobytes())
    return angle * factor, unit, key


def _told(alike: Alike, number: Any, plain: Any) -> Any:
    """What tells a number from others: the expression if it is live, else `plain`."""
    return alike.leader(node_of(number)) if is_live(number) else plain


def _use(rf: SimpleNamespace, flip: Any) -> str:
    """What the pulse is for: as stated, or else by its angle."""
    stated = getattr(rf, "use", "undefined")
    if stated in ("", "undefined"):
        return "refocusing" if abs(flip) > LARGEST_EXCITATION else "excitation"
    return stated if stated in ("excitation", "refocusing", "saturation") else "other"


def _swept(signal: np.ndarray, duration: float) -> float:
    """Angle from z of the magnetisation after a pulse on resonance, rad: what an adiabatic pulse amounts to."""
    dwell = duration / len(signal)
    alpha, beta = 1.0 + 0j, 0.0 + 0j
    for sample in 2 * np.pi * signal * dwell:
        size = abs(sample)
        c, s = math.cos(size / 2), -1j * (sample / size if size else 0) * math.sin(size / 2)
        alpha, beta = c * alpha - np.conj(s) * beta, s * alpha + c * beta
    return max(math.acos(float(np.clip(abs(alpha) ** 2 - abs(beta) ** 2, -1, 1))), 1e-3)


def _symmetric(samples: np.ndarray, center: float, duration: float) -> bool:
    return (
        np.isrealobj(samples)
        and abs(center - duration / 2) < 1e-9
        and bool(np.abs(samples - samples[::-1]).max() <= 1e-6 * np.abs(samples).max())
    )


def _thickness(samples: np.ndarray, duration: float, gradient: float) -> float:
    """Full width at half maximum, m, of the small-tip profile."""
    if gradient == 0:
        return 1.0
    spectrum = np.abs(np.fft.fftshift(np.fft.fft(samples, 16 * len(samples))))
    above = np.flatnonzero(spectrum >= spectrum.max() / 2)
    bandwidth = (above[-1] - above[0] + 1) / (16 * duration)
    return 2 * np.pi * bandwidth / gradient


def _wrapped(phase: Any) -> Any:
    """The phase less whole turns, which float32 would feel."""
    return phase - 2 * np.pi * np.round(float(value(phase)) / (2 * np.pi))
