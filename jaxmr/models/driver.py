"""Signals of many voxels on the host: every device busy, memory bounded, progress shown.

Voxels are grouped by T2, because a short T2 needs few orders, and by B1 where they share it, because then they
share the pulse operators. What is simulated together, in which order and by which plan is decided first, as a
list of parts, from the values alone: the same on every machine, so that it can be dealt to processes and resumed.
"""

import bisect
import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Several
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from jaxmr.core import batch
from jaxmr.core.types import Complex
from jaxmr.models import planning
from jaxmr.models.model import Model, prepare, run_grouped
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence

CPU_MEMORY, MEMORY = 1e9, 4e9
"""Bytes for the signals in flight, and what XLA needs beside them: on CPUs, and on other devices."""
COPIES = 6
"""Of a part's signals at a time (measured: 5.2): two parts computed, one of them gathered and put in order."""
PARTS = 32
"""Parts of a large job, so that their edges fit the bands of T2; more would not share their B1 as well."""
FEWEST, GPU_FEWEST = 256, 1 << 15
"""Voxels of a part below which calls cost more than they compute; those that fill a GPU take the time of one."""
BAND, FINE, MANY = 3.0, 1.7, 30_000
"""Ratio of the longest to the shortest T2 that share a plan, the same in jobs of many voxels, and how many that is.

Each plan costs a compilation, of 2 to 3 s; too long a T2 costs orders and sub-slices.
"""
WASTE = 1.15
"""Growth of the number of groups that it pays to accept so that each has one B1."""
GPU_LANES = 4096, 64
"""Voxels of a group on a GPU: a share for each of several, and two warps where the voxels of a group share B1."""
VECTOR = 16
"""Numbers of the widest vectors of a CPU: matrix products of 63 columns take twice as long as of 64."""
IN_FLIGHT = 2
"""Parts handed to the devices at a time: one computes while the host is busy with the other."""


class Band(NamedTuple):
    """Indices of voxels, and the model with the choices made for them."""

    voxels: Int[np.ndarray, "n"]
    model: Model


class Part(NamedTuple):
    """Voxels simulated in one call, and how.

    voxels: indices of the voxels. lanes: index of the voxel in each lane of each group; the last is repeated to
    fill up. slots: lane of each voxel, counted through all groups. shares_b1: each group has one B1. model: with
    its choices made.
    """

    voxels: Int[np.ndarray, "rows"]
    lanes: Int[np.ndarray, "n_groups lanes"]
    slots: Int[np.ndarray, "rows"]
    shares_b1: bool
    model: Model


class Simulated(NamedTuple):
    """Signals `(voxels, n_points)` of a flat tissue, and the largest error that the plans expect (0: exact)."""

    signals: Complex[np.ndarray, "voxels n_points"]
    error: float


def simulate_many(
    sequence: Sequence,
    tissue: Tissue,
    model: Model,
    *,
    basis: Complex[np.ndarray, "n_echoes rank"] | None = None,
    devices: list | None = None,
    progress: bool = False,
    description: str = "simulating",
) -> Simulated:
    """Signals of all voxels of a concrete `tissue`, part by part on `devices` (all of this process by default).

    basis: keep `signals @ conj(basis)` only. A model with a tolerance is planned for each band of T2.
    """
    voxels = tissue.reshape(-1)
    parts = schedule(sequence, voxels, model, rows_within(sequence, voxels))
    return gather(sequence, voxels, parts, basis=basis, devices=devices, progress=progress, description=description)


def gather(
    sequence: Sequence,
    voxels: Tissue,
    parts: Several[Part],
    *,
    basis: Complex[np.ndarray, "n_echoes rank"] | None = None,
    devices: list | None = None,
    progress: bool = False,
    description: str = "simulating",
) -> Simulated:
    """The signals of a schedule's parts, in the order of the voxels."""
    n_points = sequence.n_echoes if basis is None else basis.shape[1]
    signals = np.empty((voxels.shape[0], n_points), signal_type(voxels))
    with batch.progress_bar(len(signals), description, progress) as bar:
        for part, found in simulate_parts(sequence, voxels, parts, basis=basis, devices=devices):
            signals[part.voxels] = found
            bar.update(len(found))
    return Simulated(signals, expected_error(parts))


def signal_type(voxels: Tissue) -> np.dtype:
    """Complex, in the precision of the tissue."""
    return np.result_type(voxels.t1.dtype, np.complex64)


def rows_within(sequence: Sequence, voxels: Tissue, memory: float | None = None) -> int:
    """Voxels of a part whose simulation stays within `memory` bytes (None: what the devices have for it)."""
    usual, fewest = (CPU_MEMORY, FEWEST) if jax.default_backend() == "cpu" else (MEMORY, GPU_FEWEST)
    memory, n = usual if memory is None else memory, voxels.shape[0]
    fitting = int(memory / (COPIES * signal_type(voxels).itemsize * sequence.n_echoes))
    return max(min(fitting, max(-(-n // PARTS), fewest), n), 1)


def expected_error(parts: Several[Part]) -> float:
    """The largest relative error that the plans of the parts expect."""
    return max(_error(part.model) for part in parts)


def schedule(sequence: Sequence, voxels: Tissue, model: Model, rows: int) -> list[Part]:
    """All voxels of a flat, concrete tissue in parts of `rows` (the last one may be smaller), with their plans.

    From the longest T2 down, so that the longest costs come first. Depends on nothing but the arguments, and the
    kind of device.
    """
    return laid_out(sequence, voxels, planned_bands(sequence, voxels, model, rows), rows)


def planned_bands(sequence: Sequence, voxels: Tissue, model: Model, rows: int) -> list[Band]:
    """Bands of T2 in multiples of `rows`, each with its own plan; neighbours of the same choices are one."""
    host = jax.tree.map(np.asarray, voxels)
    if model.is_static():
        return [Band(np.arange(voxels.shape[0]), model.planned(sequence, voxels))]
    bands = _bands(host.t2, rows)
    plans = planning.plan_groups(sequence, [host[band] for band in bands], model)
    found = [Band(bands[0], plans[0])]
    for band, plan in zip(bands[1:], plans[1:], strict=True):
        last = found[-1]
        if jax.tree.structure(plan) == jax.tree.structure(last.model):
            found[-1] = Band(np.concatenate([last.voxels, band]), max(last.model, plan, key=_error))
        else:
            found.append(Band(band, plan))
    return found


def laid_out(sequence: Sequence, voxels: Tissue, bands: Several[Band], rows: int) -> list[Part]:
    """The parts of bands whose plans are known."""
    parts = []
    for band, model in bands:
        b1 = None if voxels.b1 is None else np.asarray(voxels.b1)[band]
        ordered = band if b1 is None else band[np.lexsort((band, b1))]
        several = [ordered[start : start + rows] for start in range(0, len(ordered), rows)]
        parts += _filled(several, voxels, model, _lanes(sequence, voxels, model))
    return parts


def simulate_parts(
    sequence: Sequence,
    voxels: Tissue,
    parts: Iterable[Part],
    *,
    basis: Complex[np.ndarray, "n_echoes rank"] | None = None,
    devices: list | None = None,
) -> Iterator[tuple[Part, Complex[np.ndarray, "rows n_points"]]]:
    """Each part with the signals of its voxels, while the devices compute the next one."""
    devices = jax.local_devices() if devices is None else devices
    host = jax.tree.map(np.asarray, voxels)
    shared: dict[Any, Any] = {}
    pending: deque[tuple[Part, jax.Array]] = deque()
    for part in parts:
        # Tables of pulses depend on the sub-slices, not on the orders.
        key = getattr(part.model, "n_z", None)
        if key not in shared:
            shared[key] = _prepare(sequence, _extremes(voxels), part.model)
        groups = jax.tree.map(lambda leaf, part=part: leaf[part.lanes], host)
        if part.shares_b1:
            groups = eqx.tree_at(lambda t: t.b1, groups, groups.b1[:, :1])
        pending.append((part, _simulate(shared[key], sequence, groups, part.model, tuple(devices), basis)))
        if len(pending) == IN_FLIGHT:
            yield _fetched(*pending.popleft())
    while pending:
        yield _fetched(*pending.popleft())


def _bands(t2: np.ndarray, rows: int) -> list[np.ndarray]:
    """Indices of the voxels of each band of T2, from the longest down, in multiples of `rows`.

    A band is filled up from the next one: a few voxels get more orders than they need, none fewer.
    """
    descending = np.argsort(-t2, kind="stable")
    ratio = np.log(t2[descending[0]] / t2[descending]) / np.log(BAND if len(t2) < MANY else FINE)
    ends = np.searchsorted(ratio, np.arange(1, ratio[-1] + 1) - 1e-9)
    edges = np.unique([0, *np.minimum(-(-ends // rows) * rows, len(t2)), len(t2)])
    return [np.sort(descending[start:stop]) for start, stop in itertools.pairwise(edges)]


def _error(model: Model) -> float:
    """What the plan of a model expects."""
    error = getattr(model, "error", None)
    return 0.0 if error is None else float(error)


def _lanes(sequence: Sequence, voxels: Tissue, model: Model) -> int:
    """Voxels of a group: what a device computes together."""
    if jax.default_backend() != "cpu":
        return GPU_LANES[voxels.b1 is not None]
    numbers, lanes = model.state_shape(sequence, voxels)
    return batch.voxels_per_chunk(numbers * voxels.t1.dtype.itemsize, lanes)


def _filled(several: list[np.ndarray], voxels: Tissue, model: Model, most: int) -> list[Part]:
    """Parts of one band in groups of at most `most` lanes, of one shape, so that one compilation serves them all."""
    rows = len(several[0])
    counts = [np.array([len(part)]) for part in several]
    shares_b1 = False
    if voxels.b1 is not None:
        b1 = np.asarray(voxels.b1)
        levels = [np.unique(b1[part], return_counts=True)[1] for part in several]
        shares_b1 = _shape(levels, most)[0] <= WASTE * -(-rows // most)
        counts = levels if shares_b1 else counts
    n_groups, lanes = _shape(counts, most)
    parts = []
    for part, runs in zip(several, counts, strict=True):
        # Each run of voxels fills whole groups; what is left over repeats the last voxel.
        begins = np.cumsum([0, *(-(-runs // lanes) * lanes)])[:-1]
        slots = np.arange(len(part)) + np.repeat(begins - np.cumsum([0, *runs])[:-1], runs)
        filled = np.zeros(n_groups * lanes, int)
        filled[slots] = 1
        source = np.maximum(np.cumsum(filled) - 1, 0)
        parts.append(Part(part, part[source].reshape(n_groups, lanes), slots, shares_b1, model))
    return parts


def _shape(counts: list[np.ndarray], most: int) -> tuple[int, int]:
    """Groups that runs of so many voxels fill in the worst part, and lanes, the fewest that still do.

    They become whole vectors, on a CPU where that adds at most one lane in sixteen.
    """
    groups = lambda lanes: max(int((-(-runs // lanes)).sum()) for runs in counts)  # noqa: E731
    n_groups = groups(most)
    fewest = 1 + bisect.bisect_left(range(1, most + 1), -n_groups, key=lambda lanes: -groups(lanes))
    on_cpu = jax.default_backend() == "cpu"
    vector, growth = (VECTOR, fewest // VECTOR) if on_cpu else (GPU_LANES[1], most)
    whole = -(-fewest // vector) * vector
    return n_groups, whole if whole <= min(most, fewest + growth) else fewest


def _extremes(tissue: Tissue) -> Tissue:
    """The voxels between which all others lie: what is shared need not see more of them."""
    t1, t2 = np.asarray(tissue.t1), np.asarray(tissue.t2)
    ends = [np.argmax(1 / t2 - 1 / t1), np.argmax(t2)]
    if tissue.b1 is not None:
        ends += [np.argmin(tissue.b1), np.argmax(tissue.b1)]
    return tissue[np.array(ends)]


def _fetched(part: Part, signals: jax.Array) -> tuple[Part, np.ndarray]:
    """The signals of a part on the host, in the order of its voxels."""
    found = np.asarray(signals)
    lanes = found.reshape(-1, found.shape[-1])
    n, gaps = len(part.slots), part.slots[-1] + 1 > len(part.slots)
    return part, lanes[part.slots] if gaps else lanes[:n]


_prepare = eqx.filter_jit(prepare)


def _simulate(*inputs):
    """`run_grouped`, compiled; unlike `eqx.filter_jit`, it returns at once, while the devices compute."""
    arrays, rest = eqx.partition(inputs, eqx.is_array)
    leaves, structure = jax.tree.flatten(rest)
    return _compiled(arrays, tuple(leaves), structure)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _compiled(arrays, leaves, structure):
    return run_grouped(*eqx.combine(arrays, jax.tree.unflatten(structure, leaves)))
