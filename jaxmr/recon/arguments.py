"""Maps by name, and the weights that go with them: checked, and brought to the voxels of the data."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import is_concrete, require_values
from jaxmr.core.types import Array


def maps_of(
    name: str, maps: Mapping[str, Any] | None, voxels: tuple[int, ...], allowed: tuple[str, ...] | None
) -> dict[str, Array]:
    """A mapping of maps as arrays of shape `voxels`, names and values checked."""
    found = {}
    for key, value in (maps or {}).items():
        if allowed is not None and key not in allowed:
            raise ValueError(f"{name} names {key!r}, but the model's are {', '.join(allowed)}")
        value = jnp.asarray(value)
        value = value if jnp.issubdtype(value.dtype, jnp.inexact) else value.astype(float)
        require_values(f"{name}[{key!r}]", value, "set voxels outside the mask to something plausible")
        try:
            found[key] = jnp.broadcast_to(value, voxels)
        except ValueError as error:
            raise ValueError(
                f"{name}[{key!r}] must broadcast to the voxels of data, {voxels}, got {value.shape}"
            ) from error
    return found


def weights_of(regularisation: Any, prior: Mapping[str, Any], voxels: tuple[int, ...]) -> dict[str, Array]:
    """The weight of each map of `prior`."""
    given = regularisation if isinstance(regularisation, Mapping) else dict.fromkeys(prior, regularisation)
    absent = not isinstance(regularisation, Mapping) and is_concrete(regularisation) and not np.any(regularisation)
    if (not prior and not absent) or (prior and absent) or set(given) != set(prior):
        raise ValueError(
            f"prior and regularisation go together, a weight for every map of the prior; got a prior of "
            f"{tuple(prior) or None} and regularisation={regularisation!r}"
        )
    for key, value in given.items():
        require_values(f"regularisation[{key!r}]", value, "the problem is unbounded below zero", minimum=0)
    return maps_of("regularisation", given, voxels, None)
