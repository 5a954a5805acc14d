"""Simulate a dictionary: the signals of all tissues that a voxel might hold.

A host-level driver: it plans the model, uses all devices, keeps memory bounded and shows progress.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmr.core.batch import progress_bar
from jaxmr.core.checks import as_float
from jaxmr.core.types import Complex
from jaxmr.models import driver
from jaxmr.models.model import Model
from jaxmr.mrf.container import Dictionary
from jaxmr.mrf.subspace import streamed_basis
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence

BASIS_ATOMS = 2000
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

    rank: keep the signals' components in a subspace of that dimension (of the SVD of up to 2000 of them).
    drop: leave out atoms with t2 > t1. devices: all of them by default. Axes in SI units.
    Ma et al., Nature 495:187 (2013); compression: McGivney et al., IEEE TMI 33:2311 (2014).
    """
    values = parameters_of(tissue, axes, drop)
    atoms = Tissue(**values)
    parts = driver.schedule(sequence, atoms, model, driver.rows_within(sequence, atoms))
    basis, energy = None, None
    if rank is not None:
        basis, energy = spanned(sequence, atoms, parts[0].model, rank, devices=devices, progress=progress)
    found = driver.gather(sequence, atoms, parts, basis=basis, devices=devices, progress=progress, description="atoms")
    return Dictionary(found.signals, values, basis, energy)


def spanned(
    sequence: Sequence,
    atoms: Tissue,
    model: Model,
    rank: int,
    *,
    memory: float | None = None,
    devices: list | None = None,
    progress: bool = False,
) -> tuple[Complex[np.ndarray, "n_echoes rank"], float]:
    """The subspace of the signals of up to 2000 atoms, drawn evenly, and the part of their energy that it holds.

    model: with its choices made for the worst of the atoms, so that one compilation serves all that were drawn.
    No more than `memory` bytes of signals are held at a time (None: what `dictionary` takes).
    """
    n = atoms.shape[0]
    drawn = np.sort(np.random.default_rng(0).permutation(n)[:BASIS_ATOMS])
    sample = atoms[drawn]
    parts = driver.schedule(sequence, sample, model, driver.rows_within(sequence, sample, memory))

    def pieces():
        with progress_bar(len(drawn), "subspace", progress) as bar:
            for _, signals in driver.simulate_parts(sequence, sample, parts, devices=devices):
                yield signals
                bar.update(len(signals))

    return streamed_basis(pieces(), (len(drawn), sequence.n_echoes), rank)


def parameters_of(tissue: Tissue | None, axes: Mapping[str, Any], drop: bool) -> dict[str, np.ndarray]:
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
