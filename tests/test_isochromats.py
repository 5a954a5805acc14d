"""Isochromats against other people's k-space, EPG, plain NumPy spins, closed forms and finite differences."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import as_float32, central_difference, relative, selective_train
from jaxmr.models import scanning
from jaxmr.models.isochromats import Isochromats
from jaxmr.models.scanning import scan
from jaxmr.physics import bloch, ensembles
from jaxmr.sequences import timeline
from jaxmr.sequences.sequence import Event, Pulse, Segment, Sequence
from jaxmr.units import mm, ms


def mrzero(path):
    """Sequence, phantom and signal of a reference: mixed-handed, so b0 and positions change sign."""
    with np.load(path) as arrays:
        data = {
            name: arrays[name].astype(float) if arrays[name].dtype == np.float32 else arrays[name] for name in arrays
        }
    tissue = mr.Tissue(data["vox_T1"], data["vox_T2"], data["vox_PD"], data["vox_B1"], -data["vox_B0"])
    phantom = mr.Phantom(tissue, -data["vox_pos"], (mm, mm, mm), voxel_shape="point")
    segments = []
    stops = [*data["ev_rep_start"][1:], len(data["ev_dt"])]
    for i, (start, stop) in enumerate(zip(data["ev_rep_start"], stops, strict=True)):
        events, taken = [], data["ev_adc"]
        edges = [start, *(np.flatnonzero(taken[start + 1 : stop] != taken[start : stop - 1]) + start + 1), stop]
        for first, last in itertools.pairwise(edges):
            # A run of samples may have different steps: each event is one repetition of a pulseless segment.
            one = slice(first, last)
            event = Event(
                jnp.asarray(data["ev_dt"][one]),
                jnp.asarray(2 * np.pi * data["ev_gradm"][one]),
                receiver_phase=jnp.asarray(-data["ev_adc_phase"][one]),
                order=None,
                samples=int(taken[first]),
            )
            events.append(Segment(None, (event,), int(last - first)))
        pulse = Pulse(jnp.asarray(data["ev_pulse_angle"][i]), jnp.asarray(data["ev_pulse_phase"][i]))
        segments += [Segment(pulse, ()), *events]
    return Sequence(tuple(segments)), phantom, data["signal"], data["signal_isochromat"]


@pytest.mark.parametrize("name", ["fid_brain32_point", "ste_brain32_point", "epise_num32_point"])
def test_kspace_of_mrzero(shared, name):
    sequence, phantom, expected, isochromats = mrzero(shared / "mrzero" / "ref" / f"{name}.npz")
    found = mr.simulate(sequence, phantom, Isochromats())[0]
    assert relative(found, expected) < (1e-4 if name.startswith("epi") else 1e-5)
    assert relative(found, isochromats) < 1e-7


def test_kspace_of_mrzero_event_by_event(shared):
    """The FID as one repetition of events, equal steps in one event."""
    sequence, phantom, expected, _ = mrzero(shared / "mrzero" / "ref" / "fid_brain32_point.npz")
    pulse, wait, train = sequence.segments
    first, rest = (train.events[0].duration[i] for i in (0, 1))
    receiver = train.events[0].receiver_phase[0]
    events = (
        Event(wait.events[0].duration[0]),
        Event(first, samples=1, receiver_phase=receiver),
        Event(255 * rest, samples=255, receiver_phase=receiver),
    )
    found = mr.simulate(Sequence((Segment(pulse.pulse, events),)), phantom, Isochromats())[0]
    assert relative(found, expected) < 1e-5


def voxel(**more):
    tissue = mr.Tissue(t1=jnp.array([0.9]), t2=jnp.array([0.08]), b1=jnp.array([0.9]), **more)
    return mr.Phantom(tissue, np.zeros((1, 3)), (mm, mm, mm), voxel_shape="box")


def fisp(n=40, **more):
    flip = np.deg2rad(np.linspace(10, 70, n))
    return mr.sequences.fisp(flip, 12 * ms, 3 * ms, 20 * ms, phase=np.linspace(0, 9, n), **more)


@pytest.mark.parametrize("per_voxel", [(1, 1, 64), (2, 3, 41), 64, 101])
def test_an_ensemble_is_the_extended_phase_graph(per_voxel):
    """A spoiler of one turn over the voxel: enough midpoints along its axis are exact."""
    phantom = voxel(b0=jnp.array([7.0]))
    sequence = eqx.tree_at(lambda s: s.initial, fisp(), jnp.array([0.1, -0.2, 0.7]), is_leaf=lambda x: x is None)
    found = mr.simulate(sequence, phantom, Isochromats(per_voxel))[0]
    assert relative(found, mr.simulate(sequence, phantom.tissue, mr.EPG())[0]) < 1e-13


def test_sobol_points_spoil_too():
    phantom = voxel()
    found = mr.simulate(fisp(), phantom, Isochromats(1024, spread="sobol"))[0]
    assert relative(found, mr.simulate(fisp(), phantom.tissue, mr.EPG())[0]) < 1e-13


def test_t2_prime_of_a_free_induction_decay():
    phantom = voxel(t2_prime=jnp.array([0.03]))
    sequence = Sequence((Segment(Pulse(jnp.array(np.pi / 2 / 0.9)), (Event(jnp.array(0.09), samples=90),)),))
    time = np.arange(1, 91) * ms
    expected = -1j * np.exp(-time / 0.08 - time / 0.03)
    for n, bar in ((256, 2e-2), (4096, 3e-3)):
        assert np.abs(mr.simulate(sequence, phantom, Isochromats(n))[0] - expected).max() < bar
    echo = (Event(jnp.array(0.02)),)
    refocus = Segment(Pulse(jnp.array(np.pi / 0.9), quadrature=True), (Event(jnp.array(0.02), samples=1),))
    spin_echo = Sequence((Segment(Pulse(jnp.array(np.pi / 2 / 0.9)), echo), refocus))
    np.testing.assert_allclose(mr.simulate(spin_echo, phantom, Isochromats(64)), [[-1j * np.exp(-0.5)]], atol=1e-12)


@pytest.mark.parametrize("b0", [0.0, 60.0])
def test_shaped_pulses_are_those_of_the_plain_slice(b0):
    """Every hard-pulse step of every pulse, centred: EPG-Bloch as the paper writes it, slice by slice."""
    shape = mr.rf.arbitrary(np.array([0.2, 1.0, 2.0 + 0.3j, 1.5, 0.3]), 2 * ms, gradient=2e6, thickness=3 * mm)
    flip, n_z = np.deg2rad(np.linspace(20, 60, 6)), 8
    spoiler = {"spoiler": 0.0}
    sequence = mr.sequences.fisp(flip, 12 * ms, 4 * ms, 20 * ms, phase=0.4, pulse=shape, **spoiler)
    # Spoiled along x: along z a spoiler would wind the slice as well.
    moment = jnp.array([2 * np.pi / mm, 0.0, 0.0])
    sequence = eqx.tree_at(lambda s: s.segments[-1].events[1].moment, sequence, moment)
    z = (np.arange(n_z) + 0.5) / n_z * 9 * mm - 4.5 * mm
    tissue = mr.Tissue(t1=0.9, t2=jnp.full(n_z, 0.08), b1=0.9, b0=b0)
    phantom = mr.Phantom(tissue, np.stack([0 * z, 0 * z, z], axis=-1), (mm, mm, mm), voxel_shape="box")
    found = 3 / n_z * mr.simulate(sequence, phantom, Isochromats((16, 1, 1)))[0]
    expected = selective_train(
        flip, shape, 12 * ms, 4 * ms, 0.9, 0.08, inversion_time=20 * ms, n_z=n_z, b1=0.9, b0=b0, phase=0.4
    )
    assert relative(found, expected) < 1e-12


def imaging(n=5, samples=12, n_voxels=7, path=False):
    """A gradient echo with trains of everything, on voxels with two coils; also its leaves that are numbers."""
    rng = np.random.default_rng(3)
    numbers = lambda *shape: jnp.asarray(rng.uniform(0.5, 1.0, shape))  # noqa: E731
    read = jnp.asarray(rng.normal(size=(n, 3))) * 1e3
    wound = jnp.arange(1, samples + 1)[None, :, None] / samples * read[:, None]
    events = (
        Event(2e-3 * numbers(n), jnp.asarray(rng.normal(size=3)) * 1e3),
        Event(4e-3 * numbers(), read, numbers(n), samples=samples, path=wound if path else None),
        Event(3e-3 * numbers(), 1e3 * numbers(3), samples=1),
        Event(1e-3 * numbers()),
    )
    shape = mr.rf.gaussian(1 * ms, 3.0, 30 * mm, n_samples=8)
    first = Segment(Pulse(numbers(), numbers(), shape=0), (Event(2e-3 * numbers(), samples=3),))
    sequence = Sequence((first, Segment(Pulse(numbers(n), numbers(n)), events, n)), (shape,))
    tissue = mr.Tissue(
        numbers(n_voxels), 0.1 * numbers(n_voxels), numbers(n_voxels), numbers(n_voxels), 30 * numbers(n_voxels)
    )
    coils = jnp.asarray(rng.normal(size=(2, n_voxels)) + 1j * rng.normal(size=(2, n_voxels)))
    position = rng.normal(size=(n_voxels, 3)) * 5 * mm
    return sequence, mr.Phantom(tissue, position, (mm, 2 * mm, 3 * mm), coils, voxel_shape="box")


def test_tables_of_samples_agree_with_a_walk_sample_by_sample():
    """A path of equal steps is a constant gradient; so is the journey of spins that stand still."""
    model = Isochromats(8)
    found = mr.simulate(*imaging(), model)
    assert found.shape == (2, 3 + 5 * 13)
    np.testing.assert_allclose(mr.simulate(*imaging(path=True), model), found, atol=1e-12)
    still = Isochromats(8, motion=lambda position, time: position)
    np.testing.assert_allclose(mr.simulate(*imaging(), still), found, atol=1e-12)


def test_shots_of_one_structure_are_those_played_one_by_one(monkeypatch):
    """Two shots of other numbers, compiled as one, and what follows."""
    sequence, phantom = imaging(n=3, samples=4)
    first, train = sequence.segments
    other = jax.tree.map(lambda leaf: 1.1 * leaf, (train, first))
    shots = dataclasses.replace(sequence, segments=(train, first, *other, Segment(None, train.events[:1], 3), first))
    assert timeline.periods(list(shots.segments))[0] == (0, 2, 2)
    found = mr.simulate(shots, phantom, Isochromats(8))
    monkeypatch.setattr(timeline, "periods", lambda parts: [(i, 1, 1) for i in range(len(parts))])
    jax.clear_caches()
    np.testing.assert_allclose(found, mr.simulate(shots, phantom, Isochromats(8)), atol=1e-12)


def test_neither_memory_nor_devices_nor_chunks_change_the_result():
    sequence, phantom = imaging()
    expected = mr.simulate(sequence, phantom, Isochromats(8, memory=1 << 30))
    for memory in (1, 20_000):
        found = mr.simulate(sequence, phantom, Isochromats(8, memory=memory))
        np.testing.assert_allclose(found, expected, atol=1e-12)
    shared = mr.simulate(sequence, phantom, Isochromats(8, memory=20_000), devices=jax.devices())
    np.testing.assert_allclose(shared, expected, atol=1e-12)
    for devices in (None, jax.devices()):
        np.testing.assert_allclose(scan(sequence, phantom, Isochromats(8), devices=devices), expected, atol=1e-12)


def test_chunks_on_two_devices(monkeypatch):
    """Smaller than the phantom, the last one padded."""
    monkeypatch.setattr(scanning, "FEWEST", 2)
    monkeypatch.setattr(scanning, "STEPS", 1)
    sequence, phantom = imaging()
    found = scan(sequence, phantom, Isochromats(8), devices=jax.devices())
    np.testing.assert_allclose(found, mr.simulate(sequence, phantom, Isochromats(8)), atol=1e-12)


@pytest.mark.parametrize(("dtype", "bar"), [(jnp.float64, 1e-14), (jnp.float32, 1e-6)])
def test_turns_of_many_spins_are_those_of_one(dtype, bar):
    """Small, large and no angles, and their derivatives."""
    rng = np.random.default_rng(0)
    size = np.concatenate([[0.0, 1e-9], np.geomspace(1e-3, 30, 200), np.sqrt(2) + np.array([-1e-9, 1e-9])])
    axis = rng.normal(size=(3, len(size)))
    vector = jnp.asarray(size * axis / np.linalg.norm(axis, axis=0), dtype)
    spins = jnp.asarray(rng.normal(size=(3, len(size))), dtype)

    def many(vector):
        return jnp.stack(ensembles.turn(ensembles.Ensemble(*spins), *vector))

    one_by_one = lambda vector: jax.vmap(bloch.turn, 1, 1)(spins, vector)  # noqa: E731
    np.testing.assert_allclose(many(vector), one_by_one(vector), atol=20 * bar)
    found, expected = (jax.jvp(f, (vector,), (vector[::-1] + 1,))[1] for f in (many, one_by_one))
    np.testing.assert_allclose(found, expected, atol=2000 * bar)


@pytest.mark.parametrize(("dtype", "bar"), [(jnp.float64, 2e-15), (jnp.float32, 3e-7)])
def test_factors_are_sines_and_cosines(dtype, bar):
    angle = np.concatenate([np.linspace(-20, 20, 1001), np.pi / 2 * np.arange(-5, 6), 1e3 * np.linspace(-1, 1, 101)])
    angle = np.asarray(angle, dtype).astype(float)
    found, slope = jax.jvp(ensembles.factor, (jnp.asarray(angle, dtype),), (jnp.ones_like(angle, dtype),))
    np.testing.assert_allclose(found, (np.cos(angle), np.sin(angle)), atol=bar)
    np.testing.assert_allclose(slope, (-np.sin(angle), np.cos(angle)), atol=20 * bar)


def test_a_bar_counts_voxels(capsys):
    scan(*imaging(), Isochromats(1), progress=True)
    assert "7.00/7.00" in capsys.readouterr().err
    with pytest.raises(ValueError, match="use simulate inside jit"):
        jax.jit(lambda p: scan(imaging()[0], p, Isochromats(1)))(imaging()[1])


def test_float32_stays_float32_and_close():
    sequence, phantom = imaging()
    single = mr.simulate(as_float32(sequence), as_float32(phantom), Isochromats(8))
    assert single.dtype == jnp.complex64
    assert relative(single, mr.simulate(sequence, phantom, Isochromats(8))) < 2e-5


@pytest.mark.parametrize("memory", [None, 10_000])
def test_derivatives_in_all_floats(memory):
    """Along random directions in sequence, tissue, positions and coils: forward, reverse and by differences."""
    everything = imaging(n=3, samples=5)
    rng = np.random.default_rng(0)

    def random(leaf):
        return jnp.asarray(rng.normal(size=leaf.shape) * np.abs(leaf).mean(), leaf.dtype)

    directions = [eqx.filter(tree, eqx.is_inexact_array) for tree in everything]
    numbers, static = eqx.partition(everything, eqx.is_inexact_array)
    weight = jnp.asarray(rng.normal(size=(2, 3 + 3 * 6)) + 1j * rng.normal(size=(2, 3 + 3 * 6)))
    model = Isochromats(4, memory=memory)

    @jax.jit
    def loss(numbers):
        sequence, phantom = eqx.combine(numbers, static)
        return jnp.sum(weight * mr.simulate(sequence, phantom, model)).real

    for part in (0, 1):
        towards = jax.tree.map(jnp.zeros_like, numbers)
        moved = jax.tree.map(random, directions[part])
        towards = (moved, towards[1]) if part == 0 else (towards[0], moved)
        at = lambda step, towards=towards: loss(jax.tree.map(lambda x, d: x + step * d, numbers, towards))  # noqa: E731
        expected = central_difference(at, 0.0, 1e-4)
        forward = jax.jvp(loss, (numbers,), (towards,))[1]
        assert forward == pytest.approx(expected, rel=1e-6)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d).real, jax.grad(loss)(numbers), towards)
        assert sum(jax.tree.leaves(products)) == pytest.approx(float(forward), rel=1e-9)


@pytest.mark.parametrize("samples", [1, 6])
def test_a_moving_spin_picks_up_the_phase_of_its_path(samples):
    """Constant acceleration under a bipolar gradient: the integral of gradient times position, in closed form."""
    velocity, acceleration, time, moment = 0.3, 20.0, 5e-3, 2e3

    class Travel(eqx.Module):
        velocity: jax.Array

        def __call__(self, position, t):
            return position + jnp.array([1.0, 0.0, 0.0]) * (self.velocity * t + acceleration / 2 * t**2)

    gradient = jnp.array([moment, 0.0, 0.0])
    events = (Event(jnp.array(time), gradient), Event(jnp.array(time), -gradient, samples=samples))
    sequence = Sequence((Segment(Pulse(jnp.array(np.pi / 2)), events),))
    phantom = mr.Phantom(mr.Tissue(t1=[1e6], t2=[1e6]), [[0.01, 0, 0]], (mm, mm, mm), voxel_shape="point")

    def integral(t):  # of the position
        return 0.01 * t + velocity * t**2 / 2 + acceleration * t**3 / 6

    end = time + time * np.arange(1, samples + 1) / samples
    phase = moment / time * (2 * integral(time) - integral(end))
    found = mr.simulate(sequence, phantom, Isochromats(motion=Travel(jnp.array(velocity))))[0]
    np.testing.assert_allclose(found, -1j * np.exp(1j * phase), atol=1e-7)
    slope = jax.jacfwd(lambda v: mr.simulate(sequence, phantom, Isochromats(motion=Travel(v)))[0, -1])(
        jnp.array(velocity)
    )
    assert slope == pytest.approx(complex(1j * found[-1] * -moment * time), rel=1e-6)


def test_a_voxel_fills_its_box():
    """A gradient over a box is a sinc, over a point nothing."""
    moment = jnp.array([1.3e3, 0.0, 0.0])
    sequence = Sequence((Segment(Pulse(jnp.array(np.pi / 2)), (Event(jnp.array(0.0), moment, samples=1),)),))
    tissue = mr.Tissue(t1=[1.0], t2=[0.1])
    for shape, expected in (("box", np.sinc(1.3 / 2 / np.pi)), ("point", 1.0)):
        phantom = mr.Phantom(tissue, [[0, 0, 0]], (mm, mm, mm), voxel_shape=shape)
        found = mr.simulate(sequence, phantom, Isochromats(512))[0, 0]
        assert found == pytest.approx(-1j * expected, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_voxel": 0}, "per_voxel must be positive, got 0"),
        ({"spread": "random"}, "spread must be one of regular, sobol, got 'random'"),
        ({"per_voxel": 100, "spread": "sobol"}, "power of 2 as per_voxel, got 100"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Isochromats(**options)


def test_what_isochromats_cannot_do_is_refused():
    with pytest.raises(ValueError, match="needs many of them, got per_voxel=1"):
        mr.simulate(fisp(3), voxel(t2_prime=jnp.array([0.03])), Isochromats(1))
    with pytest.raises(ValueError, match="takes no sample"):
        mr.simulate(Sequence((Segment(None, (Event(jnp.array(0.1)),)),)), voxel(), Isochromats())
