"""The recurrent surrogate: a network equal to its equations written out, behind the call of the exact models."""

import dataclasses
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.learning import checkpoints
from jaxmr.mrf import surrogate
from jaxmr.mrf.surrogate import network as networks
from jaxmr.mrf.surrogate.examples import pulse
from jaxmr.sequences import trains
from jaxmr.units import deg, ms

N = 40
FLIPS = jnp.asarray(sine_train(N, 60.0))
SEQUENCE = mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, 20 * ms)
TISSUE = mr.Tissue(t1=[0.5, 1.0, 2.0], t2=[0.05, 0.1, 0.2], b1=[1.0, 0.9, 1.1])


@pytest.fixture(scope="module")
def model():
    """Untrained weights answer by the same rules as trained ones."""
    return surrogate.RNN(networks.untrained(jax.random.key(3)), jnp.asarray(0.1))


def by_hand(network, t1, t2, tr, te, flips, mz):
    """One voxel, pulse by pulse, in NumPy: torch's GRU equations, gate by gate."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network)
    hidden = [weights.initial @ np.array([0.0, 0.0, mz]) + weights.initial_bias] * 3
    outputs = []
    for flip in flips:
        x = np.array(
            [
                (np.log(t1) + 0.347) / 1.956, (np.log(t2) + 1.956) / 2.649,
                (tr - 12.5e-3) / 7.5e-3, (te - 6.25e-3) / 4.75e-3, flip / 1.2566 - 1,
            ]
        )  # fmt: skip
        for i, layer in enumerate(weights.layers):
            a, b = layer.inputs @ x + layer.input_bias, layer.recurrent @ hidden[i] + layer.recurrent_bias
            (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
            candidate = np.tanh(an + sigmoid(ar + br) * bn)
            z = sigmoid(az + bz)
            x = hidden[i] = (1 - z) * candidate + z * hidden[i]
        outputs.append(weights.readout @ x + weights.readout_bias)
    return np.array(outputs)


def test_the_network_has_as_many_parameters_as_the_papers(model):
    assert sum(leaf.size for leaf in jax.tree.leaves(model.network)) == 16_643


def test_the_network_equals_the_equations_written_out(model):
    signal, jacobian = mr.simulate_with_jacobian(SEQUENCE, TISSUE, model, ("t2",))
    for i, (t1, t2, b1) in enumerate(
        zip(*(np.asarray(leaf) for leaf in (TISSUE.t1, TISSUE.t2, TISSUE.b1)), strict=True)
    ):
        mz = 1 - 2 * np.exp(-20e-3 / t1)
        outputs = by_hand(model.network, t1, t2, 12e-3, 5e-3, np.asarray(FLIPS) * b1, mz)
        assert relative(signal[i], 1j * outputs[:, 0]) < 1e-12
        assert relative(jacobian[i, 0], 1j * outputs[:, 2] / t2) < 1e-12


def test_the_derivative_by_t1_counts_the_recovery_before_the_train(model):
    _, (_, rows) = None, mr.simulate_with_jacobian(SEQUENCE, TISSUE, model, ("t1", "m0"))
    readout = np.stack(
        [
            by_hand(model.network, t1, t2, 12e-3, 5e-3, np.asarray(FLIPS) * b1, 1 - 2 * np.exp(-20e-3 / t1))[:, 1] / t1
            for t1, t2, b1 in zip(*(np.asarray(leaf) for leaf in (TISSUE.t1, TISSUE.t2, TISSUE.b1)), strict=True)
        ]
    )
    # The rest: how the signal changes with the start, times how the start changes with T1.
    step = 1e-5
    starts = [
        np.stack(
            [
                by_hand(model.network, t1, t2, 12e-3, 5e-3, np.asarray(FLIPS) * b1, 1 - 2 * np.exp(-20e-3 / (t1 + h)))[
                    :, 0
                ]
                for t1, t2, b1 in zip(*(np.asarray(leaf) for leaf in (TISSUE.t1, TISSUE.t2, TISSUE.b1)), strict=True)
            ]
        )
        for h in (step, -step)
    ]
    expected = readout + (starts[0] - starts[1]) / (2 * step)
    assert relative(rows[:, 0], 1j * expected) < 1e-6
    assert relative(readout, expected) > 1e-5


def test_derivatives_by_b1_and_flips_are_those_of_the_network(model):
    step = 1e-5
    up, down = (dataclasses.replace(TISSUE, b1=TISSUE.b1 + h) for h in (step, -step))
    numeric = (mr.simulate(SEQUENCE, up, model) - mr.simulate(SEQUENCE, down, model)) / (2 * step)
    _, rows = mr.simulate_with_jacobian(SEQUENCE, TISSUE, model, ("b1",))
    assert relative(rows[:, 0], numeric) < 1e-6

    def energy(flips):
        return jnp.sum(jnp.abs(mr.simulate(mr.sequences.fisp(flips, 12 * ms, 5 * ms), TISSUE, model)) ** 2)

    slope = jax.grad(energy)(FLIPS)
    along = jnp.sin(jnp.arange(N))
    numeric = (energy(FLIPS + step * along) - energy(FLIPS - step * along)) / (2 * step)
    assert float(slope @ along) == pytest.approx(float(numeric), rel=1e-6)


def test_one_transmit_field_for_all_is_that_of_each(model):
    shared = dataclasses.replace(TISSUE, b1=jnp.full(3, 0.9))
    scaled = mr.sequences.fisp(0.9 * FLIPS, 12 * ms, 5 * ms, 20 * ms)
    expected = mr.simulate(scaled, dataclasses.replace(TISSUE, b1=None), model)
    assert relative(mr.simulate(SEQUENCE, shared, model), expected) < 1e-12


def test_phases_turn_the_signal_and_the_receiver_turns_it_back(model):
    turned = mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, 20 * ms, phase=0.7)
    assert relative(mr.simulate(turned, TISSUE, model), mr.simulate(SEQUENCE, TISSUE, model)) < 1e-12
    plain = mr.Tissue(t1=1.0, t2=0.1)
    exact = mr.simulate(SEQUENCE, plain, mr.EPGBloch(pulse=pulse(), n_z=8, orders=20))
    answered = mr.simulate(SEQUENCE, plain, model)
    # Both lie on one axis: a quarter turn ahead of the pulses.
    assert np.abs(exact.real).max() < 1e-12
    assert np.abs(answered.real).max() == 0


def test_a_start_of_the_sequence_is_the_start_of_the_network(model):
    t1 = np.asarray(TISSUE.t1)
    inverted = dataclasses.replace(mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms), initial=jnp.array([0.0, 0.0, -1.0]))
    at_once = mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, 0.0)
    assert relative(mr.simulate(inverted, TISSUE, model), mr.simulate(at_once, TISSUE, model)) < 1e-12
    halfway = mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, float(np.log(2) * t1[1]), inversion_efficiency=0.5)
    started = dataclasses.replace(mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms), initial=jnp.array([0.0, 0.0, 0.25]))
    assert relative(mr.simulate(halfway, TISSUE, model)[1], mr.simulate(started, TISSUE, model)[1]) < 1e-12


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"tissue": {"t1": 6.0}}, "t1 = 6 s"),
        ({"tissue": {"t2": 5e-3}}, "t2 = 0.005 s"),
        ({"tr": 25 * ms, "te": 10 * ms}, "tr = 0.025 s"),
        ({"te": 11 * ms}, "te / tr = 0.9167"),
        ({"flips": 2.6 * jnp.ones(N)}, "flip times b1 = 149"),
        ({"flips": -FLIPS}, "flip times b1 = -"),
    ],
)
def test_outside_of_what_was_trained_it_warns(model, changed, told):
    tissue = mr.Tissue(**{"t1": 1.0, "t2": 0.1, **changed.get("tissue", {})})
    sequence = mr.sequences.fisp(changed.get("flips", FLIPS), changed.get("tr", 12 * ms), changed.get("te", 5 * ms))
    with pytest.warns(mr.AccuracyWarning, match=told.replace(".", r"\.")):
        mr.simulate(sequence, tissue, model)


@pytest.mark.parametrize(
    ("sequence", "tissue", "told"),
    [
        (mr.sequences.bssfp(FLIPS, 12 * ms), {}, "gradient-spoiled"),
        (mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, phase=jnp.arange(N) ** 2.0), {}, "one phase"),
        (SEQUENCE, {"b0": 10.0}, "not b0"),
        (mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, pulse=mr.rf.gaussian(2 * ms, 3.0, 3e-3)), {}, "Gaussian of 1 ms"),
        (mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, pulse=mr.rf.sinc(1 * ms, 3.0, 3e-3)), {}, "Gaussian of 1 ms"),
    ],
)
def test_what_it_never_learnt_is_refused(model, sequence, tissue, told):
    with pytest.raises(ValueError, match=told):
        mr.simulate(sequence, mr.Tissue(t1=1.0, t2=0.1, **tissue), model)


def test_the_pulse_it_was_trained_for_is_accepted_at_any_thickness(model):
    sequence = mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, 20 * ms, pulse=mr.rf.gaussian(1 * ms, 3.0, 5e-3))
    assert relative(mr.simulate(sequence, TISSUE, model), mr.simulate(SEQUENCE, TISSUE, model)) == 0


def test_transformations_and_devices_do_not_change_it(model):
    expected = mr.simulate(SEQUENCE, TISSUE, model)
    assert relative(jax.jit(lambda t: mr.simulate(SEQUENCE, t, model))(TISSUE), expected) < 1e-12
    one_by_one = jax.vmap(lambda t: mr.simulate(SEQUENCE, t, model))(TISSUE)
    assert relative(one_by_one, expected) < 1e-12
    assert relative(mr.simulate(SEQUENCE, TISSUE, model, devices=jax.devices()), expected) < 1e-12


def test_the_shipped_network_says_how_exact_it_is():
    shipped = mr.RNN.pretrained()
    card = surrogate.card()
    assert float(shipped.error) == pytest.approx(max(max(row) for row in card["errors"].values()))
    assert card["trained_on"]["signals"] > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tissue = mr.Tissue(t1=[0.8, 1.4], t2=[0.05, 0.1])
        train = trains.sin_squared(jnp.array([40.0, 70.0, 20.0, 60.0, 30.0]) * deg, 1120)
        sequence = mr.sequences.fisp(train[:300], 12 * ms, 5 * ms, 20 * ms)
        found = mr.simulate(sequence, tissue, shipped)
    exact = mr.simulate(sequence, tissue, mr.EPGBloch(pulse=pulse(), orders=30))
    assert relative(found, exact) < 0.05


def test_other_files_are_refused(tmp_path, model):
    path = tmp_path / "weights.eqx"
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="line of JSON"):
        surrogate.load(path)
    path.write_bytes(b"[1, 2]\n")
    with pytest.raises(ValueError, match="not with a header"):
        surrogate.load(path)
    checkpoints.save(path, model.network, {"epoch": 1})
    with pytest.raises(ValueError, match="no file of a trained surrogate"):
        surrogate.load(path)
    checkpoints.save(path, model.network, {"errors": {"Spline5": [0.1, 0.3]}})
    assert float(surrogate.load(path).error) == pytest.approx(0.3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged"):
        surrogate.load(path)
    path.write_bytes(json.dumps({"errors": {"a": [0, 0]}}).encode() + b"\n" + whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        surrogate.load(path)
