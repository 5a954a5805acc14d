"""RF pulses against measured slice profiles, PyPulseq's shapes, isochromats and the SLR specification."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxmr.physics import bloch, rf
from jaxmr.units import mm, ms

GAUSSIAN = rf.gaussian(1 * ms, 3.0, 3 * mm)
SINC = rf.sinc(2 * ms, 4.0, 5 * mm, apodisation=0.46)


def skewed(n: int = 80) -> rf.Waveform:
    """A complex pulse whose peak is neither in the middle nor alone in its phase."""
    t = np.linspace(-1, 1, n)
    samples = np.exp(-8 * (t - 0.3) ** 2 + 4j * t**2 - 2j * t)
    return rf.arbitrary(samples, 2 * ms, gradient=2 * np.pi * 4 / (2 * ms) / (5 * mm), thickness=5 * mm)


PULSES = {"gaussian": GAUSSIAN, "sinc": SINC, "skewed": skewed(), "block": rf.block(1 * ms)}


@pytest.fixture(params=PULSES)
def pulse(request) -> rf.Waveform:
    return PULSES[request.param]


def test_pulses_have_unit_flip_and_are_symmetric(pulse):
    flip = jnp.sum(pulse.samples) * pulse.dwell
    assert abs(flip) == pytest.approx(1, abs=1e-14)
    assert pulse.symmetric == (pulse is not PULSES["skewed"])
    if pulse.symmetric:
        assert flip == pytest.approx(1, abs=1e-14)
        assert pulse.centre == pytest.approx(float(pulse.duration) / 2)


def test_complex_samples_keep_their_phase():
    samples = np.array([1, 2, 1.5]) * np.exp(0.4j)
    assert np.angle(rf.arbitrary(samples, 1 * ms).samples) == pytest.approx([0.4] * 3)


@pytest.mark.parametrize("shape", ["gauss", "sinc"])
def test_shapes_gradient_and_centre_are_pypulseqs(shape):
    """Samples, slice-selection gradient (Hz/m), and the slice rephaser without its ramps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyPulseq's syntax warnings and its dead-time notice
        import pypulseq

        make = getattr(pypulseq, f"make_{shape}_pulse")
        flip, duration, thickness = 0.6, 2 * ms, 4 * mm
        theirs, gz, rephaser = make(
            flip,
            duration=duration,
            time_bw_product=5.0,
            slice_thickness=thickness,
            apodization=0.4 if shape == "sinc" else 0,
            return_gz=True,
            use="excitation",
        )
    n = len(theirs.signal)
    ours = rf.gaussian(duration, 5.0, thickness, n) if shape == "gauss" else rf.sinc(duration, 5.0, thickness, 0.4, n)
    np.testing.assert_allclose(flip * ours.samples, 2 * np.pi * theirs.signal, rtol=1e-9, atol=1e-6)
    assert ours.gradient == pytest.approx(2 * np.pi * gz.amplitude)
    after_centre = ours.gradient * (ours.duration - ours.centre)
    ramp = gz.amplitude * gz.fall_time / 2
    assert -after_centre == pytest.approx(2 * np.pi * (rephaser.area + ramp))


def test_centre_is_the_middle_of_the_peak_as_in_pypulseq():
    """The plateau of samples 3 ... 6 of eight, between their midpoints."""
    from types import SimpleNamespace

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pypulseq.calc_rf_center import calc_rf_center
    samples = np.array([0, 0.2, 0.5, 1, 1, 1, -1, 0.1])
    pulse = rf.arbitrary(samples, 0.8 * ms)
    theirs, _ = calc_rf_center(SimpleNamespace(signal=samples, t=(np.arange(8) + 0.5) * 0.1 * ms))
    assert not pulse.symmetric
    assert pulse.centre == pytest.approx(theirs) == pytest.approx(0.5 * ms)


def test_spinor_is_the_hard_pulse_rotation_matrix(pulse):
    """The rotation of any magnetisation, against isochromats played sample by sample."""
    flip, z, b0 = 1.3, 1.1 * mm, 70.0
    n = pulse.samples.shape[0]
    gradient = jnp.zeros((n, 3)).at[:, 2].set(pulse.gradient)
    for m in jnp.asarray(np.random.default_rng(0).normal(size=(3, 3))):
        played = bloch.play(
            m,
            flip * pulse.samples * jnp.ones((), complex),
            gradient,
            pulse.dwell,
            jnp.array([0, 0, z]),
            jnp.inf,
            jnp.inf,
            b0,
        )
        m_plus, m_z = rf.rotate_by_spinor(rf.spinor(pulse, flip, z, b0), bloch.transverse(m), m[2])
        np.testing.assert_allclose([m_plus.real, m_plus.imag, m_z], played, atol=1e-12)


def test_on_resonance_the_flip_is_the_flip():
    for flip in (0.0, 0.3, np.pi, -1.0):
        m_plus, m_z = rf.excite(GAUSSIAN, flip, 0.0)
        assert m_plus == pytest.approx(-1j * np.sin(flip), abs=1e-14)
        assert m_z == pytest.approx(np.cos(flip), abs=1e-14)


def test_small_tip_is_the_limit_of_the_rotation(pulse):
    """M+ = -i flip profile after the rephaser; the relative error falls with the square of the flip."""
    z = rf.slice_positions(pulse.thickness, 12)
    profile = rf.small_tip(pulse)(z)
    excite = jax.vmap(lambda flip, z: rf.excite(pulse, flip, z)[0], (None, 0))

    def error(flip):
        return jnp.abs(excite(flip, z) / (-1j * flip) - profile).max()

    assert error(1e-3) < 1e-6
    assert error(0.1) / error(0.05) == pytest.approx(4, rel=0.05)
    assert jnp.iscomplexobj(profile) != pulse.symmetric
    single = jnp.stack([rf.small_tip(pulse)(one) for one in z])
    np.testing.assert_allclose(single, profile, atol=1e-14)
    assert jnp.abs(rf.small_tip(pulse)(0.0)) == pytest.approx(1, abs=1e-14)


def test_gaussian_profile_is_the_transform_of_a_gaussian():
    """exp(-pi z^2 / thickness^2) but for the truncated tails of the pulse."""
    z = jnp.linspace(-4 * mm, 4 * mm, 33)
    pulse = rf.gaussian(1 * ms, 6.0, 3 * mm, n_samples=2000)
    np.testing.assert_allclose(rf.small_tip(pulse)(z), np.exp(-np.pi * (z / (3 * mm)) ** 2), atol=1e-5)


def measured_profile(shared, name):
    """Signal of the profile scan over that of the image, along the read axis (recipe: data/README)."""
    data = np.load(shared / "mr_physics_pulseq/se2d_kspace_dev.npz")

    def image(key):
        kspace = data[key]  # (lines, coils, samples)
        coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, (0, 2)), axes=(0, 2)), (0, 2))
        return np.sqrt((np.abs(coils) ** 2).sum(1))[24:40].sum(0)

    reference = image("image")
    inside = reference > 0.3 * reference.max()
    return np.where(inside, image(name) / reference, np.nan), inside


@pytest.mark.parametrize("name", ["sinc_w_apod", "gauss"])
def test_measured_slice_profile(shared, name):
    """A scanner's slice profile: |M+| of block 2 of the .seq up to scale, shift (3 pixels) and direction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyPulseq's syntax warnings and its notices about old files
        import pypulseq

        sequence = pypulseq.Sequence()
        sequence.read(str(shared / f"mr_physics_pulseq/seq/se_2D_{name}_spr.seq"))
        block = sequence.get_block(2)
    signal = block.rf.signal
    pulse = rf.arbitrary(
        signal.real if np.abs(signal.imag).max() < 1e-9 * np.abs(signal).max() else signal,
        block.rf.shape_dur,
        gradient=2 * np.pi * block.gx.amplitude,
    )
    flip = 2 * np.pi * np.abs(signal.sum()) * block.rf.shape_dur / len(signal)
    measured, inside = measured_profile(shared, name)
    position = (np.arange(64 * 8) + 0.5) / 8 - 32  # eight places in each voxel of 2 mm

    @jax.jit
    def profile(shift):
        z = (position + shift) * 2 * mm
        m_plus, _ = jax.vmap(lambda z: rf.excite(pulse, flip, z))(z)
        return jnp.abs(m_plus).reshape(64, 8).mean(1)

    def compare(shift, direction):
        simulated = np.asarray(profile(shift))[::direction][inside]
        m = measured[inside]
        scale = simulated @ m / (simulated @ simulated)
        nrmse = np.linalg.norm(scale * simulated - m) / np.linalg.norm(m)
        return nrmse, np.corrcoef(simulated, m)[0, 1]

    fits = [compare(shift, direction) for shift in np.arange(-3, 3.01, 0.1) for direction in (1, -1)]
    nrmse, correlation = min(fits)
    assert nrmse <= 0.06
    assert correlation >= 0.99


@pytest.mark.parametrize(
    ("kind", "flip", "inside"),
    [("excitation", np.pi / 2, 1), ("refocusing", np.pi, 1), ("inversion", np.pi, -1)],
)
@pytest.mark.parametrize(("pass_ripple", "stop_ripple"), [(0.01, 0.01), (0.02, 0.005)])
def test_slr_keeps_its_ripples(kind, flip, inside, pass_ripple, stop_ripple):
    """Played with the flip it was designed for; the transition is at most 2.2 / time_bandwidth wide."""
    thickness, time_bandwidth = 5 * mm, 8.0
    pulse = rf.slr(4 * ms, time_bandwidth, thickness, kind, pass_ripple, stop_ripple)
    edge, start = (thickness / 2 * (1 + sign * 2.2 / time_bandwidth) for sign in (-1, 1))

    def response(z):
        alpha, beta = rf.spinor(pulse, flip, z)
        refocused = jnp.abs(beta) ** 2
        return {
            "excitation": 2 * jnp.abs(alpha * beta),
            "refocusing": refocused,
            "inversion": 1 - 2 * refocused,
        }[kind]

    found = jax.vmap(response)(jnp.linspace(-edge, edge, 301))
    assert jnp.abs(found - inside).max() <= pass_ripple
    found = jax.vmap(response)(jnp.linspace(start, 5 * thickness, 1001))
    assert jnp.abs(found - (1 if kind == "inversion" else 0)).max() <= stop_ripple
    assert pulse.symmetric
    np.testing.assert_allclose(pulse.samples, pulse.samples[::-1], atol=1e-9 * float(pulse.samples.max()))
    # Pulses that end in spikes need hardware nobody has.
    assert jnp.abs(pulse.samples[0]) < 0.05 * pulse.samples.max()


def test_small_tip_slr_keeps_its_ripples():
    profile = rf.small_tip(rf.slr(4 * ms, 8.0, 5 * mm, "small_tip", 0.01, 0.01, n_samples=101))
    assert jnp.abs(profile(jnp.linspace(0, 0.345 * 5 * mm, 101)) - 1).max() <= 0.01
    assert jnp.abs(profile(jnp.linspace(0.655 * 5 * mm, 25 * mm, 501))).max() <= 0.01


def test_slr_inverts_where_a_sinc_does_not():
    """At pi a small-tip sinc of the same time-bandwidth inverts its own slice badly."""
    z = jnp.linspace(-1.7 * mm, 1.7 * mm, 101)
    inverted = {
        name: jax.vmap(lambda z, pulse=pulse: rf.excite(pulse, np.pi, z)[1])(z).max()
        for name, pulse in (
            ("slr", rf.slr(4 * ms, 8.0, 5 * mm, "inversion")),
            ("sinc", rf.sinc(4 * ms, 8.0, 5 * mm, 0.46)),
        )
    }
    assert inverted["slr"] < -0.99 < -0.9 < inverted["sinc"]


def test_sub_slices_are_midpoints_of_three_thicknesses():
    z = rf.slice_positions(4 * mm, 6)
    np.testing.assert_allclose(z, np.array([-5, -3, -1, 1, 3, 5]) * mm, atol=1e-15)


def test_energy_of_a_block_is_flip_squared_over_duration():
    assert rf.energy(rf.block(2 * ms, n_samples=7), 0.5) == pytest.approx(0.25 / (2 * ms))
    assert rf.energy(GAUSSIAN, -0.4) > rf.energy(rf.block(1 * ms), 0.4)


def test_pulses_are_differentiable():
    """Duration, time-bandwidth and every sample, at zero flip and at 2 rad; traced samples not symmetric."""
    samples = jnp.asarray(np.random.default_rng(2).uniform(0.5, 1.5, 6))

    @jax.jit
    def excited(duration, time_bandwidth, samples, flip):
        gaussian = rf.gaussian(duration * ms, time_bandwidth, 3 * mm, n_samples=8)
        own = rf.arbitrary(samples, duration * ms, gradient=4e6)
        assert gaussian.symmetric
        assert not own.symmetric
        return rf.excite(gaussian, flip, 0.7 * mm, 20.0), rf.excite(own, flip, 0.4 * mm), rf.energy(own, flip)

    for flip in (0.0, 2.0):
        check_grads(excited, (1.2, 3.0, samples, flip), order=1, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5)
    assert rf.arbitrary(samples + samples[::-1], 1 * ms).symmetric


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rf.block(0.0), "duration must be positive, got 0; durations are in seconds"),
        (lambda: rf.gaussian(1 * ms, -3.0, 3 * mm), "time_bandwidth must be positive"),
        (lambda: rf.gaussian(1 * ms, 3.0, 0.0), "thickness must be positive, got 0; it is in metres"),
        (
            lambda: rf.gaussian(1 * ms, 3.0, 3 * mm, n_samples=0),
            "n_samples must be a positive integer, got 0",
        ),
        (lambda: rf.sinc(1 * ms, 3.0, 3 * mm, apodisation=1.5), "apodisation must be at most 1, got 1.5"),
        (lambda: rf.arbitrary(np.ones((2, 2)), 1 * ms), r"samples must have shape \(n,\)"),
        (lambda: rf.arbitrary([1.0, -1.0], 1 * ms), "samples must have an area"),
        (lambda: rf.arbitrary([1.0, np.nan], 1 * ms), "samples must be finite, got nan at index"),
        (lambda: rf.arbitrary(["one"], 1 * ms), "samples must be a number or an array of numbers"),
        (lambda: rf.slr(4 * ms, 8.0, 5 * mm, "spoiling"), "kind must be one of small_tip, excitation"),
        (lambda: rf.slr(4 * ms, 1.5, 5 * mm), "time_bandwidth 1.5 with 100 samples leaves no room"),
        (lambda: rf.slr(4 * ms, 8.0, 5 * mm, pass_ripple=0.0), "pass_ripple must be between 0 and 1, got 0"),
        (lambda: jax.jit(lambda tb: rf.slr(4 * ms, tb, 5 * mm))(8.0), "design the pulse outside jit"),
        (lambda: rf.slice_positions(3 * mm, 0), "n_z must be a positive integer, got 0"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
