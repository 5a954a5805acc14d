r"""Closed-form models fitted voxel by voxel, with the derivatives of the solution.

    min over p, m0 of  sum_t |m0 f_t(p) - y_t|^2 + sum_k lambda_k |p_k - prior_k|^2,    m0 among the p_k

m0 is eliminated in closed form (variable projection: Golub and Pereyra, Inverse Problems 19:R1, 2003), what is left
is sought on a coarse grid and descended by Levenberg-Marquardt, all voxels side by side. Derivatives are those of
the minimum, by the implicit function theorem with the exact Hessian, so that they cost one small system per voxel
and do not depend on how it was found. This is the nonlinear block of learned reconstructions: Zimmermann et al.,
PINQI, IEEE TCI 2024, eq. 13. Units are those of the model: seconds.
"""

from collections.abc import Mapping
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core.checks import cast, require_values
from jaxmr.core.types import Array, Float, Shaped
from jaxmr.core.voxelwise import levenberg_marquardt
from jaxmr.mrf.container import parameter
from jaxmr.recon.arguments import maps_of, weights_of
from jaxmr.recon.closed_form import Problem, at_minimum, best_on_grid, expand, signal
from jaxmr.recon.relaxometry import SignalModel
from jaxmr.recon.separable import Objective, coordinates_of, inner, limits, values_at


@final
class Fit(eqx.Module):
    """Maps of shape `voxels`.

    parameters: the model's unknowns, also to be had as `found.t1`. m0: complex for complex data, real for real.
    residual: norm of what the model leaves of the data, in their unit; the noise of each real number is about
    residual / sqrt(numbers - unknowns). iterations: Levenberg-Marquardt steps. converged: whether the last of them
    changed nothing. Derivatives flow through parameters and m0.

    A voxel without signal has m0 0 and, unless a prior says more, keeps its start (the middle of the bounds). An
    unknown that the data leave undetermined, or that ends at a bound, has derivatives of 0.
    """

    parameters: dict[str, Float[Array, "*voxels"]]
    m0: Shaped[Array, "*voxels"]
    residual: Float[Array, "*voxels"]
    iterations: Shaped[Array, "*voxels"]
    converged: Shaped[Array, "*voxels"]

    def __getattr__(self, name: str) -> Any:
        return parameter(self, name)

    @property
    def images(self) -> dict[str, Any]:
        """All maps by name, as `io.nifti.write_maps` and `plot.maps.maps_figure` take them."""
        return {**self.parameters, "m0": self.m0, "residual": self.residual}


def fit(
    model: SignalModel,
    data,
    *,
    known: Mapping[str, Any] | None = None,
    prior: Mapping[str, Any] | None = None,
    regularisation: Any = 0.0,
    initial: Mapping[str, Any] | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 50,
) -> Fit:
    """Unknowns and m0 of every voxel by (regularised) least squares.

    data: `(*voxels, n_times)`, real or complex, empty voxels zero. known: maps that the model takes beside its
    unknowns (`b1`, `efficiency`), broadcast to voxels. prior: maps of some unknowns or m0, drawn to with the weight
    `regularisation`: lambda above, one for all of `prior` or a mapping by name, numbers or maps; in units of data^2
    over the parameter's unit squared. initial: maps of the unknowns to start from, instead of the grid. tolerance:
    largest last step of an unknown, relative for positive ones.

    Pure: `jit`, `vmap`, forward, reverse and higher derivatives in data, known, prior, regularisation and the
    arrays of `model` (times, flip angles), exact where the fit has converged. Raises `ValueError` for data that are
    not finite or do not fit the model, and for maps of other names or shapes.
    """
    data = jnp.asarray(data)
    data = data if jnp.issubdtype(data.dtype, jnp.inexact) else data.astype(float)
    require_values("data", data, "set voxels outside the mask to zero")
    voxels = data.shape[:-1]
    names = (*model.unknowns, "m0")
    known = maps_of("known", known, voxels, None)
    prior = maps_of("prior", prior, voxels, names)
    weights = weights_of(regularisation, prior, voxels)
    initial = maps_of("initial", initial, voxels, model.unknowns)
    if initial and set(initial) != set(model.unknowns):
        raise ValueError(f"initial must have all of {model.unknowns}, got {tuple(initial)}; leave it out for the grid")
    if not jnp.iscomplexobj(data) and jnp.iscomplexobj(prior.get("m0", 0.0)):
        raise ValueError("prior['m0'] is complex but data are real, and so is their m0; take its real part")
    _require_times(model, data, known)
    return _fitted(model, data, known, prior, weights, initial, float(tolerance), max_iterations)


@eqx.filter_jit
def _fitted(model, data, known, prior, weights, initial, tolerance, max_iterations):
    voxels, dtype = data.shape[:-1], data.real.dtype
    model, maps = cast((model, (known, prior, weights, initial)), dtype)
    known, prior, weights, initial = jax.tree.map(lambda leaf: leaf.reshape(-1), maps)
    flat = jnp.moveaxis(data.reshape(-1, data.shape[-1]), -1, 0)
    problem = Problem(model, known, Objective(model.bounds, flat, prior, weights))
    # The search is not differentiated: the minimum is.
    fixed = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, problem)
    start = coordinates_of(model.bounds, jax.lax.stop_gradient(initial)) if initial else best_on_grid(fixed)
    found = levenberg_marquardt(
        lambda point: expand(fixed, point),
        start,
        *limits(model.bounds, dtype),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    point, m0 = at_minimum(problem, found.point)
    left = fixed.objective.data - jax.lax.stop_gradient(m0)[None] * signal(fixed, found.point)
    residual = jnp.sqrt(inner(left, left).real)
    found = values_at(model.bounds, point), m0, residual, found.iterations, found.converged
    return Fit(*jax.tree.map(lambda leaf: leaf.reshape(voxels), found))


def _require_times(model, data, known):
    """One time per entry of the last axis, and no complex signal for real data."""
    scalar = jax.ShapeDtypeStruct((), data.real.dtype)
    unknowns = dict.fromkeys(model.unknowns, scalar)
    try:
        shape = eqx.filter_eval_shape(lambda maps: model.shape(**maps), {**unknowns, **dict.fromkeys(known, scalar)})
    except TypeError as error:
        raise ValueError(f"known has {tuple(known)}, which the model does not take beside {model.unknowns}") from error
    if shape.ndim != 1 or data.shape[-1:] != shape.shape:
        raise ValueError(
            f"data must end in the {shape.shape} times of the model, got shape {data.shape}; "
            "move the times to the last axis, as in jnp.moveaxis(images, 0, -1)"
        )
    if jnp.issubdtype(shape.dtype, jnp.complexfloating) and not jnp.iscomplexobj(data):
        raise ValueError("data are real but the model's signal is complex; give complex data")
