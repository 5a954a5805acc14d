"""Tissue: what a voxel is made of, apart from how it is measured.

Times in seconds, off-resonance in hertz, diffusivity in m2/s, `b1` relative to nominal.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core.checks import as_float, require_values
from jaxmr.core.types import TissueArray


class Tissue(eqx.Module):
    """Relaxation times and fields of a batch of voxels.

    All leaves are broadcast to one batch shape. What is left out stays `None` and is compiled
    out: `m0` 1, `b1` 1, `b0` 0, no T2' decay, no diffusion.

    t1, t2: relaxation times, s. m0: equilibrium magnetisation, real or complex. b1: transmit field over
    nominal. b0: off-resonance, Hz. t2_prime: reversible dephasing time, s. diffusivity: m2/s.
    """

    t1: TissueArray
    t2: TissueArray
    m0: Any = None
    b1: TissueArray | None = None
    b0: TissueArray | None = None
    t2_prime: TissueArray | None = None
    diffusivity: TissueArray | None = None

    def __init__(self, t1, t2, m0=None, b1=None, b0=None, t2_prime=None, diffusivity=None):
        given = {"t1": t1, "t2": t2, "b1": b1, "b0": b0, "t2_prime": t2_prime, "diffusivity": diffusivity}
        leaves = {name: as_float(name, value) for name, value in given.items() if value is not None}
        for name in (name for name in ("t1", "t2", "t2_prime") if name in leaves):
            require_values(name, leaves[name], "times are in seconds; mask empty voxels out", positive=True)
        if "diffusivity" in leaves:
            require_values("diffusivity", leaves["diffusivity"], "it is in m2/s, water 2.3e-9", minimum=0)
        for name in (name for name in ("b1", "b0") if name in leaves):
            require_values(name, leaves[name], "mask empty voxels out")
        if m0 is not None:
            leaves["m0"] = jnp.asarray(m0)
            require_values("m0", leaves["m0"], "mask empty voxels out")
        try:
            shape = jnp.broadcast_shapes(*(leaf.shape for leaf in leaves.values()))
        except ValueError as error:
            shapes = ", ".join(f"{name} {leaf.shape}" for name, leaf in leaves.items())
            raise ValueError(f"the leaves of a Tissue must broadcast to one batch shape, got {shapes}") from error
        for name in ("t1", "t2", "m0", "b1", "b0", "t2_prime", "diffusivity"):
            leaf = leaves.get(name)
            setattr(self, name, None if leaf is None else jnp.broadcast_to(leaf, shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch shape, common to all leaves."""
        return self.t1.shape

    def __getitem__(self, index) -> "Tissue":
        """The tissue of some voxels: every leaf is indexed alike."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def reshape(self, *shape: int) -> "Tissue":
        """Every leaf reshaped to another batch shape."""
        return jax.tree.map(lambda leaf: leaf.reshape(*shape), self)


def grid(**axes) -> Tissue:
    """The outer product of one-dimensional axes as a `Tissue`, in the order the axes are given.

    `grid(t1=(3,), t2=(4,), b1=(2,))` has batch shape `(3, 4, 2)`.
    """
    columns = {name: as_float(name, values) for name, values in axes.items()}
    for name, values in columns.items():
        if values.ndim != 1:
            raise ValueError(f"axis {name} of a grid must be one-dimensional, got shape {values.shape}")
    return Tissue(**dict(zip(columns, jnp.meshgrid(*columns.values(), indexing="ij"), strict=True)))
