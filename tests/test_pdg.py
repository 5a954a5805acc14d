"""Phase distribution graph: against EPG, other people's scans, isochromats, closed forms; its plan and derivatives."""

import dataclasses
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
import mrzero
from checks import as_float32, relative, sine_train
from jaxmr.models import pdg_playing
from jaxmr.physics import pdg
from jaxmr.sequences.sequence import Event, Pulse, Segment, Sequence
from jaxmr.units import deg, mm, ms, us

REFERENCES = Path(__file__).parents[2] / "shared" / "data" / "mrzero" / "ref"
MATRIX, FOV = (8, 8), 32 * mm
VOXEL = (4 * mm, 4 * mm, 4 * mm)


def phantom(voxel_shape="box", **leaves) -> mr.Phantom:
    """Three voxels at odd places."""
    position = np.array([[1.0, -6.0, 0.3], [-7.0, 2.0, -1.0], [5.0, 9.0, 0.0]]) * mm
    leaves = {"b1": [0.9, 1.0, 1.1], "b0": [15.0, -30.0, 5.0], "m0": [1.0, 0.5, 2.0]} | leaves
    return mr.Phantom(mr.Tissue([0.9, 1.3, 0.4], [0.08, 0.2, 0.05], **leaves), position, VOXEL, voxel_shape=voxel_shape)


def scans() -> dict[str, Sequence]:
    encoded = {"matrix": MATRIX, "fov": FOV}
    lines = mr.sequences.readouts.cartesian(MATRIX, FOV, dwell=100 * us)
    return {
        "gre": mr.sequences.gre(25 * deg, 10 * ms, 4 * ms, dwell=100 * us, n_dummies=3, **encoded),
        "tse": mr.sequences.rare(jnp.linspace(2.9, 2.0, 8), 8 * ms, 0.3, dwell=100 * us, **encoded),
        "epi": mr.sequences.epi(70 * deg, 30 * ms, dwell=50 * us, inversion_time=0.3, **encoded),
        "bssfp": mr.sequences.bssfp(jnp.full(10, 40 * deg), 5 * ms, readout=lines),
        "radial": mr.sequences.fisp(
            jnp.full(9, 0.4), 10 * ms, 4 * ms, readout=mr.sequences.readouts.radial(9, 12, 4 * mm, dwell=100 * us)
        ),
    }


SCANS = scans()


def test_one_voxel_is_an_epg():
    sequence = mr.sequences.fisp(sine_train(40), 12 * ms, 3 * ms, 20 * ms, phase=np.arange(40) ** 2 * 1.1)
    tissue = mr.Tissue([0.9], [0.08], b1=[0.95])
    place = mr.Phantom(tissue, [[0.0, 0.0, 0.0]], (1 * mm,) * 3)
    assert (
        relative(mr.simulate(sequence, place, mr.PDG(tolerance=1e-9)), mr.simulate(sequence, tissue, mr.EPG())) < 1e-12
    )


def test_diffusion_is_that_of_an_epg():
    """All orders beyond 0 outside of the voxel's band: what differs is stimulated echoes that diffused."""
    sequence = mr.sequences.fisp(sine_train(30), 12 * ms, 3 * ms, spoiler=2e5)
    tissue = mr.Tissue([0.9], [0.3], diffusivity=[2e-9])
    place = mr.Phantom(tissue, [[0.0, 0.0, 0.0]], (1 * mm,) * 3)
    found, expected = mr.simulate(sequence, place, mr.PDG(tolerance=1e-9)), mr.simulate(sequence, tissue, mr.EPG())
    without = mr.simulate(sequence, dataclasses.replace(tissue, diffusivity=None), mr.EPG())
    assert relative(found, expected) < 2e-9
    assert relative(without, expected) > 1e-2


def test_a_stimulated_echo_diffuses_by_stejskal_and_tanner():
    """Three pulses of 90 degrees, gradients of 2 ms after the first and the third, 200 ms in between."""
    moment, delta, mixing, d = np.array([4e4, 0.0, 0.0]), 2 * ms, 200 * ms, 1.5e-9
    wind = lambda samples: Event(jnp.asarray(delta), jnp.asarray(moment), order=None, samples=samples)  # noqa: E731
    half = Pulse(jnp.asarray(np.pi / 2))
    # A crusher along z while the echo is stored: nothing but the stimulated echo comes back.
    store = Event(jnp.asarray(mixing), jnp.asarray([0.0, 0.0, 3e4]), order=None)
    sequence = Sequence((Segment(half, (wind(0),)), Segment(half, (store,)), Segment(half, (wind(1),))))
    place = mr.Phantom(mr.Tissue([1e6], [1e6], diffusivity=[d]), [[0.0, 0.0, 0.0]], (1 * mm,) * 3)
    b = (moment @ moment) * (mixing + 2 * delta / 3)
    signal = mr.simulate(sequence, place, mr.PDG(tolerance=1e-9))
    assert np.abs(np.abs(np.asarray(signal)[0, 0]) / (0.5 * np.exp(-b * d)) - 1) < 1e-6


@pytest.mark.parametrize("name", SCANS)
def test_isochromats_agree(name):
    """Intra-voxel dephasing, off-resonance, transmit field; the lattice of spins makes the rest of the difference."""
    place = phantom()
    found = mr.simulate(SCANS[name], place, mr.PDG(tolerance=1e-5))
    expected = mr.simulate(SCANS[name], place, mr.Isochromats(per_voxel=(24, 24, 64)))
    assert relative(found, expected) < 2e-3


@pytest.mark.parametrize("name", ["gre", "tse", "epi"])
def test_isochromats_agree_on_reversible_dephasing(name):
    place = phantom(t2_prime=[0.03, 0.1, 0.02])
    found = mr.simulate(SCANS[name], place, mr.PDG(tolerance=1e-5))
    expected = mr.simulate(SCANS[name], place, mr.Isochromats(per_voxel=(24, 24, 64)))
    assert relative(found, expected) < 4e-3
    assert relative(mr.simulate(SCANS[name], phantom(), mr.PDG(tolerance=1e-5)), expected) > 6e-3


@pytest.mark.skipif(not REFERENCES.exists() and "CI" not in os.environ, reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "shape", "bar"),
    [
        ("fid_brain32_point", "point", 1e-5),
        ("ste_brain32_point", "point", 1e-5),
        ("epise_num32_point", "point", 1e-4),
        ("flash64_num64_sinc_clean", "sinc", 5e-3),
    ],
)
def test_mrzero(name, shape, bar):
    with np.load(REFERENCES / f"{name}.npz") as file:
        data = dict(file)
    place, sequence = mrzero.phantom_of(data, shape), mrzero.sequence_of(data)
    model = mr.PDG(tolerance=min(bar, 1e-3)).planned(sequence, place)
    assert relative(mr.simulate(sequence, place, model)[0], data["signal"]) < bar


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("name", ["gre", "tse"])
def test_a_plan_knows_its_error(name, tolerance):
    """Within a factor of three, where states are left out at all."""
    place = phantom("sinc", m0=[1.0, 1.0, 1.0])
    model = mr.PDG(tolerance=tolerance).planned(SCANS[name], place)
    exact = mr.simulate(SCANS[name], place, mr.PDG(tolerance=1e-8))
    error = relative(mr.simulate(SCANS[name], place, model), exact)
    assert float(model.error) <= tolerance
    if model.error > 1e-6:
        assert model.error / 3 < error < 3 * model.error


def test_float32_and_float64_agree():
    place, sequence = phantom(t2_prime=[0.03, 0.1, 0.02], diffusivity=[1e-9] * 3), SCANS["gre"]
    model = mr.PDG(tolerance=1e-3).planned(sequence, place)
    single = mr.simulate(*(as_float32(x) for x in (sequence, place, model)))
    assert single.dtype == np.complex64
    assert relative(single, mr.simulate(sequence, place, model)) < 1e-5


def test_coils_weigh_voxels():
    place = phantom()
    coils = np.array([[1.0, 1j, -0.5], [0.3, 0.2, 1.0]])
    model = mr.PDG(tolerance=1e-3).planned(SCANS["epi"], place)
    found = mr.simulate(
        SCANS["epi"], eqx.tree_at(lambda p: p.coils, place, jnp.asarray(coils), is_leaf=lambda x: x is None), model
    )
    single = [
        mr.simulate(SCANS["epi"], eqx.tree_at(lambda p: p.tissue.m0, place, place.tissue.m0 * row), model)[0]
        for row in coils
    ]
    assert relative(found, np.array(single)) < 1e-12


@pytest.mark.parametrize("name", ["gre", "tse", "epi"])
def test_gradients_are_those_of_differences(name):
    """In flips, phases, times and moments of the sequence, in every map, in the positions."""
    # At the top of a spin echo the decay by T2' has a kink, and no derivative by times.
    t2_prime = None if name == "tse" else [0.03, 0.1, 0.02]
    place = phantom("box", t2_prime=t2_prime, diffusivity=[1e-9] * 3)
    sequence = SCANS[name]
    model = mr.PDG(tolerance=1e-3).planned(sequence, place)
    weight = np.random.default_rng(1).normal(size=(2, 1, sequence.n_echoes))

    def loss(both):
        signal = mr.simulate(both[0], both[1], model)
        return jnp.sum(weight[0] * signal.real + weight[1] * signal.imag)

    leaves, rest = eqx.partition((sequence, place), eqx.is_inexact_array)
    of = jax.jit(lambda leaves: loss(eqx.combine(leaves, rest)))
    gradient = jax.jit(jax.grad(lambda leaves: loss(eqx.combine(leaves, rest))))(leaves)
    generator = np.random.default_rng(2)
    flat, structure = jax.tree.flatten(leaves)
    for i, (leaf, slope) in enumerate(zip(flat, jax.tree.leaves(gradient), strict=True)):
        direction = generator.normal(size=leaf.shape) * (np.abs(np.asarray(leaf)).max() or 1e-3)
        step = 1e-6
        sides = [
            of(jax.tree.unflatten(structure, [*flat[:i], leaf + s * step * direction, *flat[i + 1 :]])) for s in (1, -1)
        ]
        expected = float(sides[0] - sides[1]) / (2 * step)
        assert abs(float(jnp.sum(slope * direction)) - expected) < 1e-6 * max(
            abs(expected), 1e-2 * float(np.linalg.norm(weight))
        )


def test_gradients_hold_where_paths_part():
    """In one prephaser, and one time, of a train: against differences of graphs that are planned anew."""
    place, sequence = phantom("point"), SCANS["gre"]
    model = mr.PDG(tolerance=1e-3).planned(sequence, place)

    def moved(moment, time):
        *before, train = sequence.segments
        event = train.events[0]
        n = event.moment.shape[0]
        durations = jnp.broadcast_to(event.duration, (n,)).at[3].add(time)
        event = dataclasses.replace(event, moment=event.moment.at[3, 1].add(moment), duration=durations)
        train = dataclasses.replace(train, events=(event, *train.events[1:]))
        return dataclasses.replace(sequence, segments=(*before, train))

    def loss(moment, time, model):
        return jnp.sum(jnp.abs(mr.simulate(moved(moment, time), place, model)[0, ::7] - 0.3) ** 2)

    found = jax.grad(loss, argnums=(0, 1))(jnp.zeros(()), jnp.zeros(()), model)
    anew = lambda *values: loss(*values, mr.PDG(tolerance=1e-8).planned(moved(*values), place))  # noqa: E731
    step = 1e-2, 1e-6
    for i, slope in enumerate(found):
        sides = [anew(*(sign * step[i] * (j == i) for j in range(2))) for sign in (1, -1)]
        assert abs(float(slope) / (float(sides[0] - sides[1]) / (2 * step[i])) - 1) < 1e-2


def test_forward_mode_and_hessians_exist():
    place, sequence = phantom(), mr.sequences.fisp(sine_train(6), 12 * ms, 3 * ms)
    model = mr.PDG(tolerance=1e-2).planned(sequence, place)

    def energy(t2):
        changed = eqx.tree_at(lambda p: p.tissue.t2, place, t2)
        return jnp.sum(jnp.abs(mr.simulate(sequence, changed, model)) ** 2)

    t2 = place.tissue.t2
    assert relative(jax.jacfwd(energy)(t2), jax.grad(energy)(t2)) < 1e-12
    hessian = jax.hessian(energy)(t2)
    assert relative(hessian, hessian.T) < 1e-10


def test_an_optimiser_compiles_once():
    """New numbers, and a new plan of the same width, go through the program that is there."""
    place, sequence = phantom(), SCANS["epi"]
    model = mr.PDG(tolerance=1e-3).planned(sequence, place)
    calls = []
    counted = jax.jit(lambda s, p, m: calls.append(1) or mr.simulate(s, p, m))
    counted(sequence, place, model)
    moved = jax.tree.map(lambda leaf: 1.02 * leaf, sequence)
    counted(moved, place, model)
    counted(moved, place, mr.PDG(tolerance=1e-3).planned(moved, place))
    assert len(calls) == 1


def test_single_voxels_run_as_one_batch():
    """Random places, T1, T2 and B0, through one compilation; as one by one."""
    sequence, generator = SCANS["gre"], np.random.default_rng(3)

    def one(values):
        t1, t2, b0, *position = values
        return mr.Phantom(mr.Tissue(t1[None], t2[None], b0=b0[None]), jnp.stack(position)[None], VOXEL)

    scale = np.array([1.0, 0.1, 20.0, 0.01, 0.01, 0.0])
    values = jnp.asarray(scale * generator.uniform(0.5, 1.0, (6, 6)))
    model = mr.PDG(tolerance=1e-4).planned(sequence, one(values[0]))
    batch = jax.jit(jax.vmap(lambda v: mr.simulate(sequence, one(v), model)))(values)
    for found, value in zip(batch, values, strict=True):
        assert relative(found, mr.simulate(sequence, one(value), model)) < 1e-12


def test_groups_and_devices_change_nothing(monkeypatch):
    place, sequence = phantom(), SCANS["gre"]
    model = mr.PDG(tolerance=1e-3).planned(sequence, place)
    whole = mr.simulate(sequence, place, model)
    assert relative(mr.simulate(sequence, place, model, devices=jax.devices()), whole) < 1e-12
    monkeypatch.setattr(pdg_playing, "VOXELS", 1)
    jax.clear_caches()
    assert relative(mr.simulate(sequence, place, model), whole) < 1e-12


def test_states_that_differ_by_rounding_are_one():
    """A train of equal moments makes as many states as pulses, whatever the rounding of its moments."""
    sequence = mr.sequences.fisp(sine_train(20), 12 * ms, 3 * ms, spoiler=np.float32(1234.567))
    model = mr.PDG(tolerance=1e-9).planned(sequence, phantom("point"))
    assert model.n_states <= 20


def test_errors_name_the_remedy():
    place, sequence = phantom(), SCANS["epi"]
    with pytest.raises(ValueError, match=r"tolerance is a relative error between 0 and 1, got 2"):
        mr.PDG(tolerance=2)
    with pytest.raises(ValueError, match="PDG simulates a Phantom, got Tissue"):
        mr.simulate(sequence, place.tissue, mr.PDG())
    with pytest.raises(ValueError, match=r"call model = mr.plan"):
        jax.jit(lambda p: mr.simulate(sequence, p, mr.PDG()))(place)
    with pytest.raises(ValueError, match="no state of this sequence gives a signal"):
        mr.PDG().planned(Sequence((Segment(None, (Event(jnp.asarray(1e-3), samples=1),)),)), place)


def test_shapes_of_voxels():
    k = np.array([[np.pi / 4e-3, 0, 0], [1.01 * np.pi / 4e-3, 0, 0]])
    size = np.array(VOXEL)
    assert pdg.shape_factor(k, size, "sinc", np).tolist() == [1, 0]
    assert np.allclose(pdg.shape_factor(k, size, "box", np), np.sinc([0.5, 0.505]))
    assert pdg.shape_factor(k, size, "point", np).tolist() == [1, 1]


def thick_object():
    """Voxels of 0.5 mm along z, off resonance, through and beyond a slice of 4 mm."""
    z = (np.arange(20) - 9.5) * 0.5 * mm
    position = np.stack([np.tile([3.0 * mm, -5.0 * mm], 10), np.zeros(20), z], axis=-1)
    tissue = mr.Tissue(np.full(20, 0.8), np.full(20, 0.07), b0=np.linspace(-60, 90, 20), b1=np.linspace(0.9, 1.1, 20))
    return mr.Phantom(tissue, position, (0.5 * mm,) * 3, voxel_shape="box")


def test_finite_pulses_agree_with_isochromats():
    """A slice-selective, off-resonant gradient echo of a thick object; instantaneous pulses do not do."""
    pulse = mr.rf.sinc(duration=2 * ms, time_bandwidth=4, thickness=4 * mm, n_samples=60)
    sequence = mr.sequences.gre(30 * deg, 12 * ms, 5 * ms, matrix=MATRIX, fov=FOV, dwell=100 * us, pulse=pulse)
    place = thick_object()
    expected = mr.simulate(sequence, place, mr.Isochromats(per_voxel=(4, 4, 64)))
    found = mr.simulate(sequence, place, mr.PDG(tolerance=1e-4, pulses="finite", n_z=8))
    assert relative(found, expected) < 1e-3
    assert relative(mr.simulate(sequence, place, mr.PDG(tolerance=1e-4)), expected) > 0.3


def test_a_plan_says_when_to_plan_again():
    """Planned for small flips and short T2, played with others: the error it then has, within a factor of three."""
    place = phantom("sinc", m0=[1.0, 1.0, 1.0])
    short = eqx.tree_at(lambda p: p.tissue.t2, place, place.tissue.t2 / 8)
    sequence = SCANS["gre"]
    segments = tuple(eqx.tree_at(lambda s: s.pulse.flip, s, s.pulse.flip / 5) for s in sequence.segments)
    gentle = dataclasses.replace(sequence, segments=segments)
    model = mr.PDG(tolerance=1e-2).planned(gentle, short)
    assert model.error_at(gentle, short) < 2e-2
    error = relative(mr.simulate(sequence, place, model), mr.simulate(sequence, place, mr.PDG(tolerance=1e-8)))
    assert error > 3e-2
    assert error / 3 < model.error_at(sequence, place) < 3 * error
    assert mr.PDG(tolerance=1e-2).planned(sequence, place).error_at(sequence, place) < 2e-2
