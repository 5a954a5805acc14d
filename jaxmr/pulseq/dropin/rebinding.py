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

from jaxmr.pulseq.dropin.live_modules import LiveNumpy, imported_functions, live_builtins, live_math, live_numpy
from jaxmr.pulseq.live import Live

PACKAGE = str(Path(__file__).parents[2])
INSTALLED = ("site-packages", "dist-packages")
STANDARD = sysconfig.get_paths()["stdlib"]
# These search whole numbers of raster steps: the step found is a decision, and moves with no argument.
SEARCHES = ("pypulseq.make_extended_trapezoid_area",)
_rebound: dict[int, tuple[FunctionType, FunctionType]] = {}


def rebind(function: FunctionType) -> FunctionType:
    """The function with stand-ins in its globals; the same one for the same function."""
    if id(function) in _rebound:
        return _rebound[id(function)][1]
    namespace = Namespace(function.__globals__)
    cells = function.__closure__ or ()
    fresh = tuple(CellType() if holds_code(cell) else cell for cell in cells)
    copy = FunctionType(function.__code__, namespace, function.__name__, function.__defaults__, fresh)
    _rebound[id(function)] = (function, copy)
    for old, new in zip(cells, fresh, strict=True):
        if new is not old:
            new.cell_contents = stand_in(old.cell_contents, False)
    copy.__kwdefaults__, copy.__dict__ = function.__kwdefaults__, dict(function.__dict__)
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    return copy


class Namespace(dict):
    """Globals of a rebound function: the original's as they are now, seen through `stand_in`."""

    def __init__(self, original: dict[str, Any]):
        special: dict[str, Any] = {"__import__": Importer(original)}
        if original.get("__name__") in SEARCHES:
            special["round"] = decided_round
        dict.__init__(self, __builtins__={**live_builtins(), **special}, __name__=original.get("__name__"))
        self.original = original
        self.inside_pypulseq = str(original.get("__name__", "")).startswith("pypulseq")

    def __missing__(self, name: str) -> Any:
        return stand_in(self.original[name], self.inside_pypulseq)


def decided_round(x: Any, digits: Any = None) -> Any:
    nearest = round(x, digits)
    return int(nearest) if isinstance(nearest, Live) and digits is None else nearest


class Importer:
    """`import` inside a rebound function gives stand-ins too."""

    def __init__(self, original: dict[str, Any]):
        self.inside_pypulseq = str(original.get("__name__", "")).startswith("pypulseq")

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return stand_in(builtins.__import__(name, *args, **kwargs), self.inside_pypulseq)


def holds_code(cell: CellType) -> bool:
    """Cells of a closure are shared with the original, unless they hold what may have a stand-in."""
    try:
        return isinstance(cell.cell_contents, FunctionType | ModuleType)
    except ValueError:
        return False


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
    from jaxmr.pulseq.dropin.originals import stack_of_caller

    return stack_of_caller
