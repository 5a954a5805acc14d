r"""Images that explain the samples and look as expected, by accelerated proximal gradients.

    min_x  sum_c |W^(1/2) (A c_c x - s_c)|^2 / 2 + lambda g(x)

FISTA with restarts: A^H W A is applied once in a step, as one convolution, whatever the number of samples.
References: Beck and Teboulle, SIAM J. Imaging Sci. 2:183 (2009); O'Donoghue and Candès, Found. Comput. Math. 15:715
(2015).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxmr.core.batch import progress_bar
from jaxmr.core.checks import as_float, require_values
from jaxmr.core.products import real_dot
from jaxmr.core.solvers import largest_eigenvalue
from jaxmr.core.types import Array, Complex, RealScalar
from jaxmr.encoding import Encoding, coil_normal
from jaxmr.recon.priors import Prior
from jaxmr.recon.sense import adjoint_reconstruction

_POWER = 30
"""Steps of the power iteration for the largest eigenvalue."""
_MARGIN = 1.02
"""By how much the step is shorter than that eigenvalue asks for: power iterations end a little below it."""


class Regularised(NamedTuple):
    """value: the image. objective: its course, without the constant |s|^2 / 2, one per step, (n,).

    converged: whether the last step changed the image by less than the tolerance.
    """

    value: Complex[Array, "*shape"]
    objective: np.ndarray
    converged: bool


class _Problem(NamedTuple):
    gram: Any
    coils: Any
    b: Any  # E^H W s
    prior: Prior
    weight: Any  # lambda
    largest: Any  # eigenvalue of E^H W E


class _State(NamedTuple):
    x: Any
    image: Any  # A^H W A x
    y: Any  # where the gradient is taken
    at_y: Any  # A^H W A y
    momentum: Any


def regularised_reconstruction(
    samples,
    operator: Encoding,
    coils,
    prior: Prior,
    *,
    strength: RealScalar,
    weights=None,
    initial=None,
    iterations: int = 100,
    tolerance: float = 1e-4,
    progress: bool = False,
) -> Regularised:
    """The image, or coefficient images, with the least sum of misfit and penalty.

    samples: (coils, *samples); coils: (coils, *matrix); weights: real, `(*samples)`, by default 1. strength: lambda as
    a fraction of the largest magnitude of E^H W s, so that it means the same for data of any scale; at least 0.
    initial: where to begin, by default E^H W s over the largest eigenvalue of E^H W E. Ends when a step changes the
    image by less than `tolerance` of itself. The grid of the prior moves from step to step, so that the objective
    need not fall in every one. Concrete values only. Raises `ValueError` as `cg_sense` does.
    """
    strength = as_float("strength", strength)
    require_values("strength", strength, "the penalty is a share of the data's size", minimum=0)
    samples, coils = jnp.asarray(samples), jnp.asarray(coils)
    b = adjoint_reconstruction(samples, operator, coils, weights)
    gram = operator.gram(weights)
    largest = _largest(gram, coils, b) * _MARGIN
    x = b / largest if initial is None else jnp.asarray(initial).astype(b.dtype)
    if x.shape != b.shape:
        raise ValueError(f"initial must have the shape of the image, {b.shape}, got {x.shape}")
    image = _normal(gram, coils, x)
    state, objective, converged = _State(x, image, x, image, jnp.ones((), b.real.dtype)), [], False
    problem = _Problem(gram, coils, b, prior, strength * jnp.abs(b).max(), largest)
    shifts = np.random.default_rng(0).integers(0, prior.period, (iterations, len(operator.matrix)))
    with progress_bar(iterations, "reconstruct", progress) as bar:
        for i in range(iterations):
            state, value, change = _step(problem, state, jnp.asarray(shifts[i]))
            objective.append(float(value))
            bar.update()
            bar.set_postfix(objective=f"{objective[-1]:.4g}")
            if converged := bool(change <= tolerance):
                break
    return Regularised(state.x, np.array(objective), converged)


def _normal(gram, coils, x):
    return coil_normal(gram, coils, x).astype(x.dtype)


@eqx.filter_jit
def _step(problem: _Problem, state: _State, shift):
    """The next state, the objective there, and how far the image moved, relative to its size."""
    gram, coils, b, prior, weight, largest = problem
    x = prior.proximal(state.y - (state.at_y - b) / largest, weight / largest, shift)
    image = _normal(gram, coils, x)
    ahead = x - state.x
    # A restart where the momentum points uphill.
    uphill = real_dot(state.y - x, ahead) > 0
    before = jnp.where(uphill, 1, state.momentum)
    momentum = (1 + jnp.sqrt(1 + 4 * before**2)) / 2
    beta = jnp.where(uphill, 0, (before - 1) / momentum)
    value = real_dot(x, image / 2 - b) + weight * prior.penalty(x, len(shift))
    change = jnp.linalg.norm(ahead) / jnp.maximum(jnp.linalg.norm(x), jnp.finfo(x.dtype).tiny)
    return _State(x, image, x + beta * ahead, image + beta * (image - state.image), momentum), value, change


@eqx.filter_jit
def _largest(gram, coils, start):
    found = largest_eigenvalue(lambda x: _normal(gram, coils, x), start, _POWER)
    return jnp.where(found > 0, found, 1)
