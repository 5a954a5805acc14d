"""Stand-ins for `math`, `numpy` and some builtins, for functions that are run on live numbers (see `rebinding`).

They differ from the originals only where a live number comes in and Python or NumPy would turn it into a plain one:
`math.sqrt`, `float`, NumPy functions of lists, arrays that are written into later.
"""

import builtins
import math
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from jaxmr.pulseq.live import (
    Live,
    array,
    elementwise,
    is_array,
    is_jax,
    is_live,
    lift,
    node_of,
    stack,
    value,
    values,
    wrap,
)
from jaxmr.pulseq.live.graph import Node, constant
from jaxmr.pulseq.live.numpy_functions import call_function

MATH = {
    "sqrt": "sqrt", "exp": "exp", "expm1": "expm1", "log1p": "log1p", "log2": "log2", "log10": "log10", "sin": "sin",
    "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "hypot": "hypot", "degrees": "degrees", "radians": "radians", "fabs": "absolute", "fmod": "fmod",
    "copysign": "copysign", "cbrt": "cbrt", "exp2": "exp2", "remainder": "math_remainder",
}  # fmt: skip
DECISIONS = ("isfinite", "isnan", "isinf", "isclose", "gcd", "lcm", "comb", "perm", "factorial", "isqrt")
CONVERSIONS = (float, complex, np.float64, np.complex128)
CREATORS = ("zeros", "ones", "empty", "array", "eye", "identity")


def contains_live(x: Any) -> bool:
    """Whether a live or JAX number hides in `x`, also inside lists, tuples and dictionaries."""
    if isinstance(x, Live) or is_jax(x):
        return True
    if isinstance(x, list | tuple):
        return any(contains_live(part) for part in x)
    if isinstance(x, dict):
        return any(contains_live(part) for part in x.values())
    return False


def math_function(name: str) -> Callable:
    function = getattr(math, name)

    def on_live(*args: Any, **kwargs: Any) -> Any:
        if not contains_live(args):
            return function(*args, **kwargs)
        args = tuple(array(arg) for arg in args)
        if name in MATH:
            return elementwise(MATH[name], function, *args)
        if name == "log":
            natural = elementwise("log", math.log, args[0])
            return natural if len(args) == 1 else natural / math_function("log")(args[1])
        if name == "pow":
            return args[0] ** args[1]
        if name in ("fsum", "prod"):
            return retold(function, {"fsum": np.sum, "prod": np.prod}[name], args[0])
        return function(*values(args), **kwargs) if name in DECISIONS else function(*args, **kwargs)

    on_live.__name__ = name
    return on_live


def retold(function: Callable, twin: Callable, items: Any) -> Any:
    """Builtin sums add in their own order: its concrete result beside the expression of NumPy's."""
    items = [array(item) for item in items]
    concrete = function([value(item) for item in items])
    return Live(concrete, node_of(twin(stack(items), axis=0)))


@cache
def live_math() -> ModuleType:
    module = ModuleType("math")
    for name in dir(math):
        member = getattr(math, name)
        setattr(module, name, math_function(name) if callable(member) and not name.startswith("_") else member)
    return module


class LiveType(type):
    """Type of the stand-ins for `float`, `int`, `ndarray`...: they know live numbers as theirs."""

    original: type

    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(value(x), cls.original)

    def __subclasscheck__(cls, other: Any) -> bool:
        return issubclass(unwrapped(other), cls.original)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        args = tuple(lift(arg) if is_jax(arg) else arg for arg in args)
        if any(is_live(arg) for arg in args) and cls.original in CONVERSIONS:
            return converted(args, cls.original)
        return cls.original(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.original, name)

    def __eq__(cls, other: Any) -> bool:
        return unwrapped(other) is cls.original

    def __hash__(cls) -> int:
        return hash(cls.original)


def converted(args: tuple, kind: type) -> Any:
    """A live number made float or complex; it stays live."""
    concrete = kind(*(value(arg) for arg in args))
    parts = [arg if isinstance(arg, Live) else Live(arg, constant(arg)) for arg in args]
    if len(parts) == 2:
        return wrap(concrete, Node("make_complex", None, tuple(node_of(part) for part in parts), (), "c"))
    if kind in (complex, np.complex128) and parts[0].node.kind == "f":
        return wrap(concrete, Node("complex", None, (parts[0].node,), np.shape(concrete), "c"))
    return Live(concrete, parts[0].node)


@cache
def live_type(original: type) -> type:
    members: dict[str, Any] = {"original": original, "__doc__": original.__doc__}
    if issubclass(original, float | int | complex):
        members["dtype"] = np.dtype(original)
    return LiveType(original.__name__, (), members)


def unwrapped(x: Any) -> Any:
    """Stand-in types as the types they stand for, also inside tuples."""
    if isinstance(x, tuple):
        return tuple(unwrapped(part) for part in x)
    return type.__getattribute__(x, "original") if type(x) is LiveType else x


def extreme(function: Callable, name: str) -> Callable:
    def pick(*args: Any, **kwargs: Any) -> Any:
        items = args[0] if len(args) == 1 else args
        if kwargs or (isinstance(items, np.ndarray)):
            return function(*args, **kwargs)
        if isinstance(items, Live):
            return wrap(function(items.value), node_of(call_function(getattr(np, name), (items,), {})))
        items = [array(item) if is_jax(item) else item for item in items]
        if not any(isinstance(item, Live) for item in items):
            return function(items)
        best = items[0]
        for item in items[1:]:
            best = elementwise(f"{name}imum", function, best, item)
        return best

    return pick


def live_sum(items: Any, /, start: Any = 0) -> Any:
    items = list(items)
    if not contains_live(items) or any(np.ndim(value(item)) for item in items):
        return builtins.sum(items, start)
    return retold(lambda plain: builtins.sum(plain, value(start)), np.sum, items) + 0 * start


def live_numpy_function(function: Any, name: str) -> Callable:
    def on_live(*args: Any, **kwargs: Any) -> Any:
        args = tuple(unwrapped(arg) for arg in args)
        kwargs = {key: unwrapped(arg) for key, arg in kwargs.items()}
        if not (contains_live(args) or contains_live(kwargs)):
            made = function(*args, **kwargs)
            writable = name in CREATORS and made.dtype.kind in "fc"
            return Live(made, constant(made)) if writable else made
        if name == "arange":
            return arange(*args, **kwargs)
        if name == "isscalar":
            return not is_array(args[0])
        if name in CREATORS and name != "array":
            return on_live(*whole(args), **whole(kwargs))
        args = tuple(lift(arg) if is_jax(arg) else arg for arg in args)
        if isinstance(function, np.ufunc):
            return function(*(array(arg) for arg in args), **kwargs)
        return call_function(function, args, kwargs)

    on_live.__name__ = name
    return on_live


class LiveUfunc:
    """A ufunc that also takes lists with live numbers."""

    def __init__(self, ufunc: np.ufunc):
        self.ufunc, self.call = ufunc, live_numpy_function(ufunc, ufunc.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.ufunc, name)
        return (lambda x, *a, **k: method(array(x), *a, **k)) if name in ("reduce", "accumulate") else method


def whole(x: Any) -> Any:
    """Live numbers in a shape as whole numbers, which is a decision."""
    if isinstance(x, tuple | list):
        return type(x)(whole(part) for part in x)
    if isinstance(x, dict):
        return {key: whole(part) for key, part in x.items()}
    return x.__index__() if isinstance(x, Live) and isinstance(x.value, int | np.integer) else x


def arange(*args: Any, **named: Any) -> Any:
    """A range whose number of elements is decided; begin and step may be live."""
    args = (*args, *(named[name] for name in ("start", "stop", "step") if name in named))
    args = tuple(array(arg) if is_jax(arg) else arg for arg in args)
    concrete = np.arange(*(value(arg) for arg in args))
    start, stop, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
    int(math_function("ceil")((stop - start) / step))
    if not (is_live(start) or is_live(step)):
        return concrete
    inner = start + step * np.arange(len(concrete))
    return Live(concrete, node_of(inner))


class LiveNumpy(ModuleType):
    """`numpy`, or one of its submodules, with stand-ins for what loses live numbers."""

    def __init__(self, original: ModuleType):
        ModuleType.__init__(self, original.__name__)
        self.__dict__["original"] = original

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.original, name)
        stand_in = stand_in_for(member, name)
        self.__dict__[name] = stand_in
        return stand_in

    def __dir__(self) -> list[str]:
        return dir(self.original)


def stand_in_for(member: Any, name: str) -> Any:
    if member in (np.ndarray, np.float64, np.complex128, np.floating, np.integer, np.number):
        return live_type(member)
    if isinstance(member, np.ufunc):
        return LiveUfunc(member)
    if isinstance(member, ModuleType) and name in ("fft", "linalg"):
        return LiveNumpy(member)
    callable_here = callable(member) and not isinstance(member, type)
    return live_numpy_function(member, name) if callable_here and not name.startswith("_") else member


@cache
def live_numpy() -> LiveNumpy:
    return LiveNumpy(np)


@cache
def live_builtins() -> dict[str, Any]:
    """The builtins of a rebound function, except `__import__`."""
    stand_ins: dict[str, Any] = {name: live_type(getattr(builtins, name)) for name in ("float", "int", "complex")}
    stand_ins |= {"max": extreme(max, "max"), "min": extreme(min, "min"), "sum": live_sum}
    return {**vars(builtins), **stand_ins}


@cache
def imported_functions() -> dict[int, tuple[ModuleType, str]]:
    """Where to find the stand-ins of what `from math import ...` and `from numpy import ...` give, by identity."""
    names = [name for name in dir(np) if not name.startswith("_") and callable(getattr(np, name))]
    found: dict[int, tuple[ModuleType, str]] = {id(getattr(np, name)): (live_numpy(), name) for name in names}
    return found | {id(getattr(math, name)): (live_math(), name) for name in dir(math)}
