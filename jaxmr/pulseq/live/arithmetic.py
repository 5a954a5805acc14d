"""Arithmetic of live numbers: each operation computes the concrete side and adds a node to the expression.

A constant array times a live number stays a profile and a scale (`factored`), so that a thousand pulses of one shape
stay one shape. Importing this module gives `Live` its operators.
"""

import builtins
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmr.pulseq.live.graph import Node, constant
from jaxmr.pulseq.live.guards import guard
from jaxmr.pulseq.live.number import Live, array, is_live, node_of, value, wrap

PLAIN = (float, int, Live, np.float64)


def elementwise(name: str, function: Callable, *operands: Any) -> Any:
    """`function` of the concrete sides beside the operation `name` of the nodes."""
    operands = tuple(x if type(x) in PLAIN else array(x) for x in operands)
    concrete = function(*[x.value if isinstance(x, Live) else x for x in operands])
    if type(concrete) is float:
        kind, shape = "f", ()
    else:
        made = np.asarray(concrete)
        if made.dtype.kind == "b":
            return concrete
        kind, shape = "c" if made.dtype.kind == "c" else "f", made.shape
    return wrap(concrete, Node(name, None, tuple([node_of(x) for x in operands]), shape, kind))


def product(left: Any, right: Any) -> Any:
    """left * right; a constant array times a live number stays factored."""
    left, right = array(left), array(right)
    concrete = value(left) * value(right)
    for many, one in ((left, right), (right, left)):
        if np.ndim(value(many)) and not np.ndim(value(one)):
            if isinstance(many, Live) and many._factors is not None:
                return Live(concrete, None, (many._factors[0], many._factors[1] * one))
            if not is_live(many) and is_live(one):
                return Live(concrete, None, (np.array(value(many)), one))
    return elementwise("multiply", lambda *_: concrete, left, right)


def quotient(left: Any, right: Any) -> Any:
    """left / right, factored as `product` is."""
    left, right = array(left), array(right)
    concrete = value(left) / value(right)
    if np.ndim(value(left)) and not np.ndim(value(right)):
        if isinstance(left, Live) and left._factors is not None:
            return Live(concrete, None, (left._factors[0], left._factors[1] / right))
        if not is_live(left) and is_live(right):
            return Live(concrete, None, (np.array(value(left)), 1.0 / right))
    return elementwise("divide", lambda *_: concrete, left, right)


def power(left: Any, right: Any) -> Any:
    """left ** right; a constant exponent is static, so that 0 ** 2 has a derivative."""
    if is_live(right) or np.ndim(value(right)):
        return elementwise("power", operator.pow, left, right)
    exponent = value(right)
    concrete = value(left) ** exponent
    kind = "c" if np.asarray(concrete).dtype.kind == "c" else "f"
    static = int(exponent) if float(exponent).is_integer() else float(exponent)
    return wrap(concrete, Node("static_power", static, (node_of(left),), np.shape(concrete), kind))


def rounded(x: Live, concrete: Any, name: str, digits: int | None = None) -> Any:
    """A rounded number: JAX rounds too, but keeps this `concrete` where its argument is the example's."""
    nodes = (x.node, constant(x.value), constant(concrete))
    return wrap(concrete, Node(name, digits, nodes, np.shape(concrete), "f")) if is_live(x) else concrete


def compare(name: str, left: Any, right: Any) -> Any:
    """A comparison decides: it gives plain booleans and is noted as a guard."""
    left, right = array(left), array(right)
    result = COMPARISONS[name](value(left), value(right))
    guard(name, node_of(left), node_of(right), result)
    return result


COMPARISONS = {
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
    "equal": operator.eq, "not_equal": operator.ne,
}  # fmt: skip


def foreign(x: Any) -> bool:
    """Whether arithmetic with `x` is none of ours."""
    return x is None or isinstance(x, str | dict | set | builtins.type)


def negative(x: Live) -> Any:
    if x._factors is not None:
        return Live(-x.value, None, (x._factors[0], -x._factors[1]))
    return elementwise("negative", operator.neg, x)


def absolute(x: Live) -> Any:
    if x._factors is not None:
        return Live(abs(x.value), None, (np.abs(x._factors[0]), abs(x._factors[1])))
    return elementwise("absolute", operator.abs, x)


def floor_quotient(left: Any, right: Any) -> Any:
    ratio = quotient(left, right)
    return rounded(ratio, value(left) // value(right), "floor") if isinstance(ratio, Live) else ratio // 1


def live_divmod(left: Any, right: Any) -> Any:
    return left // right, left % right


def real_part(x: Live) -> Any:
    return elementwise("real", np.real, x) if x.node.kind == "c" else x


def imaginary_part(x: Live) -> Any:
    return elementwise("imag", np.imag, x) if x.node.kind == "c" else np.imag(x.value)


def _operators() -> None:
    """Give `Live` Python's operators."""

    def forward(function: Callable) -> Callable:
        return lambda self, other: NotImplemented if foreign(other) else function(self, other)

    def backward(function: Callable) -> Callable:
        return lambda self, other: NotImplemented if foreign(other) else function(other, self)

    plain = {"add": operator.add, "subtract": operator.sub, "remainder": operator.mod}
    arithmetic: dict[str, Callable] = {
        name: (lambda a, b, name=name, f=f: elementwise(name, f, a, b)) for name, f in plain.items()
    }
    arithmetic |= {"multiply": product, "divide": quotient, "power": power, "floor_divide": floor_quotient}
    dunders = {
        "add": "add", "subtract": "sub", "remainder": "mod", "multiply": "mul", "divide": "truediv", "power": "pow",
        "floor_divide": "floordiv",
    }  # fmt: skip
    for name, dunder in dunders.items():
        setattr(Live, f"__{dunder}__", forward(arithmetic[name]))
        setattr(Live, f"__r{dunder}__", backward(arithmetic[name]))
    for name, dunder in zip(COMPARISONS, ("lt", "le", "gt", "ge", "eq", "ne"), strict=True):
        setattr(Live, f"__{dunder}__", forward(lambda a, b, name=name: compare(name, a, b)))
    whole = {
        "__round__": lambda self, digits=None: rounded(self, round(self.value, digits), "rint", digits),
        "__ceil__": lambda self: rounded(self, math.ceil(self.value), "ceil"),
        "__floor__": lambda self: rounded(self, math.floor(self.value), "floor"),
        "__trunc__": lambda self: rounded(self, math.trunc(self.value), "trunc"),
    }
    rest = {"__divmod__": forward(live_divmod), "__rdivmod__": backward(live_divmod), "__neg__": negative}
    parts = {"__abs__": absolute, "real": property(real_part), "imag": property(imaginary_part)}
    parts["T"] = property(np.transpose)
    for name, member in (whole | rest | parts).items():
        setattr(Live, name, member)


_operators()
