"""The scan of a phantom against the plain sum, the definition of its noise, and trajectories in a wrong unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.encoding import trajectory
from jaxmr.units import ms

MATRIX, VOXEL, N_PULSES = (7, 8), 4e-3, 40
MODEL = mr.EPG(orders=20)
SEQUENCE = mr.sequences.fisp(sine_train(N_PULSES), 10 * ms, 4 * ms, 0.0)


def phantom(coils=None):
    """Maps with a hole, an M0 of its own in each voxel."""
    rng = np.random.default_rng(0)
    t1, t2 = rng.uniform(0.5, 2, MATRIX), rng.uniform(0.05, 0.2, MATRIX)
    m0 = np.where(rng.random(MATRIX) < 0.8, rng.uniform(0.5, 1, MATRIX), 0)
    made = mr.objects.from_maps(t1, t2, m0, rng.uniform(0.8, 1.2, MATRIX), voxel_size=VOXEL)
    if coils is None:
        return made
    return mr.Phantom(made.tissue, made.position, made.voxel_size, coils, made.pixel, made.matrix)


@pytest.mark.parametrize("n_coils", [None, 3])
def test_each_pulse_sees_its_own_image(n_coils):
    plain = phantom()
    n = plain.tissue.shape[0]
    rng = np.random.default_rng(1)
    coils = None if n_coils is None else rng.normal(size=(n_coils, n)) + 1j * rng.normal(size=(n_coils, n))
    k = trajectory.radial(N_PULSES, 12, VOXEL)
    samples = mr.mrf.acquire(SEQUENCE, phantom(coils), MODEL, k)
    signals = np.asarray(mr.simulate(SEQUENCE, plain.tissue, MODEL))
    seen = signals[None] if coils is None else coils[:, :, None] * signals[None]
    r = np.asarray(plain.position)[:, :2]
    expected = np.einsum("cvt,tnv->ctn", seen, np.exp(-1j * k @ r.T))
    assert samples.shape == (n_coils or 1, N_PULSES, 12)
    assert relative(samples, expected) < 5e-6


def test_interleaves_take_turns():
    interleaves, _ = trajectory.spiral(4, 0.2, 5e-3)
    k = trajectory.one_per_pulse(interleaves, 10)
    assert k.shape == (10, *interleaves.shape[1:])
    np.testing.assert_array_equal(k[9], interleaves[1])
    quarter = interleaves[0] @ np.array([[0, 1], [-1, 0]])
    np.testing.assert_allclose(k[5], quarter, atol=1e-6)


def test_noise_is_relative_to_the_mean_magnitude():
    rng = np.random.default_rng(2)
    samples = (rng.normal(size=(2, 300, 200)) * 3 + 1j).astype(np.complex64)
    noisy, std = mr.mrf.add_noise(samples, 40.0, seed=5)
    noise = noisy - samples
    assert noisy.dtype == np.complex64
    assert std == pytest.approx(np.abs(samples).mean() / 40, rel=1e-6)
    # 120,000 numbers: their standard deviation is known to 0.2 %.
    assert np.std(noise.real) == pytest.approx(std, rel=0.01)
    assert np.std(noise.imag) == pytest.approx(std, rel=0.01)
    assert abs(np.corrcoef(noise.real.ravel(), noise.imag.ravel())[0, 1]) < 0.015
    np.testing.assert_array_equal(mr.mrf.add_noise(samples, 40.0, seed=5)[0], noisy)
    assert relative(mr.mrf.add_noise(samples, 40.0, seed=6)[0], noisy) > 0.005
    with pytest.raises(ValueError, match="snr must be positive, got 0"):
        mr.mrf.add_noise(samples, 0.0)
    with pytest.raises(ValueError, match="samples must be finite, got nan"):
        mr.mrf.add_noise(np.full((1, 2), np.nan + 0j), 40.0)


UNITS = {
    "cycles per metre: multiply it by 2 pi": 1 / (2 * np.pi),
    "cycles per field of view": 112 * 1.9e-3 / (2 * np.pi),
    "radians per voxel: multiply it by 1 / voxel_size": 1.9e-3,
    "cycles per voxel": 1.9e-3 / (2 * np.pi),
    "radians per millimetre: multiply it by 1e3": 1e-3,
    "cycles per centimetre": 1e-2 / (2 * np.pi),
}


@pytest.mark.parametrize("named", UNITS)
def test_a_trajectory_in_a_wrong_unit_is_named(named):
    k = trajectory.radial(20, 224, 1.9e-3)
    trajectory.require_units(k, 1.9e-3, (112, 112))
    with pytest.raises(ValueError, match=f"k must be in rad/m .*{named}"):
        trajectory.require_units(k * UNITS[named], 1.9e-3, (112, 112))


def test_what_passes_for_rad_per_metre():
    k = trajectory.radial(20, 64, 4e-3)
    for voxel_size in (2e-3, 6e-3, np.array([4e-3, 3e-3, 9.0])):
        trajectory.require_units(k, voxel_size, (32, 32))
    jax.jit(lambda k: trajectory.require_units(k, 1.0, (32, 32)))(jnp.asarray(k))
    with pytest.raises(ValueError, match="check units"):
        trajectory.require_units(k * 5e5, 4e-3, (32, 32))
    with pytest.raises(ValueError, match="k must be finite, got nan"):
        trajectory.require_units(np.where(k == k[3, 5], np.nan, k), 4e-3, (32, 32))


def test_errors_name_the_remedy():
    k = trajectory.radial(N_PULSES, 12, VOXEL)
    with pytest.raises(ValueError, match=r"k must have shape \(40, samples, 2\).*one_per_pulse"):
        mr.mrf.acquire(SEQUENCE, phantom(), MODEL, k[:7])
    with pytest.raises(ValueError, match="cycles per metre"):
        mr.mrf.acquire(SEQUENCE, phantom(), MODEL, k / (2 * np.pi))
    bare = phantom()
    bare = mr.Phantom(bare.tissue, bare.position, bare.voxel_size)
    with pytest.raises(ValueError, match="this phantom is no image"):
        mr.mrf.acquire(SEQUENCE, bare, MODEL, k)
