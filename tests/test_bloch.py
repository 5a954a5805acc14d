"""Isochromats against other programs' results, SciPy's rotations, closed forms and finite differences."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.spatial.transform import Rotation

from jaxmr.physics import bloch

T1, T2 = 0.9, 0.085


def pulse_train(n: int, seed: int = 0):
    """RF (rad/s), gradient (rad/(s m)) and dwell (s) of `n` random samples that turn by about a radian."""
    rng = np.random.default_rng(seed)
    rf = jnp.asarray(rng.normal(size=(n, 2)) @ [1, 1j]) * 1e3
    return rf, jnp.asarray(rng.normal(size=(n, 3))) * 1e5, jnp.asarray(rng.uniform(0.5e-3, 1e-3, n))


@pytest.mark.parametrize("phase", [0.0, 0.7, -2.0])
def test_rotate_is_right_handed(phase):
    """The formula of the design: M+ -> cos^2(a/2) M+ + e^{2ip} sin^2(a/2) conj(M+) - i e^{ip} sin(a) Mz."""
    flip, m = 1.1, jnp.array([0.3, -0.5, 0.8])
    plus = m[0] + 1j * m[1]
    expected = np.cos(flip / 2) ** 2 * plus + np.exp(2j * phase) * np.sin(flip / 2) ** 2 * plus.conj()
    expected -= 1j * np.exp(1j * phase) * np.sin(flip) * m[2]
    turned = bloch.rotate(m, flip, phase)
    assert bloch.transverse(turned) == pytest.approx(complex(expected), abs=1e-14)
    assert jnp.linalg.norm(turned) == pytest.approx(float(jnp.linalg.norm(m)), abs=1e-14)


def test_verbs_match_scipy_rotations():
    rng = np.random.default_rng(1)
    for _ in range(10):
        m, vector, phase = rng.normal(size=3), 2 * rng.normal(size=3), rng.uniform(-3, 3)
        turned = bloch.turn(jnp.asarray(m), jnp.asarray(vector))
        np.testing.assert_allclose(turned, Rotation.from_rotvec(vector).apply(m), atol=1e-13)
        axis = vector[0] * np.array([np.cos(phase), np.sin(phase), 0])
        turned = bloch.rotate(jnp.asarray(m), vector[0], phase)
        np.testing.assert_allclose(turned, Rotation.from_rotvec(axis).apply(m), atol=1e-13)
        turned = bloch.precess(jnp.asarray(m), vector[2])
        np.testing.assert_allclose(turned, Rotation.from_rotvec([0, 0, vector[2]]).apply(m), atol=1e-13)


def test_precession_winds_positively():
    """M+ turns by exp(+i (2 pi b0 t + moment . r)), through `precess` and through `play`."""
    m, dwell, b0 = jnp.array([1.0, 0.0, 0.0]), 1e-3, 40.0
    gradient, position = jnp.array([[2e5, -1e5, 3e5]]), jnp.array([1e-3, 2e-3, 3e-3])
    angle = 2 * np.pi * b0 * dwell + float(gradient[0] @ position) * dwell
    played = bloch.play(m, jnp.zeros(1, complex), gradient, dwell, position, jnp.inf, jnp.inf, b0)
    assert bloch.transverse(played) == pytest.approx(np.exp(1j * angle), abs=1e-14)
    assert bloch.transverse(bloch.precess(m, angle)) == pytest.approx(np.exp(1j * angle), abs=1e-14)


def test_relaxation_and_recovery():
    m, time, m0 = jnp.array([0.6, -0.2, -0.5]), 0.1, 1.3
    expected = [0.6 * np.exp(-time / T2), -0.2 * np.exp(-time / T2), m0 + (-0.5 - m0) * np.exp(-time / T1)]
    np.testing.assert_allclose(bloch.relax(m, time, T1, T2, m0), expected, atol=1e-15)
    played = bloch.play(m, jnp.zeros(7, complex), jnp.zeros((7, 3)), time / 7, jnp.zeros(3), T1, T2, m0=m0)
    np.testing.assert_allclose(played, expected, atol=1e-14)


def test_play_matches_scipy_rotations_and_b1_scales_rf():
    rf, gradient, dwell = pulse_train(12)
    position, b0, b1 = np.array([1e-3, -2e-3, 5e-4]), 30.0, 0.9
    m = np.array([0.1, 0.2, 0.9])
    for i in range(12):
        axial = float(gradient[i] @ position) + 2 * np.pi * b0
        omega = np.array([b1 * rf[i].real, b1 * rf[i].imag, axial])
        m = Rotation.from_rotvec(omega * float(dwell[i])).apply(m)
    start = jnp.array([0.1, 0.2, 0.9])
    played = bloch.play(start, rf, gradient, dwell, jnp.asarray(position), jnp.inf, jnp.inf, b0, b1)
    np.testing.assert_allclose(played, m, atol=1e-12)


def test_play_converges_to_the_bloch_equation():
    """Against SciPy's adaptive integrator; the error of Strang splitting falls fourfold per halved dwell."""
    from scipy.integrate import solve_ivp

    rf, gradient, dwell, b0 = 700 + 300j, 2e5, 2e-3, 55.0
    position, t1, t2 = 2e-3, 5e-3, 2e-3
    omega = np.array([rf.real, rf.imag, gradient * position + 2 * np.pi * b0])

    def equation(_, m):
        return np.cross(omega, m) - np.array([m[0] / t2, m[1] / t2, (m[2] - 1) / t1])

    exact = solve_ivp(equation, (0, dwell), [0, 0, 1], rtol=1e-12, atol=1e-13).y[:, -1]

    def error(n):
        samples, along_z = jnp.full(n, rf), jnp.tile(jnp.array([0, 0, gradient]), (n, 1))
        played = bloch.play(bloch.equilibrium(), samples, along_z, dwell / n, jnp.array([0, 0, position]), t1, t2, b0)
        return np.abs(played - exact).max()

    assert error(100) < 2e-5
    assert error(50) / error(100) == pytest.approx(4, rel=0.02)


def test_comotk_pulse_profile(shared):
    """Mixed conventions: rotation as here, precession exp(-i), so the positions change sign."""
    expected = np.fromfile(shared / "sycomore/pulse_profile.dat").reshape(2, 501, 3)
    weights = np.sinc(np.linspace(-2, 2, 101))
    flips = jnp.asarray(weights * (np.pi / 2) / weights.sum())
    moment = 8 * np.pi * 1e3

    def profile(z):
        m = bloch.rotate(bloch.equilibrium(), flips[0], jnp.pi)
        for_each = lambda m, flip: (bloch.rotate(bloch.precess(m, moment / 100 * z), flip, jnp.pi), None)  # noqa: E731
        m = jax.lax.scan(for_each, m, flips[1:])[0]
        return m, bloch.precess(m, -moment / 2 * z)

    before, after = jax.vmap(profile)(-jnp.linspace(-1e-3, 1e-3, 501))
    np.testing.assert_allclose(before, expected[0], atol=1e-10)
    np.testing.assert_allclose(after, expected[1], atol=1e-10)


def test_comotk_ideal_gradient_echo(shared):
    expected = np.fromfile(shared / "sycomore/GRE_ideal.dat").reshape(10, 3)
    m, found = bloch.equilibrium(), []
    for i in range(10):
        m = bloch.rotate(m, np.radians(40), np.pi / 3 + np.pi * (i % 2))
        m = bloch.relax(m, 0.25, 1.0, 0.1)
        found.append(m)
        m = bloch.relax(m, 0.25, 1.0, 0.1)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_jemris_trapezoid(shared):
    """JEMRIS is left-handed: RF phases negated, signal conjugated. Waveforms are linear between nodes."""
    with h5py.File(shared / "jemris_approved/trapezoid.h5") as file:
        node = {name: file[f"seqdiag/{name}"][()] for name in ("T", "TXM", "TXP", "GX", "GY", "GZ", "RXP")}
    with h5py.File(shared / "jemris_approved/trapezoid_signal.h5") as file:
        expected = file["signal/channels/00"][()] @ [1, 1j, 0]

    def middle(values):
        return jnp.asarray(values[1:] + values[:-1]) / 2

    rf = middle(node["TXM"]) * 1e3 * jnp.exp(-1j * middle(node["TXP"]))
    gradient = jnp.stack([middle(node[name]) for name in ("GX", "GY", "GZ")], axis=-1) * 1e6
    dwell = jnp.asarray(np.diff(node["T"])) * 1e-3
    x, y = jnp.meshgrid(jnp.arange(5) - 2.5, jnp.arange(5) - 2.5)
    position = jnp.stack([x.ravel(), y.ravel(), jnp.zeros(25)], axis=-1) * 1e-3

    @jax.jit
    def advance(m, *waveforms):
        return jax.vmap(lambda m, r: bloch.play(m, *waveforms, r, 1.0, 0.1))(m, position)

    m, signal = jnp.tile(bloch.equilibrium(), (25, 1)), []
    for i in range(len(dwell)):
        m = advance(m, rf[i : i + 1], gradient[i : i + 1], dwell[i : i + 1])
        if node["RXP"][i + 1] >= 0:
            plus = jnp.mean(jax.vmap(bloch.transverse)(m))
            signal.append(np.conj(plus) * np.exp(-1j * node["RXP"][i + 1]))
    assert np.linalg.norm(np.array(signal) - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_derivatives_match_finite_differences(size):
    """First and second derivatives in every input, forward and reverse, without any field included."""
    rf, gradient, dwell = pulse_train(3)

    @jax.jit
    def played(rf_x, rf_y, gradient, position, t1, t2, b0, b1):
        """Inputs of order one, as finite differences want them."""
        rf = 1e3 * jax.lax.complex(rf_x, rf_y)
        return bloch.play(bloch.equilibrium(), rf, 1e5 * gradient, dwell, 1e-3 * position, t1, t2, 100 * b0, b1)

    position = jnp.array([1.0, -2.0, 1.0])
    fields = (size * rf.real / 1e3, size * rf.imag / 1e3, gradient / 1e5, size * position)
    check_grads(played, (*fields, T1, T2, size, 1.0), order=2, modes=["fwd", "rev"], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("square", [0.0, 1e-8, 0.05, 0.1 - 1e-12, 0.1 + 1e-12, 1.0, 30.0])
def test_sine_over_angle_has_right_derivatives(square):
    """Value and two derivatives of sin(a)/a in a^2, on both sides of the switch, against its long series."""
    coefficients = [1.0]
    for k in range(1, 40):
        coefficients.append(-coefficients[-1] / (2 * k * (2 * k + 1)))
    series = np.polynomial.Polynomial(coefficients)
    assert bloch.sinc_root(square) == pytest.approx(series(square), abs=1e-14)
    assert jax.grad(bloch.sinc_root)(square) == pytest.approx(series.deriv()(square), abs=1e-14)
    second = jax.grad(jax.grad(bloch.sinc_root))(square)
    assert second == pytest.approx(series.deriv(2)(square), abs=1e-13)
    assert bloch.cos_root(square) == pytest.approx(np.cos(np.sqrt(square)), abs=1e-14)


def test_second_derivative_of_a_turn_at_rest():
    """The second derivative of Mz is -Mz at zero flip, where Rodrigues' formula divides 0 by 0."""
    along_x = lambda flip: bloch.turn(jnp.array([0.1, 0.2, 0.9]), flip * jnp.array([1.0, 0, 0]))  # noqa: E731
    np.testing.assert_allclose(jax.jacfwd(along_x)(0.0), [0, -0.9, 0.2], atol=1e-15)
    np.testing.assert_allclose(jax.jacfwd(jax.jacrev(along_x))(0.0), [0, -0.2, -0.9], atol=1e-15)


def test_single_precision_stays_single():
    m = jnp.array([0, 0, 1], jnp.float32)
    rf, gradient, dwell = (x.astype(t) for x, t in zip(pulse_train(5), ("c8", "f4", "f4"), strict=True))
    played = bloch.play(m, rf, gradient, dwell, jnp.full(3, 1e-3, jnp.float32), T1, T2)
    assert played.dtype == jnp.float32
