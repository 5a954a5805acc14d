"""How voxels become isochromats: where in the voxel they sit, and at what frequency each precesses.

Every voxel holds the same pattern of points. Arrays are (isochromats of a voxel, voxels), with length 1 where all
along an axis share a value, so that what belongs to the voxel is computed once per voxel. Units: m, rad/s, 1/s.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmr.core.types import Array, Complex, Float, Shaped
from jaxmr.models import walking
from jaxmr.models.walking import Walk
from jaxmr.objects.phantom import Phantom
from jaxmr.physics.ensembles import Factor, real_and_imaginary

SPREADS = ("regular", "sobol")


class Voxels(NamedTuple):
    """What a voxel is, voxels on the first axis; None is compiled out.

    weight: m0 and coils, (n, coils). seeds: of the walks, where it diffuses.
    """

    position: Float[Array, "n 3"]
    r1: Float[Array, "n"]
    r2: Float[Array, "n"]
    b1: Float[Array, "n"] | None
    b0: Float[Array, "n"] | None
    t2_prime: Float[Array, "n"] | None
    weight: Complex[Array, "n coils"]
    diffusivity: Float[Array, "n"] | None = None
    seeds: Shaped[Array, "n 2"] | None = None


class Spins(NamedTuple):
    """The isochromats of some voxels. offset: from the voxel's centre. omega, spread: off-resonance, rad/s.

    walk: how they diffuse, None if they do not.
    """

    centre: Float[Array, "3 1 voxels"]
    offset: Float[Array, "3 spins 1"] | None
    r1: Float[Array, "1 voxels"]
    r2: Float[Array, "1 voxels"]
    b1: Float[Array, "1 voxels"] | None
    omega: Float[Array, "1 voxels"] | None
    spread: Float[Array, "spins voxels"] | None
    weight: Factor
    walk: Walk | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Isochromats of a voxel, voxels."""
        per_voxel = [part.shape[-2] for part in (self.offset, self.spread) if part is not None]
        return max([1, *per_voxel]), self.centre.shape[-1]


def points(per_voxel: int | tuple[int, int, int], spread: str) -> np.ndarray:
    """Where isochromats sit in the unit voxel, and the quantile of each one's frequency: `(n, 4)`, inside (0, 1).

    "regular": a grid of (nx, ny, nz) midpoints, or, of a number, a lattice whose points project onto n midpoints
    along every axis. "sobol": a Sobol sequence. The frequencies are dealt to the points so that any few neighbours
    hold all kinds.
    """
    if isinstance(per_voxel, tuple):
        n = math.prod(per_voxel)
        axes = [(np.arange(count) + 0.5) / count for count in per_voxel]
        grid = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=-1)
        quantile = (np.arange(n) * _coprime(n, 0.618) % n + 0.5) / n
        return np.column_stack([grid, quantile])
    n = per_voxel
    if spread == "sobol":
        from scipy.stats import qmc

        return qmc.Sobol(4, scramble=False).random(n) + 0.5 / n
    # Powers of 1/psi, psi^4 = psi + 1: the golden ratio of three dimensions, which keeps the points apart.
    generator = [1, *(_coprime(n, 1.220744084605760**-power) for power in (1, 2, 3))]
    return (np.outer(np.arange(n), generator) % n + 0.5) / n


def _coprime(n: int, fraction: float) -> int:
    """The number nearest to `fraction` of n that shares no factor with n: its multiples visit every residue."""
    nearest = sorted(range(1, n + 1), key=lambda k: abs(k - fraction * n))
    return next(k for k in nearest if math.gcd(k, n) == 1)


def pattern(phantom: Phantom, per_voxel: int | tuple[int, int, int], spread: str) -> np.ndarray:
    """The `points` that a voxel of this phantom needs: one where all would be alike."""
    count = per_voxel if isinstance(per_voxel, int) else math.prod(per_voxel)
    if phantom.tissue.t2_prime is not None:
        if count == 1:
            raise ValueError(
                "t2_prime spreads the frequencies of a voxel's isochromats and needs many of them, got per_voxel=1; "
                "give per_voxel=1000, or leave t2_prime out"
            )
    elif phantom.voxel_shape == "point" and phantom.tissue.diffusivity is None:
        return np.full((1, 4), 0.5)
    return points(per_voxel, spread)


def voxels_of(phantom: Phantom, n_spins: int, seed: Any, first_voxel: Any) -> Voxels:
    """The voxels of a phantom; the weight of each is shared by its isochromats."""
    tissue = phantom.tissue
    ones = jnp.ones_like(tissue.t1)
    coils = ones[:, None] if phantom.coils is None else phantom.coils.T
    m0 = ones if tissue.m0 is None else tissue.m0
    weight = (m0[:, None] * coils / n_spins).astype(jnp.result_type(ones.dtype, jnp.complex64))
    voxels = Voxels(phantom.position, 1 / tissue.t1, 1 / tissue.t2, tissue.b1, tissue.b0, tissue.t2_prime, weight)
    if tissue.diffusivity is None:
        return voxels
    return voxels._replace(diffusivity=tissue.diffusivity, seeds=walking.seeds(seed, first_voxel, len(ones)))


def populate(voxels: Voxels, where: np.ndarray, voxel_size: Float[Array, "3"] | None) -> Spins:
    """The isochromats at the points `where` of `pattern`; without a voxel size all sit at the centre.

    T2' is a Lorentzian of the frequencies, the quantiles of `where` taken at midpoints: a FID decays with
    exp(-t/T2') up to an error of about n^(-3/4).
    """
    dtype = voxels.r1.dtype
    row = lambda leaf: None if leaf is None else leaf[None]  # noqa: E731
    offset = spread = walk = None
    if voxel_size is not None and len(where) > 1:
        offset = (jnp.asarray(where[:, :3].T - 0.5, dtype) * voxel_size[:, None])[:, :, None]
    if voxels.diffusivity is not None:
        assert voxels.seeds is not None
        walk = walking.walk_of(voxels.diffusivity, voxels.seeds)
        # Spins that begin at one place part on their walks.
        offset = jnp.zeros((3, len(where), 1), dtype) if offset is None else offset
    if voxels.t2_prime is not None:
        quantile = jnp.asarray(np.tan(np.pi * (where[:, 3] - 0.5)), dtype)
        spread = quantile[:, None] / voxels.t2_prime[None]
    return Spins(
        centre=voxels.position.T[:, None],
        offset=offset,
        r1=voxels.r1[None],
        r2=voxels.r2[None],
        b1=row(voxels.b1),
        omega=None if voxels.b0 is None else 2 * jnp.pi * voxels.b0[None],
        spread=spread,
        weight=real_and_imaginary(voxels.weight.T[:, None]),
        walk=walk,
    )
