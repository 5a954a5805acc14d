"""Sequences as data: structure, bookkeeping of orders and times, and the messages of bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from jaxmr.sequences.sequence import net_times, order_bounds
from jaxmr.units import deg, ms

FLIPS = np.full(6, 30 * deg)


def test_scalars_stay_scalars():
    """Structure, not value, chooses fast paths."""
    shared = mr.sequences.fisp(FLIPS, 12 * ms, 3 * ms, 20 * ms)
    each = mr.sequences.fisp(FLIPS, np.full(6, 12 * ms), 3 * ms, 20 * ms)
    assert shared.segments[1].events[1].duration.ndim == 0
    assert each.segments[1].events[1].duration.ndim == 1
    assert shared.segments[1].pulse.phase is None
    assert jax.tree.structure(shared) == jax.tree.structure(mr.sequences.fisp(FLIPS * 2, 10 * ms, 4 * ms, 9 * ms))


def test_duration_and_echoes():
    sequence = mr.sequences.fisp(FLIPS, 12 * ms, 3 * ms, 20 * ms)
    assert sequence.n_echoes == 6
    assert np.isclose(mr.sequences.duration(sequence), 20 * ms + 6 * 12 * ms)
    varying = mr.sequences.fisp(FLIPS, np.arange(10, 16) * ms, 3 * ms)
    assert np.isclose(mr.sequences.duration(varying), np.arange(10, 16).sum() * ms)
    assert np.isclose(mr.sequences.duration(mr.sequences.cpmg(8, 10 * ms)), 85 * ms)


def test_orders_grow_and_shrink():
    """At pulse n of N only min(n + 1, N - n) orders can reach a sample, and one more after winding."""
    inversion, train = order_bounds(mr.sequences.fisp(FLIPS, 12 * ms, 3 * ms, 20 * ms))
    assert inversion.tolist() == [1]
    assert train.tolist() == [2, 3, 4, 4, 3, 2]
    assert max(order_bounds(mr.sequences.bssfp(FLIPS, 5 * ms))[-1]) == 1


def test_net_times_are_known_where_static_dephasing_is_one_number():
    assert np.isclose(net_times(mr.sequences.fisp(FLIPS, 12 * ms, 3 * ms, 20 * ms))[1][0], 3 * ms)
    assert net_times(mr.sequences.fisp(FLIPS, np.full(6, 12 * ms), 3 * ms)) is None
    assert net_times(mr.sequences.bssfp(FLIPS, 5 * ms)) is None
    assert net_times(mr.sequences.cpmg(4, 10 * ms))[1][0] == 0


def test_rf_spoiling_phases_are_quadratic():
    increment = 117 * deg
    sequence = mr.sequences.spgr(np.full(2000, 0.1), 10 * ms, 3 * ms, rf_increment=increment)
    n = np.arange(1, 2001)
    expected = np.mod(n * (n - 1) / 2 * increment, 2 * np.pi)
    phase = np.asarray(sequence.segments[0].pulse.phase)
    assert np.abs(np.exp(1j * phase) - np.exp(1j * expected)).max() < 1e-8
    # A traced increment takes the same values, and its derivative is the number of increments.
    traced = jax.jit(lambda x: mr.sequences.spgr(np.full(20, 0.1), 1.0, 0.1, rf_increment=x).segments[0].pulse.phase)
    assert np.abs(np.exp(1j * traced(increment)) - np.exp(1j * expected[:20])).max() < 1e-10
    slope = jax.jacfwd(lambda x: mr.sequences.spgr(np.full(20, 0.1), 1.0, 0.1, rf_increment=x).segments[0].pulse.phase)
    assert np.allclose(slope(increment), n[:20] * (n[:20] - 1) / 2)


def test_scaled_flips():
    sequence = mr.sequences.tse(FLIPS, 10 * ms)
    scaled = mr.sequences.scale_flips(sequence, 0.8)
    assert np.allclose(scaled.segments[1].pulse.flip, 0.8 * FLIPS)
    assert np.isclose(scaled.segments[0].pulse.flip, 0.4 * np.pi)


def test_initial_magnetisation_and_inversion_efficiency():
    flip = np.array([90 * deg])
    start = mr.simulate(mr.sequences.fisp(flip, 10 * ms, 0.0), mr.Tissue(t1=1.0, t2=0.1), mr.EPG())
    assert np.isclose(start[0], -1j)
    partial = mr.sequences.fisp(flip, 10 * ms, 0.0, 0.0, inversion_efficiency=0.9)
    assert np.isclose(mr.simulate(partial, mr.Tissue(t1=1.0, t2=0.1), mr.EPG())[0], 0.9j)
    sequence = mr.sequences.fisp(np.array([0.0]), 10 * ms, 0.0)
    tipped = mr.sequences.Sequence(sequence.segments, initial=jnp.array([0.3, 0.4, 0.5]))
    assert np.isclose(mr.simulate(tipped, mr.Tissue(t1=1.0, t2=0.1), mr.EPG())[0], 0.3 + 0.4j)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mr.sequences.fisp(0.3, 12 * ms, 3 * ms), r"flip must have shape \(n,\).* got shape \(\)"),
        (lambda: mr.sequences.fisp(FLIPS, np.ones(5), 3 * ms), r"tr must be a scalar or have shape \(6,\)"),
        (lambda: mr.sequences.fisp(FLIPS, 3 * ms, 12 * ms), "te must not exceed tr, got te 0.012 s and tr 0.003 s"),
        (lambda: mr.sequences.fisp(FLIPS, -1.0, 0.0), "tr must be at least 0, got -1; times are in seconds"),
        (lambda: mr.sequences.fisp([np.nan], 12 * ms, 3 * ms), "flip must be finite, got nan"),
        (lambda: mr.sequences.fisp(FLIPS, 12 * ms, 3 * ms, -1.0), "inversion_time must be at least 0, got -1"),
        (
            lambda: mr.sequences.fisp(FLIPS, 12 * ms, 3 * ms, inversion_efficiency=0.9),
            "inversion_efficiency was given without an inversion_time",
        ),
        (lambda: mr.sequences.tse(FLIPS, np.ones(6)), "esp must be one echo spacing in seconds"),
    ],
)
def test_bad_sequences_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
