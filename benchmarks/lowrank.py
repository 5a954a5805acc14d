"""Claim: one LR-ADMM reconstruction takes under 3 minutes and 8 GB on two cores, its operator hardly more than finufft.

112x112, rank 12, 312,480 atoms, 20 outer and 10 inner iterations on the radial scan of `figure7.py` (whose --cache
serves here). Time includes kernels and compilation; the peak is of a process of its own, the dictionary in memory. The
radial forward operator (1120 spokes of 224 samples) of one image, and of 12 coefficient images mixed in time, against
the package finufft called directly with the same accuracy, threads and precision, both in turns; bar 1.5.

    uv run --with finufft benchmarks/lowrank.py
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

import brain_scan
import jaxmr as mr
from jaxmr.encoding import Nufft, SubspaceNufft
from reporting import in_turns, save
from workloads import relative

MINUTES, GIGABYTES, FACTOR = 3.0, 8.0, 1.5
"""The bars."""


def reconstruct(folder: str) -> dict:
    """One reconstruction, in this process."""
    mr.use_cores()
    phantom, truth = brain_scan.phantom()
    samples = np.load(Path(folder) / "lowrank-samples.npy")
    dictionary = brain_scan.dictionary("EPG-Bloch", Path(folder))
    k = brain_scan.readouts("radial")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    operator = SubspaceNufft(k, dictionary.basis, brain_scan.VOXEL, phantom.matrix)
    found = mr.recon.lowrank_admm(samples, operator, dictionary, progress=True)
    seconds = time.perf_counter() - start
    error = np.abs(found.maps.t1 / truth["t1"] - 1)[truth["mask"]]
    return {
        "work": "LR-ADMM, 20 x 10 iterations",
        "atoms": len(dictionary.atoms),
        "seconds": seconds,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "gigabytes_before": before,
        "objective": found.history.objective.tolist(),
        "t1_mape": float(100 * error.mean()),
    }


def forward() -> list[dict]:
    """The radial operator of one image and of a subspace, and finufft on the same numbers."""
    import finufft
    import jax

    k = brain_scan.readouts("radial")
    rng = np.random.default_rng(0)
    size = (brain_scan.RANK, brain_scan.MATRIX, brain_scan.MATRIX)
    images = (rng.normal(size=size) + 1j * rng.normal(size=size)).astype(np.complex64)
    basis = np.linalg.qr(rng.normal(size=(brain_scan.N_PULSES, brain_scan.RANK)))[0].astype(np.float32)
    w = (k.reshape(-1, 2) * np.float32(brain_scan.VOXEL)).T
    y, x = np.ascontiguousarray(w[1]), np.ascontiguousarray(w[0])
    single = Nufft(k, brain_scan.VOXEL, size[1:])
    several = SubspaceNufft(k, basis, brain_scan.VOXEL, size[1:])
    sample = jax.jit(lambda operator, images: operator.forward(images))
    one, many = partial(sample, single), partial(sample, several)

    def direct(images):
        return finufft.nufft2d2(y, x, images, eps=1e-6, isign=-1)

    def direct_mixed(images):
        parts = direct(images).reshape(-1, *k.shape[:2])
        return np.einsum("rtn,tr->tn", parts, basis)

    rows = []
    for name, ours, peer, data in (
        ("one image", one, direct, images[0]),
        ("12 coefficient images", many, direct_mixed, images),
    ):
        error = relative(np.asarray(ours(data)).reshape(-1), peer(data).reshape(-1))
        own, other = in_turns(lambda f=ours, d=data: f(d).block_until_ready(), lambda f=peer, d=data: f(d), runs=15)
        rows.append(
            {
                "work": f"radial forward, {name}",
                "jaxmr": own,
                "finufft": other,
                "ratio": own["median"] / other["median"],
                "difference": error,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("out/figure7"), help="folder of dictionaries and signals")
    parser.add_argument("--only", choices=("forward", "admm"), help="one of the two, printed but not saved")
    parser.add_argument("--here", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(reconstruct(options.here)))
        return
    rows = []
    if options.only != "forward":
        rows.append(in_a_process(options.cache))
    if options.only != "admm":
        mr.use_cores()
        if importlib.util.find_spec("finufft") is None:
            sys.exit("the peer is not installed: uv run --with finufft benchmarks/lowrank.py (or --only admm)")
        for row in forward():
            rows.append(row)
            own, peer = (1e3 * row[name]["median"] for name in ("jaxmr", "finufft"))
            print(
                f"{row['work']}: {own:.1f} ms, finufft {peer:.1f} ms, ratio {row['ratio']:.2f} (bar {FACTOR}), "
                f"difference {row['difference']:.1e}"
            )
    if options.only is None:
        print(f"-> {save('lowrank', rows)}")


def in_a_process(folder: Path) -> dict:
    """`reconstruct` where nothing else has used memory; what it reads is made first."""
    code = (
        "import sys, numpy as np, brain_scan, jaxmr as mr; from pathlib import Path; folder = Path(sys.argv[1])\n"
        "mr.use_cores(); signals = brain_scan.signals(folder); brain_scan.dictionary('EPG-Bloch', folder)\n"
        "exact = mr.mrf.sample_series(signals, brain_scan.phantom()[0], brain_scan.readouts('radial'))\n"
        "np.save(folder / 'lowrank-samples.npy', mr.mrf.add_noise(exact, brain_scan.SNR)[0])\n"
    )
    here = Path(__file__).parent.resolve()
    subprocess.run([sys.executable, "-c", code, str(folder.resolve())], cwd=here, check=True)
    answer = subprocess.run(
        [sys.executable, __file__, "--here", str(folder.resolve())], stdout=subprocess.PIPE, text=True, check=True
    )
    row = json.loads(answer.stdout)
    print(
        f"{row['work']}, {row['atoms']} atoms: {row['seconds']:.0f} s (bar {60 * MINUTES:.0f}), peak "
        f"{row['peak_gigabytes']:.2f} GB (bar {GIGABYTES:.0f}), T1 off by {row['t1_mape']:.2f} % on average"
    )
    return row


if __name__ == "__main__":
    main()
