"""Searches with a population: known optima, agreement, bounds, determinism, going on after an interruption."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from jaxmr.core import batch
from jaxmr.design import DifferentialEvolution, MultiStart, evolution, objectives, parametrisations
from jaxmr.units import deg, ms
from searches import START, InterruptedBar, quadratic, train

EVOLUTION, DESCENT = DifferentialEvolution(8, seed=1), MultiStart(3, 16, seed=1, kept=2)
every_solver = pytest.mark.parametrize("solver", [EVOLUTION, DESCENT], ids=["evolution", "descent"])
# All optimal flips lie beyond.
BOUNDS = {"flip": (np.array([0.0, 0.1, 0.35]), 0.8), "tr": (0.1, 1.0)}


@every_solver
def test_the_optimum_at_the_bounds(solver):
    best = mr.design.optimise(train, quadratic, START, bounds=BOUNDS, solver=solver, steps=200, tolerance=1e-7)
    assert np.allclose(best.parameters["flip"], [0.8, 0.1, 0.35], atol=1e-4)
    assert abs(float(best.parameters["tr"]) - 0.4) < 1e-3
    visited = best.history.parameters["flip"]
    assert (visited >= BOUNDS["flip"][0]).all()
    assert (visited <= 0.8).all()
    assert (np.diff(best.history.loss) <= 0).all()
    assert best.loss == best.history.loss[-1]
    assert np.array_equal(best.sequence.segments[0].pulse.flip, best.parameters["flip"])


@every_solver
def test_the_parameters_given_are_in_the_first_population(solver):
    """Here the best there is, so that none of those drawn is better."""
    start = {"flip": np.array([0.8, 0.1, 0.35]), "tr": 0.4}
    best = mr.design.optimise(train, quadratic, start, bounds=BOUNDS, solver=solver, steps=1)
    first = jax.tree.map(lambda leaf: leaf[0], best.history.parameters)
    assert np.array_equal(first["flip"], start["flip"])
    assert np.isclose(first["tr"], start["tr"], rtol=1e-12)
    assert np.isclose(best.history.loss[0], quadratic(train(start), start), rtol=1e-12)


def test_descent_ends_at_the_least_of_a_curved_valley():
    """Rosenbrock's function of 6 numbers from one start, its least inside, and from a point where descent is hard."""
    build = lambda x: mr.sequences.fisp(x, 10 * ms, 5 * ms)  # noqa: E731
    loss = lambda sequence, x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)  # noqa: E731
    best = mr.design.optimise(
        build, loss, np.full(6, 1.9), bounds=(0.0, 2.0), solver=MultiStart(1), steps=300, tolerance=1e-12
    )
    assert np.allclose(best.parameters, 1, atol=1e-5)


def test_all_searches_find_the_two_flips_of_an_exhaustive_search():
    """Two levels of a train, the bounds of T1 and T2 of two tissues: 61 x 61 pairs, then every solver."""
    n, known = 30, mr.Tissue(t1=[0.9, 0.5], t2=[0.085, 0.065])
    levels = lambda x: jnp.repeat(x, n // 2)  # noqa: E731
    build = parametrisations.composed(mr.sequences.fisp, {"flip": levels}, tr=9 * ms, te=4 * ms, inversion_time=15 * ms)
    loss = lambda sequence, _: objectives.weighted_trace(sequence, known, mr.EPG(orders=12))  # noqa: E731
    pairs = np.stack(np.meshgrid(*[np.linspace(2, 120, 61) * deg] * 2), axis=-1).reshape(-1, 2)
    values = jax.jit(lambda many: jax.lax.map(lambda pair: loss(build({"flip": pair}), None), many))(pairs)
    least, at = float(values.min()), pairs[int(values.argmin())]
    bounds, start = {"flip": (2 * deg, 120 * deg)}, {"flip": np.array([40.0, 40.0]) * deg}
    for solver in (DifferentialEvolution(15), MultiStart(6, 64)):
        best = mr.design.optimise(build, loss, start, bounds=bounds, solver=solver, steps=80, tolerance=1e-5)
        assert least * 0.98 < best.loss <= least
        assert np.allclose(best.parameters["flip"], at, atol=2.1 * deg)


@every_solver
def test_the_same_seed_gives_the_same_search(solver):
    once, again = (mr.design.optimise(train, quadratic, START, bounds=BOUNDS, solver=solver, steps=6) for _ in range(2))
    other = mr.design.optimise(train, quadratic, START, bounds=BOUNDS, solver=solver._replace(seed=5), steps=6)
    assert np.array_equal(once.history.loss, again.history.loss)
    assert not np.array_equal(once.history.loss, other.history.loss)


@every_solver
def test_devices_share_a_population(solver):
    one = mr.design.optimise(train, quadratic, START, bounds=BOUNDS, solver=solver, steps=5)
    two = mr.design.optimise(
        train, quadratic, START, bounds=BOUNDS, solver=solver, steps=5, devices=jax.devices()
    )  # fmt: skip
    assert np.allclose(one.history.loss, two.history.loss, rtol=1e-12)


@every_solver
def test_a_search_goes_on_where_it_stopped(solver, tmp_path):
    def run(steps, **options):
        return mr.design.optimise(
            train, quadratic, START, bounds=BOUNDS, solver=solver, steps=steps, tolerance=1e-9, **options
        )

    # Beyond the round at which the worse starts end.
    through, file = run(30), tmp_path / "search.npz"
    first = run(18, checkpoint=file)
    assert len(first.history.loss) < len(through.history.loss)
    resumed = run(30, checkpoint=file)
    assert np.array_equal(resumed.history.loss, through.history.loss)
    assert np.array_equal(resumed.parameters["flip"], through.parameters["flip"])
    assert resumed.reason == through.reason
    with pytest.raises(ValueError, match=r"checkpoint .* is of another search"):
        mr.design.optimise(
            train, lambda s, p: 2 * quadratic(s, p), START, bounds=BOUNDS, solver=solver, checkpoint=file
        )
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no record of a search; give another file"):
        run(5, checkpoint=file)


def test_recorded_generations_are_not_computed_again(tmp_path, monkeypatch):
    """All but the first, which tells whether the record is of this search."""
    calls = []
    populate = evolution.Population.__new__

    def counted(cls, start, losses, *rest):
        return populate(cls, start, lambda members: calls.append(1) or losses(members), *rest)

    monkeypatch.setattr(evolution.Population, "__new__", counted)
    options = {"bounds": BOUNDS, "solver": EVOLUTION, "checkpoint": tmp_path / "search.npz", "tolerance": 1e-9}
    mr.design.optimise(train, quadratic, START, steps=7, **options)
    assert len(calls) == 8
    mr.design.optimise(train, quadratic, START, steps=9, **options)
    assert len(calls) == 8 + 1 + 2


@every_solver
def test_ctrl_c_returns_the_best_so_far(solver, monkeypatch, tmp_path):
    monkeypatch.setattr(batch, "progress_bar", lambda *_: InterruptedBar(3))
    best = mr.design.optimise(train, quadratic, START, bounds=BOUNDS, solver=solver, checkpoint=tmp_path / "kept.npz")
    assert best.reason == "interrupted"
    assert best.loss == best.history.loss.min()
    assert (tmp_path / "kept.npz").exists()


def test_infinite_losses_are_avoided():
    """Most of the box has no loss: both searches end at the edge of what has."""

    def loss(sequence, parameters):
        allowed = parameters["tr"] < 0.35
        return jnp.where(allowed, quadratic(sequence, parameters), jnp.inf)

    for solver in (EVOLUTION, DESCENT):
        best = mr.design.optimise(train, loss, START, bounds=BOUNDS, solver=solver, steps=60, tolerance=1e-7)
        assert 0.3 < float(best.parameters["tr"]) < 0.35
        assert np.isfinite(best.loss)
        with pytest.raises(ValueError, match="has a finite loss; give other bounds"):
            mr.design.optimise(train, lambda s, p: p["tr"] * jnp.inf, START, bounds=BOUNDS, solver=solver)


def test_plans_serve_a_population():
    known, tolerance = mr.Tissue(t1=0.9, t2=0.085), mr.EPG(tolerance=1e-3)
    loss = lambda sequence, parameters, model: objectives.weighted_trace(sequence, known, model)  # noqa: E731
    build = lambda flip: mr.sequences.fisp(flip, 10 * ms, 5 * ms, 0.0)  # noqa: E731
    start = np.full(20, 0.5)
    best = mr.design.optimise(
        build, loss, start, bounds=(0.05, 1.5), solver=MultiStart(2, 4), plan=(tolerance, known), steps=8
    )
    assert np.isclose(best.loss, objectives.weighted_trace(build(best.parameters), known, mr.EPG()), rtol=0.02)


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="give every parameter finite bounds"):
        mr.design.optimise(train, quadratic, START, solver="multistart")
    with pytest.raises(ValueError, match="give every parameter finite bounds"):
        mr.design.optimise(train, quadratic, START, solver="differential_evolution", bounds={**BOUNDS, "tr": None})
    with pytest.raises(ValueError, match="needs 5 members or more"):
        mr.design.optimise(train, quadratic, START, solver=DifferentialEvolution(1), bounds=BOUNDS)
    with pytest.raises(ValueError, match="needs starts >= 1, kept >= 1 and drawn >= starts - 1"):
        mr.design.optimise(train, quadratic, START, solver=MultiStart(4, 2), bounds=BOUNDS)
    with pytest.raises(ValueError, match="are of solvers with a population"):
        mr.design.optimise(train, quadratic, START, checkpoint="search.npz")

    class Script:
        def __call__(self, **parameters):
            return train(parameters)

        def guards_hold(self, **_):
            return True

    with pytest.raises(ValueError, match="a traced script may decide otherwise"):
        mr.design.optimise(Script(), quadratic, START, bounds=BOUNDS, solver="multistart")
