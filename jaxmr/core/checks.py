"""Checks of input at the front door: the message names the argument, its value and the remedy.

Static facts (shapes, names, counts) are always checked. Values can be checked only while
they are concrete; a traced value passes, because its number does not exist yet.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_concrete(tree: Any) -> bool:
    """Whether every leaf has a value now, i.e. none is being traced by `jit`, `grad` or `vmap`."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def as_float(name: str, value: Any) -> jax.Array:
    """`value` as a real floating-point array; integers and Python numbers take JAX's default precision."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number or an array of numbers, got {value!r}") from error
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(float)
    raise ValueError(f"{name} must be real, got dtype {array.dtype}")


def cast(tree: Any, dtype: Any) -> Any:
    """Every floating-point or complex leaf in the precision of the real `dtype`; the rest unchanged."""

    def convert(leaf):
        if not isinstance(leaf, jax.Array | np.ndarray) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        complex_leaf = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        return jnp.asarray(leaf, jnp.result_type(dtype, jnp.complex64) if complex_leaf else dtype)

    return jax.tree.map(convert, tree)


def require_values(name: str, value: Any, remedy: str, *, positive: bool = False, minimum: float | None = None) -> None:
    """Raise `ValueError` unless all of a concrete `value` is finite and in range; a tracer passes.

    `positive` asks for > 0, `minimum` for >= that number.
    """
    if not is_concrete(value):
        return
    array = np.asarray(value)
    wrong = ~np.isfinite(array)
    asked = "finite"
    if positive:
        wrong, asked = wrong | (array <= 0), "positive"
    elif minimum is not None:
        wrong, asked = wrong | (array < minimum), f"at least {minimum:g}"
    if wrong.any():
        where = np.argwhere(wrong)[0].tolist()
        found = array[tuple(where)]
        place = f" at index {tuple(where)}" if where else ""
        raise ValueError(f"{name} must be {asked}, got {found:g}{place}; {remedy}")


def require_train(name: str, value: jax.Array, n: int) -> None:
    """Raise `ValueError` unless `value` is a scalar or has one entry per repetition."""
    if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != n):
        raise ValueError(f"{name} must be a scalar or have shape ({n},), one entry per pulse, got shape {value.shape}")
