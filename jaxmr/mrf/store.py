"""A dictionary larger than memory: atoms on disk, part by part, resumed where it stopped.

A store is a zarr folder (format 3) that any zarr reads. Its parts, plans and basis are fixed when it is begun,
and each part is a file that is whole or not there. So a run that was killed is started again with the same
arguments, simulates what is missing, and ends with the same bytes; and several processes (`jax.distributed`) on
one file system share the parts without a word between them.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

import jax
import numpy as np

from jaxmr.core.batch import progress_bar
from jaxmr.core.digests import digest
from jaxmr.core.types import Complex, Float
from jaxmr.models import driver
from jaxmr.models.model import Model
from jaxmr.mrf import chunks, header
from jaxmr.mrf.atoms import parameters_of, spanned
from jaxmr.mrf.container import Dictionary, parameter
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence

MEMORY = 2e9
"""Bytes for the signals in flight, and what XLA needs beside them."""
POLL = 0.2
"""Seconds between two looks at what other processes have written."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """A complete store; iterate over it for its parts, each a `Dictionary` that fits in memory.

    parameters: one array per tissue name, in the order of the rows, also to be had as `store.t1`.
    """

    path: Path
    header: header.Header
    parameters: dict[str, Float[np.ndarray, "n_atoms"]]

    @property
    def n_atoms(self) -> int:
        return len(self.header.index)

    @property
    def rank(self) -> int | None:
        """Dimension of the subspace, None for whole signals."""
        return None if self.basis is None else self.basis.shape[1]

    @property
    def basis(self) -> Complex[np.ndarray, "n_echoes rank"] | None:
        return self.header.basis

    @property
    def energy(self) -> float | None:
        """The part of the signals' energy that the subspace holds, None for whole signals."""
        return self.header.energy

    @property
    def about(self) -> dict[str, Any]:
        """What was said of the store when it was begun."""
        return self.header.about

    @property
    def error(self) -> float:
        """Largest relative error of a signal that the plans expect."""
        return self.header.error

    def __len__(self) -> int:
        return self.header.n_chunks

    def __iter__(self) -> Iterator[Dictionary]:
        for number in range(len(self)):
            rows = self._rows(number)
            parameters = {name: values[rows] for name, values in self.parameters.items()}
            yield Dictionary(self._atoms(number), parameters, self.basis, self.energy)

    def __getattr__(self, name: str) -> Any:
        return parameter(self, name)

    def to_dictionary(self) -> Dictionary:
        """All atoms in memory, in the order of the axes, as `dictionary` gives them."""
        atoms = np.empty((self.n_atoms, self.header.n_points), self.header.dtype)
        for number in range(len(self)):
            atoms[self.header.index[self._rows(number)]] = self._atoms(number)
        back = np.argsort(self.header.index)
        parameters = {name: values[back] for name, values in self.parameters.items()}
        return Dictionary(atoms, parameters, self.basis, self.energy)

    def _rows(self, number: int) -> slice:
        return slice(number * self.header.rows, min((number + 1) * self.header.rows, self.n_atoms))

    def _atoms(self, number: int) -> np.ndarray:
        rows = self._rows(number)
        return chunks.read_rows(_file(self.path, number), rows.stop - rows.start, *_layout(self.header))


def read(path: str | Path) -> Store:
    """The store at `path`. Raises `ValueError` if it is not complete, damaged or something else."""
    path = Path(path)
    found = header.load(path)
    if not found.complete:
        written = sum(_file(path, number).exists() for number in range(found.n_chunks))
        raise ValueError(
            f"{path} is not complete, {written} of {found.n_chunks} parts are written; run what began it once more, "
            "with the same arguments, and it goes on"
        )
    return Store(path, found, found.parameters)


def write(
    path: str | Path,
    sequence: Sequence,
    *,
    model: Model,
    rank: int | None = None,
    memory: float = MEMORY,
    drop: bool = True,
    progress: bool = False,
    devices: list | None = None,
    tissue: Tissue | None = None,
    about: Mapping[str, str | int | float | bool] | None = None,
    **axes: Any,
) -> Store:
    """`dictionary` to disk: begun, gone on with if it was begun with the same arguments, repaired, or only read.

    memory: bytes for signals in flight and what XLA needs beside them; it decides how many atoms make a part.
    rank, drop, tissue, axes: as in `dictionary`. devices: of this process, all by default. about: what readers should
    know, such as the sequence; that of the first run is kept. With several processes
    each writes its share and returns when all is complete. Raises `ValueError` if the store was begun with other
    arguments, `OSError` naming the file if the disk is full; what was written before stays.
    """
    import jaxmr

    path = Path(path)
    values = parameters_of(tissue, axes, drop)
    atoms = Tissue(**values)
    rows = driver.rows_within(sequence, atoms, memory)
    inputs = {
        "sequence": digest(sequence),
        "model": digest(model),
        "parameters": {name: digest(column) for name, column in values.items()},
        "rank": rank,
        "memory": f"{rows} atoms in a part",
        "jaxmr": jaxmr.__version__,
    }
    first, n_processes = jax.process_index() == 0, jax.process_count()
    with header.claimed(path) if first else contextlib.nullcontext():
        if first and not path.exists():
            planned = _planned(sequence, atoms, model, rank, rows, memory, inputs, devices, progress)
            header.begin(path, dataclasses.replace(planned, about=dict(about or {})))
        while not path.exists():
            time.sleep(POLL)
        begun = header.load(path)
        header.refuse_others(path, begun, inputs)
        mine = range(jax.process_index(), begun.n_chunks, n_processes)
        missing = [number for number in mine if not chunks.is_intact(_file(path, number), *_layout(begun))]
        if first and begun.complete and missing:
            header.mark(path, False)
        _simulate(path, sequence, atoms, model, begun, missing, devices, progress)
        if first:
            _wait(path, begun, mine)
            header.mark(path, True)
    while not header.load(path).complete:
        time.sleep(POLL)
    return read(path)


def _planned(sequence, atoms, model, rank, rows, memory, inputs, devices, progress) -> header.Header:
    """All that is decided before the first atom is written."""
    bands = driver.planned_bands(sequence, atoms, model, rows)
    parts = driver.laid_out(sequence, atoms, bands, rows)
    index = np.concatenate([part.voxels for part in parts])
    basis, energy = None, None
    if rank is not None:
        worst = parts[0].model
        basis, energy = spanned(sequence, atoms, worst, rank, memory=memory, devices=devices, progress=progress)
    return header.Header(
        parameters={name: np.asarray(getattr(atoms, name))[index] for name in inputs["parameters"]},
        index=index,
        basis=basis,
        n_points=sequence.n_echoes if rank is None else rank,
        dtype=driver.signal_type(atoms).name,
        rows=rows,
        energy=energy,
        error=driver.expected_error(parts),
        bands=[{"n_atoms": len(band.voxels), "choices": header.choices(model, band.model)} for band in bands],
        inputs=inputs,
        about={},
    )


def _simulate(path, sequence, atoms, model, begun, missing, devices, progress) -> None:
    """Simulate and write the parts of these numbers."""
    parts = driver.laid_out(sequence, atoms, header.bands(model, begun), begun.rows)
    chosen = [parts[number] for number in missing]
    found = driver.simulate_parts(sequence, atoms, chosen, basis=begun.basis, devices=devices)
    with progress_bar(sum(len(part.voxels) for part in chosen), "atoms", progress) as bar:
        for number, (_, signals) in zip(missing, found, strict=True):
            chunks.write_rows(_file(path, number), signals, _layout(begun)[0])
            bar.update(len(signals))


def _wait(path: Path, begun: header.Header, mine: range) -> None:
    """Until the other processes have written all that is theirs; one that dies ends the others through JAX."""
    for number in range(begun.n_chunks):
        while number not in mine and not chunks.is_intact(_file(path, number), *_layout(begun)):
            time.sleep(POLL)


def _file(path: Path, number: int) -> Path:
    return chunks.place(path / "atoms", number)


def _layout(found: header.Header) -> tuple[tuple[int, int], np.dtype]:
    """Shape and type of a chunk."""
    return (found.rows, found.n_points), np.dtype(found.dtype)
