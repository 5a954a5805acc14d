"""Which states of a phase distribution graph to keep for a tolerance, by what they add to the signals of the pilots.

The latent signal of a state is what it can still add to the samples: backwards through the graph, all paths taken as
incoherent. States and readings of less than a threshold are left out, and the threshold is the largest at which
the pilots' signals, played again without them, keep the tolerance.
"""

from typing import NamedTuple

import numpy as np

from jaxmr.models import graph
from jaxmr.models.graph import Layer, Pilots
from jaxmr.sequences.timeline import Timeline

STEP, STEPS = 0.5, 24
"""Thresholds that are tried: the tolerance times powers of this."""


class Selection(NamedTuple):
    """Of each layer the states that are kept, and of each of its readouts the F(k), then F(-k), that are read.

    error: relative 2-norm error of the pilots' samples.
    """

    states: list[np.ndarray]
    readings: list[list[np.ndarray]]
    error: float


def select(layers: list[Layer], timelines: list[Timeline], pilots: Pilots, tolerance: float) -> Selection:
    """The fewest states that keep `tolerance` in the pilots."""
    truth = _replay(layers, timelines, pilots, None)
    weight = (pilots.weight / np.linalg.norm(pilots.weight)) ** 2
    energy = sum(_energies(layer, rows).sum(axis=(0, 1)) for layer, rows in zip(layers, truth, strict=True))
    total = float(weight @ energy)
    if total == 0:
        raise ValueError("no state of this sequence gives a signal; look for missing samples or excitation")
    latent = [np.sqrt(values @ weight / total) for values in _latent(layers, timelines, pilots)]
    read = [
        [np.sqrt(e @ weight / total) for e in _energies(layer, rows)] for layer, rows in zip(layers, truth, strict=True)
    ]
    threshold, best = tolerance, None
    for _ in range(STEPS):
        states = [values >= threshold for values in latent]
        for kept in states:
            kept[0] = True
        readings = [
            [(values >= threshold) & np.tile(kept, 2) for values in several]
            for several, kept in zip(read, states, strict=True)
        ]
        found = _replay(layers, timelines, pilots, states)
        error = 0.0
        for layer, masks, ours, theirs in zip(layers, readings, found, truth, strict=True):
            for seen, mask in zip(layer.seen, masks, strict=True):
                error += float((seen * np.abs(np.where(mask[:, None], ours, 0) - theirs) ** 2).sum(0) @ weight)
        best = Selection(states, readings, float(np.sqrt(error / total)))
        if best.error <= tolerance:
            break
        threshold *= STEP
    assert best is not None
    return best


def _replay(layers, timelines, pilots: Pilots, states: list[np.ndarray] | None) -> list[np.ndarray]:
    """F(k) and F(-k) (2 S, V) of each layer after its pulse, with the kept states alone."""
    parts, rows = layers[0].parts, []
    for number, layer in enumerate(layers):
        if states is not None:
            parts = parts * states[number][:, None]
        timeline = timelines[layer.segment]
        after = graph.pulsed(parts, timeline, layer.repetition, pilots)
        rows.append(np.concatenate([after[0], after[1].conj()]))
        if number + 1 < len(layers):
            relaxed = graph.relax(after, layer.k, timeline, layer.repetition, pilots)
            parts = graph.move(relaxed, layer.links, len(layers[number + 1].k))
    return rows


def _energies(layer: Layer, rows: np.ndarray) -> np.ndarray:
    """What each row adds to the energy of each readout, (readouts, 2 S, V)."""
    shape = (len(layer.seen), *rows.shape)
    return np.array([seen * np.abs(rows) ** 2 for seen in layer.seen]).reshape(shape)


def _latent(layers: list[Layer], timelines: list[Timeline], pilots: Pilots) -> list[np.ndarray]:
    """Energy that each state, before its pulse, can still add to the samples, (S, V)."""
    found = []
    after = None
    for layer in reversed(layers):
        timeline, i = timelines[layer.segment], layer.repetition
        sensitivity = _before(layer, after, timeline, i, pilots)
        found.append((np.abs(layer.parts) ** 2 * sensitivity).sum(0))
        after = sensitivity
    return found[::-1]


def _before(layer: Layer, after: np.ndarray | None, timeline: Timeline, i: int, pilots: Pilots) -> np.ndarray:
    """Squared sensitivity (3, S, V) of the samples to the parts before the pulse, from that of the next layer."""
    n = len(layer.k)
    seen = sum(layer.seen, np.zeros((2 * n, 1)))
    passed = np.zeros((3, n, len(pilots.t1)))
    links = layer.links
    for part, pairs, arrives in (
        (0, links.straight, 0),
        (1, links.crossed, 0),
        (1, links.mirrored, 1),
        (0, links.flipped, 1),
        (2, links.stored, 2),
    ):
        if after is not None:
            np.add.at(passed[part], pairs[1], after[arrives][pairs[0]])
    passed *= graph.decay(layer.k, timeline, i, pilots) ** 2
    plus, minus, z = passed[0] + seen[:n], passed[1] + seen[n:], passed[2]
    if timeline.efficiency is not None:
        return np.stack([0 * plus, 0 * minus, timeline.efficiency**2 * z])
    if timeline.flip is None:
        return np.stack([plus, minus, z])
    angle = graph.angles(timeline, i, pilots)
    c4, s4, s2 = np.cos(angle / 2) ** 4, np.sin(angle / 2) ** 4, np.sin(angle) ** 2
    return np.stack(
        [
            c4 * plus + s4 * minus + s2 / 4 * z,
            s4 * plus + c4 * minus + s2 / 4 * z,
            s2 * (plus + minus) + np.cos(angle) ** 2 * z,
        ]
    )
