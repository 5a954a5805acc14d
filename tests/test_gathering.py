"""Rows gathered both ways: values, derivatives and maps as JAX's own indexing has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import relative
from jaxmr.core.gathering import gather, taken

SOURCES = jnp.asarray([[2, 4, 0, 4], [4, 4, 3, 4]])
TARGET = jnp.asarray([2, 4, 0, 2])


def plain(values, sources):
    padded = jnp.concatenate([values, jnp.zeros_like(values[:1])])
    return padded[sources[0]] + padded[sources[1]]


def test_rows_go_where_both_indices_say():
    values = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    assert jnp.array_equal(gather(values, SOURCES, TARGET), plain(values, SOURCES))
    assert jnp.array_equal(taken(values, jnp.array([1, 4])), jnp.stack([values[1], 0 * values[0]]))


@pytest.mark.parametrize("mode", [jax.grad, jax.jacfwd, jax.hessian, lambda f: jax.jit(jax.jacrev(f))])
def test_derivatives(mode):
    values = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))
    ours = mode(lambda x: jnp.sum(jnp.sin(gather(x, SOURCES, TARGET)) ** 2))(values)
    assert relative(ours, mode(lambda x: jnp.sum(jnp.sin(plain(x, SOURCES)) ** 2))(values)) < 1e-14


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_maps(axis):
    values = jnp.asarray(np.random.default_rng(2).normal(size=(4, 4, 4)))
    ours = jax.vmap(lambda x: gather(x, SOURCES, TARGET), in_axes=axis)(values)
    assert jnp.array_equal(ours, jax.vmap(lambda x: plain(x, SOURCES), in_axes=axis)(values))


def test_maps_over_indices():
    values = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)))
    both = jnp.stack([SOURCES, SOURCES]), jnp.stack([TARGET, TARGET])
    assert jnp.array_equal(jax.vmap(gather, in_axes=(None, 0, 0))(values, *both)[1], plain(values, SOURCES))
