"""Claim: with its exact dictionary the paper's scan of a brain gives true maps, with a small-tip one it does not.

Figure 7 of Liu et al.: 1120 pulses on a 112x112 brain whose voxels are simulated by EPG-Bloch, SNR 40, LR-ADMM
(rank 12, mu 0.015, 20 outer and 10 inner iterations) with 312,480 atoms by small-tip EPG, by EPG-Bloch, by EPG-Bloch
with 6 trained sub-slices and by the recurrent network; radial, and the spiral of figure 9. MAPE of T1, T2, B1 and PD
over the brain, and the median error in white and in grey matter (its sign shows a bias), with noise and without.
Dictionaries and signals stay in --cache; the first run makes them.

    uv run benchmarks/figure7.py
    uv run benchmarks/figure7.py --sides 50 50 15 --only radial
"""

import argparse
import time
from pathlib import Path

import numpy as np

import brain_scan
import jaxmr as mr
from jaxmr.encoding import SubspaceNufft
from reporting import RESULTS, save

MU, N_ITERATIONS, N_CG = 0.015, 20, 10
NAMES = {"t1": "T1", "t2": "T2", "b1": "B1", "m0": "PD"}


def scores(maps: dict, truth: dict) -> dict:
    """MAPE and median absolute error of each map over the brain, median error in white and in grey matter, %."""
    brain = truth["mask"]
    t1, t2 = truth["t1"][brain], truth["t2"][brain]
    # At 3 T: 838/71 and 1600/76 ms, partial volume aside.
    tissues = {"white": t1 < 0.9, "grey": (t1 > 1.2) & (t1 < 1.7) & (t2 < 0.09)}
    found = {}
    for name, label in NAMES.items():
        error = 100 * (np.abs(maps[name][brain]) / truth[name][brain] - 1)
        found[label] = {
            "mape": float(np.mean(np.abs(error))),
            "median_absolute_error": float(np.median(np.abs(error))),
            **{tissue: float(np.median(error[voxels])) for tissue, voxels in tissues.items()},
        }
    b1 = maps["b1"][brain]
    found["B1"]["share_at_the_edge_of_the_grid"] = float(np.mean((b1 > 1.1999) | (b1 < 0.8001)))
    return found


def heading() -> None:
    print("MAPE of the brain, median error in white and in grey matter, %")
    print(f"{'trajectory':11}{'SNR':>5}  {'dictionary':18}" + "".join(f"{name:>24}" for name in NAMES.values()))


def compared(samples, k, dictionaries: dict, phantom, truth: dict, **scan) -> tuple[list[dict], dict]:
    """A row for each dictionary, printed, and its maps; scan: what rows say of the samples, `trajectory` and `snr`."""
    rows, estimates = [], {}
    for name, dictionary in dictionaries.items():
        start = time.perf_counter()
        operator = SubspaceNufft(k, dictionary.basis, brain_scan.VOXEL, phantom.matrix)
        found = mr.recon.lowrank_admm(
            samples, operator, dictionary, mu=MU, n_iterations=N_ITERATIONS, n_cg=N_CG, progress=True
        )
        row = {
            **scan,
            "dictionary": name,
            "atoms": len(dictionary.atoms),
            "seconds": time.perf_counter() - start,
            "objective": found.history.objective.tolist(),
            "distance": found.history.distance.tolist(),
            "scores": scores(found.maps.images, truth),
        }
        rows.append(row)
        estimates[name] = found.maps.images
        columns = (f"{s['mape']:9.2f} {s['white']:+6.1f} {s['grey']:+6.1f} " for s in row["scores"].values())
        print(f"{scan['trajectory']:11}{scan['snr'] or 'inf':>5}  {name:18}" + "".join(columns), flush=True)
    return rows, estimates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("out/figure7"), help="folder of dictionaries and signals")
    parser.add_argument("--sides", type=int, nargs=3, default=brain_scan.SIDES, help="values of T1, T2 and B1")
    parser.add_argument("--only", choices=("radial", "spiral"), help="one trajectory, printed and drawn but not saved")
    options = parser.parse_args()
    mr.use_cores()
    phantom, truth = brain_scan.phantom()
    signals = brain_scan.signals(options.cache)
    dictionaries = {
        name: brain_scan.dictionary(name, options.cache, tuple(options.sides)) for name in brain_scan.MODELS
    }
    rows = []
    heading()
    for kind in ("radial", "spiral") if options.only is None else (options.only,):
        k = brain_scan.readouts(kind)
        exact = mr.mrf.sample_series(signals, phantom, k, progress=True)
        noisy, noise_std = mr.mrf.add_noise(exact, brain_scan.SNR)
        estimates = {}
        for snr, samples in ((None, exact), (brain_scan.SNR, noisy)):
            scan = {"trajectory": kind, "snr": snr, "noise_std": noise_std if snr else 0.0}
            found, estimates = compared(samples, k, dictionaries, phantom, truth, **scan)
            rows += found
        draw(truth, estimates, f"figure7-{kind}.png")
    if options.only is None and tuple(options.sides) == brain_scan.SIDES:
        print(f"-> {save('figure7', rows)}")


def draw(truth: dict, estimates: dict, name: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    figure = mr.plot.comparison_figure({key: truth[key] for key in NAMES}, estimates, truth["mask"])
    figure.savefig(RESULTS / name, dpi=110)


if __name__ == "__main__":
    main()
