"""Subspaces against NumPy's singular value decomposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmr.mrf.container import Dictionary
from jaxmr.mrf.subspace import compress, project, real_up_to_phase, svd_basis


def decays(n_atoms: int = 40, n_echoes: int = 30, off_resonance: bool = True) -> np.ndarray:
    """Damped oscillations, a family of rapidly falling singular values."""
    t2 = np.geomspace(0.02, 0.4, n_atoms)[:, None]
    b0 = np.linspace(-4, 4, n_atoms)[:, None] * off_resonance
    time = np.linspace(0, 0.3, n_echoes)
    return np.exp(-time / t2 + 2j * np.pi * b0 * time)


@pytest.mark.parametrize("off_resonance", [True, False])
def test_basis_is_the_leading_right_singular_space(off_resonance):
    signals = 2j * decays(off_resonance=off_resonance)
    basis, energy = svd_basis(signals, 4)
    _, singular, right = np.linalg.svd(signals, full_matrices=False)
    np.testing.assert_allclose(basis.conj().T @ basis, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(basis @ basis.conj().T, right[:4].T @ right[:4].conj(), atol=1e-8)
    assert energy == pytest.approx((singular[:4] ** 2).sum() / (singular**2).sum(), abs=1e-12)
    assert 0.9 < energy < 1


def test_small_singular_values_survive_float32():
    signals = decays(off_resonance=False)
    basis, _ = svd_basis(signals.astype(np.complex64), 6)
    exact, _ = svd_basis(signals, 6)
    singular = np.linalg.svd(signals, compute_uv=False)
    assert basis.dtype == np.complex64
    assert singular[5] / singular[0] < 1e-3  # squared, below float32's resolution
    angles = np.linalg.svd(basis.conj().T @ exact, compute_uv=False)
    assert angles.min() > 1 - 1e-3


def test_a_batch_of_any_shape_spans_the_same_space():
    signals = decays()
    flat, _ = svd_basis(signals, 3)
    folded, _ = svd_basis(jnp.asarray(signals).reshape(5, 8, -1), 3)
    np.testing.assert_allclose(folded @ folded.conj().T, flat @ flat.conj().T, atol=1e-10)


def test_projection_is_exact_within_the_space_and_pure():
    basis, _ = svd_basis(decays(), 3)
    coefficients = np.array([[1 + 2j, -1, 0.5j]])
    np.testing.assert_allclose(project(coefficients @ basis.T, basis), coefficients, atol=1e-12)
    batch = jnp.ones((2, 3, 30), complex)
    projected = jax.jit(project)(batch, jnp.asarray(basis))
    assert projected.shape == (2, 3, 3)
    np.testing.assert_allclose(projected[1, 2], basis.conj().sum(0), atol=1e-12)


def test_compressed_dictionary_keeps_parameters_basis_and_energy():
    signals = decays()
    full = Dictionary(signals, {"t2": np.geomspace(0.02, 0.4, 40)})
    by_rank = compress(full, rank=5)
    by_basis = compress(full, basis=by_rank.basis)
    assert by_rank.atoms.shape == (40, 5)
    np.testing.assert_allclose(by_rank.atoms, signals @ by_rank.basis.conj())
    np.testing.assert_allclose(by_basis.atoms, by_rank.atoms)
    assert by_basis.energy == pytest.approx(by_rank.energy, abs=1e-12)
    assert by_rank.t2 is full.t2


def test_real_up_to_phase():
    real = decays(off_resonance=False).real
    turned = real_up_to_phase((real * np.exp(0.7j)).astype(np.complex64))
    np.testing.assert_allclose(np.abs(turned), np.abs(real), rtol=1e-5)
    assert real_up_to_phase(decays()) is None
    one_phase_each = real * np.exp(1j * np.arange(40))[:, None]
    assert real_up_to_phase(one_phase_each) is None
    assert not real_up_to_phase(np.zeros((2, 3), complex)).any()


def test_errors_name_the_remedy():
    full = Dictionary(decays(), {"t2": np.ones(40)})
    with pytest.raises(ValueError, match="rank must be between 1 and 30"):
        svd_basis(decays(), 31)
    with pytest.raises(ValueError, match="finite and not all zero"):
        svd_basis(np.zeros((4, 3), complex), 1)
    with pytest.raises(ValueError, match="either rank or basis"):
        compress(full)
    with pytest.raises(ValueError, match="already compressed to rank 2"):
        compress(compress(full, 2), 1)
    with pytest.raises(ValueError, match="end in 7 points but the basis has 30"):
        project(np.ones((2, 7), complex), np.ones((30, 2), complex))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((4, 3)), {"t1": np.ones(4)}), "complex with shape"),
        ((np.ones((4, 3), complex), {}), "parameters is empty"),
        ((np.ones((4, 3), complex), {"t1": np.ones(3)}), "one value for each of the 4 atoms"),
        ((np.ones((4, 3), complex), {"t1": np.full(4, np.nan)}), "every atom needs a known tissue"),
        ((np.ones((4, 3), complex), {"t1": np.ones(4)}, np.ones((9, 2))), "basis must have shape"),
    ],
)
def test_dictionary_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        Dictionary(*arguments)


def test_unknown_parameter_lists_the_known_ones():
    dictionary = Dictionary(decays(), {"t2": np.ones(40)})
    with pytest.raises(AttributeError, match="no attribute 'b1'; its parameters are t2"):
        _ = dictionary.b1
