"""The composed slice-selective operator against explicit sub-steps, and the smoothness of its table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import central_difference, relative, selective_train
from jaxmr.physics import bloch, selective
from jaxmr.units import mm, ms

GAUSS = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)


def skewed():
    """A complex pulse, off-centre and not symmetric."""
    t = np.linspace(0, 1, 50)
    samples = np.exp(-30 * (t - 0.7) ** 2 + 2j * t)
    return mr.rf.arbitrary(samples, 2 * ms, gradient=float(GAUSS.gradient), thickness=3 * mm)


def substeps(waveform, z, flip, t1, t2, magnetisation):
    """The pulse by explicit Strang steps in float64, between free relaxation and winding taken back."""
    dwell = float(waveform.duration) / waveform.samples.shape[0]
    before, after = float(waveform.centre), float(waveform.duration - waveform.centre)
    winding = float(waveform.gradient) * z

    def free(m, time):  # relaxation for a negative time too
        return bloch.relax(m, time, t1, t2)

    m = bloch.precess(free(jnp.asarray(magnetisation), -before), -winding * before)
    for sample in np.asarray(waveform.samples):
        m = bloch.relax(m, dwell / 2, t1, t2)
        m = bloch.turn(m, jnp.array([flip * sample.real, flip * sample.imag, winding]) * dwell)
        m = bloch.relax(m, dwell / 2, t1, t2)
    return free(bloch.precess(m, -winding * after), -after)


@pytest.mark.parametrize("waveform", [GAUSS, skewed()], ids=["gauss", "skewed"])
def test_composed_matrix_equals_substeps(waveform):
    """Differences of magnetisations see the matrix alone: exact."""
    for z, flip, t1, t2 in [(0.4e-3, 1.2, 0.9, 0.085), (1.7e-3, 2.0, 0.05, 0.01), (-3e-3, -1.0, 3.0, 0.3)]:
        matrix, _ = selective.compose(waveform, jnp.asarray(z), jnp.asarray(flip), jnp.asarray(1 / t2 - 1 / t1))
        origin = substeps(waveform, z, flip, t1, t2, np.zeros(3))
        for i, unit in enumerate(np.eye(3)):
            column = substeps(waveform, z, flip, t1, t2, unit) - origin
            assert np.abs(column - matrix[:, i]).max() < 1e-12


def test_composed_offset_equals_substeps():
    """The source during the pulse: exact to second order in duration / T1."""
    for t1, bar in [(0.05, 6e-5), (0.9, 2e-7)]:
        for flip in (0.3, 2.0):
            t2, z = 0.01, jnp.asarray(0.7e-3)
            matrix, response = selective.compose(GAUSS, z, jnp.asarray(flip), jnp.asarray(1 / t2 - 1 / t1))
            offset = selective.source_offset(matrix[:, 2], response, 1 / t1, GAUSS.duration, GAUSS.centre)
            expected = substeps(GAUSS, float(z), flip, t1, t2, np.zeros(3))
            assert np.abs(jnp.stack(offset) - expected).max() < bar


def test_zero_flip_is_the_identity():
    matrix, response = selective.compose(GAUSS, jnp.asarray(1e-3), jnp.asarray(0.0), jnp.asarray(40.0))
    assert np.abs(matrix - jnp.eye(3)).max() < 1e-12
    offset = selective.source_offset(matrix[:, 2], response, 1.3, GAUSS.duration, GAUSS.centre)
    assert np.abs(jnp.stack(offset)).max() < 1e-12


@pytest.mark.parametrize("waveform", [GAUSS, skewed()], ids=["gauss", "skewed"])
def test_table_reproduces_composition(waveform):
    positions = mr.rf.slice_positions(3 * mm, 8)
    table = selective.tabulate(waveform, positions, np.deg2rad(144), 100.0)
    rng = np.random.default_rng(0)
    for flip, delta in zip(rng.uniform(-2.5, 2.5, 12), rng.uniform(0, 100, 12), strict=True):
        powers = selective.look_up(table, jnp.asarray(flip))
        u = delta / table.delta_scale
        entries = (powers[2] * u + powers[1]) * u + powers[0]
        for i, z in enumerate(positions):
            matrix, response = selective.compose(waveform, z, jnp.asarray(flip), jnp.asarray(delta))
            expected = jnp.concatenate([matrix.reshape(9), response])
            assert np.abs(entries[:, i] - expected).max() < 2e-6


def test_table_is_smooth_and_its_derivative_right():
    """Twice continuously differentiable in the flip, across nodes and through zero."""
    table = selective.tabulate(GAUSS, mr.rf.slice_positions(3 * mm, 4), 2.0, 50.0)
    value = lambda flip: selective.look_up(table, flip)  # noqa: E731
    node = float(table.spacing) * 7
    for flip in (0.0, 0.5, node, -1.3):
        exact = jax.jacfwd(value)(jnp.asarray(flip))
        assert np.abs(exact - central_difference(value, jnp.asarray(flip), 1e-4)).max() < 1e-7
    second = jax.jacfwd(jax.jacfwd(value))
    for flip in (0.0, node):
        left, right = second(jnp.asarray(flip - 1e-9)), second(jnp.asarray(flip + 1e-9))
        assert np.abs(left - right).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("t1", "t2"), [(0.05, 0.01), (0.9, 0.085), (4.0, 2.0)])
def test_train_equals_explicit_substeps(t1, t2, dtype):
    """The whole model against 100 sub-steps of every pulse applied to all orders, flips to 120 degrees."""
    flips = np.deg2rad(np.random.default_rng(0).uniform(5, 120, 40))
    expected = selective_train(flips, GAUSS, 12 * ms, 3 * ms, t1, t2, inversion_time=20 * ms, n_z=8)
    sequence = mr.sequences.fisp(flips, 12 * ms, 3 * ms, 20 * ms)
    tissue = mr.Tissue(t1=np.array([t1, t1], dtype), t2=np.array([t2, t2], dtype))
    model = mr.EPGBloch(pulse=GAUSS, n_z=8)
    signal = mr.simulate(sequence, tissue, model)[0]
    assert signal.dtype == (np.complex128 if dtype is np.float64 else np.complex64)
    assert relative(signal, expected) < 1e-4


@pytest.mark.parametrize("waveform", [GAUSS, skewed()], ids=["gauss", "skewed"])
def test_full_slice_with_phase_off_resonance_and_b1_equals_substeps(waveform):
    """No half slice here: quadratic phases, varying TR, precession in the states, transmit field per voxel."""
    n, n_z = 16, 48
    rng = np.random.default_rng(3)
    flips, tr = np.deg2rad(rng.uniform(10, 90, n)), rng.uniform(11, 14, n) * ms
    phase = rng.uniform(0, 2 * np.pi, n)
    sequence = mr.sequences.fisp(flips, tr, 4 * ms, phase=phase)
    # The stated integral over the slice does not see the shift of the slice by b0: keep it far below a sub-slice.
    tissue = mr.Tissue(t1=[0.9, 0.9], t2=[0.08, 0.08], b1=[0.9, 1.1], b0=[3.0, 3.0])
    signal = mr.simulate(sequence, tissue, mr.EPGBloch(pulse=waveform, n_z=n_z))
    expected = selective_train(flips, waveform, tr, 4 * ms, 0.9, 0.08, n_z=n_z, b1=1.1, b0=3.0, phase=phase, orders=20)
    assert relative(signal[1], expected) < 3e-4
    assert relative(signal[0], expected) > 1e-2


def test_half_slice_equals_full_slice():
    """An odd number of sub-slices cannot be halved: the same integral by another route."""
    flips = np.deg2rad(np.linspace(5, 80, 30))
    sequence = mr.sequences.fisp(flips, 12 * ms, 3 * ms, 20 * ms)
    tissue = mr.Tissue(t1=0.9, t2=0.085)
    half = mr.simulate(sequence, tissue, mr.EPGBloch(pulse=GAUSS, n_z=128))
    full = mr.simulate(sequence, tissue, mr.EPGBloch(pulse=GAUSS, n_z=129))
    assert relative(half, full) < 1e-5


def test_epg_bloch_says_which_pulse_it_needs():
    sequence = mr.sequences.fisp(np.ones(3), 12 * ms, 3 * ms)
    tissue = mr.Tissue(t1=1.0, t2=0.1)
    with pytest.raises(ValueError, match="needs a pulse shape: give pulse="):
        mr.simulate(sequence, tissue, mr.EPGBloch())
    shaped = mr.sequences.fisp(np.ones(3), 12 * ms, 3 * ms, pulse=GAUSS)
    with pytest.raises(ValueError, match="both the sequence and EPGBloch have a pulse shape"):
        mr.simulate(shaped, tissue, mr.EPGBloch(pulse=GAUSS))
    ours, theirs = mr.simulate(shaped, tissue, mr.EPGBloch()), mr.simulate(sequence, tissue, mr.EPGBloch(pulse=GAUSS))
    assert relative(ours, theirs) < 1e-14
