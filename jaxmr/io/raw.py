r"""Raw data as ISMRMRD files (HDF5), which reconstruction programs read: Gadgetron, BART, MRpro.

A file is a list of acquisitions (lines), each a header, the samples of all coils and perhaps their trajectory, and an
XML header. Inside jaxmr k-space is `(coils, samples)` in the order of time and k is `(samples, 3)` in rad/m, with
s = sum of m c exp(-i k r), which is the sign that these programs expect. The format does not say the unit of a
trajectory: ours are in cycles per encoded field of view, $k\,\mathrm{FOV}/2\pi$ from -matrix/2 to matrix/2, as BART
scales them and MRpro reads them; a file whose trajectory stays within -1/2 ... 1/2 is taken as cycles per voxel,
which is Gadgetron's unit.
The format has no checksums: what is inconsistent is refused, a flipped bit in a sample is not seen.
Reference: Inati et al., "ISMRM Raw data format", MRM 77:411 (2017).
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.recfunctions import require_fields

from jaxmr.core.files import whole
from jaxmr.core.types import Array, Complex, Float
from jaxmr.io.raw_headers import (
    COUNTERS,
    GRIDDED,
    HEAD,
    NOISE,
    REVERSE,
    Description,
    describe,
    extent_of,
    order_flags,
    parse,
)

Values = Array | np.ndarray


class RawData(NamedTuple):
    """What a scanner measured.

    kspace: samples of all lines but noise, line after line. k: rad/m, None where the file has none. lines: samples
    of each line, `(n_lines,)`. headers: the acquisition header of each line as a structured array, with the fields
    of the format (`idx` the counters, `flags`, `center_sample`). noise: samples of noise lines, None without.
    dwell: s. description: matrices, fields of view and what else the XML header tells.
    """

    kspace: Complex[np.ndarray, "coils samples"]
    k: Float[np.ndarray, "samples 3"] | None
    lines: np.ndarray
    headers: np.ndarray
    noise: Complex[np.ndarray, "coils n_noise"] | None
    dwell: float
    description: Description


def write_raw(
    path: str | os.PathLike,
    kspace: Complex[Values, "coils samples"],
    k: Float[Values, "samples 3"] | None = None,
    *,
    lines: int,
    matrix: tuple[int, ...],
    fov: float | tuple[float, float, float],
    dwell: float,
    trajectory: str = "cartesian",
    oversampling: int = 1,
    counters: Mapping[str, Any] | None = None,
    noise: Complex[Values, "coils n_noise"] | None = None,
    field_strength: float = 3.0,
    timing: Mapping[str, Any] | None = None,
) -> None:
    """Write k-space as an ISMRMRD file of format version 1, in single precision.

    lines: samples per acquisition, which divides the samples. matrix: of the image, `(y, x)` or `(z, y, x)`.
    fov: m, of the image, one number or (x, y, z); with one number a slice is as thick as a voxel is wide.
    oversampling: how many times finer than that k is sampled along x. dwell: s between samples.
    trajectory: "cartesian", "epi", "radial", "goldenangle", "spiral" or "other".
    k: rad/m; stored with the data, and of "cartesian" and "epi" it gives what is not in `counters`: the steps
    kspace_encode_step_1 (y) and _2 (z), the centre of each line, and which lines run backwards (flagged, not turned).
    Otherwise step_1 counts the lines.
    counters: one integer per line by the names of the format, such as {"repetition": ..., "slice": ...}; absent is 0.
    noise: samples taken without signal, the first acquisition. field_strength: T. timing: "tr", "te", "ti" in s,
    "flip" in rad, numbers or arrays. Axes of the patient (DICOM's) are those of the gradients.
    Raises `ValueError` for what disagrees or what the format cannot hold.
    """
    import h5py

    kspace = np.asarray(kspace, np.complex64)
    n_coils, n_samples = kspace.shape
    _require_shapes(n_coils, n_samples, k, lines, noise)
    if not 0 < dwell < 1:
        raise ValueError(f"dwell must be the time between samples in s, got {dwell}; 10 us is 1e-5")
    n_lines = n_samples // lines
    cycles = None
    if k is not None:
        extent = extent_of(fov, matrix) * [oversampling, 1, 1]
        cycles = (np.asarray(k, float) * extent / (2 * np.pi)).reshape(n_lines, lines, 3)

    head = np.zeros(n_lines, HEAD)
    head["version"] = 1
    head["scan_counter"] = np.arange(n_lines) + (noise is not None)
    head["number_of_samples"], head["center_sample"] = lines, lines // 2
    head["available_channels"] = head["active_channels"] = n_coils
    head["channel_mask"] = np.packbits(np.arange(1024) < n_coils, bitorder="little").view("<u8")
    head["sample_time_us"] = dwell * 1e6
    head["read_dir"], head["phase_dir"], head["slice_dir"] = np.eye(3)
    steps = {"kspace_encode_step_1": np.arange(n_lines)}
    if cycles is not None:
        head["trajectory_dimensions"] = 3
        if trajectory in GRIDDED:
            steps = _steps(cycles, matrix)
            head["center_sample"] = np.argmin(np.abs(cycles[:, :, 0]), axis=1)
            head["flags"][cycles[:, -1, 0] < cycles[:, 0, 0]] |= np.uint64(REVERSE)
    _count(head, steps | dict(counters or {}))
    head["flags"] |= order_flags(head["idx"])
    xml = describe(matrix, fov, oversampling, trajectory, n_coils, head["idx"], field_strength, timing or {})

    first = 0 if noise is None else 1
    rows = np.empty(first + n_lines, _acquisition())
    if noise is not None:
        rows["head"][:1] = _noise_head(head[:1], noise.shape[1])
        _fill(rows[:1], np.asarray(noise, np.complex64)[None], None)
    rows["head"][first:] = head
    _fill(rows[first:], kspace.reshape(n_coils, n_lines, lines).swapaxes(0, 1), cycles)
    with whole(path) as partial, h5py.File(partial, "w") as file:
        file.create_dataset("dataset/data", data=rows, maxshape=(None,), chunks=True)
        file.create_dataset("dataset/xml", data=[xml], dtype=h5py.special_dtype(vlen=bytes))


def read_raw(path: str | os.PathLike) -> RawData:
    """Read an ISMRMRD file; lines may differ in length.

    Matrix, field of view and the unit of k are those of the first encoding space. Lines that run backwards are
    not turned. Raises `FileNotFoundError`, or `ValueError` for a truncated, damaged or foreign file.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            dataset: Any = file["dataset"]
            rows, xml = dataset["data"][:], dataset["xml"][0]
        return _assemble(rows, parse(xml))
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (OSError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as ISMRMRD raw data: it is truncated, damaged or another format ({error}); "
            "copy it again or convert it"
        ) from error


_LARGEST = 65535  # the format counts in 16 bits


def _assemble(rows, description: Description) -> RawData:
    heads = require_fields(rows["head"], HEAD)  # by name: other programs pad or order the fields in their own way
    is_noise = (heads["flags"] & np.uint64(NOISE)) != 0
    measured = ~is_noise
    if not measured.any():
        raise ValueError("it holds no lines but noise")
    kspace = _samples(rows["data"][measured], heads[measured])
    noise = _samples(rows["data"][is_noise], heads[is_noise]) if is_noise.any() else None
    headers, lines = heads[measured], heads[measured]["number_of_samples"].astype(int)
    k = _trajectory(rows["traj"][measured], headers, description)
    dwell = float(np.median(headers["sample_time_us"])) * 1e-6
    return RawData(kspace, k, lines, headers, noise, dwell, description)


def _samples(data, heads):
    """The lines of one kind one after the other, `(coils, samples)`."""
    n_coils = np.unique(heads["active_channels"])
    if len(n_coils) != 1:
        raise ValueError(f"its lines have {n_coils.tolist()} coils, not one number")
    _require_sizes("samples", data, 2 * heads["number_of_samples"].astype(int) * n_coils[0])
    lines = [np.asarray(line, np.float32).view(np.complex64).reshape(n_coils[0], -1) for line in data]
    return np.concatenate(lines, axis=1)


def _trajectory(trajectory, heads, description):
    """k in rad/m, `(samples, 3)`; None if no line has any."""
    dimensions, lengths = heads["trajectory_dimensions"].astype(int), heads["number_of_samples"].astype(int)
    _require_sizes("trajectory values", trajectory, dimensions * lengths)
    if not dimensions.all():
        return None
    # Columns beyond the third are density weights or other things: the format leaves them open.
    parts = [np.reshape(line, (-1, n))[:, :3] for line, n in zip(trajectory, dimensions, strict=True)]
    cycles = np.concatenate([np.pad(part, ((0, 0), (0, 3 - part.shape[1]))) for part in parts]).astype(float)
    extent = np.array(description.encoded_fov)
    if np.abs(cycles).max(initial=0) <= 0.5:
        extent = extent / description.encoded_matrix[::-1]
    return 2 * np.pi * cycles / extent


def _require_sizes(what, rows, expected):
    found = np.array([len(row) for row in rows])
    if (found != expected).any():
        line = int(np.flatnonzero(found != expected)[0])
        raise ValueError(f"line {line} has {found[line]} {what}, its header says {expected[line]}")


def _require_shapes(n_coils, n_samples, k, lines, noise) -> None:
    if lines < 1 or n_samples % lines or lines > _LARGEST:
        raise ValueError(
            f"lines must be the samples per acquisition, a divisor of {n_samples} up to {_LARGEST}, got {lines}"
        )
    if not 1 <= n_coils <= 1024:
        raise ValueError(f"kspace must have 1 ... 1024 coils in this format, got {n_coils}")
    if k is not None and k.shape != (n_samples, 3):
        raise ValueError(f"k must have shape ({n_samples}, 3), one row per sample of kspace, got {k.shape}")
    if noise is not None and (noise.shape[0] != n_coils or not 0 < noise.shape[1] <= _LARGEST):
        raise ValueError(f"noise must have shape ({n_coils}, n) with n up to {_LARGEST}, got {noise.shape}")


def _steps(cycles, matrix) -> dict[str, Any]:
    """Phase-encoding steps of Cartesian lines from where they lie in k-space."""
    middle = np.rint(cycles[:, cycles.shape[1] // 2, 1:]).astype(int)
    if np.abs(cycles[:, :, 1:] - middle[:, None]).max() > 0.25:
        raise ValueError(
            "k has lines that are not straight along x on the grid of matrix and fov; "
            "check fov (m) and k (rad/m), or say trajectory='other'"
        )
    sizes = (matrix[-2], matrix[0] if len(matrix) == 3 else 1)
    steps = {f"kspace_encode_step_{i + 1}": middle[:, i] + n // 2 for i, n in enumerate(sizes)}
    for (name, step), n in zip(steps.items(), sizes, strict=True):
        if step.min() < 0 or step.max() >= n:
            raise ValueError(
                f"k leaves the grid: {name} is {step.min()} ... {step.max()}, but the matrix has {n}; "
                "check matrix, fov (m) and k (rad/m)"
            )
    return steps


def _count(head, counters: Mapping[str, Any]) -> None:
    for name, values in counters.items():
        if name not in COUNTERS:
            raise ValueError(f"counters has no {name!r} in this format, only {', '.join(COUNTERS)}")
        values = np.asarray(values)
        if values.shape not in ((), head.shape) or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"counter {name} must be {len(head)} integers, one per line, got shape {values.shape}")
        if values.min() < 0 or values.max() > _LARGEST:
            raise ValueError(f"counter {name} must be 0 ... {_LARGEST}, got {values.min()} ... {values.max()}")
        head["idx"][name] = values


def _noise_head(like, n_samples: int):
    """The header of the noise line: that of another without what places it in the scan."""
    head = like.copy()
    head["idx"], head["flags"] = np.zeros(1, HEAD["idx"]), NOISE
    head["scan_counter"] = head["center_sample"] = head["trajectory_dimensions"] = 0
    head["number_of_samples"] = n_samples
    return head


def _fill(rows, samples, trajectory) -> None:
    """Put samples `(lines, coils, n)` and perhaps trajectory `(lines, n, 3)` into the fields of variable length."""
    flat = np.ascontiguousarray(samples, np.complex64).reshape(len(rows), -1).view(np.float32)
    path = np.empty((len(rows), 0)) if trajectory is None else trajectory.reshape(len(rows), -1)
    for field, values in (("data", flat), ("traj", path.astype(np.float32))):
        column = rows[field]
        for i, line in enumerate(values):
            column[i] = line


def _acquisition() -> np.dtype:
    """The compound type of a line in the file."""
    import h5py

    floats = h5py.special_dtype(vlen=np.dtype("float32"))
    return np.dtype([("head", HEAD), ("traj", floats), ("data", floats)])
