"""Raw data of a series of images, one line of k-space per pulse: from ISMRMRD or from NumPy files.

Arrays are complex `(coils, pulses, n)`; k `(pulses, n, n_axes)` in rad/m; lengths in metres.
"""

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmr.core.types import Complex, Float
from jaxmr.io.raw import read_raw
from jaxmr.units import mm


class Series(NamedTuple):
    """matrix: of the image, (y, x) or (z, y, x). voxel_size: (dx, dy, dz), m. coils: maps, if there are any."""

    samples: Complex[np.ndarray, "coils pulses n"]
    k: Float[np.ndarray, "pulses n n_axes"]
    matrix: tuple[int, ...]
    voxel_size: tuple[float, float, float]
    coils: Complex[np.ndarray, "coils *matrix"] | None


def read_series_of_lines(
    path: str | os.PathLike,
    trajectory: str | os.PathLike | None = None,
    matrix: tuple[int, ...] | None = None,
    voxel_size: list[float] | None = None,
    coils: str | os.PathLike | None = None,
) -> Series:
    """The lines of a file, and what else it or the other arguments tell.

    path: ISMRMRD (.h5, .ismrmrd), or .npz with `samples` (coils, pulses, n) or (pulses, n), and perhaps `k`, `matrix`,
    `voxel_size`, `coils`. trajectory, coils: .npy or .npz that say more than the file. matrix: one number stands for
    a square. voxel_size: mm, one number or one per axis. Raises `ValueError` for what is missing, with the remedy,
    for lines of different length, and for arrays that do not fit or are not finite.
    """
    path = Path(path)
    told: dict[str, Any] = _arrays(path) if path.suffix == ".npz" else _measured(path)
    if trajectory is not None:
        told["k"] = _one(Path(trajectory), "k")
    if coils is not None:
        told["coils"] = _one(Path(coils), "coils")
    if matrix is not None:
        told["matrix"] = matrix * 2 if len(matrix) == 1 else matrix
    if voxel_size is not None:
        told["voxel_size"] = np.array(voxel_size) * mm
    for name, remedy in (
        ("samples", "save the lines as (coils, pulses, n)"),
        ("k", "give --trajectory"),
        ("matrix", "give --matrix"),
        ("voxel_size", "give --voxel-size in mm"),
    ):
        if told.get(name) is None:
            raise ValueError(f"{path} does not tell {name}, only {', '.join(told) or 'nothing'}; {remedy}")
    return _checked(path, told)


def _checked(path: Path, told: dict[str, Any]) -> Series:
    samples, k, maps = np.asarray(told["samples"]), np.asarray(told["k"], float), told.get("coils")
    samples = samples[None] if samples.ndim == 2 else samples
    matrix = tuple(int(n) for n in np.atleast_1d(told["matrix"]))
    size = np.atleast_1d(np.asarray(told["voxel_size"], float))
    # A slice is as thick as a voxel is wide unless it is told.
    size = np.pad(size, (0, 3 - len(size)), mode="edge") if 1 <= len(size) <= 3 else size
    if samples.ndim != 3 or not np.iscomplexobj(samples):
        raise ValueError(f"{path}: samples must be complex (coils, pulses, n), got {samples.dtype} {samples.shape}")
    if len(matrix) not in (2, 3) or k.ndim != 3 or k.shape[:2] != samples.shape[1:] or k.shape[2] < len(matrix):
        raise ValueError(
            f"{path}: k must have shape (pulses, n, axes) = ({samples.shape[1]}, {samples.shape[2]}, {len(matrix)}) to "
            f"go with samples {samples.shape} and matrix {matrix}, got {k.shape}; in rad/m, a column per image axis"
        )
    if size.shape != (3,) or not ((size > 0) & (size < 1)).all():
        raise ValueError(f"{path}: voxel_size must be one to three lengths in metres, got {size.tolist()}")
    for name, values in (("samples", samples), ("k", k)):
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: {name} must be finite; leave out the pulses that are not")
    if maps is not None and np.shape(maps) != (len(samples), *matrix):
        raise ValueError(
            f"{path}: coils must have shape {(len(samples), *matrix)}, a map per coil, got {np.shape(maps)}"
        )
    dx, dy, dz = size.tolist()
    return Series(samples.astype(np.complex64), k[..., : len(matrix)], matrix, (dx, dy, dz), maps)


def _measured(path: Path) -> dict[str, Any]:
    """What an ISMRMRD file tells."""
    raw = read_raw(path)
    if (raw.lines != raw.lines[0]).any():
        raise ValueError(
            f"{path} has lines of {raw.lines.min()} to {raw.lines.max()} samples; a series needs lines of one length"
        )
    n = int(raw.lines[0])
    matrix, fov = raw.description.matrix, raw.description.fov
    return {
        "samples": raw.kspace.reshape(len(raw.kspace), -1, n),
        "k": None if raw.k is None else raw.k.reshape(-1, n, 3),
        "matrix": matrix if matrix[0] > 1 else matrix[1:],
        "voxel_size": np.divide(fov, matrix[::-1]),
    }


def _one(path: Path, name: str) -> np.ndarray:
    """The array of an .npy, or that of this name of an .npz."""
    found = _arrays(path) if path.suffix == ".npz" else {name: _load(path)}
    if name not in found:
        raise ValueError(f"{path} has no array called {name}, only {', '.join(found) or 'none'}")
    return found[name]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with _load(path) as archive:
        return dict(archive)


def _load(path: Path) -> Any:
    """Of NumPy's formats; nothing is unpickled."""
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as .npy or .npz: it is damaged or another format") from error
