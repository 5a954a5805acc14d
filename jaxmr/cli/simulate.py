"""`jaxmr simulate`: signals of tissues or of a phantom, as numbers or as a picture."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxmr.cli import options as shared
from jaxmr.cli import summary
from jaxmr.core.checks import as_float
from jaxmr.core.files import whole
from jaxmr.io.signals import write_signals
from jaxmr.models.driver import simulate_many
from jaxmr.objects import Tissue, to_image
from jaxmr.plot.sequence import train_figure

ARBITRARY = (1e-3, 1e-3, 1e-3)
"""Voxel size written for tissues that are nowhere, m."""


def run(options: Any) -> None:
    shared.use_cores()
    out = Path(options.out)
    if out.suffix not in (".npz", ".csv", ".png") or (options.phantom is not None and out.suffix != ".npz"):
        raise ValueError(f"--out {out}: write a .npz, or of --t1 and --t2 a .csv or .png")
    scan = shared.scan(options)
    started = time.perf_counter()
    if options.phantom is not None:
        _phantom(options, scan, out)
    else:
        _tissues(options, scan, out)
    ran = {"scan": shared.describe_scan(scan), "model": shared.describe_model(options)}
    seconds = {"simulation": time.perf_counter() - started}
    print(summary.text(summary.report("simulate", ran=ran, seconds=seconds)))
    print(f"\nwritten: {out}")


def _phantom(options: Any, scan: shared.Scan, out: Path) -> None:
    """Signals of all pixels, compartments summed: `(y, x, n_echoes)`, 0 where there is no tissue."""
    if any(getattr(options, name) is not None for name in shared.UNITS):
        raise ValueError("give --phantom or --t1 and --t2 (with --b1 and --b0), not both")
    phantom, _ = shared.phantom(options.phantom)
    signals = simulate_many(scan.sequence, phantom.tissue, shared.model(options), progress=options.progress).signals
    dx, dy, dz = map(float, phantom.voxel_size)
    write_signals(out, to_image(phantom, signals), (dx, dy, dz))


def _tissues(options: Any, scan: shared.Scan, out: Path) -> None:
    """Signals `(tissues, n_echoes)` for m0 = 1, beside the tissues' parameters."""
    if options.t1 is None or options.t2 is None:
        raise ValueError("simulate needs --t1 and --t2 (ms), or --phantom")
    given = {name: getattr(options, name) for name in shared.UNITS if getattr(options, name) is not None}
    if len({len(values) for values in given.values()} - {1}) > 1:
        counts = ", ".join(f"--{name} {len(values)}" for name, values in given.items())
        raise ValueError(f"options of several tissues need one value or as many as the others, got {counts}")
    leaves = np.broadcast_arrays(*(shared.UNITS[name] * np.array(values) for name, values in given.items()))
    columns = dict(zip(given, leaves, strict=True))
    tissue = Tissue(**{name: as_float(name, values) for name, values in columns.items()})
    signals = simulate_many(scan.sequence, tissue, shared.model(options), progress=options.progress).signals
    labels = [
        ", ".join(f"{name.upper()} {values[i] / shared.UNITS[name]:g}" for name, values in columns.items())
        for i in range(len(signals))
    ]
    if out.suffix == ".npz":
        write_signals(out, signals, ARBITRARY, **columns)
    elif out.suffix == ".csv":
        parts = np.stack([np.real(signals), np.imag(signals)], axis=1).reshape(2 * len(signals), -1)
        heads = [f'"{part} ({label})"' for label in labels for part in ("real", "imaginary")]
        table = np.column_stack([np.arange(1, signals.shape[1] + 1), parts.T])
        with whole(out) as partial:
            np.savetxt(partial, table, "%.7g", ",", header=",".join(["pulse", *heads]), comments="")
    else:
        figure = train_figure(scan.flip, scan.tr, scan.te, dict(zip(labels, signals, strict=True)))
        with whole(out) as partial:
            figure.savefig(partial, dpi=150)
