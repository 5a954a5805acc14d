"""Traced scripts, live blocks of the drop-in's Sequence, and its constraint quantities."""

import jax
import jax.numpy as jnp
import numpy as np
import pypulseq
import pytest
from jaxmr.pulseq.make_delay import make_delay

import jaxmr as mr
import jaxmr.pulseq as pp
from jaxmr.pulseq import calc_rf_center, make_block_pulse
from jaxmr.pulseq.live import is_live
from pulseq_scripts import gre


def build(flip, te, spoil=4.0, n=4):
    return gre.build(pp, flip=flip, te=te, spoil=spoil, n=n)


EXAMPLE = {"flip": 0.3, "te": 6e-3}


@pytest.fixture(scope="module")
def traced():
    return pp.trace(build, **EXAMPLE)


def test_it_is_pure_under_jit_vmap_and_grad(traced):
    flips = jnp.array([0.2, 0.3])
    several = jax.jit(jax.vmap(lambda flip: traced(flip=flip, te=6e-3)))(flips)
    for i, flip in enumerate(flips):
        one = traced(flip=flip, te=6e-3)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(several), strict=True):
            np.testing.assert_allclose(b[i], a, rtol=1e-12, atol=1e-14)
    eager = gre.build(pp, flip=0.3, te=6e-3, n=4).to_jaxmr()
    for a, b in zip(jax.tree.leaves(traced(**EXAMPLE)), jax.tree.leaves(eager), strict=False):
        assert np.all(np.isfinite(a))
        assert np.all(np.isfinite(b))


def test_eager_gradients_without_trace_are_the_traced_ones(traced):
    def energy(flip):
        return pp.constraints(gre.build(pp, flip=flip, te=6e-3, n=4)).rf_energy

    expected = jax.grad(lambda flip: traced.constraints(flip=flip, te=6e-3).rf_energy)(0.3)
    np.testing.assert_allclose(jax.grad(energy)(0.3), expected, rtol=1e-10)
    np.testing.assert_allclose(expected, 2 * energy(0.3) / 0.3, rtol=1e-10)


def test_a_broken_guard_traces_again_and_names_the_line():
    def script(te):
        seq = pp.Sequence()
        if te > 5e-3:
            seq.add_block(pp.make_delay(1e-3))
        seq.add_block(pp.make_block_pulse(0.5, duration=1e-3, use="excitation"))
        seq.add_block(pp.make_delay(te))
        return seq

    traced = pp.trace(script, te=4e-3)
    hold = jax.jit(lambda te: traced.guards_hold(te=te))
    assert hold(4.5e-3)
    assert not hold(6e-3)
    np.testing.assert_array_equal(jax.vmap(hold)(jnp.array([4.5e-3, 6e-3])), [True, False])
    assert len(traced.blocks) == 2
    # The conversion to a sequence decides too.
    assert float(mr.sequences.duration(traced(te=4e-3))) < 5e-3
    with pytest.warns(pp.BrokenGuardWarning, match=r"greater at .*test_pulseq_tracing\.py:\d+"):
        np.testing.assert_allclose(traced.constraints(te=6e-3).duration, 8e-3)
    assert len(traced.blocks) == 3
    assert traced.guards_hold(te=6e-3)


def test_what_is_no_float_is_fixed(traced):
    counted = pp.trace(build, **EXAMPLE, n=4)
    assert len(counted.pulseq(**EXAMPLE, n=4).block_events) == 20
    with pytest.raises(ValueError, match=r"'n' is 5 but was fixed to 4"):
        counted(**EXAMPLE, n=5)
    with pytest.raises(ValueError, match=r"parameters are \['flip'\]"):
        traced(flip=0.2)
    with pytest.raises(ValueError, match=r"must return a pp\.Sequence"):
        pp.trace(lambda flip: flip, flip=0.1)
    with pytest.raises(ValueError, match="plain function"):
        pp.trace(np.sum, a=1.0)


def test_wrong_shapes_say_so():
    traced = pp.trace(lambda flips: two_pulses(flips), flips=np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"'flips' has shape \(3,\) but had \(2,\)"):
        traced.constraints(flips=jnp.ones(3))


def two_pulses(flips):
    seq = pp.Sequence()
    for flip in flips:
        seq.add_block(pp.make_block_pulse(flip, duration=1e-3, use="excitation"))
    return seq


def shaped(amplitude, rise, flip, delay, sample):
    seq = pp.Sequence()
    wave = np.zeros(50)
    wave[1:-1] = amplitude * np.sin(np.pi * np.arange(1, 49) / 49)
    wave[20] = sample
    seq.add_block(pp.make_arbitrary_grad("x", wave, first=0.0, last=0.0))
    seq.add_block(pp.make_trapezoid("y", amplitude=amplitude, rise_time=rise, flat_time=1e-3))
    seq.add_block(pp.make_gauss_pulse(flip, duration=1e-3, use="excitation"), pp.make_delay(delay))
    return seq


SHAPED = {"amplitude": 2e5, "rise": 2e-4, "flip": 1.1, "delay": 3.3e-3, "sample": 1.9e5}


def test_constraints_are_right_and_have_the_right_derivatives():
    traced = pp.trace(shaped, **SHAPED)
    found = traced.constraints(**SHAPED)
    plain = shaped(**SHAPED)
    waves = plain.waveforms()
    for axis in range(2):
        np.testing.assert_allclose(found.gradient[axis], np.max(np.abs(waves[axis][1])), rtol=1e-9)
        slew = np.max(np.abs(np.diff(waves[axis][1]) / np.diff(waves[axis][0])))
        np.testing.assert_allclose(found.slew[axis], slew, rtol=1e-6)
    np.testing.assert_allclose(found.duration, plain.duration()[0], rtol=1e-12)
    pulse = pypulseq.make_gauss_pulse(1.1, duration=1e-3, use="excitation").signal
    np.testing.assert_allclose(found.rf_energy, np.sum(np.abs(pulse) ** 2) * 1e-6, rtol=1e-12)
    np.testing.assert_allclose(found.peak_b1, np.max(np.abs(pulse)), rtol=1e-12)

    def total(p):
        c = traced.constraints(**p)
        return c.gradient @ jnp.arange(3.0) / 1e5 + c.slew @ jnp.ones(3) / 1e9 + c.duration + c.rf_energy + c.peak_b1

    slopes = jax.grad(total)(SHAPED)
    for name, x in SHAPED.items():
        step = 1e-6 * x
        up, down = (jax.jit(total)(SHAPED | {name: x + s}) for s in (step, -step))
        np.testing.assert_allclose(slopes[name], (up - down) / (2 * step), rtol=1e-5, atol=1e-12, err_msg=name)


def test_soft_delays_and_gradient_changes_stay_live():
    def script(wait, factor):
        seq = pp.Sequence()
        seq.add_block(pp.make_trapezoid("x", area=100.0, duration=2e-3))
        seq.add_block(pp.make_soft_delay("TE", default_duration=2e-3))
        seq.apply_soft_delay(TE=wait)
        seq.mod_grad_axis("x", factor)
        seq.flip_grad_axis("x")
        return seq

    traced = pp.trace(script, wait=5e-3, factor=0.5)
    plain = traced.pulseq(wait=5e-3, factor=0.5)
    assert traced.blocks[0].gx.amplitude.value == plain.get_block(1).gx.amplitude
    assert traced.blocks[0].gx.amplitude.value < 0
    slope = jax.jacobian(lambda p: traced.constraints(**p))({"wait": 5e-3, "factor": 0.5})
    np.testing.assert_allclose(slope.duration["wait"], 1.0)
    np.testing.assert_allclose(slope.gradient["factor"][0], traced.constraints(wait=5e-3, factor=0.5).gradient[0] / 0.5)


def test_replaced_and_registered_blocks():
    seq = pp.Sequence()
    rf = pp.make_block_pulse(jnp.asarray(0.5), duration=1e-3, use="excitation")
    rf.id, rf.shape_IDs = seq.register_rf_event(rf)
    seq.add_block(rf)
    assert is_live(seq.blocks()[0].rf.signal)
    rf.phase_offset = jnp.asarray(1.0)
    del rf.id, rf.shape_IDs
    seq.add_block(rf)
    assert not is_live(seq.blocks()[0].rf.phase_offset), "an event changed later must not change what was added"
    assert is_live(seq.blocks()[1].rf.phase_offset)
    assert seq.get_block(2).rf.phase_offset == 1.0
    seq.set_block(1, pp.make_delay(2e-3))
    assert seq.blocks()[0].rf is None
    with pytest.raises(ValueError, match="make_delay"):
        seq.add_block(pp.lift(jnp.asarray(1e-3)))


def test_what_has_no_derivative_says_so():
    with pytest.raises(ValueError, match="cannot be differentiated"):
        pp.facade("add_ramps").add_ramps([jnp.linspace(0, 1, 5)])


def test_labels_and_extras_survive_beside_live_events():
    seq = pp.Sequence()
    adc = pp.make_adc(8, dwell=jnp.asarray(1e-5))
    seq.add_block(adc, pp.make_label("LIN", "SET", 3), pp.make_digital_output_pulse("osc0", duration=1e-4))
    block = seq.blocks()[0]
    assert [extra.type for extra in block.extras] == ["labelset", "output"]
    assert seq.evaluate_labels() == {"LIN": 3}
    np.testing.assert_allclose(float(jax.jvp(lambda x: pp.constraints(one_adc(x)).duration, (1e-4,), (1.0,))[1]), 8.0)


def one_adc(dwell):
    seq = pp.Sequence()
    seq.add_block(pp.make_adc(8, dwell=dwell))
    return seq


def train(flip, tr, sample):
    """Sixteen pulses of one flip and shape in one repetition time, their phases and every fourth spoiler apart."""
    seq = pp.Sequence()
    gz = pp.make_trapezoid("z", amplitude=4e5, flat_time=2e-3)
    for i in range(16):
        wave = np.where(np.arange(40) == 20, sample, 0.5)
        rf = pp.make_arbitrary_rf(wave, flip, dwell=50e-6, delay=gz.rise_time, phase_offset=i**2 * flip)
        seq.add_block(rf, gz)
        seq.add_block(pp.make_adc(1, dwell=1e-5), pp.make_delay(2e-3))
        seq.add_block(pp.make_trapezoid("z", area=500.0 if i % 4 else 800.0, duration=2e-3))
        seq.add_block(pp.make_delay(tr - 8e-3))
    return seq


TRAIN = {"flip": 0.3, "tr": 12e-3, "sample": 0.4}


@pytest.mark.parametrize("eager", [False, True])
def test_what_is_one_expression_in_all_repetitions_is_one_number(eager):
    if eager:
        sequence = train(**{name: pp.lift(jnp.asarray(x)) for name, x in TRAIN.items()}).to_jaxmr()
    else:
        sequence = pp.trace(train, **TRAIN)(**TRAIN)
    (segment,) = sequence.segments
    assert len(sequence.shapes) == 1
    assert segment.repetitions == 16
    assert segment.pulse.flip.shape == ()
    assert segment.pulse.phase.shape == (16,)
    *played, idle, ahead = segment.events
    assert [event.duration.shape for event in (*played, idle)] == [()] * len(segment.events[:-1])
    np.testing.assert_allclose(idle.duration, 4e-3)
    assert ahead.duration.shape == (16,), "no pulse follows the last repetition"
    assert played[-1].moment.shape == (16, 3)


def test_equal_values_of_two_parameters_stay_two_numbers():
    def script(one, other):
        return two_pulses([one, other])

    traced = pp.trace(script, one=0.3, other=0.3)
    (segment,) = traced(one=0.3, other=0.3).segments
    np.testing.assert_allclose(segment.pulse.flip, [0.3, 0.3])
    np.testing.assert_allclose(traced(one=0.3, other=0.4).segments[0].pulse.flip, [0.3, 0.4])


def test_equal_durations_of_two_parameters_are_two_shapes():
    def script(one, other):
        seq = pp.Sequence()
        for duration in (one, other, one):
            seq.add_block(pp.make_block_pulse(0.5, duration=duration, use="excitation"))
        return seq

    traced = pp.trace(script, one=1e-3, other=1e-3)
    shapes = traced(one=1e-3, other=1.2e-3).shapes
    np.testing.assert_allclose([shape.duration for shape in shapes], [1e-3, 1.2e-3], rtol=1e-9)


def test_gradients_of_a_number_that_all_repetitions_share():
    traced = pp.trace(train, **TRAIN)
    place = mr.Phantom(mr.Tissue(t1=[0.9], t2=[0.08]), np.full((1, 3), 1e-4), (1e-3,) * 3, voxel_shape="point")

    def loss(p):
        return jnp.sum(jnp.abs(mr.simulate(traced(**p), place, mr.Isochromats())) ** 2)

    slopes = jax.grad(loss)(TRAIN)
    for name, x in TRAIN.items():
        up, down = (jax.jit(loss)(TRAIN | {name: x + s}) for s in (1e-4 * x, -1e-4 * x))
        np.testing.assert_allclose(slopes[name], (up - down) / (2e-4 * x), rtol=1e-5, err_msg=name)


def test_soft_delays_of_plain_numbers_are_played_as_applied():
    """Also of blocks that PyPulseq had looked at before, and beside live ones."""

    def script(flip):
        seq = pp.Sequence()
        seq.add_block(pp.make_block_pulse(flip, duration=1e-3, use="excitation"))
        seq.add_block(pp.make_soft_delay("TE", default_duration=4e-3, offset=-1e-3))
        seq.add_block(pp.make_adc(8, duration=2e-3))
        seq.apply_soft_delay(TE=7e-3)
        return seq

    for sequence in (script(0.4), pp.trace(script, flip=0.4).sequence):
        np.testing.assert_allclose([pp.value(block.duration) for block in sequence.blocks()], [1e-3, 6e-3, 2e-3])


def test_functions_imported_by_name_are_traced():
    def script(flip, te):
        seq = pp.Sequence()
        pulse = make_block_pulse(flip, duration=1e-3, use="excitation")
        seq.add_block(pulse)
        seq.add_block(make_delay(te - calc_rf_center(pulse)[0]))
        return seq

    traced = pp.trace(script, flip=0.4, te=5e-3)
    assert is_live(traced.blocks[0].rf.signal)
    np.testing.assert_allclose(jax.grad(lambda te: traced.constraints(flip=0.4, te=te).duration)(5e-3), 1.0)


def test_what_an_undeclared_pulse_is_for_is_decided_again():
    """By its angle, as when the file is read: past 90 degrees k turns about 0, and the script is traced again."""

    def script(flip):
        seq = pp.Sequence()
        for angle in (1.0, flip):
            seq.add_block(pp.make_block_pulse(angle, duration=1e-3))
            seq.add_block(pp.make_trapezoid("x", area=100.0, duration=2e-3))
        seq.add_block(pp.make_adc(4, duration=2e-3))
        return seq

    def k_after(sequence):
        return mr.sequences.trajectory(sequence)[-1, 0]

    traced = pp.trace(script, flip=1.5)
    np.testing.assert_allclose(k_after(traced(flip=1.5)), -2 * np.pi * 100)
    assert not traced.guards_hold(flip=1.7)
    with pytest.warns(pp.BrokenGuardWarning, match="decision"):
        np.testing.assert_allclose(k_after(traced(flip=1.7)), 0.0, atol=1e-9)
