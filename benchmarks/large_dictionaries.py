"""Claim: the paper's dictionary takes minutes and not days, a million atoms less, both in bounded memory.

312,480 atoms x 1120 pulses by EPG-Bloch with 32 sub-slices (Liu et al., NMR Biomed 2021: 71 h on a CPU), and
1,010,199 x 1000 by EPG, both at a tolerance of 1e-3 and projected to rank 12 as they are written to disk.
Seconds include planning, the basis and compilation; memory is the peak of a process of its own.

    uv run benchmarks/large_dictionaries.py
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import jaxmr as mr
from jaxmr.units import mm, ms
from reporting import save

RANK, TOLERANCE, MEMORY, N_Z = 12, 1e-3, 2e9, 32
B1 = (0.8, 1.2)
WORKS = {"paper": (1120, 100, 100, 40), "million": (1000, 180, 175, 41)}
"""Pulses, and values of T1 (0.1 to 5 s), T2 (0.01 to 2 s) and B1."""


def measure(work: str, folder: str) -> dict:
    """Write one dictionary, in this process."""
    mr.use_cores()
    n_pulses, n_t1, n_t2, n_b1 = WORKS[work]
    sequence = mr.sequences.fisp(mr.sequences.trains.fisp_sine(n_pulses).flip, 12 * ms, 3 * ms, 20 * ms)
    pulse = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=5 * mm)
    bloch, epg = mr.EPGBloch(pulse=pulse, n_z=N_Z, tolerance=TOLERANCE), mr.EPG(tolerance=TOLERANCE)
    axes = {
        "t1": np.geomspace(0.1, 5, n_t1, dtype=np.float32),
        "t2": np.geomspace(0.01, 2, n_t2, dtype=np.float32),
        "b1": np.linspace(*B1, n_b1, dtype=np.float32),
    }
    start = time.perf_counter()
    store = mr.mrf.store.write(
        Path(folder) / "atoms.zarr",
        sequence,
        model=bloch if work == "paper" else epg,
        rank=RANK,
        memory=MEMORY,
        progress=True,
        **axes,
    )
    return {
        "work": work,
        "atoms": store.n_atoms,
        "pulses": n_pulses,
        "seconds": time.perf_counter() - start,
        "expected_error": store.error,
        "energy": store.energy,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "orders": [band["choices"].get("orders") for band in store.header.bands],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=WORKS, help="one of the two, printed but not saved")
    parser.add_argument("--here", nargs=2, metavar=("WORK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(*options.here)))
        return
    mr.use_cores()
    rows = []
    print(f"{'work':10}{'atoms':>10}{'seconds':>9}{'error':>9}{'energy':>10}{'peak GB':>9}")
    for work in WORKS if options.only is None else [options.only]:
        with tempfile.TemporaryDirectory() as folder:
            answer = subprocess.run(
                [sys.executable, __file__, "--here", work, folder], stdout=subprocess.PIPE, text=True, check=True
            )
        row = json.loads(answer.stdout)
        rows.append(row)
        print(
            f"{work:10}{row['atoms']:10}{row['seconds']:9.1f}{row['expected_error']:9.1e}{row['energy']:10.6f}"
            f"{row['peak_gigabytes']:9.2f}"
        )
    if options.only is None:
        print(f"-> {save('large_dictionaries', rows)}")


if __name__ == "__main__":
    main()
