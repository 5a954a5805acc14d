"""Sequences of moments and times as .seq files: the same k-space, the same signal, within the limits of the machine."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import relative
from jaxmr.pulseq.files import read, write
from jaxmr.pulseq.seqfile.reading import load
from jaxmr.pulseq.synthesis.limits import USUAL, Limits
from jaxmr.pulseq.synthesis.scheduling import synthesised
from jaxmr.sequences import families, imaging, readouts
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence
from jaxmr.units import deg, mm, ms, mT, us
from pulseq_waveforms import AXES, corners

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyPulseq's syntax warnings
    import pypulseq as pp

STRONG = USUAL._replace(max_b1=0.2 * mT)
"""Pulses so short that relaxation does not see them."""


def spiral():
    t = np.linspace(0, 1, 500) ** 0.8
    k = 400 * t[:, None] * np.stack([np.cos(12 * t), np.sin(12 * t)], axis=-1)
    return readouts.along_path(np.stack([k, -k]), 10 * us)


FAMILIES = {
    "gre": lambda: imaging.gre(15 * deg, 20 * ms, 8 * ms, matrix=(8, 8), fov=0.2),
    "rare": lambda: imaging.rare(jnp.full(4, jnp.pi), 16 * ms, 0.2, matrix=(8, 8), fov=0.2),
    "epi": lambda: imaging.epi(60 * deg, 40 * ms, matrix=(8, 8), fov=0.2, blip=600 * us, dwell=10 * us),
    "fisp": lambda: families.fisp(jnp.linspace(0.2, 1, 10), 12 * ms, 5 * ms, inversion_time=20 * ms),
    "bssfp": lambda: families.bssfp(jnp.full(8, 0.5), 12 * ms, readout=readouts.radial(8, 16, 5 * mm)),
    "mprage": lambda: imaging.mprage(9 * deg, 12 * ms, 5 * ms, 0.2, 0.6, matrix=(4, 2, 8), fov=0.2),
    "cpmg": lambda: families.cpmg(6, 12 * ms),
    "spiral": lambda: families.spgr(jnp.full(2, 0.3), 30 * ms, 5 * ms, readout=spiral()),
}


def discovered(seed: int, shortest: float) -> Sequence:
    """Moments, times, phases and flips of every repetition at random, on no raster."""
    rng, n = np.random.default_rng(seed), 5
    time = lambda: jnp.asarray(rng.uniform(shortest, 3 * shortest, n))  # noqa: E731
    moment = lambda: jnp.asarray(rng.uniform(-1, 1, (n, 3)) * 4000)  # noqa: E731
    events = (
        Event(time(), moment(), order=None),
        Event(time(), jnp.asarray(rng.uniform(-1, 1, (n, 3)) * 900), jnp.asarray(rng.normal(size=n)), None, samples=9),
        Event(time(), moment(), order=None),
        Event(time()),
        Event(time(), moment(), order=None, samples=1),
        Event(time(), moment(), order=None),
    )
    pulse = Pulse(jnp.asarray(rng.uniform(-1, 1, n)), jnp.asarray(rng.normal(size=n)))
    refocus = Segment(Pulse(jnp.asarray(3.0), quadrature=True, use="refocusing"), events, n)
    prepared = Segment(Inversion(), (Event(jnp.asarray(20 * ms)),))
    again = Segment(Pulse(jnp.asarray(1.5)), (Event(jnp.asarray(10 * ms), jnp.asarray([500.0, 0, 3000])),))
    return Sequence((Segment(pulse, events, n), prepared, again, refocus))


def place() -> mr.Phantom:
    position = 40 * mm * np.random.default_rng(0).normal(size=(3, 3)) * [1.0, 1.0, 0.0]
    tissue = mr.Tissue(t1=[0.9, 0.5, 0.3], t2=[0.08, 0.05, 0.1])
    return mr.Phantom(tissue, position, (2 * mm,) * 3, voxel_shape="point")


def same_kspace(sequence: Sequence, other: Sequence) -> None:
    expected, found = (np.asarray(mr.sequences.trajectory(one)) for one in (sequence, other))
    assert np.abs(found - expected).max() <= 1e-6 * max(np.abs(expected).max(), 1.0)


def require_within(scan, limits: Limits) -> None:
    """Amplitude and slew of every gradient, begin and end at rest, and the peak of every pulse without gradient."""
    for block in scan.blocks:
        for gradient in (getattr(block, axis) for axis in AXES):
            if gradient is None:
                continue
            t, g = corners(gradient)
            keep = np.concatenate([[True], np.diff(t) > 1e-9])
            slew = np.diff(g[keep]) / np.diff(t[keep])
            assert np.abs(g).max() <= limits.strongest * (1 + 1e-6)
            assert np.abs(slew).max() <= limits.steepest * (1 + 1e-5)
            assert abs(g[0]) + abs(g[-1]) < 1e-6
        if block.rf is not None and all(getattr(block, axis) is None for axis in AXES):
            assert np.abs(block.rf.signal).max() * 2 * np.pi <= limits.gamma * limits.max_b1 * (1 + 1e-6)


def require_timing(path) -> None:
    system = pp.Opts(
        max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s",
        rf_dead_time=100 * us, rf_ringdown_time=30 * us, adc_dead_time=10 * us,
    )  # fmt: skip
    theirs = pp.Sequence(system)
    theirs.read(str(path))
    good, errors = theirs.check_timing()
    assert good, errors[:3]


def require_played(sequence, path) -> None:
    """The sequence, written and read, has the same k-space at the same times, within limits that PyPulseq checks."""
    write(path, sequence, limits=STRONG)
    again = read(path)
    same_kspace(sequence, again)
    times = [np.asarray(mr.sequences.sample_times(one)) for one in (sequence, again)]
    np.testing.assert_allclose(times[1], times[0], atol=1 * us)
    require_within(load(path), STRONG)
    require_timing(path)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_play_the_same(tmp_path, name):
    sequence, path = FAMILIES[name](), tmp_path / "scan.seq"
    require_played(sequence, path)


@pytest.mark.parametrize("name", ["gre", *(pytest.param(name, marks=pytest.mark.slow) for name in list(FAMILIES)[1:])])
def test_families_give_the_same_signal(tmp_path, name):
    """Also to spins, for which pulses now take time (an inversion loses to relaxation meanwhile) and crushers crush."""
    sequence, path = FAMILIES[name](), tmp_path / "scan.seq"
    write(path, sequence, limits=STRONG)
    inverted = any(isinstance(segment.pulse, Inversion) for segment in sequence.segments)
    for model, bar in ((mr.PDG(1e-4), 1e-3), (mr.Isochromats(), 2e-3 if inverted else 1e-3)):
        expected, found = (mr.simulate(one, place(), model) for one in (sequence, read(path)))
        assert relative(found, expected) < bar


@pytest.mark.parametrize("seed", range(2))
def test_what_a_search_finds_can_be_played(tmp_path, seed):
    sequence, path = discovered(seed, 5 * ms), tmp_path / "scan.seq"
    require_played(sequence, path)


def test_what_does_not_fit_is_made_longer_and_said(tmp_path):
    sequence, path = discovered(0, 0.2 * ms), tmp_path / "scan.seq"
    with pytest.warns(
        UserWarning, match=r"\d+ events were too short .* lengthened, by up to 0\.00\d+ s, 0\.0\d+ s in all"
    ):
        write(path, sequence)
    same_kspace(sequence, read(path))
    require_within(load(path), USUAL)
    require_timing(path)
    times = [np.asarray(mr.sequences.sample_times(one)) for one in (sequence, read(path))]
    assert (times[1] - times[0])[-1] > 1 * ms


def test_samples_too_fast_for_the_gradients_are_slowed_down(tmp_path):
    """In a straight readout by its amplitude, in a spiral by its slew rate too."""
    path = tmp_path / "scan.seq"
    straight = Event(jnp.asarray(64 * us), jnp.asarray([2000.0, 0, 0]), samples=32)
    k = spiral()
    assert k.path is not None
    bent = Event(k.time / 4, k.moment[0], path=k.path[0], samples=k.samples)
    for readout in (straight, bent):
        wait = Event(jnp.asarray(5 * ms))
        sequence = Sequence((Segment(Pulse(jnp.asarray(0.5)), (wait, readout, wait)),))
        with pytest.warns(UserWarning, match="1 events were too short"):
            write(path, sequence)
        same_kspace(sequence, read(path))
        require_within(load(path), USUAL)


def test_selective_pulses_have_a_slice_and_a_rephaser(tmp_path):
    """A slice of 5 mm of its own file: half the signal at its edge, k-space as without selection."""
    sequence, path = FAMILIES["gre"](), tmp_path / "scan.seq"
    write(path, sequence, selective=5 * mm)
    again = read(path)
    same_kspace(sequence, again)
    require_within(load(path), USUAL)
    require_timing(path)
    assert again.shapes[0].duration == pytest.approx(1 * ms)
    z = np.array([0.0, 1.0, 2.5, 5.0]) * mm
    tissue = mr.Tissue(t1=np.full(4, 0.9), t2=np.full(4, 0.08))
    spins = mr.Phantom(tissue, np.stack([0 * z, 0 * z, z], axis=-1), (1 * mm,) * 3, np.eye(4), voxel_shape="point")
    profile, flat = (np.abs(mr.simulate(one, spins, mr.Isochromats())[:, 4 * 8 + 4]) for one in (again, sequence))
    assert profile[0] == pytest.approx(flat[0], rel=0.05)
    assert profile[2] == pytest.approx(flat[2] / 2, rel=0.25)
    assert profile[3] < 0.15 * flat[3]
    with pytest.raises(ValueError, match=r"above max_grad=0\.04: make it longer, or its slice thicker"):
        synthesised(sequence, selective=1 * mm)


def test_shapes_are_played_as_they_are(tmp_path):
    """A sinc of 101 steps that no raster divides, along a diagonal, off resonance."""
    shape = mr.rf.sinc(1.2 * ms, 3.0, 8 * mm, n_samples=101)
    direction = jnp.asarray([0.6, 0.0, 0.8])
    shape = mr.rf.Waveform(
        shape.samples, shape.duration, shape.gradient * direction, shape.thickness, shape.centre, False
    )
    events = (Event(jnp.asarray(4 * ms), jnp.asarray([1500.0, -300, 200])), Event(jnp.asarray(0.4 * ms), samples=4))
    pulse = Pulse(jnp.asarray([0.9, -0.4]), jnp.asarray([0.3, 1.0]), 0, frequency=jnp.asarray([200.0, -100.0]))
    sequence, path = Sequence((Segment(pulse, (*events, Event(jnp.asarray(6 * ms))), 2),), (shape,)), tmp_path / "a.seq"
    write(path, sequence)
    again = read(path)
    for name in ("flip", "phase", "frequency"):
        found = [np.ravel(getattr(segment.pulse, name)) for segment in again.segments]
        np.testing.assert_allclose(np.concatenate(found), getattr(pulse, name), rtol=1e-6)
    spins = place()
    expected, found = (mr.simulate(one, spins, mr.Isochromats()) for one in (sequence, again))
    assert relative(found, expected) < 1e-3
    require_timing(path)


def test_what_nobody_can_begin_with_is_refused():
    sequence = Sequence(FAMILIES["cpmg"]().segments, initial=jnp.zeros(3))
    with pytest.raises(ValueError, match="initial magnetisation"):
        synthesised(sequence)
