"""Claim: for signals the exact kernel is the better surrogate, on a CPU and a GPU; for derivatives the network pays.

Signals of 1120 pulses (the train of figure 4a of Liu et al.) of 100 to 512,000 atoms, B1 = 1, and their derivatives by
T1 and T2: the recurrent network, and EPG-Bloch on trained sub-slices, on 32 plain ones with 20 orders (what the
registers of a GPU hold), and planned for a tolerance. Time of warm calls, planning and compilation apart; error of 200
atoms against 192 sub-slices and all orders. What would take more than --longest seconds is extrapolated from the size
before it, and marked.

    uv run benchmarks/surrogate_vs_exact.py
"""

import argparse
import time
import warnings
from typing import Any

import numpy as np

import brain_scan
import jaxmr as mr
from reporting import device_name, save
from workloads import atoms, relative

SIZES = 100, 1000, 10_000, 100_000, 512_000
REFERENCE_ATOMS = 200
RUNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longest", type=float, default=60.0, help="seconds of a call worth its time (default 60)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="numbers of atoms")
    options = parser.parse_args()
    warnings.simplefilter("ignore", mr.AccuracyWarning)  # of 20 orders; the table tells their error
    mr.use_cores()
    sequence, pulse = brain_scan.sequence(), brain_scan.pulse()
    t1, t2 = (np.float32(column) for column in atoms(REFERENCE_ATOMS))
    few = mr.Tissue(t1=t1, t2=t2)
    reference = both(sequence, few, mr.EPGBloch(pulse=pulse, n_z=192), derivatives=True)
    models = {
        "RNN": mr.RNN.pretrained(),
        **{
            f"EPG-Bloch, {n} trained nodes": mr.EPGBloch(pulse=pulse, nodes=mr.mrf.trained_nodes(n), tolerance=3e-3)
            for n in (5, 8)
        },
        "EPG-Bloch, 32 midpoints": mr.EPGBloch(pulse=pulse, n_z=32, orders=20),
        "EPG-Bloch, tolerance 1e-2": mr.EPGBloch(pulse=pulse, tolerance=1e-2),
        "EPG-Bloch, tolerance 1e-3": mr.EPGBloch(pulse=pulse, tolerance=1e-3),
    }
    rows: list[dict[str, Any]] = []
    for derivatives in (False, True):
        print(f"\n{'signals and derivatives' if derivatives else 'signals'} on {device_name()}")
        sizes = "".join(f"{n:>16,}" for n in options.sizes)
        print(f"{'model':28}{'error':>8}{'':3}{sizes}   seconds (signals/s)")
        for name, model in models.items():
            found = both(sequence, few, model, derivatives=derivatives)
            errors = [relative(ours, theirs) for ours, theirs in zip(found, reference, strict=False)]
            line = f"{name:28}" + "/".join(f"{100 * error:.2f}" for error in errors) + " %  "
            for size, seconds, measured in times(sequence, model, derivatives, options):
                line += f"{seconds:9.3g} ({size / seconds:,.0f}){'' if measured else '*'}"
                rows.append(
                    {
                        "model": name, "derivatives": derivatives, "atoms": size, "seconds": seconds,
                        "measured": measured, "errors": errors,
                    }
                )  # fmt: skip
            print(line, flush=True)
            path = save("surrogate_vs_exact", rows)
    print(f"* extrapolated\n-> {path}")


def both(sequence, tissue, model, *, derivatives: bool):
    """Signals, or signals and derivatives by the logarithms of T1 and T2."""
    if not derivatives:
        return (np.asarray(mr.simulate(sequence, tissue, model)),)
    signal, rows = mr.simulate_with_jacobian(sequence, tissue, model)
    return np.asarray(signal), np.asarray(rows) * np.stack([tissue.t1, tissue.t2], axis=1)[:, :, None]


def times(sequence, model, derivatives: bool, options: argparse.Namespace):
    """(size, median seconds of warm calls, whether they were measured) of each size."""
    before = None
    for size in options.sizes:
        if before is not None and before[1] * size / before[0] > options.longest:
            yield size, before[1] * size / before[0], False
            continue
        t1, t2 = (np.float32(column) for column in atoms(size))
        tissue = mr.Tissue(t1=t1, t2=t2)
        call = _derivatives(sequence, tissue, model) if derivatives else _signals(sequence, tissue, model)
        call()
        taken = []
        for _ in range(RUNS if size < 100_000 else 1):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
        before = size, float(np.median(taken))
        yield size, before[1], True


def _signals(sequence, tissue, model):
    """A call that simulates all atoms; of very many it keeps a few numbers each."""
    from jaxmr.models import driver

    basis = np.eye(sequence.n_echoes, 12, dtype=np.complex64) if tissue.shape[0] > 100_000 else None
    parts = driver.schedule(sequence, tissue, model, driver.rows_within(sequence, tissue))
    return lambda: driver.gather(sequence, tissue, parts, basis=basis)


def _derivatives(sequence, tissue, model):
    """A call that simulates all atoms with derivatives, by one plan, in pieces so that memory is bounded."""
    import jax

    planned = model if model.is_static() else mr.plan(sequence, tissue, model)
    together = 2048 if jax.default_backend() == "cpu" else 1 << 15
    parts = [tissue[start : start + together] for start in range(0, tissue.shape[0], together)]

    def call():
        for part in parts:
            jax.block_until_ready(mr.simulate_with_jacobian(sequence, part, planned, devices=jax.devices()))

    return call


if __name__ == "__main__":
    main()
