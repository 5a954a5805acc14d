"""Matching in a dictionary that may be larger than memory: part by part, the best of all parts kept."""

from typing import Any

import jax
import numpy as np

from jaxmr.core.batch import progress_bar
from jaxmr.core.types import Complex
from jaxmr.mrf import matching
from jaxmr.mrf.container import AnyArray, Dictionary
from jaxmr.mrf.matching import Match
from jaxmr.mrf.store import Store
from jaxmr.mrf.subspace import project


def match(
    dictionary: Dictionary | Store,
    signals: Complex[AnyArray, "*voxels n_points"],
    top: int = 1,
    refine: bool = False,
    progress: bool = False,
) -> Match:
    """The best atom of each voxel, or the `top` best in order of correlation, of a dictionary or a store.

    signals: raw `(*voxels, n_echoes)` or, for a compressed dictionary, already projected `(*voxels, rank)`.
    With `rank == n_echoes` they are taken as raw. Of a store one part at a time is in memory, and `index` counts
    in the order of the axes, as in `store.to_dictionary()`.
    refine: go on between the grid points to the maximum of the correlation; not for a store.
    Raises `ValueError` for signals that are not finite or do not fit the dictionary.
    """
    if isinstance(dictionary, Dictionary):
        return matching.match(dictionary, signals, top, refine, progress)
    if refine:
        raise ValueError(
            "refine=True needs all atoms in memory: match(store.to_dictionary(), ..., refine=True), or refine=False"
        )
    if not 1 <= top <= dictionary.n_atoms:
        raise ValueError(f"top must be between 1 and the {dictionary.n_atoms} atoms, got {top}")
    points, basis = np.asarray(signals), dictionary.basis
    if basis is not None and points.shape[-1:] == basis.shape[:1] != basis.shape[1:]:
        points = project(points, basis)
    best: dict[str, Any] | None = None
    start = 0
    with progress_bar(dictionary.n_atoms, "matching", progress) as bar:
        for part in dictionary:
            n = len(part.atoms)
            found = matching.match(part, points, min(top, n))
            index = dictionary.header.index[start + found.index]
            columns = {**found.parameters, "m0": found.m0, "correlation": found.correlation, "index": index}
            if min(top, n) == 1:
                columns = {name: column[None] for name, column in columns.items()}
            best = columns if best is None else _merged(best, columns, top)
            start += n
            bar.update(n)
    assert best is not None
    m0, correlation, index = (best.pop(name) for name in ("m0", "correlation", "index"))
    maps = Match(best, m0, correlation, index)
    return maps if top > 1 else jax.tree.map(lambda leaf: leaf[0], maps)


def _merged(one: dict[str, np.ndarray], other: dict[str, np.ndarray], top: int) -> dict[str, np.ndarray]:
    """The `top` best of two lists of matches `(n, *voxels)`, best first; ties go to the lower atom."""
    both = {name: np.concatenate([one[name], other[name]]) for name in one}
    order = np.lexsort((both["index"], -both["correlation"]), axis=0)[:top]
    return {name: np.take_along_axis(column, order, axis=0) for name, column in both.items()}
