"""The surrogate where exact models are used: dictionaries, matching, stores, bounds, populations of an evolution."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.design import DifferentialEvolution, objectives
from jaxmr.design.population import populate
from jaxmr.models import driver
from jaxmr.mrf.surrogate.network import untrained
from jaxmr.units import deg, ms

N = 30
SEQUENCE = mr.sequences.fisp(sine_train(N), 12 * ms, 5 * ms, 0.0)
AXES = {"t1": np.geomspace(0.3, 3, 16), "t2": np.geomspace(0.02, 0.2, 16), "b1": np.array([0.8, 1.0, 1.2])}
KNOWN = mr.Tissue(t1=[0.9, 0.5], t2=[0.085, 0.065])


@pytest.fixture(scope="module")
def model():
    """Untrained weights answer by the same rules as trained ones."""
    return mr.RNN(untrained(jax.random.key(0)), jnp.asarray(0.1))


@pytest.fixture(scope="module")
def dictionary(model):
    return mr.mrf.dictionary(SEQUENCE, model=model, **AXES)


def test_a_dictionary_holds_the_signal_of_each_atom(model, dictionary):
    atoms = mr.Tissue(**dictionary.parameters)
    parts = driver.schedule(SEQUENCE, atoms, model, len(atoms.t1))
    assert parts[0].shares_b1
    one = jax.jit(lambda tissue: mr.simulate(SEQUENCE, tissue, model))
    for i in range(0, len(dictionary.atoms), 37):
        assert relative(dictionary.atoms[i], one(atoms[i])) < 1e-12
    assert relative(dictionary.atoms, jax.lax.map(one, atoms)) < 1e-12
    small = mr.mrf.dictionary(SEQUENCE, model=model, rank=8, **AXES)
    assert relative(small.atoms, dictionary.atoms @ small.basis.conj()) < 1e-12


def test_matching_finds_the_atoms_and_their_densities(dictionary):
    rows = np.arange(0, len(dictionary.atoms), 29)
    found = mr.mrf.match(dictionary, 2.5 * dictionary.atoms[rows])
    for name, values in dictionary.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], values[rows])
    assert np.allclose(found.m0, 2.5, rtol=1e-10)


def test_a_store_is_the_dictionary_of_these_weights_and_no_others(tmp_path, model, dictionary):
    path = tmp_path / "rnn.zarr"
    store = mr.mrf.store.write(path, SEQUENCE, model=model, **AXES)
    assert relative(store.to_dictionary().atoms, dictionary.atoms) < 1e-12
    assert store.error == pytest.approx(0.1)
    mr.mrf.store.write(path, SEQUENCE, model=model, **AXES)
    other = dataclasses.replace(model, network=untrained(jax.random.key(1)))
    with pytest.raises(ValueError, match="differ in model"):
        mr.mrf.store.write(path, SEQUENCE, model=other, **AXES)


def test_a_dictionary_beyond_what_was_trained_warns(model):
    with pytest.warns(mr.AccuracyWarning, match="t1 = 6 s is outside"):
        mr.mrf.dictionary(SEQUENCE, model=model, t1=[1.0, 6.0], t2=[0.1])
    with pytest.warns(mr.AccuracyWarning, match="flip times b1 = "):
        mr.mrf.dictionary(SEQUENCE, model=model, t1=[1.0], t2=[0.1], b1=[1.0, 2.5])


def test_bounds_are_those_of_the_derivatives_that_are_read_out(model):
    bounds = mr.design.crlb(SEQUENCE, KNOWN, ("m0", "t1", "t2"), model)
    _, jacobian = mr.simulate_with_jacobian(SEQUENCE, KNOWN, model, ("m0", "t1", "t2"))
    for row, found in zip(np.asarray(jacobian), np.asarray(bounds), strict=True):
        # Of real parameters from real and imaginary parts.
        both = np.concatenate([row.real, row.imag], axis=1)
        assert np.allclose(found, np.diag(np.linalg.inv(both @ both.T)), rtol=1e-8)
    traced = jax.jit(lambda flip: mr.design.crlb(train(flip), KNOWN, ("m0", "t1", "t2"), model))
    assert relative(traced(sine_train(N)), bounds) < 1e-10


def test_recovery_before_the_train_counts_and_where_there_is_none_nothing_does(model):
    of = lambda time: mr.simulate_with_jacobian(  # noqa: E731
        mr.sequences.fisp(sine_train(N), 12 * ms, 5 * ms, time), mr.Tissue(t1=0.9, t2=0.085), model, ("t1", "t2")
    )
    for before, after in zip(of(0.0), of(1e-9), strict=True):
        assert relative(after, before) < 1e-7
    started = lambda mz: mr.simulate_with_jacobian(  # noqa: E731
        dataclasses.replace(mr.sequences.fisp(sine_train(N), 12 * ms, 5 * ms), initial=jnp.zeros(3).at[2].set(mz)),
        mr.Tissue(t1=0.9, t2=0.085),
        model,
    )
    recovered = lambda t1: 1 - 2 * np.exp(-0.2 / t1)  # noqa: E731
    mz, step = recovered(0.9), 1e-5
    by_start = (started(mz + step)[0] - started(mz - step)[0]) / (2 * step)
    slope = (recovered(0.9 + step) - recovered(0.9 - step)) / (2 * step)
    readout = started(mz)[1]
    expected = jnp.stack([readout[0] + slope * by_start, readout[1]])
    assert relative(of(0.2)[1], expected) < 1e-7
    assert relative(readout, expected) > 1e-3


def train(flip):
    return mr.sequences.fisp(flip, 12 * ms, 5 * ms, 0.0)


def test_members_side_by_side_have_the_losses_of_each(model):
    def objective(levels, model):
        return objectives.weighted_trace(train(jnp.repeat(levels, N // 2)), KNOWN, model)

    low, high = jnp.full(2, 2 * deg), jnp.full(2, 90 * deg)
    several = [
        populate(objective, (low + high) / 2, (low, high), model, devices, together)
        for devices, together in ((None, 1), (None, 4), (jax.devices(), 1), (jax.devices(), 4), (jax.devices(), 64))
    ]
    members = np.random.default_rng(0).uniform(size=(11, 2))
    alone = [float(objective(levels, model)) for levels in np.asarray(several[0].parameters(members))]
    for population in several:
        found = population.losses(members)
        assert found.shape == (11,)
        assert np.allclose(found, alone, rtol=1e-10)


def test_an_evolution_designs_a_train_with_it(model):
    levels = lambda x: train(jnp.repeat(x, N // 2))  # noqa: E731
    loss = lambda sequence, x: objectives.weighted_trace(sequence, KNOWN, model)  # noqa: E731
    start, bounds = np.full(2, 45 * deg), (2 * deg, 90 * deg)
    alone, together = (
        mr.design.optimise(
            levels, loss, start, bounds=bounds, solver=DifferentialEvolution(6, seed=2, together=k), steps=15
        )
        for k in (1, 8)
    )
    assert np.allclose(together.parameters, alone.parameters, atol=1e-6)
    grid = np.stack(np.meshgrid(*[np.linspace(2, 90, 12) * deg] * 2), axis=-1).reshape(-1, 2)
    values = jax.jit(jax.vmap(lambda pair: loss(levels(pair), None)))(grid)
    assert together.loss <= float(values.min()) * (1 + 1e-3)
    assert together.loss == pytest.approx(float(loss(levels(together.parameters), None)), rel=1e-9)
