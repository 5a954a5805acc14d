r"""From matched maps to maximum-likelihood ones: voxelwise Gauss-Newton through the exact model.

    min over p, m0 of  |m0 f(p) - y|^2 + sum_k lambda_k |p_k - prior_k|^2,    f by `mr.simulate_with_jacobian`

A match is as fine as its grid (or as the quadratics between its atoms, `jaxmr.mrf.refinement`) and as right as the
model of its dictionary; from there a few steps lead to the minimum of the model given here. At the minimum the
Fisher information says how far noise scatters each parameter: Zhao et al., IEEE TMI 38:844 (2019). A host-level
driver, chunk by chunk. Seconds, hertz.
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence as Names
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from jaxmr.core.batch import host_chunks
from jaxmr.core.checks import cast, require_values
from jaxmr.core.information import smallest_variances
from jaxmr.core.products import matmul
from jaxmr.core.types import Complex, Float
from jaxmr.core.voxelwise import levenberg_marquardt
from jaxmr.models import EPG, Model, plan
from jaxmr.models.model import run_with_jacobian, with_defaults
from jaxmr.mrf.container import AnyArray, parameter
from jaxmr.mrf.matching import Match
from jaxmr.mrf.subspace import project, require_signals
from jaxmr.objects.tissue import Tissue
from jaxmr.recon.arguments import maps_of, weights_of
from jaxmr.recon.separable import Objective, best_m0, coordinates_of, expansion, inner, limits, values_at
from jaxmr.sequences.sequence import Sequence

BOUNDS = {
    "t1": (1e-3, 100.0),
    "t2": (1e-4, 100.0),
    "b1": (0.05, 5.0),
    "b0": (-1e4, 1e4),
    "t2_prime": (1e-4, 100.0),
}
"""Where a parameter is sought: far beyond tissue."""
MEMORY = 5e8
"""Bytes for the derivatives of the voxels of a chunk, and what is made of them."""
COPIES = 6
"""Of a chunk's signals and derivatives at a time."""
MARGIN = 1.5
"""Longest T2 that a plan foresees, over the longest of the start."""


@final
class Refined(eqx.Module):
    """Maps of shape `voxels`, NumPy arrays.

    parameters: the refined ones, also to be had as `maps.t1`. m0: complex proton density, in units of the signals.
    deviation: Cramér-Rao bound of the standard deviation of each parameter and of |m0|, by the noise of the data
    alone (a prior makes the scatter smaller, and biased); inf where the signal does not determine it. residual: norm
    of what the model leaves of a voxel's points. iterations: Gauss-Newton steps. converged: whether the last changed
    nothing. Empty voxels keep their start, with m0 0 and deviation inf.
    """

    parameters: dict[str, Float[AnyArray, "*voxels"]]
    m0: Complex[AnyArray, "*voxels"]
    deviation: dict[str, Float[AnyArray, "*voxels"]]
    residual: Float[AnyArray, "*voxels"]
    iterations: Int[AnyArray, "*voxels"]
    converged: Shaped[AnyArray, "*voxels"]

    def __getattr__(self, name: str) -> Any:
        return parameter(self, name)

    @property
    def images(self) -> dict[str, Any]:
        """All maps by name, as `io.nifti.write_maps` and `plot.maps.maps_figure` take them."""
        deviations = {f"{name}_deviation": value for name, value in self.deviation.items()}
        return {**self.parameters, "m0": self.m0, **deviations, "residual": self.residual}


def refine(
    sequence: Sequence,
    signals,
    start: Match | Tissue,
    *,
    wrt: Names[str] = ("t1", "t2"),
    model: Model | None = None,
    basis=None,
    prior: Mapping[str, Any] | None = None,
    regularisation: Any = 0.0,
    noise_std: Any = None,
    tolerance: float = 1e-5,
    max_iterations: int = 20,
    devices: list | None = None,
    progress: bool = False,
) -> Refined:
    """Parameters `wrt` and complex m0 of every voxel by (regularised) least squares through the exact model.

    signals: `(*voxels, n_echoes)`, or with `basis` (n_echoes, rank), orthonormal, also `(*voxels, rank)`; empty
    voxels zero. start: maps of shape `voxels`, of a `Match` or a `Tissue`; what is not in `wrt` is kept (a measured
    b1). model: by default the exact `EPG()`. prior, regularisation, tolerance: as in `fit`. noise_std: of each of the
    real and the imaginary part of a point, a number or a map; by default estimated in each voxel from its residual,
    which is then good to 1 / sqrt(2 x degrees of freedom). devices: share the voxels between them.

    Raises `ValueError` for signals that are not finite or do not fit sequence, basis and start.
    """
    names, model = tuple(wrt), EPG() if model is None else model
    points, basis = _points(sequence, np.asarray(signals), basis)
    voxels = points.shape[:-1]
    tissue = _tissue(start, names, voxels, np.finfo(points.dtype).dtype)
    bounds = tuple((name, *BOUNDS[name]) for name in names)
    prior = maps_of("prior", prior, voxels, (*names, "m0"))
    weights = weights_of(regularisation, prior, voxels)
    n_numbers = 2 * points.shape[-1]
    if noise_std is None and n_numbers <= len(names) + 2:
        raise ValueError(f"{n_numbers} numbers per voxel leave nothing to estimate the noise from; give noise_std")
    given = None if noise_std is None else _noise_map(noise_std, voxels)

    tissue, prior, weights = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1), (tissue, prior, weights))
    points = points.reshape(-1, points.shape[-1])
    live = np.flatnonzero(np.any(points != 0, axis=-1))
    found: Any = _unrefined(tissue, names, points.dtype)
    if live.size:
        seen = jax.tree.map(lambda leaf: leaf[live], tissue)
        model = plan(sequence, dataclasses.replace(seen, t2=MARGIN * seen.t2), model)
        rows = _rows(live.size, sequence, len(names), points.dtype)
        key = None if devices is None else tuple(devices)
        for part in host_chunks(live.size, rows, "refining", progress):
            # The last chunk is filled up, so that one compilation serves them all.
            chosen = live[np.minimum(np.arange(part.start, part.start + rows), live.size - 1)]
            chunk = jax.tree.map(lambda leaf, c=chosen: leaf[c], (points, tissue, prior, weights))
            results = _refined(sequence, chunk, model, basis, bounds, tolerance, max_iterations, key)
            n = part.stop - part.start
            for whole, new in zip(jax.tree.leaves(found), jax.tree.leaves(results), strict=True):
                whole[chosen[:n]] = np.asarray(new)[:n]
    noise = found.residual / np.sqrt(max(n_numbers - len(names) - 2, 1)) if given is None else given
    for deviation in found.deviation.values():
        finite = np.isfinite(deviation)
        deviation[finite] *= noise[finite]
    return jax.tree.map(lambda leaf: leaf.reshape(voxels), found)


@eqx.filter_jit
def _refined(sequence, chunk, model, basis, bounds, tolerance, max_iterations, devices) -> Refined:
    """A chunk of voxels: signals, tissue, prior and weights; deviations for noise of 1."""
    points, tissue, prior, weights = chunk
    dtype = tissue.t1.dtype
    objective = Objective(bounds, points.T, *cast((prior, weights), dtype))
    names = tuple(name for name, _, _ in bounds)

    def at(point):
        """Signal of m0 = 1 and its derivatives by coordinates, and by parameters."""
        values = values_at(bounds, point)
        moved = dataclasses.replace(tissue, **values)
        signal, jacobian = run_with_jacobian(sequence, moved, model, names, devices)
        if basis is not None:
            columns = jnp.asarray(basis).conj().astype(signal.dtype)
            signal = matmul(signal, columns)
            jacobian = matmul(jacobian, columns)
        rows = [jacobian[:, k].T for k in range(len(names))]
        slopes = [
            row * values[name][None] if low > 0 else row for row, (name, low, _) in zip(rows, bounds, strict=True)
        ]
        return signal.T, slopes, rows

    def expand(point):
        shape, slopes, _ = at(point)
        return expansion(objective, point, shape, slopes)

    start = coordinates_of(bounds, vars(tissue))
    found = levenberg_marquardt(
        expand, start, *limits(bounds, dtype), tolerance=tolerance, max_iterations=max_iterations
    )
    shape, _, rows = at(found.point)
    m0 = best_m0(objective, shape)
    left = m0[None] * shape - objective.data
    phase = m0 / jnp.where(m0 == 0, 1, jnp.abs(m0))
    columns = [m0[None] * row for row in rows] + [phase[None] * shape, 1j * m0[None] * shape]
    information = jnp.stack([jnp.stack([inner(a, b).real for b in columns], axis=-1) for a in columns], axis=-1)
    deviation = jnp.sqrt(smallest_variances(information)).T
    return Refined(
        values_at(bounds, found.point),
        m0,
        {name: deviation[k] for k, name in enumerate((*names, "m0"))},
        jnp.sqrt(inner(left, left).real),
        found.iterations,
        found.converged,
    )


def _points(sequence: Sequence, signals: np.ndarray, basis: Any) -> tuple[Any, Any]:
    """Signals as the model's points, checked, projected if they are raw, and the basis."""
    n = signals.shape[-1] if signals.ndim else 0
    lengths = {"n_echoes": sequence.n_echoes}
    if basis is not None:
        basis = np.asarray(basis)
        if basis.ndim != 2 or basis.shape[0] != sequence.n_echoes:
            raise ValueError(f"basis must have shape ({sequence.n_echoes}, rank), got {basis.shape}")
        if not np.allclose(basis.conj().T @ basis, np.eye(basis.shape[1]), atol=1e-3):
            raise ValueError(
                "basis must have orthonormal columns, or noise would not stay white; take np.linalg.qr(basis)[0]"
            )
        lengths["rank"] = basis.shape[1]
    require_signals(signals, lengths)
    signals = signals.astype(np.result_type(signals, jnp.asarray(signals[:0]).dtype, np.complex64))
    return (signals, basis) if basis is None or n != sequence.n_echoes else (project(signals, basis), basis)


def _tissue(start, names, voxels, dtype) -> Tissue:
    """Every map that the model needs, m0 apart, of the shape of the signals."""
    tissue = start if isinstance(start, Tissue) else Tissue(**start.parameters)
    if tissue.shape not in ((), voxels):
        raise ValueError(f"start must have maps of shape {voxels}, one value per voxel of signals, got {tissue.shape}")
    for name in names:
        if name not in BOUNDS:
            raise ValueError(f"wrt names {name!r}, which cannot be refined; choose from {', '.join(BOUNDS)}")
    tissue = dataclasses.replace(with_defaults(tissue, names), m0=None)
    return jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf, dtype), voxels), tissue)


def _unrefined(tissue, names, dtype) -> Refined:
    """What stays in voxels without signal."""
    n = tissue.shape[0]
    real = np.finfo(dtype).dtype
    return Refined(
        {name: np.array(getattr(tissue, name), tissue.t1.dtype) for name in names},
        np.zeros(n, dtype),
        {name: np.full(n, np.inf, real) for name in (*names, "m0")},
        np.zeros(n, real),
        np.zeros(n, np.int32),
        np.ones(n, bool),
    )


def _rows(n, sequence, p, dtype) -> int:
    """Voxels of a chunk: a power of two within the memory, or all of them."""
    fitting = max(MEMORY / (COPIES * (p + 1) * sequence.n_echoes * dtype.itemsize), 1)
    return min(2 ** int(np.log2(fitting)), n)


def _noise_map(noise_std, voxels) -> Float[np.ndarray, "n"]:
    require_values("noise_std", noise_std, "it is the standard deviation of each real number", minimum=0)
    if np.shape(noise_std) not in ((), voxels):
        raise ValueError(f"noise_std must be a number or a map of shape {voxels}, got {np.shape(noise_std)}")
    return np.broadcast_to(np.asarray(noise_std, float), voxels).reshape(-1)
