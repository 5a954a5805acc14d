"""`jaxmr fingerprint`: a fingerprinting study from the pulse sequence to maps and their accuracy."""

from pathlib import Path
from typing import Any

import numpy as np

import jaxmr as mr
from jaxmr.cli import options as shared
from jaxmr.cli import scoring, summary
from jaxmr.cli.match import to_images
from jaxmr.core.files import whole
from jaxmr.io.hdf5 import save_dictionary
from jaxmr.io.nifti import write_maps
from jaxmr.models.driver import simulate_many
from jaxmr.objects import Phantom, to_image
from jaxmr.plot.maps import maps_figure
from jaxmr.plot.sequence import train_figure


def run(options: Any) -> None:
    shared.use_cores()
    if options.snr is not None and not options.snr > 0:
        raise ValueError(f"--snr must be positive, got {options.snr:g}; leave it out for no noise")
    scan, model = shared.scan(options), shared.model(options)
    axes = shared.grid(options.grid, scan)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with shared.timed(seconds, "phantom"):
        phantom, name = shared.phantom(options.phantom, options.seed)
        images = mr.objects.truth(phantom)
        images["m0"] = np.abs(images["m0"])
        mask = images["m0"] > 0
        truth = {name: image[mask] for name, image in images.items()}
    with shared.timed(seconds, "scan"):
        simulated = simulate_many(scan.sequence, phantom.tissue, model, progress=options.progress, description="scan")
        signals = np.asarray(to_image(phantom, simulated.signals))[mask]
    with shared.timed(seconds, "dictionary"):
        dictionary = mr.mrf.dictionary(scan.sequence, model=model, progress=options.progress, **axes)
    noise_std = 0.0 if options.snr is None else float(np.sqrt(np.mean(np.abs(signals) ** 2)) / options.snr)
    with shared.timed(seconds, "matching"):
        measured = _noisy(signals, noise_std, options.seed)
        match = mr.mrf.match(dictionary, measured, refine=True, progress=options.progress)
    groups, found = scoring.groups(phantom, truth, mask), scoring.estimates(match)
    scores: dict[str, Any]
    if options.snr is None:
        scores = {"accuracy": scoring.without_noise(found, truth, axes)}
    else:
        with shared.timed(seconds, "bounds"):
            scores = {"precision": scoring.with_noise(found, truth, groups, scan.sequence, model, noise_std)}
    with shared.timed(seconds, "files"):
        estimates = to_images(match, mask)
        dx, dy, dz = map(float, phantom.voxel_size)
        written = [path.name for path in write_maps(out, estimates, (dx, dy, dz))]
        save_dictionary(out / "dictionary.h5", dictionary, shared.about(options, scan))
        _save(maps_figure(images, estimates, mask), out / "maps.png")
        _save(_schedule(scan, groups, truth, signals), out / "schedule.png")
        with whole(out / "schedule.csv") as partial:
            np.savetxt(partial, shared.schedule_columns(scan), "%.9g", ",", header="flip,tr,te", comments="")
        written += ["dictionary.h5", "maps.png", "schedule.png", "schedule.csv", "summary.json"]
    seconds["total"] = sum(seconds.values())
    n_pure = int((truth["purity"] > scoring.PURITY).sum())
    ran = {
        "scan": shared.describe_scan(scan),
        "model": f"{shared.describe_model(options)} ({simulated.error:.1g} expected)",
        "phantom": f"{name}, {mask.sum()} voxels of {1e3 * dx:.3g} mm, {n_pure} of one tissue (purity > 0.95)",
        "noise": f"SNR {options.snr:g} (rms signal / noise std), seed {options.seed}" if options.snr else "none",
        "dictionary": f"{len(dictionary.atoms)} atoms: {shared.describe_axes(axes)}",
    }
    report = summary.report(
        "fingerprint",
        ran=ran,
        seconds=seconds,
        n_atoms=len(dictionary.atoms),
        n_voxels=int(mask.sum()),
        n_pure_voxels=n_pure,
        noise_std=noise_std,
        **scores,
        notes=notes(scan, phantom, truth, axes),
    )
    summary.write(out / "summary.json", report)
    print(summary.text(report))
    print(f"\nwritten to {out}: {', '.join(written)}")


def _noisy(signals: np.ndarray, noise_std: float, seed: int) -> np.ndarray:
    """Signals with Gaussian noise of that standard deviation in each of the real and the imaginary part."""
    if noise_std == 0:
        return signals
    parts = np.random.default_rng(seed).standard_normal((*signals.shape, 2), np.real(signals).dtype)
    return signals + noise_std * parts.view(signals.dtype)[..., 0]


def _schedule(scan: shared.Scan, groups: list[scoring.Group], truth: dict[str, np.ndarray], signals: np.ndarray):
    """The train, with the signal of the purest voxel nearest to b1 = 1 of three tissues."""
    curves = {}
    for name, voxels in groups[:3]:
        best = voxels[np.lexsort([np.abs(truth["b1"][voxels] - 1), -np.round(truth["purity"][voxels], 3)])[0]]
        curves[name] = signals[best] / truth["m0"][best]
    return train_figure(scan.flip, scan.tr, scan.te, curves)


def _save(figure: Any, path: Path) -> None:
    with whole(path) as partial:
        figure.savefig(partial, dpi=150)


def notes(scan: shared.Scan, phantom: Phantom, truth: dict[str, np.ndarray], axes: dict[str, np.ndarray]) -> list[str]:
    """What a reader should know before believing the numbers."""
    notes = []
    if not (truth["purity"] > scoring.PURITY).any():
        notes.append("no voxel is of one tissue, so nothing was scored")
    if not scan.constant and phantom.tissue.b0 is not None and "b0" not in axes:
        reach = np.abs(truth["b0"]).max()
        notes.append(
            "TR or TE varies, so that off-resonance changes the signal beyond its phase and the dictionary without "
            f"it is biased; add an axis: --grid b0={-reach:.0f}:{reach:.0f}:COUNT"
        )
    for name, axis in axes.items():
        outside = int(((truth[name] < axis[0]) | (truth[name] > axis[-1])).sum())
        if outside and axis.size > 1:
            notes.append(f"{name.upper()} of {outside} voxels lies beyond the grid, where no match can be right")
    if phantom.tissue.diffusivity is not None:
        notes.append("the phantom diffuses, which the dictionary leaves out")
    return notes
