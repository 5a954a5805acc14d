"""Cartesian Fourier transforms: the plain sum, its adjoint, and which way is up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import relative
from jaxmr.encoding import Fourier, Nufft, centred_fft, centred_ifft, to_grid, trajectory

RNG = np.random.default_rng(5)


def numbers(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


def positions(matrix, voxel_size):
    """Centres of voxels (x, y[, z]), written out."""
    return np.array(
        [[(i - n // 2) * voxel_size for i, n in zip(place, matrix, strict=True)][::-1] for place in np.ndindex(*matrix)]
    )


def plain_sum(image, k, voxel_size):
    return np.exp(-1j * k @ positions(image.shape, voxel_size).T) @ image.ravel()


def letter_l(matrix=(16, 12)):
    """An L: an upright stroke at small x, its foot at large y towards large x."""
    image = np.zeros(matrix)
    image[3:12, 3] = 1
    image[11, 3:9] = 2
    return image


@pytest.mark.parametrize("matrix", [(6, 5), (4, 5, 6)])
def test_the_grid_is_the_plain_sum(matrix):
    image, voxel = numbers(*matrix), 2e-3
    k = trajectory.cartesian(matrix, voxel).reshape(-1, len(matrix))
    assert relative(centred_fft(image, len(matrix)).ravel(), plain_sum(image, k, voxel)) < 1e-13
    assert relative(centred_ifft(centred_fft(image, len(matrix)), len(matrix)), image) < 1e-13
    assert relative(Nufft(k, voxel, matrix, "exact").forward(image), centred_fft(image, len(matrix)).ravel()) < 1e-12


@pytest.mark.parametrize("masked", [False, True])
def test_adjoint_and_normal(masked):
    matrix = (6, 5)
    operator = Fourier(matrix, RNG.random(matrix) < 0.5 if masked else None)
    image, samples = numbers(3, *matrix), numbers(3, *matrix)
    forward, back = operator.forward(image), operator.adjoint(samples)
    assert abs(np.vdot(samples, forward) - np.vdot(back, image)) < 1e-10 * abs(np.vdot(samples, forward))
    (transpose,) = jax.linear_transpose(operator.forward, image)(jnp.asarray(samples.conj()))
    assert relative(back, transpose.conj()) < 1e-13
    assert relative(operator.gram().normal(image), operator.normal(image)) < 1e-13
    weights = RNG.random(matrix)
    assert relative(operator.gram(weights).normal(image), operator.adjoint(weights[None] * forward)) < 1e-13
    if masked:
        assert (np.asarray(forward)[:, np.asarray(operator.mask) == 0] == 0).all()
    else:
        assert relative(operator.normal(image), 30 * image) < 1e-13


def test_single_precision_stays_single():
    operator = Fourier((6, 5), np.ones((6, 5)))
    assert operator.forward(jnp.ones((6, 5), jnp.complex64)).dtype == jnp.complex64


def test_an_l_comes_out_upright_and_unmirrored():
    image, voxel = letter_l(), 3e-3
    k = trajectory.cartesian(image.shape, voxel)
    samples = plain_sum(image, k.reshape(-1, 2), voxel)
    grid = samples.reshape(image.shape)
    by_numpy = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(grid)))
    assert relative(by_numpy, image) < 1e-12
    assert relative(centred_ifft(grid), image) < 1e-12
    assert relative(Fourier(image.shape).adjoint(grid) / image.size, image) < 1e-12
    for method in ("exact", "finufft", "gridding"):
        adjoint = Nufft(k.reshape(-1, 2), voxel, image.shape, method, tolerance=1e-10).adjoint(samples)
        assert relative(adjoint / image.size, image) < 1e-8


def test_samples_of_an_epi_in_any_order_find_their_place():
    image, voxel = letter_l(), (3e-3, 2e-3)
    k = trajectory.epi(image.shape, voxel).reshape(-1, 2)
    samples = np.asarray(Nufft(k, voxel, image.shape, "exact").forward(image))
    assert relative(to_grid(samples, k, image.shape, voxel), centred_fft(image)) < 1e-12
    three_columns = np.concatenate([k, np.full((len(k), 1), 7.0)], axis=1)
    twice = to_grid(np.tile(samples, (2, 2)) * [[1], [2]], np.tile(three_columns, (2, 1)), image.shape, voxel)
    assert relative(twice[1], 2 * centred_fft(image)) < 1e-12
    half = to_grid(samples[:96], k[:96], image.shape, voxel)
    assert (np.asarray(half[8:]) == 0).all()
    with pytest.raises(ValueError, match="k must lie on the grid"):
        to_grid(samples, k * 1.01, image.shape, voxel)
    with pytest.raises(ValueError, match=r"k must have shape \(192, >= 2\)"):
        to_grid(samples, k[:5], image.shape, voxel)


def test_masks_and_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"mask must have the shape of matrix, \(6, 5\), got \(5, 6\)"):
        Fourier((6, 5), np.ones((5, 6)))
    with pytest.raises(ValueError, match="weights must have the shape of matrix"):
        Fourier((6, 5)).gram(np.ones((5, 6)))
