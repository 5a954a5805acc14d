"""A dictionary: simulated signals (atoms) beside the tissue parameters that made them.

Times in seconds, `b1` relative to nominal, `b0` in hertz. The dictionary is a list, so full grids, grids
with holes (atoms with t2 > t1 dropped) and free lists are the same thing; where it is a grid, the axes are
the distinct values of each parameter, and `jaxmr.mrf.refinement` finds them there.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np

from jaxmr.core.checks import require_values
from jaxmr.core.types import Array, Complex, Float

AnyArray = Array | np.ndarray
"""On a device or, when it is too large for one, on the host."""


class Dictionary(eqx.Module):
    """Signals of `n_atoms` tissues with m0 = 1, not normalised; NumPy or JAX arrays.

    atoms: `n_points` is `n_echoes`, or `rank` when the atoms are compressed: `signals @ conj(basis)`.
    parameters: one array per tissue name (`"t1"`, `"t2"`, `"b1"`, ...), also to be had as `dictionary.t1`.
    basis: orthonormal columns of the subspace, None for a full dictionary.
    energy: the part of the signals' energy that the subspace holds, None for a full dictionary.
    """

    atoms: Complex[AnyArray, "n_atoms n_points"]
    parameters: dict[str, Float[AnyArray, "n_atoms"]]
    basis: Complex[AnyArray, "n_echoes rank"] | None
    energy: float | None

    def __init__(
        self,
        atoms: Any,
        parameters: Mapping[str, Any],
        basis: Any = None,
        energy: float | None = None,
    ):
        if atoms.ndim != 2 or not np.issubdtype(atoms.dtype, np.complexfloating):
            raise ValueError(
                f"atoms must be complex with shape (n_atoms, n_points), got {atoms.dtype} {atoms.shape}; "
                "reshape the batch of a simulated grid to one axis"
            )
        if not parameters:
            raise ValueError("parameters is empty; pass at least one array such as {'t1': t1, 't2': t2}")
        for name, values in parameters.items():
            if values.shape != atoms.shape[:1]:
                raise ValueError(
                    f"parameters[{name!r}] must have one value for each of the {atoms.shape[0]} atoms, "
                    f"got shape {values.shape}; broadcast it to ({atoms.shape[0]},)"
                )
            require_values(f"parameters[{name!r}]", values, "every atom needs a known tissue")
        if basis is not None and (basis.ndim != 2 or basis.shape[1] != atoms.shape[1]):
            raise ValueError(
                f"basis must have shape (n_echoes, {atoms.shape[1]}) to go with atoms {atoms.shape}, "
                f"got {basis.shape}; compressed atoms are signals @ conj(basis)"
            )
        self.atoms = atoms
        self.parameters = dict(parameters)
        self.basis = basis
        self.energy = None if energy is None else float(energy)

    def __getattr__(self, name: str) -> Any:
        return parameter(self, name)


def parameter(owner: Any, name: str) -> Any:
    """The array `name` of `owner.parameters`, so that users may write `maps.t1`.

    Raises `AttributeError` naming the parameters that there are.
    """
    parameters = vars(owner).get("parameters", {})
    if name in parameters:
        return parameters[name]
    has = f"; its parameters are {', '.join(parameters)}" if parameters else ""
    raise AttributeError(f"{type(owner).__name__} has no attribute {name!r}{has}")
