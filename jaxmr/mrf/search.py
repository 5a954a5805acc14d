"""The search of matching: the atoms of largest correlation with each signal, blocks of both at a time.

With atoms of norm 1 the square of the correlation is Re<d, s>^2 + Im<d, s>^2: two real matrix products, or
two of half the size when a common phase turns the atoms real, then two squares, a sum and the largest entry
of each row. For a thousand points the products are nearly all of it, and the BLAS spreads each over the cores.
For a dozen points most of the time goes into the table of scores, and none of the NumPy calls on it is
threaded: there threads of our own share the voxels, a block of the table stays in the cache of a core, and
the products are cut so small that the BLAS gives each to one thread.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxmr.core.batch import host_chunks
from jaxmr.mrf.subspace import real_up_to_phase

_FEW = 128  # real points up to which the voxels are shared among threads
_SMALL = 2**18  # multiply-adds of a product that OpenBLAS gives to one thread
_COLUMNS = 32  # that a kernel of OpenBLAS takes together
_BLOCK_FEW = 64, 8192  # voxels and atoms of a block
_BLOCK_MANY = 512, 8192
_SHARES = 4  # per thread, so that none waits long for the last


def in_threads(function: Callable[[slice], None], n: int, threads: int | None = None) -> None:
    """Call `function` on slices that cover `n`, from as many threads as there are cores (or `threads`)."""
    threads = threads or os.cpu_count() or 1
    size = max(-(-n // (_SHARES * threads)), 1) if threads > 1 else max(n, 1)
    shares = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    if len(shares) < 2:
        list(map(function, shares))
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(function, shares))


def blocks(part: slice, size: int) -> Iterator[slice]:
    """Slices of `size` that cover `part`."""
    for start in range(part.start, part.stop, size):
        yield slice(start, min(start + size, part.stop))


def best_atoms(atoms: np.ndarray, norms: np.ndarray, units: np.ndarray, top: int, progress: bool) -> np.ndarray:
    """Indices `(top, n_voxels)` of the atoms of largest correlation, best first; ties go to the lower atom.

    atoms: `(n_atoms, n_points)` of the given norms. units: signals `(n_voxels, n_points)` of norm 1 or 0.
    """
    scales = np.divide(1, norms, where=norms > 0, out=np.zeros_like(norms))
    lowest = _lowest_alike(atoms) if top == 1 else None
    real = real_up_to_phase(atoms)
    if real is None:
        # Interleaved real and imaginary parts: <d, s> as two real products without a copy of the signals.
        left = units.view(norms.dtype)[None]
    else:
        # The common phase does not change |<d, s>|: half the work.
        atoms, left = real, np.empty((2, *units.shape), norms.dtype)

        def split(share):
            left[0, share], left[1, share] = np.real(units[share]), np.imag(units[share])

        in_threads(split, len(units))
    few = left.shape[-1] <= _FEW
    n_voxels, n_atoms = _BLOCK_FEW if few else _BLOCK_MANY
    index = np.zeros((top, len(units)), np.int64)
    score = np.full((top, len(units)), -1, norms.dtype)
    for part in host_chunks(len(atoms), n_atoms, "matching", progress):
        right = _factors(atoms[part] * scales[part, None])
        tiles = _tiles(right, _SMALL // (n_voxels * right.shape[-1]) if few else n_atoms)
        if few:
            tiles = np.ascontiguousarray(tiles)  # half the time of small products
        size = right.shape[1]

        def search(share, tiles=tiles, size=size, first=part.start):
            buffer = np.empty(2 * n_voxels * tiles.shape[1] * tiles.shape[-1], norms.dtype)
            for block in blocks(share, n_voxels):
                squared = _squared_sum(left[:, block], tiles, buffer)[:, :size]
                found = _largest(squared, min(top, size))
                found_score = squared[np.arange(len(squared)), found]
                _merge(index[:, block], score[:, block], found + first, found_score)

        in_threads(search, len(units), None if few else 1)
    return index if lowest is None else lowest[index]


def _lowest_alike(atoms):
    """Of each atom the first one that is equal to it: a BLAS may score equal columns differently in the last bit."""
    words = np.ascontiguousarray(atoms).view(np.uint32)
    factors = np.random.default_rng(0).integers(0, 2**63, words.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    keys = np.zeros(len(atoms), np.uint64)
    for part in blocks(slice(0, len(atoms)), _BLOCK_FEW[1]):
        keys[part] = (words[part] * factors).sum(axis=1, dtype=np.uint64)
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    return first[place]


def _factors(unit):
    """Atoms as right-hand factors of the real and of the imaginary part of <d, s>, `(1 or 2, n_atoms, n)`."""
    if np.isrealobj(unit):
        return unit[None]
    return np.stack([unit, unit * unit.dtype.type(1j)]).view(unit.real.dtype)


def _tiles(right, most):
    """The atoms in equal tiles of at most `most`, `(1 or 2, n_tiles, n, n_atoms)`, the last filled up with zeros."""
    most = max(most // _COLUMNS, 1) * _COLUMNS
    n_tiles = -(-right.shape[1] // most)
    size = -(-right.shape[1] // (n_tiles * _COLUMNS)) * _COLUMNS
    missing = n_tiles * size - right.shape[1]
    if missing:
        right = np.pad(right, [(0, 0), (0, missing), (0, 0)])
    return right.reshape(len(right), n_tiles, size, -1).swapaxes(2, 3)


def _squared_sum(left, tiles, buffer):
    """`Re<d, s>^2 + Im<d, s>^2`, `(n_voxels, n_atoms)`, in the buffer; one of the factors holds both parts."""
    n_voxels, n_tiles, size = left.shape[1], tiles.shape[1], tiles.shape[-1]
    parts = buffer[: 2 * n_voxels * n_tiles * size].reshape(2, n_voxels, n_tiles, size)
    np.matmul(left[:, None], tiles, out=parts.swapaxes(1, 2))
    one, other = parts.reshape(2, n_voxels, -1)
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
