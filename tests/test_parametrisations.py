"""From a few numbers to a sequence: bounds hold, and gradients of bounds agree with differences for every unknown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import central_difference
from jaxmr.design import constraints, losses, objectives, parametrisations
from jaxmr.design.parametrisations import b_spline, composed, limited_energy, shared_time, spline_within
from jaxmr.sequences import fisp, trains
from jaxmr.units import deg, ms

N = 24
TISSUE = mr.Tissue(t1=[0.9, 0.5], t2=[0.085, 0.065])
CONTROL = np.array([40.0, 10.0, 55.0, 25.0, 60.0]) * deg
FLIPS = np.asarray(trains.spline(jnp.asarray(CONTROL), N))
RNG = np.random.default_rng(0)
FIXED = {"tr": 9 * ms, "te": 4 * ms, "inversion_time": 15 * ms}

UNKNOWN = {
    "free": ({"flip": FLIPS}, {}, FIXED),
    "spline": ({"flip": CONTROL}, {"flip": spline_within(N, 0.0, 90 * deg)}, FIXED),
    "b_spline": ({"flip": CONTROL}, {"flip": b_spline(N)}, FIXED),
    "energy": ({"flip": FLIPS}, {"flip": limited_energy(0.5 * np.sum(FLIPS**2))}, FIXED),
    "tr": ({"tr": np.linspace(8, 12, N) * ms}, {}, {**FIXED, "tr": None, "flip": FLIPS}),
    "one tr": ({"tr": np.array(9 * ms)}, {}, {**FIXED, "tr": None, "flip": FLIPS}),
    "shares": (
        {"tr": np.linspace(1, 2, N)}, {"tr": shared_time(0.3, N, 6 * ms)}, {**FIXED, "tr": None, "flip": FLIPS}
    ),
    "te": ({"te": np.linspace(2, 5, N) * ms}, {}, {**FIXED, "te": None, "flip": FLIPS}),
    "inversion_time": ({"inversion_time": np.array(20 * ms)}, {}, {**FIXED, "inversion_time": None, "flip": FLIPS}),
    "phase": ({"phase": RNG.uniform(0, 1, N)}, {}, {**FIXED, "flip": FLIPS}),
    "all": (
        {"flip": CONTROL, "tr": np.linspace(8, 12, N) * ms, "te": np.array(4 * ms), "phase": RNG.uniform(0, 1, N)},
        {"flip": b_spline(N, 2)},
        {"inversion_time": 15 * ms},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("parameters", "maps", "fixed"), UNKNOWN.values(), ids=UNKNOWN)
def test_gradients_of_bounds_agree_with_differences(parameters, maps, fixed):
    build = composed(fisp, maps, **{name: value for name, value in fixed.items() if value is not None})
    loss = jax.jit(lambda p: objectives.weighted_trace(build(p), TISSUE, mr.EPG()))
    start = jax.tree.map(jnp.asarray, parameters)
    slopes = jax.jit(jax.grad(loss))(start)
    for name, leaf in start.items():
        direction = jnp.asarray(RNG.normal(size=leaf.shape))
        step = 1e-3 * float(jnp.max(jnp.abs(leaf)))
        along = lambda x, n=name, d=direction: loss({**start, n: start[n] + x * d})  # noqa: E731
        expected = central_difference(along, 0.0, step)
        assert abs(expected) > 1e-3
        assert np.isclose(jnp.sum(slopes[name] * direction), expected, rtol=1e-5)


def test_a_clipped_spline_stays_within_its_bounds():
    wild = jnp.asarray([0.0, 90, 90, 0, 90]) * deg
    inside = spline_within(200, 0.0, 90 * deg)(wild)
    plain = trains.spline(wild, 200)
    assert plain.min() < 0
    assert plain.max() > 90 * deg
    assert inside.min() == 0
    assert inside.max() == 90 * deg
    kept = (plain >= 0) & (plain <= 90 * deg)
    assert np.array_equal(inside[kept], plain[kept])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_b_splines_are_means_of_their_coefficients(degree):
    train = b_spline(100, degree)
    wild = jnp.asarray(RNG.choice([0.0, 1.0], 12))
    assert train(wild).min() > -1e-12
    assert train(wild).max() < 1 + 1e-12
    assert np.allclose(train(jnp.full(7, 0.3)), 0.3)
    assert np.isclose(train(wild)[0], wild[0])
    assert np.isclose(train(wild)[-1], wild[-1])


def test_b_splines_reproduce_polynomials():
    """Of their degree, with coefficients at the means of the knots (Greville)."""
    m, degree = 9, 3
    inner = np.linspace(0, 1, m - degree + 1)
    knots = np.concatenate([np.zeros(degree), inner, np.ones(degree)])
    greville = np.array([knots[i + 1 : i + degree + 1].mean() for i in range(m)])
    assert np.allclose(b_spline(50)(jnp.asarray(2 * greville - 1)), np.linspace(-1, 1, 50))


def test_times_add_up():
    times = shared_time(2.0, 100, 8 * ms)(jnp.asarray(RNG.uniform(0, 1, 100)))
    assert np.isclose(times.sum(), 2.0)
    assert times.min() >= 8 * ms
    assert np.allclose(np.diff(shared_time(2.0, 3, 0.0)(jnp.asarray([1.0, 2.0, 1.0]))), [0.5, -0.5])


def test_energy_is_limited():
    flips = jnp.asarray(FLIPS)
    energy = float(jnp.sum(flips**2))
    assert np.isclose(jnp.sum(limited_energy(0.3 * energy)(flips) ** 2), 0.3 * energy)
    assert np.array_equal(limited_energy(2 * energy)(flips), flips)
    both = limited_energy(0.1, spline_within(N, 0.0, 1.0))(jnp.asarray(CONTROL))
    assert np.isclose(jnp.sum(both**2), 0.1)


def test_penalties_are_zero_within_their_limits():
    sequence = fisp(np.array([0.2, 0.5, 1.0, 0.5]), 10 * ms, 5 * ms, 20 * ms)
    total, energy = 60 * ms, 0.04 + 0.25 + 1 + 0.25
    assert constraints.longer(sequence, 1.01 * total) == 0
    assert np.isclose(constraints.longer(sequence, total / 2), 1)
    assert constraints.hotter(sequence, 1.01 * energy / total) == 0
    assert np.isclose(constraints.hotter(sequence, energy / total / 3), 4)
    assert constraints.flips_above(sequence, 1.0) == 0
    assert np.isclose(constraints.flips_above(sequence, 0.25), 1 + 9 + 1)
    assert constraints.flips_below(sequence, 0.2, 1.0) == 0
    assert np.isclose(constraints.flips_below(sequence, 0.5, 0.1), 9)
    assert np.isclose(constraints.roughness(sequence), 0.2**2 + 1.0**2)
    assert constraints.outside(np.array([0.0, 2.0]), 0.0, 2.0) == 0
    assert np.isclose(constraints.outside(np.array([-1.0, 1.0, 4.0]), 0.0, 2.0), 0.25 + 1)
    assert constraints.roughness(fisp(np.linspace(0.1, 1, 9), 10 * ms, 5 * ms)) < 1e-20
    assert np.isclose(losses.squared_flips(sequence), energy)


def test_bad_input_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="tr cannot be both unknown and fixed"):
        composed(fisp, {"tr": jnp.sqrt}, tr=1.0)
    build = composed(fisp, {"flip": b_spline(N)}, **FIXED)
    with pytest.raises(ValueError, match="te fixed as well, flip missing"):
        build({"te": 1.0})
    with pytest.raises(ValueError, match="lowest must be below highest"):
        spline_within(N, 1.0, 0.5)
    with pytest.raises(ValueError, match=r"needs 4 ... n = 24 coefficients, got 3"):
        b_spline(N)(jnp.zeros(3))
    with pytest.raises(ValueError, match="total must exceed n times shortest"):
        shared_time(0.1, 100, 1 * ms)
    with pytest.raises(ValueError, match="limit must be a positive sum"):
        limited_energy(0.0)
    with pytest.raises(ValueError, match="limit must be positive and of the unit"):
        constraints.excess(1.0, 0.0)
    with pytest.raises(ValueError, match="scale must be a positive angle"):
        constraints.flips_below(build({"flip": jnp.asarray(CONTROL)}), 0.1, 0.0)
    with pytest.raises(ValueError, match="needs a train of n >= 2"):
        parametrisations.b_spline(1)
