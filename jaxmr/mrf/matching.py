"""Matching: the tissue whose simulated signal looks most like the measured one.

A voxel's signal s takes the parameters of the atom d with the largest correlation |<d, s>| / (|d| |s|),
<d, s> = sum of conj(d) s; its proton density is the complex m0 = <d, s> / <d, d>. Units: seconds, hertz.
Reference: Ma et al., Nature 495:187 (2013).

A host-level driver in NumPy: the inner products are real matrix products, for which OpenBLAS is faster on a
CPU than XLA; the search is in `jaxmr.mrf.search`. Two cores of an AMD EPYC, 10,000 voxels x 5000
atoms (`benchmarks/matching.py`): rank 12 in 38 ms when a common phase turns the atoms real and 47 ms when not;
1000 points in 1.0 s and 1.8 s, 82 and 86 % of the rate of the matrix products alone. All
arithmetic is in the precision of the dictionary.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from jaxmr.core.types import Complex, Float
from jaxmr.mrf.container import AnyArray, Dictionary, parameter
from jaxmr.mrf.refinement import refine_on_grid
from jaxmr.mrf.search import best_atoms, blocks, in_threads
from jaxmr.mrf.subspace import project, require_signals

_POINTS = 2**16  # of the signals normalised or fitted at a time, in the cache of a core


class Match(eqx.Module):
    """Parameter maps, NumPy arrays of shape `voxels`, or `(top, *voxels)` when `top > 1` were asked for.

    parameters: one map per parameter of the dictionary, also to be had as `maps.t1`. m0: complex proton
    density in units of the signals. correlation: 0 to 1; 0 in empty voxels, whose parameters mean nothing.
    index: the atom that matched best.
    """

    parameters: dict[str, Float[np.ndarray, "*voxels"]]
    m0: Complex[np.ndarray, "*voxels"]
    correlation: Float[np.ndarray, "*voxels"]
    index: Int[np.ndarray, "*voxels"]

    def __getattr__(self, name: str) -> Any:
        return parameter(self, name)

    @property
    def images(self) -> dict[str, np.ndarray]:
        """All maps by name, as `io.nifti.write_maps` and `plot.maps.maps_figure` take them."""
        return {**self.parameters, "m0": self.m0, "correlation": self.correlation}


def match(
    dictionary: Dictionary,
    signals: Complex[AnyArray, "*voxels n_points"],
    top: int = 1,
    refine: bool = False,
    progress: bool = False,
) -> Match:
    """The best atom of each voxel, or the `top` best in order of correlation.

    signals: raw `(*voxels, n_echoes)` or, for a compressed dictionary, already projected `(*voxels, rank)`.
    With `rank == n_echoes` they are taken as raw. Memory: two copies of the signals, half a copy of the atoms.
    refine: go on between the grid points to the maximum of the correlation (`jaxmr.mrf.refinement`).
    Raises `ValueError` for signals that are not finite or do not fit the dictionary.
    """
    atoms = np.asarray(dictionary.atoms)
    if not 1 <= top <= len(atoms):
        raise ValueError(f"top must be between 1 and the {len(atoms)} atoms, got {top}")
    norms = np.sqrt(np.real(np.vecdot(atoms, atoms)))
    wrong = ~np.isfinite(norms)
    if wrong.any():
        raise ValueError(f"atom {wrong.argmax()} of the dictionary is not finite; simulate it again")
    points = _points(dictionary, np.asarray(signals))
    units, lengths = _normalise(points.reshape(-1, points.shape[-1]), atoms.dtype)
    index = best_atoms(atoms, norms, units, top, progress)
    values = {name: np.asarray(value)[index] for name, value in dictionary.parameters.items()}
    m0, correlation = _fit(atoms, norms, units, index)
    if refine:
        refined, m0, correlation = refine_on_grid(atoms, dictionary.parameters, units, index, m0, correlation, progress)
        values |= refined
    maps = Match(values, (m0 * lengths).astype(atoms.dtype), correlation.astype(norms.dtype), index)
    shape = points.shape[:-1] if top == 1 else (top, *points.shape[:-1])
    return jax.tree.map(lambda leaf: leaf.reshape(shape), maps)


def _points(dictionary, signals):
    """The signals as points of the dictionary's space, checked, projected if they are raw."""
    basis, n = dictionary.basis, signals.shape[-1] if signals.ndim else 0
    lengths = {"n_points": dictionary.atoms.shape[1]}
    if basis is not None:
        lengths = {"n_echoes": basis.shape[0], "rank": basis.shape[1]}
    require_signals(signals, lengths)
    return signals if basis is None or n != basis.shape[0] else project(signals, np.asarray(basis))


def _normalise(signals, dtype):
    """Signals of norm 1, or 0 where they are zero, and their norms, in the precision of `dtype`."""
    units = np.empty(signals.shape, dtype)
    norms = np.empty(len(signals), np.finfo(dtype).dtype)
    step = max(_POINTS // signals.shape[1], 1)

    def normalise(share):
        for block in blocks(share, step):
            units[block] = signals[block]
            norms[block] = np.sqrt(np.real(np.vecdot(units[block], units[block])))
            units[block] *= (1 / np.where(norms[block] > 0, norms[block], 1))[:, None]

    in_threads(normalise, len(signals))
    return units, norms


def _fit(atoms, norms, units, index):
    """m0 and correlation of unit signals with their atoms."""
    m0 = np.zeros(index.shape, np.complex128)
    correlation = np.zeros(index.shape)
    step = max(_POINTS // units.shape[1], 1)

    def fit(share):
        for block in blocks(share, step):
            chosen = index[:, block]
            inner = np.vecdot(atoms[chosen], units[block])
            norm = np.where(norms > 0, norms, 1)[chosen].astype(float)
            m0[:, block] = inner / norm**2
            correlation[:, block] = np.minimum(np.abs(inner) / norm, 1)

    in_threads(fit, len(units))
    return m0, correlation
