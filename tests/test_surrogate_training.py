"""Signals to learn from are exact and reproducible, and a training learns, survives a kill, and repeats itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import relative, selective_train
from jaxmr.__main__ import main
from jaxmr.cli import train_surrogate
from jaxmr.learning import checkpoints
from jaxmr.mrf import surrogate
from jaxmr.mrf.surrogate import examples, network, training
from jaxmr.mrf.surrogate.examples import Inputs
from jaxmr.mrf.surrogate.training import Settings
from jaxmr.sequences.trains import KINDS

SETTINGS = Settings(epochs=3, together=20, crop=70, rate=0.02, warm_up=2)


@pytest.fixture(scope="module")
def few():
    return examples.simulate(examples.draw(40, 3, n_pulses=140, augmented=True))


def of(inputs, i):
    return Inputs(*(leaf[i] for leaf in inputs))


def test_draws_stay_in_the_ranges_and_repeat():
    inputs = examples.draw(500, 7, n_pulses=130, augmented=False)
    assert np.bincount(inputs.kind).tolist() == [100] * len(KINDS)
    assert set(np.unique(inputs.mz)) == {-1, 1}
    assert inputs.flip.min() >= 0
    assert np.degrees(inputs.flip.max()) <= 120 + 1e-3
    for values, (low, high) in ((inputs.t1, examples.T1), (inputs.t2, examples.T2), (inputs.tr, examples.TR)):
        assert low <= values.min() * (1 + 1e-6)
        assert values.max() <= high * (1 + 1e-6)
        assert np.ptp(values) > 0.8 * (high - low)
    assert (inputs.t1 >= inputs.t2).all()
    part = inputs.te / inputs.tr
    assert part.min() > 0.3 - 1e-6
    assert part.max() < 0.7 + 1e-6
    constant = np.ptp(inputs.tr, axis=1) == 0
    assert 0.4 < constant.mean() < 0.6
    np.testing.assert_array_equal(np.ptp(inputs.te, axis=1) == 0, constant)
    again = examples.draw(500, 7, n_pulses=130, augmented=False)
    assert all(np.array_equal(a, b) for a, b in zip(inputs, again, strict=True))
    assert not np.array_equal(inputs.t1, examples.draw(500, 8, n_pulses=130, augmented=False).t1)


def test_augmented_draws_scale_flips_and_start_anywhere():
    inputs = examples.draw(600, 7, n_pulses=130, augmented=True)
    assert 125 < np.degrees(inputs.flip.max()) <= 144 + 1e-3
    between = np.abs(inputs.mz) < 1
    assert 0.25 < between.mean() < 0.42
    assert inputs.mz.min() == -1
    assert inputs.mz.max() == 1


def test_signals_equal_the_paper_written_out(few):
    for i in (0, 17, 33):
        one = Inputs(*(np.asarray(leaf, float) for leaf in of(few.inputs, i)))
        played = [leaf[:60] for leaf in (one.flip, one.tr, one.te)]
        # The reference begins at equilibrium or inverts it; the signal is linear in the start.
        upright, inverted = (
            selective_train(played[0], examples.pulse(), *played[1:], one.t1, one.t2, inversion_time=time)
            for time in (None, 0.0)
        )
        expected = (1 + one.mz) / 2 * upright + (1 - one.mz) / 2 * inverted
        assert relative(few.outputs[i, :60, 0], expected.imag) < 2e-5


def test_derivatives_are_those_by_the_logarithms(few):
    inputs = of(few.inputs, slice(0, 40, 8))
    step = 1e-2
    for j, name in enumerate(("t1", "t2")):
        ends = [
            examples.simulate(inputs._replace(**{name: getattr(inputs, name) * np.float32(np.exp(h))})).outputs[..., 0]
            for h in (step, -step)
        ]
        assert relative(few.outputs[::8, :, 1 + j], (ends[0] - ends[1]) / (2 * step)) < 2e-3


def test_the_orders_that_are_kept_are_all_that_matter(few, monkeypatch):
    inputs = examples.draw(5, 4, n_pulses=300, augmented=True)
    monkeypatch.setattr(examples, "TOGETHER", 1)
    kept = examples._orders(inputs)
    assert kept.min() < 64
    found = examples.simulate(inputs).outputs
    monkeypatch.setattr(examples, "_orders", lambda inputs: np.full(len(inputs.t1), 300))
    expected = examples.simulate(inputs).outputs
    assert relative(found, expected) < 1e-5


def test_a_training_learns_resumes_bit_by_bit_and_repeats(few, tmp_path):
    run = lambda path, epochs: list(  # noqa: E731
        training.train(few, few, SETTINGS._replace(epochs=epochs), checkpoint=path)
    )
    whole = list(training.train(few, few, SETTINGS))
    assert whole[-1].loss < 0.9 * whole[0].loss
    assert [reached.epoch for reached in whole] == [1, 2, 3]
    path = tmp_path / "checkpoint.eqx"
    killed = training.train(few, few, SETTINGS, checkpoint=path)
    next(killed)
    killed.close()
    assert path.stat().st_size < 1_000_000
    resumed = run(path, 3)
    assert [reached.epoch for reached in resumed] == [2, 3]
    for ours, theirs in zip(jax.tree.leaves(resumed[-1].network), jax.tree.leaves(whole[-1].network), strict=True):
        assert jnp.array_equal(ours, theirs)
    assert run(path, 3) == []
    with pytest.raises(ValueError, match=r"checkpoint .* is of a training with"):
        run(path, 4)
    with pytest.raises(ValueError, match=r"checkpoint .* is of a training with .*'start': None"):
        next(training.train(few, few, SETTINGS, checkpoint=path, start=whole[0].network))


def test_a_training_goes_on_from_a_network(few):
    begun = list(training.train(few, few, SETTINGS))[-1].network
    further = list(training.train(few, few, SETTINGS._replace(rate=0.005), start=begun))
    assert further[-1].loss < list(training.train(few, few, SETTINGS))[-1].loss


def test_one_step_is_that_of_the_gradient_of_all_signals(few):
    """The devices' shares add up: with one device the same step."""
    settings = Settings(epochs=1, together=40, crop=140, rate=0.01, warm_up=0)
    one, two = (next(training.train(few, few, settings, devices=jax.devices()[:n])) for n in (1, 2))
    assert one.loss == pytest.approx(two.loss, rel=1e-5)
    np.testing.assert_allclose(one.table, two.table, rtol=1e-3)
    begun = training.table(network.untrained(jax.random.key(settings.seed)), few)
    assert (np.abs(one.table / begun - 1) > 0.03).all()


def test_the_table_is_error_over_norm_of_each_family(few):
    found = few.outputs.copy()
    found[few.inputs.kind == 2, :, 0] *= 1.02
    found[few.inputs.kind == 4, :, 1:] *= 0.95
    expected = np.zeros((5, 2))
    expected[2, 0], expected[4, 1] = 0.02, 0.05
    np.testing.assert_allclose(training.errors(found, few), expected, atol=1e-6)


def test_the_answers_of_a_network_are_those_of_the_model(few):
    net = network.untrained(jax.random.key(1))
    answers = training.outputs(net, few.inputs)
    one = of(few.inputs, 5)
    sequence = examples.sequence(*(jnp.asarray(part) for part in (one.flip, one.tr, one.te, one.mz)))
    signal, rows = mr.simulate_with_jacobian(
        sequence, mr.Tissue(t1=one.t1, t2=one.t2), surrogate.RNN(net, jnp.asarray(0.1))
    )
    assert relative(answers[5, :, 0], signal.imag) < 1e-5
    assert relative(answers[5, :, 1:].T, rows.imag * np.array([[one.t1], [one.t2]])) < 1e-5


def test_examples_in_a_file_are_those_that_were_asked_for(tmp_path):
    path = tmp_path / "some.npz"
    made = examples.cached(path, 5, 1, n_pulses=101, augmented=False)
    read = examples.cached(path, 5, 1, n_pulses=101, augmented=False)
    assert np.array_equal(made.outputs, read.outputs)
    with pytest.raises(ValueError, match="5 signals of 101 pulses, seed 1, wanted are 5 signals of 101 pulses, seed 2"):
        examples.cached(path, 5, 2, n_pulses=101, augmented=False)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no examples"):
        examples.cached(path, 5, 1, n_pulses=101, augmented=False)


def test_the_command_trains_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_surrogate, "SAMPLE", 5)
    command = ["train-surrogate", "--out", str(tmp_path), "--signals", "20", "--test", "10", "--pulses", "120"]
    command += ["--crop", "60", "--together", "10", "--warm-up", "2"]
    assert main([*command, "--epochs", "2"]) == 0
    told = capsys.readouterr().out
    assert "epoch    2 loss" in told
    assert "16643 parameters" in told
    weights = tmp_path / "rnn.eqx"
    assert checkpoints.read_header(weights)["trained_on"]["epochs"] == 2
    assert float(surrogate.load(weights).error) > 0
    assert (tmp_path / "training.png").stat().st_size > 10_000
    assert main([*command, "--epochs", "3"]) == 2
    assert "remove it, or use its settings" in capsys.readouterr().err
    assert main([*command, "--epochs", "2", "--crop", "50"]) == 2
    assert "multiple of --crop" in capsys.readouterr().err
    (tmp_path / "checkpoint.eqx").unlink()
    assert main([*command, "--epochs", "1", "--start", str(weights)]) == 0
    lineage = checkpoints.read_header(weights)["started_from"]
    assert lineage["weights"] == str(weights)
    assert lineage["trained_on"]["epochs"] == 2
    assert lineage["started_from"] is None


@pytest.fixture(scope="module")
def sample():
    """The small fixed sample whose figures are on every card."""
    return examples.simulate(examples.draw(25, 0, augmented=False))


def test_the_shipped_weights_reproduce_the_shipped_table(sample):
    table = training.table(mr.RNN.pretrained().network, sample)
    stated = surrogate.card()["errors_of_sample"]
    np.testing.assert_allclose(table, [stated[kind] for kind in KINDS], rtol=0.02)


def test_derivatives_read_out_agree_with_those_of_the_signal_within_the_stated_error(sample):
    difference = training.readout_difference(mr.RNN.pretrained().network, sample.inputs)
    assert difference == pytest.approx(surrogate.card()["readout_against_autodiff"], rel=0.02)
    assert difference < 0.25
