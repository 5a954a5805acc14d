"""Claim: how exact the network is on each family of trains, beside that of the paper and trained sub-slices.

Table 1 of Liu et al.: 10,000 signals of 1120 pulses that no network was trained on (simulated exactly first, in
minutes, and kept in --cache); norm of the error over norm of the reference, over all signals of a family, of the
signal and of its derivatives by log T1 and log T2. Figures 4 and 5: one train of squared sines, and one longer than
and unlike those trained on, with times that vary from pulse to pulse.

    uv run benchmarks/surrogate_table.py
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import jaxmr as mr
from jaxmr.sequences.trains import KINDS
from reporting import RESULTS, save

TISSUES = {"white matter": (0.6, 0.08), "grey matter": (1.1, 0.1), "CSF": (4.0, 1.5)}
NODES = 5, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", default="out/surrogate", help="folder for the signals (default out/surrogate)")
    parser.add_argument("--signals", type=int, default=10_000, help="fewer than 10000 for a trial")
    options = parser.parse_args()
    mr.use_cores()
    from jaxmr.mrf.surrogate import examples, training

    path = Path(options.cache) / ("test.npz" if options.signals == 10_000 else f"test-{options.signals}.npz")
    test = examples.cached(path, options.signals, 2, n_pulses=1120, augmented=False, progress=True)
    network = mr.RNN.pretrained().network
    tables = {"paper": 100 * np.array(training.GOAL), "RNN": 100 * training.table(network, test)}
    for n in NODES:
        few = mr.EPGBloch(pulse=examples.pulse(), nodes=mr.mrf.trained_nodes(n))
        tables[f"EPG-Bloch, {n} trained nodes"] = 100 * training.errors(
            examples.simulate(test.inputs, few, progress=True).outputs, test
        )
    print("signal / derivatives, per cent".ljust(30), *(f"{kind:>15}" for kind in KINDS))
    rows: list[dict[str, Any]] = []
    for name, table in tables.items():
        print(name.ljust(30), *(f"{a:7.2f}/{b:7.2f}" for a, b in table))
        rows.append({"model": name, "table": np.round(table, 4).tolist()})
    rows += [figure(name, *case()) for name, case in (("figure 4", figure_4), ("figure 5", figure_5))]
    if options.signals == 10_000:
        print(f"-> {save('surrogate_table', rows)}")


def figure_4():
    """Squared sines, inverted, constant times."""
    import jax.numpy as jnp

    n = 1120
    flip = mr.sequences.trains.sin_squared(jnp.deg2rad(jnp.array([70.0, 35, 100, 50, 85])), n)
    return np.asarray(flip), np.full(n, 8.7e-3), np.full(n, 4.9e-3), -1.0


def figure_5():
    """A spline, then constants, then the spline backwards, longer than what was trained on; no inversion."""
    rng = np.random.default_rng(5)
    spline = np.asarray(mr.sequences.trains.random_train("Spline11", 800, rng))
    pieces = np.asarray(mr.sequences.trains.random_train("PieceConstant5", 400, rng))
    flip = np.concatenate([spline, pieces, spline[::-1]])
    tr = rng.uniform(5e-3, 20e-3, len(flip))
    return flip, tr, tr * rng.uniform(0.3, 0.7, len(flip)), 1.0


def figure(name: str, flip, tr, te, mz: float) -> dict:
    """Signals and derivatives of three tissues by the network and exactly, drawn, and their errors."""
    import jax.numpy as jnp
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from jaxmr.mrf.surrogate import examples

    sequence = examples.sequence(*(jnp.asarray(part, jnp.float32) for part in (flip, tr, te, mz)))
    t1, t2 = np.array(list(TISSUES.values()), np.float32).T
    tissue = mr.Tissue(t1=t1, t2=t2)
    models = {"EPG-Bloch": mr.EPGBloch(pulse=examples.pulse()), "RNN": mr.RNN.pretrained()}
    found = {}
    for model, by in models.items():
        signal, rows = mr.simulate_with_jacobian(sequence, tissue, by)
        logarithmic = np.asarray(rows) * np.stack([t1, t2], axis=1)[:, :, None]
        together: Any = np.concatenate([np.asarray(signal)[:, None], logarithmic], axis=1)
        found[model] = together.imag
    drawn = Figure(figsize=(13, 9), layout=ConstrainedLayoutEngine())
    axes: Any = drawn.subplots(4, 3, sharex=True, squeeze=False)
    axes[0, 0].plot(np.degrees(flip), "k", linewidth=0.8)
    axes[0, 0].set(title="flip (degrees)")
    axes[0, 1].plot(1e3 * np.stack([tr, te], axis=1), linewidth=0.4 if np.ptp(tr) else 1.2)
    axes[0, 1].set(title="TR, TE (ms)")
    axes[0, 2].set_axis_off()
    error = np.linalg.norm(found["RNN"] - found["EPG-Bloch"], axis=-1) / np.linalg.norm(found["EPG-Bloch"], axis=-1)
    for column, what in enumerate(("signal", "derivative by log T1", "derivative by log T2")):
        for row, label in enumerate(TISSUES, start=1):
            axis = axes[row, column]
            axis.plot(found["EPG-Bloch"][row - 1, column], "k", linewidth=1.4, label="EPG-Bloch")
            axis.plot(found["RNN"][row - 1, column], "tab:orange", linewidth=0.8, label="RNN")
            axis.set_title(f"{label}: {what}, error {100 * error[row - 1, column]:.1f} %", fontsize=9)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("pulse")
    axes[1, 0].legend(frameon=False)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"surrogate-{name.replace(' ', '-')}.png"
    drawn.savefig(path, dpi=110)
    print(f"{name}: {path}")
    return {
        "figure": name,
        "errors": {label: np.round(100 * e, 3).tolist() for label, e in zip(TISSUES, error, strict=True)},
    }


if __name__ == "__main__":
    main()
