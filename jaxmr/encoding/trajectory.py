r"""Where and in which order k-space is sampled: phase-encoding orders, Cartesian grids, EPI, radial and spiral.

k is in rad/m with columns (kx, ky), as float64 NumPy arrays: a trajectory is laid out once, on the host. The grid
of an image of N voxels has the rows 2 pi (j - N // 2) / (N voxel_size). Orders are integer arrays of row numbers j.
References: Winkelmann et al., IEEE TMI 26:68 (2007) (golden angle); Wundrak et al., MRM 75:2372 (2016) (tiny golden
angles); Lee et al., MRM 50:1276 (2003) (variable-density spirals).
"""

import math

import numpy as np
from jaxtyping import Float, Int

from jaxmr.core.checks import is_concrete, require_values
from jaxmr.core.types import Array
from jaxmr.units import GAMMA

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
GOLDEN_ANGLE = math.pi / GOLDEN_RATIO
"""111.25 degrees, rad: every further spoke falls into the largest gap."""
REACH = 0.4, 2.5
"""Largest k over pi / voxel size that passes for rad/m: a factor of 2 pi either way is outside."""


def linear_order(n: int) -> Int[np.ndarray, " n"]:
    """Rows from one edge of k-space to the other."""
    return np.arange(n)


def centric_order(n: int) -> Int[np.ndarray, " n"]:
    """Rows from the centre out, in turns below and above it: n // 2, n // 2 - 1, n // 2 + 1, ..."""
    return np.argsort(np.abs(np.arange(n) - n // 2), kind="stable")


def interleaved_order(n: int, n_segments: int) -> Int[np.ndarray, "n_segments n_lines"]:
    """Rows dealt to segments in turn: segment s has rows s, s + n_segments, ...

    Raises `ValueError` unless `n_segments` divides `n`.
    """
    if n_segments < 1 or n % n_segments:
        raise ValueError(f"n_segments must divide the {n} rows, got {n_segments}")
    return np.arange(n).reshape(-1, n_segments).T


def cartesian(matrix: tuple[int, ...], voxel_size) -> Float[np.ndarray, "*matrix n_axes"]:
    """The grid of an image of shape `matrix`, k of every place; voxel_size: m, one number or (dx, dy[, dz])."""
    rows = [_rows(n, size) for n, size in zip(matrix[::-1], _sizes(voxel_size, len(matrix)), strict=True)]
    return np.stack(np.meshgrid(*rows[::-1], indexing="ij")[::-1], axis=-1)


def epi(matrix: tuple[int, ...], voxel_size) -> Float[np.ndarray, "n_lines n_samples 2"]:
    """All lines of the grid of an image (y, x) in one zig-zag: every second line runs towards -kx."""
    if len(matrix) != 2:
        raise ValueError(f"matrix must be (n_lines, n_samples), got {matrix}")
    k = cartesian(matrix, voxel_size)
    k[1::2] = k[1::2, ::-1]
    return k


def tiny_golden_angle(n: int) -> float:
    """pi / (golden ratio + n - 1), rad: 111.25 degrees for n = 1, 23.63 for n = 7."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return math.pi / (GOLDEN_RATIO + n - 1)


def radial(
    n_spokes: int, n_samples: int, voxel_size: float, angle: float = GOLDEN_ANGLE
) -> Float[np.ndarray, "n_spokes n_samples 2"]:
    """Spokes through the centre, the first along kx, each turned by `angle` (rad) against the one before.

    Sample i sits at (i - n_samples // 2) * 2 pi / (n_samples voxel_size), so that more samples mean a finer step, a
    larger field of view along the spoke, and the same resolution.
    """
    radius = _rows(n_samples, voxel_size)
    turn = angle * np.arange(n_spokes)
    return np.stack([np.cos(turn), np.sin(turn)], axis=-1)[:, None] * radius[None, :, None]


def spiral(
    n_interleaves: int,
    fov: float,
    voxel_size: float,
    *,
    edge_density: float = 1.0,
    max_gradient: float = 30e-3,
    max_slew: float = 120.0,
    dwell: float = 2e-6,
) -> tuple[Float[np.ndarray, "n_interleaves n_samples 2"], float]:
    r"""Spirals from the centre to the edge of k-space, as fast as gradients allow; returns k and the time step, s.

    Together the interleaves (turned by 2 pi / n_interleaves) sample the field of view `fov` (m) at the centre, and
    `edge_density` times that at the edge, falling linearly in between: $dk/d\theta = n / \mathrm{fov}(k)$. The edge is
    pi / voxel_size. max_gradient: T/m; max_slew: T/m/s; both of the vector. dwell: s between samples; steps along the
    curve stay below 2 pi / fov only if it is short enough, otherwise `ValueError`. The gradient starts from zero
    and is not brought back.
    """
    positive = {"fov": fov, "voxel_size": voxel_size, "max_gradient": max_gradient, "max_slew": max_slew}
    for name, value in (positive | {"dwell": dwell, "edge_density": edge_density}).items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, in SI units, got {value}")
    if n_interleaves < 1:
        raise ValueError(f"n_interleaves must be at least 1, got {n_interleaves}")
    edge = math.pi / voxel_size
    if GAMMA * max_gradient * dwell > 2 * math.pi / fov:
        longest = 2 * math.pi / (fov * GAMMA * max_gradient)
        raise ValueError(f"dwell {dwell:g} s skips points of a {fov:g} m field of view; at most {longest:.2g} s serve")
    slope = (edge_density - 1) / edge
    radius, turn = _fastest(fov / n_interleaves, slope, edge, GAMMA * max_gradient, GAMMA * max_slew, dwell)
    turn = turn[None] + 2 * math.pi * np.arange(n_interleaves)[:, None] / n_interleaves
    return radius[None, :, None] * np.stack([np.cos(turn), np.sin(turn)], axis=-1), dwell


def one_per_pulse(
    interleaves: Float[Array | np.ndarray, "n_interleaves n_samples n_axes"], n_pulses: int
) -> Float[Array | np.ndarray, "n_pulses n_samples n_axes"]:
    """Interleaf p mod n for pulse p: they take turns, so that every n pulses fill k-space once."""
    return interleaves[np.arange(n_pulses) % len(interleaves)]


def require_units(k, voxel_size, matrix: tuple[int, ...]) -> None:
    """Raise `ValueError` unless a concrete k `(..., n_axes)` is finite and reaches about pi / voxel_size, in rad/m.

    The message names the unit that k seems to have. voxel_size: m, one number or one per column of k; matrix: of the
    image. A tracer passes.
    """
    if not is_concrete((k, voxel_size)):
        return
    require_values("k", k, "leave such samples out")
    columns = np.abs(np.asarray(k, float)[..., : len(matrix)])
    sizes = _sizes(voxel_size, len(matrix))
    largest = columns.reshape(-1, len(matrix)).max(axis=0, initial=0)
    reach = (largest * sizes).max() / np.pi
    if REACH[0] <= reach <= REACH[1]:
        return
    extent = sizes * np.array(matrix[::-1])
    factors = {
        "cycles per metre": ("2 pi", np.full(len(matrix), 2 * np.pi)),
        "cycles per field of view": ("2 pi / (n voxel_size)", 2 * np.pi / extent),
        "radians per voxel": ("1 / voxel_size", 1 / sizes),
        "cycles per voxel": ("2 pi / voxel_size", 2 * np.pi / sizes),
        "radians per millimetre": ("1e3", np.full(len(matrix), 1e3)),
        "cycles per centimetre": ("200 pi", np.full(len(matrix), 200 * np.pi)),
    }
    # The closest to the edge of k-space, which most trajectories reach and few go far beyond.
    misses = {unit: abs(math.log((largest * f * sizes).max() / np.pi or 1e-300)) for unit, (_, f) in factors.items()}
    likely = min(misses, key=lambda unit: misses[unit])
    remedy = f"it looks like {likely}: multiply it by {factors[likely][0]}" if misses[likely] < 0.5 else "check units"
    raise ValueError(
        f"k must be in rad/m and reach about pi / voxel_size = {np.pi / sizes.min():.4g}, but its largest entry is "
        f"{largest.max():.4g}; {remedy} (or mend voxel_size, in m)"
    )


def _fastest(pitch, slope, edge, max_speed, max_acceleration, dwell, n_steps=20):
    """Radius and angle at every dwell, where dtheta/dk = pitch (1 + slope k), within speed and acceleration.

    With k = r exp(i theta) and q = dtheta/dr: k' = r' (1 + i r q), and k'' along the curve is a quadratic in r'',
    whose larger root is the fastest. Steps of a fraction of the dwell, because both change quickly at first.
    """
    r = speed = 0.0
    # The steps are finite; what is played stays within the limits all the same.
    max_speed, max_acceleration = 0.999 * max_speed, 0.999 * max_acceleration
    radii, step = [0.0], dwell / n_steps
    while radii[-1] < edge:
        for _ in range(n_steps):
            q, dq = pitch * (1 + slope * r), pitch * slope
            stretch = 1 + (r * q) ** 2
            radial, tangential = -r * q * q, 2 * q + r * dq
            # |r'' (1 + i r q) + r'^2 (radial + i tangential)| = max_acceleration
            half = speed**2 * (radial + r * q * tangential)
            rest = speed**4 * (radial**2 + tangential**2) - max_acceleration**2
            acceleration = (-half + math.sqrt(max(half**2 - stretch * rest, 0.0))) / stretch
            speed = min(speed + acceleration * step, max_speed / math.sqrt(stretch))
            r += speed * step
        radii.append(r)
    radius = np.minimum(radii, edge)[:-1]
    return radius, pitch * (radius + slope * radius**2 / 2)


def _rows(n, voxel_size):
    return (np.arange(n) - n // 2) * (2 * np.pi / (n * voxel_size))


def _sizes(voxel_size, n_axes):
    sizes = np.asarray(voxel_size, float)
    if sizes.ndim > 1 or (sizes.ndim == 1 and len(sizes) < n_axes) or not (sizes > 0).all():
        raise ValueError(f"voxel_size must be one positive number or one per axis, {n_axes}, in m, got {voxel_size}")
    return np.broadcast_to(sizes if sizes.ndim == 0 else sizes[:n_axes], n_axes)
