"""`jaxmr dictionary`: simulate the signals of a grid of tissues."""

import time
from pathlib import Path
from typing import Any

import jaxmr as mr
from jaxmr.cli import options as shared
from jaxmr.cli import summary
from jaxmr.io.hdf5 import save_dictionary


def run(options: Any) -> None:
    shared.use_cores()
    scan = shared.scan(options)
    axes = shared.grid(options.grid, scan)
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    atoms = mr.mrf.dictionary(
        scan.sequence, model=shared.model(options), rank=options.rank, progress=options.progress, **axes
    )
    seconds = time.perf_counter() - started
    save_dictionary(options.out, atoms, shared.about(options, scan))
    ran = {
        "scan": shared.describe_scan(scan),
        "model": shared.describe_model(options),
        "dictionary": f"{len(atoms.atoms)} atoms: {shared.describe_axes(axes)}",
    }
    if atoms.energy is not None:
        ran["subspace"] = f"rank {options.rank}, {100 * atoms.energy:.4f} % of the energy"
    print(summary.text(summary.report("dictionary", ran=ran, seconds={"dictionary": seconds})))
    print(f"\nwritten: {options.out}")
