"""`jaxmr match`: parameter maps of a reconstruction, by a dictionary on disk."""

import time
from pathlib import Path
from typing import Any

import numpy as np

import jaxmr as mr
from jaxmr.cli import options as shared
from jaxmr.cli import summary
from jaxmr.core.files import whole
from jaxmr.io.nifti import write_maps
from jaxmr.io.signals import VoxelSize, read_mask, read_signals
from jaxmr.mrf import Match, Store
from jaxmr.plot.maps import estimates_figure
from jaxmr.units import mm


def run(options: Any) -> None:
    shared.use_cores()
    dictionary, about = shared.read_dictionary(options.dictionary)
    if options.refine and isinstance(dictionary, Store):
        dictionary = dictionary.to_dictionary()  # neighbours on the grid may lie in any part
    signals, voxel_size = read_signals(options.signals)
    if signals.ndim == 2:
        signals = signals[None]  # a list is an image of one row
    voxel_size = _voxel_size(options.voxel_size, voxel_size)
    mask = signals.any(axis=-1) if options.mask is None else read_mask(options.mask)
    if mask.shape != signals.shape[:-1]:
        raise ValueError(f"the mask has shape {mask.shape}, the signals are of voxels {signals.shape[:-1]}")
    if not mask.any():
        raise ValueError("no voxel to match: the mask is empty, or all signals are zero")
    out = Path(options.out)
    started = time.perf_counter()
    match = mr.mrf.match(dictionary, signals[mask], refine=options.refine, progress=options.progress)
    seconds = time.perf_counter() - started
    images = to_images(match, mask)
    written = write_maps(out, images, voxel_size)
    middle = mask.shape[0] // 2 if mask.ndim == 3 else slice(None)
    with whole(out / "maps.png") as partial:
        estimates_figure({name: image[middle] for name, image in images.items()}, mask[middle]).savefig(
            partial, dpi=150
        )
    ran = {name: str(about.get(name, "not stated in the dictionary")) for name in ("scan", "model")}
    ran["dictionary"] = f"{len(dictionary.parameters['t1'])} atoms of {options.dictionary}"
    ran["voxels"] = f"{mask.sum()} of {options.signals}, median correlation {np.median(match.correlation):.4f}"
    for name, values in match.parameters.items():
        middle_range = np.percentile(values, [5, 95]) / shared.UNITS.get(name, 1)
        ran[name.upper()] = f"{shared.span(middle_range)}{shared.SUFFIXES.get(name, '')} (5 ... 95 % of the voxels)"
    report = summary.report("match", ran=ran, seconds={"matching": seconds})
    summary.write(out / "summary.json", report)
    print(summary.text(report))
    print(f"\nwritten to {out}: {', '.join(path.name for path in written)}, maps.png, summary.json")


def to_images(match: Match, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Maps of matched voxels as images, 0 outside of the mask."""
    images = {}
    for name, values in match.images.items():
        images[name] = np.zeros(mask.shape, values.dtype)
        images[name][mask] = values
    return images


def _voxel_size(option: list[float] | None, stated: VoxelSize | None) -> VoxelSize:
    """From the file, or else from the option."""
    if (option is None) == (stated is None):
        remedy = "leave --voxel-size out" if option else "give --voxel-size in mm, such as 1.9 or 1,1,5"
        raise ValueError(f"the signals' file {'tells' if option else 'does not tell'} the size of a voxel; {remedy}")
    if stated is not None:
        return stated
    assert option is not None
    if len(option) not in (1, 3):
        raise ValueError(f"--voxel-size is one number or three (dx,dy,dz), in mm, got {len(option)}")
    dx, dy, dz = (option * 3)[:3]
    return dx * mm, dy * mm, dz * mm
