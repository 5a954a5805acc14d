"""Conjugate gradients against dense solves, their implicit derivatives against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import central_difference, relative
from jaxmr.core.solvers import conjugate_gradient, largest_eigenvalue

RNG = np.random.default_rng(3)
N = 12


def numbers(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


FACTOR = numbers(N, N)
MATRIX = FACTOR @ FACTOR.conj().T + N * np.eye(N)
RHS = numbers(N)


def solve(matrix, b, **options):
    b = jnp.asarray(b, matrix.dtype)
    return conjugate_gradient(lambda x: matrix @ x, b, tolerance=1e-12, **options)


def test_complex_hermitian_system():
    found = solve(jnp.asarray(MATRIX), RHS)
    assert relative(found.value, np.linalg.solve(MATRIX, RHS)) < 1e-10
    assert bool(found.converged)
    assert 1 < int(found.iterations) <= N + 3
    assert float(found.residual) < 1e-12


def test_real_trees_single_precision_and_integers():
    diagonal = {"a": jnp.arange(1.0, 5.0), "b": jnp.full((2, 3), 2.0)}
    b = {"a": np.arange(4), "b": jnp.ones((2, 3))}
    found = conjugate_gradient(lambda x: jax.tree.map(jnp.multiply, diagonal, x), b, tolerance=1e-12)
    np.testing.assert_allclose(found.value["a"], np.arange(4) / np.arange(1.0, 5.0), rtol=1e-12)
    np.testing.assert_allclose(found.value["b"], 0.5, rtol=1e-12)
    single = conjugate_gradient(lambda x: jnp.asarray(MATRIX, jnp.complex64) @ x, jnp.asarray(RHS, jnp.complex64))
    assert single.value.dtype == jnp.complex64
    assert bool(single.converged)
    assert relative(single.value, np.linalg.solve(MATRIX, RHS)) < 1e-5


def test_a_good_start_and_a_preconditioner_save_iterations():
    badly_scaled = jnp.asarray(MATRIX * np.outer(np.arange(1, N + 1), np.arange(1, N + 1)))
    plain = solve(badly_scaled, RHS, max_iterations=200)
    scale = 1 / jnp.diagonal(badly_scaled).real
    better = solve(badly_scaled, RHS, preconditioner=lambda r: scale * r)
    assert int(better.iterations) < int(plain.iterations)
    assert relative(better.value, np.linalg.solve(badly_scaled, RHS)) < 1e-9
    again = solve(badly_scaled, RHS, initial=better.value * (1 + 1e-10))
    assert int(again.iterations) < int(plain.iterations)
    assert relative(again.value, better.value) < 1e-8


def test_it_says_when_it_has_not_converged():
    found = solve(jnp.asarray(MATRIX), RHS, max_iterations=2)
    assert not bool(found.converged)
    assert int(found.iterations) == 2
    true = np.linalg.norm(MATRIX @ found.value - RHS) / np.linalg.norm(RHS)
    assert float(found.residual) == pytest.approx(true, rel=1e-10)


def test_zero_right_hand_side_and_singular_operators_stay_finite():
    nothing = solve(jnp.asarray(MATRIX), np.zeros(N))
    assert bool(nothing.converged)
    assert int(nothing.iterations) == 0
    projector = jnp.diag(jnp.array([1.0, 1.0, 0.0]))
    inside = conjugate_gradient(lambda x: projector @ x, jnp.array([1.0, 2.0, 0.0]))
    np.testing.assert_allclose(inside.value, [1, 2, 0], atol=1e-12)
    # A direction the operator cannot reach.
    outside = conjugate_gradient(lambda x: projector @ x, jnp.array([0.0, 0.0, 1.0]))
    assert not bool(outside.converged)
    assert np.isfinite(outside.value).all()


def loss(parameters, **options):
    """A real number of the solution, through the right-hand side and through what the operator closes over."""
    factor, b, weight = parameters
    matrix = factor @ factor.conj().T + weight * jnp.eye(N)
    x = solve(matrix, b, **options).value
    return jnp.sum(jnp.abs(x - (1 + 2j)) ** 2) + jnp.sum(jnp.sin(x.imag))


@pytest.mark.parametrize("start", [None, "near"])
def test_derivatives_in_operator_and_right_hand_side(start):
    options = {} if start is None else {"initial": jnp.asarray(np.linalg.solve(MATRIX, RHS)) * 1.01}
    point = (jnp.asarray(FACTOR), jnp.asarray(RHS), jnp.array(float(N)))
    way = (jnp.asarray(numbers(N, N)), jnp.asarray(numbers(N)), jnp.array(1.3))
    along = jax.jit(lambda t: loss(jax.tree.map(lambda p, d: p + t * d, point, way), **options))
    expected = float(central_difference(along, 0.0, 1e-3))
    assert float(jax.jvp(along, (0.0,), (1.0,))[1]) == pytest.approx(expected, rel=1e-8)
    gradient = jax.jit(jax.grad(lambda p: loss(p, **options)))(point)
    # The gradient of a real function in JAX's convention: df = Re(g dz).
    pairing = sum(jnp.sum(g * d).real for g, d in zip(gradient, way, strict=True))
    assert float(pairing) == pytest.approx(expected, rel=1e-8)
    curvature = float(central_difference(jax.jit(jax.grad(along)), 0.0, 1e-3))
    assert float(jax.jit(jax.hessian(along))(0.0)) == pytest.approx(curvature, rel=1e-6)


def test_mapped_and_compiled():
    several = jnp.asarray(numbers(3, N))
    found = jax.jit(jax.vmap(lambda b: solve(jnp.asarray(MATRIX), b)))(several)
    assert relative(found.value, np.linalg.solve(MATRIX, several.T).T) < 1e-10
    assert found.converged.all()
    gradients = jax.vmap(jax.grad(lambda b: jnp.abs(solve(jnp.asarray(MATRIX), b).value[0])))(several)
    single = jax.grad(lambda b: jnp.abs(solve(jnp.asarray(MATRIX), b).value[0]))(several[1])
    assert relative(gradients[1], single) < 1e-10


def test_operators_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"operator\(b\) must look like b, complex128\[12\], got complex128\[11\]"):
        conjugate_gradient(lambda x: x[1:], RHS)
    with pytest.raises(ValueError, match=r"initial must look like b"):
        conjugate_gradient(lambda x: x, RHS, initial=np.zeros(3))


def test_largest_eigenvalue_of_a_hermitian_matrix():
    matrix = np.array([[2.0, 1j], [-1j, 2.0]])  # eigenvalues 1 and 3
    found = largest_eigenvalue(lambda x: jnp.asarray(matrix) @ x, jnp.array([1.0 + 0j, 0.0]), 30)
    assert float(found) == pytest.approx(3.0, rel=1e-12)
    assert float(largest_eigenvalue(lambda x: x, jnp.zeros(3), 5)) == 0
