"""PDG: k-space of a phantom by the phase distribution graph, planned on the host, played by one compiled scan.

The plan says which states exist and where they go, as arrays of indices; flips, phases, times, moments, tissue and
positions stay live, so that an optimiser compiles once. Shapes depend on the numbers of states only.
"""

import dataclasses
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core import batch
from jaxmr.core.checks import cast
from jaxmr.core.types import Array, Complex, Float
from jaxmr.models import graph, imaging, pruning
from jaxmr.models.imaging import ImagingModel
from jaxmr.models.pdg_playing import grouped, play, pulse_of
from jaxmr.models.pdg_reading import Steps
from jaxmr.objects.phantom import Phantom
from jaxmr.physics import pdg
from jaxmr.physics.rf import Waveform
from jaxmr.sequences.sequence import Pulse, Segment, Sequence
from jaxmr.sequences.timeline import timelines

N_PILOTS = 12
"""Voxels drawn at random that a plan tries states on, beside the extremes of the phantom."""
FURTHER = 1.05
"""How much further a pulse turns the pilots when they are tried again."""
FLOOR = 0.02
"""States smaller than this times the tolerance are not even looked at."""
PULSES = ("instantaneous", "finite")


@final
class PDG(ImagingModel):
    """Phase distribution graph: exact signals of dephased states, without isochromats.

    tolerance: relative error of k-space that a plan aims at. Voxels dephase by their shape (`Phantom.voxel_shape`), T2'
    and diffusion; coils, b0 and b1 count. pulses: "instantaneous", at their RF centre, or "finite": with their shape,
    slice gradient and off-resonance, one map of the magnetisation for each voxel, cut into `n_z` sub-slices (a voxel
    must be thin against the slice's edges); pulses for saturation, which choose by frequency, are played so always.
    After `plan`: steps, the graph; error, what the plan expects of the states it leaves out.
    """

    tolerance: float = eqx.field(static=True, default=1e-3)
    pulses: str = eqx.field(static=True, default="instantaneous")
    n_z: int = eqx.field(static=True, default=1)
    steps: tuple[Steps, ...] | None = None
    error: Float[Array, ""] | None = None

    def __check_init__(self):
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance is a relative error between 0 and 1, got {self.tolerance}")
        if self.pulses not in PULSES:
            raise ValueError(f"pulses must be one of {', '.join(PULSES)}, got {self.pulses!r}")
        if self.n_z < 1 or (self.n_z > 1 and self.pulses != "finite"):
            raise ValueError(f'n_z counts the sub-slices of a voxel for pulses="finite", got n_z={self.n_z}')

    @property
    def n_states(self) -> int:
        """States that are kept at a time, 0 before planning."""
        return 0 if self.steps is None else self.steps[0].k.shape[-2]

    def is_static(self) -> bool:
        return self.steps is not None

    def planned(self, sequence: Sequence, phantom: Phantom) -> "PDG":
        if self.is_static():
            return self
        steps, error = _plan(*self._played(sequence, phantom), self.tolerance)
        return PDG(self.tolerance, self.pulses, self.n_z, steps, jnp.asarray(error))

    def replanned(self, sequence: Sequence, phantom: Phantom) -> "PDG":
        """A plan for other numbers, in arrays no smaller than this plan's: what was compiled for it mostly fits.

        Concrete values only; where the numbers need larger arrays, these get room for half as much again.
        """
        least = None if self.steps is None else _sizes(self.steps)
        steps, error = _plan(*self._played(sequence, phantom), self.tolerance, least)
        return PDG(self.tolerance, self.pulses, self.n_z, steps, jnp.asarray(error))

    def kspace(
        self, sequence: Sequence, phantom: Phantom, devices: tuple | None = None
    ) -> Complex[Array, "coils samples"]:
        if self.steps is None:
            raise ValueError("PDG has no plan yet; call mr.plan(sequence, phantom, model) outside of jit")
        sequence, phantom = self._played(sequence, phantom)
        groups = grouped(phantom, 1 if devices is None else len(devices))
        shared = (sequence, self.steps, phantom.voxel_size)

        def of(shared, group):
            sequence, steps, size = shared
            return play(sequence, steps, (size, phantom.voxel_shape), group)

        return jnp.sum(batch.over_groups(jax.checkpoint(of), shared, groups, devices), axis=0)

    def error_at(self, sequence: Sequence, phantom: Phantom) -> float:
        """What this plan's states miss now, in a few voxels: beyond the tolerance it is time to plan again.

        For optimisers, whose numbers have moved since the plan was made. Against a plan made for these numbers, ten
        times finer; concrete values only.
        """
        pilots = _voxels(phantom, _chosen(phantom))
        finer = PDG(self.tolerance / 10, self.pulses, self.n_z).planned(sequence, pilots)
        ours, truth = (imaging.kspace(sequence, pilots, model) for model in (self, finer))
        return float(jnp.linalg.norm(ours - truth) / jnp.linalg.norm(truth))

    def _played(self, sequence: Sequence, phantom: Phantom) -> tuple[Sequence, Phantom]:
        """Sequence and phantom as the pulses ask for them: without shapes, or in sub-slices."""
        if self.pulses == "finite":
            return sequence, _sliced(phantom, self.n_z)
        return _instantaneous(sequence), phantom


def _instantaneous(sequence: Sequence) -> Sequence:
    """Pulses without their shapes, but those that saturate: what they do is a matter of the voxel's frequency."""

    def without(segment: Segment) -> Segment:
        pulse = segment.pulse
        if not isinstance(pulse, Pulse) or pulse.use == "saturation":
            return segment
        return dataclasses.replace(segment, pulse=dataclasses.replace(pulse, shape=None))

    return dataclasses.replace(sequence, segments=tuple(map(without, sequence.segments)))


def _sliced(phantom: Phantom, n: int) -> Phantom:
    """Every voxel as `n` thinner ones along z, which share its magnetisation."""
    if n == 1:
        return phantom
    m0 = jnp.ones_like(phantom.tissue.t1) if phantom.tissue.m0 is None else phantom.tissue.m0
    tissue = eqx.tree_at(lambda t: t.m0, phantom.tissue, m0 / n, is_leaf=lambda leaf: leaf is None)
    tissue, position = jax.tree.map(lambda leaf: jnp.repeat(leaf, n, axis=0), (tissue, phantom.position))
    middles = (jnp.arange(n) - (n - 1) / 2) * phantom.voxel_size[2] / n
    position = position.at[:, 2].add(jnp.tile(middles, phantom.tissue.shape[0]))
    coils = None if phantom.coils is None else jnp.repeat(phantom.coils, n, axis=1)
    size = phantom.voxel_size.at[2].divide(n)
    return Phantom(tissue, position, size, coils, voxel_shape=phantom.voxel_shape)


def _sizes(steps: tuple[Steps, ...]) -> tuple[int, int, int]:
    """States, states read at a time, states that add up to one: how large the arrays of a plan are."""
    width = max((rows.shape[-1] for segment in steps for rows in segment.rows), default=1)
    return steps[0].k.shape[-2], width, steps[0].moves.straight.sources.shape[-2]


def _plan(
    sequence: Sequence, phantom: Phantom, tolerance: float, least: tuple[int, int, int] | None = None
) -> tuple[tuple[Steps, ...], float]:
    """The states that `tolerance` needs, from a few voxels of the phantom: graph and expected error.

    least: the smallest sizes of the arrays.
    """
    laid_out = timelines(sequence, np)
    pilots, space = _pilots(sequence, phantom), _space(phantom, tolerance)
    initial = None if sequence.initial is None else np.asarray(sequence.initial, float)
    layers = graph.explore(laid_out, pilots, space, initial, FLOOR * tolerance)
    chosen = pruning.select(layers, laid_out, pilots, tolerance)
    n_states = -(-max(int(kept.sum()) for kept in chosen.states) // 4) * 4
    # As wide in all segments, so that those that are alike stay so.
    width = max((int(mask.sum()) for readings in chosen.readings for mask in readings), default=1)
    depth = max(int(np.bincount(to).max()) for layer in layers for to, _ in layer.links if to.size)
    sizes = n_states, width, depth
    if least is not None:
        roomy = lambda size, known: known if size <= known else size + size // 2  # noqa: E731
        sizes = tuple(roomy(size, known) for size, known in zip(sizes, least, strict=True))
    wound = _wound(cast(sequence, phantom.tissue.t1.dtype))
    steps = tuple(_steps(number, laid_out, layers, chosen, sizes, wound[number]) for number in range(len(laid_out)))
    # All at once: an array by itself takes as long as a hundred of them.
    return jax.device_put(jax.tree.map(_narrow, steps)), chosen.error


def _narrow(leaf):
    """Indices and the host's real numbers as JAX keeps them."""
    if not isinstance(leaf, np.ndarray):
        return leaf
    return leaf.astype(np.int32 if leaf.dtype.kind == "i" else jnp.result_type(float))


@jax.jit
def _wound(sequence: Sequence) -> list[tuple[Array, Array]]:
    """Moment and time of every repetition of each segment."""
    return [(timeline.moment, timeline.time) for timeline in timelines(sequence, jnp)]


def _pilots(sequence: Sequence, phantom: Phantom) -> graph.Pilots:
    tissue = jax.tree.map(lambda leaf: np.asarray(leaf), phantom.tissue)
    n, chosen = phantom.tissue.shape[0], _chosen(phantom)
    b1 = np.ones(n) if tissue.b1 is None else np.asarray(tissue.b1, float)
    turned = {shape: np.asarray(_turned(*first, phantom))[chosen] for shape, first in _first_played(sequence).items()}
    t1, t2 = np.asarray(tissue.t1, float), np.asarray(tissue.t2, float)
    one = lambda leaf, default: np.full(len(chosen), default) if leaf is None else np.asarray(leaf, float)[chosen]  # noqa: E731
    weight = np.ones(len(chosen)) if tissue.m0 is None else np.abs(np.asarray(tissue.m0)[chosen])
    own = t1[chosen], t2[chosen], one(tissue.t2_prime, np.inf), one(tissue.diffusivity, 0.0), b1[chosen], weight
    # Each twice, the second time turned further: at 90 degrees states vanish on which the derivative by the flip lives.
    further = (*own[:4], FURTHER * b1[chosen], weight)
    t1, t2, t2_prime, diffusivity, b1, weight = (np.concatenate(pair) for pair in zip(own, further, strict=True))
    turned = {shape: np.append(by, FURTHER * by) for shape, by in turned.items()}
    return graph.Pilots(t1, t2, t2_prime, diffusivity, b1, weight, turned)


def _chosen(phantom: Phantom) -> np.ndarray:
    """Indices of the pilots."""
    tissue, n = phantom.tissue, phantom.tissue.shape[0]
    extremes = [np.asarray(leaf) for leaf in (tissue.t1, tissue.t2, tissue.b1) if leaf is not None]
    ends = [end(values) for values in extremes for end in (np.argmin, np.argmax)]
    drawn = np.random.default_rng(0).permutation(n)[:N_PILOTS]
    return np.unique(np.concatenate([ends, drawn]))


def _voxels(phantom: Phantom, chosen: np.ndarray) -> Phantom:
    """Some voxels of a phantom, alone."""
    coils = None if phantom.coils is None else phantom.coils[:, chosen]
    place = phantom.position[chosen], phantom.voxel_size
    return Phantom(phantom.tissue[chosen], *place, coils, voxel_shape=phantom.voxel_shape)


def _first_played(sequence: Sequence) -> dict[int, tuple]:
    """Of each shape that is played: the shape, its largest flip, and the carrier, where it is played first."""
    found: dict[int, tuple] = {}
    for segment in sequence.segments:
        pulse = segment.pulse
        if isinstance(pulse, Pulse) and pulse.shape is not None and pulse.shape not in found:
            flip = np.abs(np.asarray(pulse.flip)).max()
            carrier = None if pulse.frequency is None else np.ravel(pulse.frequency)[0]
            found[pulse.shape] = sequence.shapes[pulse.shape], flip, carrier
    return found


@jax.jit
def _turned(shape: Waveform, flip, frequency, phantom: Phantom) -> Float[Array, "voxels"]:
    """What a shaped pulse turns each voxel by, relative to its nominal flip."""
    flip = jnp.maximum(flip, 1e-6)
    voxels = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), grouped(phantom, 1))
    operator = pulse_of(flip, 0.0, frequency, cast(shape, phantom.tissue.t1.dtype), voxels)
    return (jnp.arccos(jnp.clip(operator.rows[2][2][0], -1, 1)) / flip)[: phantom.tissue.shape[0]]


def _space(phantom: Phantom, tolerance: float) -> graph.Space:
    """Cells of (k, tau) within which no phase in the phantom differs by more than a fraction of the tolerance."""
    phase = min(graph.PHASE, tolerance)
    size = np.asarray(phantom.voxel_size, float)
    reach = np.maximum(np.abs(np.asarray(phantom.position, float)).max(axis=0), size / 2)
    tissue = phantom.tissue
    slow = 1e-9
    fastest = slow if tissue.b0 is None else max(2 * np.pi * float(np.abs(np.asarray(tissue.b0)).max()), slow)
    fastest = fastest if tissue.t2_prime is None else max(fastest, 1 / float(np.asarray(tissue.t2_prime).min()))
    return graph.Space(np.append(phase / reach, phase / fastest), size, phantom.voxel_shape)


def _steps(number: int, laid_out, layers, chosen: pruning.Selection, sizes: tuple[int, int, int], wound) -> Steps:
    """The arrays of one segment; `sizes`: states, states read at a time, states that add up to one.

    wound: moment and time of each repetition, in the arithmetic of the simulation.
    """
    n_states, width, depth = sizes
    own = [i for i, layer in enumerate(layers) if layer.segment == number]
    moves = [
        _moves(
            layers[i],
            chosen.states[i],
            chosen.states[i + 1] if i + 1 < len(layers) else np.zeros(0, bool),
            n_states,
        )
        for i in own
    ]
    stacked = jax.tree.map(lambda *parts: _stack(parts, n_states, depth), *moves)
    dephased = [np.column_stack([layers[i].k, layers[i].tau])[chosen.states[i]] for i in own]
    dephased = np.array([np.pad(rows, ((0, n_states - len(rows)), (0, 0))) for rows in dephased])
    k, tau = dephased[..., :3], dephased[..., 3]
    rows, signs, ahead = [], [], []
    for readout in range(len(laid_out[number].readouts)):
        found = [_readings(chosen.readings[i][readout], chosen.states[i]) for i in own]
        rows.append(np.array([np.pad(row, (0, width - len(row)), constant_values=n_states) for row, _ in found]))
        signs.append(np.array([np.pad(sign, (0, width - len(sign)), constant_values=1) for _, sign in found]))
        start = laid_out[number].readouts[readout].start_time
        dephased = [
            sign * layers[i].tau[chosen.states[i]][row] + start[layers[i].repetition]
            for i, (row, sign) in zip(own, found, strict=True)
        ]
        ahead.append(bool(np.concatenate(dephased).min(initial=0) > -1e-9))
    moment, time = wound
    return Steps(stacked, k, tau, moment, time, tuple(rows), tuple(signs), tuple(ahead))


def _stack(parts: tuple[np.ndarray, ...], fill: int, depth: int) -> np.ndarray:
    """Index arrays of one kind of all repetitions, made equally deep."""
    if parts[0].ndim == 1:
        return np.array(parts)
    filled = np.full((len(parts), depth, parts[0].shape[1]), fill)
    for whole, part in zip(filled, parts, strict=True):
        whole[: len(part)] = part
    return filled


def _moves(layer: graph.Layer, kept: np.ndarray, following: np.ndarray, n_states: int) -> pdg.Moves:
    """The moves out of one repetition, between the states that are kept."""
    old, new = np.cumsum(kept) - 1, np.cumsum(following) - 1
    index = []
    for to, start in layer.links:
        inside = to < len(following)
        inside[inside] &= following[to[inside]] & kept[start[inside]]
        to, start = new[to[inside]], old[start[inside]]
        target = np.full(n_states, n_states)
        target[start] = to
        index.append(pdg.Link(_table(to, start, n_states), target))
    straight, crossed, mirrored, flipped, stored = index
    return pdg.Moves(straight, crossed, mirrored, flipped, stored)


def _table(to: np.ndarray, start: np.ndarray, n_states: int) -> np.ndarray:
    """(depth, S): for each target, the states that go there."""
    order = np.argsort(to, kind="stable")
    to, start = to[order], start[order]
    place = np.arange(len(to)) - np.searchsorted(to, to)
    table = np.full((1 + (place.max() if len(place) else 0), n_states), n_states)
    table[place, to] = start
    return table


def _readings(read: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows among the kept states and signs of what is read."""
    number, n = np.cumsum(kept) - 1, len(kept)
    chosen = np.flatnonzero(read)
    return number[chosen % n], np.where(chosen < n, 1.0, -1.0)
