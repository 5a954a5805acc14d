"""Sub-grid refinement: the maximum of the correlation between the atoms of a grid.

Around the matched atom the signal is interpolated by the quadratic through three atoms along every axis of
the grid (a block of 3^d atoms, mixed terms included), in the logarithm of the parameters that are positive,
and the remaining problem, min |s - m0 a(x)|^2, is solved for x by damped Gauss-Newton after m0 is eliminated
(variable projection: Golub & Pereyra, Inverse Problems 19:R1, 2003). All it needs of a block is its Gram
matrix and the inner products with s, so that an iteration costs the same for any number of echoes.

The best atom of coupled parameters need not be the nearest one: a voxel whose solution leaves the centre
of its block moves to the block there and tries again.
"""

import itertools
from typing import NamedTuple

import numpy as np

from jaxmr.core.batch import host_chunks

_WIDTH = 3  # atoms of a block along each axis
_MOVES = 6  # blocks that a voxel may try
_STEPS = 15  # Gauss-Newton steps within a block
_TOLERANCE = 1e-4  # in places: a block is 2 wide, so about one grid step is 1
_BEYOND = 1.0  # places that a voxel may leave its block, where the grid goes on behind a hole
_SPARSEST = 64  # grid points per atom, beyond which the atoms are a list and no grid
_BYTES = 64e6  # Gram matrices held at a time


class Grid(NamedTuple):
    """Where atoms lie on the grid that their parameters span; axes of one value are left out."""

    names: tuple[str, ...]
    axes: tuple[np.ndarray, ...]  # distinct coordinates, ascending: logarithms where all values are positive
    logarithmic: tuple[bool, ...]
    points: np.ndarray  # (n_atoms, n_axes), the grid point of each atom
    table: np.ndarray  # atom at each grid point, -1 in holes
    complete: np.ndarray  # whether the block that starts at a grid point has all its atoms
    offsets: np.ndarray  # (n_members, n_axes): the grid points of a block, seen from its start


class Fit(NamedTuple):
    """State of the fit of n voxels: place in the block, m0, and what Gauss-Newton needs there."""

    place: np.ndarray  # (n, n_axes), -1 to 1 over the block along each axis
    m0: np.ndarray
    squared: np.ndarray  # correlation squared
    slope: np.ndarray  # (n, n_axes)
    curvature: np.ndarray  # (n, n_axes, n_axes)


def refine_on_grid(atoms, parameters, units, index, m0, correlation, progress):
    """Refined parameters along the axes of the grid (a dict), m0 and correlation, of the shape of `index`.

    units: signals `(n_voxels, n_points)` of norm 1 or 0. index: `(top, n_voxels)`, the matched atoms, and
    their `m0` and `correlation`, kept where an atom lies in no complete block.
    Raises `ValueError` when the atoms are not a grid.
    """
    grid = find_grid(parameters)
    atom, m0, squared = index.ravel(), m0.ravel(), correlation.ravel() ** 2
    voxel = np.tile(np.arange(len(units)), len(index))
    points = np.stack([axis[i] for axis, i in zip(grid.axes, grid.points[atom].T, strict=True)], axis=1)

    start = _block_starts(grid, atom)
    active = np.flatnonzero((start[:, 0] >= 0) & (squared > 0))
    chunk = max(int(_BYTES / (16 * len(grid.offsets) ** 2)), 1)
    for _ in range(_MOVES):
        active = active[np.lexsort(start[active].T)]  # voxels of a block side by side
        arrived = np.empty_like(active)
        for part in host_chunks(len(active), chunk, "refining", progress):
            one = active[part]
            nodes = _nodes(grid, start[one])
            fit = _fit_blocks(grid, atoms, units[voxel[one]], start[one], nodes, points[one])
            arrived[part] = _nearest(grid, start[one], nodes, fit.place)
            better = fit.squared > squared[one]
            won = one[better]
            squared[won], m0[won] = fit.squared[better], fit.m0[better]
            points[won] = _coordinates(grid, start[won], fit.place[better])
            arrived[part][~better] = -1
        moved = _block_starts(grid, arrived)
        elsewhere = (arrived >= 0) & (moved[:, 0] >= 0) & (moved != start[active]).any(axis=1)
        active = active[elsewhere]
        start[active] = moved[elsewhere]
        if active.size == 0:
            break

    refined = {}
    for name, logarithmic, point in zip(grid.names, grid.logarithmic, points.T, strict=True):
        value = np.exp(point) if logarithmic else point
        refined[name] = value.astype(np.asarray(parameters[name]).dtype).reshape(index.shape)
    return refined, m0.reshape(index.shape), np.sqrt(np.minimum(squared, 1)).reshape(index.shape)


def find_grid(parameters) -> Grid:
    """The grid on which a dictionary's atoms lie. Raises `ValueError` when they fill hardly any of it."""
    axes, points, names = [], [], []
    for name, values in parameters.items():
        distinct, point = np.unique(np.asarray(values, np.float64), return_inverse=True)
        if len(distinct) > 1:
            axes.append(distinct)
            points.append(point)
            names.append(name)
    sizes = tuple(map(len, axes))
    n_atoms = len(next(iter(parameters.values())))
    if not sizes or np.prod(sizes, dtype=float) > _SPARSEST * n_atoms:
        raise ValueError(
            f"refine=True needs atoms on a grid, but these {n_atoms} have {sizes} distinct values of "
            f"{tuple(names)}; match without it, or simulate a grid with mr.mrf.dictionary"
        )
    points = np.stack(points, axis=1)
    table = np.full(sizes, -1)
    table[tuple(points.T)] = np.arange(n_atoms)
    widths = [min(_WIDTH, size) for size in sizes]
    complete = table >= 0
    for axis, width in enumerate(widths):
        complete = np.lib.stride_tricks.sliding_window_view(complete, width, axis=axis).all(axis=-1)
    logarithmic = tuple(bool(axis[0] > 0) for axis in axes)
    axes = tuple(np.log(axis) if is_log else axis for axis, is_log in zip(axes, logarithmic, strict=True))
    offsets = np.array(list(itertools.product(*map(range, widths))))
    return Grid(tuple(names), axes, logarithmic, points, table, complete, offsets)


def _block_starts(grid, atom):
    """Start `(n, n_axes)` of the complete block in which each atom is nearest the centre, -1 if in none."""
    point = grid.points[atom]
    starts = np.full(point.shape, -1)
    off_centre = np.abs(grid.offsets - grid.offsets[-1] / 2).sum(axis=1)
    for offset in grid.offsets[np.argsort(off_centre, kind="stable")]:
        start = point - offset
        fits = ((start >= 0) & (start < grid.complete.shape)).all(axis=1) & (starts[:, 0] < 0)
        fits[fits] = grid.complete[tuple(start[fits].T)]
        starts[fits] = start[fits]
    return starts


def _nodes(grid, start):
    """Places of a block's grid points along each axis, -1 to 1: a list of `(n, width)`."""
    nodes = []
    for axis, first, width in zip(grid.axes, start.T, grid.offsets[-1] + 1, strict=True):
        x = axis[first[:, None] + np.arange(width)]
        nodes.append(2 * (x - x[:, :1]) / (x[:, -1:] - x[:, :1]) - 1)
    return nodes


def _ends(grid, start):
    """First and last coordinate of a block along each axis, both `(n, n_axes)`."""
    last = start + grid.offsets[-1]
    return tuple(np.stack([a[i] for a, i in zip(grid.axes, e.T, strict=True)], axis=1) for e in (start, last))


def _coordinates(grid, start, place):
    first, last = _ends(grid, start)
    return first + (place + 1) / 2 * (last - first)


def _nearest(grid, start, nodes, place):
    """The atom of the block nearest to `place`."""
    steps = [np.abs(node - p[:, None]).argmin(axis=1) for node, p in zip(nodes, place.T, strict=True)]
    return grid.table[tuple((start + np.stack(steps, axis=1)).T)]


def _fit_blocks(grid, atoms, units, start, nodes, points) -> Fit:
    """The best `m0 a(x)` within the block of each voxel; blocks come sorted."""
    new = np.concatenate([[True], (start[1:] != start[:-1]).any(axis=1)])
    rows = np.append(np.flatnonzero(new), len(start))
    n_members = len(grid.offsets)
    gram = np.empty((len(rows) - 1, n_members, n_members), np.complex128)
    inner = np.empty((len(start), n_members), np.complex128)
    for block, (row, end) in enumerate(itertools.pairwise(rows)):
        members = atoms[grid.table[tuple((start[row] + grid.offsets).T)]].astype(np.complex128)
        gram[block] = members.conj() @ members.T
        inner[row:end] = units[row:end] @ members.conj().T
    gram = gram[np.cumsum(new) - 1]
    polynomials = [np.linalg.inv(node[:, :, None] ** np.arange(node.shape[1])) for node in nodes]
    first, last = _ends(grid, start)
    low = np.where(start > 0, -1 - _BEYOND, -1)
    high = np.where(start + grid.offsets[-1] + 1 < grid.table.shape, 1 + _BEYOND, 1)
    place = np.clip(2 * (points - first) / (last - first) - 1, low, high)
    return _gauss_newton(gram, inner, polynomials, place, low, high)


def _gauss_newton(gram, inner, polynomials, place, low, high) -> Fit:
    """Maximise the correlation for low <= place <= high, by Levenberg's damping and an active set."""
    fit = _evaluate(gram, inner, polynomials, place)
    damping = np.full(len(place), 1e-3)
    diagonal = np.arange(place.shape[1])
    for _ in range(_STEPS):
        stuck = (fit.place <= low) & (fit.slope < 0) | (fit.place >= high) & (fit.slope > 0)
        matrix = fit.curvature.copy()
        matrix[:, diagonal, diagonal] *= 1 + damping[:, None]
        matrix[:, diagonal, diagonal] += 1e-12 * np.trace(matrix, axis1=1, axis2=2)[:, None] + 1e-30
        matrix[stuck] = 0
        matrix.swapaxes(1, 2)[stuck] = 0
        matrix[:, diagonal, diagonal] += stuck
        step = np.linalg.solve(matrix, np.where(stuck, 0, fit.slope)[:, :, None])[:, :, 0]
        trial = _evaluate(gram, inner, polynomials, np.clip(fit.place + step, low, high))
        better = trial.squared > fit.squared
        moved = np.abs(trial.place - fit.place).max(axis=1)
        fit = Fit(*(_choose(better, new, old) for new, old in zip(trial, fit, strict=True)))
        damping *= np.where(better, 0.1, 10)
        if (moved < _TOLERANCE).all():
            break
    return fit


def _choose(first, these, those):
    """Entries of `these` where `first`, of `those` elsewhere, along the leading axis."""
    return np.where(first.reshape(-1, *[1] * (these.ndim - 1)), these, those)


def _evaluate(gram, inner, polynomials, place) -> Fit:
    """Correlation, slope and Gauss-Newton curvature of the interpolated atoms `a = sum of w_b(place) A_b`.

    With r = s - m0 a: slope_k = Re(conj(m0) <d_k a, r>), curvature_kl = |m0|^2 Re <d_k a, P d_l a>, where P
    projects away from a.
    """
    weights, slopes = [], []
    for polynomial, p in zip(polynomials, place.T, strict=True):
        power = np.arange(polynomial.shape[1])
        value = p[:, None] ** power
        slope = power * p[:, None] ** np.maximum(power - 1, 0)
        weights.append(np.einsum("np,npk->nk", value, polynomial))
        slopes.append(np.einsum("np,npk->nk", slope, polynomial))
    mixes = [_outer(weights)]
    mixes += [_outer([*weights[:a], slopes[a], *weights[a + 1 :]]) for a in range(len(weights))]
    mix = np.stack(mixes, axis=1)  # (n, 1 + n_axes, n_members): a, then its derivatives
    products = mix @ gram @ mix.swapaxes(1, 2)
    projections = (mix @ inner[:, :, None])[:, :, 0]
    energy = np.maximum(products[:, 0, 0].real, 1e-30)
    m0 = projections[:, 0] / energy
    slope = (m0.conj()[:, None] * (projections[:, 1:] - products[:, 1:, 0] * m0[:, None])).real
    across = products[:, 1:, 1:] - products[:, 1:, :1] * products[:, :1, 1:] / energy[:, None, None]
    curvature = np.abs(m0[:, None, None]) ** 2 * across.real
    return Fit(place, m0, np.abs(projections[:, 0]) ** 2 / energy, slope, curvature)


def _outer(factors):
    """Products over the axes, `(n, n_members)`, the last axis fastest."""
    result = factors[0]
    for factor in factors[1:]:
        result = (result[:, :, None] * factor[:, None, :]).reshape(len(factor), -1)
    return result
