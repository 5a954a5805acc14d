"""Claim: dictionaries and designs run on the surrogates as on EPG-Bloch; how much time that saves, and what it costs.

Dictionary: the 312,480 atoms of `brain_scan.py` at rank 12, each made anew (and left in --cache, for `figure7.py`) by
EPG-Bloch with 32 sub-slices and with 6 trained ones at a tolerance of 1e-3, and by the network. Seconds include plans
and basis; compilation stands apart. Error: of the signals of 256 atoms, norm over norm, against EPG-Bloch at 1e-4 with
64 sub-slices. With each the radial scan of figure 7 is reconstructed, without noise and with it; the scanned signals
are EPG-Bloch's. Design: the problem of `design.py`, by differential evolution and by gradients from three seeds, with
the loss of each model; every train is judged by EPG-Bloch with 32 sub-slices, by 20 orders and by all.

    uv run benchmarks/surrogate_applications.py
    uv run benchmarks/surrogate_applications.py --sides 50 50 15 --only dictionary --weights out/surrogate/rnn.eqx
"""

import argparse
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import brain_scan
import design
import figure7
import jaxmr as mr
from jaxmr.core import digests
from jaxmr.models import driver
from jaxmr.mrf import surrogate
from jaxmr.units import deg
from reporting import RESULTS, compilation_clock, save

NAMES = "EPG-Bloch", "EPG-Bloch, 6 nodes", "RNN"
TOGETHER = 64
"""Members of a population that the network takes side by side."""
JUDGED, FINE = 256, 64
"""Atoms whose signals are compared, and sub-slices of the reference."""


def made(name: str, cache: Path, sides: tuple, compiled) -> tuple[Any, dict]:
    """The dictionary of a model, made anew, and how long that took."""
    path = brain_scan.store_path(name, cache, sides)
    shutil.rmtree(path, ignore_errors=True)
    before, start = compiled(), time.perf_counter()
    dictionary = brain_scan.dictionary(name, cache, sides)
    seconds = time.perf_counter() - start
    row = {"dictionary": name, "atoms": len(dictionary.atoms), "compilation": compiled() - before}
    store = mr.mrf.store.read(path)
    row |= {"seconds": seconds - row["compilation"], "plans": len(store.header.bands), "energy": store.energy}
    return dictionary, row


def signal_errors(dictionary, names) -> dict[str, dict]:
    """Relative errors of the signals of some atoms by each model."""
    rows = np.random.default_rng(0).choice(len(dictionary.atoms), min(JUDGED, len(dictionary.atoms)), replace=False)
    atoms = mr.Tissue(**{axis: values[rows] for axis, values in dictionary.parameters.items()})
    signals = lambda model: driver.simulate_many(brain_scan.sequence(), atoms, model).signals  # noqa: E731
    exact = signals(mr.EPGBloch(pulse=brain_scan.pulse(), n_z=FINE, tolerance=brain_scan.EXACT))
    found = {}
    for name in names:
        wrong = np.linalg.norm(signals(brain_scan.MODELS[name]()) - exact, axis=1)
        right = np.linalg.norm(exact, axis=1)
        found[name] = {
            "error": float(np.linalg.norm(wrong) / np.linalg.norm(right)),
            "median_error": float(np.median(wrong / right)),
            "worst_error": float(np.max(wrong / right)),
        }
    return found


def dictionaries(cache: Path, sides: tuple) -> list[dict]:
    """Rows of the dictionaries, and of the scan reconstructed with each."""
    compiled = compilation_clock()
    phantom, truth = brain_scan.phantom()
    signals = brain_scan.signals(cache)
    kept, rows = {}, []
    for name in NAMES:
        kept[name], row = made(name, cache, sides, compiled)
        rows.append(row)
    errors = signal_errors(kept[NAMES[0]], NAMES)
    print(
        f"{'dictionary':20}{'atoms':>9}{'seconds':>9}{'compilation':>13}{'plans':>7}{'error':>9}{'median':>9}{'worst':>9}"
    )
    for row in rows:
        row |= errors[row["dictionary"]]
        times = f"{row['seconds']:9.1f}{row['compilation']:13.1f}{row['plans']:7}"
        told = "".join(f"{row[key]:9.1e}" for key in ("error", "median_error", "worst_error"))
        print(f"{row['dictionary']:20}{row['atoms']:9}{times}{told}", flush=True)
    k = brain_scan.readouts("radial")
    exact = mr.mrf.sample_series(signals, phantom, k, progress=True)
    noisy, noise_std = mr.mrf.add_noise(exact, brain_scan.SNR)
    estimates = {}
    figure7.heading()
    for snr, samples in ((None, exact), (brain_scan.SNR, noisy)):
        scan = {"trajectory": "radial", "snr": snr, "noise_std": noise_std if snr else 0.0}
        found, estimates = figure7.compared(samples, k, kept, phantom, truth, **scan)
        rows += found
    figure7.draw(truth, estimates, "surrogate_applications-radial.png")
    return rows


def designs(progress: bool) -> list[dict]:
    """Rows of the searches with each model."""
    coarse, fine = design.models()["epg-bloch"]
    largest = design.fisp(np.full(design.N, design.LARGEST, np.float32))
    nodes = mr.EPGBloch(pulse=brain_scan.pulse(), nodes=mr.mrf.trained_nodes(6), orders=design.FINE[1])
    models = {
        NAMES[0]: {"evolution": (fine,), "gradient": (coarse, fine)},
        NAMES[1]: dict.fromkeys(("evolution", "gradient"), (nodes.tabulated(largest, design.tissue()),)),
        NAMES[2]: dict.fromkeys(("evolution", "gradient"), (brain_scan.MODELS["RNN"](),)),
    }
    rows = []
    print(f"{'train':22}{'objective':>9}" + "".join(f"{title:>{width}}" for title, width in design.COLUMNS.values()))
    for name, solvers in models.items():
        print(name)
        together = TOGETHER if name == "RNN" else 1
        for solver, several in solvers.items():
            found = design.searched(solver, several, progress, judge=fine, together=together)
            rows += [{"model": name, "generations": len(row["history"]), **row} for row in found]
    titles = {"its own loss": 14, "EPG-Bloch": 11, "all orders": 12, "seconds": 9, "steps": 7}
    print(f"{'model':20}{'solver':11}{'seed':>5}" + "".join(f"{title:>{width}}" for title, width in titles.items()))
    for row in rows:
        told = f"{row['loss']:14.4f}{row['objective']:11.4f}{row['objective_all_orders']:12.4f}{row['seconds']:9.2f}"
        print(f"{row['model']:20}{row['solver']:11}{row['seed']:5}{told}{row['steps']:7}")
    evolved = [row for row in rows if row["solver"] == "evolution"]
    best = {name: min((row for row in evolved if row["model"] == name), key=lambda row: row["loss"]) for name in NAMES}
    drawn = mr.plot.design_figure(
        {"original": design.original(), **{name: np.array(row["flips_deg"]) * deg for name, row in best.items()}},
        {name: row["history"] for name, row in best.items()},
    )
    RESULTS.mkdir(exist_ok=True)
    drawn.savefig(RESULTS / "surrogate_applications-design.png", dpi=110)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("out/figure7"), help="folder of dictionaries and signals")
    parser.add_argument("--sides", type=int, nargs=3, default=brain_scan.SIDES, help="values of T1, T2 and B1")
    parser.add_argument("--weights", type=Path, help="of the network, in place of those that come with jaxmr")
    parser.add_argument("--only", choices=("dictionary", "design"), help="one part, printed and drawn but not saved")
    parser.add_argument("--no-progress", dest="progress", action="store_false")
    options = parser.parse_args()
    mr.use_cores()
    if options.weights is not None:
        network = surrogate.load(options.weights)
        brain_scan.MODELS["RNN"] = lambda: network
    network = brain_scan.MODELS["RNN"]()
    rows: list[dict] = [{"network": digests.digest(network), "largest_error_of_its_card": float(network.error)}]
    print(f"network {rows[0]['network']}, largest error of its card {100 * float(network.error):.2f} %")
    if options.only != "design":
        rows += dictionaries(options.cache, tuple(options.sides))
    if options.only != "dictionary":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mr.AccuracyWarning)  # 20 orders are the paper's
            rows += designs(options.progress)
    if options.only is None and tuple(options.sides) == brain_scan.SIDES:
        print(f"-> {save('surrogate_applications', rows)}")


if __name__ == "__main__":
    main()
