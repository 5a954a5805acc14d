"""The temporal subspace of a dictionary: a few numbers per voxel instead of a thousand echoes.

The columns of `basis` are the signals that the others are best mixed from: `signals = U S basis.T`. A signal
is projected as `signal @ conj(basis)` and comes back as `coefficients @ basis.T`.
Reference: McGivney et al., IEEE TMI 33:2311 (2014).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxmr.core.checks import require_values
from jaxmr.core.products import matmul
from jaxmr.core.types import Complex, Float
from jaxmr.mrf.container import AnyArray, Dictionary

_ROWS = 4096  # signals taken to float64 at a time


def svd_basis(
    signals: Complex[AnyArray, "*batch n_echoes"], rank: int
) -> tuple[Complex[np.ndarray, "n_echoes rank"], float]:
    """The best `rank`-dimensional basis of `signals`, and the part of their energy that it holds.

    Raises `ValueError` when `rank` is more than the number of signals or echoes.
    """
    rows = np.asarray(signals).reshape(-1, signals.shape[-1])
    return streamed_basis((rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)), rows.shape, rank)


def streamed_basis(
    pieces: Iterable[Complex[np.ndarray, "n n_echoes"]], shape: tuple[int, int], rank: int
) -> tuple[Complex[np.ndarray, "n_echoes rank"], float]:
    """`svd_basis` of signals that come in pieces, of `shape` `(n_signals, n_echoes)` in all; none is kept.

    By the eigenvectors of the Gram matrix, summed in float64: its eigenvalues are squared singular values, and in
    float32 those below 3e-4 of the largest would drown. Real where the signals are, up to their phases; the
    largest entry of each column is positive.
    """
    if not 1 <= rank <= min(shape):
        raise ValueError(
            f"rank must be between 1 and {min(shape)} for {shape[0]} signals of {shape[1]} echoes, got {rank}"
        )
    gram: Any = np.zeros((shape[1],) * 2, complex)
    dtype = np.dtype(np.complex64)
    for piece in pieces:
        gram += _gram(piece)
        dtype = np.result_type(piece, dtype)
    if np.abs(gram.imag).max() <= 1e-6 * np.abs(gram.real).max():
        gram = gram.real
    energies, vectors = np.linalg.eigh(gram)
    total = np.trace(gram).real
    if not (np.isfinite(total) and total > 0):
        raise ValueError("signals must be finite and not all zero; look for NaN or a sequence without excitation")
    basis = vectors[:, ::-1][:, :rank]
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)
    basis = basis * (np.abs(largest) / largest)
    return basis.astype(dtype), float(energies[-rank:].sum() / total)


def compress(
    dictionary: Dictionary, rank: int | None = None, basis: Complex[AnyArray, "n_echoes rank"] | None = None
) -> Dictionary:
    """The dictionary in the subspace of its own `rank` leading singular vectors, or in a given `basis`.

    Raises `ValueError` unless exactly one of the two is given, and for a dictionary already compressed.
    """
    if dictionary.basis is not None:
        raise ValueError(
            f"the dictionary is already compressed to rank {dictionary.basis.shape[1]}; compress the full one"
        )
    if (rank is None) == (basis is None):
        raise ValueError("give either rank or basis, and not both")
    atoms = np.asarray(dictionary.atoms)
    if rank is not None:
        basis, energy = svd_basis(atoms, rank)
        return Dictionary(project(atoms, basis), dictionary.parameters, basis, energy)
    compressed = project(atoms, basis)
    energy = np.linalg.norm(compressed) ** 2 / np.linalg.norm(atoms) ** 2
    return Dictionary(compressed, dictionary.parameters, basis, energy)


def project(
    signals: Complex[AnyArray, "*batch n_echoes"], basis: Complex[AnyArray, "n_echoes rank"] | Any
) -> Complex[AnyArray, "*batch rank"]:
    """Coefficients of `signals` in the subspace, `signals @ conj(basis)`; pure, NumPy or JAX.

    Raises `ValueError` when the number of echoes differs.
    """
    if signals.shape[-1] != basis.shape[0]:
        raise ValueError(
            f"signals end in {signals.shape[-1]} points but the basis has {basis.shape[0]} echoes; "
            "the last axis must be the echoes of the sequence that made the basis"
        )
    if isinstance(signals, np.ndarray) and isinstance(basis, np.ndarray):
        return signals @ basis.conj()
    return matmul(signals, basis.conj())


def real_up_to_phase(
    signals: Complex[np.ndarray, "n_signals n_points"],
) -> Float[np.ndarray, "n_signals n_points"] | None:
    """The signals turned to the real axis if one common phase does that (to 1e-6 of each norm), else None.

    True of trains of constant RF phase without off-resonance: half the arithmetic of matching is saved.
    """
    if not np.iscomplexobj(signals):
        return signals
    strongest = signals[:_ROWS].ravel()[np.abs(signals[:_ROWS]).argmax()]
    turn = np.exp(-1j * np.angle(strongest)).astype(signals.dtype)
    real = np.empty(signals.shape, np.finfo(signals.dtype).dtype)
    for start in range(0, len(signals), _ROWS):
        turned = signals[start : start + _ROWS] * turn
        if np.any(np.abs(turned.imag).max(axis=1) > 1e-6 * np.linalg.norm(turned.real, axis=1)):
            return None
        real[start : start + _ROWS] = turned.real
    return real


def _gram(rows: Any) -> np.ndarray:
    """`rows^T conj(rows)` in double precision, by real products; parts that are zero cost nothing."""
    re, im = rows.real.astype(float), rows.imag.astype(float)
    if not re.any() or not im.any():
        return re.T @ re + 0j if re.any() else im.T @ im + 0j
    cross = im.T @ re
    return re.T @ re + im.T @ im + 1j * (cross - cross.T)


def require_signals(signals: Complex[AnyArray, "*voxels n"], lengths: Mapping[str, int]) -> None:
    """Raise `ValueError` unless signals are finite and their last axis has one of the `lengths`, by what they count."""
    if (signals.shape[-1] if signals.ndim else 0) not in lengths.values():
        known = " or ".join(f"{name} = {length}" for name, length in lengths.items())
        raise ValueError(
            f"signals must end in an axis of {known} points, got shape {signals.shape}; "
            "move the echoes to the last axis, as in np.moveaxis(images, 0, -1)"
        )
    require_values("signals", signals, "set voxels outside the mask to zero")
