"""Guards as a JAX program: whether a script would decide again as it did."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmr.pulseq.live.evaluation import SAME, Program, widened
from jaxmr.pulseq.live.graph import Call, Node, Slot
from jaxmr.pulseq.live.guards import Guards
from jaxmr.pulseq.live.number import Live


def guard_program(guards: Guards) -> Callable[[dict[str, Any]], Any]:
    """Which of the decisions that were taken would be taken again: inputs -> boolean (n_decisions,).

    Comparisons of one kind are one vectorised comparison, however many there are.
    """
    taken = list(guards.taken.values())
    kinds: dict[tuple, list[int]] = {}
    for i, (name, left, right, _, _) in enumerate(taken):
        kinds.setdefault((name, "c" if "c" in (left.kind, right.kind) else "f"), []).append(i)
    sides = [joined([taken[i] for i in members], kind) for (_, kind), members in kinds.items()]
    program = Program([side for left, right, _, _ in sides for side in (left, right)])

    def hold(inputs: dict[str, Any]) -> Any:
        held = jnp.ones(len(taken), bool)
        with jax.enable_x64(True):
            arrays = [lax.stop_gradient(a).astype(widened(a.dtype)) for a in program.arrays(inputs)]
            values = program.run(program.snapped(arrays), np.float64)
            pairs = zip(kinds.items(), sides, values[::2], values[1::2], strict=True)
            for ((name, _), members), (_, _, results, owner), left, right in pairs:
                each = holds(name, left, right, results).astype(np.int32)
                all_hold = jax.ops.segment_min(each, owner, len(members), indices_are_sorted=True) > 0
                held = held.at[np.array(members, np.int32)].set(all_hold)
        return held

    return hold


def joined(guards: list[tuple], kind: str) -> tuple[Live, Live, np.ndarray, np.ndarray]:
    """Both sides of many comparisons one after the other, what they gave, and which comparison each belongs to."""
    shapes = [np.broadcast_shapes(left.shape, right.shape) for _, left, right, _, _ in guards]
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]

    def run_together(parts: list) -> np.ndarray:
        return np.concatenate([np.ravel(np.broadcast_to(p, shape)) for p, shape in zip(parts, shapes, strict=True)])

    call = Call(run_together, (([Slot(i) for i in range(len(guards))],), {}))
    left, right = (
        Live(0.0, Node("move", call, tuple(guard[side] for guard in guards), (sum(sizes),), kind)) for side in (1, 2)
    )
    results = run_together([np.asarray(guard[3]) for guard in guards])
    return left, right, results, np.repeat(np.arange(len(guards)), sizes)


def holds(name: str, left: Any, right: Any, result: np.ndarray) -> Any:
    """Where a comparison gives `result` again; near ties it may."""
    tie = jnp.abs(left - right) <= SAME * (jnp.abs(left) + jnp.abs(right))
    if name == "truncates_to":
        return jnp.trunc(left + jnp.sign(left) * SAME * jnp.abs(left)) == right
    if name in ("equal", "not_equal"):
        return jnp.where(result == (name == "equal"), tie, left != right)
    return (getattr(jnp, name)(left, right) == result) | tie
