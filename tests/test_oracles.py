"""Against sycomore, a C++ EPG simulator (`uv run --group oracles pytest -m oracle`)."""

import numpy as np
import pytest

import jaxmr as mr
from checks import sine_train
from jaxmr.units import ms

pytestmark = pytest.mark.oracle
sycomore = pytest.importorskip("sycomore", reason="the dependency group `oracles` is not installed")


@pytest.fixture
def model():
    from sycomore.units import ms as sycomore_ms
    from sycomore.units import s

    species = sycomore.Species(0.9 * s, 85 * sycomore_ms)
    return sycomore.epg.Regular(species), s


def test_fisp_of_300_pulses(model):
    from sycomore.units import rad

    epg, s = model
    flips = sine_train(300)
    epg.apply_pulse(np.pi * rad, 0 * rad)
    epg.relaxation(0.02 * s)
    expected = []
    for flip in flips:
        epg.apply_pulse(float(flip) * rad, 0.3 * rad)
        epg.relaxation(0.003 * s)
        expected.append(epg.echo)
        epg.relaxation(0.009 * s)
        epg.shift()
    sequence = mr.sequences.fisp(flips, 12 * ms, 3 * ms, 20 * ms, phase=0.3)
    signal = np.asarray(mr.simulate(sequence, mr.Tissue(t1=0.9, t2=0.085), mr.EPG())) * np.exp(0.3j)
    assert np.abs(signal - np.array(expected)).max() < 1e-10


def test_cpmg_with_weak_refocusing(model):
    from sycomore.units import rad

    epg, s = model
    flips = np.deg2rad(np.linspace(180, 90, 32))
    epg.apply_pulse(np.pi / 2 * rad, 0 * rad)
    expected = []
    for flip in flips:
        epg.relaxation(0.005 * s)
        epg.shift()
        epg.apply_pulse(float(flip) * rad, np.pi / 2 * rad)
        epg.relaxation(0.005 * s)
        epg.shift()
        expected.append(epg.echo)
    signal = mr.simulate(mr.sequences.tse(flips, 10 * ms), mr.Tissue(t1=0.9, t2=0.085), mr.EPG())
    assert np.abs(np.asarray(signal) - np.array(expected)).max() < 1e-10
