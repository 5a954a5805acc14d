"""`jaxmr dictionary`: simulate the signals of a grid of tissues."""

import time
from pathlib import Path
from typing import Any

import jaxmr as mr
from jaxmr.cli import options as shared
from jaxmr.cli import summary
from jaxmr.io.hdf5 import save_dictionary
from jaxmr.mrf import store


def run(options: Any) -> None:
    shared.use_cores()
    scan = shared.scan(options)
    axes = shared.grid(options.grid, scan)
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    made_of = {"model": shared.model(options), "rank": options.rank, "progress": options.progress, **axes}
    about = shared.about(options, scan)
    started = time.perf_counter()
    if Path(options.out).suffix == ".zarr":
        memory = store.MEMORY if options.memory is None else options.memory
        made = store.write(options.out, scan.sequence, memory=memory, about=about, **made_of)
    elif options.memory is None:
        made = mr.mrf.dictionary(scan.sequence, **made_of)
        save_dictionary(options.out, made, about)
    else:
        raise ValueError(f"--memory is for a zarr folder, and --out is {options.out}; end it in .zarr, or leave it out")
    seconds = time.perf_counter() - started
    ran = {
        "scan": shared.describe_scan(scan),
        "model": shared.describe_model(options),
        "dictionary": f"{len(made.parameters['t1'])} atoms: {shared.describe_axes(axes)}",
    }
    if made.energy is not None:
        ran["subspace"] = f"rank {options.rank}, {100 * made.energy:.4f} % of the energy"
    print(summary.text(summary.report("dictionary", ran=ran, seconds={"dictionary": seconds})))
    print(f"\nwritten: {options.out}")
