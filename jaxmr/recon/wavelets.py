r"""The orthogonal wavelet transform of Daubechies with two vanishing moments, of images of any size.

A level splits every axis into averages a and details d of half its length, periodic at the edges:

    a_n = sum_j h_j x_{2n+j},    d_n = sum_j (-1)^j h_{3-j} x_{2n+j}

An odd last sample is an average as it stands, so that the transform stays orthogonal: its inverse is its transpose.
Reference: Daubechies, Commun. Pure Appl. Math. 41:909 (1988).
"""

import math

import jax.numpy as jnp

from jaxmr.core.types import Array, Shaped

_ROOT = math.sqrt(3)
_H = tuple(h / (4 * math.sqrt(2)) for h in (1 + _ROOT, 3 + _ROOT, 3 - _ROOT, 1 - _ROOT))
_G = tuple((-1) ** j * h for j, h in enumerate(reversed(_H)))
SHORTEST = len(_H)
"""Axes shorter than this are not split."""


def forward(image: Shaped[Array, "*shape"], n_axes: int, levels: int) -> Shaped[Array, "*shape"]:
    """Coefficients along the last `n_axes` axes; the averages of the last level come first along each."""
    for level in range(levels):
        image = _on_corner(_split, image, n_axes, level)
    return image


def inverse(coefficients: Shaped[Array, "*shape"], n_axes: int, levels: int) -> Shaped[Array, "*shape"]:
    """The image of `coefficients`."""
    for level in reversed(range(levels)):
        coefficients = _on_corner(_join, coefficients, n_axes, level)
    return coefficients


def averages(shape: tuple[int, ...], levels: int) -> tuple[int, ...]:
    """How many averages of the last level there are along axes of these lengths."""
    for _ in range(levels):
        shape = tuple(n if n < SHORTEST else n - n // 2 for n in shape)
    return shape


def _on_corner(function, image, n_axes, level):
    """One level, of what the levels before left as averages."""
    corner = averages(image.shape[-n_axes:], level)
    index = (..., *(slice(n) for n in corner))
    part = image[index]
    for axis in range(-n_axes, 0):
        if part.shape[axis] >= SHORTEST:
            part = jnp.moveaxis(function(jnp.moveaxis(part, axis, 0)), 0, axis)
    return image.at[index].set(part)


def _split(x):
    even, odd, rest = x[0 : len(x) // 2 * 2 : 2], x[1::2], x[len(x) // 2 * 2 :]
    following, next_odd = jnp.roll(even, -1, axis=0), jnp.roll(odd, -1, axis=0)
    a, d = (w[0] * even + w[1] * odd + w[2] * following + w[3] * next_odd for w in (_H, _G))
    return jnp.concatenate([a, rest, d])


def _join(x):
    half = len(x) // 2
    a, rest, d = x[:half], x[half : len(x) - half], x[len(x) - half :]
    even, odd, following, next_odd = (h * a + g * d for h, g in zip(_H, _G, strict=True))
    pairs = jnp.stack([even + jnp.roll(following, 1, axis=0), odd + jnp.roll(next_odd, 1, axis=0)], axis=1)
    return jnp.concatenate([pairs.reshape(2 * half, *x.shape[1:]), rest])
