"""Losses: values by hand or by NumPy, gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import central_difference
from jaxmr.design import losses
from jaxmr.sequences import Event, Pulse, Segment, Sequence
from jaxmr.units import GAMMA, mm, ms, us

RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(2, 6, 5)) + 1j * RNG.normal(size=(2, 6, 5))
PULSE = mr.rf.sinc(duration=2 * ms, time_bandwidth=4, thickness=5 * mm, n_samples=40)


def require_gradient(loss, value):
    """In a random direction, of a real or complex array."""
    value = np.asarray(value)
    direction = RNG.normal(size=value.shape) + (1j * RNG.normal(size=value.shape) if np.iscomplexobj(value) else 0)
    direction = direction * np.abs(value).max()
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(value)))
    assert np.abs(gradient).max() > 0
    expected = central_difference(lambda step: loss(jnp.asarray(value + step * direction)), 0.0, 1e-4)
    # JAX: the gradient by a complex number is conj of the steepest ascent.
    assert abs(np.sum(gradient * direction).real / float(expected) - 1) < 1e-6


def test_image_distance():
    assert np.isclose(losses.image_distance(X, T), np.linalg.norm(X - T) ** 2 / np.linalg.norm(T) ** 2)
    apart = np.linalg.norm(np.abs(X) - np.abs(T)) ** 2 / np.linalg.norm(T) ** 2
    assert np.isclose(losses.image_distance(X, T, magnitude=True), apart)
    assert losses.image_distance(T, T) == 0
    assert np.isclose(losses.image_distance(np.exp(0.7j) * T, T, magnitude=True), 0)
    assert losses.image_distance(np.exp(0.7j) * T, T) > 0.4
    with pytest.raises(ValueError, match=r"image and target must have one shape, got \(6, 5\) and \(5,\)"):
        losses.image_distance(X, T[0])


@pytest.mark.parametrize("magnitude", [False, True])
def test_gradient_of_image_distance(magnitude):
    require_gradient(lambda x: losses.image_distance(x, T, magnitude=magnitude), X)
    empty = jax.grad(lambda x: losses.image_distance(x, jnp.asarray(T), magnitude=magnitude))(jnp.zeros_like(X))
    assert np.isfinite(empty).all()


def test_suppression_and_contrast():
    assert np.isclose(losses.suppression(X[:2], T), np.mean(np.abs(X[:2]) ** 2) / np.mean(np.abs(T) ** 2))
    assert losses.suppression(0 * X, T) == 0
    a, b = np.abs(X).mean(), np.abs(T[:3]).mean()
    assert np.isclose(losses.contrast(X, T[:3]), (a - b) / (a + b))
    assert losses.contrast(0 * X, T) == -1
    for loss in (losses.suppression, losses.contrast):
        require_gradient(lambda x, loss=loss: loss(x, T), X)
        require_gradient(lambda x, loss=loss: loss(T, x), X)


def scan(flip, pulse=PULSE):
    """A shared flip, a train, an inversion."""
    return mr.sequences.tse(flip, 10 * ms, excitation=1.2, pulse=pulse)


def test_squared_flips():
    flip = jnp.array([3.0, -2.0, 2.5])
    assert np.isclose(losses.squared_flips(scan(flip)), 1.2**2 + 9 + 4 + 6.25)
    shared = Sequence((Segment(Pulse(jnp.asarray(0.3)), (Event(jnp.asarray(0.01), samples=1),), 7),))
    assert np.isclose(losses.squared_flips(shared), 7 * 0.09)
    assert losses.squared_flips(Sequence((Segment(None, (Event(jnp.asarray(0.01)),)),))) == 0
    inverted = mr.sequences.fisp(flip, 10 * ms, 2 * ms, 20 * ms)
    assert np.isclose(losses.squared_flips(inverted), 9 + 4 + 6.25)
    require_gradient(lambda flip: losses.squared_flips(scan(flip)), flip)


def test_rf_energy():
    """Of a block: flip^2 / duration; of a sinc by its samples; the same for half the flip in a quarter of the time."""
    block = mr.rf.block(1 * ms)
    one = mr.sequences.fisp(jnp.array([0.5]), 10 * ms, 2 * ms, pulse=block)
    assert np.isclose(losses.rf_energy(one), 0.25 / 1e-3)
    flip = jnp.array([3.0, 2.0])
    samples = np.asarray(PULSE.samples)
    expected = (1.44 + 13) * np.sum(samples**2) * 2e-3 / 40
    assert np.isclose(losses.rf_energy(scan(flip)), expected)
    require_gradient(lambda flip: losses.rf_energy(scan(flip)), flip)
    with pytest.raises(ValueError, match="rf_energy needs the shape of every pulse"):
        losses.rf_energy(scan(flip, None))


def test_duration():
    assert np.isclose(losses.duration(scan(jnp.ones(3))), 0.035)
    require_gradient(lambda esp: losses.duration(mr.sequences.tse(jnp.ones(3), esp)), 0.01)


MOMENTS = jnp.array([[300.0, -2000.0, 0.0], [900.0, 100.0, 50.0]])
TIMES = jnp.array([1 * ms, 0.5 * ms])


def wound(moments, times):
    """A readout of 5 mT/m in 1 ms, then moments in times."""
    line = Event(jnp.asarray(1 * ms), jnp.array([5e-3 * GAMMA * 1e-3, 0, 0]), samples=8)
    return Sequence((Segment(Pulse(jnp.asarray(0.3)), (line, Event(times, moments)), 2),))


def test_largest_gradient_and_slew():
    found = wound(MOMENTS, TIMES)
    gradient = max(5e-3, 2000 / (GAMMA * 1e-3), 900 / (GAMMA * 5e-4))
    slew = max(4 * 2000 / (GAMMA * 1e-6), 4 * 900 / (GAMMA * 2.5e-7))
    assert gradient <= losses.largest_gradient(found) < 1.03 * gradient
    assert np.isclose(losses.largest_gradient(found, sharpness=2000.0), gradient, rtol=1e-3)
    assert slew <= losses.largest_slew(found) < 1.03 * slew
    assert losses.largest_slew(mr.sequences.fisp(jnp.ones(2), 10 * ms, 2 * ms, spoiler=0.0)) == 0
    for loss in (losses.largest_gradient, losses.largest_slew):
        require_gradient(lambda times, loss=loss: loss(wound(MOMENTS, times)), TIMES)
        require_gradient(lambda moments, loss=loss: loss(wound(moments, TIMES)), MOMENTS)
    shared = wound(MOMENTS[0], jnp.asarray(1 * ms))
    assert np.isclose(losses.largest_gradient(shared, sharpness=2000.0), 2000 / (GAMMA * 1e-3), rtol=1e-3)


def test_gradients_that_change_under_samples():
    """A ramp: gradient and slew of the waveform that was integrated."""
    steps, dwell = 50, 10 * us
    amplitude = np.linspace(0, 20e-3, steps)
    path = np.zeros((steps, 3))
    path[:, 1] = np.cumsum(amplitude) * dwell * GAMMA
    event = Event(jnp.asarray(steps * dwell), jnp.asarray(path[-1]), samples=steps, path=jnp.asarray(path))
    ramp = Sequence((Segment(None, (event,)),))
    assert np.isclose(losses.largest_gradient(ramp, sharpness=2000.0), 20e-3, rtol=1e-2)
    assert np.isclose(losses.largest_slew(ramp, sharpness=2000.0), 20e-3 / 49 / dwell, rtol=1e-2)


def test_smooth_maximum():
    values = jnp.array([0.2, 3.0, 2.9, 0.0])
    assert 3.0 <= losses.smooth_maximum(values) <= 4 ** (1 / 32) * 3.0
    assert np.isclose(losses.smooth_maximum(1e-30 * values), 1e-30 * losses.smooth_maximum(values))
    assert losses.smooth_maximum(jnp.zeros(3)) == 0
    assert np.isfinite(jax.grad(losses.smooth_maximum)(jnp.zeros(3))).all()
    require_gradient(losses.smooth_maximum, values[:3])
