"""Files of a store that are whole or not there, and tell when a bit of them has flipped.

A chunk is the file of a chunk of a zarr array (format 3) with the codecs `bytes` (little endian) and `crc32c`:
the numbers, row by row, then four bytes of checksum. Written under a temporary name, flushed to the disk and
renamed; a temporary file that a killed process left is overwritten by the next.
"""

import os
from collections.abc import Buffer
from pathlib import Path

import numpy as np

from jaxmr.core.types import Complex

_CHECKSUM = 4


def place(folder: Path, number: int) -> Path:
    """The file of a chunk of rows of the zarr array in `folder`."""
    return folder / "c" / str(number) / "0"


def write_rows(file: Path, rows: Complex[np.ndarray, "n n_points"], shape: tuple[int, int]) -> None:
    """Write rows as the chunk of that shape, filled up with zeros. Raises as `replace_file`."""
    body = np.pad(rows, ((0, shape[0] - len(rows)), (0, 0))) if len(rows) < shape[0] else rows
    body = np.ascontiguousarray(body, rows.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    replace_file(file, body, _checksum(body))


def read_rows(file: Path, n: int, shape: tuple[int, int], dtype: np.dtype) -> Complex[np.ndarray, "n n_points"]:
    """The first `n` rows of a chunk of that shape. Raises `ValueError` for a file that is missing or damaged."""
    body = _intact(file, shape, dtype)
    if body is None:
        raise ValueError(
            f"{file} is missing or damaged (its checksum does not match); write the store once more with the same "
            "arguments: only what is damaged is simulated again"
        )
    return body.view(dtype.newbyteorder("<")).reshape(shape)[:n].astype(dtype, copy=False)


def is_intact(file: Path, shape: tuple[int, int], dtype: np.dtype) -> bool:
    """Whether a chunk of that shape is there and its checksum right."""
    return _intact(file, shape, dtype) is not None


def replace_file(file: Path, *pieces: Buffer) -> None:
    """Write the `pieces` to `file` at once: a reader, or the next start after a crash, sees all of it or none.

    Raises `OSError` that names the file; what was there before stays.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as opened:
            opened.writelines(pieces)
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"{error.strerror}; all parts before this one are kept: make room (or mend the disk) and run the same "
            "command again",
            str(file),
        ) from error


def _intact(file: Path, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray | None:
    """The numbers of a chunk as bytes, None unless they are all there and right."""
    size = shape[0] * shape[1] * dtype.itemsize
    if not file.is_file() or file.stat().st_size != size + _CHECKSUM:
        return None
    content = np.fromfile(file, np.uint8)
    return content[:size] if _checksum(content[:size]) == content[size:].tobytes() else None


def _checksum(body: np.ndarray) -> bytes:
    """CRC-32C, as zarr appends it."""
    import google_crc32c

    return google_crc32c.value(body).to_bytes(_CHECKSUM, "little")
