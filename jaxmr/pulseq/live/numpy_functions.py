"""NumPy's functions on live numbers, reached by its own protocols (`__array_ufunc__`, `__array_function__`).

Elementwise functions carry over by name. Functions that only move elements run on element numbers, functions that mix
them run again in `jax.numpy`. Those that decide (argmin, sort, nonzero) note a guard. A function of none of these
kinds gets the concrete side and says that the gradient is cut there.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmr.pulseq.live.arithmetic import (
    COMPARISONS,
    compare,
    elementwise,
    floor_quotient,
    power,
    product,
    quotient,
    rounded,
)
from jaxmr.pulseq.live.graph import Call, Node, Slot, constant
from jaxmr.pulseq.live.guards import caller
from jaxmr.pulseq.live.number import (
    GradientCutWarning,
    Live,
    array,
    is_array,
    is_live,
    node_of,
    value,
    values,
    wrap,
)

ROUNDING = ("ceil", "floor", "trunc", "rint")
SPECIAL: dict[str, Callable] = {"multiply": product, "divide": quotient, "power": power, "floor_divide": floor_quotient}
ELEMENTWISE = (
    "add", "subtract", "negative", "absolute", "fabs", "sign", "sqrt", "cbrt", "square", "reciprocal", "exp", "exp2",
    "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "hypot",
    "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "degrees", "radians", "deg2rad", "rad2deg", "conjugate",
    "maximum", "minimum", "fmax", "fmin", "remainder", "fmod", "copysign", "logaddexp", "float_power",
)  # fmt: skip
REDUCTIONS = {"add": np.sum, "multiply": np.prod, "maximum": np.max, "minimum": np.min}


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple, kwargs: dict) -> Any:
    """`__array_ufunc__`: calls, reductions and accumulations."""
    target = (kwargs.pop("out", None) or (None,))[0]
    name = ufunc.__name__
    if method == "__call__":
        result = call_elementwise(ufunc, name, inputs)
    elif method == "reduce" and name in REDUCTIONS:
        kwargs = {"axis": 0, **kwargs}
        result = REDUCTIONS[name](inputs[0], **{k: v for k, v in kwargs.items() if v is not None or k == "axis"})
    elif method == "accumulate" and name in ("add", "multiply"):
        result = {"add": np.cumsum, "multiply": np.cumprod}[name](inputs[0], axis=kwargs.get("axis", 0))
    elif method == "outer":
        left, right = array(inputs[0]), array(inputs[1])
        result = ufunc(np.reshape(left, (*np.shape(left), *(1,) * np.ndim(right))), right)
    else:
        result = fallback(getattr(ufunc, method), inputs, kwargs)
    if isinstance(target, Live):
        target[...] = result
        return target
    return result


def call_elementwise(ufunc: np.ufunc, name: str, inputs: tuple) -> Any:
    if name in COMPARISONS:
        return compare(name, *inputs)
    if name in ROUNDING:
        (x,) = inputs
        return rounded(x, ufunc(x.value), name)
    if name in SPECIAL:
        return SPECIAL[name](*inputs)
    if name == "matmul":
        return mix(ufunc, inputs, {})
    if name in ELEMENTWISE:
        return negate_or(ufunc, name, inputs)
    return fallback(ufunc, inputs, {})


def negate_or(ufunc: np.ufunc, name: str, inputs: tuple) -> Any:
    """Sign changes of a factored array go to its scale; everything else is its own operation."""
    if name == "negative":
        return -inputs[0]
    if name == "absolute":
        return abs(inputs[0])
    if name == "square":
        return power(inputs[0], 2)
    return elementwise(name, ufunc, *inputs)


def fallback(function: Callable, args: tuple, kwargs: dict) -> Any:
    """The concrete side; booleans and whole numbers are no gradients, so only other results are a cut."""
    result = function(*values(args), **values(kwargs))
    leaves = result if isinstance(result, tuple | list) else (result,)
    if any(np.asarray(leaf).dtype.kind in "fc" for leaf in leaves if not isinstance(leaf, str | type | np.dtype)):
        name = getattr(function, "__name__", repr(function))
        message = f"{name} of a live number has no derivative here: the gradient is cut at {caller()}"
        warnings.warn(message, GradientCutWarning, stacklevel=4)
    return result


def call_function(function: Callable, args: tuple, kwargs: dict) -> Any:
    """`__array_function__`; also what the NumPy of a rebound script calls with lists of live numbers."""
    name = getattr(function, "__name__", "")
    if name in HANDLERS:
        return HANDLERS[name](*args, **kwargs)
    if name in MOVES:
        return move(function, name, args, kwargs)
    if name in MIXES:
        return mix(function, args, kwargs)
    return fallback(function, args, kwargs)


# What each function does to its array arguments: their positions. Negative: a sequence of arrays.
MOVES: dict[str, tuple[int, ...]] = {
    "concatenate": (-1,), "stack": (-1,), "vstack": (-1,), "hstack": (-1,), "column_stack": (-1,), "dstack": (-1,),
    "append": (0, 1), "insert": (0, 2), "delete": (0,), "reshape": (0,), "ravel": (0,), "squeeze": (0,),
    "expand_dims": (0,), "transpose": (0,), "swapaxes": (0,), "moveaxis": (0,), "flip": (0,), "fliplr": (0,),
    "flipud": (0,), "roll": (0,), "rot90": (0,), "repeat": (0,), "tile": (0,), "take": (0,), "broadcast_to": (0,),
    "atleast_1d": (0,), "atleast_2d": (0,), "atleast_3d": (0,), "split": (0,), "array_split": (0,), "resize": (0,),
    "take_along_axis": (0,), "compress": (1,), "extract": (1,), "diagonal": (0,), "copy": (0,), "where": (1, 2),
    "ascontiguousarray": (0,), "triu_indices": (), "meshgrid": (0, 1, 2), "broadcast_arrays": (0, 1, 2),
}  # fmt: skip
MIXES = (
    "sum", "prod", "cumsum", "cumprod", "mean", "std", "var", "max", "min", "amax", "amin", "diff", "ptp", "interp",
    "convolve", "dot", "vdot", "inner", "outer", "matmul", "cross", "trapezoid", "einsum", "gradient", "fft", "ifft",
    "fftshift", "ifftshift", "norm", "unwrap", "nan_to_num", "average", "polyval", "trace",
    "median", "kron", "tensordot", "real_if_close",
)  # fmt: skip
ARRAYS_BY_KEYWORD = ("x", "xp", "fp", "a", "arr", "v", "values")


def operands_of(args: tuple, kwargs: dict) -> tuple[list, tuple]:
    """Live numbers and arrays among the arguments, and the template that they fill."""
    operands: list = []

    def slot(given: Any, name: str | None = None) -> Any:
        x = given
        listed = isinstance(x, list) and x and not isinstance(x[0], str)
        if isinstance(x, Live) or listed or (name in ARRAYS_BY_KEYWORD and not isinstance(x, int)):
            x = array(x)
        kind = np.asarray(value(x)).dtype.kind if is_array(x) else ""
        if isinstance(x, Live) or (kind and kind in "iufc"):
            operands.append(x if isinstance(x, Live) or kind in "fc" else np.asarray(x, float))
            return Slot(len(operands) - 1)
        return value(x)

    template = (tuple(slot(x) for x in args), {name: slot(x, name) for name, x in kwargs.items()})
    return operands, template


def mix(function: Callable, args: tuple, kwargs: dict) -> Any:
    """A function that mixes elements: computed again by `jax.numpy` in the expression."""
    kwargs = {name: x for name, x in kwargs.items() if name not in ("out", "dtype")}
    if function is np.sum and isinstance(args[0], Live) and args[0]._factors is not None:
        profile, scale = args[0]._factors
        if not np.any(np.asarray(profile).dtype.kind == "c"):
            total = np.sum(args[0].value, *args[1:], **kwargs)
            summed = np.sum(profile, *args[1:], **kwargs)
            if np.ndim(total) == 0:
                return Live(total, node_of(scale * summed))
    args = tuple(array(x) if i == 0 and isinstance(x, tuple | list) else x for i, x in enumerate(args))
    operands, template = operands_of(args, kwargs)
    call = Call(function, template)
    concrete = call([value(x) for x in operands])
    nodes = tuple(node_of(x) for x in operands)
    kind = "c" if np.asarray(concrete).dtype.kind == "c" else "f"
    return wrap(concrete, Node("mix", call, nodes, np.shape(concrete), kind))


def move(function: Callable, name: str, args: tuple, kwargs: dict) -> Any:
    """A function that only moves elements: the expression gets the same movement of element numbers."""
    kwargs = {key: x for key, x in kwargs.items() if key not in ("out", "dtype", "order")}
    operands: list = []

    def slot(x: Any) -> Slot:
        operands.append(array(x) if not np.isscalar(x) else x)
        return Slot(len(operands) - 1)

    places = MOVES[name]
    if places == (-1,):
        first = [slot(x) for x in args[0]]
        template = ((first, *values(args[1:])), values(kwargs))
    else:
        template = (tuple(slot(x) if i in places else value(x) for i, x in enumerate(args)), values(kwargs))
    call = Call(function, template)
    concrete = call([value(x) for x in operands])
    nodes = tuple(node_of(x) for x in operands)
    kind = "c" if any(node.kind == "c" for node in nodes) else "f"
    if isinstance(concrete, list | tuple):
        calls = [Call(function, template, i) for i in range(len(concrete))]
        parts = zip(concrete, calls, strict=True)
        return type(concrete)(wrap(part, Node("move", one, nodes, np.shape(part), kind)) for part, one in parts)
    return wrap(concrete, Node("move", call, nodes, np.shape(concrete), kind))


def where(condition: Any, *choices: Any) -> Any:
    decided = value(condition) if not is_live(condition) else condition != 0
    return move(np.where, "where", (decided, *choices), {}) if choices else np.where(decided)


def nonzero(x: Any) -> Any:
    return np.nonzero(array(x) != 0)


def extreme_index(function: Callable, comparison: str) -> Callable:
    def index(x: Any, axis: Any = None, **kwargs: Any) -> Any:
        x = array(x)
        found = function(value(x), axis=axis)
        if axis is None:
            compare(comparison, np.ravel(x)[int(found)], x)
        return found

    return index


def argsort(x: Any, axis: Any = -1, **kwargs: Any) -> Any:
    x = array(x)
    order = np.argsort(value(x), axis=axis, kind="stable")
    if np.ndim(order) == 1:
        compare("less_equal", x[order[:-1]], x[order[1:]])
    return order


def sort(x: Any, axis: Any = -1, **kwargs: Any) -> Any:
    return np.take_along_axis(array(x), argsort(x, axis), axis)


def unique(x: Any, **kwargs: Any) -> Any:
    """Distinct elements in order; that those left out stay equal to those kept is a guard."""
    if kwargs:
        return fallback(np.unique, (x,), kwargs)
    x = np.ravel(array(x))
    ordered = x[argsort(x)]
    first = np.concatenate(([True], value(ordered)[1:] != value(ordered)[:-1]))
    return ordered[first]


def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    a, v = array(a), array(v)
    found = np.searchsorted(value(a), value(v), side=side)  # pyright: ignore[reportCallIssue, reportArgumentType]
    inside, after = found > 0, found < np.size(value(a))
    flat, where_found = np.ravel(v), np.ravel(found)
    if np.any(inside):
        compare("less_equal", a[where_found[np.ravel(inside)] - 1], flat[np.ravel(inside)])
    if np.any(after):
        compare("less_equal", flat[np.ravel(after)], a[where_found[np.ravel(after)]])
    return found


def round_to(x: Any, decimals: int = 0, out: Any = None) -> Any:
    return rounded(x, np.round(x.value, decimals), "rint", decimals or None)


def like(function: Callable) -> Callable:
    def make(x: Any, *args: Any, **kwargs: Any) -> Any:
        made = function(np.asarray(value(x)), *values(args), **kwargs)
        return Live(made, constant(made)) if made.dtype.kind in "fc" else made

    return make


def pad(x: Any, width: Any, mode: str = "constant", **kwargs: Any) -> Any:
    padded = np.pad(value(x), width, mode=mode, **values(kwargs))  # type: ignore[call-overload]
    places = np.pad(np.arange(1, np.size(value(x)) + 1).reshape(np.shape(value(x))), width)
    frame = Live(padded.copy(), constant(np.where(places > 0, 0, padded)))
    frame[places > 0] = np.ravel(x)
    return frame


def linspace(start: Any, stop: Any, num: Any = 50, endpoint: bool = True, **kwargs: Any) -> Any:
    count = int(num)
    concrete = np.linspace(value(start), value(stop), count, endpoint=endpoint)
    inner = start + (stop - start) * np.linspace(0.0, 1.0, count, endpoint=endpoint)
    return Live(concrete, node_of(inner)) if isinstance(inner, Live) else concrete


def full(shape: Any, fill: Any, dtype: Any = None, **kwargs: Any) -> Any:
    return np.broadcast_to(fill, shape).copy()


def booleans(function: Callable) -> Callable:
    def decide(x: Any, *args: Any, **kwargs: Any) -> Any:
        x = array(x)
        return function(x != 0 if is_live(x) else value(x), *args, **kwargs)

    return decide


HANDLERS: dict[str, Callable] = {
    "where": where, "nonzero": nonzero, "flatnonzero": lambda x: np.flatnonzero(array(x) != 0),
    "argwhere": lambda x: np.argwhere(array(x) != 0), "count_nonzero": lambda x: np.count_nonzero(array(x) != 0),
    "argmin": extreme_index(np.argmin, "less_equal"), "argmax": extreme_index(np.argmax, "greater_equal"),
    "argsort": argsort, "sort": sort, "unique": unique, "searchsorted": searchsorted, "round": round_to,
    "around": round_to, "zeros_like": like(np.zeros_like), "ones_like": like(np.ones_like),
    "empty_like": like(np.zeros_like), "full_like": lambda x, fill, **_: full(np.shape(value(x)), fill),
    "pad": pad, "linspace": linspace, "any": booleans(np.any), "all": booleans(np.all),
    "real": lambda x: x.real, "imag": lambda x: x.imag, "shape": lambda x: np.shape(value(x)),
    "ndim": lambda x: np.ndim(value(x)), "size": lambda x, axis=None: np.size(value(x), axis),
    "isclose": lambda a, b, *args, **kwargs: np.isclose(value(array(a)), value(array(b)), *args, **kwargs),
    "iscomplexobj": lambda x: np.iscomplexobj(value(x)), "fix": lambda x: np.trunc(x), "full": full,
    "array": lambda x, *args, **kwargs: np.copy(array(x)), "asarray": lambda x, *args, **kwargs: array(x),
    "sinc": lambda x: elementwise("sinc", np.sinc, x), "angle": lambda x: elementwise("angle", np.angle, x),
    "clip": lambda x, low, high, **_: elementwise("clip", np.clip, x, low, high),
}  # fmt: skip
