"""Scores of a match: what counts as truth, which voxels are of one tissue, what half a step is, the bound."""

import numpy as np
import pytest

import jaxmr as mr
from jaxmr.cli import scoring


def test_the_truth_of_a_mixture_is_the_mean_of_logarithms():
    fluid = np.array([0.0, 0.04, 0.7, 0.995, 0.005])
    tissue = mr.Tissue(t1=[1.607, 4.3], t2=[0.076, 2.0], m0=[0.8, 1.0])
    fractions = np.stack([1 - fluid, fluid])[:, None]
    phantom = mr.objects.from_fractions(fractions, tissue, voxel_size=1e-3, minimum=0.001)
    truth = mr.objects.truth(phantom)
    share = fluid / (0.8 * (1 - fluid) + fluid)
    np.testing.assert_allclose(truth["t2"][0], 0.076 ** (1 - share) * 2.0**share)
    mask = np.ones((1, 5), bool)
    groups = scoring.groups(phantom, {name: image[mask] for name, image in truth.items()}, mask)
    assert [(group.name, group.voxels.tolist()) for group in groups] == [("grey matter", [0, 4]), ("CSF", [3])]


def test_maps_of_many_tissues_are_grouped_by_t1():
    t1 = np.linspace(0.5, 2, 30).reshape(5, 6)
    phantom = mr.objects.from_maps(t1, t1 / 10, voxel_size=1e-3)
    truth = {name: image.ravel() for name, image in mr.objects.truth(phantom).items()}
    groups = scoring.groups(phantom, truth, np.ones((5, 6), bool))
    assert [group.name for group in groups] == ["T1 500 ... 966 ms", "T1 1017 ... 1483 ms", "T1 1534 ... 2000 ms"]
    assert sorted(np.concatenate([group.voxels for group in groups])) == list(range(30))


def test_half_a_step_is_counted_on_the_axis_and_never_beyond_it():
    axes = {"t1": np.array([1.0, 2, 4]), "b1": np.array([0.9, 1.0, 1.1])}
    truth = {"t1": np.array([2.0, 2, 2, 5]), "b1": np.ones(4), "m0": np.ones(4), "purity": np.array([1, 1, 1, 1.0])}
    found = {"t1": np.array([2.8, 2.9, 2.0, 4.0]), "b1": np.array([1.04, 0.96, 1.06, 1.0]), "m0": np.full(4, 1.1)}
    scores = scoring.without_noise(found, truth, axes)
    assert scores["t1"]["within_half_step"] == 0.5
    assert scores["b1"]["within_half_step"] == 0.75
    assert scores["m0"] == {"median_error": pytest.approx(0.1)}
    assert scoring.without_noise(found, {**truth, "purity": np.full(4, 0.9)}, axes) == {}


def test_the_bound_is_that_of_the_design_module_unless_a_phase_competes():
    """On resonance M0's phase is orthogonal to all else; with an unknown B0 at one TE it is not."""
    flip = np.radians(10 + 40 * np.sin(np.arange(40) / 6) ** 2)
    tissue = mr.Tissue(t1=[0.8, 1.6], t2=[0.07, 0.1], m0=[1.0, 0.5], b1=[1.0, 0.9])
    names, model = ("t1", "t2", "b1", "m0"), mr.EPG()
    constant = mr.sequences.fisp(flip, 12e-3, 3e-3)
    expected = np.sqrt(mr.design.crlb(constant, tissue, names, model, 0.01))
    np.testing.assert_allclose(scoring.bounds(constant, tissue, names, model, 0.01), expected, rtol=1e-6)
    varying = mr.sequences.fisp(flip, 13e-3 + 1e-3 * np.sin(np.arange(40)), 3e-3)
    known = np.sqrt(mr.design.crlb(varying, tissue, (*names, "b0"), model, 0.01))[:, -1]
    assert (scoring.bounds(varying, tissue, (*names, "b0"), model, 0.01)[:, -1] > 1.5 * known).all()
