"""The drawing behind the invented brain: where its tissues are, on a fine grid.

Lengths in metres; the origin is the middle of the image, +x the patient's left, +y the back.
"""

import numpy as np

WHITE, GREY, FLUID = 1, 2, 3
"""Labels; 0 is outside of the skull."""

CORTEX = 3e-3
"""Thickness of the cortical ribbon, m."""

# Strokes of one hemisphere (x is mirrored for the other): points (x, y) and radii along them, mm.
VENTRICLES = (
    ([(10, -27), (6, -19), (4.5, -8), (5.5, 2)], [2.5, 4.0, 3.5, 2.5]),
    ([(5.5, 2), (10, 12), (18, 22), (24, 31)], [2.5, 3.2, 5.5, 3.5]),
    ([(0, 3), (0, 14)], [1.2, 1.2]),
)
NUCLEI = (
    ([(13, -22), (11, -12), (12, -6)], [4.5, 4.0, 2.0]),
    ([(24, -17), (29, -6), (26, 6)], [3.0, 4.5, 1.5]),
    ([(9, 4), (11, 11)], [6.0, 7.0]),
)
SYLVIAN = ([(75, -8), (52, -5), (43, 0), (40, -12)], [2.0, 1.2, 1.2, 0.8])


def invented_labels(n: int, step: float, rng: np.random.Generator) -> np.ndarray:
    """Labels of white matter, grey matter and CSF, `(n, n)` pixels of `step`, rows from face to back.

    Sulci are wandering cuts from the surface inwards; cortex is what lies within 3 mm of surface and cuts.
    """
    from scipy import ndimage

    axis = (np.arange(n) - n // 2) * step
    y, x = np.meshgrid(axis, axis, indexing="ij")
    depth = _depth(x, y, rng)
    fluid = depth < 0
    fluid |= (np.abs(x - 8e-4 * np.sin(90 * y)) < 6e-4) & ((y < -0.033) | (y > 0.040))
    for side in (-1, 1):
        fluid |= _stroke(side * x, y, *SYLVIAN)
    cuts = np.ones((n, n), bool)
    for path in _sulci(rng):
        column, row = np.rint(path.T / step + n // 2).astype(int)
        cuts[row, column] = False
    fluid |= step * np.asarray(ndimage.distance_transform_edt(cuts)) < 6e-4
    to_fluid = step * np.asarray(ndimage.distance_transform_edt(~fluid))
    labels = np.where(to_fluid < CORTEX, GREY, WHITE)
    labels[fluid] = FLUID
    for kind, strokes in ((GREY, NUCLEI), (FLUID, VENTRICLES)):
        for points, radii in strokes:
            labels[_stroke(x, y, points, radii) | _stroke(-x, y, points, radii)] = kind
    labels[depth < -3e-3] = 0
    return labels


def _surface(angle):
    """The brain's outline, `(x, y)` at an `angle` about the middle: an egg, broad end at the back."""
    y = 0.086 * np.sin(angle)
    return 0.068 * (1 + 0.7 * y) * np.cos(angle), y


def _depth(x, y, rng: np.random.Generator) -> np.ndarray:
    """Distance inwards from the outline, m, negative outside."""
    angle = np.arctan2(y / 0.086, x / (0.068 * (1 + 0.7 * y)))
    uneven = sum(rng.normal(0, 6e-4) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 7))
    edge = np.hypot(*_surface(angle))
    return edge + uneven - np.hypot(x, y) * edge / np.maximum(edge, 1e-9)


def _sulci(rng: np.random.Generator) -> list[np.ndarray]:
    """Paths `(points, 2)`, m, of the sulci: of the convexity and of the medial wall, half of them forked."""
    paths = []
    for k in range(n_sulci := 44):
        angle = 2 * np.pi * (k + rng.uniform(-0.25, 0.25)) / n_sulci
        start = np.array(_surface(angle))
        if abs(start[0]) < 0.008 or (abs(start[0]) > 0.05 and abs(start[1] + 0.008) < 0.007):
            continue  # the fissures are there
        length = rng.uniform(0.018, 0.026) if k % 2 else rng.uniform(0.008, 0.014)
        paths += _forked(start, -start / np.hypot(*start), length, rng)
    for y in (-0.066, -0.050, 0.052, 0.066):
        for side in (-1, 1):
            start = np.array([0, y + rng.uniform(-3e-3, 3e-3)])
            paths += _forked(start, np.array([side, 0.5 * np.sign(-y)]) / 1.118, rng.uniform(0.010, 0.016), rng)
    return paths


def _forked(start, direction, length: float, rng: np.random.Generator) -> list[np.ndarray]:
    """A path that wanders from `start` along `direction`, with a branch near its end in half of the cases."""
    step = 2.5e-4
    heading = np.arctan2(direction[1], direction[0])
    turns = np.cumsum(rng.normal(0, 0.09, int(length / step)))
    turns -= np.linspace(0, 0.5, turns.size) * turns  # pulled back to the direction
    walk = step * np.stack([np.cos(heading + turns), np.sin(heading + turns)], -1)
    trunk = start + np.cumsum(walk, 0)
    if length < 0.012 or rng.random() < 0.4:
        return [trunk]
    fork = int(rng.uniform(0.5, 0.7) * len(trunk))
    side = rng.choice((-1, 1)) * rng.uniform(0.9, 1.3)
    angles = heading + turns[fork] + side + np.cumsum(rng.normal(0, 0.08, int(0.009 / step)))
    branch = trunk[fork] + np.cumsum(step * np.stack([np.cos(angles), np.sin(angles)], -1), 0)
    return [trunk, branch]


def _stroke(x, y, points, radii) -> np.ndarray:
    """Where a line through `points` (mm), as thick as `radii` (mm) say at each, covers the plane."""
    covered = np.zeros(x.shape, bool)
    points, radii = np.array(points) * 1e-3, np.array(radii) * 1e-3
    for (x0, y0), (x1, y1), r0, r1 in zip(points, points[1:], radii, radii[1:], strict=False):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx**2 + dy**2), 0, 1)
        covered |= np.hypot(x - x0 - along * dx, y - y0 - along * dy) < r0 + along * (r1 - r0)
    return covered
