"""Guards: the decisions that a script took on its live numbers, noted while somebody records.

`guard_checks` says whether other values of the inputs would decide alike.
"""

import sys
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

import jaxtyping
import numpy as np

from jaxmr.pulseq.live.graph import Node, is_constant

HERE = str(Path(__file__).parents[1])
NUMPY = str(Path(np.__file__).parent)
PYPULSEQ = str(Path(np.__file__).parents[1] / "pypulseq")
CHECKER = str(Path(jaxtyping.__file__).parent)
SKIPPED = (HERE, NUMPY, CHECKER, "<__array_function__", "<@beartype")


def frame_outside(folders: tuple[str, ...]) -> FrameType:
    """The nearest frame of the stack whose file is in none of these folders."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(folders):
        frame = frame.f_back
    return frame


def caller(skip: tuple[str, ...] = SKIPPED) -> str:
    """File and line of the nearest frame outside `jaxmr.pulseq` and NumPy."""
    frame = frame_outside(skip)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Guards:
    """Decisions taken on live numbers: name of the comparison, both sides, what it gave, where it was taken."""

    def __init__(self):
        self.taken: dict[Any, tuple[str, Node, Node, Any, str]] = {}

    def add(self, name: str, left: Node, right: Node, result: Any) -> None:
        key = (name, identity(left), identity(right))
        if key not in self.taken:
            here, script = caller(), caller((*SKIPPED, PYPULSEQ))
            where = here if here == script else f"{script} (in {here})"
            self.taken[key] = (name, left, right, result, where)


def identity(node: Node) -> Any:
    return node.payload if is_constant(node) and node.shape == () else id(node)


recorder: ContextVar[Guards | None] = ContextVar("recorder", default=None)


def guard(name: str, left: Node, right: Node, result: Any) -> None:
    """Note that `left name right` gave `result`, if somebody is recording."""
    guards = recorder.get()
    if guards is not None and not (is_constant(left) and is_constant(right)):
        guards.add(name, left, right, result)
