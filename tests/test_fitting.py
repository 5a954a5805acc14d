"""Closed-form models: known maps come back, noise is met as least squares must, derivatives are the minimum's."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import loadmat
from scipy.optimize import least_squares

from checks import as_float32, central_difference, relative
from jaxmr.recon import (
    SignalModel,
    fit,
    inversion_recovery,
    magnitude,
    saturation_recovery,
    t2_decay,
    variable_flip_angle,
)
from jaxmr.units import deg, ms

TI = np.array([0.1, 0.4, 0.9, 1.8, 4.0])
MODELS = {
    "inversion recovery": inversion_recovery(TI),
    "saturation recovery": saturation_recovery(np.array([0.2, 0.5, 1.0, 1.5, 8.0])),
    "variable flip angle": variable_flip_angle(np.array([3, 8, 15, 25]) * deg, 15 * ms),
    "t2 decay": t2_decay(np.arange(1, 9) * 12 * ms),
}
RANGES = {"t1": (0.3, 3.0), "t2": (0.02, 0.2)}


def voxels(model, shape, seed=0, real=False):
    """Unknowns, m0 and signals."""
    rng = np.random.default_rng(seed)
    maps = {name: rng.uniform(*RANGES[name], shape) for name in model.unknowns}
    m0 = rng.uniform(0.3, 3, shape) * (rng.choice([-1, 1], shape) if real else np.exp(2j * np.pi * rng.random(shape)))
    of = model
    for _ in shape:
        of = jax.vmap(of)
    return maps, m0, np.array(of(m0, **maps))


def noise(shape, level, seed=1):
    rng = np.random.default_rng(seed)
    return level * (rng.normal(size=shape) + 1j * rng.normal(size=shape))


@pytest.mark.parametrize(("name", "real"), [(name, False) for name in MODELS] + [("inversion recovery", True)])
def test_noiseless_maps_come_back(name, real):
    maps, m0, data = voxels(MODELS[name], (20, 30), real=real)
    found = fit(MODELS[name], data)
    for key, value in maps.items():
        np.testing.assert_allclose(getattr(found, key), value, rtol=1e-6)
    np.testing.assert_allclose(found.m0, m0, rtol=1e-6)
    assert found.m0.dtype == (float if real else complex)
    assert found.converged.all()
    assert found.iterations.max() < 10
    assert (np.asarray(found.residual) < 1e-6).all()
    assert set(found.images) == {*maps, "m0", "residual"}


def test_signals_are_those_of_the_textbook():
    t1, t2 = 0.9, 0.08
    assert inversion_recovery([0.0, 1e9])(t1=t1) == pytest.approx([-1, 1])
    assert inversion_recovery([t1 * np.log(2)])(t1=t1) == pytest.approx([0], abs=1e-12)
    assert inversion_recovery([0.0, 1e9])(t1=t1, efficiency=0.9) == pytest.approx([-0.9, 1])
    assert saturation_recovery([0.0, t1])(2j, t1=t1) == pytest.approx([0, 2j * (1 - np.exp(-1))])
    assert t2_decay([0.0, t2])(3.0, t2=t2) == pytest.approx([3, 3 / np.e])
    # Recursion of the longitudinal magnetisation to its steady state.
    mz, flip, tr = 1.0, 0.3, 0.02
    for _ in range(3000):
        mz = 1 - (1 - mz * np.cos(0.8 * flip)) * np.exp(-tr / t1)
    assert variable_flip_angle([flip], tr)(t1=t1, b1=0.8) == pytest.approx([mz * np.sin(0.8 * flip)])


def test_values_of_qmrlab(shared):
    """Signals that another program made of known maps."""
    file = loadmat(shared / "qmrlab" / "value_inversion_recovery.mat", squeeze_me=True)
    times = np.array([350, 500, 650, 800, 950, 1100, 1250, 1400, 1700]) * ms
    sizes, signed = (np.asarray(signal, float) for signal in file["Smodel"])
    model = inversion_recovery(times)
    # a + b exp(-ti / t1) with a = 500, b = -1000: full inversion of m0 = 500.
    for of, data in ((model, signed), (magnitude(model), sizes)):
        found = fit(of, data[None])
        np.testing.assert_allclose([found.t1[0], found.m0[0]], [0.6, 500], rtol=1e-6)
    free = fit(inversion_recovery(times, efficiency=(0.5, 1.2)), signed[None])
    np.testing.assert_allclose([free.t1[0], free.m0[0], free.efficiency[0]], [0.6, 500, 1], rtol=1e-6)
    data = np.asarray(loadmat(shared / "qmrlab" / "value_vfa_t1.mat", squeeze_me=True)["Smodel"], float)
    found = fit(variable_flip_angle(np.array([3, 20]) * deg, 15 * ms), data[None])
    np.testing.assert_allclose([found.t1[0], found.m0[0]], [0.7, 2000], rtol=1e-6)


def test_magnitudes_tell_their_signs():
    """Every place of the zero between the delays, by the magnitude alone."""
    times = np.array([0.1, 0.2, 0.4, 0.6, 0.9, 1.3, 1.8, 2.5, 4.0])
    t1 = np.linspace(0.2, 4, 400)
    data = 700 * np.abs(jax.vmap(lambda t: inversion_recovery(times)(t1=t))(t1))
    found = fit(magnitude(inversion_recovery(times)), data)
    np.testing.assert_allclose(found.t1, t1, rtol=1e-6)
    np.testing.assert_allclose(found.m0, 700, rtol=1e-6)


def test_noisy_voxels_end_where_scipy_does():
    model = MODELS["inversion recovery"]
    _, _, data = voxels(model, (40,))
    data = data + noise(data.shape, 0.05)
    found = fit(model, data, tolerance=1e-9)

    def left(x, y):
        r = (x[1] + 1j * x[2]) * (1 - 2 * np.exp(-TI / x[0])) - y
        return np.concatenate([r.real, r.imag])

    for i, y in enumerate(data):
        starts = [[t1, y[-1].real, y[-1].imag] for t1 in (0.1, 0.5, 1.0, 3.0)]
        runs = [least_squares(left, s, args=(y,), bounds=([0.01, -9, -9], [20, 9, 9]), xtol=1e-12) for s in starts]
        best = min(runs, key=lambda run: run.cost)
        assert np.sqrt(2 * best.cost) == pytest.approx(float(found.residual[i]), rel=1e-9)
        np.testing.assert_allclose([found.t1[i], found.m0[i].real, found.m0[i].imag], best.x, rtol=1e-5, atol=1e-6)


def test_single_precision():
    for name in ("inversion recovery", "variable flip angle"):
        model = MODELS[name]
        maps, m0, data = voxels(model, (2000,))
        found = fit(model, data.astype(np.complex64))
        (key, value), *_ = maps.items()
        assert getattr(found, key).dtype == jnp.float32
        assert found.m0.dtype == jnp.complex64
        assert found.converged.all(), name
        # Rounding of the data alone, 6e-8, moves a voxel by this much where it is least determined.
        exact = fit(model, data.astype(np.complex64).astype(complex))
        np.testing.assert_allclose(getattr(found, key), getattr(exact, key), rtol=1e-5)
        assert np.median(np.abs(getattr(found, key) / value - 1)) < 5e-7
        assert relative(found.m0, m0) < 3e-6


def test_known_maps_and_two_unknowns():
    rng = np.random.default_rng(4)
    t1, b1, efficiency = rng.uniform(0.3, 3, 50), rng.uniform(0.7, 1.3, 50), rng.uniform(0.7, 1.0, 50)
    model = MODELS["variable flip angle"]
    data = jax.vmap(lambda t1, b1: model(1 + 2j, t1=t1, b1=b1))(t1, b1)
    np.testing.assert_allclose(fit(model, data, known={"b1": b1}).t1, t1, rtol=1e-6)
    assert relative(fit(model, data).t1, t1) > 0.1
    both = inversion_recovery(TI, efficiency=(0.3, 1.2))
    data = jax.vmap(lambda t1, e: both(2j, t1=t1, efficiency=e))(t1, efficiency)
    found = fit(both, data)
    np.testing.assert_allclose(found.t1, t1, rtol=1e-6)
    np.testing.assert_allclose(found.efficiency, efficiency, rtol=1e-6)


def test_a_model_of_ones_own_whose_signal_is_complex():
    """Two echo trains of water that precesses: an unknown of both signs, its phase apart from m0's."""
    te = np.arange(1, 7) * 2.5 * ms

    def decay(te, t2, b0):
        return jnp.exp(-te / t2 + 2j * jnp.pi * b0 * te)

    model = SignalModel(eqx.Partial(decay, te), t2=(0.005, 0.5), b0=(-150.0, 150.0))
    rng = np.random.default_rng(5)
    t2, b0 = rng.uniform(0.01, 0.1, 60), rng.uniform(-140, 140, 60)
    data = jax.vmap(lambda t2, b0: model(1 - 1j, t2=t2, b0=b0))(t2, b0)
    found = fit(model, data)
    np.testing.assert_allclose(found.t2, t2, rtol=1e-6)
    np.testing.assert_allclose(found.b0, b0, rtol=1e-6)


def test_the_prior_is_weighed_as_stated():
    model = MODELS["saturation recovery"]
    maps, m0, data = voxels(model, (30,))
    data = data + noise(data.shape, 0.1)
    prior = {"t1": maps["t1"] * 1.3, "m0": m0 * np.exp(0.2j)}
    found = fit(model, data, prior=prior, regularisation={"t1": 0.7, "m0": 0.4}, tolerance=1e-10)

    def objective(t1, re, im, signal, t1_prior, m0_prior):
        m0 = re + 1j * im
        penalty = 0.7 * (t1 - t1_prior) ** 2 + 0.4 * jnp.abs(m0 - m0_prior) ** 2
        return jnp.sum(jnp.abs(model(m0, t1=t1) - signal) ** 2) + penalty

    at = found.t1, found.m0.real, found.m0.imag, data, prior["t1"], prior["m0"]
    slopes = jax.vmap(jax.grad(objective, argnums=(0, 1, 2)))(*at)
    assert max(float(jnp.abs(slope).max()) for slope in slopes) < 1e-7
    far = fit(model, data, prior=prior, regularisation=1e8)
    np.testing.assert_allclose(far.t1, prior["t1"], rtol=1e-4)
    np.testing.assert_allclose(far.m0, prior["m0"], rtol=1e-4)


POINT_VOXELS = 12


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_are_those_of_the_minimum(name):
    """Noisy data, so that the residual's curvature counts; every argument; forward, reverse and second."""
    model = MODELS[name]
    maps, m0, clean = voxels(model, (POINT_VOXELS,))
    (key, truth), *_ = maps.items()
    rng = np.random.default_rng(6)
    data = jnp.asarray(clean + noise(clean.shape, 0.03 * np.abs(clean).mean()))
    # Weights that matter beside the data, whatever the scale of the signal.
    size = np.abs(clean).mean() ** 2
    weights = {key: size / truth**2 * 2, "m0": jnp.asarray(0.5 * size)}
    point = data, jnp.asarray(truth * 1.1), jnp.asarray(m0 * (1 + 0.1j)), weights
    ways = (
        jnp.asarray(noise(data.shape, 0.1 * np.abs(clean).mean())),
        0.1 * truth * rng.normal(size=truth.shape),
        jnp.asarray(noise(m0.shape, 0.1)),
        {key: weights[key] * rng.normal(size=truth.shape) * 0.3, "m0": weights["m0"] * 0.3},
    )

    def loss(point):
        data, parameter, factor, weights = point
        prior = {key: parameter, "m0": factor}
        found = fit(model, data, prior=prior, regularisation=weights, tolerance=1e-11)
        return jnp.sum((getattr(found, key) / truth) ** 2) + jnp.sum(jnp.abs(found.m0 - 1j) ** 2)

    def along(steps):
        def moved(step, p, way):
            return jax.tree.map(lambda p, way: p + step * way, p, way)

        return loss(tuple(moved(step, p, way) for step, p, way in zip(steps, point, ways, strict=True)))

    zero, of = jnp.zeros(4), jax.jit(along)
    expected = [central_difference(lambda t, e=e: of(t * e), 0.0, 1e-2) for e in np.eye(4)]
    gradient = jax.jit(jax.grad(along))
    np.testing.assert_allclose(gradient(zero), expected, rtol=1e-5)
    if name == "inversion recovery":
        np.testing.assert_allclose(jax.jit(jax.jacfwd(along))(zero), expected, rtol=1e-5)
        curvature = [central_difference(lambda t, e=e: gradient(t * e), 0.0, 1e-2) for e in np.eye(4)]
        assert relative(jax.jit(jax.hessian(along))(zero), curvature) < 1e-5


def test_derivatives_without_a_prior_in_known_maps_and_in_the_times():
    model = MODELS["variable flip angle"]
    _, _, data = voxels(model, (8,))
    data = jnp.asarray(data + noise(data.shape, 1e-3))
    b1 = jnp.linspace(0.8, 1.2, 8)

    def along(t):
        moved = variable_flip_angle(jnp.array([3, 8, 15, 25]) * deg * (1 + t), 15 * ms * (1 - 2 * t))
        found = fit(
            moved, data * (1 + 1j * t) + t * data[::-1], known={"b1": b1 * (1 + t**2 + 0.5 * t)}, tolerance=1e-11
        )
        return jnp.concatenate([found.t1, found.m0.real, found.m0.imag])

    expected = central_difference(jax.jit(along), 0.0, 1e-4)
    assert relative(jax.jit(jax.jacfwd(along))(0.0), expected) < 1e-7
    assert relative(jax.jit(jax.jacrev(along))(0.0), expected) < 1e-7


def test_single_precision_gradients():
    model = MODELS["inversion recovery"]
    _, _, data = voxels(model, (200,))
    data = data + noise(data.shape, 0.02)

    def gradient(data):
        return jax.grad(lambda d: jnp.sum(jnp.sin(3 * fit(model, d).t1)))(data)

    assert relative(gradient(data.astype(np.complex64)), gradient(jnp.asarray(data))) < 1e-4


def test_empty_voxels():
    model = MODELS["inversion recovery"]
    _, _, data = voxels(model, (4,))
    data[1] = 0
    found = fit(model, data)
    assert found.m0[1] == 0
    assert found.t1[1] == pytest.approx(np.sqrt(0.01 * 20))
    assert found.converged.all()
    assert fit(model, data, initial={"t1": 0.7}).t1[1] == pytest.approx(0.7)

    def loss(data, weight):
        found = fit(model, data, prior={"t1": 0.8}, regularisation=weight)
        return jnp.sum(found.t1) + jnp.sum(jnp.abs(found.m0) ** 2)

    def plain(data):
        found = fit(model, data)
        return jnp.sum(found.t1 + found.m0.real)

    for gradient in (jax.grad(plain)(jnp.asarray(data)), *jax.grad(loss, (0, 1))(jnp.asarray(data), 0.3)):
        assert np.isfinite(gradient).all()
    slope = jax.grad(plain)(jnp.asarray(data))[1]
    # m0 still follows the data, by the model at the start.
    shape = model.shape(t1=found.t1[1])
    assert relative(slope, shape / jnp.sum(shape**2)) < 1e-12
    held = fit(model, data, prior={"t1": 0.8}, regularisation=0.3)
    assert held.t1[1] == pytest.approx(0.8, rel=1e-6)
    everything = fit(model, np.zeros((2, 2, 5)))
    assert np.isfinite(everything.t1).all()


def test_unknowns_stay_within_their_bounds():
    model = inversion_recovery(TI, t1=(0.1, 1.0))
    data = jax.vmap(lambda t1: model(1.0, t1=t1))(jnp.array([0.5, 2.5]))
    found = fit(model, data)
    np.testing.assert_allclose(found.t1, [0.5, 1.0], rtol=1e-6)
    assert found.converged.all()
    rows = jax.jacrev(lambda d: fit(model, d).t1)(data)
    assert (np.asarray(rows[1]) == 0).all()
    assert (np.abs(rows[0, 0]) > 0).all()
    assert (np.asarray(rows[0, 1]) == 0).all()


def test_compiled_mapped_and_warm_started():
    model = MODELS["t2 decay"]
    maps, _, data = voxels(model, (3, 10))
    found = jax.jit(jax.vmap(lambda d: fit(model, d)))(data)
    np.testing.assert_allclose(found.t2, maps["t2"], rtol=1e-6)
    again = fit(model, data, initial={"t2": maps["t2"] * (1 + 1e-9)})
    assert int(again.iterations.max()) == 1
    assert as_float32(found).t2.shape == (3, 10)


def test_bad_input_is_refused_with_the_remedy():
    model = MODELS["inversion recovery"]
    data = np.ones((3, 5))
    with pytest.raises(ValueError, match=r"data must end in the \(5,\) times of the model, got shape \(5, 3\); move"):
        fit(model, data.T)
    with pytest.raises(ValueError, match=r"data must be finite, got nan at index \(0, 2\); set voxels outside"):
        fit(model, np.where(np.arange(5) == 2, np.nan, data))
    with pytest.raises(ValueError, match=r"prior names 't2', but the model's are t1, m0"):
        fit(model, data, prior={"t2": 1.0}, regularisation=1.0)
    with pytest.raises(ValueError, match=r"prior\['t1'\] must broadcast to the voxels of data, \(3,\), got \(4,\)"):
        fit(model, data, prior={"t1": np.ones(4)}, regularisation=1.0)
    with pytest.raises(ValueError, match="prior and regularisation go together"):
        fit(model, data, prior={"t1": 1.0})
    with pytest.raises(ValueError, match="prior and regularisation go together"):
        fit(model, data, regularisation=1.0)
    with pytest.raises(ValueError, match=r"regularisation\['t1'\] must be at least 0, got -1"):
        fit(model, data, prior={"t1": 1.0}, regularisation=-1.0)
    with pytest.raises(ValueError, match=r"prior\['m0'\] is complex but data are real"):
        fit(model, data, prior={"m0": 1j}, regularisation=1.0)
    with pytest.raises(ValueError, match=r"known has \('b2',\), which the model does not take beside \('t1',\)"):
        fit(model, data, known={"b2": 1.0})
    with pytest.raises(ValueError, match=r"initial must have all of"):
        fit(inversion_recovery(TI, efficiency=(0.5, 1.0)), data, initial={"t1": 1.0})
    with pytest.raises(ValueError, match=r"times must be at least 0, got -1 at index \(0,\); times are in seconds"):
        inversion_recovery([-1.0, 2.0])
    with pytest.raises(ValueError, match=r"bounds of t1 must be \(low, high\) with low < high"):
        inversion_recovery(TI, t1=(2.0, 1.0))
    with pytest.raises(ValueError, match=r"flips must have shape \(n,\) and tr \(\) or \(n,\)"):
        variable_flip_angle([0.1, 0.2], [0.01, 0.02, 0.03])
    with pytest.raises(AttributeError, match="Fit has no attribute 't2'; its parameters are t1"):
        _ = fit(model, data).t2
