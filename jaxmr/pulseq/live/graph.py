"""The expression graph behind live numbers: what was computed from what, without values.

A node says an operation, its static arguments and its parents. Leaves are constants and inputs. Operations are of
three kinds: elementwise (a name that `jax.numpy` has, or one of `evaluation`), shaped (`Call` of a NumPy function
that mixes elements) and structural (`Call` of a function that only
moves elements about, or "assemble", which puts scalars into places of an array).
"""

from collections.abc import Callable
from typing import Any

import numpy as np


class Node:
    """One operation. shape: of its result. kind: "f" real or "c" complex. payload: the value of a leaf."""

    __slots__ = ("kind", "op", "parents", "payload", "shape", "static")

    def __init__(self, op: str, static: Any, parents: tuple, shape: tuple, kind: str, payload: Any = None):
        self.op, self.static, self.parents, self.shape, self.kind, self.payload = (
            op, static, parents, shape, kind, payload,
        )  # fmt: skip

    def __deepcopy__(self, memo: dict) -> "Node":
        return self


class Call:
    """A function of arrays, its other arguments filled in. output: which one of several results is meant."""

    __slots__ = ("function", "key", "output", "template")

    def __init__(self, function: Callable, template: tuple, output: int | None = None):
        self.function, self.template, self.output = function, template, output
        try:
            self.key = (function, output, freeze(template))
            hash(self.key)
        except TypeError:
            self.key = id(self)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.key == other.key

    def __call__(self, operands: Any, function: Callable | None = None) -> Any:
        args, kwargs = fill(self.template, operands)
        result = (function or self.function)(*args, **kwargs)
        return result if self.output is None else result[self.output]


class Slot:
    """The place of operand number `index` in a template."""

    __slots__ = ("index",)

    def __init__(self, index: int):
        self.index = index

    def __hash__(self) -> int:
        return hash(("slot", self.index))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slot) and self.index == other.index


def fill(template: Any, operands: Any) -> Any:
    """The template with its slots replaced by the operands."""
    if isinstance(template, Slot):
        return operands[template.index]
    if isinstance(template, list | tuple):
        return type(template)(fill(part, operands) for part in template)
    if isinstance(template, dict):
        return {name: fill(part, operands) for name, part in template.items()}
    return template


def freeze(template: Any) -> Any:
    """The template as something hashable; a `TypeError` follows where it cannot be hashed."""
    if isinstance(template, list | tuple):
        return (type(template).__name__, *(freeze(part) for part in template))
    if isinstance(template, dict):
        return tuple((name, freeze(part)) for name, part in sorted(template.items()))
    if isinstance(template, np.ndarray):
        return (template.shape, template.dtype.str, template.tobytes())
    return template


def constant(value: Any) -> Node:
    """A leaf that no parameter moves."""
    if isinstance(value, float | int):
        return Node("constant", None, (), (), "f", float(value))
    array = np.asarray(value)
    kind = "c" if array.dtype.kind == "c" else "f"
    array = array.astype(complex if kind == "c" else float)
    return Node("constant", None, (), array.shape, kind, array if array.ndim else array.item())


def named_input(name: str, example: Any) -> Node:
    """A leaf that `evaluate` takes from its `inputs`."""
    return Node("input", name, (), np.shape(example), "f", np.asarray(example, float))


def held_input(array: Any) -> Node:
    """A leaf that carries its own JAX value."""
    kind = "c" if np.dtype(array.dtype).kind == "c" else "f"
    return Node("input", None, (), array.shape, kind, array)


def is_constant(node: Node) -> bool:
    return node.op == "constant"


class Alike:
    """Which nodes are the same expression: one operation of parents that are. Told by structure, never by value."""

    def __init__(self):
        self._leaders: dict[Node, Node] = {}
        self._first: dict[tuple, Node] = {}

    def leader(self, node: Node) -> Node:
        """The one node that stands for all that are the same expression as this."""
        if node not in self._leaders:
            self.visit(node)
        return self._leaders[node]

    def visit(self, root: Node) -> list[Node]:
        """Look at `root` and all that it comes from; the leaders that were not known before, parents first."""
        found, pending = [], [root]
        while pending:
            node = pending[-1]
            waiting = [parent for parent in node.parents if parent not in self._leaders]
            if waiting and node not in self._leaders:
                pending.extend(waiting)
                continue
            pending.pop()
            if node not in self._leaders:
                self._leaders[node] = self._first.setdefault(self._key(node), node)
                if self._leaders[node] is node:
                    found.append(node)
        return found

    def _key(self, node: Node) -> tuple:
        if is_constant(node):
            payload = node.payload if node.shape == () else node.payload.tobytes()
            return ("constant", node.kind, node.shape, payload)
        if node.op == "input":
            return ("input", node.static if node.static is not None else id(node.payload))
        return (node.op, node.static, *(id(self._leaders[parent]) for parent in node.parents))
