"""PyPulseq's own tests pass with `jaxmr.pulseq` in its place; their calls give the same events from live numbers."""

import os
import pickle
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pypulseq
import pytest

import jaxmr.pulseq as pp
import pulseq_own
from jaxmr.pulseq.live import Live, arithmetic, is_live, numpy_functions, rounded, value
from jaxmr.pulseq.live.evaluation import Program
from jaxmr.pulseq.live.graph import named_input

pytestmark = pytest.mark.filterwarnings("ignore")  # PyPulseq warns of short delays and default durations

# What does not pass with PyPulseq itself either, each with its reason.
NOT_THERE = {
    r"\[write_\w+\]": "the example scripts are not in the distribution",
    r"test_writeread\[": "the fixture that compares files is not in the distribution",
    r"test_calc_adc_segments": "its table is not in the distribution",
    r"test_sigpy": "sigpy is not installed",
    r"simple_mprage1[23]0": "these files are not in the distribution",
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
    assert Counter(verdict for verdict, _ in verdicts)["PASSED"] >= 1275, output[-2000:]


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
    """One recorded call."""

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

    def live(self, change=()):
        """The event from live numbers, moved by `change`, a dictionary of names."""
        moved = dict(change)
        args, kwargs = self.substituted(lambda name, x: Live(x + moved.get(name, 0.0), named_input(name, x)))
        return dict(members(getattr(pp, self.name)(*args, **kwargs)))


def replays(own, step):
    """The recorded calls; one in `step` of those of the slow design, which are most of them."""
    found = [Replay(i, one) for i, one in enumerate(pickle.loads(own[1].read_bytes()))]
    slow = [replay for replay in found if replay.name == "make_extended_trapezoid_area"]
    return [replay for replay in found if replay not in slow] + slow[::step]


def compare_events(some):
    """Live calls give the same event, on the concrete side to the bit, on the evaluated side to 1e-12."""
    outputs, inputs, labels = [], {}, []
    for replay in some:
        plain, live = replay.plain(), replay.live()
        assert plain.keys() == live.keys(), replay.name
        for key, expected in plain.items():
            np.testing.assert_array_equal(value(live[key]), expected, err_msg=f"{replay.name}{key}")
            if is_live(live[key]):
                outputs.append(live[key])
                labels.append(f"{replay.name}{key}")
        inputs |= {name: jnp.asarray(x) for name, x in replay.numbers().items()}
    for label, out, found in zip(labels, outputs, Program(outputs)(inputs), strict=True):
        expected = np.asarray(out.value)
        largest = np.max(np.abs(expected), initial=0.0)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * largest + 1e-15, err_msg=label)


def test_live_calls_give_the_same_events(own):
    some = replays(own, 400)
    names = {replay.name for replay in some}
    assert names >= {"make_trapezoid", "make_sinc_pulse", "make_gauss_pulse", "make_block_pulse", "make_adc"}
    compare_events(some)


@pytest.mark.slow
def test_all_live_calls_give_the_same_events(own):
    compare_events(replays(own, 1))


class Held:
    """Rounding that, after a first run, adds what it added then: the derivative of rounding is the identity's."""

    def __init__(self, monkeypatch):
        self.added, self.position, self.recording = [], 0, True
        for module in (arithmetic, numpy_functions):
            monkeypatch.setattr(module, "rounded", self)
        for whole in ("__int__", "__index__"):
            monkeypatch.setattr(Live, whole, lambda live: int(np.rint(live.value)))

    def __call__(self, x, concrete, name, digits=None):
        if self.recording:
            self.added.append(concrete - x.value)
            return rounded(x, concrete, name, digits)
        self.position += 1
        return Live(x.value + self.added[self.position - 1], x.node)

    def rerun(self, call):
        self.position, self.recording = 0, False
        try:
            return call()
        finally:
            self.recording = True


def held_differences(held, replay, name, x):
    """Derivatives of every number of the event by one argument, rounding held: from each side that can be reached."""
    held.added = []
    live = replay.live()
    here = {key: value(part) for key, part in live.items()}
    fixed = [key for key, part in live.items() if not is_live(part)]
    sides = []
    for step in (-1e-5 * x, 1e-5 * x):
        try:
            runs = [held.rerun(lambda h=h: replay.live({name: h})) for h in (step, 2 * step)]
        except (ValueError, AssertionError, IndexError):
            continue
        once, twice = ({key: value(part) for key, part in run.items()} for run in runs)
        alike = all(np.shape(here[k]) == np.shape(once.get(k)) == np.shape(twice.get(k)) for k in here)
        # what is not live was decided, and must be decided alike
        if alike and all(np.array_equal(here[k], once[k]) and np.array_equal(here[k], twice[k]) for k in fixed):
            sides.append({k: (4 * once[k] - 3 * here[k] - twice[k]) / (2 * step) for k in here})
    return sides


def test_derivatives_of_live_calls_are_those_of_finite_differences(own, monkeypatch):
    some = replays(own, 400)
    held = Held(monkeypatch)
    compared = skipped = 0
    for replay in some:
        live = replay.live()
        keys = [key for key, part in live.items() if is_live(part)]
        program = Program([live[key] for key in keys])
        numbers = {name: jnp.asarray(x) for name, x in replay.numbers().items()}
        for name, x in replay.numbers().items():
            if not isinstance(x, float) or x == 0.0 or not keys:
                continue
            sides = held_differences(held, replay, name, x)
            if not sides:
                skipped += 1
                continue
            tangents = {n: jnp.ones_like(v) * (n == name) for n, v in numbers.items()}
            found = jax.jvp(program, (numbers,), (tangents,))[1]
            for key, derivative in zip(keys, found, strict=True):
                atol = 1e-6 * (np.max(np.abs(live[key].value)) / abs(x) + np.max(np.abs(derivative)))
                assert any(np.allclose(derivative, side[key], rtol=1e-5, atol=atol) for side in sides), (
                    f"{replay.name}{key} by {name}: {derivative} but {[side[key] for side in sides]}"
                )
                compared += 1
    assert compared > 300
    assert skipped < 0.2 * compared
