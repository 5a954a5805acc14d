"""Changed moments of a sequence as amplitudes of the gradients that it was read from.

Every moment is a sum over gradients, each times an unknown change of its amplitude; a gradient may wind several
moments (a slice on both sides of the RF centre, a readout and its ramps), which must then agree.
"""

import itertools
from collections.abc import Sequence as Many
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxmr.pulseq.blocks import AXES, Block
from jaxmr.pulseq.conversion.moments import Winding
from jaxmr.pulseq.conversion.segments import Place
from jaxmr.pulseq.template.durations import begins_of, starts_of

AGREE = 1e-6
"""Moments of one gradient agree to within this, and so do gradients that go on from block to block."""
NOISE = 1e-11
"""Changes of amplitude that are smaller than this beside others are rounding."""
Row = tuple[int, int | str]
"""A stretch, by its place and number; -1 is the gradient during the pulse. Or by block and axis, where the gradient of
the block goes on in the next one."""
Unknown = tuple[int, str]
"""A gradient, by block and axis."""


class _Winders(NamedTuple):
    """What winds the rows: where in time they are, which rows each block winds, and gradients of unit amplitude."""

    blocks: Many[Block]
    places: list[Place]
    wanted: dict[Row, np.ndarray]
    begins: np.ndarray
    rows: dict[int, list[Row]]
    units: dict[int, tuple[SimpleNamespace, Winding]]
    known: dict[Row, dict[Unknown, np.ndarray]]


def rewound(blocks: Many[Block], places: list[Place], wanted: dict[Row, np.ndarray]) -> dict[Unknown, SimpleNamespace]:
    """New gradient events, by number of the block and axis.

    wanted: what is added to the moment of a stretch (1, 3), of one with a path to its moment and path
    (1 + samples, 3), or to the gradient of a pulse, (1 or n, 3). A `ValueError` where no amplitudes do it.
    """
    winders = _Winders(blocks, places, wanted, begins_of(blocks), _rows(blocks, places), {}, {})
    found, seen = {}, set()
    for row in wanted:
        if row not in seen:
            system = _coupled(winders, row)
            seen |= system.keys()
            found |= _solved(winders, system)
    made: dict[Any, SimpleNamespace] = {}
    events = {}
    for (number, axis), change in found.items():
        if change:
            gradient = getattr(blocks[number], axis)
            made.setdefault((id(gradient), change), _scaled(gradient, change))
            events[number, axis] = made[id(gradient), change]
    return events


def _rows(blocks: Many[Block], places: list[Place]) -> dict[int, list[Row]]:
    """The rows that the gradients of a block may wind."""
    found: dict[int, list[Row]] = {number: [] for number in range(len(blocks))}
    for i, place in enumerate(places):
        if place.span.rf is not None:
            found[place.span.block].append((i, -1))
        for j, stretch in enumerate(place.span.stretches):
            found[stretch.block].append((i, j))
            if stretch.samples and j:
                found[stretch.block].append((i, j - 1))
    for number, (block, after) in enumerate(itertools.pairwise(blocks)):
        for axis in AXES:
            pair = getattr(block, axis), getattr(after, axis)
            if all(gradient is not None and gradient.type == "grad" for gradient in pair):
                edges = abs(pair[0].last), abs(pair[1].first)
                if min(edges) > AGREE * max(np.abs(gradient.waveform).max() for gradient in pair):
                    found[number].append((number, axis))
                    found[number + 1].append((number, axis))
    return found


def _coupled(winders: _Winders, row: Row) -> dict[Row, dict[Unknown, np.ndarray]]:
    """The rows that share gradients with this one, directly or by others, and what each gradient winds in them."""
    system, waiting, reached = {}, [row], set()
    while waiting:
        one = waiting.pop()
        if one in system:
            continue
        system[one] = _coefficients(winders, one)
        for unknown in system[one].keys() - reached:
            reached.add(unknown)
            waiting += [other for other in winders.rows[unknown[0]] if unknown in _coefficients(winders, other)]
    return system


def _coefficients(winders: _Winders, row: Row) -> dict[Unknown, np.ndarray]:
    """What each gradient winds of unit amplitude (as it is, if sampled), as `wanted` has it."""
    if row in winders.known:
        return winders.known[row]
    i, j = row
    if isinstance(j, str):
        # Files round, so that edges differ a little: what is asked is that they change by one factor.
        edge = getattr(winders.blocks[i], j).last
        found = {(number, j): np.array([[sign * edge, 0.0, 0.0]]) for number, sign in ((i, 1), (i + 1, -1))}
    elif j < 0:
        found = _during_pulse(winders, winders.places[i], len(winders.wanted.get(row, [0])))
    else:
        starts = starts_of(winders.places[i], winders.begins)
        stretch, *rest = winders.places[i].span.stretches[j : j + 2]
        found = _within(winders, stretch, *starts[j : j + 2].tolist())
        if rest and not stretch.samples and rest[0].samples > 1 and rest[0].path is None:
            for key, lead in _within(winders, rest[0], *starts[j + 1 : j + 3].tolist(), lead=True).items():
                found[key] = found.get(key, 0.0) + lead
    winders.known[row] = {key: wound for key, wound in found.items() if np.abs(wound).max() > 1e-15}
    return winders.known[row]


def _within(winders: _Winders, stretch: Any, start: float, stop: float, lead: bool = False) -> dict:
    """In a stretch of its block; or ahead of the first step of a straight readout."""
    begin = winders.begins[stretch.block]
    n = max(stretch.samples, 1)
    times = start - begin + (stop - start) * np.arange(1, n + 1) / n
    found = {}
    for axis, winding in _windings(winders, stretch.block):
        wound = _clean(winding.until(times) - winding.until(start - begin), winding)
        if stretch.samples > 1 and stretch.path is None:
            step = (wound[-1] - wound[0]) / (n - 1)
            wound = _clean(np.array([wound[0] - step if lead else n * step]), winding)
        elif stretch.path is not None:
            wound = np.concatenate([wound[-1:], wound])
        found[stretch.block, AXES[axis]] = wound[:, None] * _direction(winders.blocks[stretch.block], axis)
    return found


def _during_pulse(winders: _Winders, place: Place, n: int) -> dict:
    """While the RF is played: in the middle, or the means over `n` steps."""
    block, number = winders.blocks[place.span.block], place.span.block
    rf, found = block.rf, {}
    assert rf is not None
    edges = rf.delay + rf.shape_dur * (np.arange(n + 1) / n if n > 1 else np.array([0.4999, 0.5001]))
    for axis, winding in _windings(winders, number):
        heights = _clean(np.diff(winding.until(edges)), winding) / np.diff(edges)
        found[number, AXES[axis]] = heights[:, None] * _direction(block, axis)
    return found


def _clean(wound: np.ndarray, winding: Winding) -> np.ndarray:
    """Without the rounding of what cancels."""
    return np.where(np.abs(wound) > 1e-12 * np.abs(winding.wound).max(), wound, 0.0)


def _windings(winders: _Winders, number: int) -> list[tuple[int, Winding]]:
    found = []
    for axis, name in enumerate(AXES):
        gradient = getattr(winders.blocks[number], name)
        if gradient is not None:
            if id(gradient) not in winders.units:
                unit = gradient
                if gradient.type == "trap":
                    unit = SimpleNamespace(**{**vars(gradient), "amplitude": 1.0})
                winders.units[id(gradient)] = unit, Winding(unit)
            found.append((axis, winders.units[id(gradient)][1]))
    return found


def _direction(block: Block, axis: int) -> np.ndarray:
    return np.eye(3)[axis] if block.rotation is None else block.rotation[:, axis]


def _solved(winders: _Winders, system: dict[Row, dict[Unknown, np.ndarray]]) -> dict[Unknown, float]:
    """Changes of amplitude that do what is wanted and leave every other row of the system."""
    keys = list(dict.fromkeys(key for winds in system.values() for key in winds))
    column_of = {key: column for column, key in enumerate(keys)}
    scale = _scales(winders.blocks, keys)
    values, lines, columns, targets = [], [], [], []
    for row, winds in system.items():
        mine = [column_of[key] for key in winds]
        wound, target = _equations(winders, row, winds)
        wound = wound * scale[mine]
        # Of one size: gradients of pulses and edges have other units than moments.
        both = np.column_stack([wound, target]) / (np.linalg.norm(wound) or 1.0)
        if len(both) > len(mine) + 1:
            both = np.linalg.qr(both, mode="r")
            both[np.abs(both) < 1e-13 * np.abs(both).max()] = 0
        for line in both:
            values.extend(line[:-1].tolist())
            columns.extend(mine)
            lines.extend([len(targets)] * len(mine))
            targets.append(line[-1])
    change = scale * _least((values, lines, columns), np.array(targets), len(keys))
    missed = {}
    for row, winds in system.items():
        wound, target = _equations(winders, row, winds)
        part = change[[column_of[key] for key in winds]]
        terms = np.linalg.norm(np.abs(wound) @ np.abs(part)) + np.linalg.norm(target)
        wrong = wound @ part - target
        if np.linalg.norm(wrong) > AGREE * terms + 1e-9:
            axis = int(np.argmax(np.linalg.norm(wrong.reshape(-1, 3), axis=0)))
            lost = not wound[axis::3].any()
            missed[row] = "xyz"[axis], lost
    if missed:
        row = min(missed, key=lambda row: (row not in winders.wanted, row[0], str(row[1])))
        others = [_name(winders, other) for other in system if other != row]
        axis, lost = missed[row]
        raise ValueError(_refusal(_name(winders, row), axis, lost, others))
    relative = np.abs(change / scale)
    change[relative < NOISE * relative.max(initial=0)] = 0
    return dict(zip(keys, change.tolist(), strict=True))


def _scales(blocks: Many[Block], keys: list[Unknown]) -> np.ndarray:
    """Amplitudes, of which changes are parts: those of trapezoids, the largest for those that have none."""
    gradients = [getattr(blocks[number], axis) for number, axis in keys]
    heights = np.array([abs(g.amplitude) if g.type == "trap" else 0.0 for g in gradients])
    traps = np.array([g.type == "trap" for g in gradients])
    least = 1e-3 * heights.max(initial=0) or 1.0
    return np.where(traps, np.maximum(heights, least), 1.0)


def _equations(winders: _Winders, row: Row, winds: dict[Unknown, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What each gradient winds, (lines, gradients), and what is asked for; lines run over steps, then axes."""
    wanted = winders.wanted.get(row, np.zeros((1, 3)))
    size = max([len(wanted), *map(len, winds.values())])
    wound = [np.broadcast_to(part, (size, 3)).ravel() for part in winds.values()]
    target = np.broadcast_to(wanted, (size, 3)).ravel()
    return np.stack(wound, axis=-1) if wound else np.zeros((3 * size, 0)), target


def _least(entries: tuple[list, list, list], b: np.ndarray, n: int) -> np.ndarray:
    """The smallest x (n,) for which a x is closest to b; parts that share no unknown (axes, mostly) one by one.

    entries: values, lines and columns of a.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    values, lines, columns = (np.array(part) for part in entries)
    used = values != 0
    values, lines, columns = values[used], lines[used].astype(int), columns[used].astype(int)
    ones = np.ones(len(values))
    graph = coo_array((ones, (lines, len(b) + columns)), shape=(len(b) + n, len(b) + n))
    part = connected_components(graph, directed=False)[1]
    order = np.argsort(part[lines], kind="stable")
    x = np.zeros(n)
    for chosen in np.split(order, np.flatnonzero(np.diff(part[lines][order])) + 1) if len(order) else ():
        rows, row = np.unique(lines[chosen], return_inverse=True)
        unknown, column = np.unique(columns[chosen], return_inverse=True)
        if b[rows].any():
            a = np.zeros((len(rows), len(unknown)))
            a[row, column] = values[chosen]
            x[unknown] = np.linalg.lstsq(a, b[rows])[0]
    return x


def _refusal(name: str, axis: str, lost: bool, others: list[str]) -> str:
    if lost:
        return (
            f"{name}: its moment along {axis} was changed, but the template has no gradient there; "
            "change what has one, or write without a template"
        )
    shared = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
    return (
        f"{name}: its moment along {axis} cannot change alone, for the gradient that winds it also winds {shared}; "
        "scale them alike, or write without a template"
    )


def _name(winders: _Winders, row: Row) -> str:
    if isinstance(row[1], str):
        return f"the edge of {row[1]} between blocks {row[0] + 1} and {row[0] + 2}"
    place = winders.places[row[0]]
    part = "the gradient of the pulse" if row[1] < 0 else f"event {row[1]}"
    return f"segment {place.segment}, {part}, repetition {place.repetition}"


def _scaled(gradient: SimpleNamespace, change: float) -> SimpleNamespace:
    """The gradient with its amplitude changed (Hz/m), or by that part of itself if it is sampled.

    To ten digits, so that gradients of which the same is asked stay the same.
    """
    if gradient.type == "trap":
        return SimpleNamespace(**{**vars(gradient), "amplitude": float(f"{gradient.amplitude + change:.10g}")})
    factor = float(f"{1 + change:.10g}")
    names = ("waveform", "first", "last")
    return SimpleNamespace(**{**vars(gradient), **{name: getattr(gradient, name) * factor for name in names}})
