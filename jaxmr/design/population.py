"""Many sequences at once: losses and gradients of a population, and searches that a crash does not lose.

A population is an array `(members, numbers)`, each number between 0 and 1 of its bounds. A core computes one member
after the other, whose states then stay in its cache (measured for trains of 336 pulses: as fast as `vmap` with
instantaneous pulses, six times as fast with selective ones), unless told to take several together (the recurrent
surrogate: a quarter of the time); several devices share the members.
"""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxmr.core import batch
from jaxmr.core.files import whole
from jaxmr.core.types import Array, Float

SECONDS = 20.0
"""Between two records of a search."""
SAME = 1e-4
"""Relative difference of losses that another machine may make."""


class Population(NamedTuple):
    """Losses of members `(members, numbers)` in 0 ... 1, compiled once.

    start (numbers,): the parameters given. losses: of members, inf where they are not finite. gradients: of
    `(model, members)`, their losses and the derivatives by the numbers; not compiled. model: what the losses were
    planned with. parameters: of a member, or of a stack of them.
    """

    start: Float[np.ndarray, "numbers"]
    losses: Callable[[Any], np.ndarray]
    gradients: Callable[[Any, Any], tuple[Float[Array, "members"], Float[Array, "members numbers"]]]
    model: Any
    parameters: Callable[[Any], Any]


def populate(
    objective: Callable[[Any, Any], Any], parameters: Any, bounds: Any, model: Any, devices, together: int = 1
) -> Population:
    """The population of an `objective(parameters, model)` within finite `bounds` (low, high), each like parameters.

    together: at most so many members whose losses a core computes side by side. Raises `ValueError` where a number
    has no bounds.
    """
    start, unravel = ravel_pytree(parameters)
    low, high = (ravel_pytree(end)[0] for end in bounds)
    width = high - low
    if not np.all(np.isfinite(width)):
        raise ValueError("this solver draws members between bounds: give every parameter finite bounds=(low, high)")
    # A number without room is no unknown: it stays where it is.
    inside = np.asarray(jnp.where(width > 0, (start - low) / jnp.where(width > 0, width, 1), 0.5))

    def at(numbers):
        # Exactly the bounds at 0 and 1.
        return unravel(jnp.clip(low + numbers * width, low, high))

    def loss(model, numbers):
        return objective(at(numbers), model)

    def both(model, numbers):
        return jax.value_and_grad(loss, argnums=1)(model, numbers)

    def gradients(model, members):
        return batch.over_groups(both, model, members, devices)

    @eqx.filter_jit
    def losses(model, members):
        n_devices = 1 if devices is None else len(devices)
        groups = members if together == 1 else batch.in_groups(members, together, n_devices)
        one = loss if together == 1 else jax.vmap(loss, in_axes=(None, 0))
        return batch.over_groups(one, model, groups, devices).ravel()[: members.shape[0]]

    dtype = start.dtype

    def finite(members):
        found = np.asarray(losses(model, jnp.asarray(members, dtype)), float)
        return np.where(np.isfinite(found), found, np.inf)

    one = jax.jit(at)
    many = jax.jit(jax.vmap(at))

    def stacked(members):
        members = jnp.asarray(members, dtype)
        return jax.tree.map(np.asarray, one(members) if members.ndim == 1 else many(members))

    return Population(inside, finite, gradients, model, stacked)


@final
class Record:
    """What a search has to remember to go on after a crash: named arrays in a file, written whole now and then.

    path: of a .npz, or None for a search without one. The first losses are those of the first members: a file in which
    they differ is of another search.
    """

    def __init__(self, path: str | os.PathLike | None):
        self.path, self.written = path, time.monotonic()

    def read(self, first: Float[np.ndarray, "members"], about: str) -> dict[str, np.ndarray] | None:
        """The arrays of the file, if there is one, or None; a `ValueError` if it is of another search."""
        if self.path is None:
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            known = found.pop("about").item(), found.pop("first")
        except FileNotFoundError:
            return None
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"checkpoint {self.path} is no record of a search; give another file") from error
        same = known[0] == about and known[1].shape == first.shape
        if not same or not np.allclose(known[1], first, rtol=SAME):
            raise ValueError(
                f"checkpoint {self.path} is of another search (loss, bounds, start or solver differ); give another "
                "file, or remove it to start anew"
            )
        return found

    def write(self, first: Float[np.ndarray, "members"], about: str, arrays: Callable, *, now: bool) -> None:
        """Write the arrays that `arrays()` returns, if it is time or must be `now`."""
        if self.path is None or not (now or time.monotonic() - self.written > SECONDS):
            return
        with whole(self.path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, about=about, first=first, **arrays())
        self.written = time.monotonic()
