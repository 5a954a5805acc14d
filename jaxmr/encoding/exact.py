"""The non-uniform sum evaluated as it is written, axis by axis: the oracle of the fast methods.

Exponentials of n.w factor into one per axis, so that a chunk of samples costs two or three small matrix products.
Shapes as in `nonuniform`.
"""

import math

import jax
import jax.numpy as jnp

CHUNK_NUMBERS = 2**21
"""Complex numbers of the largest intermediate result."""


def _exponentials(w, matrix, sign):
    """exp(sign i n w) of each axis, `(n_samples, size)`."""
    phases = [w[:, a, None] * (jnp.arange(n) - n // 2).astype(w.dtype)[None] for a, n in enumerate(matrix)]
    return [jnp.exp(sign * 1j * phase) for phase in phases]


def _in_chunks(w, n_images, matrix):
    """Points `(n_chunks, chunk, n_axes)`, padded with zeros."""
    rows = n_images * math.prod(matrix[:-1]) + sum(matrix)
    chunk = max(1, min(w.shape[0], CHUNK_NUMBERS // rows))
    n_chunks = -(-w.shape[0] // chunk)
    return jnp.pad(w, ((0, n_chunks * chunk - w.shape[0]), (0, 0))).reshape(n_chunks, chunk, w.shape[1])


def to_samples(image, w, matrix, sign):
    """Images `(batch, *matrix)` as samples `(batch, n)`."""

    def sample(w):
        *others, last = _exponentials(w, matrix, sign)
        values = jnp.einsum("...x,cx->...c", image, last, precision="highest")
        for axis in reversed(others):
            values = jnp.einsum("...yc,cy->...c", values, axis, precision="highest")
        return values

    values = jax.lax.map(sample, _in_chunks(w, image.shape[0], matrix))
    return jnp.moveaxis(values, 0, 1).reshape(image.shape[0], -1)[:, : w.shape[0]]


def to_image(samples, w, matrix, sign):
    """Samples `(batch, n)` summed into images `(batch, *matrix)`."""
    points = _in_chunks(w, samples.shape[0], matrix)
    n_chunks, chunk = points.shape[:2]
    padded = jnp.pad(samples, ((0, 0), (0, n_chunks * chunk - samples.shape[1])))
    values = jnp.moveaxis(padded.reshape(-1, n_chunks, chunk), 1, 0)

    def add(image, both):
        w, values = both
        *others, last = _exponentials(w, matrix, sign)
        for axis in others:
            values = jnp.einsum("...c,cy->...yc", values, axis, precision="highest")
        return image + jnp.einsum("...c,cx->...x", values, last, precision="highest"), None

    zero = jnp.zeros((samples.shape[0], *matrix), samples.dtype)
    return jax.lax.scan(add, zero, (points, values))[0]
