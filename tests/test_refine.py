"""Refinement through the exact model: known tissues come back, and the error map is the scatter."""

import jax
import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.recon import refine
from jaxmr.units import ms

N = 60
SEQUENCE = mr.sequences.fisp(sine_train(N), 12 * ms, 3 * ms, 20 * ms)
MODEL = mr.EPG(orders=20)
T1, T2 = np.geomspace(0.4, 3, 12), np.geomspace(0.03, 0.3, 10)
NOISE = 2e-3


def voxels(shape, seed=0, **others):
    """Tissues off the grid, m0, and their signals."""
    rng = np.random.default_rng(seed)
    tissue = mr.Tissue(t1=rng.uniform(0.5, 2, shape), t2=rng.uniform(0.04, 0.2, shape), **others)
    m0 = rng.uniform(0.5, 2, shape) * np.exp(2j * np.pi * rng.random(shape))
    return tissue, m0, m0[..., None] * np.asarray(mr.simulate(SEQUENCE, tissue, MODEL))


def noise(shape, seed=1):
    rng = np.random.default_rng(seed)
    return NOISE * (rng.normal(size=shape) + 1j * rng.normal(size=shape))


@pytest.fixture(scope="module")
def dictionary():
    return mr.mrf.dictionary(SEQUENCE, t1=T1, t2=T2, model=MODEL, rank=6)


@pytest.mark.parametrize("raw", [True, False], ids=["echoes", "subspace"])
def test_matched_maps_become_exact(dictionary, raw):
    tissue, m0, signals = voxels((4, 6))
    signals[1, 2] = 0
    start = mr.mrf.match(dictionary, signals)
    basis = None if raw else dictionary.basis
    points = signals if raw else mr.mrf.project(signals, np.asarray(dictionary.basis))
    found = refine(SEQUENCE, points, start, model=MODEL, basis=basis)
    full = np.ones((4, 6), bool)
    full[1, 2] = False
    assert relative(start.t1[full], np.asarray(tissue.t1)[full]) > 0.01
    np.testing.assert_allclose(found.t1[full], np.asarray(tissue.t1)[full], rtol=1e-6)
    np.testing.assert_allclose(found.t2[full], np.asarray(tissue.t2)[full], rtol=1e-6)
    np.testing.assert_allclose(found.m0[full], m0[full], rtol=1e-6)
    assert found.converged.all()
    assert found.m0[1, 2] == 0
    assert found.t1[1, 2] == start.t1[1, 2]
    assert np.isinf(found.deviation["t1"][1, 2])
    assert set(found.images) == {"t1", "t2", "m0", "t1_deviation", "t2_deviation", "m0_deviation", "residual"}
    assert (found.deviation["t1"][full] < 1e-5).all()


def test_raw_signals_are_projected_and_chunks_and_devices_do_not_matter(dictionary, monkeypatch):
    _, _, signals = voxels((30,))
    signals = signals + noise(signals.shape)
    start = mr.mrf.match(dictionary, signals)
    whole = refine(SEQUENCE, signals, start, model=MODEL, basis=dictionary.basis)
    monkeypatch.setattr("jaxmr.recon.refining._rows", lambda *_: 8)
    points = mr.mrf.project(signals, dictionary.basis)
    devices = jax.devices()
    assert len(devices) == 2
    parts = refine(SEQUENCE, points, start, model=MODEL, basis=dictionary.basis, devices=devices)
    for name in ("t1", "t2"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)
        np.testing.assert_allclose(parts.deviation[name], whole.deviation[name], rtol=1e-6)


def test_transmit_field_is_known_or_refined():
    rng = np.random.default_rng(3)
    b1 = rng.uniform(0.8, 1.2, 10)
    tissue, _, signals = voxels((10,), b1=b1)
    known = refine(SEQUENCE, signals, mr.Tissue(t1=1.0, t2=0.08, b1=b1), model=MODEL)
    np.testing.assert_allclose(known.t2, tissue.t2, rtol=1e-6)
    blind = refine(SEQUENCE, signals, mr.Tissue(t1=1.0, t2=0.08, b1=1.0), model=MODEL)
    assert relative(blind.t2, tissue.t2) > 0.03
    found = refine(SEQUENCE, signals, mr.Tissue(t1=1.0, t2=0.08, b1=1.0), model=MODEL, wrt=("t1", "t2", "b1"))
    np.testing.assert_allclose(found.b1, b1, rtol=1e-5)
    np.testing.assert_allclose(found.t1, tissue.t1, rtol=1e-5)


def test_the_prior_is_weighed_as_stated():
    """The gradient of the objective is nothing at the answer, by the model's own derivatives."""
    tissue, m0, signals = voxels((6,))
    signals = signals + noise(signals.shape)
    prior = {"t1": np.asarray(tissue.t1) * 1.2, "m0": m0 * 1.1}
    weights = {"t1": 0.05, "m0": 0.02}
    found = refine(SEQUENCE, signals, tissue, model=MODEL, prior=prior, regularisation=weights, tolerance=1e-10)
    there = mr.Tissue(t1=found.t1, t2=found.t2)
    shape, jacobian = map(np.asarray, mr.simulate_with_jacobian(SEQUENCE, there, MODEL, wrt=("t1", "t2")))
    left = found.m0[:, None] * shape - signals
    slopes = np.real(np.einsum("vpn,vn->vp", (found.m0[:, None, None] * jacobian).conj(), left))
    slopes[:, 0] += 0.05 * (found.t1 - prior["t1"])
    by_m0 = np.sum(shape.conj() * left, axis=1) + 0.02 * (found.m0 - prior["m0"])
    assert np.abs(slopes).max() < 1e-7
    assert np.abs(by_m0).max() < 1e-9
    assert relative(found.t1, tissue.t1) > 0.01


def test_the_error_map_is_the_scatter():
    tissue = mr.Tissue(t1=1.0, t2=0.1)
    signal = (0.6 + 0.8j) * np.asarray(mr.simulate(SEQUENCE, tissue, MODEL))
    signals = signal + noise((2000, N))
    found = refine(SEQUENCE, signals, tissue, model=MODEL, noise_std=NOISE)
    assert found.converged.all()
    bound = np.sqrt(mr.design.crlb(SEQUENCE, tissue, wrt=("m0", "t1", "t2"), model=MODEL, noise_std=NOISE))
    for k, (name, values) in enumerate({"m0": np.abs(found.m0), "t1": found.t1, "t2": found.t2}.items()):
        assert np.std(values) / np.median(found.deviation[name]) == pytest.approx(1, abs=0.06), name
        assert np.median(found.deviation[name]) == pytest.approx(float(bound[k]), rel=0.02), name
    estimated = refine(SEQUENCE, signals[:200], tissue, model=MODEL)
    ratio = estimated.deviation["t1"] / found.deviation["t1"][:200]
    assert np.mean(ratio) == pytest.approx(1, abs=0.03)
    assert np.std(ratio) == pytest.approx(1 / np.sqrt(2 * (2 * N - 4)), rel=0.3)


@pytest.mark.slow
def test_the_bound_is_the_variance_of_20_000_maximum_likelihood_fits():
    tissue, planned = mr.Tissue(t1=1.0, t2=0.1), mr.EPG(tolerance=1e-4)
    signals = np.asarray(mr.simulate(SEQUENCE, tissue, mr.EPG())) + noise((20_000, N), seed=7)
    found = refine(SEQUENCE, signals, tissue, model=planned)
    assert found.converged.all()
    bound = mr.design.crlb(SEQUENCE, tissue, wrt=("m0", "t1", "t2"), model=mr.EPG(), noise_std=NOISE)
    variances = [np.var(np.abs(found.m0)), np.var(found.t1), np.var(found.t2)]
    np.testing.assert_allclose(variances, bound, rtol=0.03)


def test_off_resonance_in_single_precision():
    """Varying TR tells precession from m0's phase; constant TR does not, and the error map says so."""
    tissue, _, signals = voxels((8,), b0=np.linspace(-10, 10, 8))
    start = mr.Tissue(t1=np.float32(1.0), t2=np.float32(0.08), b0=np.float32(0))
    names = ("t1", "t2", "b0")
    blind = refine(SEQUENCE, signals.astype(np.complex64), start, model=MODEL, wrt=names)
    assert blind.t1.dtype == np.float32
    assert relative(blind.t1, tissue.t1) < 1e-3
    assert np.isinf(blind.deviation["b0"]).all()
    assert np.isfinite(blind.deviation["t1"]).all()
    varied = mr.sequences.fisp(sine_train(N), (12 + 2 * np.sin(np.arange(N))) * ms, 3 * ms, 20 * ms)
    signals = (1 + 1j) * np.asarray(mr.simulate(varied, tissue, MODEL))
    found = refine(varied, signals.astype(np.complex64), start, model=MODEL, wrt=names)
    assert relative(found.b0, tissue.b0) < 1e-4
    assert relative(found.t2, tissue.t2) < 1e-4
    assert np.isfinite(found.deviation["b0"]).all()


def test_bad_input_is_refused_with_the_remedy():
    tissue, _, signals = voxels((3,))
    with pytest.raises(ValueError, match=r"signals must end in an axis of n_echoes = 60 points, got shape \(60, 3\)"):
        refine(SEQUENCE, signals.T, tissue)
    with pytest.raises(ValueError, match=r"signals must be finite, got nan.*at index \(0, 0\); set voxels outside"):
        refine(SEQUENCE, np.where(np.arange(N) == 0, np.nan, signals), tissue)
    with pytest.raises(ValueError, match=r"start must have maps of shape \(2,\).*got \(3,\)"):
        refine(SEQUENCE, signals[:2], tissue)
    with pytest.raises(ValueError, match="wrt names 'm0', which cannot be refined; choose from t1, t2"):
        refine(SEQUENCE, signals, tissue, wrt=("t1", "m0"))
    with pytest.raises(ValueError, match="basis must have orthonormal columns"):
        refine(SEQUENCE, signals, tissue, basis=np.ones((N, 2)))
    with pytest.raises(ValueError, match=r"noise_std must be a number or a map of shape \(3,\), got \(2,\)"):
        refine(SEQUENCE, signals, tissue, noise_std=np.ones(2))
    with pytest.raises(ValueError, match="4 numbers per voxel leave nothing to estimate the noise from"):
        refine(SEQUENCE, signals, tissue, basis=np.eye(N)[:, :2])
    with pytest.raises(ValueError, match="prior and regularisation go together"):
        refine(SEQUENCE, signals, tissue, prior={"t1": 1.0})
