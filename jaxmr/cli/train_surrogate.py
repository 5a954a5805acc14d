"""`jaxmr train-surrogate`: simulate signals, train the recurrent network on them, and write its weights.

All that is made lies in the folder --out: a training that was interrupted goes on when the command is given again.
"""

import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmr.cli import options as shared
from jaxmr.cli import summary
from jaxmr.cli.info import versions
from jaxmr.core.files import whole
from jaxmr.learning import checkpoints
from jaxmr.mrf.surrogate import examples, rnn, training
from jaxmr.plot.search import search_figure
from jaxmr.sequences.trains import KINDS

PART, SAMPLE = 1000, 25
"""Signals of the test that are looked at after each epoch (all of them at the end), and of a sample to check a card."""
BANDS = 0.01, 0.03, 0.1, 0.3, 1, 2.01
"""Edges of T2, s; the last lies above all."""
SHIPPED = "shipped"
"""What --start calls the weights that come with jaxmr."""


def run(options: Any) -> None:
    shared.use_cores()
    if options.pulses % options.crop or not 0 < options.together <= options.signals:
        raise ValueError(
            f"--pulses {options.pulses} must be a multiple of --crop {options.crop}, and --together "
            f"{options.together} at most --signals {options.signals}"
        )
    out, seconds = Path(options.out), {}
    drawn = {"n_pulses": options.pulses, "progress": options.progress}
    with shared.timed(seconds, "signals"):
        # Of each training its own signals.
        learnt = examples.cached(out / "train.npz", options.signals, 2 * options.seed + 1, augmented=True, **drawn)
        test = examples.cached(out / "test.npz", options.test, 2 * options.seed + 2, augmented=False, **drawn)
        sample = examples.simulate(examples.draw(SAMPLE, 0, augmented=False))
    settings = training.Settings(
        options.epochs, options.together, options.crop, options.rate, options.warm_up, options.seed
    )
    start, lineage = (None, None) if options.start is None else _begun(options.start)
    part = training.taken(test, slice(None, None, -(-options.test // PART)))
    history = []
    with shared.timed(seconds, "training"):
        for reached in training.train(
            learnt, part, settings, start=start, checkpoint=out / "checkpoint.eqx", progress=options.progress
        ):
            history.append([reached.loss, *reached.table.ravel()])
            print(f"epoch {reached.epoch:4} loss {reached.loss:.6f}  {_line(reached.table)}", flush=True)
            checkpoints.save(
                out / "rnn.eqx", reached.network, card(reached.network, part, sample, options, reached.epoch, lineage)
            )
    network = rnn.load(out / "rnn.eqx").network
    known = card(network, test, sample, options, options.epochs, lineage)
    checkpoints.save(out / "rnn.eqx", network, known)
    written = ["rnn.eqx", *_drawn(out, history)]
    n = sum(leaf.size for leaf in jax.tree.leaves(network))
    ran = {
        "network": f"{n} parameters",
        "trained on": f"{options.signals} signals of {options.pulses} pulses, {options.epochs} epochs",
        "errors": f"of {options.test} other signals: {_line(np.array(list(known['errors'].values())))}",
    }
    report = summary.report("train-surrogate", ran=ran, seconds=seconds)
    summary.write(out / "summary.json", report)
    print(summary.text(report))
    print(f"\nwritten to {out}: {', '.join(written)}, summary.json")


def card(network: Any, test: Any, sample: Any, options: Any, epoch: int, lineage: Any) -> dict[str, Any]:
    """What to know of a network: how exact it is, what it was trained on, and by what."""
    found = training.outputs(network, test.inputs)
    return {
        "errors": _named(training.errors(found, test)),
        "of": "signal, and derivatives by log T1 and log T2: norm of the error over norm of the reference, by family",
        "errors_of_sample": _named(training.table(network, sample)),
        "readout_against_autodiff": float(f"{training.readout_difference(network, sample.inputs):.4g}"),
        "sample": f"{SAMPLE} signals of {examples.N_PULSES} pulses, seed 0",
        "trained_on": {"signals": options.signals, "pulses": options.pulses, "epochs": epoch, "seed": options.seed},
        "tested_on": len(test.outputs),
        "errors_by_t2": _by_t2(found, test),
        "not_learnt": "trains that change faster than the families over so many pulses: a whole lobe in 40 pulses, say",
        "started_from": lineage,
        "pulse": "Gaussian, 1 ms, time-bandwidth 3",
        "ranges": {
            "t1": examples.T1,
            "t2": examples.T2,
            "tr": examples.TR,
            "te_over_tr": examples.TE_PART,
            "flip_times_b1_degrees": (0, 144),
        },
        "versions": versions(),
    }


def _begun(start: str) -> tuple[Any, dict[str, Any]]:
    """The network to begin with, and what it had learnt from."""
    path = None if start == SHIPPED else start
    model, before = (rnn.RNN.pretrained() if path is None else rnn.load(path)), rnn.card(path)
    return model.network, {"weights": start, **{name: before[name] for name in ("trained_on", "started_from")}}


def _by_t2(found: np.ndarray, test: Any) -> dict[str, list[float]]:
    """Errors of signal and derivatives in bands of T2, over all families."""
    t2 = test.inputs.t2
    bands = [(low, high, (low <= t2) & (t2 < high)) for low, high in itertools.pairwise(BANDS)]
    return {
        f"{low:g} ... {high:g} s": _rounded(training.relative_errors(found[band], test.outputs[band]))
        for low, high, band in bands
        if band.any()
    }


def _rounded(row: np.ndarray) -> list[float]:
    return [float(f"{error:.5g}") for error in row]


def _named(table: np.ndarray) -> dict[str, list[float]]:
    return {kind: _rounded(row) for kind, row in zip(KINDS, table, strict=True)}


def _drawn(out: Path, history: list) -> list[str]:
    """The course of a training, if there was one, as a figure."""
    if not history:
        return []
    columns = np.array(history)
    curves = {"loss (log10)": np.log10(columns[:, 0])}
    for i, name in enumerate(("signals", "derivatives")):
        curves[f"{name}, % (log10)"] = np.log10(100 * columns[:, 1 + i :: 2])
    with whole(out / "training.png") as partial:
        search_figure(curves).savefig(partial, dpi=150)
    return ["training.png"]


def _line(table: np.ndarray) -> str:
    """A table as one line: signal and derivatives of each family, per cent."""
    return ", ".join(f"{kind} {100 * row[0]:.2f}/{100 * row[1]:.2f} %" for kind, row in zip(KINDS, table, strict=True))
