"""Dictionaries on disk, as HDF5: plain arrays that any program can read, no pickle.

A file holds the datasets `atoms`, `parameters/t1`, ... (s, Hz), `basis` (if compressed), the attributes
`format`, `version` and `energy`, and the group `about` with the caller's attributes. It is written under a
temporary name and renamed when complete, and its datasets carry checksums: what can be loaded is whole.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxmr.core.files import whole
from jaxmr.mrf.container import Dictionary

_FORMAT, _VERSION = "jaxmr dictionary", 1


def save_dictionary(
    path: str | os.PathLike,
    dictionary: Dictionary,
    about: Mapping[str, str | int | float | bool] | None = None,
) -> None:
    """Write `dictionary` to `path`, replacing a file there at once when all is written.

    about: what the reader of the file should know, such as the sequence; see `read_about`.
    """
    import h5py

    with whole(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["format"], file.attrs["version"] = _FORMAT, _VERSION
        file.create_dataset("atoms", data=np.asarray(dictionary.atoms), fletcher32=True)
        for name, values in dictionary.parameters.items():
            file.create_dataset(f"parameters/{name}", data=np.asarray(values), fletcher32=True)
        if dictionary.basis is not None:
            file.create_dataset("basis", data=np.asarray(dictionary.basis), fletcher32=True)
        if dictionary.energy is not None:
            file.attrs["energy"] = dictionary.energy
        file.create_group("about").attrs.update(about or {})


def load_dictionary(path: str | os.PathLike) -> Dictionary:
    """The dictionary that `save_dictionary` wrote, as NumPy arrays.

    Raises `FileNotFoundError`, or `ValueError` for a truncated, damaged, foreign or newer file.
    """
    with _opened(path) as file:
        parameters = {name: values[:] for name, values in file["parameters"].items()}
        basis = file["basis"][:] if "basis" in file else None
        return Dictionary(file["atoms"][:], parameters, basis, file.attrs.get("energy"))


def read_about(path: str | os.PathLike) -> dict[str, Any]:
    """The attributes that were saved with a dictionary. Raises as `load_dictionary`."""
    with _opened(path) as file:
        return dict(file["about"].attrs)


@contextmanager
def _opened(path) -> Iterator[Any]:
    """The open file once format and version are known to be right; read errors become one `ValueError`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            form, version = file.attrs.get("format"), file.attrs.get("version")
            if form != _FORMAT:
                raise ValueError(f"{path} is an HDF5 file but no {_FORMAT} (its format attribute is {form!r})")
            if version != _VERSION:
                raise ValueError(
                    f"{path} is a {_FORMAT} of version {version}, this jaxmr reads version {_VERSION}; "
                    "read it with the jaxmr that wrote it, or simulate it again"
                )
            yield file
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{path} cannot be read as a {_FORMAT}: it is truncated, damaged or no HDF5 file ({error}); "
            "copy it again or simulate it again"
        ) from error
