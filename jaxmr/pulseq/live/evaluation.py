"""Live numbers computed by JAX: one pure function of the inputs, in float64 whatever the precision of the program.

With x64 off the computation is an island of float64 inside float32, since times of seconds on rasters of microseconds
need it; its tangent comes from the same steps in float32, because reverse mode cannot cross the island's shore.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmr.pulseq.live.graph import Call, Node
from jaxmr.pulseq.live.number import Live
from jaxmr.pulseq.live.numbering import SHIFT, Form, Group, Numbering

SAME = 1e-9  # relative distance at which XLA's last bits must not decide otherwise than NumPy's did


def evaluate(outputs: Any, inputs: dict[str, Any]) -> Any:
    """`outputs`, a tree with live leaves, with JAX arrays in their place.

    inputs: JAX arrays by name, for the leaves that `pp.trace` named; others carry their value. Pure in the inputs:
    it may be transformed by jit, grad, jvp, vmap and hessian.
    """
    leaves, tree = jax.tree.flatten(outputs)
    return tree.unflatten(Program(leaves)(inputs))


class Program:
    """The steps that compute some live leaves. n_steps is what compilation time depends on."""

    def __init__(self, leaves: list):
        numbering = Numbering()
        self.leaves = leaves
        self.wanted: list[np.ndarray | None] = []
        for leaf in leaves:
            if isinstance(leaf, Live):
                numbering.visit(leaf.node)
                self.wanted.append(numbering.elements(leaf.node))
            else:
                self.wanted.append(None)
        self.groups = sorted(numbering.groups, key=lambda group: group.level)
        self.constants = {
            group.number: np.concatenate([np.ravel(row) for row in group.rows])
            for group in self.groups
            if group.signature == ("constant",)
        }
        self.input_groups = {group.number: group for group in self.groups if group.signature == ("input",)}
        self.inputs = numbering.inputs
        self.steps = [(group, step_of(group)) for group in self.groups if group.level > 0]
        self.n_steps = len(self.steps)

    def __call__(self, inputs: dict[str, Any]) -> list:
        arrays = self.arrays(inputs)
        wide = jax.config.jax_enable_x64  # type: ignore[attr-defined]
        results = self.run(arrays, np.float64) if wide else float64_island(self, arrays)
        live = iter(results)
        return [next(live) if place is not None else plain(leaf) for leaf, place in zip(self.leaves, self.wanted)]  # noqa: B905

    def arrays(self, inputs: dict[str, Any]) -> list:
        return [jnp.asarray(node.payload if node.static is None else take(inputs, node)) for node in self.inputs]

    def snapped(self, arrays: list) -> list:
        """The inputs, exactly the example's where they are its float32: a raster is finer than float32."""
        found = []
        for node, a in zip(self.inputs, arrays, strict=True):
            example = node.payload if node.static is not None else None
            if example is None:
                found.append(a)
            else:
                narrow = np.asarray(example, np.float32).astype(float)
                found.append(a + jnp.where(a == narrow, example - narrow, 0.0))
        return found

    def run(self, arrays: list, dtype: Any) -> list:
        """The wanted arrays, computed in `dtype`."""
        pools: dict[int, Any] = {}
        wide = np.complex128 if dtype == np.float64 else np.complex64
        flat = {node: jnp.ravel(a) for node, a in zip(self.inputs, arrays, strict=True)}
        for number, group in self.input_groups.items():
            pools[number] = jnp.concatenate([flat[node] for node in group.rows]).astype(
                wide if group.kind == "c" else dtype
            )
        constants = {n: c.astype(wide if c.dtype.kind == "c" else dtype) for n, c in self.constants.items()}
        for group, step in self.steps:
            pools[group.number] = step(lambda numbers: gather(numbers, pools, constants), dtype)
        return [gather(place, pools, constants) for place in self.wanted if place is not None]


def take(inputs: dict[str, Any], node: Node) -> Any:
    if node.static not in inputs:
        raise ValueError(f"parameter {node.static!r} is missing; give it as it was in pp.trace(script, **example)")
    if np.shape(inputs[node.static]) != node.shape:
        raise ValueError(
            f"parameter {node.static!r} has shape {np.shape(inputs[node.static])} but had {node.shape} in pp.trace; "
            "trace the script again for another shape"
        )
    return inputs[node.static]


def plain(leaf: Any) -> Any:
    if isinstance(leaf, Live):
        return jnp.asarray(leaf.value)
    return jnp.asarray(leaf) if isinstance(leaf, float | complex | np.ndarray | np.number) else leaf


def gather(numbers: np.ndarray, pools: dict[int, Any], constants: dict[int, np.ndarray]) -> Any:
    """The elements with these numbers: constants on the host, the rest by one gather."""
    flat = np.ravel(numbers)
    owner, position = flat >> SHIFT, flat & ((1 << SHIFT) - 1)
    used = np.unique(owner)
    if len(used) == 1:
        (one,) = used.tolist()
        if one in constants:
            return jnp.asarray(constants[one][position].reshape(numbers.shape))
        pool = pools[one]
        if flat.size == pool.size and np.array_equal(position, np.arange(flat.size)):
            return pool.reshape(numbers.shape)
        return pick(pool, position).reshape(numbers.shape)
    sources, index, start = [], np.empty(flat.size, np.int64), 0
    for one in used.tolist():
        mine = owner == one
        needed, where = np.unique(position[mine], return_inverse=True)
        index[mine] = start + where
        source = constants[one][needed] if one in constants else pick(pools[one], needed)
        sources.append(source)
        start += len(needed)
    return pick(jnp.concatenate(sources), index).reshape(numbers.shape)


def pick(pool: Any, position: np.ndarray) -> Any:
    if np.array_equal(position, np.arange(pool.size)):
        return pool
    first = int(position[0])
    if np.array_equal(position, np.arange(first, first + position.size)):
        return lax.slice(pool, (first,), (first + position.size,))
    return pool.at[position].get(mode="promise_in_bounds")


def step_of(group: Group) -> Callable:
    """The function (gather, dtype) -> flat values of a group."""
    if group.signature == ("linear",):
        return linear_step(group.rows)
    name, static = group.signature[:2]
    columns = [np.concatenate(parts) for parts in zip(*group.rows, strict=True)]
    if isinstance(static, Call):
        shapes = group.signature[2]
        columns = [column.reshape(len(group.rows), *shape) for column, shape in zip(columns, shapes, strict=True)]
        function = jax_twin(static.function)

        def mixed(gather: Callable, dtype: Any) -> Any:
            one = lambda *operands: jnp.asarray(static(operands, function))  # noqa: E731
            return jnp.ravel(jax.vmap(one)(*(gather(column) for column in columns)))

        return mixed
    if name == "static_power":
        return lambda gather, dtype: gather(columns[0]) ** static
    operation = OPERATIONS[name] if name in OPERATIONS else getattr(jnp, name)
    if name in ("rint", "ceil", "floor", "trunc"):
        return lambda gather, dtype: straight_through(operation, static, *(gather(column) for column in columns))
    return lambda gather, dtype: operation(*(gather(column) for column in columns))


def linear_step(forms: list[Form]) -> Callable:
    numbers = np.concatenate([np.fromiter(form.terms, np.int64) for form in forms])
    factors = np.concatenate([np.fromiter(form.terms.values(), float) for form in forms])
    rows = np.repeat(np.arange(len(forms)), [len(form.terms) for form in forms])
    offsets = np.array([form.offset for form in forms])
    single = len(rows) == len(forms)

    def step(gather: Callable, dtype: Any) -> Any:
        products = gather(numbers) * factors.astype(dtype)
        if not single:
            products = jax.ops.segment_sum(products, rows, len(forms), indices_are_sorted=True)
        return products + offsets.astype(dtype)

    return step


def straight_through(operation: Callable, digits: int | None, x: Any, example: Any, result: Any) -> Any:
    """Rounded, with the derivative of the identity; where `x` is the example's, the example's `result`."""
    scale = 10.0 ** (digits or 0)
    moved = operation(x * scale) / scale
    near = jnp.abs(x - example) <= SAME * jnp.abs(example)
    return x + lax.stop_gradient(jnp.where(near, result, moved) - x)


def safe_sqrt(x: Any) -> Any:
    """The root, with derivative 0 at 0: an area of 0 has a rise time of 0."""
    if jnp.iscomplexobj(x):
        return jnp.sqrt(x)
    return jnp.where(x == 0, 0.0, jnp.sqrt(jnp.where(x == 0, 1.0, x))).astype(x.dtype)


OPERATIONS: dict[str, Callable] = {
    "sqrt": safe_sqrt,
    "complex": lambda x: x + 0j,
    "make_complex": lax.complex,
}


def jax_twin(function: Callable) -> Callable:
    for module in (jnp, jnp.fft, jnp.linalg):
        twin = getattr(module, function.__name__, None)
        if twin is not None:
            return twin
    raise ValueError(f"jax.numpy has no {function.__name__}; compute it with other functions")


def float64_island(program: Program, arrays: list) -> list:
    """The program in float64 between float32 inputs and outputs, its tangent in float32."""

    @jax.custom_jvp
    def island(*narrow: Any) -> list:
        with jax.enable_x64(True):
            inputs = [lax.convert_element_type(a, widened(a.dtype)) for a in narrow]
            results = program.run(program.snapped(inputs), np.float64)
            return [lax.convert_element_type(r, narrowed(r.dtype)) for r in results]

    @island.defjvp
    def island_jvp(primals: Any, tangents: Any) -> Any:
        _, tangent = jax.jvp(lambda *narrow: program.run(list(narrow), np.float32), primals, tangents)
        return island(*primals), tangent

    return island(*arrays)


def widened(dtype: Any) -> Any:
    return np.complex128 if np.dtype(dtype).kind == "c" else np.float64


def narrowed(dtype: Any) -> Any:
    return np.complex64 if np.dtype(dtype).kind == "c" else np.float32
