"""Other people's functions on live numbers, without a change to them.

A rebound function has the same code, but its globals show stand-ins for `math`, `numpy` and some builtins, and every
other function of the same project rebound too. Neither the functions nor any module are patched. Classes are not
rebound: inside their methods a live number that passes `float()` or `math` is cut, with a warning.
"""

import builtins
import math
import sys
import sysconfig
from pathlib import Path
from types import CellType, FunctionType, ModuleType
from typing import Any

import numpy as np

from jaxmr.pulseq.stand_ins import LiveNumpy, imported_functions, live_builtins, live_math, live_numpy

PACKAGE = str(Path(__file__).parents[1])
INSTALLED = ("site-packages", "dist-packages")
STANDARD = sysconfig.get_paths()["stdlib"]
_rebound: dict[int, tuple[FunctionType, FunctionType]] = {}


def rebind(function: FunctionType) -> FunctionType:
    """The function with stand-ins in its globals; the same one for the same function."""
    if id(function) in _rebound:
        return _rebound[id(function)][1]
    namespace = Namespace(function.__globals__)
    copy = FunctionType(function.__code__, namespace, function.__name__, function.__defaults__)
    _rebound[id(function)] = (function, copy)
    if function.__closure__:
        closure = tuple(cell_for(cell) for cell in function.__closure__)
        copy = FunctionType(function.__code__, namespace, function.__name__, function.__defaults__, closure)
        _rebound[id(function)] = (function, copy)
    copy.__kwdefaults__, copy.__dict__ = function.__kwdefaults__, dict(function.__dict__)
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    return copy


class Namespace(dict):
    """Globals of a rebound function: the original's as they are now, seen through `stand_in`."""

    def __init__(self, original: dict[str, Any]):
        importer = {"__import__": Importer(original)}
        dict.__init__(self, __builtins__={**live_builtins(), **importer}, __name__=original.get("__name__"))
        self.original = original
        self.inside_pypulseq = str(original.get("__name__", "")).startswith("pypulseq")

    def __missing__(self, name: str) -> Any:
        return stand_in(self.original[name], self.inside_pypulseq)


class Importer:
    """`import` inside a rebound function gives stand-ins too."""

    def __init__(self, original: dict[str, Any]):
        self.inside_pypulseq = str(original.get("__name__", "")).startswith("pypulseq")

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return stand_in(builtins.__import__(name, *args, **kwargs), self.inside_pypulseq)


def cell_for(cell: CellType) -> CellType:
    """Cells of a closure are shared with the original, unless they hold a function or module to stand in for."""
    try:
        content = cell.cell_contents
    except ValueError:
        return cell
    replaced = stand_in(content, False) if isinstance(content, FunctionType | ModuleType) else content
    return cell if replaced is content else CellType(replaced)


def stand_in(member: Any, inside_pypulseq: bool) -> Any:
    """What a rebound function sees in place of `member`."""
    if isinstance(member, ModuleType):
        return stand_in_module(member, inside_pypulseq)
    if not inside_pypulseq and getattr(member, "__module__", "").startswith("pypulseq"):
        ours = sys.modules["jaxmr.pulseq"]
        return ours.stand_in(member)
    if isinstance(member, FunctionType):
        home = member.__code__.co_filename
        if is_tracing_helper(member):
            return ours_for_trace()
        return rebind(member) if is_project(home) or member.__module__.startswith("pypulseq") else member
    home = imported_functions().get(id(member)) if callable(member) else None
    return getattr(*home) if home else member


def stand_in_module(module: ModuleType, inside_pypulseq: bool) -> Any:
    if module is math:
        return live_math()
    if module is np:
        return live_numpy()
    if module.__name__ in ("numpy.fft", "numpy.linalg"):
        return LiveNumpy(module)
    if module.__name__.split(".")[0] == "pypulseq" and not inside_pypulseq:
        return sys.modules["jaxmr.pulseq"].facade(module.__name__.partition(".")[2])
    file = getattr(module, "__file__", None)
    return ProjectModule(module) if file and is_project(file) else module


class ProjectModule:
    """A module of the script's project: its functions are rebound when they are asked for."""

    def __init__(self, module: ModuleType):
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        return stand_in(getattr(self._module, name), False)

    def __setattr__(self, name: str, new: Any) -> None:
        setattr(self._module, name, new)


def is_project(file: str) -> bool:
    """Whether a source file is the user's: neither installed, nor Python's, nor ours."""
    outside = file.startswith((PACKAGE, STANDARD, "<frozen"))
    return not outside and not any(part in file for part in INSTALLED)


def is_tracing_helper(function: FunctionType) -> bool:
    return function.__module__ == "pypulseq.utils.tracing" and function.__name__ == "trace"


def ours_for_trace() -> Any:
    from jaxmr.pulseq.original import stack_of_caller

    return stack_of_caller
