"""The front door: models against the slow verbs, closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import as_float32, central_difference, gradient_spoiled, relative, sine_train
from jaxmr.models.model import _compiled, _ready
from jaxmr.physics import epg
from jaxmr.units import deg, mm, ms

GAUSS = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)
N = 48


@pytest.fixture(scope="module")
def varying():
    """A train that varies in all its numbers."""
    rng = np.random.default_rng(5)
    return {"flip": rng.uniform(-0.5, 1.8, N), "tr": rng.uniform(11, 14, N) * ms, "te": rng.uniform(2, 5, N) * ms}


@pytest.mark.parametrize(
    ("phase", "b0", "real"), [(None, None, True), (0.7, None, True), ("random", None, False), (None, 23.0, False)]
)
def test_kernels_equal_verbs(varying, phase, b0, real):
    """Real and complex kernels, exact orders, against EPG verb by verb."""
    phase = np.random.default_rng(0).uniform(-3, 3, N) if phase == "random" else phase
    sequence = mr.sequences.fisp(**varying, inversion_time=20 * ms, phase=phase)
    tissue = mr.Tissue(t1=[0.9, 2.0], t2=[0.085, 0.9], b1=[0.9, 1.15], b0=None if b0 is None else [b0, -b0])
    signal = mr.simulate(sequence, tissue, mr.EPG())
    for i, (t1, t2, b1, sign) in enumerate([(0.9, 0.085, 0.9, 1), (2.0, 0.9, 1.15, -1)]):
        expected = gradient_spoiled(
            **varying,
            t1=t1,
            t2=t2,
            b1=b1,
            inversion_time=20 * ms,
            phase=phase or 0.0 if np.ndim(phase) == 0 else phase,
            b0=sign * (b0 or 0.0),
        )
        assert np.abs(signal[i] - expected).max() < 1e-13
    if real and phase is None:
        assert np.abs(signal.real).max() == 0


def test_off_resonance_of_a_constant_train_is_a_phase():
    """The states never see b0, yet the signal is the one of states that precess."""
    flip = sine_train(N)
    sequence = mr.sequences.fisp(flip, 12 * ms, 3 * ms, 20 * ms)
    tissue = mr.Tissue(t1=0.9, t2=0.085, b0=31.0)
    expected = gradient_spoiled(flip, 12 * ms, 3 * ms, 0.9, 0.085, inversion_time=20 * ms, b0=31.0)
    assert np.abs(mr.simulate(sequence, tissue, mr.EPG()) - expected).max() < 1e-13


def psif(tr, n=20):
    """A train sampled after its spoiler, where static dephasing runs backwards: the echo forms at the next pulse."""
    tr = jnp.asarray(tr)
    events = (
        mr.sequences.Event(0.8 * tr, order=1, samples=1, moment=jnp.array([0.0, 0.0, 1e4])),
        mr.sequences.Event(0.2 * tr),
    )
    return mr.sequences.Sequence((mr.sequences.Segment(mr.sequences.Pulse(jnp.full(n, 0.7)), events, n),))


def test_off_resonance_after_the_spoiler_is_the_phase_of_a_coming_echo():
    """The net time is negative: as a phase (constant TR), and by precessing states (the same TR, given per pulse)."""
    tissue = mr.Tissue(t1=0.9, t2=0.085, b0=31.0)
    phase = mr.simulate(psif(12 * ms), tissue, mr.EPG())
    states = mr.simulate(psif(np.full(20, 12 * ms)), tissue, mr.EPG())
    assert np.abs(phase - states).max() < 1e-13
    plain = mr.simulate(psif(12 * ms), mr.Tissue(t1=0.9, t2=0.085), mr.EPG())
    assert np.abs(phase[1:] - plain[1:] * np.exp(-2j * np.pi * 31.0 * 2.4 * ms)).max() < 1e-13


def test_constant_train_t2_prime_is_a_decay_at_te():
    sequence = mr.sequences.fisp(sine_train(N), 12 * ms, 3 * ms)
    plain = mr.simulate(sequence, mr.Tissue(t1=0.9, t2=0.085), mr.EPG())
    decayed = mr.simulate(sequence, mr.Tissue(t1=0.9, t2=0.085, t2_prime=0.03), mr.EPG())
    assert np.abs(decayed - np.exp(-0.1) * plain).max() < 1e-15
    varying = mr.sequences.fisp(sine_train(N), np.full(N, 12 * ms), 3 * ms)
    with pytest.raises(ValueError, match=r"t2_prime needs a sequence .* PDG"):
        mr.simulate(varying, mr.Tissue(t1=0.9, t2=0.085, t2_prime=0.03), mr.EPG())


def test_t2_prime_is_the_mean_over_lorentzian_frequencies():
    """Both rules against their definition: average over b0 with quantiles of the Cauchy distribution."""
    t2_prime, n = 0.02, 20001
    quantiles = (np.arange(n) + 0.5) / n
    b0 = np.tan(np.pi * (quantiles - 0.5)) / (2 * np.pi * t2_prime)
    for sequence in (mr.sequences.fisp(sine_train(12), 12 * ms, 3 * ms), mr.sequences.cpmg(6, 10 * ms)):
        spread = mr.simulate(sequence, mr.Tissue(t1=np.full(n, 0.9), t2=0.085, b0=b0), mr.EPG()).mean(0)
        decayed = mr.simulate(sequence, mr.Tissue(t1=0.9, t2=0.085, t2_prime=t2_prime), mr.EPG())
        assert relative(decayed, spread) < 1e-4


def test_cpmg_with_perfect_refocusing_decays_by_t2():
    signal = mr.simulate(mr.sequences.cpmg(20, 10 * ms), mr.Tissue(t1=0.9, t2=0.07, b0=80.0), mr.EPG())
    expected = -1j * np.exp(-np.arange(1, 21) * 10 * ms / 0.07)
    assert np.abs(signal - expected).max() < 1e-14


@pytest.mark.parametrize("phase", [None, np.pi / 2, 0.4])
def test_tse_equals_verbs(phase):
    """Imperfect refocusing, also about an axis of its own: stimulated echoes and T1."""
    flips = np.deg2rad([160, 140, 120, 100, 90, 80, 70])
    sequence = mr.sequences.tse(flips, 8 * ms, refocusing_phase=phase)
    signal = mr.simulate(sequence, mr.Tissue(t1=0.9, t2=0.07), mr.EPG())
    states, expected = epg.rf(epg.initial(20), np.pi / 2), []
    states = epg.dephase(epg.relax(states, 4 * ms, 0.9, 0.07))
    for flip in flips:
        states = epg.dephase(epg.relax(epg.rf(states, flip, np.pi / 2 if phase is None else phase), 4 * ms, 0.9, 0.07))
        expected.append(epg.signal(states))
        states = epg.dephase(epg.relax(states, 4 * ms, 0.9, 0.07))
    assert np.abs(signal - np.array(expected)).max() < 1e-14


def test_bssfp_reaches_the_freeman_hill_steady_state():
    t1, t2, tr, flip = 0.5, 0.1, 5 * ms, 40 * deg
    signal = mr.simulate(mr.sequences.bssfp(np.full(2000, flip), tr), mr.Tissue(t1=t1, t2=t2), mr.EPG())
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    expected = np.sin(flip) * (1 - e1) / (1 - (e1 - e2) * np.cos(flip) - e1 * e2) * np.exp(-tr / 2 / t2)
    # Alternating flips, receiver following: one constant phase.
    assert np.abs(signal[-2:] - (-1j * expected)).max() < 1e-9


def test_bssfp_off_resonance_makes_bands():
    """At b0 = 1 / (2 tr) alternating pulses meet their dark band; one period on, the signal is back."""
    tr = 5 * ms
    b0 = np.array([0.0, 0.5, 1.0]) / tr
    signal = mr.simulate(
        mr.sequences.bssfp(np.full(1500, 40 * deg), tr), mr.Tissue(t1=0.5, t2=[0.1] * 3, b0=b0), mr.EPG()
    )
    level = np.abs(signal[:, -1])
    assert level[1] < 0.15 * level[0]
    assert np.isclose(level[2], level[0], rtol=1e-6)


def test_ideally_spoiled_gradient_echo_is_ernst():
    """T2 so short that nothing survives a TR: the Ernst formula."""
    t1, tr, te, flip = 0.9, 100 * ms, 0.1 * ms, 30 * deg
    signal = mr.simulate(mr.sequences.spgr(np.full(120, flip), tr, te), mr.Tissue(t1=t1, t2=1 * ms), mr.EPG(orders=8))
    e1 = np.exp(-tr / t1)
    expected = np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip)) * np.exp(-te / 1e-3)
    assert np.abs(signal[-1] - (-1j * expected)) < 1e-10


def test_rf_spoiled_train_equals_epg_x(shared):
    """The family `spgr` and the kernels against EPG-X: TR 5 ms, 10 degrees, increment 117 degrees."""
    reference = np.load(shared / "sycomore" / "EPGX_GRE_dev.npz")["Fn0"][100]
    increment = np.deg2rad(117)
    sequence = mr.sequences.spgr(np.full(200, 10 * deg), 5 * ms, 0.0, rf_increment=increment)
    n = np.arange(200)
    demodulated = reference * np.exp(-1j * n * (n + 1) / 2 * increment)
    for dtype, bar in ((np.float64, 1e-10), (np.float32, 1e-5)):
        tissue = mr.Tissue(t1=dtype(0.779), t2=dtype(0.045))
        signal = mr.simulate(sequence, tissue, mr.EPG())
        assert np.abs(signal - demodulated).max() < bar


def test_diffusion_equals_verbs():
    flip, spoiler, diffusivity = sine_train(N), 4e5, 2.3e-9
    sequence = mr.sequences.fisp(flip, 12 * ms, 3 * ms, 20 * ms, spoiler=spoiler)
    signal = mr.simulate(sequence, mr.Tissue(t1=0.9, t2=0.5, diffusivity=diffusivity), mr.EPG())
    expected = gradient_spoiled(
        flip, 12 * ms, 3 * ms, 0.9, 0.5, inversion_time=20 * ms, diffusion=(diffusivity, spoiler)
    )
    assert relative(signal, expected) < 1e-12
    assert relative(mr.simulate(sequence, mr.Tissue(t1=0.9, t2=0.5), mr.EPG()), expected) > 1e-3


@pytest.mark.parametrize("model", [mr.EPG(), mr.EPG(orders=16), mr.EPGBloch(pulse=GAUSS, n_z=8, orders=16)])
def test_float32_equals_float64(model):
    sequence = mr.sequences.fisp(sine_train(200), 12 * ms, 3 * ms, 20 * ms)
    tissue = mr.Tissue(t1=[0.3, 0.9, 1.4], t2=[0.03, 0.085, 0.1], b1=[0.8, 1.0, 1.2])
    double = mr.simulate(sequence, tissue, model)
    single = mr.simulate(sequence, as_float32(tissue), model)
    assert single.dtype == np.complex64
    assert relative(single, double) < 5e-5


def test_small_tip_profile_is_the_integral_over_flips():
    """A slice profile is nothing but many flips: the same signal from plain EPG at every sub-slice."""
    flip, n_z = sine_train(30), 16
    sequence = mr.sequences.fisp(flip, 12 * ms, 3 * ms, 20 * ms)
    profile = mr.rf.small_tip(GAUSS)
    signal = mr.simulate(sequence, mr.Tissue(t1=0.9, t2=0.085), mr.EPG(profile=profile, n_z=n_z))
    scale = profile(mr.rf.slice_positions(3 * mm, n_z))
    each = mr.simulate(sequence, mr.Tissue(t1=0.9, t2=0.085, b1=scale), mr.EPG())
    assert relative(signal, 3 / n_z * each.sum(0)) < 1e-13


def test_epg_bloch_meets_small_tip_at_small_flips():
    sequence = mr.sequences.fisp(np.full(40, 1 * deg), 12 * ms, 3 * ms)
    tissue = mr.Tissue(t1=0.9, t2=0.085)
    exact = mr.simulate(sequence, tissue, mr.EPGBloch(pulse=GAUSS))
    small = mr.simulate(sequence, tissue, mr.EPG(profile=mr.rf.small_tip(GAUSS)))
    assert relative(small, exact) < 3e-3


def test_complex_profile_turns_about_its_own_axis():
    """An asymmetric pulse: its small-tip profile is complex, and the sub-slices add up with their phases."""
    t = np.linspace(0, 1, 60)
    pulse = mr.rf.arbitrary(
        np.exp(-40 * (t - 0.6) ** 2 + 3j * t), 1 * ms, gradient=float(GAUSS.gradient), thickness=3e-3
    )
    sequence = mr.sequences.fisp(np.full(30, 1 * deg), 12 * ms, 3 * ms)
    tissue = mr.Tissue(t1=0.9, t2=0.085)
    exact = mr.simulate(sequence, tissue, mr.EPGBloch(pulse=pulse, n_z=64))
    small = mr.simulate(sequence, tissue, mr.EPG(profile=mr.rf.small_tip(pulse), n_z=64))
    assert relative(small, exact) < 1e-2


@pytest.mark.parametrize("model", [mr.EPG(), mr.EPGBloch(pulse=GAUSS, n_z=4, orders=12)], ids=["EPG", "EPGBloch"])
def test_tissue_jacobian_equals_finite_differences(model):
    sequence = mr.sequences.fisp(sine_train(24), 12 * ms, 3 * ms, 20 * ms)
    values = {"t1": 0.9, "t2": 0.085, "b1": 1.05, "m0": 2.0}
    names = tuple(values)
    signal, jacobian = mr.simulate_with_jacobian(sequence, mr.Tissue(**values), model, wrt=names)
    assert jacobian.shape == (4, 24)
    assert np.abs(signal - mr.simulate(sequence, mr.Tissue(**values), model)).max() < 1e-15
    for row, name in zip(jacobian, names, strict=True):
        f = lambda x, name=name: mr.simulate(sequence, mr.Tissue(**{**values, name: x}), model)  # noqa: E731
        # The table's nodes move with the largest flip: differences see that at 1e-7.
        assert relative(row, central_difference(f, values[name], 1e-3 * values[name])) < 1e-6


@pytest.mark.parametrize("model", [mr.EPG(), mr.EPGBloch(pulse=GAUSS, n_z=4, orders=8)], ids=["EPG", "EPGBloch"])
def test_sequence_gradients_equal_finite_differences(model, varying):
    """Reverse and forward mode in flip, tr, te, inversion time and phase; one flip is zero."""
    n = 10
    start = {
        "flip": jnp.asarray(np.r_[varying["flip"][: n - 1], 0.0]),
        "tr": jnp.asarray(varying["tr"][:n]),
        "te": jnp.asarray(varying["te"][:n]),
        "inversion_time": jnp.asarray(20 * ms),
        "phase": jnp.linspace(0.0, 2.0, n),
    }
    tissue = mr.Tissue(t1=0.9, t2=0.085, b0=11.0)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(n, 2)) @ [1, 1j])

    @jax.jit
    def loss(parameters):
        return jnp.real(jnp.vdot(weights, mr.simulate(mr.sequences.fisp(**parameters), tissue, model)))

    gradient = jax.jit(jax.grad(loss))(start)
    for name, value in start.items():
        direction = jnp.asarray(np.random.default_rng(1).normal(size=value.shape))
        scale = 1e-4 * float(jnp.max(jnp.abs(value)))
        along = lambda k, name=name, d=direction, s=scale: loss({**start, name: start[name] + k * s * d})  # noqa: E731
        expected = central_difference(along, 0.0, 1.0) / scale
        assert np.isclose(jnp.vdot(gradient[name], direction), expected, rtol=2e-6, atol=1e-7), name
        _, forward = jax.jvp(lambda x, name=name: loss({**start, name: x}), (value,), (direction,))
        assert np.isclose(forward, jnp.vdot(gradient[name], direction), rtol=1e-10)


def test_hessian_exists_and_is_symmetric():
    sequence = mr.sequences.fisp(sine_train(12), 12 * ms, 3 * ms)
    f = lambda x: jnp.sum(jnp.abs(mr.simulate(sequence, mr.Tissue(t1=x[0], t2=x[1]), mr.EPG())) ** 2)  # noqa: E731
    hessian = jax.hessian(f)(jnp.array([0.9, 0.085]))
    assert np.abs(hessian - hessian.T).max() < 1e-9 * np.abs(hessian).max()
    for column, step in zip(hessian.T, np.diag([1e-4, 1e-5]), strict=True):
        along = lambda k, step=step: jax.grad(f)(jnp.array([0.9, 0.085]) + k * step)  # noqa: E731
        assert relative(column, central_difference(along, 0.0, 1.0) / step.max()) < 1e-6


def test_batch_axes_vmap_and_devices_agree():
    sequence = mr.sequences.fisp(sine_train(40), 12 * ms, 3 * ms, 20 * ms)
    rng = np.random.default_rng(0)
    tissue = mr.Tissue(
        t1=rng.uniform(0.3, 2, (3, 7)), t2=rng.uniform(0.02, 0.2, (3, 7)), m0=rng.normal(size=(3, 7)) + 1j
    )
    model = mr.EPG(orders=24)
    signal = mr.simulate(sequence, tissue, model)
    assert signal.shape == (3, 7, 40)
    mapped = jax.vmap(jax.vmap(lambda t: mr.simulate(sequence, t, model)))(tissue)
    shared = mr.simulate(sequence, tissue, model, devices=jax.devices())
    assert len(jax.devices()) == 2
    assert relative(mapped, signal) < 1e-14
    assert relative(shared, signal) < 1e-14
    one = mr.simulate(sequence, tissue[1, 2], model)
    assert one.shape == (40,)
    assert relative(one, signal[1, 2]) < 1e-14
    gradient = jax.grad(lambda t2, d: jnp.abs(mr.simulate(sequence, mr.Tissue(t1=0.9, t2=t2), model, devices=d)).sum())
    t2 = jnp.asarray(rng.uniform(0.02, 0.2, 7))
    assert relative(gradient(t2, jax.devices()), gradient(t2, None)) < 1e-12


def test_many_voxels_go_in_chunks():
    """More voxels than fit one chunk, not a multiple of it: every row is the row of a single voxel."""
    sequence = mr.sequences.fisp(sine_train(12), 12 * ms, 3 * ms)
    t2 = np.linspace(0.02, 0.2, 1301)
    signal = mr.simulate(sequence, mr.Tissue(t1=1.0, t2=t2), mr.EPG())
    for i in (0, 433, 434, 867, 868, 1300):
        alone = mr.simulate(sequence, mr.Tissue(t1=1.0, t2=t2[i]), mr.EPG())
        assert relative(signal[i], alone) < 1e-14


def test_new_numbers_compile_nothing():
    def run(flip, t2):
        return mr.simulate(mr.sequences.fisp(flip, 12 * ms, 3 * ms), mr.Tissue(t1=[1.0, 2.0], t2=[t2, t2]), mr.EPG())

    run(sine_train(31), 0.05)
    before = _compiled._cached._cache_size()
    run(sine_train(31, 50.0), 0.06)
    assert _compiled._cached._cache_size() == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mr.EPG(orders=1), "orders must be an integer of at least 2"),
        (lambda: mr.EPG(orders=20, tolerance=1e-3), "give orders or tolerance, not both"),
        (lambda: mr.EPG(tolerance=2.0), "tolerance is a relative error between 0 and 1, got 2.0"),
        (lambda: mr.EPGBloch(n_z=0), "n_z must be a positive number of sub-slices, got 0"),
        (lambda: _ready("seq", mr.Tissue(1.0, 0.1), mr.EPG()), "takes a Sequence first, got str"),
        (
            lambda: mr.simulate_with_jacobian(
                mr.sequences.fisp([0.1], 12 * ms, 3 * ms), mr.Tissue(1.0, 0.1), mr.EPG(), wrt=("t3",)
            ),
            "unknown parameter 't3'; the tissue has t1, t2, m0",
        ),
        (
            lambda: mr.simulate(
                mr.sequences.Sequence((mr.sequences.Segment(None, (mr.sequences.Event(jnp.asarray(1.0)),)),)),
                mr.Tissue(1.0, 0.1),
                mr.EPG(),
            ),
            "takes no sample",
        ),
        (
            lambda: mr.simulate(
                mr.sequences.Sequence(
                    (mr.sequences.Segment(None, (mr.sequences.Event(jnp.asarray(1.0), order=None, samples=1),)),)
                ),
                mr.Tissue(1.0, 0.1),
                mr.EPG(),
            ),
            "no multiple of one EPG order; simulate with isochromats or PDG",
        ),
        (
            lambda: jax.jit(
                lambda t2: mr.simulate(
                    mr.sequences.fisp([0.1], 12 * ms, 3 * ms), mr.Tissue(1.0, t2), mr.EPG(tolerance=1e-3)
                )
            )(0.1),
            r"call model = mr.plan\(sequence, tissue, model\)",
        ),
    ],
)
def test_bad_calls_name_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()
