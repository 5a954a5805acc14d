"""Non-uniform transforms against the sum as it is written, torchkbnufft, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import as_float32, central_difference, relative
from jaxmr.encoding import Nufft, SubspaceNufft, adjoint_nufft, coil_normal, forward_nufft, normal_operator

METHODS = ("exact", "finufft", "gridding")
MATRICES = ((12, 9), (6, 7, 8))
VOXEL = (2e-3, 1e-3, 3e-3)


def numbers(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def problem(matrix, n=40, batch=(2,), reach=np.pi):
    """Random image, k to the edge of what its voxels resolve (or beyond), and the samples by the plain sum."""
    rng = np.random.default_rng(len(matrix))
    voxel = np.array(VOXEL[: len(matrix)])
    image = numbers(rng, *batch, *matrix)
    k = rng.uniform(-reach, reach, (n, len(matrix))) / voxel
    places = np.array([[i - size // 2 for i, size in zip(p, matrix, strict=True)] for p in np.ndindex(*matrix)])
    r = places[:, ::-1] * voxel
    return image, k, voxel, image.reshape(*batch, -1) @ np.exp(-1j * r @ k.T)


@pytest.mark.parametrize("matrix", [(11,), *MATRICES])
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_plain_sum(method, matrix):
    image, k, voxel, expected = problem(matrix, reach=4.0)
    assert relative(forward_nufft(image, k, voxel, method=method, tolerance=1e-12), expected) < 1e-11
    assert relative(forward_nufft(image, k, voxel, method=method), expected) < 5e-6
    single = forward_nufft(*as_float32((image, k, voxel)), method=method)
    assert single.dtype == jnp.complex64
    assert relative(single, expected) < 1e-5


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("method", METHODS)
def test_adjoint(method, matrix):
    image, k, voxel, _ = problem(matrix)
    operator = Nufft(k, voxel, matrix, method)
    samples = numbers(np.random.default_rng(9), 2, len(k))
    forward, back = operator.forward(image), operator.adjoint(samples)
    assert abs(np.vdot(samples, forward) - np.vdot(back, image)) < 1e-12 * np.linalg.norm(samples) * np.linalg.norm(
        forward
    )
    (transpose,) = jax.linear_transpose(operator.forward, image)(jnp.asarray(samples.conj()))
    assert relative(back, transpose.conj()) < 1e-13
    single = as_float32(operator).adjoint(as_float32(samples))
    assert relative(single, Nufft(k, voxel, matrix, "exact").adjoint(samples)) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_derivatives_in_image_and_trajectory(method):
    image, k, voxel, _ = problem((7, 6), n=15)
    rng = np.random.default_rng(1)
    weights = jnp.asarray(numbers(rng, 2, 15))
    way = jnp.asarray(numbers(rng, 2, 7, 6)), jnp.asarray(rng.normal(size=k.shape) * 30)

    def loss(image, k):
        operator = Nufft(k, voxel, (7, 6), method, tolerance=1e-13)
        samples = operator.forward(image) * weights
        return jnp.sum(samples.real**3) + jnp.sum(jnp.abs(operator.adjoint(samples)) ** 2)

    point = jnp.asarray(image), jnp.asarray(k)

    def along(t):
        return loss(*(p + t * d for p, d in zip(point, way, strict=True)))

    expected = float(central_difference(jax.jit(along), 0.0, 1e-3))
    assert float(jax.jit(jax.jacfwd(along))(0.0)) == pytest.approx(expected, rel=1e-7)
    slope = jax.jit(jax.grad(along))
    assert float(slope(0.0)) == pytest.approx(expected, rel=1e-7)
    curvature = float(central_difference(slope, 0.0, 1e-3))
    assert float(jax.jit(jax.hessian(along))(0.0)) == pytest.approx(curvature, rel=1e-6)
    for part, direction in enumerate(way):
        one = lambda t, part=part, direction=direction: loss(  # noqa: E731
            *(p + t * direction if q == part else p for q, p in enumerate(point))
        )
        gradient = jax.grad(loss, argnums=part)(*point)
        expected = float(central_difference(jax.jit(one), 0.0, 1e-3))
        assert float(jnp.sum(gradient * direction).real) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_mapped_over_images_and_trajectories(method):
    image, k, voxel, _ = problem((7, 6), n=15)
    images, several = jnp.stack([image, 2 * image, 3j * image]), jnp.stack([k, -k, 0.5 * k])
    sample = lambda image, k: forward_nufft(image, k, voxel, method=method)  # noqa: E731
    expected = [[sample(i, k) for k in several] for i in images]
    for dims, pick in (((0, None), lambda a: (a, 0)), ((None, 0), lambda a: (0, a)), ((0, 0), lambda a: (a, a))):
        arguments = [x if dim == 0 else x[0] for x, dim in zip((images, several), dims, strict=True)]
        found = jax.jit(jax.vmap(sample, dims))(*arguments)
        for a in range(3):
            assert relative(found[a], expected[pick(a)[0]][pick(a)[1]]) < 1e-12
    energy = lambda image, k: jnp.sum(jnp.abs(sample(image, k)) ** 2)  # noqa: E731
    mapped = jax.jit(jax.vmap(jax.grad(energy, argnums=1)))(images, several)
    assert relative(mapped[1], jax.grad(energy, argnums=1)(images[1], several[1])) < 1e-10


@pytest.mark.parametrize("matrix", MATRICES)
def test_toeplitz_is_forth_and_back(matrix):
    image, k, voxel, _ = problem(matrix, n=60)
    operator = Nufft(k, voxel, matrix, tolerance=1e-12)
    assert relative(operator.gram().normal(image), operator.normal(image)) < 1e-10
    weights = np.random.default_rng(2).random(60)
    expected = operator.adjoint(weights[None] * operator.forward(image))
    assert relative(operator.gram(weights).normal(image), expected) < 1e-10
    single = as_float32(Nufft(k, voxel, matrix))
    assert relative(single.gram(as_float32(weights)).normal(as_float32(image)), expected) < 1e-5
    coils = numbers(np.random.default_rng(3), 3, *matrix)
    by_coil = sum(c.conj()[None] * operator.normal(c * image) for c in coils)
    assert relative(coil_normal(operator.gram(), coils, image), by_coil) < 1e-10


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_subspace_kernels_are_forth_and_back(kind):
    rng, matrix, rank = np.random.default_rng(4), (8, 7), 3
    image, k, voxel, _ = problem(matrix, n=5 * 12, batch=(2, rank))
    basis = numbers(rng, 5, rank) if kind == "complex" else rng.normal(size=(5, rank))
    operator = SubspaceNufft(k.reshape(5, 12, 2), basis, voxel, matrix, tolerance=1e-12)
    samples = operator.forward(image)
    series = np.einsum("tr,brzx->btzx", basis, image)
    for time in range(5):
        alone = Nufft(k.reshape(5, 12, 2)[time], voxel, matrix, "exact").forward(series[:, time])
        assert relative(samples[:, time], alone) < 1e-11
    other = numbers(rng, *samples.shape)
    assert abs(np.vdot(other, samples) - np.vdot(operator.adjoint(other), image)) < 1e-9 * abs(np.vdot(other, samples))
    weights = rng.random((5, 12))
    gram = operator.gram(weights)
    assert gram.kernel.shape == (rank, rank, 16, 14)
    assert jnp.iscomplexobj(gram.kernel) == (kind == "complex")
    assert relative(gram.normal(image), operator.adjoint(weights[None] * samples)) < 1e-10
    coils = numbers(rng, 3, *matrix)
    by_coil = sum(c.conj()[None] * gram.normal(c * image[0]) for c in coils)
    assert relative(coil_normal(gram, coils, image[0]), by_coil) < 1e-12


def test_toeplitz_follows_the_trajectory():
    image, k, voxel, _ = problem((7, 6), n=15, batch=())
    way = np.random.default_rng(5).normal(size=k.shape) * 30

    def along(t):
        gram = normal_operator(jnp.asarray(k) + t * way, voxel, (7, 6), tolerance=1e-13)
        return jnp.sum(jnp.abs(gram.normal(image)) ** 2)

    expected = float(central_difference(jax.jit(along), 0.0, 1e-3))
    assert float(jax.jit(jax.grad(along))(0.0)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("which", ["0", "1"])
def test_torchkbnufft(shared, which, method):
    reference = np.load(shared / "nufft" / "tkbn_nufft.npz")
    # Its rows are the coordinates of the image axes in their order; columns of k run backwards.
    k = reference[f"ktraj{which}"].T[:, ::-1]
    samples = forward_nufft(reference[f"image{which}"], k, 1.0, method=method, tolerance=1e-10)
    assert relative(samples, reference[f"kdata{which}"]) < 1e-4


def test_a_slice_ignores_kz_and_any_shape_of_samples_is_kept():
    image, k, _, expected = problem((12, 9))
    with_z = np.concatenate([k, np.full((40, 1), 123.0)], axis=1).reshape(8, 5, 3)
    operator = Nufft(with_z, VOXEL, (12, 9), tolerance=1e-12)
    samples = operator.forward(image)
    assert samples.shape == (2, 8, 5)
    assert relative(samples.reshape(2, 40), expected) < 1e-11
    assert operator.adjoint(samples).shape == image.shape
    assert operator.gram(np.ones((8, 5))).kernel.shape == (24, 18)


def test_transposed_images_and_empty_trajectories():
    image, k, voxel, _ = problem((12, 9))
    turned = jax.jit(lambda m: forward_nufft(m.transpose(0, 2, 1), k, voxel))(jnp.asarray(image).transpose(0, 2, 1))
    assert relative(turned, forward_nufft(image, k, voxel)) < 1e-13
    for method in METHODS:
        assert forward_nufft(image, k[:0], voxel, method=method).shape == (2, 0)
        assert (np.asarray(adjoint_nufft(np.zeros((2, 0)), k[:0], voxel, (12, 9), method=method)) == 0).all()


def test_bad_input_names_its_remedy():
    image, k, voxel, _ = problem((12, 9))
    with pytest.raises(ValueError, match="method must be 'auto' or one of finufft, gridding, exact, got 'fast'"):
        forward_nufft(image, k, voxel, method="fast")
    with pytest.raises(ValueError, match=r"matrix \(4, 4, 4\) has 3 axes, k 2 columns"):
        adjoint_nufft(np.ones(40), k, voxel, (4, 4, 4))
    with pytest.raises(ValueError, match=r"samples must have shape \(..., 40\), got \(39,\)"):
        adjoint_nufft(np.ones(39), k, voxel, (12, 9))
    with pytest.raises(ValueError, match=r"voxel_size must be one number or one per column of k, 2, got \(3,\)"):
        forward_nufft(image, k, VOXEL)
    with pytest.raises(ValueError, match=r"image must have shape \(..., 12, 9\), got \(9, 12\)"):
        Nufft(k, voxel, (12, 9)).forward(np.ones((9, 12)))
    with pytest.raises(ValueError, match=r"k must have shape \(..., samples, 3\)"):
        Nufft(k, voxel, (4, 4, 4))
    with pytest.raises(ValueError, match="basis"):
        SubspaceNufft(k.reshape(5, 8, 2), np.ones((4, 2)), voxel, (12, 9))
