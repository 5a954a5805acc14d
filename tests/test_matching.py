"""Matching against brute force, and refinement against true values between the grid points.

The signals are an inversion recovery with varying echo time and flip angle in closed form: smooth, with T1,
T2, B1 (and B0) coupled.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmr.mrf import matching, refinement, search
from jaxmr.mrf.container import Dictionary
from jaxmr.mrf.matching import match
from jaxmr.mrf.subspace import compress, project
from jaxmr.units import deg, ms

N_ECHOES = 60
NUMBER = np.arange(N_ECHOES)
RECOVERY = np.geomspace(20 * ms, 3, N_ECHOES)
ECHO = (80 + 70 * np.sin(NUMBER)) * ms
FLIP = (45 + 35 * np.cos(NUMBER / 3)) * deg
STEP_T1, STEP_T2, STEP_B1 = np.log(3 / 0.2) / 29, np.log(1 / 0.02) / 29, 0.05
T1, T2 = np.geomspace(0.2, 3, 30), np.geomspace(0.02, 1, 30)
B1 = np.arange(0.7, 1.31, STEP_B1)


def simulate(t1, t2, b1=1.0, b0=0.0):
    t1, t2, b1, b0 = (np.asarray(p)[..., None] for p in (t1, t2, b1, b0))
    recovered = 1 - (1 - np.cos(0.9 * np.pi * b1)) * np.exp(-RECOVERY / t1)
    return 1j * np.sin(FLIP * b1) * recovered * np.exp(-ECHO / t2 + 2j * np.pi * b0 * ECHO)


def dictionary(drop: bool = True, **axes) -> Dictionary:
    values = np.meshgrid(*axes.values(), indexing="ij")
    parameters = {name: v.ravel() for name, v in zip(axes, values, strict=True)}
    keep = parameters["t2"] <= parameters["t1"] if drop else slice(None)
    parameters = {name: v[keep] for name, v in parameters.items()}
    return Dictionary(simulate(**parameters), parameters)


def brute_force(atoms, signals):
    inner = signals @ atoms.conj().T
    correlation = np.abs(inner) / np.linalg.norm(atoms, axis=1) / np.linalg.norm(signals, axis=1)[:, None]
    return np.argsort(-correlation, axis=1), np.sort(correlation, axis=1)[:, ::-1], inner


def noisy(n: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    clean = simulate(draw.uniform(0.3, 2.5, n), draw.uniform(0.03, 0.3, n), draw.uniform(0.8, 1.2, n))
    return clean + 0.02 * (draw.normal(size=clean.shape) + 1j * draw.normal(size=clean.shape))


@pytest.mark.parametrize("b0", [(0.0,), (-3.0, 0.0, 3.0)])
def test_equals_brute_force_for_real_and_complex_atoms(b0):
    d = dictionary(t1=T1[::3], t2=T2[::3], b1=B1[::4], b0=b0)
    signals = noisy(50)
    order, correlation, inner = brute_force(d.atoms, signals)
    maps = match(d, signals.reshape(5, 10, -1), top=4)
    assert maps.t1.shape == (4, 5, 10)
    best = order[:, :4].T
    np.testing.assert_array_equal(maps.index.reshape(4, -1), best)
    np.testing.assert_allclose(maps.correlation.reshape(4, -1), correlation[:, :4].T, rtol=1e-12)
    np.testing.assert_array_equal(maps.b1.reshape(4, -1), d.b1[best])
    energy = np.linalg.norm(d.atoms, axis=1) ** 2
    expected = np.take_along_axis(inner, best.T, 1).T / energy[best]
    np.testing.assert_allclose(maps.m0.reshape(4, -1), expected, rtol=1e-12)
    first = match(d, signals)
    np.testing.assert_array_equal(first.index, best[0])
    assert first.parameters["t2"] is first.t2


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("top", [1, 7])
def test_chunks_do_not_matter(monkeypatch, top, few):
    d = dictionary(t1=T1[::3], t2=T2[::3], b1=B1[::4])
    whole = match(d, noisy(50), top=top)
    monkeypatch.setattr(matching, "_POINTS", 200)
    monkeypatch.setattr(search, "_BLOCK_FEW", (7, 5))
    monkeypatch.setattr(search, "_BLOCK_MANY", (7, 5))
    monkeypatch.setattr(search, "_FEW", 1000 if few else 0)
    pieces = match(d, noisy(50), top=top)
    np.testing.assert_array_equal(pieces.index, whole.index)
    np.testing.assert_allclose(pieces.correlation, whole.correlation, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("phase", ["common", "free"])
@pytest.mark.parametrize("n_points", [1, 12, 40, 65, 129])
def test_equal_atoms_tie_to_the_lower_one(n_points, phase, dtype):
    draw = np.random.default_rng(6)
    atoms = draw.normal(size=(331, n_points)) + 1j * (phase == "free") * draw.normal(size=(331, n_points))
    signals = draw.normal(size=(150, n_points)) + 1j * draw.normal(size=(150, n_points))
    signals[7] = 0
    thrice = Dictionary(np.tile(atoms, (3, 1)).astype(dtype), {"t1": np.arange(993.0)})
    maps = match(thrice, signals)
    order, correlation, _ = brute_force(atoms, np.where(signals == 0, 1, signals))
    clear = (correlation[:, 0] - correlation[:, 1] > 1e-5) & (signals != 0).any(axis=1)
    np.testing.assert_array_equal(maps.index[clear], order[clear, 0])
    assert (n_points == 1) == (not clear.any())
    assert maps.index.max() < 331 or n_points == 1
    np.testing.assert_allclose(maps.correlation[clear], correlation[clear, 0], rtol=1e-5)
    assert maps.correlation[7] == 0


def test_no_voxels_make_empty_maps():
    assert match(dictionary(t1=T1, t2=T2), np.zeros((0, 4, N_ECHOES), complex)).t1.shape == (0, 4)


def test_atoms_match_themselves_in_single_precision_with_complex_m0():
    d = dictionary(t1=T1, t2=T2)
    single = Dictionary(jnp.asarray(d.atoms, jnp.complex64), d.parameters)
    draw = np.random.default_rng(1)
    m0 = 1e4 * draw.normal(size=len(d.t1)) * np.exp(2j * np.pi * draw.uniform(size=len(d.t1)))
    maps = match(single, (m0[:, None] * d.atoms).reshape(-1, 1, N_ECHOES))
    assert maps.m0.dtype == np.complex64
    assert maps.correlation.dtype == np.float32
    np.testing.assert_allclose(maps.t1[:, 0], d.t1)
    np.testing.assert_allclose(maps.t2[:, 0], d.t2)
    np.testing.assert_allclose(maps.m0[:, 0], m0, rtol=1e-5)
    np.testing.assert_allclose(maps.correlation, 1, atol=1e-6)
    assert set(maps.images) == {"t1", "t2", "m0", "correlation"}


@pytest.mark.parametrize("refine", [False, True])
def test_raw_and_projected_signals_give_the_same_maps(refine):
    d = compress(dictionary(t1=T1[::2], t2=T2[::2], b1=B1[::2], b0=(-2.0, 0.0, 2.0)), rank=9)
    signals = noisy(20)
    raw, projected = match(d, signals, refine=refine), match(d, project(signals, d.basis), refine=refine)
    for name in ("t1", "t2", "b1", "b0", "m0", "correlation"):
        np.testing.assert_allclose(raw.images[name], projected.images[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("refine", [False, True])
def test_empty_voxels_are_zero_not_nan(refine):
    d = dictionary(t1=T1, t2=T2)
    signals = np.stack([np.zeros(N_ECHOES), simulate(0.8, 0.08)]).astype(complex)
    maps = match(d, signals, refine=refine)
    assert maps.correlation[0] == 0
    assert maps.m0[0] == 0
    assert np.isfinite(maps.t1).all()
    assert maps.correlation[1] > 0.99


def test_silent_atoms_never_win():
    d = dictionary(t1=T1, t2=T2)
    silent = Dictionary(np.where(np.arange(len(d.t1))[:, None] == 0, 0, d.atoms), d.parameters)
    maps = match(silent, d.atoms[:3])
    assert maps.index[0] != 0
    np.testing.assert_array_equal(maps.index[1:], [1, 2])


def errors_in_steps(maps, t1, t2, b1=None):
    errors = [np.log(maps.t1 / t1) / STEP_T1, np.log(maps.t2 / t2) / STEP_T2]
    return np.abs(errors + ([] if b1 is None else [(maps.b1 - b1) / STEP_B1]))


@pytest.mark.parametrize("rank", [None, 12])
def test_refinement_finds_coupled_parameters_between_grid_points(rank):
    d = dictionary(t1=T1, t2=T2, b1=B1)
    d = compress(d, rank) if rank else d
    draw = np.random.default_rng(2)
    t1 = np.exp(draw.uniform(np.log(0.25), np.log(2.8), 500))
    t2 = np.minimum(np.exp(draw.uniform(np.log(0.025), np.log(0.9), 500)), 0.8 * t1)
    b1 = draw.uniform(0.72, 1.28, 500)
    m0 = draw.normal(size=500) + 1j * draw.normal(size=500)
    signals = m0[:, None] * simulate(t1, t2, b1)
    coarse, fine = match(d, signals), match(d, signals, refine=True)
    assert np.median(errors_in_steps(coarse, t1, t2, b1)) > 0.15
    errors = errors_in_steps(fine, t1, t2, b1)
    assert np.median(errors) < 0.005
    assert np.percentile(errors, 95) < 0.03
    assert errors.max() < 0.2
    np.testing.assert_allclose(fine.m0, m0, rtol=0.02)
    assert (fine.correlation >= coarse.correlation - 1e-12).all()
    np.testing.assert_array_equal(fine.index, coarse.index)


def test_refinement_with_off_resonance():
    d = dictionary(t1=T1, t2=T2, b0=np.arange(-3.0, 3.1, 0.5))
    draw = np.random.default_rng(3)
    t1, t2, b0 = draw.uniform(0.4, 2, 100), draw.uniform(0.04, 0.2, 100), draw.uniform(-2.9, 2.9, 100)
    maps = match(d, simulate(t1, t2, b0=b0), refine=True)
    np.testing.assert_allclose(maps.b0, b0, atol=0.02)
    assert errors_in_steps(maps, t1, t2).max() < 0.05


def test_refinement_at_borders_and_at_the_diagonal_of_dropped_atoms():
    d = dictionary(t1=T1, t2=T2)
    corners = list(itertools.product((0.2, 0.21, 2.9, 3.0), (0.02, 0.021)))
    t1, t2 = np.array([*corners, (0.5, 0.49), (0.4, 0.38), (1.3, 0.97), (2.9, 0.98)]).T
    maps = match(d, simulate(t1, t2), refine=True)
    assert errors_in_steps(maps, t1, t2).max() < 0.02


def test_refinement_stays_on_the_grid():
    d = dictionary(t1=T1, t2=T2)
    maps = match(d, simulate([0.15, 4.0], [0.015, 1.3]), refine=True)
    np.testing.assert_allclose(maps.t1, [T1[0], T1[-1]], rtol=1e-6)
    np.testing.assert_allclose(maps.t2, [T2[0], T2[-1]], rtol=1e-6)


def test_refinement_of_exact_atoms_moves_nothing():
    d = dictionary(t1=T1, t2=T2)
    maps = match(d, d.atoms[::7], refine=True)
    np.testing.assert_allclose(maps.t1, d.t1[::7], rtol=1e-5)
    np.testing.assert_allclose(maps.t2, d.t2[::7], rtol=1e-5)
    np.testing.assert_allclose(maps.correlation, 1, rtol=1e-12)


def test_refinement_around_a_hole_and_of_a_lonely_atom():
    full = dictionary(t1=T1, t2=T2, drop=False)
    lonely = (full.t1 == T1[15]) & (full.t2 == T2[15])
    near = (np.abs(np.log(full.t1 / T1[15])) < 1.5 * STEP_T1) & (np.abs(np.log(full.t2 / T2[15])) < 1.5 * STEP_T2)
    keep = ~near | lonely
    d = Dictionary(full.atoms[keep], {name: v[keep] for name, v in full.parameters.items()})
    maps = match(d, simulate([1.02 * T1[15], T1[13] * 1.02], [T2[15], T2[15] * 1.02]), refine=True)
    assert maps.t1[0] == T1[15]  # no block around it: the matched atom is kept
    np.testing.assert_allclose(maps.t1[1], T1[13] * 1.02, rtol=1e-3)
    np.testing.assert_allclose(maps.t2[1], T2[15] * 1.02, rtol=2e-3)


def test_refinement_of_axes_with_one_and_two_values():
    d = dictionary(t1=T1, t2=(0.08,), b1=(0.98, 1.02))
    maps = match(d, simulate([0.71, 1.3], 0.08, [0.99, 1.01]), refine=True)
    np.testing.assert_allclose(maps.t1, [0.71, 1.3], rtol=2e-3)
    np.testing.assert_allclose(maps.b1, [0.99, 1.01], atol=1e-3)
    np.testing.assert_array_equal(maps.t2, [0.08, 0.08])


def test_the_slope_of_the_refined_fit_is_its_derivative():
    draw = np.random.default_rng(4)
    atoms = draw.normal(size=(1, 9, 5)) + 1j * draw.normal(size=(1, 9, 5))
    signal = draw.normal(size=5) + 1j * draw.normal(size=5)
    gram, inner = atoms.conj() @ atoms.swapaxes(1, 2), atoms.conj() @ signal
    polynomials = [np.linalg.inv(np.array([[-1.0], [0.1], [1.0]]) ** np.arange(3))[None]] * 2

    def squared(a, b):
        return refinement._evaluate(gram, inner, polynomials, np.array([[a, b]])).squared[0]

    fit = refinement._evaluate(gram, inner, polynomials, np.array([[0.2, -0.3]]))
    h = 1e-6
    numeric = squared(0.2 + h, -0.3) - squared(0.2 - h, -0.3), squared(0.2, -0.3 + h) - squared(0.2, -0.3 - h)
    np.testing.assert_allclose(2 * fit.slope[0], np.array(numeric) / (2 * h), rtol=1e-6)


def test_progress_bars_appear_on_request(capsys):
    d = dictionary(t1=T1, t2=T2)
    match(d, noisy(3))
    assert capsys.readouterr().err == ""
    match(d, noisy(3), progress=True, refine=True)
    assert "matching" in (shown := capsys.readouterr().err)
    assert "refining" in shown


def test_errors_name_the_remedy():
    d = dictionary(t1=T1, t2=T2)
    with pytest.raises(ValueError, match=r"n_points = 60 points, got shape \(60, 3\).*moveaxis"):
        match(d, np.ones((60, 3), complex))
    with pytest.raises(ValueError, match="n_echoes = 60 or rank = 5"):
        match(compress(d, 5), np.ones((2, 7), complex))
    with pytest.raises(ValueError, match=r"signals must be finite, got nan.* at index \(1, 4\).*outside the mask"):
        match(d, np.where(np.arange(120).reshape(2, 60) == 64, np.nan, 1 + 0j))
    with pytest.raises(ValueError, match="top must be between 1 and"):
        match(d, noisy(1), top=0)
    broken = Dictionary(np.where(np.arange(len(d.t1))[:, None] == 3, np.nan, d.atoms), d.parameters)
    with pytest.raises(ValueError, match="atom 3 of the dictionary is not finite"):
        match(broken, noisy(1))


def test_a_free_list_matches_but_cannot_be_refined():
    draw = np.random.default_rng(5)
    parameters = {"t1": draw.uniform(0.3, 2, 200), "t2": draw.uniform(0.03, 0.2, 200)}
    free = Dictionary(simulate(**parameters), parameters)
    np.testing.assert_array_equal(match(free, free.atoms).index, np.arange(200))
    with pytest.raises(ValueError, match="refine=True needs atoms on a grid"):
        match(free, free.atoms, refine=True)
