"""Matching: the tissue whose simulated signal looks most like the measured one.

A voxel's signal s takes the parameters of the atom d with the largest correlation |<d, s>| / (|d| |s|),
<d, s> = sum of conj(d) s; its proton density is the complex m0 = <d, s> / <d, d>. Units: seconds, hertz.
Reference: Ma et al., Nature 495:187 (2013).

A host-level driver in NumPy: the inner products are real matrix products, for which OpenBLAS is faster on
a CPU than XLA (two cores, 10,000 voxels x 5000 atoms, products alone: rank 12, 44 ms against 129 ms, and
195 ms for XLA's complex product; 1000 points, 1.9 s against 2.3 s and 3.6 s). All arithmetic is in the
precision of the dictionary.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from jaxmr.core.batch import host_chunks
from jaxmr.core.checks import require_values
from jaxmr.core.types import Complex, Float
from jaxmr.mrf.container import AnyArray, Dictionary, parameter
from jaxmr.mrf.refinement import refine_on_grid
from jaxmr.mrf.subspace import project, real_up_to_phase

# Two blocks of 2 MB stay in the cache; the time is flat within 15 % from 64 x 5000 to 512 x 1024.
_VOXELS, _ATOMS = 256, 2048


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
    points = _points(dictionary, np.asarray(signals))
    units = points.reshape(-1, points.shape[-1]).astype(atoms.dtype)
    norms = np.linalg.norm(units, axis=1)
    units /= np.where(norms > 0, norms, 1)[:, None]

    index = _best(atoms, units, top, progress)
    values = {name: np.asarray(value)[index] for name, value in dictionary.parameters.items()}
    m0, correlation = _fit(atoms, units, index)
    if refine:
        refined, m0, correlation = refine_on_grid(atoms, dictionary.parameters, units, index, m0, correlation, progress)
        values |= refined
    maps = Match(values, (m0 * norms).astype(atoms.dtype), correlation.astype(norms.dtype), index)
    shape = points.shape[:-1] if top == 1 else (top, *points.shape[:-1])
    return jax.tree.map(lambda leaf: leaf.reshape(shape), maps)


def _points(dictionary, signals):
    """The signals as points of the dictionary's space, checked, projected if they are raw."""
    basis, n = dictionary.basis, signals.shape[-1] if signals.ndim else 0
    lengths = {"n_points": dictionary.atoms.shape[1]}
    if basis is not None:
        lengths = {"n_echoes": basis.shape[0], "rank": basis.shape[1]}
    if n not in lengths.values():
        known = " or ".join(f"{name} = {length}" for name, length in lengths.items())
        raise ValueError(
            f"signals must end in an axis of {known} points, got shape {signals.shape}; "
            "move the echoes to the last axis, as in np.moveaxis(images, 0, -1)"
        )
    require_values("signals", signals, "set voxels outside the mask to zero")
    return signals if basis is None or n != basis.shape[0] else project(signals, np.asarray(basis))


def _best(atoms, units, top, progress):
    """Indices `(top, n_voxels)` of the atoms of largest correlation with unit signals, best first."""
    norms = np.linalg.norm(atoms, axis=1)
    wrong = ~np.isfinite(norms)
    if wrong.any():
        raise ValueError(f"atom {wrong.argmax()} of the dictionary is not finite; simulate it again")
    scales = np.divide(1, norms, where=norms > 0, out=np.zeros_like(norms))
    real = real_up_to_phase(atoms)
    if real is None:
        # Interleaved real and imaginary parts: <d, s> as two real products without a copy of the signals.
        left = units.view(norms.dtype), units.view(norms.dtype)
    else:
        # The common phase does not change |<d, s>|: half the work.
        atoms, left = real, (units.real.copy(), units.imag.copy())
    index = np.zeros((top, len(units)), np.int64)
    score = np.full((top, len(units)), -1, norms.dtype)
    buffer = np.empty((2, _VOXELS * _ATOMS), norms.dtype)
    for part in host_chunks(len(atoms), _ATOMS, "matching", progress):
        right = _factors(atoms[part] * scales[part, None])
        for start in range(0, len(units), _VOXELS):
            block = slice(start, start + _VOXELS)
            squared = _squared_sum([side[block] for side in left], right, buffer)
            found = _largest(squared, min(top, squared.shape[1]))
            found_score = np.take_along_axis(squared, found.T, axis=1).T
            _merge(index[:, block], score[:, block], found + part.start, found_score)
    return index


def _factors(unit):
    """Atoms as right-hand factors of the real and of the imaginary part of <d, s>."""
    if np.isrealobj(unit):
        return unit, unit
    return unit.view(unit.real.dtype), (unit * unit.dtype.type(1j)).view(unit.real.dtype)


def _squared_sum(left, right, buffer):
    """`(left[0] right[0]^T)^2 + (left[1] right[1]^T)^2`, in the buffer."""
    shape = len(left[0]), len(right[0])
    one, other = (part[: shape[0] * shape[1]].reshape(shape) for part in buffer)
    np.matmul(left[0], right[0].T, out=one)
    np.matmul(left[1], right[1].T, out=other)
    one *= one
    other *= other
    one += other
    return one


def _largest(score, top):
    """Columns of the `top` largest entries of each row, `(top, n_rows)`, in any order."""
    if top == 1:
        return score.argmax(axis=1)[None]
    return np.argpartition(score, -top, axis=1)[:, -top:].T


def _merge(index, score, new_index, new_score):
    """Keep the best of old and new, in place, best first; ties go to the lower atom."""
    indices, scores = np.concatenate([index, new_index]), np.concatenate([score, new_score])
    order = np.lexsort((indices, -scores), axis=0)[: len(index)]
    index[:] = np.take_along_axis(indices, order, 0)
    score[:] = np.take_along_axis(scores, order, 0)


def _fit(atoms, units, index):
    """m0 and correlation of unit signals with their atoms."""
    m0 = np.zeros(index.shape, np.complex128)
    correlation = np.zeros(index.shape)
    for start in range(0, len(units), _VOXELS):
        block = slice(start, start + _VOXELS)
        chosen = atoms[index[:, block]]
        inner = np.einsum("kvn,vn->kv", chosen.conj(), units[block])
        energy = np.einsum("kvn,kvn->kv", chosen.conj(), chosen).real
        safe = np.where(energy > 0, energy, 1)
        m0[:, block] = inner / safe
        correlation[:, block] = np.minimum(np.abs(inner) / np.sqrt(safe), 1)
    return m0, correlation
