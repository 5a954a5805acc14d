"""The adaptive Bloch solver against hard pulses, closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import central_difference
from jaxmr.physics import bloch, ode

REST = jnp.array([0.0, 0.0, 1.0])
ORIGIN = jnp.zeros(3)
TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def test_free_precession_and_relaxation():
    start, times = jnp.array([0.6, -0.2, 0.3]), jnp.array([0.0, 0.01, 0.05])
    position, gradient = jnp.array([1e-3, -2e-3, 3e-3]), jnp.array([3e4, 1e4, 2e4])
    found = ode.solve(start, lambda t: 0.0 * t, lambda t: gradient, times, position, 0.9, 0.08, 20.0, m0=2.0, **TIGHT)
    plus = (0.6 - 0.2j) * np.exp(times * (1j * (gradient @ position + 2 * np.pi * 20) - 1 / 0.08))
    z = 2 + (0.3 - 2) * np.exp(-times / 0.9)
    np.testing.assert_allclose(found, np.stack([plus.real, plus.imag, z], axis=-1), atol=1e-9)


def test_hard_pulses_are_its_limit():
    """A smooth pulse with gradient, off-resonance and relaxation; Strang steps are of second order."""
    position, t1, t2, b0, b1, tau = jnp.array([1e-3, 0.0, -2e-3]), 0.9, 0.005, 80.0, 0.9, 2e-3
    rf = lambda t: 3e3 * jnp.sin(jnp.pi * t / tau) * jnp.exp(1j * 2e3 * t)  # noqa: E731
    gradient = lambda t: jnp.array([2e5, 0.0, 1e5]) * jnp.cos(400 * t)  # noqa: E731
    exact = ode.solve(REST, rf, gradient, jnp.array([0.0, tau]), position, t1, t2, b0, b1, **TIGHT)[-1]

    def error(n):
        middle = (jnp.arange(n) + 0.5) * tau / n
        played = bloch.play(REST, rf(middle), jax.vmap(gradient)(middle), tau / n, position, t1, t2, b0, b1)
        return np.abs(played - exact).max()

    assert error(1600) < 1e-6
    assert error(400) / error(800) == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("offset", [0.0, 300.0, 700.0, -1500.0])
def test_hyperbolic_secant_inversion(offset):
    """Silver, Joseph and Hoult, Phys. Rev. A 31:2753 (1985): the exact profile of an adiabatic pulse."""
    beta, mu, peak = 800.0, 4.0, 4500.0

    def rf(t):
        sech = 1 / jnp.cosh(beta * t)
        return peak * sech * jnp.exp(1j * mu * jnp.log(sech))

    ends = jnp.array([-20 / beta, 20 / beta])
    found = ode.solve(REST, rf, None, ends, ORIGIN, 1e9, 1e9, offset, **TIGHT)[-1, 2]
    half = np.pi * np.pi * offset / beta
    a, b = half + np.pi * mu / 2, half - np.pi * mu / 2
    swing = np.cos(np.pi * np.sqrt((peak / beta) ** 2 - mu**2 + 0j)).real
    assert found == pytest.approx(np.tanh(a) * np.tanh(b) + swing / np.cosh(a) / np.cosh(b), abs=1e-7)


def test_a_short_pulse_after_a_long_pause_is_not_missed():
    rf = lambda t: jnp.where((t > 0.5) & (t < 0.5001), jnp.pi / 2 / 1e-4, 0.0)  # noqa: E731
    times = jnp.array([0.0, 0.6])
    breaks = jnp.array([0.5, 0.5001])
    found = ode.solve(REST, rf, None, times, ORIGIN, 1e9, 1e9, breaks=breaks, **TIGHT)[-1]
    np.testing.assert_allclose(found, [0, -1, 0], atol=1e-7)


def test_default_tolerance_serves_float32():
    rf = lambda t: jnp.asarray(1e3 * np.pi / 2, jnp.float32) * jnp.exp(-0.0 * t)  # noqa: E731
    single = lambda *values: jnp.asarray(values, jnp.float32)  # noqa: E731
    found = ode.solve(single(0, 0, 1), rf, None, single(0, 1e-3), single(0, 0, 0), 1e9, 1e9)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[-1], [0, -1, 0], atol=1e-4)


def test_reverse_derivatives():
    @jax.jit
    def end(x):
        """By flip rate, gradient, relaxation and off-resonance, all of order one."""
        rf = lambda t: 1e3 * x[0] * jnp.sin(3e3 * t)  # noqa: E731
        gradient = lambda t: jnp.array([1e5 * x[1], 0.0, 0.0])  # noqa: E731
        position = jnp.array([2e-3, 0.0, 0.0])
        m = ode.solve(
            REST, rf, gradient, jnp.array([0.0, 1e-3]), position, x[2], 0.01 * x[3], 100 * x[4], x[5], **TIGHT
        )
        return m[-1] @ jnp.array([1.0, -0.5, 0.3])

    x, direction = jnp.array([1.3, 0.7, 0.9, 0.8, 1.1, 0.95]), jnp.array([1.0, -0.5, 0.3, 0.8, 0.2, -0.9])
    difference = central_difference(lambda step: end(x + step * direction), 0.0, 1e-3)
    assert jax.grad(end)(x) @ direction == pytest.approx(float(difference), rel=1e-7)


@pytest.mark.parametrize("times", [[0.0], [0.0, 0.0], [1.0, 0.0]])
def test_times_must_increase(times):
    with pytest.raises(ValueError, match="times must"):
        ode.solve(REST, lambda t: 0.0 * t, None, jnp.array(times), ORIGIN, 1.0, 0.1)
