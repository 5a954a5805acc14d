"""Images of several coils: simulated ones come back, gradients are those of the solution, a real brain converges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import central_difference, relative
from jaxmr.encoding import Fourier, Nufft, SubspaceNufft, centred_ifft, pipe_menon_weights, trajectory
from jaxmr.recon import adjoint_reconstruction, cg_sense, root_sum_of_squares

N, VOXEL = 24, 4e-3


def phantom(n=N):
    """An L on a disc, complex."""
    y, x = np.mgrid[:n, :n] - n // 2
    image = 0.4 * (x**2 + y**2 < (0.42 * n) ** 2) * np.exp(0.5j * x / n)
    image[n // 4 : 3 * n // 4, n // 3 : n // 3 + 2] = 1
    image[3 * n // 4 - 2 : 3 * n // 4, n // 3 : 2 * n // 3] = 1.5
    return image


def coil_maps(n=N, n_coils=6):
    y, x = (np.mgrid[:n, :n] - n // 2) / n
    angles = 2 * np.pi * np.arange(n_coils) / n_coils
    return np.stack([np.exp(-((x - 0.6 * np.cos(a)) ** 2 + (y - 0.6 * np.sin(a)) ** 2) + 1j * (a + x)) for a in angles])


def cartesian_mask(n=N):
    mask = np.zeros((n, n))
    mask[::2] = 1
    mask[n // 2 - 3 : n // 2 + 3] = 1
    return mask


def spokes(n_spokes):
    """Out to the corners of k-space, which a disc would leave to the coils alone."""
    return trajectory.radial(n_spokes, 3 * N, VOXEL / 1.5)


OPERATORS = {
    "cartesian": Fourier((N, N), cartesian_mask()),
    "radial": Nufft(spokes(18), VOXEL, (N, N), tolerance=1e-12),
}


def exact_samples(image, coils, k, voxel_size):
    """s_c = sum over voxels of c m exp(-i k.r), term by term."""
    places = np.array([[x - image.shape[1] // 2, y - image.shape[0] // 2] for y, x in np.ndindex(*image.shape)])
    return (coils * image).reshape(len(coils), -1) @ np.exp(-1j * places * voxel_size @ k.reshape(-1, 2).T)


def test_an_l_comes_out_upright_and_unmirrored():
    image, coils = phantom(), coil_maps()
    k = trajectory.cartesian((N, N), VOXEL).reshape(-1, 2)
    samples = exact_samples(image, coils, k, VOXEL)
    combined = image * np.sum(np.abs(coils) ** 2, axis=0)
    for method in ("exact", "finufft", "gridding"):
        operator = Nufft(k, VOXEL, (N, N), method, tolerance=1e-10)
        assert relative(adjoint_reconstruction(samples, operator, coils) / N**2, combined) < 1e-8
    grid = samples.reshape(-1, N, N)
    by_numpy = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(grid, axes=(1, 2))), axes=(1, 2))
    assert relative(np.sum(coils.conj() * by_numpy, axis=0), combined) < 1e-12
    assert relative(adjoint_reconstruction(grid, Fourier((N, N)), coils) / N**2, combined) < 1e-12
    by_coil = adjoint_reconstruction(grid, Fourier((N, N)), weights=np.full((N, N), 1 / N**2))
    assert relative(by_coil, coils * image) < 1e-12
    assert relative(root_sum_of_squares(by_coil), np.sqrt(np.sum(np.abs(coils * image) ** 2, axis=0))) < 1e-12
    radial = trajectory.radial(48, 2 * N, VOXEL)
    operator = Nufft(radial, VOXEL, (N, N))
    weights = pipe_menon_weights(radial, VOXEL, (N, N))
    found = adjoint_reconstruction(
        exact_samples(image, coils, radial, VOXEL).reshape(-1, 48, 2 * N), operator, coils, weights
    )
    inner = np.corrcoef(np.abs(found).ravel(), np.abs(combined).ravel())[0, 1]
    mirrored = np.corrcoef(np.abs(found)[:, ::-1].ravel(), np.abs(combined).ravel())[0, 1]
    assert inner > 0.95 > mirrored


@pytest.mark.parametrize("name", OPERATORS)
def test_undersampled_phantoms_come_back(name):
    operator, image, coils = OPERATORS[name], phantom(), coil_maps()
    samples = operator.forward(coils * image)
    found = jax.jit(lambda s: cg_sense(s, operator, coils, tolerance=1e-8, max_iterations=300))(samples)
    assert bool(found.converged)
    assert 3 < int(found.iterations) < 300
    assert relative(found.value, image) < 1e-4
    again = cg_sense(samples, operator, coils, tolerance=1e-8, initial=found.value, max_iterations=300)
    assert int(again.iterations) == 0
    zero_filled = adjoint_reconstruction(samples, operator, coils)
    assert relative(zero_filled / np.abs(zero_filled).max(), image / np.abs(image).max()) > 0.1


def test_single_precision():
    operator = Nufft(spokes(18).astype(np.float32), np.float32(VOXEL), (N, N))
    image, coils = phantom().astype(np.complex64), coil_maps().astype(np.complex64)
    samples = operator.forward(coils * image)
    weights = pipe_menon_weights(operator.k, operator.voxel_size, (N, N))
    plain = cg_sense(samples, operator, coils, max_iterations=300)
    found = cg_sense(samples, operator, coils, weights=weights, max_iterations=300)
    # Weights of the density are a preconditioner, too.
    assert int(found.iterations) < int(plain.iterations)
    assert found.value.dtype == jnp.complex64
    assert bool(found.converged)
    assert relative(found.value, image) < 1e-3


def test_regularisation_and_weights_are_those_of_the_normal_equations():
    operator, image, coils = Fourier((6, 6), cartesian_mask(6)), phantom(6), coil_maps(6, 3)
    rng = np.random.default_rng(0)
    samples = np.asarray(operator.forward(coils * image)) + rng.normal(size=(3, 6, 6))
    weights = rng.random((6, 6))
    columns = [np.asarray(operator.forward(coils * e.reshape(6, 6))).ravel() for e in np.eye(36)]
    E, W = np.stack(columns, axis=1), np.tile(weights.ravel(), 3)
    expected = np.linalg.solve(E.conj().T @ (W[:, None] * E) + 2.5 * np.eye(36), E.conj().T @ (W * samples.ravel()))
    found = cg_sense(samples, operator, coils, weights=weights, regularisation=2.5, tolerance=1e-12)
    assert relative(found.value.ravel(), expected) < 1e-10
    prior = rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6))
    drawn = np.linalg.solve(E.conj().T @ (W[:, None] * E) + 2.5 * np.eye(36), 2.5 * prior.ravel())
    found = cg_sense(samples, operator, coils, weights=weights, regularisation=2.5, prior=prior, tolerance=1e-12)
    assert relative(found.value.ravel(), expected + drawn) < 1e-10


def test_a_subspace_of_images_comes_back():
    rng, rank, times = np.random.default_rng(1), 2, 6
    k = spokes(times * 8).reshape(times, -1, 2)
    basis = np.linalg.qr(rng.normal(size=(times, rank)))[0]
    operator = SubspaceNufft(k, basis, VOXEL, (N, N), tolerance=1e-10)
    coefficients, coils = np.stack([phantom(), 0.3j * phantom().T]), coil_maps()
    samples = operator.forward(coils[:, None] * coefficients)
    assert samples.shape == (6, times, 8 * 3 * N)
    found = cg_sense(samples, operator, coils, tolerance=1e-8, max_iterations=500)
    assert bool(found.converged)
    assert relative(found.value, coefficients) < 1e-3


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_in_samples_coils_regularisation_prior_and_weights(name):
    operator, image, coils = OPERATORS[name], phantom(), coil_maps(n_coils=3)
    samples = operator.forward(coils * image)
    rng = np.random.default_rng(2)
    target = rng.normal(size=(N, N))

    def loss(point):
        samples, coils, weight, prior, weights, shift = point
        moved = operator
        if isinstance(operator, Nufft):
            moved = Nufft(operator.k + shift, VOXEL, (N, N), tolerance=1e-12)
        found = cg_sense(
            samples,
            moved,
            coils,
            weights=weights,
            regularisation=weight,
            prior=prior,
            tolerance=1e-13,
            max_iterations=500,
        )
        return jnp.sum(jnp.abs(found.value - target) ** 2)

    def complex_like(a):
        return jnp.asarray(rng.normal(size=a.shape) + 1j * rng.normal(size=a.shape))

    weights = jnp.asarray(rng.uniform(0.5, 1, samples.shape[1:]))
    point = samples, jnp.asarray(coils), jnp.array(40.0), complex_like(image), weights, jnp.array(0.0)
    ways = (
        complex_like(samples),
        0.1 * complex_like(coils),
        jnp.array(10.0),
        complex_like(image),
        jnp.asarray(rng.uniform(-0.3, 0.3, weights.shape)),
        jnp.array(20.0),
    )
    value, gradient = jax.jit(loss), jax.jit(jax.grad(loss))(point)
    for part, way in enumerate(ways[: 6 if isinstance(operator, Nufft) else 5]):
        along = lambda t, part=part, way=way: value(  # noqa: E731
            tuple(p + t * way if q == part else p for q, p in enumerate(point))
        )
        expected = float(central_difference(along, 0.0, 1e-2))
        assert float(jnp.sum(gradient[part] * way).real) == pytest.approx(expected, rel=1e-6)


def test_a_brain_from_a_poisson_disc(shared):
    """sigpy's tutorial: eight coils, 12.4 % of k-space; maps from the full centre by its low-resolution images."""
    kspace = np.load(shared / "kspace" / "sigpy_cartesian_ksp.npy")
    _, ny, nx = kspace.shape
    mask = (np.abs(kspace) > 0).any(axis=0)
    centre = np.outer(np.hanning(26), np.hanning(26))
    window = np.zeros((ny, nx))
    window[ny // 2 - 13 : ny // 2 + 13, nx // 2 - 13 : nx // 2 + 13] = centre
    low = centred_ifft(kspace * window)
    coils = np.asarray(low / (root_sum_of_squares(low)[None] + 1e-12))
    operator = Fourier((ny, nx), mask)
    solve = jax.jit(lambda s: cg_sense(s, operator, coils, regularisation=0.01 * ny * nx, tolerance=1e-4))
    found = solve(jnp.asarray(kspace))
    assert bool(found.converged)
    explained = operator.forward(coils * np.asarray(found.value))
    assert relative(explained, kspace) < 0.06
    # Upright: the image agrees with the low-resolution one, and not with its mirror images.
    picture, guide = np.abs(found.value).ravel(), np.asarray(root_sum_of_squares(low))
    agreement = [np.corrcoef(picture, flipped.ravel())[0, 1] for flipped in (guide, guide[::-1], guide[:, ::-1])]
    assert agreement[0] > 0.83 > max(agreement[1:])


def test_empty_pixels_have_a_gradient_and_wrong_shapes_a_remedy():
    gradient = jax.grad(lambda x: jnp.sum(root_sum_of_squares(x)))(jnp.zeros((3, 4)))
    assert (np.asarray(gradient) == 0).all()
    operator = OPERATORS["cartesian"]
    with pytest.raises(ValueError, match=r"coils must have shape \(6, 24, 24\).*got \(5, 24, 24\)"):
        cg_sense(np.zeros((6, N, N)), operator, np.zeros((5, N, N)))
    with pytest.raises(ValueError, match="regularisation must be at least 0, got -1"):
        cg_sense(np.zeros((6, N, N)), operator, coil_maps(), regularisation=-1.0)
    with pytest.raises(ValueError, match=r"prior must have the shape of the image, \(24, 24\), got \(24,\)"):
        cg_sense(np.zeros((6, N, N)), operator, coil_maps(), regularisation=1.0, prior=np.zeros(N))
    with pytest.raises(ValueError, match="prior has no effect with regularisation=0"):
        cg_sense(np.zeros((6, N, N)), operator, coil_maps(), prior=np.zeros((N, N)))
