"""Matrix products in the precision of their factors."""

import functools

import jax.numpy as jnp

matmul = functools.partial(jnp.matmul, precision="highest")
"""`a @ b`; left to itself, a GPU multiplies single precision with ten bits."""


def real_dot(a, b):
    """Real part of the inner product of all entries."""
    return jnp.vdot(a, b, precision="highest").real
