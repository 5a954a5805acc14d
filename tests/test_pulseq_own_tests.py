"""PyPulseq's own tests pass with `jaxmr.pulseq` in its place; their calls give the same events from live numbers."""

import os
import pickle
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pypulseq
import pytest

import jaxmr.pulseq as pp
import pulseq_own
from jaxmr.pulseq.evaluation import Program
from jaxmr.pulseq.graph import named_input
from jaxmr.pulseq.live import Live, is_live, value

pytestmark = pytest.mark.filterwarnings("ignore")  # PyPulseq warns of short delays and default durations

# What does not pass with PyPulseq itself either, each with its reason.
NOT_THERE = {
    r"\[write_\w+\]": "the example scripts are not in the distribution",
    r"test_writeread\[": "the fixture that compares files is not in the distribution",
    r"test_calc_adc_segments": "its table is not in the distribution",
    r"test_sigpy": "sigpy is not installed",
    r"test_sequence_backwards_compatibility": "one of its files is not in the distribution",
}


@pytest.fixture(scope="module")
def own(shared, tmp_path_factory):
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxmr-tests"
    cache.mkdir(parents=True, exist_ok=True)
    return pulseq_own.run_redirected(cache, tmp_path_factory.mktemp("own"), shared / "pypulseq")


def test_its_own_tests_pass(own):
    output, _ = own
    verdicts = re.findall(r"^(PASSED|FAILED|ERROR) (\S+)", output, flags=re.MULTILINE)
    bad = [name for verdict, name in verdicts if verdict != "PASSED"]
    unexplained = [name for name in bad if not any(re.search(pattern, name) for pattern in NOT_THERE)]
    assert not unexplained, "\n".join(unexplained)
    assert Counter(verdict for verdict, _ in verdicts)["PASSED"] >= 1280, output[-2000:]


def members(event, prefix=""):
    """(name, number) of everything numeric in what a make_* function returned."""
    if isinstance(event, SimpleNamespace):
        for name, part in vars(event).items():
            yield from members(part, f"{prefix}.{name}")
    elif isinstance(event, list | tuple):
        for i, part in enumerate(event):
            yield from members(part, f"{prefix}[{i}]")
    elif isinstance(event, Live | np.ndarray | float | int | complex):
        yield prefix, event


def is_number(x):
    return isinstance(x, float) or (isinstance(x, np.ndarray) and x.dtype.kind == "f")


class Replay:
    """One recorded call: `plain(change)` and `live()` run it, the first with its numbers moved by change."""

    def __init__(self, number, pickled):
        self.name, self.args, self.kwargs = pickle.loads(pickled)
        self.number = number
        self.function = getattr(pypulseq, self.name)

    def substituted(self, make):
        args = tuple(make(f"{self.number}.{i}", x) if is_number(x) else x for i, x in enumerate(self.args))
        kwargs = {k: make(f"{self.number}.{k}", x) if is_number(x) else x for k, x in self.kwargs.items()}
        return args, kwargs

    def numbers(self):
        found = {}
        self.substituted(lambda name, x: found.setdefault(name, x))
        return found

    def plain(self):
        return dict(members(self.function(*self.args, **self.kwargs)))

    def live(self):
        args, kwargs = self.substituted(lambda name, x: Live(x, named_input(name, x)))
        return dict(members(getattr(pp, self.name)(*args, **kwargs)))


@pytest.fixture(scope="module")
def replays(own):
    pickled = pickle.loads(own[1].read_bytes())
    return [Replay(i, one) for i, one in enumerate(pickled)]


def test_live_calls_give_the_same_events(replays):
    assert len(replays) > 200
    names = Counter(replay.name for replay in replays)
    assert {"make_trapezoid", "make_sinc_pulse", "make_gauss_pulse", "make_block_pulse", "make_adc"} <= set(names)
    outputs, inputs, labels = [], {}, []
    for replay in replays:
        plain, live = replay.plain(), replay.live()
        assert plain.keys() == live.keys(), replay.name
        for key, expected in plain.items():
            np.testing.assert_array_equal(value(live[key]), expected, err_msg=f"{replay.name}{key}")
            if is_live(live[key]):
                outputs.append(live[key])
                labels.append(f"{replay.name}{key}")
        inputs |= replay.numbers()
    program = Program(outputs)
    wanted = {name: jnp.asarray(x) for name, x in inputs.items()}
    for label, out, found in zip(labels, outputs, program(wanted), strict=True):
        expected = np.asarray(out.value)
        largest = np.max(np.abs(expected), initial=0.0)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * largest + 1e-15, err_msg=label)
