"""Dictionaries: which atoms there are, that each is the signal of its tissue, and the messages of bad input."""

import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.units import mm, ms

SEQUENCE = mr.sequences.fisp(sine_train(40), 12 * ms, 3 * ms, 20 * ms)
T1, T2, B1 = np.array([0.08, 0.5, 1.0]), np.array([0.05, 0.1, 0.6]), np.array([0.9, 1.1])


def test_a_grid_drops_what_cannot_be_and_keeps_the_order_of_its_axes():
    dictionary = mr.mrf.dictionary(SEQUENCE, t1=T1, t2=T2, b1=B1, model=mr.EPG())
    t1, t2, b1 = (axis.ravel() for axis in np.meshgrid(T1, T2, B1, indexing="ij"))
    kept = t2 <= t1
    for name, column in {"t1": t1, "t2": t2, "b1": b1}.items():
        np.testing.assert_array_equal(dictionary.parameters[name], column[kept])
    expected = mr.simulate(SEQUENCE, mr.Tissue(t1=t1[kept], t2=t2[kept], b1=b1[kept]), mr.EPG())
    assert relative(dictionary.atoms, expected) < 1e-14
    assert len(mr.mrf.dictionary(SEQUENCE, t1=T1, t2=T2, b1=B1, model=mr.EPG(), drop=False).t1) == 18


def test_shared_b1_and_b1_per_voxel_give_the_same_atoms():
    """On a grid, B1 scales the flips of a group; in a list without one it is looked up voxel by voxel."""
    pulse = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)
    model = mr.EPGBloch(pulse=pulse, n_z=8, orders=16)
    grid = mr.mrf.dictionary(SEQUENCE, t1=np.linspace(0.8, 1.2, 6), t2=np.linspace(0.05, 0.1, 6), b1=B1, model=model)
    listed = mr.mrf.dictionary(SEQUENCE, tissue=mr.Tissue(**grid.parameters)[::9], model=model)
    assert relative(listed.atoms, grid.atoms[::9]) < 1e-7


def test_off_resonance_is_an_axis_where_times_vary():
    sequence = mr.sequences.fisp(sine_train(30), np.linspace(11, 14, 30) * ms, 3 * ms)
    dictionary = mr.mrf.dictionary(sequence, t1=[1.0], t2=[0.1], b0=[-20.0, 0.0, 20.0], model=mr.EPG())
    expected = mr.simulate(sequence, mr.Tissue(t1=1.0, t2=0.1, b0=20.0), mr.EPG())
    assert relative(dictionary.atoms[2], expected) < 1e-13


def test_a_rank_keeps_the_signals_within_the_energy_it_reports():
    axes = {"t1": np.geomspace(0.3, 3, 12), "t2": np.geomspace(0.03, 0.3, 12)}
    full = mr.mrf.dictionary(SEQUENCE, **axes, model=mr.EPG())
    small = mr.mrf.dictionary(SEQUENCE, **axes, model=mr.EPG(), rank=6)
    assert small.atoms.shape == (len(full.t1), 6)
    missing = relative(small.atoms @ small.basis.T, full.atoms) ** 2
    assert np.isclose(missing, 1 - small.energy, rtol=0.05)
    assert missing < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either axes such as t1=..., t2=..., or a list as tissue="),
        ({"t1": T1}, "needs an axis for t2, in seconds"),
        ({"t1": T1, "t2": [0.1, 0.1]}, "axis t2 must be one-dimensional without repeats"),
        ({"t1": [0.1], "t2": [1.0]}, "every atom has t2 > t1 and was dropped"),
        ({"t1": T1, "t2": T2, "rank": 50}, "rank must be between 1 and"),
        ({"t1": [0.9, -1.0], "t2": [-2.0]}, "t1 must be positive, got -1"),
    ],
)
def test_bad_dictionaries_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mr.mrf.dictionary(SEQUENCE, model=mr.EPG(), **arguments)
