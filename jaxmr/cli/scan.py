"""`jaxmr scan`: from a phantom and a protocol to raw data and an image."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxmr as mr
from jaxmr.cli import options as shared
from jaxmr.cli import scan_files, summary
from jaxmr.cli.scan_sequences import Protocol, protocol
from jaxmr.cli.scan_subject import Geometry, subject, with_coils
from jaxmr.core.files import whole
from jaxmr.encoding import Fourier, Nufft, pipe_menon_weights, radial_weights, to_grid
from jaxmr.io.nifti import write_maps
from jaxmr.io.raw import write_raw
from jaxmr.io.raw_headers import GRIDDED
from jaxmr.models import PDG, ImagingModel
from jaxmr.models.scanning import scan
from jaxmr.objects import Phantom
from jaxmr.plot.scan import scan_figure
from jaxmr.recon import adjoint_reconstruction
from jaxmr.sequences import duration
from jaxmr.units import deg, mm, ms

SUB_SLICES = 16
"""Of a voxel, for pulses of some duration: thin against the edges of a slice."""


def run(options: Any) -> None:
    shared.use_cores()
    if options.snr is not None and not options.snr > 0:
        raise ValueError(f"--snr must be positive, got {options.snr:g}; leave it out for no noise")
    model = _model(options)
    seconds: dict[str, float] = {}
    file = None
    if options.sequence.endswith(scan_files.SUFFIX):
        with shared.timed(seconds, "file"):
            file = scan_files.opened(options.sequence, options.field)
            options.matrix, options.fov = scan_files.asked(file, options)
    with shared.timed(seconds, "phantom"):
        phantom, name, geometry = subject(options)
        phantom, maps = with_coils(phantom, options.coils, geometry)
    with shared.timed(seconds, "plan"):
        played = protocol(options, geometry) if file is None else scan_files.protocol_of(file)
        model = model.planned(played.sequence, phantom)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    with shared.timed(seconds, "scan"):
        devices = jax.devices()
        kspace = np.asarray(scan(played.sequence, phantom, model, progress=options.progress, devices=devices))
    with shared.timed(seconds, "image"):
        to_image, gain = reconstruction(played, geometry, maps)
        image = to_image(kspace)
        if options.snr is not None:
            std = _noise_std(image, phantom, geometry, options.snr) / gain
            kspace = kspace + _noise(kspace.shape, std, options.seed)
            image = to_image(kspace)
    with shared.timed(seconds, "files"):
        written = [path.name for path in write_maps(out, {"image": image}, geometry.voxel_size)]
        _write_raw(out / "raw.h5", kspace, played, geometry)
        with whole(out / "scan.png") as partial:
            _figure(image, played, geometry).savefig(partial, dpi=150)
        written += ["raw.h5", "scan.png", "summary.json"]
    seconds["total"] = sum(seconds.values())
    ran = {
        "scan": _describe(options.sequence, played, geometry),
        "model": _describe_model(model),
        "phantom": f"{name}, {phantom.tissue.shape[0]} compartments in voxels of {_sizes(phantom.voxel_size)} mm",
        "coils": "one, uniform" if maps is None else f"{len(maps)} loops around the head, combined by their maps",
        "noise": f"SNR {options.snr:g} (rms signal / noise std of the image), seed {options.seed}"
        if options.snr
        else "none",
    }
    report = summary.report("scan", ran=ran, seconds=seconds)
    summary.write(out / "summary.json", report)
    print(summary.text(report))
    print(f"\nwritten to {out}: {', '.join(written)}")


def _model(options: Any) -> ImagingModel:
    if options.model == "isochromats":
        return mr.Isochromats(options.isochromats)
    finite = options.pulses == "finite"
    return mr.PDG(options.tolerance, options.pulses, SUB_SLICES if finite else 1)


def reconstruction(played: Protocol, geometry: Geometry, maps=None) -> tuple[Callable, float]:
    """How the image comes of k-space, and the standard deviation of its noise, of each coil, for one of 1 in k-space.

    Samples are weighed by their share of k-space and transformed back; Cartesian ones are sorted into their grid.
    maps: sensitivities `(coils, *matrix)`, by which coils are combined with least noise (Roemer et al., MRM 16:192
    (1990)). The image is complex, of shape `geometry.matrix`.
    """
    matrix, voxel = geometry.matrix, geometry.voxel_size
    gridded = played.trajectory in GRIDDED
    k, sides = played.k[:, : len(matrix)], np.array(voxel[: len(matrix)])
    operator = Fourier(matrix) if gridded else Nufft(k, sides, matrix)
    if gridded:
        weights = np.full(matrix, 1 / math.prod(matrix))
    elif played.trajectory == "radial":
        weights = np.ravel(radial_weights(played.k.reshape(-1, played.samples, 3)[..., :2], voxel[0]))
    else:
        weights = np.asarray(pipe_menon_weights(k, sides, matrix))

    def image(kspace) -> np.ndarray:
        samples = to_grid(kspace, played.k, matrix, np.array(voxel)) if gridded else kspace
        of_coils = np.asarray(adjoint_reconstruction(samples, operator, weights=weights))
        if maps is None:
            return of_coils[0]
        return np.sum(np.conj(maps) * of_coils, axis=0) / np.sum(np.abs(maps) ** 2, axis=0)

    return image, float(np.linalg.norm(weights))


def _noise_std(image, phantom: Phantom, geometry: Geometry, snr: float) -> float:
    """Of the real and of the imaginary part of an image whose tissue has that ratio."""
    n = np.array(geometry.matrix[::-1])
    place = np.rint(np.asarray(phantom.position)[:, : n.size] / geometry.voxel_size[: n.size]).astype(int) + n // 2
    place = place[((place >= 0) & (place < n)).all(axis=1)]
    tissue = np.abs(image)[tuple(place.T[::-1])]
    return float(np.sqrt(np.mean(tissue**2)) / snr)


def _noise(shape: tuple[int, ...], std: float, seed: int) -> np.ndarray:
    parts = np.random.default_rng(seed).standard_normal((*shape, 2), np.float32)
    return std * parts.view(np.complex64)[..., 0]


def _write_raw(path: Path, kspace, played: Protocol, geometry: Geometry) -> None:
    write_raw(
        path,
        kspace,
        played.k,
        lines=played.samples,
        matrix=geometry.matrix,
        fov=geometry.fov,
        dwell=played.dwell,
        trajectory=played.trajectory,
        oversampling=played.oversampling,
        timing=played.timing,
    )


def _figure(image, played: Protocol, geometry: Geometry):
    """The first pulses, k-space and the image; of a volume its middle slice and all of them."""
    sequence, n_pulses = played.diagram
    shown = {"image": image}
    if image.ndim == 3:
        shown = {f"slice {len(image) // 2 + 1} of {len(image)}": image[len(image) // 2], "all slices": mosaic(image)}
    return scan_figure(sequence, shown, voxel_size=geometry.voxel_size[:2], n_pulses=n_pulses)


def mosaic(volume) -> np.ndarray:
    """Slices side by side, `(z, y, x)` to `(y, x)`: row by row from the feet up."""
    n, n_y, n_x = volume.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    tiles = np.concatenate([volume, np.zeros((rows * columns - n, n_y, n_x), volume.dtype)])
    return tiles.reshape(rows, columns, n_y, n_x).swapaxes(1, 2).reshape(rows * n_y, columns * n_x)


def _describe(name: str, played: Protocol, geometry: Geometry) -> str:
    times = {"TR": "tr", "TE": "te", "TI": "ti"}
    told = [f"{tag} {played.timing[key] / ms:.4g} ms" for tag, key in times.items() if key in played.timing]
    plural = "dummy" if played.n_dummies == 1 else "dummies"
    dummies = [f"{played.n_dummies} {plural}"] if played.n_dummies else []
    matrix = " x ".join(map(str, geometry.matrix))
    length = f"{played.sequence.n_echoes} samples in {float(duration(played.sequence)):.3g} s"
    voxels = f"{matrix} voxels of {_sizes(geometry.voxel_size)} mm"
    flip = [f"flip {played.timing['flip'] / deg:.4g} degrees"] if "flip" in played.timing else []
    return ", ".join([name, voxels, *flip, *told, *dummies, length])


def _describe_model(model: ImagingModel) -> str:
    if isinstance(model, PDG):
        assert model.error is not None
        expected = f"{float(model.error):.1g} expected"
        pulses = "" if model.pulses == "instantaneous" else f", {model.pulses} pulses in {model.n_z} sub-slices"
        return f"phase distribution graph, tolerance {model.tolerance:g} ({expected}), {model.n_states} states{pulses}"
    assert isinstance(model, mr.Isochromats)
    return f"{model.per_voxel} isochromats per voxel"


def _sizes(voxel_size) -> str:
    return " x ".join(f"{float(size) / mm:.3g}" for size in voxel_size)
