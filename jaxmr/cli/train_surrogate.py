"""`jaxmr train-surrogate`: simulate signals, train the recurrent network on them, and write its weights.

All that is made lies in the folder --out: a training that was interrupted goes on when the command is given again.
"""

import time
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

PART = 1000
"""Signals of the test that are looked at after each epoch; all of them at the end."""


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
        # The seeds of the signals are apart from those of other trainings.
        seed = 2 * options.seed
        learnt = examples.cached(out / "train.npz", options.signals, seed + 1, augmented=True, **drawn)
        test = examples.cached(out / "test.npz", options.test, seed + 2, augmented=False, **drawn)
    settings = training.Settings(
        options.epochs, options.together, options.crop, options.rate, options.warm_up, options.seed
    )
    start = None if options.start is None else _weights(options.start)
    step = -(-options.test // PART)
    part = training.taken(test, slice(None, None, step))
    history = []
    began = time.perf_counter()
    path = out / "checkpoint.eqx"
    for reached in training.train(
        learnt, part, settings, start=start, checkpoint=path, progress=options.progress
    ):  # fmt: skip
        history.append([reached.loss, *reached.table.ravel()])
        print(f"epoch {reached.epoch:4} loss {reached.loss:.6f}  {_line(reached.table)}", flush=True)
        _write(out / "rnn.eqx", reached.network, reached.table, reached.epoch, len(part.outputs), options)
    seconds["training"] = time.perf_counter() - began
    network = rnn.load(out / "rnn.eqx").network
    table = training.table(network, test)
    _write(out / "rnn.eqx", network, table, options.epochs, options.test, options)
    written = ["rnn.eqx"]
    if history:
        columns = np.array(history)
        curves = {"loss": np.log10(columns[:, 0])}
        curves |= {f"{name} (%, log10)": np.log10(100 * columns[:, 1 + i :: 2]) for i, name in enumerate(NAMES)}
        with whole(out / "training.png") as partial:
            search_figure(curves).savefig(partial, dpi=150)
        written.append("training.png")
    n = sum(leaf.size for leaf in jax.tree.leaves(network))
    ran = {
        "network": f"{n} parameters",
        "trained on": f"{options.signals} signals of {options.pulses} pulses, {options.epochs} epochs",
        "errors": f"of {options.test} other signals: {_line(table)}",
    }
    report = summary.report("train-surrogate", ran=ran, seconds=seconds)
    summary.write(out / "summary.json", report)
    print(summary.text(report))
    print(f"\nwritten to {out}: {', '.join(written)}, summary.json")


NAMES = ("signal", "derivatives")


def _line(table: np.ndarray) -> str:
    """A table as one line: signal and derivatives of each family, per cent."""
    return ", ".join(f"{kind} {100 * row[0]:.2f}/{100 * row[1]:.2f} %" for kind, row in zip(KINDS, table, strict=True))


def _weights(start: str):
    return (rnn.RNN.pretrained() if start == "shipped" else rnn.load(start)).network


def _write(path: Path, network: Any, table: np.ndarray, epoch: int, tested: int, options: Any) -> None:
    """The weights with their card."""
    card = {
        "errors": {kind: [float(f"{error:.5g}") for error in row] for kind, row in zip(KINDS, table, strict=True)},
        "of": "signal and derivatives by log T1 and log T2: norm of the error over norm of the reference, by family",
        "trained_on": {"signals": options.signals, "pulses": options.pulses, "epochs": epoch, "seed": options.seed},
        "tested_on": tested,
        "started_from": options.start,
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
    checkpoints.save(path, network, card)
