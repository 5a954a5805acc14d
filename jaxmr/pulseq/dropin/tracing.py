"""`trace`: run a Pulseq script once and keep it as a pure function of its parameters.

The script runs on live numbers, so its branches, ceilings and files see ordinary numbers; what it computed becomes a
JAX program of fixed structure, and what it decided becomes guards of that structure.
"""

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmr.pulseq.conversion.segments import Draft, draft
from jaxmr.pulseq.dropin.constraint_quantities import Constraints, demands
from jaxmr.pulseq.dropin.rebinding import rebind
from jaxmr.pulseq.live import Live
from jaxmr.pulseq.live.evaluation import Program
from jaxmr.pulseq.live.graph import named_input
from jaxmr.pulseq.live.guard_checks import guard_program
from jaxmr.pulseq.live.guards import Guards, recorder


class BrokenGuardWarning(UserWarning):
    """A parameter moved past a decision of the script, which was therefore traced again."""


def trace(script: Callable, /, **example: Any) -> "Traced":
    """The script as a pure function of its parameters.

    script: a function that returns a `pp.Sequence`, or a tuple that begins with one. example: its parameters; floats,
    arrays of floats and trees of them stay parameters, everything else (counts, names, flags) is fixed.
    """
    if not isinstance(script, FunctionType):
        raise ValueError(f"trace needs a plain function that returns a pp.Sequence, not {script!r}; wrap it in one")
    return Traced(script, example)


@final
class Traced:
    """What `trace` returns: `traced(**parameters)` is the jaxmr Sequence, and may be transformed by JAX."""

    def __init__(self, script: FunctionType, example: dict[str, Any]):
        self.script = script
        self._record(example)

    def _record(self, example: dict[str, Any]) -> None:
        """Run the script on live numbers."""
        leaves, tree = jax.tree.flatten(example)
        names = names_of(example)
        live = [
            Live(p, named_input(n, p)) if is_parameter(p) else p for n, p in zip(names, map(plain, leaves), strict=True)
        ]
        self._fixed = {n: p for n, p in zip(names, leaves, strict=True) if not is_parameter(plain(p))}
        self.example = example
        guards = Guards()
        token = recorder.set(guards)
        try:
            self.sequence = first(rebind(self.script)(**tree.unflatten(live)))
            self.blocks = self.sequence.blocks()
            self._programs: dict[str, Any] = {}
        finally:
            recorder.reset(token)
        self.guards = guards
        # At once, so that what the conversion decides is among the guards from the start.
        self._program("sequence", self._drafted)

    def _drafted(self, blocks: list) -> Draft:
        return draft(blocks, self.sequence.system.B0)

    def _program(self, key: str, of_blocks: Callable) -> Any:
        """What makes `of_blocks(blocks)` of inputs, compiled; its decisions are guards too."""
        if key not in self._programs:
            token = recorder.set(self.guards)
            try:
                made = of_blocks(self.blocks)
            finally:
                recorder.reset(token)
            self._programs[key] = (jax.jit(Program(made.leaves)), made.assemble)
            self._holds = jax.jit(guard_program(self.guards))
        return self._programs[key]

    def __call__(self, **parameters: Any) -> Any:
        """The jaxmr Sequence; concrete parameters that break a guard trace the script again, with a warning."""
        return self.evaluated("sequence", self._drafted, parameters)

    def constraints(self, **parameters: Any) -> Constraints:
        """The constraint quantities (see `pp.constraints`), pure in the parameters."""
        return self.evaluated("constraints", lambda blocks: Draft(*flat(demands(blocks))), parameters)

    def evaluated(self, key: str, of_blocks: Callable, parameters: dict[str, Any]) -> Any:
        """What `of_blocks(blocks)`, a draft of live numbers, makes: a pure function of the parameters."""
        inputs = self.inputs(parameters)
        if not any(isinstance(x, Tracer) for x in inputs.values()):
            self._trace_again_where_broken(inputs, parameters)
        program, assemble = self._program(key, of_blocks)
        return assemble(program(inputs))

    def guards_hold(self, **parameters: Any) -> jax.Array:
        """Whether the script would decide as it did: a boolean array, also under jit and vmap."""
        return jnp.all(self._holds(self.inputs(parameters)))

    def pulseq(self, **parameters: Any) -> Any:
        """The `pp.Sequence` of the script run with plain float64 numbers, for `.write`."""
        leaves, tree = jax.tree.flatten(parameters)
        return first(self.script(**tree.unflatten([plain(leaf) for leaf in leaves])))

    def inputs(self, parameters: dict[str, Any]) -> dict[str, Any]:
        given = dict(zip(names_of(parameters), jax.tree.leaves(parameters), strict=True))
        expected = names_of(self.example)
        if sorted(given) != sorted(expected):
            raise ValueError(f"parameters are {sorted(given)} but the script was traced with {sorted(expected)}")
        for name, fixed in self._fixed.items():
            if given[name] != fixed:
                raise ValueError(
                    f"parameter {name!r} is {given[name]!r} but was fixed to {fixed!r} when the script was traced; "
                    "trace it again, or give it as a float there if it is to vary"
                )
        return {name: jnp.asarray(x) for name, x in given.items() if name not in self._fixed}

    def _trace_again_where_broken(self, inputs: dict[str, Any], parameters: dict[str, Any]) -> None:
        held = np.asarray(self._holds(inputs))
        if held.all():
            return
        taken = list(self.guards.taken.values())
        broken = [f"{name} at {where}" for (name, _, _, _, where), ok in zip(taken, held, strict=True) if not ok]
        self._record(parameters)
        message = f"parameters changed a decision of the script ({'; '.join(broken[:3])}), which was traced again"
        warnings.warn(message, BrokenGuardWarning, stacklevel=4)


def flat(tree: Any) -> tuple[list, Callable]:
    """The leaves of a tree and the function that puts others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    return leaves, structure.unflatten


def names_of(tree: dict[str, Any]) -> list[str]:
    """The path of each leaf: `flips`, `delays[0]`."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [path[0].key + jax.tree_util.keystr(path[1:]) for path, _ in paths]


def plain(leaf: Any) -> Any:
    """A parameter as a script would be given it: a float or a float64 array."""
    if isinstance(leaf, jax.Array | np.ndarray | np.floating):
        array = np.asarray(leaf)
        if array.dtype.kind == "f":
            return float(array) if array.ndim == 0 else array.astype(float)
        return array.item() if array.ndim == 0 else array
    return leaf


def is_parameter(leaf: Any) -> bool:
    return isinstance(leaf, float) or (isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f")


def first(returned: Any) -> Any:
    """The sequence that a script returned."""
    sequence = returned[0] if isinstance(returned, tuple) else returned
    if not hasattr(sequence, "block_events"):
        raise ValueError(f"the script returned {type(sequence).__name__}; it must return a pp.Sequence")
    return sequence
