"""The EPG verbs against EPG-X, CoMoTk, an ensemble of isochromats and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import relative, spin_ensemble
from jaxmr.physics import epg


def test_rf_spoiled_train_equals_epg_x(shared):
    """200 pulses of 10 degrees, TR 5 ms, phase increment 117 degrees: every order that EPG-X holds exactly."""
    reference = np.load(shared / "sycomore" / "EPGX_GRE_dev.npz")
    flip, increment, tr, t1, t2 = np.deg2rad(10), np.deg2rad(117), 5e-3, 0.779, 0.045
    n = 200
    phases = np.arange(1, n + 1) * np.arange(n) / 2 * increment
    expected = reference["Fn0"]
    states = epg.initial(n + 2)

    def step(states, phase):
        states = epg.rf(states, flip, phase)
        return epg.dephase(epg.relax(states, tr, t1, t2)), (states.plus, states.minus)

    _, orders = jax.lax.scan(step, states, jnp.asarray(phases))
    plus, minus = map(np.asarray, orders)
    centre = expected.shape[0] // 2
    for order in range(-60, 61):
        pulses = 100 - abs(order)
        ours = plus[:pulses, order] if order >= 0 else minus[:pulses, -order].conj()
        # EPG-X stores pulses along the second axis; only abs(order) + pulse < 100 is exact there.
        assert np.abs(ours - expected[centre + order, :pulses]).max() < 1e-10, order
    assert np.abs(plus[:, 0] - expected[centre]).max() < 1e-10


def test_ideal_gradient_echo_equals_comotk(shared):
    """FA 40, TR 500, T1 1000, T2 100 ms, phase pi/3 + pi (i mod 2), read at TR/2, no gradients."""
    reference = np.fromfile(shared / "sycomore" / "GRE_ideal.dat").reshape(10, 3)
    states, found = epg.initial(12), []
    for i in range(10):
        states = epg.rf(states, np.deg2rad(40), np.pi / 3 + np.pi * (i % 2))
        states = epg.relax(states, 0.25, 1.0, 0.1)
        found.append((states.plus[0].real, states.plus[0].imag, states.z[0].real))
        states = epg.relax(states, 0.25, 1.0, 0.1)
    assert np.abs(np.array(found) - reference).max() < 1e-10


@pytest.mark.parametrize("magnetisation", [(0.0, 0.0, 1.0), (0.3, -0.2, -0.7)])
def test_random_pulses_equal_an_isochromat_ensemble(magnetisation):
    rng = np.random.default_rng(1)
    n = 12
    flips, phases = rng.uniform(-2, 3, n), rng.uniform(-np.pi, np.pi, n)
    times = rng.uniform(2e-3, 30e-3, n)
    t1, t2, b0 = 0.3, 0.06, 17.0
    expected = spin_ensemble(flips, phases, times, t1, t2, b0=b0, magnetisation=magnetisation)
    # Exactly as many orders as can return to order 0, so that a wrong shift cannot hide.
    states, found = epg.initial(n // 2 + 1, magnetisation), []
    for flip, phase, time in zip(flips, phases, times, strict=True):
        states = epg.relax(epg.rf(states, flip, phase), time, t1, t2, b0)
        found.append(epg.signal(states))
        states = epg.dephase(states)
    assert np.abs(np.array(found) - expected).max() < 1e-12


def test_dephasing_back_undoes_dephasing():
    rng = np.random.default_rng(0)
    states = epg.initial(8, (0.2, 0.5, 0.3))
    for _ in range(3):
        states = epg.dephase(epg.rf(states, rng.uniform(0, 2), rng.uniform(0, 6)))
    there = epg.dephase(states, 2)
    back = epg.dephase(there, -2)
    for ours, expected in zip(back, states, strict=True):
        assert np.abs(ours - expected).max() < 1e-15


def test_inversion_recovery_closed_form():
    states = epg.relax(epg.invert(epg.initial(2), 0.93), 0.4, 0.9, 0.1)
    assert np.isclose(states.z[0], 1 - 1.93 * np.exp(-0.4 / 0.9), atol=1e-15)
    assert np.abs(epg.signal(states)) == 0


def test_spin_echo_diffusion_is_stejskal_tanner():
    """Constant gradient over a spin echo: exp(-(2/3) D G^2 tau^3 gamma^2), with moment = gamma G tau per half."""
    diffusivity, moment, half = 2.3e-9, 4e5, 20e-3
    states = epg.rf(epg.initial(4), np.pi / 2)
    for _ in range(2):
        states = epg.dephase(epg.diffuse(states, half, diffusivity, moment, wound=1))
        states = epg.rf(states, np.pi, np.pi / 2)
    b = 2 / 3 * moment**2 * half
    assert np.isclose(abs(epg.signal(states)), np.exp(-b * diffusivity), atol=1e-14)


def test_spin_echo_diffusion_in_several_intervals():
    """The same gradient counted in two intervals a side, so that orders 1 and 2 are wound from both ends."""
    diffusivity, moment, time = 2.3e-9, 2e5, 10e-3
    states = epg.rf(epg.initial(6), np.pi / 2)
    for _ in range(2):
        for _ in range(2):
            states = epg.dephase(epg.diffuse(states, time, diffusivity, moment, wound=1))
        states = epg.rf(states, np.pi, np.pi / 2)
    b = 2 / 3 * (2 * moment) ** 2 * (2 * time)
    assert np.isclose(abs(epg.signal(states)), np.exp(-b * diffusivity), atol=1e-14)


def test_stimulated_echo_diffusion():
    """Gradient only in the two outer intervals: b = moment^2 (T_mixing + 2/3 tau), Mz stored at order 1."""
    diffusivity, moment, half, mixing = 2.3e-9, 3e5, 5e-3, 0.2
    states = epg.rf(epg.initial(4), np.pi / 2)
    states = epg.dephase(epg.diffuse(states, half, diffusivity, moment, wound=1))
    states = epg.rf(states, np.pi / 2)
    states = epg.diffuse(states, mixing, diffusivity, moment)._replace(
        plus=jnp.zeros(4, complex), minus=jnp.zeros(4, complex)
    )
    states = epg.rf(states, np.pi / 2)
    states = epg.dephase(epg.diffuse(states, half, diffusivity, moment, wound=1))
    b = moment**2 * (mixing + 2 / 3 * half)
    assert np.isclose(abs(epg.signal(states)), 0.5 * np.exp(-b * diffusivity), atol=1e-14)


def test_affine_rotation_equals_rf():
    flip = 0.7
    matrix = jnp.array([[1, 0, 0], [0, np.cos(flip), -np.sin(flip)], [0, np.sin(flip), np.cos(flip)]])
    states = epg.dephase(epg.rf(epg.initial(5, (0.1, 0.2, 0.8)), 1.1, 0.4))
    for ours, expected in zip(epg.affine(states, matrix, jnp.zeros(3)), epg.rf(states, flip), strict=True):
        assert relative(ours, expected) < 1e-15
