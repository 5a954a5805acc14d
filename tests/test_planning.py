"""Plans: chosen orders keep their promise, too few are reported."""

from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.models import planning, slicing
from jaxmr.models.driver import simulate_many
from jaxmr.units import deg, mm, ms

GAUSS = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)
SEQUENCE = mr.sequences.fisp(sine_train(400), 12 * ms, 3 * ms, 20 * ms)
TISSUE = mr.Tissue(t1=[0.5, 1.0, 4.0, 1.2], t2=[0.03, 0.085, 1.0, 0.3], b1=[0.8, 1.0, 1.2, 1.1])


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_planned_orders_keep_the_tolerance(tolerance):
    model = mr.plan(SEQUENCE, TISSUE, mr.EPG(tolerance=tolerance))
    assert model.error <= tolerance
    assert model.orders < 200
    exact = mr.simulate(SEQUENCE, TISSUE, mr.EPG())
    planned = mr.simulate(SEQUENCE, TISSUE, model)
    errors = [relative(ours, theirs) for ours, theirs in zip(planned, exact, strict=True)]
    assert max(errors) <= tolerance
    if tolerance > 1e-4:  # there the plan is all but exact
        # The estimate is of use: not orders of magnitude above what happens.
        assert max(errors) > 0.05 * model.error


def test_constant_rf_spoiled_train_needs_more_orders_and_gets_them():
    """Constant 60 degrees with RF spoiling: paths that T2 alone would not predict."""
    sequence = mr.sequences.spgr(np.full(400, 60 * deg), 10 * ms, 3 * ms)
    tissue = mr.Tissue(t1=[2.0], t2=[1.0])
    model = mr.plan(sequence, tissue, mr.EPG(tolerance=1e-3))
    exact = mr.simulate(sequence, tissue, mr.EPG())
    assert relative(mr.simulate(sequence, tissue, model), exact) < 1e-3


def test_an_unreachable_tolerance_is_exact():
    short = mr.sequences.fisp(sine_train(30), 12 * ms, 3 * ms)
    model = mr.plan(short, mr.Tissue(t1=4.0, t2=2.0), mr.EPG(tolerance=1e-9))
    assert model.orders is None
    assert model.error == 0


def test_too_few_orders_warn_with_the_error_to_expect():
    tissue = mr.Tissue(t1=[4.0], t2=[2.0])
    with pytest.warns(
        mr.AccuracyWarning, match=r"orders=6 is too few for t2 = 2 s: expect errors of .* tolerance="
    ) as seen:
        signal = mr.simulate(SEQUENCE, tissue, mr.EPG(orders=6))
    said = float(str(seen[0].message).split("errors of ")[1].split(" %")[0]) / 100
    error = relative(signal, mr.simulate(SEQUENCE, tissue, mr.EPG()))
    assert 0.3 * error < said < 3 * error
    assert "jaxmr" not in Path(seen[0].filename).parts[-3:-1]  # it names the line that called
    # Enough of them are silent (warnings are errors here).
    mr.simulate(SEQUENCE, mr.Tissue(t1=[1.0], t2=[0.05]), mr.EPG(orders=20))


def test_a_plan_serves_jit_and_grad():
    model = mr.plan(SEQUENCE, TISSUE, mr.EPG(tolerance=1e-3))
    loss = jax.jit(lambda t2: abs(mr.simulate(SEQUENCE, mr.Tissue(t1=1.0, t2=t2), model)).sum())
    assert np.isfinite(jax.grad(loss)(0.08))
    with pytest.raises(ValueError, match="plan looks at values, and these are being traced"):
        jax.jit(lambda t2: mr.plan(SEQUENCE, mr.Tissue(t1=1.0, t2=t2), mr.EPG(tolerance=1e-3)) and t2)(0.1)


@pytest.mark.parametrize("b1", ["none", "levels", "each"])
def test_many_voxels_equal_single_ones(b1):
    """Grouped by T2 and B1, padded, on two devices: every row is the exact signal within the tolerance."""
    rng = np.random.default_rng(0)
    n = 150
    tissue = mr.Tissue(
        t1=rng.uniform(1, 2, n),
        t2=np.geomspace(0.02, 0.9, n)[rng.permutation(n)],
        b1={"none": None, "levels": np.repeat([0.9, 1.0, 1.1], 50), "each": rng.uniform(0.8, 1.2, n)}[b1],
        m0=rng.uniform(1, 2, n),
    )
    sequence = mr.sequences.fisp(sine_train(60), 12 * ms, 3 * ms, 20 * ms)
    found = simulate_many(sequence, tissue, mr.EPG(tolerance=1e-3))
    exact = mr.simulate(sequence, tissue, mr.EPG())
    assert found.error <= 1e-3
    assert max(relative(ours, theirs) for ours, theirs in zip(found.signals, exact, strict=True)) < 1e-3


def test_groups_share_one_plan():
    bands = [TISSUE[np.array([0, 1])], TISSUE[np.array([2])]]
    few, many = planning.plan_groups(SEQUENCE, bands, mr.EPGBloch(pulse=GAUSS, tolerance=1e-3))
    assert few.orders < many.orders
    assert max(few.error, many.error) <= 1e-3


@pytest.mark.parametrize(
    "sliced", [lambda **n: mr.EPGBloch(pulse=GAUSS, **n), lambda **n: mr.EPG(profile=mr.rf.small_tip(GAUSS), **n)]
)
def test_error_of_sub_slices_is_predicted(sliced):
    """One fine simulation tells what every coarser grid would have given."""
    tissue = mr.Tissue(t1=[0.5, 1.0, 4.0], t2=[0.03, 0.1, 2.0], b1=[1.0, 0.9, 1.2])
    predicted = slicing.slice_errors(sliced(n_z=slicing.N_FINE, orders=24), SEQUENCE, tissue)
    simulate = jax.jit(lambda model: mr.simulate(SEQUENCE, tissue, model))
    fine = simulate(sliced(n_z=512, orders=24))
    for n_z in (12, 20, 48):
        true = [relative(a, b) for a, b in zip(simulate(sliced(n_z=n_z, orders=24)), fine, strict=True)]
        np.testing.assert_allclose(predicted[:, slicing.LADDER.index(n_z)], true, rtol=0.05, atol=3e-6)


def test_tolerance_chooses_sub_slices_where_they_are_open():
    tissue = mr.Tissue(t1=[0.5, 1.0], t2=[0.03, 0.1], b1=[0.8, 1.2])
    model = mr.plan(SEQUENCE, tissue, mr.EPGBloch(pulse=GAUSS, tolerance=1e-3))
    assert model.n_z is not None
    assert 8 < model.n_z < 64
    signal = mr.simulate(SEQUENCE, tissue, model)
    exact = mr.simulate(SEQUENCE, tissue, mr.EPGBloch(pulse=GAUSS, n_z=192))
    errors = [relative(a, b) for a, b in zip(signal, exact, strict=True)]
    assert 0.1 * float(model.error) < max(errors) < min(1e-3, 1.3 * float(model.error))
    given = mr.plan(SEQUENCE, tissue, mr.EPGBloch(pulse=GAUSS, n_z=10, tolerance=1e-3))
    assert given.n_z == 10


def test_a_plan_is_remembered(monkeypatch):
    model = mr.plan(SEQUENCE, TISSUE, mr.EPG(tolerance=2e-3))
    monkeypatch.setattr(planning, "_errors", None)
    again = mr.plan(SEQUENCE, TISSUE, mr.EPG(tolerance=2e-3))
    assert (again.orders, again.error) == (model.orders, model.error)
    with pytest.raises(TypeError):
        mr.plan(SEQUENCE, TISSUE[:2], mr.EPG(tolerance=2e-3))
