"""Claim: the train that Cramér-Rao bounds choose lowers the T2 error of a spiral fingerprinting scan.

Figure 9b of Liu et al.: the original train of 336 pulses and that of `design.py` (EPG-Bloch; run it first), each on the
112x112 brain of `brain_scan.py` with a transmit field of 1, one of 48 interleaves per pulse, LR-ADMM of rank 12 with
the dictionary of 100 T1 x 100 T2. The noise is the same for both: SNR 40 of the original train's samples. MAPE of T1,
T2 and PD over the brain, median absolute errors, and MAPE where white or grey matter fills a voxel.

    uv run benchmarks/figure9.py
"""

import argparse
import dataclasses

import numpy as np

import brain_scan
import jaxmr as mr
from jaxmr.encoding import SubspaceNufft, trajectory
from reporting import RESULTS, save

TRAINS = {"original": "design-epg-bloch-original.csv", "optimised": "design-epg-bloch-optimised.csv"}
NAMES = {"t1": "T1", "t2": "T2", "m0": "PD"}
SEEDS = (0, 1, 2)


def phantom():
    """The brain without a transmit field of its own."""
    scanned, truth = brain_scan.phantom()
    tissue = dataclasses.replace(scanned.tissue, b1=None)
    return dataclasses.replace(scanned, tissue=tissue), truth


def errors(maps: dict, truth: dict) -> dict:
    """MAPE and median error of each map over the brain, and MAPE where white or grey matter fills a voxel, %."""
    brain, found = truth["mask"], {}
    t1, t2 = truth["t1"][brain], truth["t2"][brain]
    matter = (t1 < 0.9) | ((t1 > 1.2) & (t1 < 1.7) & (t2 < 0.09))
    for name, label in NAMES.items():
        error = 100 * np.abs(np.abs(maps[name][brain]) / truth[name][brain] - 1)
        found[label] = {
            "mape": float(np.mean(error)),
            "median": float(np.median(error)),
            "matter": float(np.mean(error[matter])),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    mr.use_cores()
    scanned, truth = phantom()
    pulse = brain_scan.pulse()
    grid = {
        "t1": np.geomspace(0.1, 5, 100, dtype=np.float32),
        "t2": np.geomspace(0.01, 2, 100, dtype=np.float32),
    }
    rows, estimates, noise_std = [], {}, 0.0
    print(
        f"{'train':11}{'noise':>7}" + "".join(f"{name:>26}" for name in NAMES.values()) + "   MAPE (median, matter), %"
    )
    for train, file in TRAINS.items():
        schedule = mr.sequences.trains.read(RESULTS / file)
        flip = np.float32(schedule.flip)
        sequence = mr.sequences.fisp(flip, np.float32(brain_scan.TR), np.float32(brain_scan.TE), np.float32(0))
        interleaves, _ = trajectory.spiral(
            brain_scan.N_INTERLEAVES, 2 * brain_scan.FOV, brain_scan.VOXEL, edge_density=0.5, max_gradient=24e-3,
            max_slew=150.0,
        )  # fmt: skip
        k = np.float32(trajectory.one_per_pulse(interleaves[:, ::2], len(flip)))
        exact = mr.mrf.acquire(
            sequence, scanned, mr.EPGBloch(pulse=pulse, n_z=brain_scan.N_Z, tolerance=brain_scan.EXACT), k,
            progress=True,
        )  # fmt: skip
        model = mr.EPGBloch(pulse=pulse, n_z=brain_scan.N_Z, tolerance=brain_scan.TOLERANCE)
        dictionary = mr.mrf.dictionary(sequence, model=model, rank=brain_scan.RANK, progress=True, **grid)
        operator = SubspaceNufft(k, dictionary.basis, brain_scan.VOXEL, scanned.matrix)
        noise_std = noise_std or float(np.abs(exact).mean() / brain_scan.SNR)
        for seed in (None, *SEEDS):
            samples = exact
            if seed is not None:
                samples, _ = mr.mrf.add_noise(exact, float(np.abs(exact).mean() / noise_std), seed)
            found = mr.recon.lowrank_admm(samples, operator, dictionary, progress=True)
            row = {"train": train, "seed": seed, "noise_std": noise_std if seed is not None else 0.0}
            rows.append({**row, "atoms": len(dictionary.atoms), "errors": errors(found.maps.images, truth)})
            told = "".join(
                f"{e['mape']:11.2f} ({e['median']:5.2f},{e['matter']:6.2f})" for e in rows[-1]["errors"].values()
            )
            print(f"{train:11}{'none' if seed is None else seed:>7}{told}", flush=True)
            if seed == SEEDS[0]:
                estimates[train] = found.maps.images
    figure = mr.plot.comparison_figure({key: truth[key] for key in NAMES}, estimates, truth["mask"])
    figure.savefig(RESULTS / "figure9.png", dpi=110)
    print(f"-> {save('figure9', rows)}")


if __name__ == "__main__":
    main()
