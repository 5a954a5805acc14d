"""Orders and trajectories: what they cover, whether a scanner can play them, the weights that undo their density."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import relative
from jaxmr.encoding import Nufft, pipe_menon_weights, radial_weights, trajectory
from jaxmr.units import GAMMA, deg


def disc(n):
    y, x = np.mgrid[:n, :n] - n // 2
    return np.exp(-((x / n * 4.5 - 0.5) ** 2 + (y / n * 4) ** 2)) * (1 + 0.3j)


def test_orders_are_permutations_in_the_order_they_promise():
    np.testing.assert_array_equal(trajectory.linear_order(5), [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(trajectory.centric_order(6), [3, 2, 4, 1, 5, 0])
    np.testing.assert_array_equal(trajectory.centric_order(5), [2, 1, 3, 0, 4])
    np.testing.assert_array_equal(trajectory.interleaved_order(6, 2), [[0, 2, 4], [1, 3, 5]])
    with pytest.raises(ValueError, match="n_segments must divide the 7 rows, got 2"):
        trajectory.interleaved_order(7, 2)


def test_the_cartesian_grid_has_the_spacing_of_its_field_of_view():
    k = trajectory.cartesian((4, 6, 5), (1e-3, 2e-3, 3e-3))
    assert k.shape == (4, 6, 5, 3)
    assert (k[2, 3, 2] == 0).all()
    np.testing.assert_allclose(k[2, 3, 3], [2 * np.pi / 5e-3, 0, 0])
    np.testing.assert_allclose(k[2, 4, 2], [0, 2 * np.pi / 12e-3, 0])
    np.testing.assert_allclose(k[3, 3, 2], [0, 0, 2 * np.pi / 12e-3])
    with pytest.raises(ValueError, match="voxel_size must be one positive number or one per axis, 3"):
        trajectory.cartesian((4, 6, 5), (1e-3, 2e-3))


def test_epi_zig_zags():
    k, grid = trajectory.epi((4, 6), 1e-3), trajectory.cartesian((4, 6), 1e-3)
    np.testing.assert_array_equal(k[::2], grid[::2])
    np.testing.assert_array_equal(k[1::2], grid[1::2, ::-1])
    steps = np.abs(np.diff(k.reshape(-1, 2), axis=0))
    assert (np.count_nonzero(steps, axis=1) == 1).all()
    with pytest.raises(ValueError, match="matrix must be"):
        trajectory.epi((2, 4, 6), 1e-3)


def test_radial_spokes_turn_by_the_golden_angle_through_the_centre():
    assert trajectory.GOLDEN_ANGLE / deg == pytest.approx(111.2461, abs=1e-4)
    assert trajectory.tiny_golden_angle(1) == trajectory.GOLDEN_ANGLE
    assert trajectory.tiny_golden_angle(7) / deg == pytest.approx(23.6281, abs=1e-4)
    angle = trajectory.tiny_golden_angle(7)
    k = trajectory.radial(5, 8, 2e-3, angle)
    assert (k[:, 4] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(k[:, 0], axis=-1), np.pi / 2e-3)
    np.testing.assert_allclose(k[0, 5], [2 * np.pi / 16e-3, 0])
    turned = np.unwrap(np.arctan2(k[:, 5, 1], k[:, 5, 0]))
    np.testing.assert_allclose(np.diff(turned), angle)
    with pytest.raises(ValueError, match="n must be at least 1"):
        trajectory.tiny_golden_angle(0)


@pytest.mark.parametrize("edge_density", [1.0, 0.4])
def test_spirals_are_playable_and_cover_their_field_of_view(edge_density):
    fov, voxel, n = 0.2, 2e-3, 8
    k, dwell = trajectory.spiral(
        n, fov, voxel, edge_density=edge_density, max_gradient=25e-3, max_slew=100.0, dwell=4e-6
    )
    gradient = np.diff(k, axis=1, prepend=0) / (GAMMA * dwell)
    slew = np.diff(gradient, axis=1, prepend=0) / dwell
    assert np.linalg.norm(gradient, axis=-1).max() < 25e-3
    assert np.linalg.norm(slew, axis=-1).max() < 100
    # It uses what it is given.
    assert np.linalg.norm(slew, axis=-1)[:, 5:50].min() > 95
    assert np.linalg.norm(gradient, axis=-1)[:, -1].min() > 0.99 * min(25e-3, np.linalg.norm(gradient, axis=-1).max())
    radius = np.linalg.norm(k, axis=-1)
    assert (k[:, 0] == 0).all()
    assert 0.99 * np.pi / voxel < radius.max() <= np.pi / voxel
    # Along any ray neighbouring arms lie 2 pi / fov apart, further out 1 / density times as far.
    arms = []
    for arm in k:
        angle = np.unwrap(np.arctan2(arm[1:, 1], arm[1:, 0]))
        turns = np.arange(np.ceil(angle[0] / (2 * np.pi)), np.floor(angle[-1] / (2 * np.pi)) + 1) * 2 * np.pi
        arms.extend(np.interp(turns, angle, np.linalg.norm(arm[1:], axis=-1)))
    arms = np.sort(arms)
    middle = (arms[1:] + arms[:-1]) / 2
    density = 1 + (edge_density - 1) * middle / (np.pi / voxel)
    np.testing.assert_allclose(np.diff(arms)[5:], (2 * np.pi / fov / density)[5:], rtol=0.02)


def test_spirals_that_skip_points_are_refused():
    with pytest.raises(ValueError, match=r"dwell 1e-05 s skips points of a 0\.24 m field of view; at most 3\.3e-06 s"):
        trajectory.spiral(8, 0.24, 1e-3, dwell=1e-5)
    with pytest.raises(ValueError, match="max_slew must be positive"):
        trajectory.spiral(8, 0.24, 1e-3, max_slew=0)
    with pytest.raises(ValueError, match="n_interleaves must be at least 1"):
        trajectory.spiral(0, 0.24, 1e-3)


def test_radial_weights_make_the_adjoint_an_image():
    n, voxel = 32, 2e-3
    image = disc(n)
    angle = math.pi / 64
    k = trajectory.radial(64, 2 * n, voxel, angle)
    operator = Nufft(k, voxel, (n, n))
    weights = radial_weights(k, voxel)
    assert relative(operator.adjoint(weights * operator.forward(image)), image) < 0.02
    gradient = jax.grad(lambda k: jnp.sum(radial_weights(k, voxel)))(jnp.asarray(k))
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match=r"k must have shape \(n_spokes, n_samples, 2\)"):
        radial_weights(k[0], voxel)


@pytest.mark.parametrize("name", ["cartesian", "radial", "spiral"])
def test_pipe_menon_weights_make_the_adjoint_an_image(name):
    n, voxel = 32, 2e-3
    image = disc(n)
    if name == "cartesian":
        k = trajectory.cartesian((n, n), voxel)
    elif name == "radial":
        k = trajectory.radial(64, 2 * n, voxel)
    else:
        k, _ = trajectory.spiral(12, 1.5 * n * voxel, voxel, edge_density=0.9)
    weights = jax.jit(lambda k: pipe_menon_weights(k, voxel, (n, n)))(k)
    assert weights.shape == k.shape[:-1]
    operator = Nufft(k, voxel, (n, n))
    found = operator.adjoint(weights * operator.forward(image))
    if name == "cartesian":
        np.testing.assert_allclose(weights, 1 / n**2, rtol=1e-5)
    assert relative(found, image) < 0.05
