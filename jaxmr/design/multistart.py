r"""Descent from many starts side by side: projected quasi-Newton steps in the unit box, one evaluation each a step.

Each start keeps its own model of the curvature (BFGS, damped: Powell, Math. Program. 14:224 (1978)) and its own length
of step. A step takes the free numbers, those not held at a bound by their gradient, to the minimum of the model, and
is projected (Bertsekas, SIAM J. Control Optim. 20:221 (1982)). A step that does not lower the loss enough (Armijo)
still teaches the curvature, and a shorter one is tried in the next round, so that all starts make one batch a round.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from jaxmr.core.digests import digest
from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Float
from jaxmr.design.optimum import Found, History
from jaxmr.design.population import Population, Record

FIRST, LARGEST, SMALLEST = 0.1, 0.3, 1e-4
"""First step, largest step of a number, and fraction of a step below which the curvature is forgotten."""
BLOCK, HEAT = 8, 16
"""Rounds of a call, between which the host is not needed; rounds, whole blocks, after which the worse starts end."""
ENOUGH = 1e-4
"""Fraction of the slope by which a step must lower the loss."""


class MultiStart(NamedTuple):
    """Options of the solver: the given parameters and `starts` - 1 others, the best of `drawn` at random.

    drawn: uniformly between the bounds, from `seed`. kept: starts that go on after the first `HEAT` rounds, the best.
    """

    starts: int = 8
    drawn: int = 128
    seed: int = 0
    kept: int = 4


class Walkers(NamedTuple):
    """Where each start is, and the trial that comes next.

    numbers, gradient, trial (starts, numbers). loss (starts,). curvature (starts, numbers, numbers): second
    derivatives as far as known. direction, length: the step, and which part of it is tried. fresh: whether the
    curvature has been forgotten.
    """

    numbers: Float[Array, "starts n"]
    loss: Float[Array, "starts"]
    gradient: Float[Array, "starts n"]
    curvature: Float[Array, "starts n n"]
    direction: Float[Array, "starts n"]
    length: Float[Array, "starts"]
    fresh: Bool[Array, "starts"]

    @property
    def trial(self) -> Float[Array, "starts n"]:
        return jnp.clip(self.numbers + self.length[:, None] * self.direction, 0, 1)


def descend(
    population: Population,
    solver: MultiStart,
    steps: int,
    tolerance: float,
    patience: int,
    checkpoint: Any,
    bar: Any,
) -> Found:
    """At most `steps` rounds; the history has the best of each. Converged: no fall by `tolerance` in `patience`."""
    about = f"multi-start {solver} {digest(population.start)}"
    record, rounds = Record(checkpoint), _rounds(population.gradients)
    state = _placed(_starts(population, solver))
    state, known = jax.device_get(rounds(population.model, state, 1))
    started = np.asarray(state.loss, float)
    if not np.isfinite(started).any():
        raise ValueError("no start has a finite loss; give other bounds, or more drawn=")
    losses, visited = [float(known.loss[0])], [known.numbers[0]]
    kept: Any = record.read(started, about)
    if kept is not None:
        losses, visited = list(kept.pop("losses")), list(kept.pop("visited"))
        state = Walkers(**kept)

    def arrays():
        return {"losses": np.array(losses), "visited": np.array(visited), **state._asdict()}

    reason = "steps"
    try:
        bar.update(len(losses))
        while len(losses) < steps:
            # At multiples of the block alone, so that a search that goes on ends where it would have ended.
            if len(losses) % BLOCK == 0 and _has_stopped(losses, tolerance, patience):
                reason = "converged"
                break
            if len(losses) == HEAT:
                best = np.argsort(state.loss, kind="stable")[: solver.kept]
                state = jax.tree.map(lambda leaf, best=best: leaf[best], state)
            n = min(BLOCK - len(losses) % BLOCK, steps - len(losses))
            # By way of the host: left on several devices, the numbers would compile everything again.
            state, known = jax.device_get(rounds(population.model, state, n))
            losses += map(float, known.loss[:n])
            visited += list(known.numbers[:n])
            record.write(started, about, arrays, now=False)
            bar.set_postfix_str(f"best {losses[-1]:.4g}", refresh=False)
            bar.update(n)
    except KeyboardInterrupt:
        reason = "interrupted"
    record.write(started, about, arrays, now=True)
    history = History(np.array(losses), population.parameters(np.stack(visited)))
    return Found(visited[-1], losses[-1], history, reason)


class Best(NamedTuple):
    """Of each round the least loss, and the numbers it belongs to."""

    loss: Float[Array, "rounds"]
    numbers: Float[Array, "rounds n"]


@functools.lru_cache(maxsize=4)
def _rounds(gradients: Callable) -> Callable[[Any, Walkers, int], tuple[Walkers, Best]]:
    """Some rounds in one call, at most `BLOCK`, as (model, walkers, how many); compiled once for each population."""

    def play(model, state: Walkers) -> Walkers:
        loss, gradient = gradients(model, state.trial)
        return jax.vmap(_advanced)(state, state.trial, *_sound(loss, gradient))

    @eqx.filter_jit
    def several(model, state, n):
        def one(state, i):
            state = jax.lax.cond(i < n, lambda: play(model, state), lambda: state)
            best = jnp.argmin(state.loss)
            return state, Best(state.loss[best], state.numbers[best])

        return jax.lax.scan(one, state, jnp.arange(BLOCK))

    return lambda model, state, n: several(model, state, jnp.asarray(n))


def _has_stopped(losses: list[float], tolerance: float, patience: int) -> bool:
    """Whether no loss of the last `patience` rounds lies below the one before them by `tolerance` of itself."""
    mark, since = np.inf, 0
    for value in losses:
        improved = value < mark - tolerance * abs(mark) or not np.isfinite(mark)
        mark, since = (value, 0) if improved else (mark, since + 1)
    return since >= patience


def _starts(population: Population, solver: MultiStart) -> np.ndarray:
    """The numbers given, and the best of those drawn."""
    if min(solver.starts, solver.kept) < 1 or solver.drawn < solver.starts - 1:
        raise ValueError(f"MultiStart needs starts >= 1, kept >= 1 and drawn >= starts - 1, got {solver}")
    given = population.start[None]
    if solver.starts == 1:
        return given
    drawn = np.random.default_rng(solver.seed).uniform(size=(solver.drawn, given.shape[1]))
    order = np.argsort(population.losses(drawn), kind="stable")
    return np.concatenate([given, drawn[order[: solver.starts - 1]].astype(given.dtype)])


def _placed(numbers: np.ndarray) -> Walkers:
    """Walkers whose first trial is where they start."""
    starts, n = numbers.shape
    zeros = jnp.zeros_like(numbers)
    lost = jnp.full(starts, jnp.inf, numbers.dtype)
    eye = jnp.broadcast_to(jnp.eye(n, dtype=numbers.dtype), (starts, n, n))
    return Walkers(jnp.asarray(numbers), lost, zeros, eye, zeros, jnp.ones_like(lost), jnp.ones(starts, bool))


def _sound(loss, gradient):
    """Without a gradient a loss is of no use."""
    sound = jnp.isfinite(loss) & jnp.isfinite(gradient).all(axis=-1)
    return jnp.where(sound, loss, jnp.inf), jnp.where(sound[:, None], gradient, 0)


def _advanced(walker: Walkers, trial, loss, gradient) -> Walkers:
    """One walker: move and look ahead, or stay and look nearer."""
    choose = lambda condition, a, b: jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)  # noqa: E731
    here = walker._replace(numbers=trial, loss=loss, gradient=gradient)
    moved = trial - walker.numbers
    slope = matmul(walker.gradient, moved)
    good = (slope < 0) & (loss <= walker.loss + ENOUGH * slope)
    learnt = _curved(walker.curvature, moved, gradient - walker.gradient, walker.fresh)
    learnt = jnp.where(jnp.isfinite(loss), learnt, walker.curvature)
    aware = jnp.zeros_like(walker.fresh)
    further = _aimed(here._replace(curvature=learnt, fresh=aware), 1.0)
    # The minimum of the parabola through both losses and the slope.
    rise = loss - walker.loss - slope
    fraction = jnp.where(jnp.isfinite(rise) & (rise > 0), -slope / (2 * jnp.where(rise > 0, rise, 1)), 0.25)
    nearer = _aimed(walker._replace(curvature=learnt, fresh=aware), walker.length * jnp.clip(fraction, 0.25, 0.7))
    lost = nearer.length < SMALLEST
    nearer = choose(lost, _aimed(_forgotten(walker), 1.0), nearer)
    begun = _aimed(_forgotten(here), 1.0)
    return choose(jnp.isfinite(walker.loss), choose(good, further, nearer), begun)


def _forgotten(walker: Walkers) -> Walkers:
    """No curvature but that which makes the next step a short one along the gradient."""
    size = jnp.linalg.norm(walker.gradient) / FIRST
    n = walker.numbers.shape[0]
    curvature = jnp.where(size > 0, size, 1) * jnp.eye(n, dtype=walker.numbers.dtype)
    return walker._replace(curvature=curvature, fresh=jnp.ones_like(walker.fresh))


def _aimed(walker: Walkers, length) -> Walkers:
    """The step to the minimum of the model over the numbers that are free to move, and what of it is tried."""
    x, g = walker.numbers, walker.gradient
    free = ~(((x <= 0) & (g > 0)) | ((x >= 1) & (g < 0)))
    both = free[:, None] & free[None]
    matrix = jnp.where(both, walker.curvature, jnp.eye(x.shape[0], dtype=x.dtype))
    step = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), jnp.where(free, g, 0))
    step = jnp.where(jnp.isfinite(step).all() & (matmul(step, g) < 0), step, jnp.where(free, -g, 0))
    largest = jnp.max(jnp.abs(step))
    step = step * jnp.where(largest > LARGEST, LARGEST / jnp.where(largest > 0, largest, 1), 1)
    return walker._replace(direction=step, length=jnp.full_like(walker.length, length))


def _curved(curvature, moved, change, fresh):
    """Damped BFGS: the matrix stays positive definite."""
    squared, along = matmul(moved, moved), matmul(change, moved)
    safe = lambda value: jnp.where(value > 0, value, 1)  # noqa: E731
    # The first pair tells the scale.
    scale = jnp.where(along > 0, matmul(change, change) / safe(along), 0)
    eye = jnp.eye(moved.shape[0], dtype=moved.dtype)
    known = jnp.where(fresh & (scale > 0), scale * eye, curvature)
    bent = matmul(known, moved)
    expected = matmul(moved, bent)
    damping = jnp.where(along < 0.2 * expected, 0.8 * expected / safe(expected - along), 1)
    y = damping * change + (1 - damping) * bent
    updated = known - jnp.outer(bent, bent) / safe(expected) + jnp.outer(y, y) / safe(matmul(y, moved))
    return jnp.where((squared > 0) & (expected > 0) & jnp.isfinite(updated).all(), updated, known)
