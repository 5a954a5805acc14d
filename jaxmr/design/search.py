r"""Descent on a loss of the sequence: `optimise` turns numbers of a scan until the loss is least.

The program (parameters, sequence, signal, loss, gradient, step) is compiled once. What depends on values and not on
structure is looked after on the host between the steps: plans of models are renewed, decisions of traced scripts
checked. jaxopt, which no longer changes, is used here only: L-BFGS-B (Byrd et al., SIAM J. Sci. Comput. 16:1190
(1995)) and projected gradients with acceleration (Beck and Teboulle, SIAM J. Imaging Sci. 2:183 (2009)). Solvers that
keep a population, of a global search or of many starts, are in `evolution` and `multistart`.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmr.core import batch
from jaxmr.core.checks import as_float
from jaxmr.design.evolution import DifferentialEvolution, evolve
from jaxmr.design.multistart import MultiStart, descend
from jaxmr.design.optimum import History, Optimum
from jaxmr.design.population import populate
from jaxmr.models import ImagingModel, Model
from jaxmr.models.pdg import PDG
from jaxmr.objects import Phantom, Tissue
from jaxmr.sequences.sequence import Sequence

BOUNDED = ("lbfgsb", "projected_gradient")
"""Solvers of jaxopt by their name."""
POPULATIONS: dict[Any, Any] = {"differential_evolution": DifferentialEvolution(), "multistart": MultiStart()}
"""Solvers with a population by their name."""


def optimise(
    build: Callable[..., Sequence],
    loss: Callable[..., Any],
    parameters: Any,
    *,
    bounds: Any = None,
    solver: optax.GradientTransformation | DifferentialEvolution | MultiStart | str = "lbfgsb",
    plan: tuple[ImagingModel | Model, Phantom | Tissue] | None = None,
    replan: int = 10,
    steps: int = 200,
    tolerance: float = 1e-4,
    patience: int = 20,
    devices: list | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: bool = False,
) -> Optimum:
    """Turn `parameters` until `loss(sequence, parameters)` of `build(parameters)` is least.

    build: pure, parameters to `Sequence`: a family, or what `pp.trace` made of a script, which gets a dictionary of
    parameters by name; a script whose decisions the parameters change is traced again, with its warning. loss: a real
    scalar. parameters: a float, an array or a tree of them. bounds: like parameters, (low, high) in place of each
    leaf, None where there are none. solver: "lbfgsb", "projected_gradient" or any of optax, by which bounds are kept
    by projection. plan: (model, phantom or tissue); the loss is then `loss(sequence, parameters, model)` with the
    planned model, which is planned again for new parameters every `replan` steps, in arrays no smaller than before:
    only a plan that needs larger ones compiles again. steps: at most so many values of the loss. The search has
    converged when in `patience` steps the loss has not fallen by `tolerance` of itself. progress: show a bar.

    "differential_evolution" and "multistart", or `DifferentialEvolution` and `MultiStart` with options, search between
    finite bounds with a population that a step evaluates at once, shared by `devices`: the first without derivatives
    (tolerance as it says, no patience), the second by descent from many starts. Their members have one plan, made
    for the parameters given, and their losses may be infinite. checkpoint: a file .npz in which they record the
    search; started again with the same arguments (but for `steps`), it goes on and ends where it would have ended.

    Nothing is random but for a seed. Ctrl-C ends the search and returns the best so far. Raises `ValueError` for
    bounds that do not match, and when loss or gradient are not finite, with step and parameters.
    """
    solver = POPULATIONS.get(solver, solver) if isinstance(solver, str) else solver
    parameters = jax.tree_util.tree_map_with_path(lambda path, leaf: as_float(_name(path), leaf), parameters)
    low, high = _limits(parameters, bounds)
    if isinstance(solver, DifferentialEvolution | MultiStart):
        objective = _Objective(build, loss, plan)
        return _from_population(
            objective, parameters, (low, high), solver, steps, tolerance, patience, devices, checkpoint, progress
        )
    if checkpoint is not None or devices is not None:
        raise ValueError("checkpoint= and devices= are of solvers with a population; use MultiStart(), or leave them")
    search = _Search(build, loss, solver, (low, high), plan)
    with batch.progress_bar(steps, "optimise", progress) as bar:
        try:
            reason = search.run(parameters, replan, steps, tolerance, patience, bar)
        except KeyboardInterrupt:
            if not search.losses:
                raise
            reason = "interrupted"
    best = search.best
    model = search.objective.planned(best.parameters)
    value = best.loss if model is None else float(search.evaluate(best.parameters, model))
    visited = jax.tree.map(lambda *leaves: np.stack(leaves), *search.visited)
    history = History(np.array(search.losses), visited)
    return Optimum(best.parameters, search.objective.sequence(best.parameters), value, history, reason)


def _from_population(
    objective, parameters, bounds, solver, steps, tolerance, patience, devices, checkpoint, progress
) -> Optimum:
    """A search by a solver that keeps a population."""
    if objective.traced:
        raise ValueError(
            "a traced script may decide otherwise for each member of a population; build with a family, or take a "
            "solver that follows one sequence"
        )
    evolving = isinstance(solver, DifferentialEvolution)
    together = solver.together if evolving else 1
    population = populate(objective, parameters, bounds, objective.planned(parameters), devices, together)
    with batch.progress_bar(steps + evolving, "optimise", progress) as bar:
        if isinstance(solver, DifferentialEvolution):
            found = evolve(population, solver, steps, tolerance, checkpoint, bar)
        else:
            found = descend(population, solver, steps, tolerance, patience, checkpoint, bar)
    best = jax.tree.map(jnp.asarray, population.parameters(found.numbers))
    model = objective.planned(best)
    value = found.loss if model is None else float(eqx.filter_jit(objective)(best, model))
    return Optimum(best, objective.sequence(best), value, found.history, found.reason)


@final
class _Objective:
    """The loss as a function of the parameters, and of a model planned for them."""

    def __init__(self, build, loss, plan):
        self.build, self.loss, self.plan = build, loss, plan
        self.traced = hasattr(build, "guards_hold")
        self.model: Any = None

    def __call__(self, parameters, model):
        arguments = (parameters,) if model is None else (parameters, model)
        value = jnp.asarray(self.loss(self.sequence(parameters), *arguments))
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(f"loss must return one real number, got {value.dtype} of shape {value.shape}")
        return value

    def sequence(self, parameters) -> Sequence:
        return self.build(**parameters) if self.traced else self.build(parameters)

    def planned(self, parameters) -> Any:
        """The model planned for these parameters, in arrays that the last plan's program can take if possible."""
        if self.plan is None:
            return None
        model, target = self.plan
        sequence: Any = self.sequence(parameters)
        if isinstance(self.model, PDG):
            return self.model.replanned(sequence, target)
        of: Any = model.planned
        return of(sequence, target)


class _Best(NamedTuple):
    loss: float
    parameters: Any


@final
class _Search:
    """One run: what is compiled, and what has been found so far."""

    def __init__(self, build, loss, solver, bounds, plan):
        self.objective = _Objective(build, loss, plan)
        self.solver, self.bounds = solver, bounds
        self.losses: list[float] = []
        self.visited: list[Any] = []
        self.best = _Best(np.inf, None)
        self.compile()

    def compile(self) -> None:
        """New programs; they compile at their first call."""
        objective = self.objective
        # Not the object itself: it would be known to the compiler from before.
        descent = _descent(lambda parameters, model: objective(parameters, model), self.solver, self.bounds)

        def step(parameters, state, model):
            held = objective.build.guards_hold(**parameters) if objective.traced else True
            return held, *descent.step(parameters, state, model)

        self.start: Callable = eqx.filter_jit(descent.start)
        self.renew: Callable = eqx.filter_jit(descent.renew)
        self.step: Callable = eqx.filter_jit(step)
        self.evaluate: Callable = eqx.filter_jit(lambda parameters, model: objective(parameters, model))

    def run(self, parameters, replan, steps, tolerance, patience, bar) -> str:
        """Fill history and best; why it ended."""
        self.objective.model = self.objective.planned(parameters)
        parameters, state = jax.device_get((parameters, self.start(parameters, self.objective.model)))
        mark, since = np.inf, 0
        for i in range(steps):
            held, value, gradient, following, after = self.step(parameters, state, self.objective.model)
            if not held:
                self.objective.sequence(parameters)  # traces the script again
                self.compile()
                self.objective.model = self.objective.planned(parameters)
                state = jax.device_get(self.renew(parameters, state, self.objective.model))
                held, value, gradient, following, after = self.step(parameters, state, self.objective.model)
            value = float(value)
            _require_finite(i, value, gradient, parameters)
            self.losses.append(value)
            self.visited.append(jax.tree.map(np.asarray, parameters))
            if value < self.best.loss:
                self.best = _Best(value, parameters)
            since += 1
            if value < mark - tolerance * abs(mark) or not np.isfinite(mark):
                mark, since = value, 0
            bar.set_postfix_str(f"loss {value:.4g}, best {self.best.loss:.4g}", refresh=False)
            bar.update()
            if since >= patience:
                return "converged"
            # By way of the host: left where a step has put them, on several devices, they would compile it again.
            parameters, state = jax.device_get((following, after))
            if self.objective.plan is not None and (i + 1) % replan == 0:
                model = self.objective.planned(parameters)
                if not eqx.tree_equal(model, self.objective.model):
                    self.objective.model = model
                    state = jax.device_get(self.renew(parameters, state, model))
                    # A loss is worth what its plan was: the old one may have missed what the parameters awoke.
                    self.best = self.best._replace(loss=float(self.evaluate(self.best.parameters, model)))
                    mark = self.best.loss
        return "steps"


class _Descent(NamedTuple):
    """A solver: `start(p, model)` and `renew(p, state, model)` (for a new plan) give its state; `step(p, state, model)`
    the loss at p, its gradient, the next p and state."""

    start: Callable
    renew: Callable
    step: Callable


def _descent(objective, solver, bounds) -> _Descent:
    if isinstance(solver, str):
        return _by_jaxopt(objective, solver, bounds)
    if isinstance(solver, optax.GradientTransformation):
        return _by_optax(objective, optax.with_extra_args_support(solver), bounds)
    raise _unknown(solver)


def _unknown(solver) -> ValueError:
    known = ", ".join((*BOUNDED, *POPULATIONS))
    return ValueError(f"solver must be one of {known} or a solver of optax, got {solver!r}")


def _by_optax(objective, solver, bounds) -> _Descent:
    def step(parameters, state, model):
        value, gradient = jax.value_and_grad(objective)(parameters, model)
        told = {"value": value, "grad": gradient, "value_fn": lambda p: objective(p, model)}
        updates, state = solver.update(gradient, state, parameters, **told)
        following: Any = optax.apply_updates(parameters, updates)
        return value, gradient, jax.tree.map(jnp.clip, following, *bounds), state

    return _Descent(lambda parameters, model: solver.init(parameters), lambda parameters, state, model: state, step)


def _by_jaxopt(objective, name: str, bounds) -> _Descent:
    if name not in BOUNDED:
        raise _unknown(name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
        import jaxopt
    quasi_newton = name == "lbfgsb"
    solver: Any = (
        jaxopt.LBFGSB(objective)
        if quasi_newton
        else jaxopt.ProjectedGradient(objective, jaxopt.projection.projection_box)
    )

    def renew(parameters, state, model):
        # L-BFGS-B keeps the loss and the gradient, which are the old plan's, and curvatures, which stay.
        return solver.init_state(jaxopt.OptStep(parameters, state), bounds, model) if quasi_newton else state

    def step(parameters, state, model):
        if quasi_newton:
            value, gradient = state.value, state.grad
        else:
            value, gradient = jax.value_and_grad(objective)(parameters, model)
        following, after = solver.update(parameters, state, bounds, model)
        return value, gradient, following, after

    return _Descent(lambda parameters, model: solver.init_state(parameters, bounds, model), renew, step)


def _limits(parameters, bounds) -> tuple[Any, Any]:
    """Lowest and highest values, like parameters."""
    named, structure = jax.tree_util.tree_flatten_with_path(parameters)
    try:
        given = [None] * len(named) if bounds is None else structure.flatten_up_to(bounds)
    except ValueError as error:
        raise ValueError(
            f"bounds must be like parameters with (low, high) or None in place of each leaf, got {bounds!r}"
        ) from error
    ends = []
    for (path, leaf), pair in zip(named, given, strict=True):
        low, high = (-jnp.inf, jnp.inf) if pair is None else _pair(_name(path), pair)
        low, high = (jnp.broadcast_to(jnp.asarray(end, leaf.dtype), leaf.shape) for end in (low, high))
        if not np.all((low <= leaf) & (leaf <= high)):
            raise ValueError(f"{_name(path)} starts outside of its bounds {pair}: {np.asarray(leaf)}")
        ends.append((low, high))
    low, high = zip(*ends, strict=True) if ends else ((), ())
    return structure.unflatten(low), structure.unflatten(high)


def _pair(name: str, pair) -> tuple[Any, Any]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"bounds of {name} must be (low, high) or None, got {pair!r}")
    return tuple(pair)


def _name(path) -> str:
    """`parameters['ti']`."""
    return f"parameters{jax.tree_util.keystr(path)}"


def _require_finite(step: int, value: float, gradient, parameters) -> None:
    wrong = "the loss" if not np.isfinite(value) else None
    if wrong is None:
        slopes = jax.tree_util.tree_leaves_with_path(gradient)
        wrong = next((f"the gradient of {_name(path)}" for path, g in slopes if not np.isfinite(g).all()), None)
    if wrong is not None:
        at = jax.tree.map(np.asarray, parameters)
        raise ValueError(
            f"{wrong} is not finite in step {step}: loss {value:g} at parameters {at}; give bounds that keep them "
            "where the loss exists, or a solver with smaller steps"
        )
