"""Simulate a dictionary: the signals of all tissues that a voxel might hold.

A host-level driver: it plans the model once, uses all devices, keeps memory bounded and shows progress.
Atoms that share their B1 are simulated together, because then they share the pulse operators.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core import batch
from jaxmr.core.checks import as_float
from jaxmr.models import planning
from jaxmr.models.model import Model, run
from jaxmr.mrf.container import Dictionary
from jaxmr.mrf.subspace import project, svd_basis
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence, scale_flips

CHUNK_BYTES = 64e6
"""Signals simulated in one call; what XLA needs beside them is about three times as much."""
BASIS_ATOMS = 4000
"""Atoms, spread over the dictionary, whose signals span the subspace of a compressed one."""


def dictionary(
    sequence: Sequence,
    *,
    model: Model,
    tissue: Tissue | None = None,
    rank: int | None = None,
    drop: bool = True,
    progress: bool = False,
    devices: list | None = None,
    **axes: Any,
) -> Dictionary:
    """Signals of a grid of tissues, one array per axis (`t1=..., t2=..., b1=...`), or of a list (`tissue=`).

    rank: keep the signals' components in a subspace of that dimension (of the SVD of up to 4000 of them).
    drop: leave out atoms with t2 > t1. devices: all of them by default. Axes in SI units.
    Ma et al., Nature 495:187 (2013); compression: McGivney et al., IEEE TMI 33:2311 (2014).
    """
    parameters = _parameters(tissue, axes, drop)
    atoms = Tissue(**parameters)
    model = planning.plan(sequence, atoms, model)
    devices = jax.devices() if devices is None else devices
    values = {name: np.asarray(value) for name, value in parameters.items()}
    if rank is None:
        return Dictionary(_signals(sequence, values, model, devices, progress, None), values)
    spread = {name: value[:: max(len(value) // BASIS_ATOMS, 1)] for name, value in values.items()}
    basis, energy = svd_basis(_signals(sequence, spread, model, devices, False, None), rank)
    signals = _signals(sequence, values, model, devices, progress, np.asarray(basis))
    return Dictionary(signals, values, basis, energy)


def _parameters(tissue: Tissue | None, axes: Mapping[str, Any], drop: bool) -> dict[str, np.ndarray]:
    """One value per atom of every parameter."""
    if (tissue is None) == (not axes):
        raise ValueError("dictionary needs either axes such as t1=..., t2=..., or a list as tissue=")
    if tissue is not None:
        flat = tissue.reshape(-1)
        names = [name for name, leaf in vars(flat).items() if leaf is not None]
        columns = {name: np.asarray(getattr(flat, name)) for name in names}
    else:
        missing = {"t1", "t2"} - axes.keys()
        if missing:
            raise ValueError(f"dictionary needs an axis for {' and '.join(sorted(missing))}, in seconds")
        lines = {name: np.atleast_1d(np.asarray(as_float(name, values))) for name, values in axes.items()}
        for name, line in lines.items():
            if line.ndim != 1 or len(np.unique(line)) != len(line):
                raise ValueError(f"axis {name} must be one-dimensional without repeats, got shape {line.shape}")
        grids = np.meshgrid(*lines.values(), indexing="ij")
        columns = {name: grid.ravel() for name, grid in zip(lines, grids, strict=True)}
    if drop:
        kept = columns["t2"] <= columns["t1"]
        if not kept.any():
            raise ValueError("every atom has t2 > t1 and was dropped; check that t1 and t2 are not exchanged")
        columns = {name: column[kept] for name, column in columns.items()}
    return columns


def _signals(
    sequence: Sequence,
    values: dict[str, np.ndarray],
    model: Model,
    devices: list,
    progress: bool,
    basis: np.ndarray | None,
) -> np.ndarray:
    """Signals of all atoms, or their components in `basis`, group by group of one B1, chunk by chunk."""
    n = len(values["t1"])
    points = sequence.n_echoes if basis is None else basis.shape[1]
    dtype = np.result_type(values["t1"].dtype, np.complex64)
    signals = np.empty((n, points), dtype)
    b1 = values.get("b1", np.ones(n, values["t1"].dtype))
    rest = {name: value for name, value in values.items() if name != "b1"}
    groups = [np.flatnonzero(b1 == value) for value in np.unique(b1)]
    if len(groups) > n / 16:
        groups, rest = [np.arange(n)], values  # a list without a B1 grid: nothing to share
    size = max(int(CHUNK_BYTES / (dtype.itemsize * sequence.n_echoes)), 1)
    size = min(size, max(len(group) for group in groups))
    with batch.progress_bar(n, "simulating atoms", progress) as bar:
        for group in groups:
            factor = np.asarray(b1[group[0]]) if rest is not values else np.ones((), b1.dtype)
            for start in range(0, len(group), size):
                chosen = group[start : start + size]
                # One shape for all chunks, so that one compilation serves them.
                padded = np.resize(chosen, size) if len(chosen) < size else chosen
                tissue = Tissue(**{name: value[padded] for name, value in rest.items()})
                found = np.asarray(_simulate(sequence, jnp.asarray(factor), tissue, model, tuple(devices)))
                found = found[: len(chosen)]
                signals[chosen] = found if basis is None else project(found, basis)
                bar.update(len(chosen))
    return signals


@eqx.filter_jit
def _simulate(sequence, factor, tissue, model, devices):
    return run(scale_flips(sequence, factor), tissue, model, devices)
