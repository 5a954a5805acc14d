"""From Fisher information to the Cramér-Rao bound. Pure linear algebra; units are those of the parameters."""

import jax
import jax.numpy as jnp

from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Float

ALIKE = 8
"""Units of rounding below which an eigenvalue of the correlation is 0: parameters cannot be told apart."""


def smallest_variances(information: Float[Array, "*batch p p"]) -> Float[Array, "*batch p"]:
    """Diagonal of the inverse of the information: no unbiased estimate of a parameter varies less.

    inf where a parameter leaves no trace, or none that others could not leave. Differentiable elsewhere.
    """
    # Scaled to a unit diagonal first: T1 and M0 differ by orders of magnitude, and float32 would not bear it.
    diagonal = jnp.diagonal(information, axis1=-2, axis2=-1)
    seen = diagonal > 0
    scale = jnp.where(seen, 1 / jnp.sqrt(jnp.where(seen, diagonal, 1)), 0)
    correlation = information * scale[..., :, None] * scale[..., None, :]
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(correlation))
    null = vectors * (values <= ALIKE * jnp.finfo(values.dtype).eps)[..., None, :]
    # Directions without information are filled up, so that the others can be inverted.
    filled = correlation + matmul(null, jnp.swapaxes(null, -1, -2))
    variance = jnp.diagonal(jnp.linalg.inv(filled), axis1=-2, axis2=-1) * scale**2
    lost = jnp.sum(null**2, axis=-1) > jnp.sqrt(jnp.finfo(values.dtype).eps)
    return jnp.where(seen & ~lost, variance, jnp.inf)
