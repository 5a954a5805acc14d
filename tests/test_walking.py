"""Isochromats that diffuse: against Stejskal and Tanner, PDG's k-weights, finite differences, and their own error."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import as_float32, central_difference, relative
from jaxmr.models import scanning
from jaxmr.models.isochromats import Isochromats
from jaxmr.models.scanning import scan
from jaxmr.sequences import timeline
from jaxmr.sequences.sequence import Event, Pulse, Segment, Sequence
from jaxmr.units import mm, ms, us

D = 1.5e-9
VOXELS, PER_VOXEL = 40, 1000
SPINS = VOXELS * PER_VOXEL
"""Walks of a test against a closed form: independent of one another, so errors are known too."""
ALONG = np.array([1.0, 2.0, -1.0]) / 6**0.5
HALF, FULL = Pulse(jnp.asarray(np.pi / 2)), Pulse(jnp.asarray(np.pi), quadrature=True)


def points(n=VOXELS, diffusivity=D, m0=None, voxel_shape="point") -> mr.Phantom:
    """n voxels at one place, of magnetisation 1 together."""
    tissue = mr.Tissue(np.full(n, 1e6), np.full(n, 1e6), m0, diffusivity=np.broadcast_to(diffusivity, n))
    if m0 is None:
        tissue = eqx.tree_at(lambda t: t.m0, tissue, jnp.full(n, 1 / n), is_leaf=lambda x: x is None)
    return mr.Phantom(tissue, np.zeros((n, 3)), (mm, mm, mm), voxel_shape=voxel_shape)


def event(duration, moment=None, samples=0, **more) -> Event:
    moment = None if moment is None else jnp.asarray(moment)
    return Event(jnp.asarray(duration), moment, order=None, samples=samples, **more)


def spin_echo(moment, lobe, wait) -> Sequence:
    """A pair of gradient lobes about a refocusing pulse, the sample at the end of the second."""
    before, after = event(lobe, moment), event(lobe, moment, samples=1)
    return Sequence((Segment(HALF, (before, event(wait / 2))), Segment(FULL, (event(wait / 2), after))))


@pytest.mark.parametrize(("lobe", "wait"), [(10 * ms, 0.0), (4 * ms, 30 * ms)])
@pytest.mark.parametrize("exponent", [0.3, 1.0])
def test_a_spin_echo_is_that_of_stejskal_and_tanner(lobe, wait, exponent):
    """Phases are Gaussian of variance 2 b D, so that the standard error of both parts is in closed form."""
    # Delta = lobe + wait.
    size = np.sqrt(exponent / D / (lobe + wait - lobe / 3))
    found = 1j * mr.simulate(spin_echo(size * ALONG, lobe, wait), points(), Isochromats(PER_VOXEL))[0, 0]
    left = np.exp(-exponent)
    real_error = np.sqrt(((1 + left**4) / 2 - left**2) / SPINS)
    imaginary_error = np.sqrt((1 - left**4) / 2 / SPINS)
    assert abs(found.real - left) < 4 * real_error
    assert abs(found.imag) < 4 * imaginary_error
    # So that factors that are forgotten easily show.
    for factor in (0.5, 2.0, (2 * np.pi) ** 2):
        assert abs(found.real - np.exp(-factor * exponent)) > 25 * real_error


def test_a_stimulated_echo_diffuses_while_it_is_stored():
    """Three pulses of 90 degrees, gradients after the first and the third; a crusher while the echo is stored."""
    lobe, mixing = 2 * ms, 200 * ms
    # Whole turns over the voxel, so that nothing but the stimulated echo comes back.
    turn = 2 * np.pi / mm
    moment = np.array([9 * turn, 0.0, 0.0])
    store = event(mixing, [0.0, 0.0, 5 * turn])
    sequence = Sequence(
        (Segment(HALF, (event(lobe, moment),)), Segment(HALF, (store,)), Segment(HALF, (event(lobe, moment, 1),)))
    )
    square, n = moment @ moment, 40_000
    found = mr.simulate(sequence, points(1, voxel_shape="box"), Isochromats(n))[0, 0]
    expected = 0.5 * np.exp(-square * (mixing + 2 * lobe / 3) * D)
    # 3/4 of the magnetisation is transverse in the mean square, whatever the phases.
    error = np.sqrt((0.75 - expected**2) / n)
    assert abs(abs(found) - expected) < 4 * error
    for b in (square * 2 * lobe / 3, square * (mixing / 2), square * 2 * mixing):
        assert abs(abs(found) - 0.5 * np.exp(-b * D)) > 20 * error


@pytest.mark.parametrize("path", [False, True])
def test_spins_diffuse_during_a_readout(path):
    """All samples of a gradient echo: variances are integrals of (k(t) - k(s))^2, as spins begin at one place."""
    lobe, n = 8 * ms, 10
    moment = np.sqrt(1.2 / D / lobe) * ALONG
    wound = 2 * moment * (np.arange(1, n + 1) / n)[:, None]
    readout = event(2 * lobe, 2 * moment, n, path=jnp.asarray(wound) if path else None)
    sequence = Sequence((Segment(HALF, (event(lobe, -moment), readout)),))
    found = 1j * mr.simulate(sequence, points(), Isochromats(PER_VOXEL))[0]
    after = np.arange(1, n + 1) / n * 2 - 1
    exponent = 1.2 / 3 * (2 * (after + 1) ** 3 - after**3)
    left = np.exp(-exponent)
    error = np.sqrt(((1 + left**4) / 2 - left**2) / SPINS)
    assert np.all(np.abs(found.real - left) < 4 * error)
    assert np.all(np.abs(found.imag) < 4 * np.sqrt((1 - left**4) / 2 / SPINS))
    # As if they stood still during the readout.
    still = np.exp(-1.2 / 3 * ((after + 1) ** 3 - after**3))
    assert np.max(np.abs(found.real - still) / error) > 50


def imaging(**more):
    """Lines of a spoiled train on two voxels at odd places; every spoiler, 50 turns, diffuses by a sixth."""
    lines = mr.sequences.readouts.cartesian((8, 8), 32 * mm, dwell=100 * us)
    flips = jnp.deg2rad(jnp.array([50.0, 80.0, 110.0, 70.0, 90.0, 120.0, 60.0, 100.0]))
    sequence = mr.sequences.fisp(flips, 10 * ms, 4 * ms, readout=lines, spoiler=50 * 2 * np.pi / (4 * mm))
    leaves = {"m0": [1.0, 0.6], "b1": [0.9, 1.1], "b0": [15.0, -30.0]} | more
    position = np.array([[1.0, -6.0, 0.3], [-7.0, 2.0, -1.0]]) * mm
    return sequence, mr.Phantom(
        mr.Tissue([0.9, 0.4], [0.3, 0.15], **leaves), position, (4 * mm,) * 3, voxel_shape="box"
    )


@pytest.mark.parametrize("t2_prime", [None, [0.03, 0.05]])
def test_the_phase_distribution_graph_agrees(t2_prime):
    """Within the error that independent seeds show; far from it where D is off by a quarter."""
    sequence, place = imaging(diffusivity=[2.5e-9, 1.5e-9], t2_prime=t2_prime)
    n = 10
    walks = jax.jit(jax.vmap(lambda seed: mr.simulate(sequence, place, Isochromats(10_000, seed=seed))))
    found = np.asarray(walks(jnp.arange(n)))
    mean = found.mean(axis=0)
    error = np.sqrt(np.mean(np.abs(found - mean) ** 2) / (n - 1))

    def off(factor):
        other = eqx.tree_at(lambda p: p.tissue.diffusivity, place, factor * place.tissue.diffusivity)
        return np.sqrt(np.mean(np.abs(mean - mr.simulate(sequence, other, mr.PDG(tolerance=1e-5))) ** 2)) / error

    assert off(1.0) < 1.5
    assert off(0.75) > 5
    assert off(1.25) > 5


def test_a_seed_gives_the_same_walks_however_they_are_computed(monkeypatch):
    """Groups, devices, chunks on the host, precision; another seed gives others."""
    sequence = spin_echo(2e5 * ALONG, 5 * ms, 2 * ms)
    place = points(6, diffusivity=D * np.linspace(0.5, 1.5, 6))
    seeded = jax.jit(lambda seed: mr.simulate(sequence, place, Isochromats(8, seed=seed)))
    expected = seeded(3)
    assert relative(seeded(4), expected) > 1e-2
    for memory, devices in ((1, None), (2000, jax.devices())):
        found = mr.simulate(sequence, place, Isochromats(8, seed=3, memory=memory), devices=devices)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    monkeypatch.setattr(scanning, "FEWEST", 2)
    monkeypatch.setattr(scanning, "STEPS", 3)
    np.testing.assert_allclose(scan(sequence, place, Isochromats(8, seed=3)), expected, atol=1e-12)
    single = mr.simulate(as_float32(sequence), as_float32(place), Isochromats(8, seed=3))
    assert single.dtype == jnp.complex64
    assert relative(single, expected) < 2e-6


def test_the_derivative_by_diffusivity():
    """In expectation that of Stejskal and Tanner; of one seed that of its differences; finite where D = 0."""
    lobe, b = 10 * ms, 0.5 / D
    size = np.sqrt(b / (2 * lobe / 3))

    def echo(diffusivity):
        sequence, place = spin_echo(size * ALONG, lobe, 0.0), points(diffusivity=1.0)
        place = eqx.tree_at(lambda p: p.tissue.diffusivity, place, diffusivity * jnp.ones(VOXELS))
        return -mr.simulate(sequence, place, Isochromats(PER_VOXEL))[0, 0].imag

    slope = jax.jit(jax.grad(echo))
    found = float(slope(D))
    # The derivative of a spin is -sin(phase) phase / (2 D).
    error = np.sqrt(b / (2 * D) / SPINS)
    assert abs(found + b * np.exp(-b * D)) < 4 * error
    assert abs(found) > 40 * error
    assert found == pytest.approx(float(central_difference(jax.jit(echo), D, 1e-3 * D)), rel=1e-6)
    assert float(slope(0.0)) == 0


def test_derivatives_in_all_floats():
    """Of one seed: forward, reverse and by differences; finite where D = 0 and where an event takes no time."""
    before = Segment(HALF, (event(5 * ms, 2e5 * ALONG), event(0.0, [1e4, 0.0, 0.0])))
    sequence = Sequence((before, Segment(FULL, (event(5 * ms, 2e5 * ALONG), event(1 * ms, 5e4 * ALONG, 3)))))
    everything = sequence, points(2, diffusivity=[D, 0.0])
    rng = np.random.default_rng(0)
    numbers, static = eqx.partition(everything, eqx.is_inexact_array)
    weight = jnp.asarray(rng.normal(size=3) + 1j * rng.normal(size=3))

    @jax.jit
    def loss(numbers):
        sequence, place = eqx.combine(numbers, static)
        return jnp.sum(weight * mr.simulate(sequence, place, Isochromats(4, memory=1))[0]).real

    # Durations of 0 stay: their root has no derivative by differences.
    towards = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)) * leaf, numbers)
    forward = float(jax.jvp(loss, (numbers,), (towards,))[1])
    at = jax.jit(lambda step: loss(jax.tree.map(lambda x, d: x + step * d, numbers, towards)))
    assert forward == pytest.approx(float(central_difference(at, 0.0, 1e-4)), rel=1e-6)
    slopes = jax.jit(jax.grad(loss))(numbers)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    products = jax.tree.map(lambda g, d: jnp.sum(g * d), slopes, towards)
    assert float(sum(jax.tree.leaves(products))) == pytest.approx(forward, rel=1e-9)


def test_shots_walk_as_those_played_one_by_one(monkeypatch):
    one = spin_echo(2e5 * ALONG, 5 * ms, 2 * ms)
    twice = Sequence((*one.segments, *jax.tree.map(lambda leaf: 1.1 * leaf, one.segments)))
    assert timeline.periods(list(twice.segments)) == [(0, 2, 2)]
    found = mr.simulate(twice, points(2), Isochromats(8))
    monkeypatch.setattr(timeline, "periods", lambda parts: [(i, 1, 1) for i in range(len(parts))])
    jax.clear_caches()
    np.testing.assert_allclose(found, mr.simulate(twice, points(2), Isochromats(8)), atol=1e-12)


def test_diffusion_adds_to_motion():
    """Common motion turns the signal of the same walks by its phase."""
    velocity, lobe = 0.02, 5 * ms
    moment = jnp.array([2e5, 0.0, 0.0])
    sequence = Sequence((Segment(HALF, (event(lobe, moment), event(lobe, -moment, 4))),))
    flow = lambda position, time: position + velocity * time * jnp.array([1.0, 0.0, 0.0])  # noqa: E731
    still, moving = (mr.simulate(sequence, points(2), Isochromats(50, motion=motion))[0] for motion in (None, flow))
    part = np.arange(1, 5) / 4
    phase = 2e5 * velocity * lobe * (1 / 2 - (part + part**2 / 2))
    np.testing.assert_allclose(moving, still * np.exp(1j * phase), atol=1e-12)


def test_a_selective_pulse_meets_spins_where_they_have_come_to():
    """From one place they spread over more than the slice: the profile, weighted by a Gaussian."""
    shape = mr.rf.sinc(duration=2 * ms, time_bandwidth=4, thickness=2 * mm, n_samples=24)
    width, time, n = 1 * mm, 0.1, 20_000
    excite = Segment(Pulse(jnp.asarray(np.pi / 2), shape=0), (event(0.0, samples=1),))
    waited = Sequence((Segment(None, (event(time),)), excite), (shape,))
    # Off the middle of the slice, where the profile is not even.
    start = np.array([[0.0, 0.0, 0.6 * mm]])
    place = dataclasses.replace(points(1, diffusivity=width**2 / (2 * time)), position=jnp.asarray(start))
    found = mr.simulate(waited, place, Isochromats(n))[0, 0]
    z = np.linspace(-5, 5, 401)
    weight = np.exp(-(z**2) / 2) / np.sum(np.exp(-(z**2) / 2))
    line = mr.Phantom(
        mr.Tissue(np.full(401, 1e6), np.full(401, 1e6), weight), start + width * np.outer(z, [0, 0, 1]), (mm,) * 3
    )
    line = dataclasses.replace(line, voxel_shape="point")
    expected = mr.simulate(Sequence((excite,), (shape,)), line, Isochromats(1))[0, 0]
    assert abs(found - expected) < 4 / np.sqrt(n)
    assert abs(mr.simulate(Sequence((excite,), (shape,)), place, Isochromats(1))[0, 0] - expected) > 0.1
