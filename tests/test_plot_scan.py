"""The figure of a scan: what it draws against numbers computed here, for sequences of several kinds."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmr.physics import rf
from jaxmr.plot.scan import scan_figure
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence
from jaxmr.units import GAMMA, deg, mm, ms, mT

N, FOV = 16, 0.2
STEP = 2 * np.pi / FOV


def gradient_echo(shape=False) -> Sequence:
    """N lines of N samples: prephase, readout from -N/2 STEP on, spoil along z."""
    ky = (np.arange(N) - N // 2) * STEP
    # The first sample ends the first step: the prephaser goes one step further.
    prephase = np.stack([np.full(N, (N / 2 + 1) * STEP), -ky, np.zeros(N)], 1)
    pulse = Pulse(jnp.asarray(15 * deg), jnp.arange(N) * 117 * deg, shape=0 if shape else None)
    events = (
        Event(jnp.asarray(2 * ms), jnp.asarray(prephase)),
        Event(jnp.asarray(3.2 * ms), jnp.array([-N * STEP, 0.0, 0.0]), samples=N),
        Event(jnp.asarray(2 * ms), jnp.array([0.0, 0.0, 4000.0]), order=1),
    )
    shapes = (rf.sinc(1 * ms, 4.0, 5e-3),) if shape else ()
    return Sequence((Segment(pulse, events, N),), shapes)


def spin_echo_epi() -> Sequence:
    """Excitation, prephaser without duration, refocusing, then lines to and fro."""
    there = Event(jnp.asarray(1 * ms), jnp.array([-8 * STEP, 0.0, 0.0]), samples=8)
    back = Event(jnp.asarray(1 * ms), jnp.array([8 * STEP, 0.0, 0.0]), samples=8)
    blip = Event(jnp.asarray(0.1 * ms), jnp.array([0.0, -STEP, 0.0]))
    return Sequence(
        (
            Segment(Pulse(jnp.asarray(90 * deg)), (Event(jnp.asarray(0.0), jnp.array([-4 * STEP, -4 * STEP, 0.0])),)),
            Segment(Pulse(jnp.asarray(180 * deg), quadrature=True, use="refocusing"), (Event(jnp.asarray(5 * ms)),)),
            Segment(None, (there, blip, back, blip), 4),
        )
    )


def spiral() -> Sequence:
    t = np.linspace(0, 1, 201)[1:]
    path = -80 * STEP * np.stack([t * np.cos(40 * t), t * np.sin(40 * t), 0 * t], 1)
    event = Event(jnp.asarray(10 * ms), jnp.asarray(path[-1]), samples=200, path=jnp.asarray(path))
    return Sequence(
        (Segment(Inversion(), (Event(jnp.asarray(50 * ms)),)), Segment(Pulse(jnp.asarray(0.3)), (event,), 2))
    )


def image() -> np.ndarray:
    y, x = np.mgrid[:12, :10]
    return (y + 1) * np.exp(0.2j * x)


def panel(figure, label):
    (axis,) = [a for a in figure.axes if a.get_ylabel().split("\n")[0] == label]
    return axis


def sampled(figure):
    (points,) = panel(figure, "$k_y$ (rad/m)").collections
    return np.asarray(points.get_offsets()), np.asarray(points.get_array())


def test_samples_lie_where_the_moments_put_them():
    k, times = sampled(scan_figure(gradient_echo()))
    index = np.arange(N) - N // 2
    expected = STEP * np.stack(np.meshgrid(index, index), -1).reshape(-1, 2)  # kx fastest, ky upwards
    np.testing.assert_allclose(k, expected, atol=1e-9)
    np.testing.assert_allclose(times[:2], [2.2, 2.4])
    np.testing.assert_allclose(times[N], 7.2 + 2.2)


def test_a_refocusing_pulse_turns_k_round_and_an_excitation_begins_anew():
    k, _ = sampled(scan_figure(spin_echo_epi()))
    k = k.reshape(8, 8, 2) / STEP
    np.testing.assert_allclose(k[0, :, 0], np.arange(-3, 5), atol=1e-9)
    np.testing.assert_allclose(k[1, :, 0], np.arange(3, -5, -1), atol=1e-9)
    np.testing.assert_allclose(k[:, 0, 1], np.arange(-4, 4), atol=1e-9)


def test_gradients_are_moment_over_time_with_their_sign():
    figure = scan_figure(gradient_echo())
    (line,) = [line for line in panel(figure, "Gx").lines if len(line.get_xdata()) > 2]
    times, values = line.get_xdata(), line.get_ydata()
    readout = -N * STEP / (3.2 * ms) / GAMMA / mT
    np.testing.assert_allclose(values[(times > 2.3) & (times < 5)], readout)
    np.testing.assert_allclose(values[times < 1.9], (N / 2 + 1) * STEP / (2 * ms) / GAMMA / mT)
    assert times.max() == pytest.approx(3 * 7.2)


def test_the_beginning_is_cut_and_labelled():
    figure = scan_figure(gradient_echo(), n_pulses=2)
    labels = [text.get_text() for text in panel(figure, "RF").texts]
    assert labels == ["15°, phase 0°", "15°, phase 117°"]
    assert "first 2 of 16 RF pulses" in [sub.get_suptitle() for sub in figure.subfigs]
    assert panel(figure, "ADC").get_xlabel() == "time (ms)"
    assert scan_figure(gradient_echo(), n_pulses=99).subfigs[0].get_suptitle() == "16 of 16 RF pulses"


def test_images_stand_upright_with_their_size():
    figure = scan_figure(gradient_echo(), {"sum of squares": image()}, voxel_size=(2 * mm, 3 * mm), phase=True)
    axes = [axis for axis in figure.axes if axis.get_title() == "sum of squares"]
    magnitude, phase = (axis.get_images()[0] for axis in axes)
    np.testing.assert_allclose(magnitude.get_array(), np.abs(image()))
    np.testing.assert_allclose(phase.get_array(), np.angle(image()))
    assert magnitude.origin == "upper"
    np.testing.assert_allclose(magnitude.get_extent(), (-11, 9, 16.5, -19.5))
    assert axes[0].get_xlabel() == "x (mm)"
    low, high = axes[0].get_ylim()
    assert low > high  # y runs down: the first row is on top
    assert axes[0].get_aspect() == 1


@pytest.mark.parametrize("build", [lambda: gradient_echo(shape=True), spin_echo_epi, spiral])
def test_every_kind_of_sequence_can_be_saved(tmp_path, build):
    figure = scan_figure(build(), {"image": image()})
    figure.savefig(tmp_path / "scan.png")
    assert (tmp_path / "scan.png").stat().st_size > 20_000


def test_a_sequence_without_samples_or_pulses_is_drawn(tmp_path):
    still = Sequence((Segment(None, (Event(jnp.asarray(1 * ms)),), 3),))
    scan_figure(still).savefig(tmp_path / "still.png")


def test_long_sequences_are_thinned():
    event = Event(jnp.asarray(10 * ms), jnp.array([1000.0, 0.0, 0.0]), samples=1000)
    k, _ = sampled(scan_figure(Sequence((Segment(Pulse(jnp.asarray(0.1)), (event,), 120),))))
    assert 30_000 < len(k) <= 50_000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scan_figure(Sequence(())), "has no events"),
        (lambda: scan_figure(gradient_echo(), n_pulses=0), "n_pulses must be at least 1"),
        (lambda: scan_figure(gradient_echo(), {"coils": np.ones((2, 3, 4))}), r"image coils must have shape \(y, x\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
