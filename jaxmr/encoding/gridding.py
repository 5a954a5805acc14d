r"""The non-uniform sum through an oversampled FFT, in plain JAX: the fast method where finufft does not run (GPUs).

A sample is a weighted sum of the `width` nearest points of a twofold oversampled grid along each axis; the weights
are the exponential of a semicircle, exp(beta (sqrt(1 - x^2) - 1)), and the image is divided by their Fourier
transform beforehand. The error is about 10^(1 - width). Shapes as in `nonuniform`.
Reference: Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput. 41:C479 (2019).
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

OVERSAMPLING = 2
SHAPE = 2.3
"""beta / width, the best for twofold oversampling."""
WIDTHS = (2, 16)


def kernel_width(tolerance: float) -> int:
    """Grid points a sample is spread over along each axis for a relative error of about `tolerance`."""
    return int(np.clip(math.ceil(-math.log10(tolerance)) + 1, *WIDTHS))


def grid_size(size: int, width: int) -> int:
    """Even size of the oversampled grid with factors 2, 3 and 5 only, at least twice that of the image."""
    n = max(OVERSAMPLING * size, 2 * width)
    n += n % 2
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 2


def _kernel(x, width):
    """Weight at distance x, in half widths; 0 outside."""
    inside = 1 - x * x
    return jnp.where(inside > 0, jnp.exp(SHAPE * width * (jnp.sqrt(jnp.maximum(inside, 0)) - 1)), 0)


def _deconvolution(size, grid, width):
    """1 over the Fourier transform of the kernel at every voxel of an axis, by quadrature in float64."""
    x, weight = np.polynomial.legendre.leggauss(2 * width + 30)
    values = weight * np.exp(SHAPE * width * (np.sqrt(1 - x * x) - 1)) * width / 2
    frequency = 2 * np.pi * (np.arange(size) - size // 2) / grid
    return 1 / (np.cos(frequency[:, None] * x * width / 2) @ values)


def _prepare(w, matrix, tolerance):
    """Grid sizes, flat indices and weights of each axis `(n, width)`, and the correction of the image."""
    width = kernel_width(tolerance)
    grid = tuple(grid_size(size, width) for size in matrix)
    indices, weights, corrections = [], [], []
    for axis, (size, n) in enumerate(zip(matrix, grid, strict=True)):
        place = w[:, axis] * (n / (2 * np.pi))
        first = jnp.ceil(place - width / 2)
        offset = jnp.arange(width, dtype=w.dtype)
        distance = (first - place)[:, None] + offset[None]
        weights.append(_kernel(distance * (2 / width), width))
        indices.append((first.astype(jnp.int32)[:, None] + jnp.arange(width, dtype=jnp.int32)[None]) % n)
        shape = [1] * (1 + len(matrix))
        shape[1 + axis] = size
        corrections.append(jnp.asarray(_deconvolution(size, n, width), w.dtype).reshape(shape))
    return grid, indices, weights, math.prod(corrections[1:], start=corrections[0])


def _lines(grid, indices, weights):
    """Combinations of nearest points along the outer axes, and what picks one of them.

    `pick(combination)` gives each sample's weight and the flat index at which its line along the last axis begins.
    """
    width, outer = weights[0].shape[1], len(grid) - 1
    combinations = np.array(list(itertools.product(range(width), repeat=outer)), int).reshape(width**outer, outer)

    def pick(combination):
        start, weight = jnp.zeros_like(indices[-1][:, 0]), jnp.ones_like(weights[-1][:, 0])
        for axis in range(outer):
            start = (start + indices[axis][:, combination[axis]]) * grid[axis + 1]
            weight = weight * weights[axis][:, combination[axis]]
        return start, weight

    return pick, jnp.asarray(combinations)


def to_samples(image, w, matrix, sign, tolerance):
    """Images `(batch, *matrix)` as samples `(batch, n)`."""
    grid, indices, weights, correction = _prepare(sign * w, matrix, tolerance)
    axes = tuple(range(1, 1 + len(matrix)))
    padded = jnp.pad(image * correction, [(0, 0), *((0, n - size) for n, size in zip(grid, matrix, strict=True))])
    centred = jnp.roll(padded, [-(size // 2) for size in matrix], axes)
    # exp(+i ...): the points carry the sign.
    values = (jnp.fft.ifftn(centred, axes=axes, norm="forward")).reshape(image.shape[0], -1)
    pick, combinations = _lines(grid, indices, weights)

    def add(samples, combination):
        start, weight = pick(combination)
        near = values[:, start[:, None] + indices[-1]]
        return samples + weight[None] * jnp.einsum("bnw,nw->bn", near, weights[-1], precision="highest"), None

    return jax.lax.scan(add, jnp.zeros((image.shape[0], w.shape[0]), image.dtype), combinations)[0]


def to_image(samples, w, matrix, sign, tolerance):
    """Samples `(batch, n)` summed into images `(batch, *matrix)`."""
    grid, indices, weights, correction = _prepare(sign * w, matrix, tolerance)
    axes = tuple(range(1, 1 + len(matrix)))
    pick, combinations = _lines(grid, indices, weights)

    def add(values, combination):
        start, weight = pick(combination)
        spread = (weight[None] * samples)[..., None] * weights[-1][None]
        return values.at[:, start[:, None] + indices[-1]].add(spread), None

    zero = jnp.zeros((samples.shape[0], math.prod(grid)), samples.dtype)
    values = jax.lax.scan(add, zero, combinations)[0].reshape(-1, *grid)
    centred = jnp.fft.ifftn(values, axes=axes, norm="forward")
    padded = jnp.roll(centred, [size // 2 for size in matrix], axes)
    return padded[(slice(None), *(slice(size) for size in matrix))] * correction
