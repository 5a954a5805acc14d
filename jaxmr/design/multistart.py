r"""Descent from many starts side by side: projected quasi-Newton steps in the unit box, one evaluation each a step.

Each start keeps its own model of the curvature (BFGS, damped: Powell, Math. Program. 14:224 (1978)) and its own length
of step. A step takes the free numbers, those not held at a bound by their gradient, to the minimum of the model, and
is projected (Bertsekas, SIAM J. Control Optim. 20:221 (1982)). A step that does not lower the loss enough (Armijo) is
shortened and tried again in the next round, so that all starts together make one batch a round.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from jaxmr.core.digests import digest
from jaxmr.core.types import Array, Float
from jaxmr.design.evolution import Found
from jaxmr.design.optimum import History
from jaxmr.design.population import Population, Record

FIRST, LARGEST, SMALLEST = 0.1, 0.3, 1e-4
"""First step, largest step of a number, and fraction of a step below which the curvature is forgotten."""
ENOUGH = 1e-4
"""Fraction of the slope by which a step must lower the loss."""


class MultiStart(NamedTuple):
    """Options of the solver: the given parameters and `starts` - 1 others, the best of `drawn` at random.

    drawn: uniformly between the bounds, from `seed`.
    """

    starts: int = 8
    drawn: int = 128
    seed: int = 0


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
    record = Record(checkpoint)
    first = _starts(population, solver)
    loss, gradient = map(jnp.asarray, jax.device_get(population.losses_and_gradients(first)))
    if not np.isfinite(loss).any():
        raise ValueError("no start has a finite loss; give other bounds, or more drawn=")
    state = begin(jnp.asarray(first, loss.dtype), loss, gradient)
    losses, visited = [float(jnp.min(state.loss))], [np.asarray(state.numbers[jnp.argmin(state.loss)])]
    started = np.asarray(loss, float)
    kept = record.read(started, about)
    if kept is not None:
        losses, visited = list(kept.pop("losses")), list(kept.pop("visited"))
        state = Walkers(**{name: jnp.asarray(value) for name, value in kept.items()})

    def arrays():
        return {"losses": np.array(losses), "visited": np.array(visited), **jax.device_get(state._asdict())}

    # Replayed, so that a search that goes on ends where it would have ended.
    mark, since = np.inf, 0
    for value in losses:
        mark, since = _progress(value, mark, since, tolerance)
    bar.update(len(losses))
    reason = "steps"
    try:
        while len(losses) < steps:
            if since >= patience:
                reason = "converged"
                break
            # By way of the host: left on several devices, the numbers would compile everything again.
            state = jax.device_get(advance(state, *jax.device_get(population.losses_and_gradients(state.trial))))
            losses.append(float(np.min(state.loss)))
            visited.append(np.asarray(state.numbers[np.argmin(state.loss)]))
            mark, since = _progress(losses[-1], mark, since, tolerance)
            record.write(started, about, arrays, now=False)
            bar.set_postfix_str(f"best {losses[-1]:.4g}", refresh=False)
            bar.update()
    except KeyboardInterrupt:
        reason = "interrupted"
    record.write(started, about, arrays, now=True)
    history = History(np.array(losses), population.parameters(np.stack(visited)))
    return Found(visited[-1], losses[-1], history, reason)


def _progress(value: float, mark: float, since: int, tolerance: float) -> tuple[float, int]:
    """The last loss that was an improvement, and the rounds since."""
    if value < mark - tolerance * abs(mark) or not np.isfinite(mark):
        return value, 0
    return mark, since + 1


def _starts(population: Population, solver: MultiStart) -> np.ndarray:
    """The numbers given, and the best of those drawn."""
    if solver.starts < 1 or solver.drawn < solver.starts - 1:
        raise ValueError(f"MultiStart needs starts >= 1 and drawn >= starts - 1, got {solver}")
    given = population.start[None]
    if solver.starts == 1:
        return given
    drawn = np.random.default_rng(solver.seed).uniform(size=(solver.drawn, given.shape[1]))
    order = np.argsort(population.losses(drawn), kind="stable")
    return np.concatenate([given, drawn[order[: solver.starts - 1]]])


def begin(numbers: Float[Array, "starts n"], loss: Float[Array, "starts"], gradient) -> Walkers:
    """Walkers that have evaluated their starts: steepest descent first."""
    starts, n = numbers.shape
    loss, gradient = _sound(loss, gradient)
    known = Walkers(
        numbers, loss, gradient, jnp.zeros((starts, n, n), numbers.dtype), jnp.zeros_like(numbers),
        jnp.ones_like(loss), jnp.ones_like(loss, dtype=bool),
    )  # fmt: skip
    return jax.vmap(lambda walker: _aimed(_forgotten(walker)))(known)


@eqx.filter_jit
def advance(state: Walkers, loss: Any, gradient: Any) -> Walkers:
    """The walkers after their trials were found to have this loss and gradient."""
    loss, gradient = _sound(jnp.asarray(loss), jnp.asarray(gradient))
    return jax.vmap(_advanced)(state, state.trial, loss, gradient)


def _sound(loss, gradient):
    """Without a gradient a loss is of no use."""
    sound = jnp.isfinite(loss) & jnp.isfinite(gradient).all(axis=-1)
    return jnp.where(sound, loss, jnp.inf), jnp.where(sound[:, None], gradient, 0)


def _advanced(walker: Walkers, trial, loss, gradient) -> Walkers:
    """One walker: move and look ahead, or stay and look nearer."""
    moved = trial - walker.numbers
    slope = walker.gradient @ moved
    good = (slope < 0) & (loss <= walker.loss + ENOUGH * slope)
    curvature = _curved(walker.curvature, moved, gradient - walker.gradient, walker.fresh)
    further = _aimed(
        walker._replace(
            numbers=trial, loss=loss, gradient=gradient, curvature=curvature, fresh=jnp.zeros_like(walker.fresh)
        )
    )
    # The minimum of the parabola through both losses and the slope.
    rise = loss - walker.loss - slope
    fraction = jnp.where(jnp.isfinite(rise) & (rise > 0), -slope / (2 * jnp.where(rise > 0, rise, 1)), 0.5)
    nearer = walker._replace(length=walker.length * jnp.clip(fraction, 0.1, 0.5))
    lost = (nearer.length < SMALLEST) & ~walker.fresh
    nearer = jax.tree.map(lambda a, b: jnp.where(lost, a, b), _aimed(_forgotten(walker)), nearer)
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), further, nearer)


def _forgotten(walker: Walkers) -> Walkers:
    """No curvature but that which makes the next step a short one along the gradient."""
    size = jnp.linalg.norm(walker.gradient) / FIRST
    n = walker.numbers.shape[0]
    curvature = jnp.where(size > 0, size, 1) * jnp.eye(n, dtype=walker.numbers.dtype)
    return walker._replace(curvature=curvature, fresh=jnp.ones_like(walker.fresh))


def _aimed(walker: Walkers) -> Walkers:
    """The step to the minimum of the model over the numbers that are free to move."""
    x, g = walker.numbers, walker.gradient
    free = ~(((x <= 0) & (g > 0)) | ((x >= 1) & (g < 0)))
    both = free[:, None] & free[None]
    matrix = jnp.where(both, walker.curvature, jnp.eye(x.shape[0], dtype=x.dtype))
    step = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), jnp.where(free, g, 0))
    step = jnp.where(jnp.isfinite(step).all() & (step @ g < 0), step, jnp.where(free, -g, 0))
    largest = jnp.max(jnp.abs(step))
    step = step * jnp.where(largest > LARGEST, LARGEST / jnp.where(largest > 0, largest, 1), 1)
    return walker._replace(direction=step, length=jnp.ones_like(walker.length))


def _curved(curvature, moved, change, fresh):
    """Damped BFGS: the matrix stays positive definite."""
    squared, along = moved @ moved, change @ moved
    safe = lambda value: jnp.where(value > 0, value, 1)  # noqa: E731
    # The first pair tells the scale.
    scale = jnp.where(along > 0, (change @ change) / safe(along), 0)
    eye = jnp.eye(moved.shape[0], dtype=moved.dtype)
    known = jnp.where(fresh & (scale > 0), scale * eye, curvature)
    bent = known @ moved
    expected = moved @ bent
    damping = jnp.where(along < 0.2 * expected, 0.8 * expected / safe(expected - along), 1)
    y = damping * change + (1 - damping) * bent
    updated = known - jnp.outer(bent, bent) / safe(expected) + jnp.outer(y, y) / safe(y @ moved)
    return jnp.where((squared > 0) & (expected > 0) & jnp.isfinite(updated).all(), updated, known)
