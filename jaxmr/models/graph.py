"""The phase distribution graph of a sequence: which dephased states arise, and which of them matter.

Host side, NumPy in float64. A state is the magnetisation that shares one dephasing: F at a moment k and net time tau,
F at -k and -tau, and Z stored at k. What RF, relaxation and gradients do to it in a few pilot voxels of the phantom
(its extremes, and others drawn at random) says how much each state adds to the signal; the rest is left out.
Endres, Weinmüller, Dang and Zaiss, MRM 92:1189 (2024).
"""

from typing import Any, NamedTuple

import numpy as np

from jaxmr.physics.pdg import diffusion, shape_factor
from jaxmr.sequences.timeline import Readout, Timeline

PHASE = 1e-3
"""States whose phases differ by less than this, rad, anywhere in the phantom are one."""
MOST_STATES = 4000
"""States of a repetition beyond which the weakest are dropped."""

AT_A_TIME = 200_000
"""Numbers that are held in the cache at a time."""


class Pilots(NamedTuple):
    """Voxels that stand for the phantom, arrays (n,): relaxation, fields, and the size of their magnetisation.

    turned: of each shape that is played, what it turns the voxels by, relative to its nominal flip.
    """

    t1: Any
    t2: Any
    t2_prime: Any
    diffusivity: Any
    b1: Any
    weight: Any
    turned: dict[int, Any]


class Space(NamedTuple):
    """What states are told apart and seen by: cells of (k, tau), voxel size, and how magnetisation fills a voxel."""

    cell: np.ndarray
    voxel_size: np.ndarray
    voxel_shape: str


class Links(NamedTuple):
    """Where the states of the next repetition come from, pairs (to, from) each.

    straight, crossed: F(k) and F(-k) of old states that become F(k) of new ones. mirrored, flipped: that become
    F(-k), from F(-k) and from F(k). stored: Z.
    """

    straight: np.ndarray
    crossed: np.ndarray
    mirrored: np.ndarray
    flipped: np.ndarray
    stored: np.ndarray


class Layer(NamedTuple):
    """The states of one repetition, before its pulse.

    k (S, 3), tau (S,). parts (3, S, V): F(k), conj(F(-k)), Z in each pilot. seen: of each readout the weights
    (2 S, V), squared, of F(k) and then F(-k) in the signal. links: to the states of the next repetition.
    """

    k: np.ndarray
    tau: np.ndarray
    parts: np.ndarray
    seen: list[np.ndarray]
    links: Links
    segment: int
    repetition: int


def explore(timelines: list[Timeline], pilots: Pilots, space: Space, initial, floor: float) -> list[Layer]:
    """All states larger than `floor` in some pilot, repetition by repetition; state 0 is the one at k = 0."""
    k, tau = np.zeros((1, 3)), np.zeros(1)
    mx, my, mz = (0.0, 0.0, 1.0) if initial is None else initial
    start = np.array([mx + 1j * my, mx - 1j * my, mz])
    parts = np.broadcast_to(start[:, None, None], (3, 1, len(pilots.t1))).copy()
    layers = []
    for number, timeline in enumerate(timelines):
        for i in range(timeline.repetitions):
            after = pulsed(parts, timeline, i, pilots)
            seen = [_seen(k, tau, readout, i, pilots, space) for readout in timeline.readouts]
            relaxed = relax(after, k, timeline, i, pilots)
            new_k, new_tau, links = _wind(k, tau, timeline.moment[i], timeline.time[i], space)
            moved = move(relaxed, links, len(new_k))
            size = np.abs(moved).max(axis=(0, 2))
            size[0] = np.inf
            strongest = np.argsort(-size, kind="stable")[:MOST_STATES]
            kept = np.sort(strongest[size[strongest] > floor])
            layers.append(Layer(k, tau, parts, seen, _selected(links, kept, len(new_k)), number, i))
            k, tau, parts = new_k[kept], new_tau[kept], moved[:, kept]
    return layers


def angles(timeline: Timeline, i: int, pilots: Pilots) -> np.ndarray:
    """What the pulse of repetition `i` turns each pilot by."""
    strength = pilots.b1 if timeline.shape is None else pilots.turned[timeline.shape]
    return strength * timeline.flip[i]


def pulsed(parts: np.ndarray, timeline: Timeline, i: int, pilots: Pilots) -> np.ndarray:
    """The parts of all states after the pulse of repetition `i`: Weigel, JMRI 41:266 (2015), eq. 18."""
    plus, minus, z = parts
    if timeline.efficiency is not None:
        return np.stack([0 * plus, 0 * minus, -timeline.efficiency * z])
    if timeline.flip is None:
        return parts
    angle, turn = angles(timeline, i, pilots), np.exp(1j * timeline.phase[i])
    c2, s2, s = np.cos(angle / 2) ** 2, np.sin(angle / 2) ** 2, np.sin(angle)
    return np.stack(
        [
            c2 * plus + turn**2 * s2 * minus - 1j * turn * s * z,
            s2 / turn**2 * plus + c2 * minus + 1j / turn * s * z,
            -0.5j / turn * s * plus + 0.5j * turn * s * minus + np.cos(angle) * z,
        ]
    )


def relax(parts: np.ndarray, k: np.ndarray, timeline: Timeline, i: int, pilots: Pilots) -> np.ndarray:
    """The parts after the relaxation and diffusion of repetition `i`."""
    factors = decay(k, timeline, i, pilots)
    relaxed = factors * parts
    relaxed[2, 0] -= np.expm1(-timeline.time[i] / pilots.t1)
    return relaxed


def decay(k: np.ndarray, timeline: Timeline, i: int, pilots: Pilots) -> np.ndarray:
    """What relaxation and diffusion leave of F(k), F(-k) and Z during repetition `i`, (3, S, V)."""
    time = timeline.time[i]
    spread = np.stack(diffusion(k, time, timeline.spread[0][i], timeline.spread[1][i]))
    e2, e1 = np.exp(-time / pilots.t2), np.exp(-time / pilots.t1)
    return np.exp(-spread[..., None] * pilots.diffusivity) * np.stack([e2, e2, e1])[:, None]


def move(parts: np.ndarray, links: Links, n: int) -> np.ndarray:
    """The parts of the `n` states of the next repetition."""
    plus, minus, z = parts
    moved = np.zeros((3, n, parts.shape[2]), complex)
    np.add.at(moved[0], links.straight[0], plus[links.straight[1]])
    np.add.at(moved[0], links.crossed[0], minus[links.crossed[1]].conj())
    np.add.at(moved[1], links.mirrored[0], minus[links.mirrored[1]])
    np.add.at(moved[1], links.flipped[0], plus[links.flipped[1]].conj())
    np.add.at(moved[2], links.stored[0], z[links.stored[1]])
    return moved


def _seen(k, tau, readout: Readout, i: int, pilots: Pilots, space: Space) -> np.ndarray:
    """Squared weights in the signal of F(k) and F(-k) of all states during one readout, (2 S, V)."""
    steps = np.arange(1, readout.samples + 1)[:, None]
    step = readout.step_moment if readout.step_moment.ndim == 1 else readout.step_moment[i]
    path = steps * step if readout.path is None else readout.path if readout.path.ndim == 2 else readout.path[i]
    moments = readout.start_moment[i] + path
    both = np.concatenate([k, -k])
    energy = np.zeros(len(both))
    for part in np.array_split(moments, -(-moments.size * len(both) // AT_A_TIME)):
        factor = shape_factor(both + part[:, None], space.voxel_size, space.voxel_shape, np)
        energy += (factor**2).sum(axis=0)
    energy[len(k)] = 0  # F(0) once
    time = readout.start_time[i] + np.ravel(readout.step_time)[i if np.ndim(readout.step_time) else 0] * steps.mean()
    dephased = np.abs(np.concatenate([tau, -tau]) + time)[:, None]
    return energy[:, None] * np.exp(-2 * time / pilots.t2 - 2 * dephased / pilots.t2_prime)


def _wind(k, tau, moment, time, space: Space) -> tuple[np.ndarray, np.ndarray, Links]:
    """The states that a repetition's moment and time make of others, state 0 first."""
    n = len(k)
    wound = np.column_stack([np.concatenate([k, -k]) + moment, np.concatenate([tau, -tau]) + time])
    stored = np.column_stack([k, tau])
    states = np.concatenate([np.zeros((1, 4)), wound, stored])
    negative = _is_negative(states, space.cell)
    states = np.where(negative[:, None], -states, states)
    # Off the middle of a cell, so that sums that differ by rounding only fall into one.
    cells = np.floor(states / space.cell + 0.2).astype(np.int64)
    _, first, index = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    index = rank[index.ravel()]
    found = states[np.sort(first)]
    wound_to, old = index[1 : 2 * n + 1], np.tile(np.arange(n), 2)
    backward = negative[1 : 2 * n + 1]
    from_minus = np.arange(2 * n) >= n
    real = ~(from_minus & (old == 0))
    at_zero = wound_to == 0
    pairs = lambda chosen: np.stack([wound_to[chosen], old[chosen]])  # noqa: E731
    forward_or_zero, backward_or_zero = real & (~backward | at_zero), real & (backward | at_zero)
    links = Links(
        pairs(forward_or_zero & ~from_minus),
        pairs(forward_or_zero & from_minus),
        pairs(backward_or_zero & from_minus),
        pairs(backward_or_zero & ~from_minus),
        np.stack([index[2 * n + 1 :], np.arange(n)]),
    )
    return found[:, :3], found[:, 3], links


def _is_negative(states: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Whether the first coordinate that is not zero is negative: of two opposite states one is kept."""
    signs = np.where(np.abs(states) > cell / 2, np.sign(states), 0)
    first = np.argmax(signs != 0, axis=1)
    return signs[np.arange(len(states)), first] < 0


def _selected(links: Links, kept: np.ndarray, n: int) -> Links:
    """The links to those of `n` states that are kept, renumbered."""
    number = np.full(n, -1)
    number[kept] = np.arange(len(kept))

    def chosen(pairs):
        to = number[pairs[0]]
        return np.stack([to[to >= 0], pairs[1][to >= 0]])

    return Links(*(chosen(pairs) for pairs in links))
