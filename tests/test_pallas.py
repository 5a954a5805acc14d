"""The kernel with all states in registers: its verbs against EPG verb by verb, the whole of it against the scan.

There is seldom a GPU where tests run: the kernel is interpreted on the CPU, and lowered for one.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import as_float32, relative
from jaxmr.models import pallas
from jaxmr.models.epg import SliceNodes
from jaxmr.models.model import prepare
from jaxmr.models.pallas import HardPulses, Levels, SelectivePulses, play_in_registers, supported
from jaxmr.models.repetition import Slices
from jaxmr.physics import epg, kernels, registers
from jaxmr.physics.rf import SLICE_RANGE
from jaxmr.sequences import Event, Inversion, Pulse, Segment, Sequence
from jaxmr.units import mm, ms

GAUSS = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)
K, N, VOXELS = 4, 7, 70
rng = np.random.default_rng(3)
FLIPS, TIMES = rng.uniform(-0.5, 1.8, N), rng.uniform(0.8, 1.2, N)
T1, T2 = rng.uniform(0.3, 3, VOXELS), rng.uniform(0.02, 0.3, VOXELS)
TISSUE = mr.Tissue(t1=T1, t2=T2)
B1 = rng.uniform(0.8, 1.2, VOXELS)
FISP = mr.sequences.fisp(FLIPS, 12 * ms, 3 * ms, 20 * ms)


def as_verbs(states) -> epg.States:
    """The same states as complex arrays (K, lanes)."""
    parts = [jnp.stack(part) for part in states]
    if isinstance(states, registers.RealRegisters):
        return epg.States(1j * parts[0], 1j * parts[1], parts[2] + 0j)
    return epg.States(*(parts[i] + 1j * parts[i + 1] for i in (0, 2, 4)))


def some_states(kind):
    values = np.random.default_rng(0).normal(size=(len(kind._fields), K, 3))
    if kind is registers.ComplexRegisters:  # F(0) and conj(F(-0)) are one number, Z(0) is real
        values[2, 0], values[3, 0], values[5, 0] = values[0, 0], -values[1, 0], 0
    else:
        values[1, 0] = -values[0, 0]
    return kind(*(tuple(part) for part in values))


KINDS = [registers.RealRegisters, registers.ComplexRegisters]


@pytest.mark.parametrize("kind", KINDS)
def test_registers_equal_verbs(kind):
    """Pulse, relaxation, frame, inversion, echo and winding of either sign."""
    states, angle = some_states(kind), np.array([[0.3, 1.1, -2.0]])
    before = as_verbs(states)
    rotated = as_verbs(states.pulse(kernels.hard_pulse(jnp.asarray(angle[0]))))
    same = as_verbs(states.pulse(registers.rotation(np.cos(angle[0]), np.sin(angle[0]))))
    relaxed = as_verbs(states.pulse(kernels.scaled(kernels.identity(), np.exp(-0.2), np.exp(-0.1), -np.expm1(-0.1))))
    for found, expected in (
        (rotated, epg.rf(before, angle)),
        (same, epg.rf(before, angle)),
        (relaxed, epg.relax(before, 0.1, 1.0, 0.5)),
        (as_verbs(states.invert(0.9)), epg.invert(before, 0.9)),
        (as_verbs(registers.resize(states, K + 2)).plus[K:], np.zeros((2, 3))),
        *((as_verbs(states.wind(wound)), epg.dephase(before, wound)) for wound in (0, 1, -1, 3, -3, K + 1)),
    ):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert np.abs(a - b).max() < 1e-14
    for wound in (0, 1, 2, -1, -2):
        real, imag = registers.only(states, abs(wound)).echo(wound)
        assert np.abs((0 if real is None else real) + 1j * imag - epg.dephase(before, wound).plus[0]).max() < 1e-14


def test_complex_registers_take_any_operator_and_turn():
    states = some_states(registers.ComplexRegisters)
    matrix, offset = np.random.default_rng(1).normal(size=(3, 3)), np.array([0.1, -0.2, 0.3])
    action = kernels.Operator(tuple(map(tuple, matrix)), tuple(offset))
    expected = epg.affine(as_verbs(states), jnp.asarray(matrix), jnp.asarray(offset))
    plain = as_verbs(states.pulse(action))
    c, s, e = np.cos(0.7), np.sin(0.7), np.exp(0.7j)
    turned = as_verbs(states.pulse(registers.turned(action, c, s)))
    after = as_verbs(states.pulse(action).turn(c, s))
    hard = kernels.hard_pulse(jnp.asarray(0.4))
    pairs = [
        (plain, expected),
        (turned, epg.States(e * expected.plus, expected.minus / e, expected.z)),
        (after, turned),
        (as_verbs(states.pulse(registers.turned(hard, c, s))), as_verbs(states.pulse(hard).turn(c, s))),
    ]
    for found, wanted in pairs:
        for a, b in zip(found, wanted, strict=True):
            assert np.abs(a - b).max() < 1e-14


def compared(sequence, tissue, model, pulses, slices=None, real=True, **options):
    """Relative difference of the kernel from the scan."""
    slices = Slices() if slices is None else slices
    assert supported(sequence, as_float32(tissue), pulses(None), model.orders, real, options.get("levels"))

    @jax.jit
    def both(sequence, tissue):
        shared = prepare(sequence, tissue, model)
        found = play_in_registers(
            sequence, tissue, pulses(shared), slices, model.orders, real, interpret=True, **options
        )
        return found, model.signals(shared, sequence, tissue)

    found, expected = both(sequence, tissue)
    assert found.shape == expected.shape == (tissue.shape[0], sequence.n_echoes)
    return relative(found, expected)


def hard(shared):
    return HardPulses()


def mixed_train():
    """All that the others leave out: initial state, negative orders, an event of two samples, partial inversion."""
    events = (Event(jnp.asarray(1 * ms), order=-1, samples=1), Event(jnp.asarray(2 * ms), samples=2))
    after = (Event(jnp.asarray(3 * ms), order=2),)
    return Sequence(
        (
            Segment(Pulse(jnp.asarray(0.4), jnp.asarray(0.3)), events, 3),
            Segment(None, after),
            Segment(Inversion(jnp.asarray(0.9)), after),
            Segment(Pulse(jnp.asarray(FLIPS[:3]), jnp.asarray(TIMES[:3])), events + after, 3),
        ),
        initial=jnp.array([0.3, -0.2, 0.8]),
    )


TRAINS = {
    "fisp, B1 per voxel": (FISP, {"b1": B1}, True),
    "varying times": (mr.sequences.fisp(FLIPS, 12 * ms * TIMES, 3 * ms, phase=0.4), {}, True),
    "rf-spoiled, T2', b0": (mr.sequences.spgr(FLIPS, 12 * ms, 3 * ms), {"t2_prime": 0.05, "b0": 20 * B1}, False),
    "turbo spin echo": (mr.sequences.tse(np.full(6, 2.2), 8 * ms), {"b1": B1}, True),
    "turbo spin echo, odd phase": (mr.sequences.tse(np.full(6, 2.2), 8 * ms, refocusing_phase=0.7), {}, False),
    "balanced": (mr.sequences.bssfp(FLIPS, 5 * ms, inversion_time=10 * ms), {}, True),
    "mixed": (mixed_train(), {"b1": B1}, False),
}


@pytest.mark.parametrize("name", TRAINS)
def test_hard_pulses_equal_the_scan(name):
    sequence, leaves, real = TRAINS[name]
    assert compared(sequence, mr.Tissue(T1, T2, **leaves), mr.EPG(orders=K), hard, real=real) < 1e-12


def test_small_tip_profiles_equal_the_scan():
    """Half a slice in real arithmetic, and an asymmetric pulse whose axis differs from slice to slice."""
    sequence = mr.sequences.fisp(FLIPS[:5], 12 * ms, 3 * ms)
    half = mr.EPG(orders=K, profile=mr.rf.small_tip(GAUSS), n_z=6)
    t = np.linspace(0, 1, 30)
    skewed = mr.rf.arbitrary(
        np.exp(-40 * (t - 0.6) ** 2 + 3j * t), 1 * ms, gradient=float(GAUSS.gradient), thickness=3e-3
    )
    whole = mr.EPG(orders=K, profile=mr.rf.small_tip(skewed), n_z=3)
    for model, n in ((half, 3), (whole, 3)):
        scale, phase = model.prepare(sequence, TISSUE)
        slices = Slices(n, SLICE_RANGE / 3, phase=phase)
        pulses = lambda shared, scale=scale: HardPulses(scale)  # noqa: E731
        assert compared(sequence, TISSUE, model, pulses, slices) < 1e-12


def selective(shared):
    return SelectivePulses(() if shared is None else shared)


@pytest.mark.parametrize(("dtype", "bar"), [(np.float64, 1e-11), (np.float32, 1e-6)])
def test_selective_pulses_equal_the_scan(dtype, bar):
    """Folded in z, the B1 of each block its own."""
    model = mr.EPGBloch(pulse=GAUSS, n_z=4, orders=K)
    b1 = np.repeat([0.9, 1.1, 0.9], pallas.BLOCK)
    tissue = mr.Tissue(*(np.resize(x, len(b1)) for x in (T1, T2)), b1=b1)
    sequence = FISP
    if dtype == np.float32:
        sequence, tissue, model = (as_float32(x) for x in (sequence, tissue, model))
    levels = Levels(jnp.asarray([0.9, 1.1], dtype), jnp.asarray([0, 1, 0]))
    slices = Slices(2, 2 * SLICE_RANGE / 4, imaginary=True)
    assert compared(sequence, tissue, model, selective, slices, real=False, levels=levels) < bar


NODES = SliceNodes(jnp.array([0.05, 0.3, 0.8]), jnp.array([0.4, 0.7, 0.2]))


def test_nodes_of_a_slice_count_their_weights():
    model = mr.EPGBloch(pulse=GAUSS, nodes=NODES, orders=K)
    slices = Slices(3, 2 * NODES.weight, imaginary=True)
    assert compared(FISP, TISSUE, model, selective, slices, real=False) < 1e-11


def sharing(tissue, b1):
    """The tissue with one B1 for all voxels of a group."""
    return eqx.tree_at(lambda t: t.b1, tissue, jnp.asarray(b1), is_leaf=lambda leaf: leaf is None)


def test_selective_pulses_of_any_phase_equal_the_scan():
    """Whole slice, a phase per pulse, sampled after winding, one B1 for all voxels."""
    model = mr.EPGBloch(pulse=GAUSS, n_z=3, orders=K)
    events = (Event(jnp.asarray(8 * ms * TIMES[:5]), order=1, samples=1), Event(jnp.asarray(4 * ms)))
    sequence = Sequence((Segment(Pulse(jnp.asarray(FLIPS[:5]), jnp.asarray(TIMES[:5] * 3)), events, 5),))
    tissue = mr.Tissue(T1, T2, b1=1.1)
    tables, slices = model.prepare(sequence, tissue), Slices(3, SLICE_RANGE / 3)

    @jax.jit
    def play(tissue):
        return play_in_registers(sequence, tissue, SelectivePulses(tables), slices, K, False, interpret=True)

    assert relative(play(sharing(tissue, [1.1])), model.signals(tables, sequence, tissue)) < 1e-11


def test_groups_side_by_side_equal_one_flat_tissue():
    """As `batch` maps it over groups of voxels, each with one B1."""

    @jax.jit
    @jax.vmap
    def play(tissue):
        return play_in_registers(FISP, tissue, HardPulses(), Slices(), K, True, interpret=True)

    signals = play(sharing(TISSUE.reshape(2, 35), [[0.9], [1.1]])).reshape(70, -1)
    flat = mr.Tissue(T1, T2, b1=np.repeat([0.9, 1.1], 35))
    assert relative(signals, mr.EPG(orders=K).signals(None, FISP, flat)) < 1e-12


def test_what_it_does_not_support_is_left_to_the_scan():
    tissue, hard = as_float32(TISSUE), HardPulses()
    assert supported(FISP, tissue, hard, 20, True)
    assert not supported(FISP, TISSUE, hard, 20, True)  # float64
    more = dataclasses.replace(tissue, diffusivity=tissue.t1)
    assert not supported(FISP, more, hard, 20, True)
    own = dataclasses.replace(tissue, b1=tissue.t1)
    assert supported(FISP, own, hard, 20, True)
    assert not supported(FISP, own, SelectivePulses(()), 20, False)
    long = mr.sequences.fisp(np.full(200, 0.3), 12 * ms, 3 * ms)
    assert not supported(long, tissue, hard, None, True)  # 100 orders
    assert supported(long, tissue, hard, 56, True)
    assert not supported(long, tissue, hard, 25, False)
    varying = mr.sequences.fisp(np.full(9, 0.3), np.full(9, 12 * ms), 3 * ms)
    assert not supported(varying, dataclasses.replace(tissue, b0=tissue.t1), hard, 20, False)
    assert not supported(varying, dataclasses.replace(tissue, t2_prime=tissue.t1), hard, 20, True)


def lowered(sequence, tissue, pulses, slices, orders, real):
    """The module that jax hands to the compiler of a GPU, of which this machine needs none."""
    h200 = jax.sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="gpu")
    play = lambda *leaves: play_in_registers(*leaves, slices, orders, real)  # noqa: E731
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=h200)):
        traced = jax.jit(play).trace(*as_float32((sequence, tissue, pulses)))
        return traced.lower(lowering_platforms=("cuda",)).as_text()


# jax deprecates this backend in favour of one for Hopper GPUs only; to be replaced when it goes.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.skipif(not hasattr(jax.sharding, "AbstractDevice"), reason="this jax cannot lower without a GPU")
@pytest.mark.parametrize("real", [True, False])
def test_the_largest_kernels_lower_for_a_gpu(real):
    most = pallas.MOST_ORDERS[real]
    sequence = mr.sequences.spgr(np.full(200, 0.3), np.full(200, 12 * ms), 3 * ms, inversion_time=20 * ms)
    if real:
        sequence = mr.sequences.fisp(np.full(200, 0.3), 12 * ms, 3 * ms, 20 * ms)
    own = dataclasses.replace(TISSUE, b1=TISSUE.t1)
    cases = [(TISSUE, HardPulses(), Slices()), (own, HardPulses(jnp.ones(2)), Slices(2))]
    if not real:
        tables = mr.EPGBloch(pulse=GAUSS, n_z=4).prepare(sequence, TISSUE)
        cases.append((TISSUE, SelectivePulses(tables), Slices(2, imaginary=True)))
    for tissue, pulses, slices in cases:
        assert "xla.gpu.triton" in lowered(sequence, tissue, pulses, slices, most, real)


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU")
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", [*TRAINS, "selective", "nodes"])
def test_the_gpu_equals_the_scan(name):
    sequence, leaves, real = TRAINS.get(name, (FISP, {}, False))
    tissue, slices, model = mr.Tissue(T1, T2, **leaves), Slices(), mr.EPG(orders=20)
    if name == "selective":
        slices, model = Slices(4, 2 * SLICE_RANGE / 8, True), mr.EPGBloch(pulse=GAUSS, n_z=8, orders=20)
    elif name == "nodes":
        slices, model = Slices(3, 2 * NODES.weight, True), mr.EPGBloch(pulse=GAUSS, nodes=NODES, orders=20)
    shared = prepare(sequence, tissue, model)
    pulses, slices = as_float32((HardPulses() if shared is None else SelectivePulses(shared), slices))
    found = jax.jit(lambda *leaves: play_in_registers(*leaves, pulses, slices, 20, real))(
        *as_float32((sequence, tissue))
    )
    # In float64 the model always takes the scan.
    assert relative(found, model.signals(shared, sequence, tissue)) < 1e-5
