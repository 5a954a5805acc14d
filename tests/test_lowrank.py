"""Subspace and dictionary-constrained reconstruction: true maps come back, and nothing else is accepted."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import adjoint_error, as_float32, relative, sine_train
from jaxmr.encoding import SubspaceNufft, coil_normal, trajectory
from jaxmr.recon import adjoint_reconstruction, lowrank_admm, subspace_reconstruction
from jaxmr.units import ms

N, VOXEL, N_PULSES, RANK = 12, 5e-3, 150, 10
MATRIX = (N, N)
MODEL = mr.EPG(orders=20)
SEQUENCE = mr.sequences.fisp(sine_train(N_PULSES), 10 * ms, 4 * ms, 0.0)


@functools.cache
def atoms():
    axes = {"t1": np.geomspace(0.3, 3, 8), "t2": np.geomspace(0.03, 0.3, 8), "b1": np.array([0.85, 1.0, 1.15])}
    return mr.mrf.dictionary(SEQUENCE, model=MODEL, rank=RANK, **axes)


@functools.cache
def brain():
    """Smooth patches of atoms of the dictionary, with an empty rim and a complex M0."""
    d = atoms()
    y, x = np.mgrid[:N, :N] - N // 2
    inside = np.hypot(x, y) < 5
    patch = (np.abs(x) > 2).astype(int) + 2 * (y > 1)
    pairs = np.stack([d.t1, d.t2, d.b1], 1)
    wanted = np.array([[0.6, 0.06, 1.0], [1.2, 0.1, 0.85], [0.9, 0.2, 1.15], [2.2, 0.12, 1.0]])
    index = np.abs(np.log(pairs[:, None] / wanted[None])).sum(-1).argmin(0)[patch]
    maps = [np.where(inside, value[index], 0) for value in (d.t1, d.t2)]
    m0 = inside * (0.7 + 0.05 * x) * np.exp(0.3j * y)
    made = mr.objects.from_maps(maps[0], maps[1], m0, d.b1[index], mask=inside, voxel_size=VOXEL)
    return made, inside, index, m0


def every_place():
    """The whole grid at every pulse."""
    k = trajectory.cartesian(MATRIX, VOXEL).reshape(-1, 2)
    return np.broadcast_to(k, (N_PULSES, *k.shape))


def spokes():
    """One a pulse, out to the corners of k-space, which a disc would leave to the dictionary alone."""
    return trajectory.radial(N_PULSES, 3 * N, VOXEL / 1.5)


def coil_maps(n_coils=3):
    y, x = (np.mgrid[:N, :N] - N // 2) / N
    angles = 2 * np.pi * np.arange(n_coils) / n_coils
    return np.stack([np.exp(1j * a - (x - np.cos(a)) ** 2 - (y - np.sin(a)) ** 2) for a in angles])


@functools.cache
def scanned(kind):
    k = every_place() if kind == "all" else spokes()
    return k, mr.mrf.acquire(SEQUENCE, brain()[0], MODEL, k)


def operator_of(k, basis=None):
    return SubspaceNufft(k, atoms().basis if basis is None else basis, VOXEL, MATRIX, tolerance=1e-10)


def test_the_operator_with_coils_and_its_normal_operator():
    rng = np.random.default_rng(0)
    coils, operator = coil_maps(), operator_of(spokes())
    images = rng.normal(size=(RANK, *MATRIX)) + 1j * rng.normal(size=(RANK, *MATRIX))
    samples = rng.normal(size=(3, N_PULSES, 3 * N)) + 1j * rng.normal(size=(3, N_PULSES, 3 * N))

    def forward(x):
        return operator.forward(coils[:, None] * x[None])

    def adjoint(s):
        return adjoint_reconstruction(s, operator, coils)

    assert adjoint_error(forward, adjoint, images, samples) < 1e-12
    gram = operator.gram()
    assert jnp.isrealobj(gram.kernel)
    assert relative(coil_normal(gram, coils, images), adjoint(forward(images))) < 1e-8


@pytest.mark.parametrize("with_coils", [False, True])
def test_coefficients_of_enough_samples_come_back(with_coils):
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(RANK, *MATRIX)) + 1j * rng.normal(size=(RANK, *MATRIX))
    coils = coil_maps() if with_coils else None
    operator = operator_of(every_place())
    samples = operator.forward(truth[None] if coils is None else coils[:, None] * truth[None])
    found = subspace_reconstruction(samples, operator, coils, tolerance=1e-9)
    assert found.converged
    assert relative(found.value, truth) < 1e-7
    ridge = subspace_reconstruction(samples, operator, coils, regularisation=N * N, tolerance=1e-9).value
    assert 0.1 < np.linalg.norm(ridge) / np.linalg.norm(truth) < 0.9


def test_maps_of_all_samples_are_those_of_the_phantom():
    _, inside, index, m0 = brain()
    k, samples = scanned("all")
    found = lowrank_admm(samples, operator_of(k), atoms(), n_iterations=3)
    np.testing.assert_array_equal(found.maps.index[inside], index[inside])
    assert relative(found.maps.m0[inside], m0[inside]) < 1e-3
    assert np.abs(found.maps.m0[~inside]).max() < 1e-4


@functools.cache
def undersampled():
    k, samples = scanned("radial")
    return lowrank_admm(samples, operator_of(k), atoms(), n_iterations=15)


def test_one_spoke_a_pulse_suffices_and_the_objective_falls():
    _, inside, index, m0 = brain()
    k, samples = scanned("radial")
    found = undersampled()
    np.testing.assert_array_equal(found.maps.index[inside], index[inside])
    assert np.abs(found.maps.m0[inside] / m0[inside] - 1).max() < 0.01
    plain = subspace_reconstruction(samples, operator_of(k), max_iterations=10).value
    alone = mr.mrf.match(atoms(), np.moveaxis(np.asarray(plain), 0, -1))
    assert np.mean(alone.index[inside] == index[inside]) < 0.9
    objective, distance = found.history.objective, found.history.distance
    # What is left is what ten of 150 dimensions do not hold, 1.5e-4 of the energy of the atoms.
    assert objective[-1] < 0.05 * objective[0]
    assert objective[-1] < 1 - atoms().energy
    assert distance[-1] < 0.06 * distance[0]
    assert found.history.cg_residual[-1] < 1e-4


def test_the_objective_is_that_of_the_matched_images():
    k, samples = scanned("radial")
    found = undersampled()
    series = found.maps.m0[..., None] * atoms().atoms[found.maps.index] @ atoms().basis.T
    by_pulse = operator_of(k[:, None], np.eye(N_PULSES)).forward(np.moveaxis(series, -1, 0))
    misfit = np.linalg.norm(by_pulse[:, 0] - samples[0]) ** 2 / np.linalg.norm(samples) ** 2
    assert found.history.objective[-1] == pytest.approx(misfit, rel=1e-4)


def test_neither_scale_nor_coils_nor_precision_change_the_maps():
    _, inside, _, _ = brain()
    k, samples = scanned("radial")
    expected = undersampled().maps
    scaled = lowrank_admm(1e3 * samples, operator_of(k), atoms(), n_iterations=15).maps
    np.testing.assert_array_equal(scaled.index[inside], expected.index[inside])
    assert relative(scaled.m0, 1e3 * expected.m0) < 1e-6
    made = brain()[0]
    coils = coil_maps()
    with_coils = mr.Phantom(
        made.tissue, made.position, made.voxel_size, coils.reshape(3, -1)[:, made.pixel], made.pixel, made.matrix
    )
    received = mr.mrf.acquire(SEQUENCE, with_coils, MODEL, k)
    several = lowrank_admm(received, operator_of(k), atoms(), coils, n_iterations=15).maps
    assert np.mean(several.index[inside] == expected.index[inside]) > 0.98
    single = lowrank_admm(
        samples.astype(np.complex64), as_float32(operator_of(k)), as_float32(atoms()), n_iterations=15
    )
    assert single.coefficients.dtype == np.complex64
    assert np.mean(single.maps.index[inside] == expected.index[inside]) > 0.98


def test_a_store_serves_as_well(tmp_path):
    k, samples = scanned("radial")
    axes = {name: np.unique(atoms().parameters[name]) for name in ("t1", "t2", "b1")}
    store = mr.mrf.store.write(tmp_path / "atoms.zarr", SEQUENCE, model=MODEL, rank=RANK, **axes)
    found = lowrank_admm(samples, operator_of(k, store.basis), store, n_iterations=15, progress=True)
    np.testing.assert_array_equal(found.maps.index, undersampled().maps.index)


def test_errors_name_the_remedy():
    k, samples = scanned("radial")
    operator, d = operator_of(k), atoms()
    with pytest.raises(ValueError, match=r"\(coils, pulses, samples\) = \(1, 150, 36\).*reshape them"):
        lowrank_admm(samples.reshape(1, -1), operator, d)
    with pytest.raises(ValueError, match="one coil map per coil"):
        subspace_reconstruction(samples, operator, coil_maps())
    with pytest.raises(ValueError, match=r"coils must have shape \(coils, 12, 12\)"):
        subspace_reconstruction(np.repeat(samples, 3, 0), operator, coil_maps()[:, 1:])
    wrong = samples.copy()
    wrong[0, 3, 5] = np.inf
    with pytest.raises(ValueError, match=r"samples must be finite, got inf.* at index \(0, 3, 5\)"):
        lowrank_admm(wrong, operator, d)
    with pytest.raises(ValueError, match="all samples are 0"):
        lowrank_admm(0 * samples, operator, d)
    with pytest.raises(ValueError, match="looks like cycles per metre: multiply it by 2 pi"):
        lowrank_admm(samples, operator_of(k / (2 * np.pi)), d)
    with pytest.raises(ValueError, match="k must be in rad/m and reach about"):
        subspace_reconstruction(samples, operator_of(k * VOXEL / (2 * np.pi)))
    with pytest.raises(ValueError, match=r"which is not that of the dictionary.*dictionary\.basis"):
        lowrank_admm(samples, operator_of(k, d.basis[:, ::-1]), d)
    full = mr.mrf.dictionary(SEQUENCE, model=MODEL, t1=np.array([1.0]), t2=np.array([0.1]))
    with pytest.raises(ValueError, match="dictionary must be compressed"):
        lowrank_admm(samples, operator, full)
    with pytest.raises(ValueError, match="mu must be positive"):
        lowrank_admm(samples, operator, d, mu=0.0)
    with pytest.raises(ValueError, match="n_iterations and n_cg must be at least 1, got 20 and 0"):
        lowrank_admm(samples, operator, d, n_cg=0)
