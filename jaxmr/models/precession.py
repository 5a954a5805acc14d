"""What an event does to isochromats: one jump, and its samples as a matrix product.

The samples of an event under a constant gradient are sums over spins of M+ exp(c j), j = 1 ... S. With
j = 1 + a B + b the factor splits into two tables of about sqrt(S) rows, and the sum is their product: few complex
exponentials, and the rest is what a processor does best. Where the gradient varies, or spins move, the event is
walked sample by sample; spins that diffuse wander on in every event. Units: s, rad/s, m, rad/m; arrays as in `spins`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Float
from jaxmr.models import walking
from jaxmr.models.spins import Spins
from jaxmr.models.walking import Drift
from jaxmr.physics import ensembles
from jaxmr.physics.ensembles import Ensemble, Factor
from jaxmr.sequences.sequence import Event

once = jax.lax.optimization_barrier

Motion = Callable[[Float[Array, "3"], Float[Array, ""]], Float[Array, "3"]]

GAUSS = (0.5 - math.sqrt(1 / 12), 0.5 + math.sqrt(1 / 12))
"""Where in a step a moving spin is looked at: exact for motion that is cubic in time."""


class Place(NamedTuple):
    """Positions, as the sum of what a voxel, an isochromat of each and each spin has (None: nothing); m."""

    centre: Float[Array, "3 spins voxels"]
    offset: Float[Array, "3 spins 1"] | None
    strayed: Float[Array, "3 spins voxels"] | None = None


class Jump(NamedTuple):
    """What an event does to every spin; the coarse and fine tables of its samples, where it has several."""

    winding: Factor
    e1: Float[Array, "1 voxels"]
    tables: tuple[Factor, Factor] | None = None


def table_lengths(samples: int, n_coils: int) -> tuple[int, int]:
    """Rows of the coarse and the fine table; every coil has a coarse one of its own."""
    fine = min(samples, math.ceil(math.sqrt(samples * n_coils)))
    return -(-samples // fine), fine


def at_rest(spins: Spins) -> Place:
    """Where spins are that do not move."""
    return Place(spins.centre, spins.offset)


def moved(spins: Spins, motion: Motion, time: Any) -> Place:
    """Where spins are at `time`."""
    rest = spins.centre if spins.offset is None else spins.centre + spins.offset
    everywhere = jax.vmap(jax.vmap(motion, (1, None), 1), (2, None), 2)
    return Place(everywhere(rest, jnp.asarray(time, rest.dtype)), None)


def journey(
    spins: Spins, motion: Motion | None, drift: Drift | None, start: Any, duration: Any, encoded: bool
) -> tuple[Place, Drift | None]:
    """Mean position over a stretch of time, which a constant gradient weighs by; how far spins diffused by its end."""
    place = at_rest(spins)
    if motion is not None:
        early, late = (moved(spins, motion, start + node * duration).centre for node in GAUSS)
        place = Place((early + late) / 2, None)
    if drift is None or spins.walk is None:
        return place, None
    strayed, drift = walking.stray(spins.walk, drift, duration, encoded)
    return place._replace(strayed=strayed), drift


def along(vector: Any, positions: Float[Array, "3 *spins"]) -> Float[Array, "*spins"]:
    """Scalar product with a vector (3,)."""
    return vector[0] * positions[0] + vector[1] * positions[1] + vector[2] * positions[2]


def stretch(spins: Spins, place: Place, moment: Any, time: Any) -> Factor:
    """exp(i (moment . r + omega t) - t/T2) of every spin."""
    angle = jnp.zeros_like(spins.r2) if spins.omega is None else spins.omega * time
    if moment is not None:
        angle = angle + along(moment, place.centre)
    # The barriers keep XLA from computing what a voxel shares again for every spin.
    winding = once(ensembles.scaled(ensembles.factor(angle), jnp.exp(-time * spins.r2)))
    if moment is not None and place.offset is not None:
        winding = ensembles.times(winding, once(ensembles.factor(along(moment, place.offset))))
    own = None if spins.spread is None else spins.spread * time
    if moment is not None and place.strayed is not None:
        wandered = along(moment, place.strayed)
        own = wandered if own is None else own + wandered
    return winding if own is None else ensembles.times(winding, ensembles.factor(own))


def jump(event: Event, spins: Spins, place: Place) -> Jump:
    """An event with a constant gradient, ready to be played and sampled."""
    winding = stretch(spins, place, event.moment, event.duration)
    e1 = once(jnp.exp(-event.duration * spins.r1))
    if event.samples < 2:
        return Jump(winding, e1)

    def table(steps):
        part = lambda f: stretch(  # noqa: E731
            spins, place, None if event.moment is None else f * event.moment, f * event.duration
        )
        return jax.vmap(part)(steps / event.samples)

    n_coarse, n_fine = table_lengths(event.samples, spins.weight.re.shape[0])
    steps = jnp.arange(max(n_coarse, n_fine), dtype=winding.re.dtype)
    return Jump(winding, e1, (table(1 + n_fine * steps[:n_coarse]), table(steps[:n_fine])))


def sampled(before: Factor, tables: tuple[Factor, Factor], samples: int, spins: Spins) -> Factor:
    """The samples of an event, (coils, samples) each, from M+ before it: sample 1 + a B + b sees coarse[a] fine[b]."""
    coarse, fine = tables
    n_coils, n_spins = spins.weight.re.shape[0], before.re.size
    add = lambda factor: Factor(*(part[None] for part in factor))  # noqa: E731
    left = ensembles.times(add(before), coarse)
    left = ensembles.times(add(left), Factor(*(part[:, None] for part in spins.weight)))
    a, b = (part.reshape(-1, n_spins) for part in left)
    full = fine.re.shape[:1] + before.re.shape
    c, d = (jnp.broadcast_to(part, full).reshape(-1, n_spins) for part in fine)

    def product(rows, columns):
        return jnp.einsum("an,bn->ab", rows, columns, precision="highest")

    pair = Factor(product(a, c) - product(b, d), product(a, d) + product(b, c))
    return Factor(*(part.reshape(n_coils, -1)[:, :samples] for part in pair))


def received(state: Ensemble, spins: Spins) -> Factor:
    """One sample of every coil, (coils, 1) each."""
    add = lambda part: part[None]  # noqa: E731
    seen = ensembles.times(Factor(*map(add, ensembles.transverse(state))), spins.weight)
    return Factor(*(jnp.sum(part, axis=(1, 2))[:, None] for part in seen))


def walk(
    state: Ensemble, drift: Drift | None, event: Event, spins: Spins, motion: Motion | None, start: Any
) -> tuple[Ensemble, Drift | None, Factor]:
    """State, drift and samples of an event whose gradient varies or whose spins move, sample by sample."""
    n = event.samples
    time = event.duration / n
    if event.path is not None:
        moments = jnp.diff(event.path, axis=0, prepend=jnp.zeros_like(event.path[:1]))
    else:
        moments = None if event.moment is None else jnp.broadcast_to(event.moment / n, (n, 3))
    e1 = jnp.exp(-time * spins.r1)

    def step(carry, row):
        (state, drift), (index, moment) = carry, row
        place, drift = journey(spins, motion, drift, start + index * time, time, moment is not None)
        state = ensembles.advance(state, stretch(spins, place, moment, time), e1)
        return (state, drift), received(state, spins)

    (state, drift), samples = jax.lax.scan(step, (state, drift), (jnp.arange(n, dtype=e1.dtype), moments))
    return state, drift, Factor(*(part[..., 0].T for part in samples))
