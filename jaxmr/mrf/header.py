"""What a store says of itself: its atoms' tissues, basis and plans, and of what inputs it was made.

All of it is a zarr group (format 3): arrays `parameters/t1`, ... (s, Hz), `index`, `basis` and `atoms`, and
attributes in its `zarr.json`. It is made beside its place and renamed, before the first atom is written, so that
every later start does the same work in the same order. The attribute `complete` turns true last of all.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxmr.core.types import Complex, Float
from jaxmr.models.driver import Band
from jaxmr.models.model import Model
from jaxmr.mrf.chunks import replace_file

FORMAT, VERSION = "jaxmr dictionary", 1


@dataclasses.dataclass(frozen=True)
class Header:
    """index: of each row of the store, the atom in the order of the axes. parameters: of each row.

    rows: of a chunk. bands: number of atoms and choices of each plan, in the order of the rows. error: largest
    relative error that the plans expect. inputs: digests of what the store was made from. about: the caller's.
    """

    parameters: dict[str, Float[np.ndarray, "n_atoms"]]
    index: Int[np.ndarray, "n_atoms"]
    basis: Complex[np.ndarray, "n_echoes rank"] | None
    n_points: int
    dtype: str
    rows: int
    energy: float | None
    error: float
    bands: list[dict[str, Any]]
    inputs: dict[str, Any]
    about: dict[str, Any]
    complete: bool = False

    @property
    def n_chunks(self) -> int:
        return -(-len(self.index) // self.rows)


def begin(path: Path, header: Header) -> None:
    """Make the store `path` without atoms, all at once."""
    import zarr
    from zarr.codecs import Crc32cCodec

    folder = _beginning(path)
    for left in folder.iterdir():  # of a process that was killed here
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    facts = dict(vars(header))
    arrays = {f"parameters/{name}": values for name, values in facts.pop("parameters").items()}
    arrays |= {name: values for name in ("index", "basis") if (values := facts.pop(name)) is not None}
    group = zarr.create_group(folder, attributes={"format": FORMAT, "version": VERSION, **facts})
    for name, values in arrays.items():
        group.create_array(name, data=values, chunks=values.shape, compressors=Crc32cCodec())
    shape = len(header.index), header.n_points
    group.create_array(
        "atoms",
        shape=shape,
        chunks=(header.rows, header.n_points),
        dtype=header.dtype,
        compressors=Crc32cCodec(),
        fill_value=0,
    )
    folder.rename(path)


def load(path: Path) -> Header:
    """The header of the store `path`.

    Raises `FileNotFoundError`, or `ValueError` for something that is no store, or a damaged or newer one.
    """
    import zarr

    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        facts: dict[str, Any] = dict(group.attrs)
        form, version = facts.pop("format", None), facts.pop("version", None)
        if form == FORMAT and version == VERSION:
            basis = _array(group["basis"]) if "basis" in group else None
            parameters = {name: _array(group[f"parameters/{name}"]) for name in facts["inputs"]["parameters"]}
            return Header(parameters=parameters, index=_array(group["index"]), basis=basis, **facts)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a {FORMAT}: it is damaged or something else ({error}); remove it, or choose "
            "another path"
        ) from error
    raise ValueError(
        f"{path} is no {FORMAT} of version {VERSION} (it is {form!r}, version {version!r}); choose another path, or "
        "read it with the jaxmr that wrote it"
    )


def mark(path: Path, complete: bool) -> None:
    """Say that all atoms are there, or that they are not."""
    file = path / "zarr.json"
    said = json.loads(file.read_text())
    if said["attributes"]["complete"] != complete:
        said["attributes"]["complete"] = complete
        replace_file(file, json.dumps(said, indent=2).encode())


def refuse_others(path: Path, found: Header, inputs: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless the store was begun with these inputs."""
    differing = [name for name in inputs if found.inputs.get(name) != inputs[name]]
    if differing:
        raise ValueError(
            f"{path} was begun with other inputs, they differ in {', '.join(differing)}; choose another path, or "
            "remove it to begin again"
        )


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the store `path`, which may not exist yet; a `ValueError` if another process holds it."""
    import fcntl

    beginning = _beginning(path)
    if not path.exists():
        beginning.mkdir(parents=True, exist_ok=True)
    # A lock on the folder itself: renaming keeps it, and the death of the process ends it.
    handle = os.open(path if path.exists() else beginning, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ValueError(f"{path} is being written by another process; wait until it ends") from error
    try:
        yield
    finally:
        shutil.rmtree(beginning, ignore_errors=True)
        os.close(handle)


def choices(model: Model, planned: Model) -> dict[str, Any]:
    """What planning changed of a model, as plain numbers."""
    found = {}
    for field in dataclasses.fields(planned):
        value = getattr(planned, field.name)
        if value is not getattr(model, field.name):
            found[field.name] = value if value is None or isinstance(value, int) else float(value)
    return found


def bands(model: Model, header: Header) -> list[Band]:
    """The bands of a store, as they were planned when it was begun."""
    found, start = [], 0
    for band in header.bands:
        made = {name: jnp.asarray(v) if isinstance(v, float) else v for name, v in band["choices"].items()}
        stop = start + band["n_atoms"]
        found.append(Band(header.index[start:stop], dataclasses.replace(model, **made)))
        start = stop
    return found


def _beginning(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _array(array: Any) -> np.ndarray:
    return np.asarray(array[...])
