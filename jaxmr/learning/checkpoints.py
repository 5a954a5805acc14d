"""Networks and states of a training in files: a line of JSON, then the arrays; never pickled, never half written."""

import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from jaxmr.core.files import whole


def save(path: str | os.PathLike, tree: Any, header: dict[str, Any]) -> None:
    """Write the arrays of a tree, and what to know of them."""
    with whole(path) as partial, partial.open("wb") as file:
        file.write((json.dumps(header, sort_keys=True) + "\n").encode())
        eqx.tree_serialise_leaves(file, tree)


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """What `save` was told of the arrays; a `ValueError` for another file."""
    try:
        with Path(path).open("rb") as file:
            found = json.loads(file.readline(1 << 20))
    except ValueError as error:
        raise ValueError(f"{path} does not begin with a line of JSON; give a file that jaxmr wrote") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} begins with {found!r}, not with a header; give a file that jaxmr wrote")
    return found


def load(path: str | os.PathLike, like: Any) -> Any:
    """The tree that `save` wrote; `like` has its structure, shapes and types. A `ValueError` where they differ."""
    # Values, not parts of a program that is being traced.
    with Path(path).open("rb") as file, jax.ensure_compile_time_eval():
        file.readline(1 << 20)
        try:
            return eqx.tree_deserialise_leaves(file, like)
        except (RuntimeError, ValueError, EOFError, TypeError) as error:
            raise ValueError(
                f"{path} holds arrays of another network or is damaged; give the file of this one"
            ) from error
