"""Signals of many voxels on the host: every device busy, memory bounded, progress shown.

Voxels are grouped by T2, because a short T2 needs few orders, and by B1 where they share it, because then
they share the pulse operators. One compilation serves all chunks of a group of T2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core import batch
from jaxmr.core.types import Complex
from jaxmr.models import planning
from jaxmr.models.model import Model, prepare, run_flat
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence, scale_flips

CHUNK_BYTES = 64e6
"""Signals simulated in one call; what XLA needs beside them is about three times as much."""
BAND = 3.0
"""Ratio of the longest to the shortest T2 that share their number of orders."""
SHARING = 16
"""Voxels of one B1 from which it pays to simulate them apart."""


class Simulated(NamedTuple):
    """Signals `(voxels, n_points)` of a flat tissue, and the largest error that the plans expect (0: exact)."""

    signals: Complex[np.ndarray, "voxels n_points"]
    error: float


def simulate_many(
    sequence: Sequence,
    tissue: Tissue,
    model: Model,
    *,
    project: Callable[[np.ndarray], np.ndarray] | None = None,
    devices: list | None = None,
    progress: bool = False,
    description: str = "simulating",
) -> Simulated:
    """Signals of all voxels of a concrete `tissue`, by chunks on `devices` (all by default).

    project: applied to each chunk of signals before it is kept, e.g. onto a subspace. A model with a tolerance
    is planned for each group of T2.
    """
    voxels = tissue.reshape(-1)
    devices = jax.devices() if devices is None else devices
    bands = _bands(np.asarray(voxels.t2)) if not model.is_static() else [np.arange(voxels.shape[0])]
    kept: np.ndarray | None = None
    error = 0.0
    with batch.progress_bar(voxels.shape[0], description, progress) as bar:
        plans = planning.plan_groups(sequence, [voxels[band] for band in bands], model)
        shared = _prepare(sequence, _extremes(voxels), plans[0])
        for band, planned in zip(bands, plans, strict=True):
            error = max(error, 0.0 if planned.error is None else float(planned.error))
            for chosen, signals in _band(shared, sequence, voxels, band, planned, tuple(devices)):
                found = signals if project is None else project(signals)
                if kept is None:
                    kept = np.empty((voxels.shape[0], found.shape[1]), found.dtype)
                kept[chosen] = found
                bar.update(len(chosen))
    assert kept is not None
    return Simulated(kept, error)


def _bands(t2: np.ndarray) -> list[np.ndarray]:
    """Indices of the voxels in each band of T2, from the longest down, so that the longest bound each band."""
    band = np.floor(np.log(t2.max() / t2) / np.log(BAND) + 1e-9)
    return [np.flatnonzero(band == value) for value in np.unique(band)]


def _extremes(tissue: Tissue) -> Tissue:
    """The voxels between which all others lie: what is shared need not see more of them."""
    t1, t2 = np.asarray(tissue.t1), np.asarray(tissue.t2)
    ends = [np.argmax(1 / t2 - 1 / t1), np.argmax(t2)]
    if tissue.b1 is not None:
        ends += [np.argmin(tissue.b1), np.argmax(tissue.b1)]
    return tissue[np.array(ends)]


def _band(shared: Any, sequence: Sequence, voxels: Tissue, band: np.ndarray, model: Model, devices: tuple):
    """Signals of one band, chunk by chunk: pairs of voxel indices and their signals."""
    host = jax.tree.map(lambda leaf: np.asarray(leaf)[band], voxels)
    groups, factors = [np.arange(len(band))], [1.0]
    if voxels.b1 is not None:
        levels = np.unique(host.b1)
        if len(levels) * SHARING <= len(band):
            groups = [np.flatnonzero(host.b1 == level) for level in levels]
            factors = list(levels)
            host = eqx.tree_at(lambda t: t.b1, host, None)
    dtype = np.result_type(host.t1.dtype, np.complex64)
    size = max(int(CHUNK_BYTES / (dtype.itemsize * sequence.n_echoes)), 1)
    size = min(size, max(len(group) for group in groups))
    for group, factor in zip(groups, factors, strict=True):
        for start in range(0, len(group), size):
            chosen = group[start : start + size]
            # One shape for all chunks, so that one compilation serves them.
            padded = np.resize(chosen, size) if len(chosen) < size else chosen
            part = jax.tree.map(lambda leaf, padded=padded: jnp.asarray(leaf[padded]), host)
            signals = _simulate(shared, sequence, jnp.asarray(factor, host.t1.dtype), part, model, devices)
            yield band[chosen], np.asarray(signals)[: len(chosen)]


_prepare = eqx.filter_jit(prepare)


@eqx.filter_jit
def _simulate(shared, sequence, factor, tissue, model, devices):
    return run_flat(shared, scale_flips(sequence, factor), tissue, model, devices)
