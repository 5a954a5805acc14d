r"""Fingerprinting images in the subspace of a dictionary: least squares, and least squares held to the dictionary.

A series of images, one per pulse, is R coefficient images x, seen by E = (NUFFT of each pulse) (basis) (coils) in the
plain-sum convention of `jaxmr.encoding`. `subspace_reconstruction` minimises |E x - s|^2 over all x; `lowrank_admm`
over those that are a multiple of one atom in every voxel, the cone C of the dictionary,

    min 1/2 |E z - s|^2  over z in C,   by   L = 1/2 |E x - s|^2 + mu lambda / 2 (|x - z + u|^2 - |u|^2)

with the scaled dual u and lambda the largest eigenvalue of E^H E, so that mu does not depend on how much was measured.
Samples are `(coils, T, *samples)`, k in rad/m, coefficient images `(R, *matrix)`.
Reference: Assländer et al., "Low rank alternating direction method of multipliers reconstruction for MR
fingerprinting", MRM 79:83 (2018). There x is penalised by its part off the matched atom, (1 - P)(x + u), and here by
its distance from the matched multiple; on the brain of `benchmarks/figure7.py` both end at the same maps, and this one
at a smaller objective of z for small mu.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxmr.core.batch import progress_bar
from jaxmr.core.checks import require_values
from jaxmr.core.solvers import Solution, conjugate_gradient, largest_eigenvalue
from jaxmr.core.types import Array, Complex, Float, RealScalar
from jaxmr.encoding import SubspaceNufft, coil_normal
from jaxmr.encoding.trajectory import require_units
from jaxmr.mrf import Dictionary, Match, Store, match
from jaxmr.recon.sense import adjoint_reconstruction, cg_sense

POWER_STEPS = 20
"""Of the power iteration for lambda; the start, E^H s, lies mostly along its eigenvector."""


class History(NamedTuple):
    """One number per outer iteration, NumPy.

    objective: |E z - s|^2 / |s|^2 of the images that are multiples of atoms. distance: |x - z| / |x|, the primal
    residual. change: |z - z before| / |z|, the dual residual. cg_residual: what the inner iterations left.
    """

    objective: Float[np.ndarray, "n_iterations"]
    distance: Float[np.ndarray, "n_iterations"]
    change: Float[np.ndarray, "n_iterations"]
    cg_residual: Float[np.ndarray, "n_iterations"]


class LowRank(eqx.Module):
    """maps: parameters, complex m0 and correlation per voxel. coefficients: x of the last iteration, `(R, *matrix)`.

    The images of the maps, z, are `maps.m0` times `dictionary.atoms[maps.index]`.
    """

    maps: Match
    coefficients: Complex[np.ndarray, "R *matrix"]
    history: History


def subspace_reconstruction(
    samples,
    operator: SubspaceNufft,
    coils=None,
    *,
    weights=None,
    regularisation: RealScalar = 0.0,
    initial=None,
    tolerance: float = 1e-6,
    max_iterations: int = 50,
) -> Solution:
    """Coefficient images `(R, *matrix)` that explain the samples best, by conjugate gradients: the result's `value`.

    samples: (coils, T, *samples), coils = 1 without coil maps `(coils, *matrix)`. All else, derivatives included, as
    for `cg_sense`. Match them as `mr.mrf.match(dictionary, jnp.moveaxis(value, 0, -1))`. Raises `ValueError` for
    samples that are not finite or do not fit, and for k that is not in rad/m.
    """
    samples = _checked(samples, operator, coils)
    if coils is None:
        coils = jnp.ones((1, *operator.matrix), samples.real.dtype)
    return cg_sense(
        samples,
        operator,
        coils,
        weights=weights,
        regularisation=regularisation,
        initial=initial,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def lowrank_admm(
    samples,
    operator: SubspaceNufft,
    dictionary: Dictionary | Store,
    coils=None,
    *,
    mu: float = 0.015,
    n_iterations: int = 20,
    n_cg: int = 10,
    progress: bool = False,
) -> LowRank:
    """Maps and coefficient images by the alternating direction method of multipliers, from zero.

    samples: (coils, T, *samples), coils = 1 without coil maps `(coils, *matrix)`. operator: made with the basis of the
    dictionary, `SubspaceNufft(k, dictionary.basis, voxel_size, matrix)`. mu: penalty relative to the largest eigenvalue
    of E^H E. Each of `n_iterations` takes `n_cg` steps of conjugate gradients from the last x (R x R Toeplitz kernels),
    matches x + u, and moves u; the first has no penalty, as there is no match yet. progress: a bar with the objective.

    A host-level driver (matching runs in NumPy). m0 is in units of the samples: that of a phantom scanned by
    `mr.mrf.acquire` comes out as it went in. Raises `ValueError` for samples that are not finite or do not fit, a k
    that is not in rad/m, a dictionary that is not compressed or has another basis than the operator.
    """
    samples = _checked(samples, operator, coils)
    require_values("mu", mu, "0.015 is common", positive=True)
    if min(n_iterations, n_cg) < 1:
        raise ValueError(f"n_iterations and n_cg must be at least 1, got {n_iterations} and {n_cg}")
    dictionary = dictionary.to_dictionary() if isinstance(dictionary, Store) else dictionary
    _require_same_basis(operator, dictionary)
    energy = np.sum(np.abs(np.asarray(samples, complex)) ** 2)
    if energy == 0:
        raise ValueError("all samples are 0; check how they were read")
    atoms = np.asarray(dictionary.atoms)
    gram = eqx.filter_jit(operator.gram)()
    b = _adjoint(samples, operator, coils)
    penalty = mu * _largest(gram, coils, b)

    x = z = u = jnp.zeros_like(b)
    rows = []
    maps = None
    with progress_bar(n_iterations, "LR-ADMM", progress) as bar:
        for iteration in range(n_iterations):
            pull = jnp.asarray(penalty if iteration else 0.0, b.real.dtype)
            x, left = _least_squares(gram, coils, b, x, z - u, pull, n_cg)
            maps = match(dictionary, np.moveaxis(np.asarray(x + u), 0, -1))
            before, z = z, _images(maps, atoms).astype(b.dtype)
            u = u + x - z
            misfit = _misfits(operator, z, samples, coils) / energy
            rows.append((misfit, _ratio(x - z, x), _ratio(z - before, z), float(left)))
            bar.set_postfix(objective=f"{rows[-1][0]:.3g}", distance=f"{rows[-1][1]:.2g}", refresh=False)
            bar.update()
    assert maps is not None
    return LowRank(maps, np.asarray(x), History(*np.array(rows).T))


@eqx.filter_jit
def _least_squares(gram, coils, b, start, target, pull, n_cg):
    """argmin of 1/2 |E x - s|^2 + pull / 2 |x - target|^2, n_cg steps from `start`, and the residual left."""

    def normal(x):
        return (_normal(gram, coils, x) + pull * x).astype(x.dtype)

    found = conjugate_gradient(normal, b + pull * target, initial=start, tolerance=0.0, max_iterations=n_cg)
    return found.value, found.residual


def _normal(gram, coils, x):
    return gram.normal(x) if coils is None else coil_normal(gram, coils, x)


@eqx.filter_jit
def _adjoint(samples, operator, coils):
    found = adjoint_reconstruction(samples, operator, coils)
    return found[0] if coils is None else found


@eqx.filter_jit
def _largest(gram, coils, start):
    return largest_eigenvalue(lambda x: _normal(gram, coils, x), start, POWER_STEPS)


@eqx.filter_jit
def _misfit(operator, images, samples):
    return jnp.sum(jnp.abs(operator.forward(images) - samples) ** 2)


def _misfits(operator, images, samples, coils) -> float:
    """|E z - s|^2, coil by coil: all at once would take R times the memory of the samples."""
    if coils is None:
        return float(_misfit(operator, images, samples[0]))
    pairs = zip(jnp.asarray(coils), samples, strict=True)
    return sum(float(_misfit(operator, coil[None] * images, received)) for coil, received in pairs)


def _images(maps: Match, atoms) -> Array:
    """The multiples of atoms that were matched, `(R, *matrix)`."""
    return jnp.asarray(np.moveaxis(maps.m0[..., None] * atoms[maps.index], -1, 0))


def _ratio(a, b) -> float:
    size = float(jnp.linalg.norm(b.ravel()))
    return float(jnp.linalg.norm(a.ravel())) / size if size > 0 else 0.0


def _checked(samples, operator, coils):
    """The samples as an array, after all that can be said of them, the trajectory and the coils."""
    samples = jnp.asarray(samples)
    n_coils = 1 if coils is None else len(coils)
    expected = (n_coils, *operator.k.shape[:-1])
    if samples.shape != expected:
        sizes = ", ".join(map(str, expected))
        raise ValueError(
            f"samples must have shape (coils, pulses, samples) = ({sizes}) to go with k and the coils, got "
            f"{samples.shape}; reshape them so that each pulse has a row, and give one coil map per coil"
        )
    if coils is not None and np.shape(coils)[1:] != operator.matrix:
        raise ValueError(
            f"coils must have shape (coils, {', '.join(map(str, operator.matrix))}), got {np.shape(coils)}"
        )
    require_values("samples", samples, "look for saturated or missing readouts and leave them out, k as well")
    require_units(operator.k, operator.voxel_size, operator.matrix)
    return samples


def _require_same_basis(operator, dictionary) -> None:
    if dictionary.basis is None:
        raise ValueError("dictionary must be compressed: mr.mrf.compress(dictionary, rank=12), or rank=12 when made")
    basis, own = np.asarray(dictionary.basis), np.asarray(operator.basis)
    if basis.shape != own.shape or not np.allclose(basis, own, atol=1e-5):
        raise ValueError(
            f"the operator has a basis of shape {own.shape}, which is not that of the dictionary {basis.shape}; make "
            "it as SubspaceNufft(k, dictionary.basis, voxel_size, matrix)"
        )
