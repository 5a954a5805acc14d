"""Events that come again and again are one scan: the same as played one by one, and compiled once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from jaxmr.models import isochromats
from jaxmr.models.isochromats import Isochromats
from jaxmr.sequences import timeline
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence
from jaxmr.units import mm

LINES, SAMPLES = 2, 3


def train(lines=LINES, shots=1, path=False, modulated=False, seed=0, use="other") -> Sequence:
    """A prephaser, lines and blips in turn, a spoiler: no two numbers alike, some changing from shot to shot."""
    rng = np.random.default_rng(seed)
    number = lambda *shape: jnp.asarray(rng.uniform(0.5, 1.0, shape))  # noqa: E731
    each = () if shots == 1 else (shots,)

    def line():
        wound = 1e3 * jnp.asarray(rng.normal(size=(SAMPLES, 3)))
        return Event(
            4e-3 * number(), wound[-1], number(*each), order=None, samples=SAMPLES,
            path=wound if path else None, modulation=number(*each, SAMPLES) if modulated else None,
        )  # fmt: skip

    pairs = [(line(), Event(1e-3 * number(), 1e3 * number(*each, 3), order=None)) for _ in range(lines)]
    ends = [Event(2e-3 * number(*each), 1e3 * number(3), order=None) for _ in range(2)]
    events = (ends[0], *(event for pair in pairs for event in pair), ends[1])
    return Sequence((Segment(Pulse(number(*each), number(), use=use), events, shots),))


def phantom(n=5, **more) -> mr.Phantom:
    rng = np.random.default_rng(1)
    number = lambda low, high: rng.uniform(low, high, n)  # noqa: E731
    tissue = mr.Tissue(number(0.5, 1), number(0.05, 0.1), b1=number(0.8, 1.2), b0=number(-30, 30), **more)
    coils = jnp.asarray(rng.normal(size=(2, n)) + 1j * rng.normal(size=(2, n)))
    return mr.Phantom(tissue, 5 * mm * rng.normal(size=(n, 3)), (mm, mm, mm), coils, voxel_shape="box")


def flow(position, time):
    return position + 0.1 * time


CASES = {
    "still": ({}, {}, {}),
    "shots": ({"shots": 2}, {}, {}),
    "path": ({"path": True, "shots": 2}, {}, {}),
    "modulated": ({"modulated": True, "shots": 2}, {}, {}),
    "motion": ({}, {}, {"motion": flow}),
    "diffusion": ({"shots": 2}, {"diffusivity": np.full(5, 2e-9)}, {"seed": 4}),
}


@pytest.fixture
def many(monkeypatch):
    """Sets from how many events on they are scanned, and what they keep for all repetitions."""

    def choose(fewest, kept=0):
        monkeypatch.setattr(timeline, "MANY", fewest)
        monkeypatch.setattr(isochromats, "KEPT", kept)
        jax.clear_caches()

    return choose


def repeats(sequence: Sequence) -> int:
    """How often the same events come again in one scan; 1 without one."""
    return max(run.repeats for run in timeline.event_runs(sequence.segments[0]))


@pytest.mark.parametrize("case", CASES)
def test_scanned_events_are_those_played_one_by_one(case, many):
    options, tissue, model = CASES[case]
    sequence, place = train(**options), phantom(**tissue)
    many(1000)
    assert repeats(sequence) == 1
    expected = mr.simulate(sequence, place, Isochromats(2, **model))
    for kept in (0, 1000) if case == "shots" else (0,):
        many(2 * LINES, kept)
        assert repeats(sequence) >= LINES
        found = mr.simulate(sequence, place, Isochromats(2, **model))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "case", ["still", *(pytest.param(case, marks=pytest.mark.slow) for case in CASES if case != "still")]
)
def test_derivatives_are_those_of_events_played_one_by_one(case, many):
    """In all numbers of the sequence and of the phantom, in several groups of voxels."""
    options, tissue, model = CASES[case]
    numbers, static = eqx.partition((train(**options), phantom(**tissue)), eqx.is_inexact_array)

    def slopes():
        def loss(numbers):
            sequence, place = eqx.combine(numbers, static)
            kspace = mr.simulate(sequence, place, Isochromats(2, memory=1, **model))
            return jnp.sum(jnp.sin(kspace.real) + kspace.imag**2)

        return jax.jit(jax.grad(loss))(numbers)

    many(1000)
    expected = slopes()
    for kept in (0, 1000) if case == "shots" else (0,):
        many(2 * LINES, kept)
        for found, one in zip(jax.tree.leaves(slopes()), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, one, rtol=1e-9, atol=1e-11 * np.abs(one).max())


def equations(jaxpr) -> int:
    """Equations of a program and of all that it calls, but for those that put numbers of the sequence side by side."""
    called = [leaf for equation in jaxpr.eqns for leaf in jax.tree.leaves(equation.params) if hasattr(leaf, "eqns")]
    own = sum(equation.primitive.name != "broadcast_in_dim" for equation in jaxpr.eqns)
    return own + sum(equations(getattr(one, "jaxpr", one)) for one in called)


@pytest.mark.parametrize("what", ["isochromats", "derivative", "trajectory", "sample_times"])
def test_a_longer_train_is_no_longer_program(what):
    place, model = phantom(), Isochromats(2)

    def loss(sequence):
        return jnp.sum(jnp.abs(mr.simulate(sequence, place, model)))

    functions = {
        "isochromats": lambda sequence: mr.simulate(sequence, place, model),
        "derivative": jax.grad(loss),
        "trajectory": mr.sequences.trajectory,
        "sample_times": mr.sequences.sample_times,
    }
    short, long = (jax.make_jaxpr(functions[what])(train(lines)).jaxpr for lines in (10, 40))
    assert equations(short) == equations(long)


def test_few_events_are_not_scanned():
    """Their tables are computed once for all repetitions, and loops have a price."""
    assert all(run.repeats == 1 for run in timeline.event_runs(train(timeline.MANY // 2 - 1).segments[0]))
    assert any(run.repeats > 1 for run in timeline.event_runs(train(timeline.MANY // 2).segments[0]))


def spin_echoes() -> Sequence:
    """Two shots of an excitation, refocusing pulses in a row, and a train, after an inversion."""
    preparation = Segment(Inversion(), (Event(jnp.asarray(0.1), jnp.asarray([3.0, 4.0, 5.0])),))
    uses = {"excitation": (1, 1), "refocusing": (2, 3), "other": (9, 1)}
    parts = [
        train(lines, shots, path=lines == 9, seed=seed, use=use).segments[0]
        for seed in (2, 3)
        for use, (lines, shots) in uses.items()
    ]
    return Sequence((preparation, *parts))


def step_by_step(sequence: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """k and time of every sample, one repetition and one event after the other."""
    moment, time, found, times = np.zeros(3), 0.0, [], []
    for segment in sequence.segments:
        use = getattr(segment.pulse, "use", "excitation")
        for i in range(segment.repetitions):
            moment = {"excitation": 0 * moment, "refocusing": -moment}.get(use, moment)
            for event in segment.events:
                of = lambda leaf, rank, i=i: np.asarray(leaf)[i] if np.ndim(leaf) > rank else np.asarray(leaf)  # noqa: E731
                change, duration = of(event.moment, 1), of(event.duration, 0)
                for j in range(event.samples):
                    part = (j + 1) / event.samples
                    found.append(-moment - (part * change if event.path is None else of(event.path, 2)[j]))
                    times.append(time + part * duration)
                moment, time = moment + change, time + duration
    return np.array(found), np.array(times)


def test_trajectories_are_sums_over_events():
    """In NumPy and traced."""
    sequence = spin_echoes()
    k, times = step_by_step(sequence)
    for wrap in (lambda f: f, jax.jit):
        np.testing.assert_allclose(wrap(mr.sequences.trajectory)(sequence), k, atol=1e-9)
        np.testing.assert_allclose(wrap(mr.sequences.sample_times)(sequence), times, atol=1e-12)


def test_trajectories_have_derivatives():
    sequence = spin_echoes()
    rng = np.random.default_rng(0)
    towards = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), sequence)
    for f in (mr.sequences.trajectory, mr.sequences.sample_times):
        # Both are linear in the numbers of the sequence.
        _, found = jax.jvp(f, (sequence,), (towards,))
        np.testing.assert_allclose(found, f(towards), atol=1e-9)
        weight = jnp.asarray(rng.normal(size=found.shape))
        slopes = jax.grad(lambda s, f=f, weight=weight: jnp.sum(weight * f(s)))(sequence)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), slopes, towards)
        assert sum(jax.tree.leaves(products)) == pytest.approx(float(jnp.sum(weight * found)), rel=1e-9)


def test_a_sequence_without_samples_has_no_trajectory():
    silent = Sequence((Segment(None, (Event(jnp.asarray(0.1)),)),))
    assert mr.sequences.trajectory(silent).shape == (0, 3)
    assert mr.sequences.sample_times(silent).shape == (0,)
