"""Priors: an orthogonal transform, proximal maps that minimise, closed-form solutions, a brain from few samples."""

import jax.numpy as jnp
import numpy as np
import pytest

from checks import relative
from jaxmr.encoding import Fourier, SubspaceNufft, centred_ifft, trajectory
from jaxmr.recon import LocallyLowRank, Wavelet, cg_sense, regularised_reconstruction, root_sum_of_squares, wavelets

RNG = np.random.default_rng(3)


def noise(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


@pytest.mark.parametrize("shape", [(16, 16), (23, 10), (5, 7), (3, 40)])
def test_wavelets_are_orthogonal_for_any_size(shape):
    image = jnp.asarray(noise(2, *shape))
    coefficients = wavelets.forward(image, 2, 3)
    assert relative(wavelets.inverse(coefficients, 2, 3), image) < 1e-13
    assert np.linalg.norm(coefficients) == pytest.approx(np.linalg.norm(image), rel=1e-12)


def test_details_of_ramps_vanish():
    """Two vanishing moments: away from the edges a linear course has no details."""
    ramp = jnp.arange(32.0)
    details = np.asarray(wavelets.forward(ramp, 1, 1))[16:]
    assert np.abs(details[:-1]).max() < 1e-12
    assert np.abs(details[-1]) > 1
    assert wavelets.averages((32, 23, 3), 2) == (8, 6, 3)


@pytest.mark.parametrize("prior", [LocallyLowRank(4), Wavelet(2)])
@pytest.mark.parametrize("shift", [(0, 0), (3, 1)])
def test_proximal_maps_minimise(prior, shift):
    """|x - z|^2 / 2 + t g(x) rises in every direction from the map, on a shifted grid too."""
    z, t, shift = noise(3, 12, 10), 0.7, np.array(shift)
    found = np.asarray(prior.proximal(jnp.asarray(z), jnp.asarray(t), jnp.asarray(shift)))

    def value(x):
        on_grid = jnp.roll(jnp.asarray(x), shift, (1, 2))
        return float(np.sum(np.abs(x - z) ** 2) / 2 + t * prior.penalty(on_grid, 2))

    least = value(found)
    assert least < value(z)
    assert least < value(0 * z)
    for _ in range(20):
        direction = noise(3, 12, 10)
        assert value(found + 1e-3 * direction) > least
        assert value(found + 0.05 * (z - found) + 1e-3 * direction) > least


def test_blocks_of_one_voxel_shrink_its_length():
    """A matrix of one column has one singular value; fully sampled, the minimum is the proximal map of the image."""
    truth = noise(4, 6, 5)
    operator = Fourier((6, 5))
    samples = operator.forward(truth)[None]
    found = regularised_reconstruction(
        samples, operator, np.ones((1, 6, 5)), LocallyLowRank(1), strength=0.2, iterations=60, tolerance=1e-12
    )
    threshold = 0.2 * np.abs(truth).max()
    length = np.linalg.norm(truth, axis=0)
    assert relative(found.value, truth * np.maximum(1 - threshold / length, 0)) < 1e-6
    assert found.converged
    misfit = np.sum(np.abs(operator.forward(found.value) - samples[0]) ** 2) / 2 - np.sum(np.abs(samples) ** 2) / 2
    lengths = np.linalg.norm(np.asarray(found.value), axis=0).sum()
    assert found.objective[-1] == pytest.approx(misfit + 30 * threshold * lengths, rel=1e-7)


def test_without_penalty_it_is_sense():
    y, x = (np.mgrid[:12, :12] - 6) / 12
    coils = np.stack([np.exp(1j * x), np.exp(-2 * (x - 0.5) ** 2), np.exp(-2 * (y + 0.5) ** 2 + 1j * y)])
    mask = np.ones((12, 12))
    mask[1::3] = 0
    operator = Fourier((12, 12), mask)
    samples = operator.forward(coils * noise(12, 12))
    sense = cg_sense(samples, operator, coils, tolerance=1e-10, max_iterations=500)
    found = regularised_reconstruction(
        samples, operator, coils, Wavelet(2), strength=0.0, iterations=2000, tolerance=1e-9
    )
    assert relative(found.value, sense.value) < 1e-5


def test_a_series_gains_from_its_rank():
    """Coefficient images of one spoke per time: locally they are one curve times an image, and noise is not."""
    n, times, voxel = 24, 120, 4e-3
    y, x = np.mgrid[:n, :n] - n // 2
    disc = (x**2 + y**2 < 100) * (1 + 0.5 * (x > 0))
    truth = np.stack([disc, 0.5 * disc, -0.3 * disc])
    basis = np.linalg.qr(RNG.normal(size=(times, 3)))[0]
    k = trajectory.radial(times, 48, voxel)
    operator = SubspaceNufft(k, basis, voxel, (n, n), "exact")
    samples = operator.forward(truth.astype(complex))[None]
    samples = samples + 0.7 * np.abs(samples).mean() * noise(*samples.shape)
    coils = np.ones((1, n, n))
    plain = cg_sense(samples, operator, coils, regularisation=1e-3 * times, max_iterations=30)
    found = regularised_reconstruction(samples, operator, coils, LocallyLowRank(6), strength=0.05, iterations=60)
    errors = [relative(image, truth) for image in (plain.value, found.value)]
    assert errors[1] < 0.6 * errors[0]
    assert found.objective[-1] < found.objective[0]


def test_a_wavelet_prior_predicts_samples_that_were_held_out(shared):
    """sigpy's tutorial, 12.4 % of k-space, of which 5 % are kept for the judgement."""
    kspace = np.load(shared / "kspace" / "sigpy_cartesian_ksp.npy")
    _, ny, nx = kspace.shape
    sampled = (np.abs(kspace) > 0).any(axis=0)
    window = np.zeros((ny, nx))
    window[ny // 2 - 13 : ny // 2 + 13, nx // 2 - 13 : nx // 2 + 13] = np.outer(np.hanning(26), np.hanning(26))
    held = sampled & (RNG.random((ny, nx)) < 0.05) & (window == 0)
    low = centred_ifft(kspace * window)
    coils = np.asarray(low / (root_sum_of_squares(low)[None] + 1e-12))
    operator, judged = Fourier((ny, nx), sampled & ~held), Fourier((ny, nx), held)
    samples = jnp.asarray(kspace * (sampled & ~held))
    zero_filled = operator.adjoint(samples) / (ny * nx)
    sense = cg_sense(samples, operator, coils, regularisation=0.01 * ny * nx, tolerance=1e-4)
    wavelet = regularised_reconstruction(samples, operator, coils, Wavelet(4), strength=0.002, iterations=60)
    images = {
        "zero": zero_filled,
        "sense": coils * np.asarray(sense.value),
        "wavelet": coils * np.asarray(wavelet.value),
    }
    errors = {name: relative(judged.forward(image), kspace * held) for name, image in images.items()}
    assert errors["zero"] == pytest.approx(1, abs=1e-5)
    assert errors["sense"] < 0.9
    assert errors["wavelet"] < errors["sense"]


def test_wrong_arguments_name_the_remedy():
    operator, samples = Fourier((8, 8)), np.ones((1, 8, 8), complex)
    with pytest.raises(ValueError, match=r"needs a series .*; take Wavelet"):
        regularised_reconstruction(samples, operator, np.ones((1, 8, 8)), LocallyLowRank(), strength=0.1)
    with pytest.raises(ValueError, match="strength must be at least 0, got -1"):
        regularised_reconstruction(samples, operator, np.ones((1, 8, 8)), Wavelet(), strength=-1.0)
    with pytest.raises(ValueError, match="initial must have the shape"):
        regularised_reconstruction(
            samples, operator, np.ones((1, 8, 8)), Wavelet(), strength=0.1, initial=np.ones((4, 4))
        )
    with pytest.raises(ValueError, match="block is a number of voxels"):
        LocallyLowRank(0)
    with pytest.raises(ValueError, match="levels is a number of scales"):
        Wavelet(0)
