"""From the expression of live numbers to a few vectorised steps.

Every element of every node gets a number: (group, position in it). Operations that move elements only renumber.
Elementwise operations of one kind at one level of the expression form one group, whatever the shapes of their nodes;
those that mix elements form a group per shape. Sums, differences and multiples of scalars are kept as linear forms of
elements, so that long chains of them are one segment sum. The remainder by a constant is left out inside another one
where its factor is whole: phases that accumulate by remainders are linear too. A real scan has 1e5 nodes and some
tens of groups, and compilation depends on the groups only.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxmr.pulseq.live.graph import Alike, Call, Node, is_constant

SHIFT = 32
LONGEST_FORM = 128


class Form(NamedTuple):
    """A number that is `offset` + sum of factor times element."""

    terms: dict[int, float]
    offset: float


class Group:
    """Elements computed by one step. signature: what they share. rows: what they are computed from."""

    def __init__(self, number: int, level: int, signature: tuple, kind: str):
        self.number, self.level, self.signature, self.kind = number, level, signature, kind
        self.rows: list = []
        self.size = 0

    def extend(self, row: Any, size: int) -> np.ndarray:
        first = (self.number << SHIFT) + self.size
        self.rows.append(row)
        self.size += size
        return np.arange(first, first + size, dtype=np.int64)


class Numbering:
    """Walks the nodes and fills the groups; `elements(node)` are its element numbers."""

    def __init__(self):
        self.groups: list[Group] = []
        self.by_signature: dict[tuple, Group] = {}
        self.known: dict[Node, Any] = {}
        self.alike = Alike()
        self.remainders: dict[int, tuple[float, Form]] = {}
        self.inputs: list[Node] = []
        self.materialised: dict[Any, np.ndarray] = {}

    def group(self, level: int, signature: tuple, kind: str) -> Group:
        key = (level, signature, kind)
        if key not in self.by_signature:
            self.by_signature[key] = Group(len(self.groups), level, signature, kind)
            self.groups.append(self.by_signature[key])
        return self.by_signature[key]

    def level(self, *numbers: np.ndarray) -> int:
        """One more than the levels of the groups that these elements are in."""
        used = np.concatenate([np.ravel(part) for part in numbers]) >> SHIFT
        if used.size > 64:
            used = np.unique(used)
        return 1 + max((self.groups[g].level for g in used), default=0)

    def visit(self, root: Node) -> None:
        """Number `root` and all that it comes from."""
        for node in self.alike.visit(root):
            self.known[node] = self.number(node)

    def of(self, node: Node) -> Any:
        return self.known[self.alike.leader(node)]

    def elements(self, node: Node) -> np.ndarray:
        """Element numbers in the shape of the node; a linear form becomes an element here."""
        found = self.of(node)
        return self.materialise(found) if isinstance(found, Form) else found

    def materialise(self, form: Form) -> np.ndarray:
        if not form.terms:
            return self.constants(np.asarray(form.offset), "f")
        if len(form.terms) == 1 and form.offset == 0.0 and next(iter(form.terms.values())) == 1.0:
            return np.array(next(iter(form.terms)), dtype=np.int64)
        key = (tuple(sorted(form.terms.items())), form.offset)
        if key not in self.materialised:
            numbers = np.fromiter(form.terms, np.int64)
            group = self.group(self.level(numbers), ("linear",), "f")
            self.materialised[key] = group.extend(form, 1).reshape(())
        return self.materialised[key]

    def constants(self, payload: Any, kind: str) -> np.ndarray:
        payload = np.asarray(payload)
        return self.group(0, ("constant",), kind).extend(payload, payload.size).reshape(payload.shape)

    def number(self, node: Node) -> Any:
        if is_constant(node):
            if node.shape == () and node.kind == "f":
                return Form({}, float(node.payload))
            return self.constants(node.payload, node.kind)
        if node.op == "input":
            self.inputs.append(node)
            size = int(np.prod(node.shape, dtype=int))
            return self.group(0, ("input",), node.kind).extend(node, size).reshape(node.shape)
        form = self.linear(node) if node.shape == () and node.kind == "f" else None
        if form is not None:
            return form
        if node.op == "assemble":
            return self.assemble(node)
        if node.op in ("move", "renumber", "assign"):
            return np.asarray(node.static([self.promoted(parent, node.kind) for parent in node.parents]))
        operands = [self.elements(parent) for parent in node.parents]
        kinds = "".join(parent.kind for parent in node.parents)
        if isinstance(node.static, Call):
            shapes = tuple(operand.shape for operand in operands)
            group = self.group(self.level(*operands), ("mix", node.static, shapes, node.shape, kinds), node.kind)
        else:
            operands = [np.broadcast_to(operand, node.shape) for operand in operands]
            group = self.group(self.level(*operands), (node.op, node.static, kinds), node.kind)
        size = int(np.prod(node.shape, dtype=int))
        numbers = group.extend([np.ravel(operand) for operand in operands], size).reshape(node.shape)
        if node.op == "remainder" and node.shape == () and is_constant(node.parents[1]):
            self.remainders[int(numbers)] = (float(node.parents[1].payload), self.as_form(node.parents[0]))
        return numbers

    def promoted(self, node: Node, kind: str) -> np.ndarray:
        """Element numbers, made complex where the result is."""
        numbers = self.elements(node)
        if node.kind == kind:
            return numbers
        group = self.group(self.level(numbers), ("complex", None, "f"), "c")
        return group.extend([np.ravel(numbers)], numbers.size).reshape(numbers.shape)

    def assemble(self, node: Node) -> np.ndarray:
        numbers = self.promoted(node.parents[0], node.kind).copy()
        for place, parent in zip(node.static, node.parents[1:], strict=True):
            numbers[place] = self.promoted(parent, node.kind)
        return numbers

    def as_form(self, node: Node) -> Form:
        found = self.of(node)
        return found if isinstance(found, Form) else Form({int(found): 1.0}, 0.0)

    def linear(self, node: Node) -> Form | None:
        """The linear form of a real scalar node; None if it is not linear or too long."""
        if node.op == "negative":
            return scaled(self.as_form(node.parents[0]), -1.0)
        if node.op in ("add", "subtract"):
            left, right = (self.as_form(parent) for parent in node.parents)
            return self.summed(left, right if node.op == "add" else scaled(right, -1.0))
        if node.op in ("multiply", "divide"):
            left, right = (self.as_form(parent) for parent in node.parents)
            if node.op == "divide":
                return None if right.terms else scaled(left, 1.0, right.offset)
            if not right.terms:
                return scaled(left, right.offset)
            return scaled(right, left.offset) if not left.terms else None
        if node.op == "remainder" and is_constant(node.parents[1]):
            inner = self.without_remainders(self.as_form(node.parents[0]), float(node.parents[1].payload))
            numbers = self.materialise(inner)
            modulus = self.elements(node.parents[1])
            group = self.group(self.level(numbers, modulus), ("remainder", None, "ff"), "f")
            number = int(group.extend([np.ravel(numbers), np.ravel(modulus)], 1)[0])
            self.remainders[number] = (float(node.parents[1].payload), inner)
            return Form({number: 1.0}, 0.0)
        return None

    def without_remainders(self, form: Form, modulus: float) -> Form:
        """The same number up to multiples of `modulus`."""
        total = Form({}, form.offset)
        for number, factor in form.terms.items():
            kept = self.remainders.get(number)
            if kept is not None and kept[0] == modulus and factor.is_integer():
                total = self.summed(total, scaled(kept[1], factor))
            else:
                total = self.summed(total, Form({number: factor}, 0.0))
        return total

    def summed(self, left: Form, right: Form) -> Form:
        if len(left.terms) < len(right.terms):
            left, right = right, left
        if len(left.terms) + len(right.terms) > LONGEST_FORM:
            left = Form({int(self.materialise(left)): 1.0}, 0.0)
            if len(right.terms) > LONGEST_FORM // 2:
                right = Form({int(self.materialise(right)): 1.0}, 0.0)
        terms = dict(left.terms)
        for number, factor in right.terms.items():
            terms[number] = terms.get(number, 0.0) + factor
        return Form(terms, left.offset + right.offset)


def scaled(form: Form, factor: float, divisor: float = 1.0) -> Form:
    if divisor != 1.0:
        return Form({n: f / divisor for n, f in form.terms.items()}, form.offset / divisor if divisor else np.inf)
    return Form({n: f * factor for n, f in form.terms.items()}, form.offset * factor)
