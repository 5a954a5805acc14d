"""What is learnt from, and done to, the data of several receive coils.

Sensitivity maps from images, fewer virtual coils, uncorrelated noise. Images and maps are `(coils, *matrix)`, k-space
`(coils, samples)`; a matrix that combines coils, `(coils out, coils in)`, applies to maps as to data.
References: Walsh, Gmitro and Marcellin, MRM 43:682 (2000); Huang et al., Magn. Reson. Imaging 26:133 (2008);
Pruessmann et al., MRM 46:638 (2001).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmr.core.checks import is_concrete, require_values
from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Complex
from jaxmr.encoding.coils import normalise


class Combined(NamedTuple):
    """Data of virtual coils, `matrix @ kspace`, and the matrix that made them."""

    kspace: Complex[Array, "virtual samples"]
    matrix: Complex[Array, "virtual coils"]


def walsh(images: Complex[Array, "coils *matrix"], width: int = 5) -> Complex[Array, "coils *matrix"]:
    """Sensitivity maps from fully sampled coil images: what the coils see in common around each pixel.

    The map of a pixel is the dominant eigenvector of the coils' covariance over a box `width` pixels wide (odd), of
    norm 1, 0 where there is no signal. Eigenvectors have no phase of their own: that of a fixed combination
    of all coils, the dominant one of the whole image, is set to 0 everywhere, so the maps are as smooth as the coils.
    What is left of the phase belongs to the image. Noise is taken as equal and uncorrelated: `prewhiten` first.
    Holds coils**2 images at once. Raises `ValueError` for an even width.
    """
    if width < 1 or width % 2 == 0:
        raise ValueError(f"width must be odd, so that the box is centred on its pixel, got {width}")
    if images.ndim < 2:
        raise ValueError(f"images must have shape (coils, *matrix), got {images.shape}")
    products = images[:, None] * images.conj()[None]
    for axis in range(2, products.ndim):
        products = _box(products, axis, width)
    local = jnp.moveaxis(products, (0, 1), (-2, -1))
    overall = local.sum(tuple(range(local.ndim - 2)))
    strongest = jnp.argmax(jnp.diagonal(overall).real)
    reference = normalise(_dominant(overall)[:, strongest])
    return normalise(jnp.moveaxis(matmul(_dominant(local), reference), -1, 0))


def compress(kspace: Complex[Array, "coils samples"], n_virtual: int) -> Combined:
    """The `n_virtual` orthogonal combinations of coils that hold most of the signal (principal components).

    Strongest first; the rows of the matrix are orthonormal, so white noise stays white.
    Raises `ValueError` when n_virtual is not 1 ... coils.
    """
    if not 1 <= n_virtual <= kspace.shape[0]:
        raise ValueError(f"n_virtual must be 1 ... {kspace.shape[0]}, the number of coils, got {n_virtual}")
    _, vectors = jnp.linalg.eigh(matmul(kspace, kspace.conj().T))
    matrix = vectors[:, ::-1][:, :n_virtual].conj().T
    return Combined(matmul(matrix, kspace), matrix)


def prewhiten(kspace: Complex[Array, "coils samples"], noise: Complex[Array, "coils n"]) -> Combined:
    """Combinations of coils whose noise is uncorrelated, with variance 1 in each of real and imaginary part.

    noise: samples taken without signal, n >= coils (a few hundred per coil for 5 %); their covariance is
    2 L L^H, and the matrix is the inverse of its Cholesky factor L. A complex sample of noise has variance 2.
    Raises `ValueError` for other shapes, too few samples, or a coil without noise of its own.
    """
    n_coils = kspace.shape[0]
    if noise.shape[0] != n_coils or noise.shape[1] < n_coils:
        raise ValueError(
            f"noise must have shape ({n_coils}, n), the coils of kspace and n >= {n_coils} samples, got {noise.shape}"
        )
    require_values("noise", jnp.abs(noise), "measure it again")
    covariance = matmul(noise, noise.conj().T) / (2 * noise.shape[1])
    factor = jnp.linalg.cholesky(covariance)
    # The share of each coil's noise that the coils before it do not explain; NaN where the factor failed.
    own = jnp.abs(jnp.diagonal(factor)) ** 2 / jnp.diagonal(covariance).real
    if is_concrete(own) and not bool((own > 100 * jnp.finfo(own.dtype).eps).all()):
        raise ValueError("noise must differ from coil to coil, but its covariance is singular; drop dead coils")
    matrix = jax.scipy.linalg.solve_triangular(factor, jnp.eye(n_coils, dtype=factor.dtype), lower=True)
    return Combined(matmul(matrix, kspace), matrix)


def _dominant(covariance, squarings: int = 6):
    """Projector onto the dominant eigenvector of positive matrices `(..., coils, coils)`, by repeated squaring.

    Unlike an eigenvector it has no free phase, and unlike `eigh` its derivative is finite for equal eigenvalues.
    """
    for _ in range(squarings):
        trace = jnp.trace(covariance, axis1=-2, axis2=-1).real[..., None, None]
        covariance = covariance / jnp.where(trace > 0, trace, 1.0)
        covariance = matmul(covariance, covariance)
    trace = jnp.trace(covariance, axis1=-2, axis2=-1).real[..., None, None]
    return covariance / jnp.where(trace > 0, trace, 1.0)


def _box(images, axis: int, width: int):
    """Sum over `width` neighbours along an axis, fewer at the edge."""
    n = images.shape[axis]
    margin = [(width // 2, width // 2) if i == axis else (0, 0) for i in range(images.ndim)]
    padded = jnp.pad(images, margin)
    return sum(jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(width))
