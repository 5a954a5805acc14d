"""Differential evolution: a population that improves by its own differences (Storn and Price, J. Glob. Optim. 11:341
(1997)). SciPy's, used here only; each generation is simulated in one batch.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxmr.core.digests import digest
from jaxmr.design.optimum import Found, History
from jaxmr.design.population import Population, Record

NONE = 1e30
"""Stands for no loss: SciPy's test of convergence takes differences, which infinities do not have."""


class DifferentialEvolution(NamedTuple):
    """Options of the solver: `members` of the population per number that is sought, `seed` of its draws.

    together: members that a core simulates side by side; 1 suits exact models, 64 the recurrent surrogate (`RNN`).

    Strategy best1bin, mutation 0.5 ... 1, recombination 0.7, a Latin hypercube with the given parameters in it.
    It has converged when the losses' standard deviation is below the search's tolerance times their mean.
    """

    members: int = 10
    seed: int = 0
    together: int = 1


class _Refusal(Exception):  # noqa: N818
    """Carries an error past SciPy, which takes a ValueError for a loss of the wrong shape."""


def evolve(
    population: Population,
    solver: DifferentialEvolution,
    steps: int,
    tolerance: float,
    checkpoint: Any,
    bar: Any,
) -> Found:
    """At most `steps` generations after the first population; the history has one entry for each of them.

    A record holds all losses so far: SciPy's draws depend on the seed alone, so that a search that is started again
    takes the same turns, and only what is not recorded is simulated.
    """
    from scipy.optimize import differential_evolution

    n = population.start.size
    if solver.members * n < 5:
        raise ValueError(f"DifferentialEvolution needs 5 members or more, got {solver.members} for {n} numbers")
    about = f"differential evolution {solver} {tolerance:g} {digest(population.start)}"
    record = Record(checkpoint)
    found: list[np.ndarray] = []
    best: list[tuple[float, np.ndarray]] = []
    known: Any = None

    def losses(numbers):
        """Of numbers (numbers, members)."""
        nonlocal known
        members = numbers.T
        if known is None or len(found) >= len(known):
            values = np.minimum(population.losses(members), NONE)
        else:
            values = known[len(found)]
        if not found:
            if values.min() >= NONE:
                raise _Refusal("no member of the first population has a finite loss; give other bounds")
            try:
                kept = record.read(values, about)
            except ValueError as error:
                raise _Refusal(str(error)) from error
            known = None if kept is None else kept["losses"]
        found.append(values)
        i = int(values.argmin())
        best.append(min([*best[-1:], (float(values[i]), members[i])], key=lambda pair: pair[0]))
        record.write(found[0], about, lambda: {"losses": np.array(found)}, now=False)
        bar.set_postfix_str(f"best {best[-1][0]:.4g}", refresh=False)
        bar.update()
        return values

    try:
        ended = differential_evolution(
            losses, [(0.0, 1.0)] * n, maxiter=steps, popsize=solver.members, tol=tolerance, rng=solver.seed,
            polish=False, updating="deferred", vectorized=True, x0=population.start,
        )  # fmt: skip
        reason = "converged" if ended.success else "steps"
    except _Refusal as refusal:
        raise ValueError(str(refusal)) from refusal
    except KeyboardInterrupt:
        if not best:
            raise
        reason = "interrupted"
    record.write(found[0], about, lambda: {"losses": np.array(found)}, now=True)
    history = History(np.array([loss for loss, _ in best]), population.parameters(np.stack([x for _, x in best])))
    return Found(best[-1][1], best[-1][0], history, reason)
