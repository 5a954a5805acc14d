"""Signals of voxels as files: what a reconstruction hands to matching, and what simulation writes.

Arrays are complex `(*voxels, n_echoes)`, voxels being a list `(n,)` or an image `(y, x)` or `(z, y, x)`;
lengths in metres.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxmr.core.files import whole
from jaxmr.core.types import Complex
from jaxmr.io.nifti import read_map, read_series

VoxelSize = tuple[float, float, float]


def write_signals(path: str | os.PathLike, signals: Any, voxel_size: VoxelSize, **others: Any) -> None:
    """Write an `.npz` with the arrays `signals`, `voxel_size` (dx, dy, dz in m) and `others`."""
    with whole(path) as partial:
        np.savez(partial, signals=np.asarray(signals), voxel_size=np.asarray(voxel_size), **others)


def read_signals(path: str | os.PathLike) -> tuple[Complex[np.ndarray, "*voxels n_echoes"], VoxelSize | None]:
    """Signals, and the voxel size (dx, dy, dz) in m where the file tells it.

    `.npy`: the array. `.npz`: the array `signals` and, if there, `voxel_size`. `.nii`, `.nii.gz`: four axes, time
    last, complex. Raises `ValueError` for what is no complex array of signals.
    """
    arrays = _arrays(Path(path), "signals")
    signals, size = arrays["signals"], arrays.get("voxel_size")
    if not np.iscomplexobj(signals) or signals.ndim < 2:
        raise ValueError(
            f"{path}: signals must be complex with the echoes on the last axis, got {signals.dtype} {signals.shape}; "
            "a magnitude has lost the sign that tells an inverted signal"
        )
    if size is not None and size.shape != (3,):
        raise ValueError(f"{path}: voxel_size must be (dx, dy, dz) in metres, got shape {size.shape}")
    return signals, None if size is None else (float(size[0]), float(size[1]), float(size[2]))


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Where a NIfTI image, an `.npy`, or the array `mask` of an `.npz` is not zero."""
    path = Path(path)
    if path.name.endswith((".nii", ".nii.gz")):
        return read_map(path) != 0
    return _arrays(path, "mask")["mask"] != 0


def _arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of a file, that called `name` among them; nothing is unpickled."""
    if path.name.endswith((".nii", ".nii.gz")):
        series, voxel_size = read_series(path)
        return {name: series, "voxel_size": np.array(voxel_size)}
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {name: loaded}
        with loaded as archive:
            arrays = dict(archive)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as .npy, .npz or NIfTI: it is damaged or another format") from error
    if name not in arrays:
        raise ValueError(f"{path} has no array called {name}, only {', '.join(arrays) or 'none'}")
    return arrays
