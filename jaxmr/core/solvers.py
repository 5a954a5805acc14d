r"""Linear systems solved by iteration, differentiated at the solution.

For A x = b the derivative of the solution is dx = A^{-1} (db - dA x): another system with the same operator, so
that neither memory nor accuracy of a derivative depends on how many iterations the solution took. Pure linear
algebra, no units. Reference: Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49:409 (1952).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxmr.core.products import real_dot
from jaxmr.core.types import Array, Float, Shaped


class Solution(eqx.Module):
    """What an iterative solver found, and how far to trust it.

    value: like the right-hand side. residual: norm of b - A x over the norm of b, as the recurrence has it.
    iterations: steps taken. converged: whether the residual reached the tolerance.
    Derivatives flow through `value` only.
    """

    value: Any
    residual: Float[Array, "*batch"]
    iterations: Shaped[Array, "*batch"]
    converged: Shaped[Array, "*batch"]


def conjugate_gradient(
    operator: Callable[[Any], Any],
    b: Any,
    *,
    preconditioner: Callable[[Any], Any] | None = None,
    initial: Any = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> Solution:
    """Solve operator(x) = b for a Hermitian positive (semi)definite linear operator.

    b: a real or complex array or a tree of them; `operator` maps such a tree to one alike. preconditioner: a
    Hermitian approximation of the inverse. initial: where to begin, like b. Ends when the residual falls below
    `tolerance` times the norm of b, or after `max_iterations`.

    Forward, reverse and higher derivatives in b and in everything `operator` closes over cost one solve each;
    `initial` and `preconditioner` have none. Raises `ValueError` when operator(b) or initial does not look like b.
    """
    b = jax.tree.map(_as_inexact, b)
    _require_alike("operator(b)", jax.eval_shape(operator, b), b)
    # One vector: custom_linear_solve fails where only some leaves of a tree have a tangent.
    rhs, unravel = ravel_pytree(b)

    def on_vectors(function):
        return lambda x: ravel_pytree(function(unravel(x)))[0].astype(rhs.dtype)

    matvec = on_vectors(operator)
    precondition = on_vectors(preconditioner) if preconditioner else lambda r: r
    size = jnp.linalg.norm(jax.lax.stop_gradient(rhs))
    start = jnp.zeros_like(rhs)
    if initial is not None:
        initial = jax.tree.map(jnp.asarray, initial)
        _require_alike("initial", initial, b)
        start = jax.lax.stop_gradient(ravel_pytree(initial)[0])
        rhs = rhs - matvec(start)
    missing = jax.lax.stop_gradient(rhs)

    def solve(matvec, rhs):
        # The system itself is measured against b, those of its derivatives against their own right-hand sides.
        scale = jnp.where(jnp.all(rhs == missing), size, jnp.linalg.norm(rhs))
        return _iterate(matvec, rhs, precondition, tolerance * scale, max_iterations)

    # The transpose of a Hermitian operator is its conjugate: conj(A) x = c is A conj(x) = conj(c).
    def transpose_solve(vecmat, rhs):
        x, statistics = solve(lambda y: vecmat(y.conj()).conj(), rhs.conj())
        return x.conj(), statistics

    solved: Any = jax.lax.custom_linear_solve(matvec, rhs, solve, transpose_solve, has_aux=True)
    correction, (norm, iterations) = solved
    residual = norm / jnp.where(size > 0, size, 1)
    return Solution(unravel(start + correction), residual, iterations, norm <= tolerance * size)


def largest_eigenvalue(operator: Callable[[Any], Any], start: Shaped[Array, "..."], steps: int) -> Float[Array, ""]:
    """Of a Hermitian positive semidefinite operator, from below, by so many power iterations; 0 from a zero start."""

    def once(_, state):
        vector, _ = state
        image = operator(vector).astype(vector.dtype)
        size = jnp.linalg.norm(image.ravel())
        return image / jnp.where(size > 0, size, 1), size

    size = jnp.linalg.norm(start.ravel())
    first = start / jnp.where(size > 0, size, 1)
    return jax.lax.fori_loop(0, steps, once, (first, jnp.zeros((), first.real.dtype)))[1]


def _iterate(operator, b, precondition, limit, max_iterations):
    """Solution from zero; norm of its residual, as the recurrence has it, and iterations."""

    def unfinished(state):
        _, r, _, _, definite, i = state
        return (jnp.linalg.norm(r) > limit) & definite & (i < max_iterations)

    def step(state):
        x, r, p, rz, _, i = state
        image = operator(p)
        curvature = real_dot(p, image)
        # No curvature: rounding has used up the direction, or the operator is singular along it.
        definite = curvature > 0
        length = jnp.where(definite, rz / jnp.where(definite, curvature, 1), 0)
        x, r = x + length * p, r - length * image
        z = precondition(r)
        rz, before = real_dot(r, z), rz
        return x, r, z + rz / jnp.where(before > 0, before, 1) * p, rz, definite, i + 1

    z = precondition(b)
    state = jnp.zeros_like(b), b, z, real_dot(b, z), jnp.array(True), jnp.zeros((), jnp.int32)
    x, r, _, _, _, iterations = jax.lax.while_loop(unfinished, step, state)
    return x, (jnp.linalg.norm(r), iterations)


def _as_inexact(leaf):
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(float)


def _require_alike(name, tree, b):
    def look(tree):
        return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)

    if look(tree) != look(b):
        raise ValueError(f"{name} must look like b, {look(b)}, got {look(tree)}; cast or reshape it")
