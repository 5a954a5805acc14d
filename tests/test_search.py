"""Descent on a loss: known optima, bounds, the best kept, why it ends, plans renewed, scripts traced again."""

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmr as mr
from checks import relative
from jaxmr.core import batch
from jaxmr.design import losses, recipes
from jaxmr.units import deg, mm, ms, us
from searches import START, InterruptedBar, quadratic, train

SOLVERS = {
    "lbfgsb": "lbfgsb",
    "projected_gradient": "projected_gradient",
    "adam": optax.adam(0.05),
    "lbfgs": optax.lbfgs(),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


@every_solver
def test_a_quadratic_is_solved(solver):
    best = mr.design.optimise(train, quadratic, START, solver=solver, steps=400, tolerance=1e-3)
    assert np.allclose(best.parameters["flip"], [1.0, 0.0, 0.3], atol=2e-3)
    assert abs(float(best.parameters["tr"]) - 0.4) < 2e-3
    assert np.array_equal(best.sequence.segments[0].pulse.flip, best.parameters["flip"])


@every_solver
def test_bounds_hold_in_every_step(solver):
    bounds = {"flip": (np.array([0.0, 0.1, 0.35]), 0.8), "tr": None}
    best = mr.design.optimise(train, quadratic, START, solver=solver, bounds=bounds, steps=400)
    assert np.allclose(best.parameters["flip"], [0.8, 0.1, 0.35], atol=1e-6)
    assert abs(float(best.parameters["tr"]) - 0.4) < 2e-3
    visited = best.history.parameters["flip"]
    assert ((visited >= bounds["flip"][0]) & (visited <= 0.8)).all()


def test_the_ernst_angle():
    """Nothing transverse survives a repetition, so that the steady state is Ernst's: cos = exp(-TR / T1)."""
    tissue = mr.Tissue(t1=0.8, t2=1 * ms)
    build = lambda flip: mr.sequences.spgr(jnp.full(200, flip), 50 * ms, 0.0)  # noqa: E731
    loss = lambda sequence, _: -jnp.abs(mr.simulate(sequence, tissue, mr.EPG(orders=2))[-1])  # noqa: E731
    best = mr.design.optimise(build, loss, 60 * deg, bounds=(1 * deg, 90 * deg), steps=40, tolerance=1e-10)
    assert abs(float(best.parameters) - math.acos(math.exp(-0.05 / 0.8))) < 1e-5


def test_the_inversion_time_that_nulls():
    tissue = mr.Tissue(t1=0.9, t2=0.08)
    build = lambda p: mr.sequences.fisp(jnp.array([90 * deg]), 10 * ms, 1 * ms, p["ti"])  # noqa: E731
    loss = lambda sequence, _: jnp.sum(jnp.abs(mr.simulate(sequence, tissue, mr.EPG(orders=2))) ** 2)  # noqa: E731
    best = mr.design.optimise(build, loss, {"ti": 0.3}, bounds={"ti": (0.01, 3.0)}, steps=40, tolerance=1e-10)
    assert abs(float(best.parameters["ti"]) - 0.9 * math.log(2)) < 1e-5


def test_the_best_is_kept_not_the_last():
    """Steps far too large."""
    best = mr.design.optimise(train, quadratic, START, solver=optax.adam(0.9), steps=15)
    at = int(best.history.loss.argmin())
    assert 0 < at < 14
    assert best.loss == best.history.loss[at] < best.history.loss[-1]
    assert np.array_equal(best.parameters["flip"], best.history.parameters["flip"][at])
    assert best.reason == "steps"


def test_history_is_the_loss_of_its_parameters():
    best = mr.design.optimise(train, quadratic, START, steps=6)
    assert best.history.parameters["flip"].shape == (len(best.history.loss), 3)
    assert np.array_equal(best.history.parameters["flip"][0], START["flip"])
    for i, value in enumerate(best.history.loss):
        parameters = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), best.history.parameters)
        assert abs(float(quadratic(train(parameters), parameters)) - value) < 1e-12


def test_it_stops_when_nothing_improves():
    flat = lambda sequence, parameters: 1.0 + 1e-6 * quadratic(sequence, parameters)  # noqa: E731
    best = mr.design.optimise(train, flat, START, solver=optax.adam(0.01), steps=100, patience=7)
    assert best.reason == "converged"
    assert len(best.history.loss) == 8


def test_small_steps_that_add_up_are_no_stop():
    """Each improves by less than the tolerance, several together by more."""
    best = mr.design.optimise(train, quadratic, START, solver=optax.sgd(2e-4), steps=60, tolerance=2e-3, patience=10)
    falls = -np.diff(best.history.loss) / best.history.loss[:-1]
    assert (falls < 2e-3).all()
    assert best.reason == "steps"


def test_an_infinite_loss_is_named():
    broken = lambda sequence, parameters: -1 / jnp.maximum(parameters["tr"] - 0.25, 0.0)  # noqa: E731
    with pytest.raises(ValueError, match=r"the loss is not finite in step [1-9]\d*: loss -inf at parameters .*'tr'"):
        mr.design.optimise(train, broken, START, solver=optax.sgd(2e-4, 0.5), steps=100)


def test_a_gradient_that_is_nan_is_named():
    broken = lambda sequence, parameters: jnp.sqrt(parameters["tr"] * 0.0)  # noqa: E731
    with pytest.raises(ValueError, match=r"the gradient of parameters\['tr'\] is not finite in step 0: loss 0"):
        mr.design.optimise(train, broken, START, solver=optax.adam(0.1))


@every_solver
def test_one_compilation_serves_all_steps(solver):
    def traces(steps):
        seen = []

        def build(parameters):
            seen.append(isinstance(parameters["tr"], jax.core.Tracer))
            return train(parameters)

        found = mr.design.optimise(build, quadratic, START, solver=solver, steps=steps, patience=50)
        assert len(found.history.loss) == steps
        return sum(seen)

    assert traces(2) == traces(12)


def test_ctrl_c_returns_the_best_so_far(monkeypatch):
    monkeypatch.setattr(batch, "progress_bar", lambda *_: InterruptedBar(4))
    best = mr.design.optimise(train, quadratic, START, solver=optax.adam(0.05))
    assert best.reason == "interrupted"
    assert len(best.history.loss) == 4
    assert best.loss == best.history.loss.min()


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match=r"solver must be one of lbfgsb, projected_gradient, .* or a solver of optax"):
        mr.design.optimise(train, quadratic, START, solver="newton")
    with pytest.raises(ValueError, match=r"bounds must be like parameters"):
        mr.design.optimise(train, quadratic, START, bounds={"flip": (0, 1)})
    with pytest.raises(ValueError, match=r"bounds of parameters\['tr'\] must be \(low, high\) or None, got 0.1"):
        mr.design.optimise(train, quadratic, START, bounds={"flip": None, "tr": 0.1})
    with pytest.raises(ValueError, match=r"parameters\['flip'\] starts outside of its bounds \(0.3, 1\)"):
        mr.design.optimise(train, quadratic, START, bounds={"flip": (0.3, 1), "tr": None})
    with pytest.raises(ValueError, match=r"loss must return one real number, got float64 of shape \(3,\)"):
        mr.design.optimise(train, lambda s, p: p["flip"], START, solver=optax.sgd(0.1))


def small_brain():
    """Fluid and two kinds of brain at odd places."""
    position = np.array([[1.0, -6.0, 0.0], [-7.0, 2.0, 0.0], [5.0, 9.0, 0.0], [0.0, 3.0, 0.0]]) * mm
    tissue = mr.Tissue([4.3, 0.84, 1.6, 4.3], [2.0, 0.071, 0.076, 2.0], m0=[1.0, 0.7, 0.84, 0.5], b0=[10.0, -5, 20, 0])
    return mr.Phantom(tissue, position, (4 * mm,) * 3)


def test_plans_are_renewed():
    """From 180 degrees, where a train has the fewest states, to small flips, where it has many."""
    place, coarse = small_brain(), mr.PDG(tolerance=1e-3)
    scan = {"matrix": (8, 8), "fov": 32 * mm, "dwell": 100 * us}
    build = lambda flip: mr.sequences.rare(flip, 8 * ms, 0.3, **scan)  # noqa: E731
    traced = []

    def loss(sequence, flip, model):
        traced.append(model.n_states)
        signal = mr.simulate(sequence, place, model)
        return 0.02 * jnp.sum(jnp.abs(signal) ** 2) + jnp.sum(flip**2)

    start = jnp.full(8, math.pi)
    best = mr.design.optimise(build, loss, start, solver=optax.adam(0.2), plan=(coarse, place), replan=4, steps=10)
    fresh = coarse.planned(best.sequence, place)
    assert relative(best.loss, loss(best.sequence, best.parameters, fresh)) < 1e-9
    assert traced[-1] > traced[0]
    never = mr.design.optimise(build, loss, start, solver=optax.adam(0.2), plan=(coarse, place), replan=100, steps=10)
    # With the first plan the losses of the last steps are others: states that the flips awoke are missing.
    assert relative(never.history.loss[:4], best.history.loss[:4]) < 1e-12
    assert relative(never.history.loss[-2:], best.history.loss[-2:]) > 1e-4


def test_a_renewed_plan_fits_the_program():
    place = small_brain()
    build = lambda flip: mr.sequences.rare(flip, 8 * ms, 0.3, matrix=(8, 8), fov=32 * mm, dwell=100 * us)  # noqa: E731
    many, few = build(jnp.full(8, 1.5)), build(jnp.full(8, math.pi))
    first = mr.PDG(1e-2).planned(many, place)
    again = first.replanned(few, place)
    own = mr.PDG(1e-2).planned(few, place)
    assert own.n_states < again.n_states == first.n_states
    assert relative(mr.simulate(few, place, again), mr.simulate(few, place, own)) < 1e-12
    shapes = lambda model: jax.tree.map(lambda leaf: leaf.shape, eqx.filter(model, eqx.is_array))  # noqa: E731
    assert shapes(again) == shapes(first)


class Deciding:
    """As a traced script: one time until `wait` passes 0.4 s, then another, which a concrete call notices."""

    extra = 0.0

    def __call__(self, wait):
        if not isinstance(wait, jax.core.Tracer) and not self.guards_hold(wait=wait):
            self.extra = 0.1
            warnings.warn("wait changed a decision of the script, which was traced again", UserWarning, stacklevel=2)
        return mr.sequences.fisp(jnp.array([0.3]), wait + self.extra, 0.0)

    def guards_hold(self, wait):
        return (wait > 0.4) == (self.extra > 0)


def test_a_script_that_decides_anew_is_traced_again():
    loss = lambda sequence, p: (mr.sequences.duration(sequence) - 0.7) ** 2  # noqa: E731
    with pytest.warns(UserWarning, match="traced again") as caught:
        best = mr.design.optimise(Deciding(), loss, {"wait": 0.3}, solver=optax.sgd(0.2), steps=60, tolerance=1e-12)
    assert len(caught) == 1
    assert abs(float(best.parameters["wait"]) - 0.6) < 1e-4
    assert abs(float(mr.sequences.duration(best.sequence)) - 0.7) < 1e-4
    # Every loss is that of the script as it decides there.
    waits = best.history.parameters["wait"]
    assert np.allclose(best.history.loss, (waits + 0.1 * (waits > 0.4) - 0.7) ** 2, atol=1e-12)


def test_fluid_is_suppressed_at_ln_2_t1():
    """The recipe in a few voxels: within 2 % of the closed form, and of the least of a search."""
    found = recipes.fluid_suppression(small_brain(), 1.0, n=8, fov=32 * mm, tolerance=1e-3)
    time = float(found.best.parameters["inversion_time"])
    assert abs(time / (4.3 * math.log(2)) - 1) < 0.02
    assert found.best.history.parameters["inversion_time"][0] == 1.0
    times = np.arange(2.7, 3.3, 0.05)
    searched = [float(losses.suppression(*found.images({"inversion_time": float(t)}))) for t in times]
    assert abs(time / times[np.argmin(searched)] - 1) < 0.02
    assert found.best.loss <= 1.001 * min(searched)


@pytest.mark.slow
def test_flips_save_sar_and_keep_the_image():
    """A TSE of 16 x 16 pixels: 43 % less SAR at half the error, or less, that scaling all flips has."""
    place = mr.objects.procedural(24)
    found = recipes.tse_sar(place, shots=2, echoes=8, steps=80)
    start = jax.tree.map(lambda leaf: leaf[0], found.best.history.parameters)
    target = found.images(start)
    error = losses.image_distance(found.images(found.best.parameters), target)
    scaled = losses.image_distance(found.images(jax.tree.map(lambda flips: recipes.SCALE * flips, start)), target)
    assert losses.squared_flips(found.best.sequence) < 0.57 * losses.squared_flips(found.traced(**start))
    assert error < 0.5 * scaled


def test_fluid_needs_fluid():
    dry = mr.Phantom(mr.Tissue([0.8, 1.6], [0.07, 0.08]), np.zeros((2, 3)), (4 * mm,) * 3)
    with pytest.raises(ValueError, match="the phantom must have fluid"):
        recipes.fluid_suppression(dry)
