"""SOAP, the optimiser of Vyas et al. (ICLR 2025): Adam in the eigenbases of what the gradients of a matrix share.

The rows of a matrix of weights feed correlated units, and so do its columns. The correlations in its gradients G, the
means of G G^T and G^T G, have slowly changing eigenvectors U and V; Adam then works on U^T G V, whose entries vary
nearly independently.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmr.core.products import matmul

FIRST, SECOND, SHARED = 0.95, 0.99, 0.98
"""Memory of the mean gradient, of its mean square, and of the correlations."""
EVERY = 32
"""Steps after which the eigenvectors are computed again."""
SMALLEST = 5
"""Rows and columns from which on a matrix has bases of its own: with fewer, or as a vector, it meets plain Adam."""
TINY = 1e-8


class Memory(NamedTuple):
    """Steps done, and of each leaf: mean gradient, mean square in the bases, correlations and bases of both sides."""

    n: Any
    mean: Any
    square: Any
    correlations: Any
    bases: Any


def soap(rate: Callable) -> optax.GradientTransformation:
    """The transformation; `rate` is a schedule of optax."""

    def init(params: Any) -> Memory:
        zero = jax.tree.map(jnp.zeros_like, params)
        bases = [tuple(jnp.eye(n, dtype=leaf.dtype) for n in _sides(leaf)) for leaf in jax.tree.leaves(params)]
        return Memory(jnp.zeros((), jnp.int32), zero, zero, jax.tree.map(jnp.zeros_like, bases), bases)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Memory]:
        n = state.n + 1
        leaves, structure = jax.tree.flatten(updates)
        of, whole = structure.flatten_up_to, structure.unflatten
        each = zip(leaves, of(state.mean), of(state.square), state.correlations, state.bases, strict=True)
        change, mean, square, correlations, bases = zip(*(_step(n, *leaf) for leaf in each), strict=True)
        return whole(change), Memory(n, whole(mean), whole(square), list(correlations), list(bases))

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(rate))


def _sides(leaf) -> tuple[int, ...]:
    """Sizes of the bases of rows and columns, none for plain Adam."""
    return leaf.shape if leaf.ndim == 2 and min(leaf.shape) >= SMALLEST else ()


def _step(n, gradient, mean, square, correlations, bases):
    into, back = lambda x: x, lambda x: x
    if bases:
        u, v = bases
        into, back = lambda x: matmul(matmul(u.T, x), v), lambda x: matmul(matmul(u, x), v.T)
    mean = FIRST * mean + (1 - FIRST) * gradient
    square = SECOND * square + (1 - SECOND) * into(gradient) ** 2
    power = n.astype(gradient.dtype)
    change = back(into(mean) / (1 - FIRST**power) / (jnp.sqrt(square / (1 - SECOND**power)) + TINY))
    if bases:
        shared = matmul(gradient, gradient.T), matmul(gradient.T, gradient)
        correlations = tuple(SHARED * old + (1 - SHARED) * new for old, new in zip(correlations, shared, strict=True))
        bases = jax.lax.cond(
            n % EVERY == 1, lambda: tuple(jnp.linalg.eigh(one)[1] for one in correlations), lambda: bases
        )
    return change, mean, square, correlations, bases
