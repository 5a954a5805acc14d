"""The live number itself: what NumPy's own arrays can do, on both sides at once.

Its operators come from `arithmetic`, NumPy's functions of it from `numpy_functions`. Slices are copies: writing into
one does not write into its parent.
"""

import operator
import warnings
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
from jax.core import Tracer

from jaxmr.pulseq.live.graph import Call, Node, Slot, constant, held_input, is_constant
from jaxmr.pulseq.live.guards import caller, guard


class GradientCutWarning(UserWarning):
    """A live number was turned into a plain one, so that nothing computed from it has a gradient."""


class Live:
    """A number or array with a `value` (concrete) and a `node` (the expression)."""

    __slots__ = ("_factors", "_node", "value")
    __array_priority__ = 1000

    def __init__(self, value: Any, node: Node | None = None, factors: tuple | None = None):
        self.value, self._node = value, node
        self._factors: Any = factors

    @property
    def node(self) -> Node:
        if self._node is None:
            profile, scale = self._factors
            kind = "c" if profile.dtype.kind == "c" or node_of(scale).kind == "c" else "f"
            self._node = Node("multiply", None, (constant(profile), node_of(scale)), profile.shape, kind)
        return self._node

    @property
    def shape(self) -> tuple:
        return np.shape(self.value)

    @property
    def ndim(self) -> int:
        return np.ndim(self.value)

    @property
    def size(self) -> int:
        return np.size(self.value)

    @property
    def dtype(self) -> np.dtype:
        return np.asarray(self.value).dtype

    @property
    def flat(self) -> Any:
        return iter(np.ravel(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        cut(self, "became a plain array")
        return np.array(self.value, dtype=dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from jaxmr.pulseq.live.numpy_functions import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        from jaxmr.pulseq.live.numpy_functions import call_function

        return call_function(function, args, kwargs)

    def __jax_array__(self) -> Any:
        from jaxmr.pulseq.live.evaluation import evaluate

        return evaluate(self, {})

    def __getattr__(self, name: str) -> Any:
        if name in METHODS:
            function = getattr(np, METHODS[name])
            return lambda *args, **kwargs: function(self, *args, **kwargs)
        raise AttributeError(f"a live number has no attribute {name!r}")

    def copy(self) -> "Live":
        return Live(np.copy(self.value) if self.ndim else self.value, self._node, self._factors)

    def __copy__(self) -> "Live":
        return self.copy()

    def __deepcopy__(self, memo: dict) -> "Live":
        return self.copy()

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        kind = np.dtype(dtype).kind
        if kind in "iub":
            return decided(self, np.asarray(self.value).astype(dtype))
        return np.add(self, 0j) if kind == "c" and self.node.kind == "f" else self.copy()

    def item(self, *args: Any) -> Any:
        return np.reshape(self, (-1,))[args[0] if args else 0] if self.ndim else self

    def tolist(self) -> Any:
        return [part.tolist() if is_array(part) else part for part in self] if self.ndim else self

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, **kwargs)

    def transpose(self, *axes: Any) -> Any:
        return np.transpose(self, (axes[0] if len(axes) == 1 else axes) or None)

    def fill(self, value: Any) -> None:
        self[...] = value

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        key = plain_key(key)
        part = self.value[key]
        if self._factors is not None:
            profile, scale = self._factors
            return factors_product(part, profile[key], scale)
        call = Call(operator.getitem, ((Slot(0), key), {}))
        return wrap(part, Node("renumber", call, (self.node,), np.shape(part), self.node.kind))

    def __setitem__(self, key: Any, new: Any) -> None:
        key = plain_key(key)
        if not np.size(self.value[key]):
            return
        kept = self._factors is not None and not is_live(new) and not np.any(value(new))
        if kept and not np.any(cast(Any, self._factors)[0][key]):
            # pulses end by overwriting negative zeros: they stay one profile times one number
            self.value = np.array(self.value)
            self.value[key] = value(new)
            self._node = None
            return
        source = node_of(array(new))
        kind = "c" if "c" in (self.node.kind, source.kind) else "f"
        node = Node("assign", Call(assign, ((Slot(0), key, Slot(1)), {})), (self.node, source), self.shape, kind)
        self.value = np.array(self.value)
        self.value[key] = value(array(new))
        self._node, self._factors = node, None

    def __bool__(self) -> bool:
        result = bool(self.value)
        guard("not_equal", self.node, constant(0.0), result)
        return result

    def __float__(self) -> float:
        cut(self, "went through float()")
        return float(self.value)

    def __complex__(self) -> complex:
        cut(self, "went through complex()")
        return complex(self.value)

    def __int__(self) -> int:
        return int(decided(self, int(self.value)))

    def __index__(self) -> int:
        return int(decided(self, operator.index(self.value)))

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __str__(self) -> str:
        return str(self.value)

    def __repr__(self) -> str:
        return repr(self.value)

    def __hash__(self) -> int:
        return id(self) if self.ndim else hash(self.value)

    def __matmul__(self, other: Any) -> Any:
        return np.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return np.matmul(other, self)

    def __pos__(self) -> "Live":
        return self


METHODS = {
    name: name
    for name in (
        "sum", "prod", "cumsum", "cumprod", "mean", "std", "var", "max", "min", "argmax", "argmin", "ptp", "clip",
        "round", "squeeze", "ravel", "repeat", "take", "dot", "all", "any", "nonzero", "conj", "swapaxes", "argsort",
        "searchsorted", "diagonal", "trace",
    )
} | {"flatten": "ravel", "conjugate": "conj"}  # fmt: skip


def is_live(x: Any) -> bool:
    """Whether `x` is a live number or array that depends on an input."""
    if not isinstance(x, Live):
        return False
    return x._node is None or not is_constant(x._node)


def is_array(x: Any) -> bool:
    return isinstance(x, Live | np.ndarray) and x.ndim > 0


def value(x: Any) -> Any:
    """The concrete side, without a guard; what is not live passes through."""
    return x.value if isinstance(x, Live) else x


def values(x: Any) -> Any:
    """The concrete side of everything in lists, tuples and dictionaries."""
    if isinstance(x, list | tuple):
        return type(x)(values(part) for part in x)
    if isinstance(x, dict):
        return {name: values(part) for name, part in x.items()}
    return value(x)


def node_of(x: Any) -> Node:
    return x.node if isinstance(x, Live) else constant(x)


def lift(x: Any) -> Live:
    """A live number from a JAX value whose number is known, as it is under `jax.grad` outside `jax.jit`."""
    known = x
    if isinstance(x, Tracer):
        known = x.to_concrete_value()
        if known is None:
            raise ValueError(
                f"the value of {x} is not known while JAX traces it (jit, vmap or scan), and a Pulseq script decides "
                "on values; run the script once with pp.trace(script, **example) and transform what it returns"
            )
    concrete = np.asarray(known)
    if concrete.dtype.kind not in "fiuc":
        raise ValueError(f"a live number must be real or complex, not {concrete.dtype}; give floats")
    concrete = concrete.astype(complex if concrete.dtype.kind == "c" else float)
    return Live(concrete if concrete.ndim else concrete.item(), held_input(x))


def is_jax(x: Any) -> bool:
    """Whether `x` is a JAX array or tracer."""
    return isinstance(x, jax.Array)


def wrap(concrete: Any, node: Node) -> Any:
    """A live number; one that depends on no input is a plain number, or a live array that may be written into."""
    if node.parents and all(is_constant(parent) for parent in node.parents):
        return Live(concrete, constant(concrete)) if np.ndim(concrete) else concrete
    return Live(concrete, node)


def factored(x: Any) -> tuple[np.ndarray, Any] | None:
    """(profile, scale) of an array known to be a constant array times a live number; None of any other."""
    return x._factors if isinstance(x, Live) else None


def factors_product(concrete: Any, profile: Any, scale: Any) -> Any:
    if np.ndim(concrete):
        return Live(concrete, None, (np.asarray(profile), scale))
    return wrap(concrete, node_of(scale * profile if isinstance(scale, Live) else constant(concrete)))


def decided(x: Live, concrete: Any) -> Any:
    """A whole number taken from a live one: a decision that it stays."""
    guard("truncates_to", x.node, constant(concrete), np.ones(np.shape(concrete), bool))
    return concrete


def cut(x: Live, how: str) -> None:
    if is_live(x):
        message = f"a live number {how} at {caller()}: the gradient is cut there"
        warnings.warn(message, GradientCutWarning, stacklevel=3)


def plain_key(key: Any) -> Any:
    """An index without live numbers: whole ones are decisions."""
    if isinstance(key, tuple):
        return tuple(plain_key(part) for part in key)
    if isinstance(key, slice):
        return slice(*(plain_key(part) for part in (key.start, key.stop, key.step)))
    if isinstance(key, Live):
        return operator.index(key) if not key.ndim else np.asarray(decided(key, key.value))
    return key


def assign(target: np.ndarray, key: Any, source: np.ndarray) -> np.ndarray:
    target = target.copy()
    target[key] = source
    return target


def array(x: Any) -> Any:
    """Live or JAX numbers in nested lists as one live array; anything else as it is."""
    if is_jax(x):
        return lift(x)
    if isinstance(x, list | tuple) and x:
        parts = [array(part) for part in x]
        if any(isinstance(part, Live) for part in parts):
            return stack(parts)
        return np.array(x)
    return x


def stack(items: Any) -> Any:
    """Numbers or arrays of one shape along a new first axis: float64, live if one of them is."""
    items = [array(item) for item in items]
    plain = np.array([value(item) for item in items])
    if plain.dtype.kind != "c":
        plain = plain.astype(float)
    if not any(isinstance(item, Live) for item in items):
        return plain
    places = tuple(i for i, item in enumerate(items) if is_live(item))
    nodes = tuple(items[i].node for i in places)
    kind = "c" if plain.dtype.kind == "c" else "f"
    if not places:
        return Live(plain, constant(plain))
    return Live(plain, Node("assemble", places, (constant(plain), *nodes), plain.shape, kind))
