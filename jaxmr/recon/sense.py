r"""Images from the samples of several coils.

    s_c = A (c_c m),    m = argmin sum_c |W^(1/2) (A c_c m - s_c)|^2 + lambda |m - m_prior|^2

A is any `Encoding` (Cartesian, non-uniform, in a subspace), in its plain-sum convention: A^H A of a full grid of N
voxels is N times the identity, and lambda is measured against that. Samples are `(coils, *samples)`, coil maps
`(coils, *matrix)`. Reference: Pruessmann et al., MRM 46:638 (2001).
"""

import jax.numpy as jnp

from jaxmr.core.checks import as_float, is_concrete, require_values
from jaxmr.core.solvers import Solution, conjugate_gradient
from jaxmr.core.types import Array, Complex, Float, RealScalar
from jaxmr.encoding import Encoding, coil_normal
from jaxmr.encoding.toeplitz import over_batch


def root_sum_of_squares(images, axis: int = 0) -> Float[Array, "*shape"]:
    """Magnitude of coil images combined without maps; its derivative is 0 where all of them are."""
    images = jnp.asarray(images)
    power = jnp.sum(images.real**2 + images.imag**2, axis=axis)
    return jnp.where(power > 0, jnp.sqrt(jnp.where(power > 0, power, 1)), 0)


def adjoint_reconstruction(samples, operator: Encoding, coils=None, weights=None) -> Complex[Array, "*shape"]:
    """E^H W s: sum over coils of conj(c) A^H (w s_c), in one pass and without a grid to fill.

    samples: (coils, *samples). weights: real, `(*samples)`, of the density (`pipe_menon_weights`, `radial_weights`,
    1 / N for a Cartesian grid), by default 1. Without coil maps the image of each coil, `(coils, *matrix)`.
    """
    samples = jnp.asarray(samples)
    if weights is not None:
        samples = samples * as_float("weights", weights)[None]
    images = operator.adjoint(samples)
    if coils is None:
        return images
    coils = _require_coils(coils, samples, operator)
    return jnp.sum(over_batch(coils, images.ndim - 1).conj() * images, axis=0)


def cg_sense(
    samples,
    operator: Encoding,
    coils,
    *,
    weights=None,
    regularisation: RealScalar = 0.0,
    prior=None,
    initial=None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> Solution:
    """The image that explains the samples of all coils best, by conjugate gradients on the normal equations.

    samples: (coils, *samples); coils: (coils, *matrix); weights: real, `(*samples)`, by default 1; regularisation:
    lambda above, at least 0; prior: m_prior, shaped as the image, by default 0. A^H W A is applied as one FFT
    convolution. The result's `value` is the image; it has derivatives in samples, coils, weights, regularisation,
    prior and the operator (k), by the implicit function theorem, exact once converged. Raises `ValueError` when the
    shapes of coils, samples, prior and operator disagree, and for a prior without regularisation.
    """
    coils = _require_coils(coils, jnp.asarray(samples), operator)
    regularisation = as_float("regularisation", regularisation)
    require_values("regularisation", regularisation, "the problem is unbounded below zero", minimum=0)
    gram = operator.gram(weights)
    b = adjoint_reconstruction(samples, operator, coils, weights)
    if prior is not None:
        b = b + regularisation * _require_prior(prior, regularisation, b)

    def normal(image):
        return (coil_normal(gram, coils, image) + regularisation * image).astype(image.dtype)

    return conjugate_gradient(normal, b, initial=initial, tolerance=tolerance, max_iterations=max_iterations)


def _require_coils(coils, samples, operator):
    coils = jnp.asarray(coils)
    if coils.shape[1:] != operator.matrix or samples.shape[:1] != coils.shape[:1]:
        raise ValueError(
            f"coils must have shape ({samples.shape[0]}, {', '.join(map(str, operator.matrix))}), one map per "
            f"coil of samples, got {coils.shape}"
        )
    return coils


def _require_prior(prior, regularisation, image):
    prior = jnp.asarray(prior)
    if prior.shape != image.shape:
        raise ValueError(f"prior must have the shape of the image, {image.shape}, got {prior.shape}")
    require_values("prior", prior, "set pixels outside the mask to zero")
    if is_concrete(regularisation) and regularisation == 0:
        raise ValueError("prior has no effect with regularisation=0; give its weight, or leave the prior out")
    return prior.astype(image.dtype)
