"""`jaxmr reconstruct`: parameter maps from the raw data of a fingerprinting scan and a dictionary."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxmr as mr
from jaxmr.cli import options as shared
from jaxmr.cli import summary
from jaxmr.cli.match import to_images
from jaxmr.core.files import whole
from jaxmr.encoding import SubspaceNufft, pipe_menon_weights
from jaxmr.encoding.coil_data import walsh
from jaxmr.io.nifti import write_maps
from jaxmr.io.series import Series, read_series_of_lines
from jaxmr.io.signals import read_mask
from jaxmr.mrf import Dictionary, Match, Store, compress
from jaxmr.plot.maps import estimates_figure
from jaxmr.recon import (
    LocallyLowRank,
    Wavelet,
    adjoint_reconstruction,
    lowrank_admm,
    regularised_reconstruction,
    subspace_reconstruction,
)

FAINT, SPECK = 0.1, 0.05
"""Without a mask: of the largest |M0|, and of the size of the largest connected piece; what is less is empty."""
PRIORS = {"locally-low-rank": LocallyLowRank(), "wavelet": Wavelet()}
CG_STEPS = 20
"""Of `subspace`: few, because more fit the noise of what was not sampled."""
ITERATIONS = {"lr-admm": 20, "subspace": CG_STEPS, "locally-low-rank": 60, "wavelet": 60}


def run(options: Any) -> None:
    shared.use_cores()
    seconds: dict[str, float] = {}
    with shared.timed(seconds, "reading"):
        found, about = shared.read_dictionary(options.dictionary)
        dictionary, basis = _compressed(found, options.rank)
        scan = read_series_of_lines(options.raw, options.trajectory, options.matrix, options.voxel_size, options.coils)
        _require_pulses(scan, len(basis))
        mask = None if options.mask is None else read_mask(options.mask)
        if mask is not None and mask.shape != scan.matrix:
            raise ValueError(f"the mask has shape {mask.shape}, the image {scan.matrix}")
    operator = SubspaceNufft(scan.k, basis, np.asarray(scan.voxel_size)[: len(scan.matrix)], scan.matrix)
    coils = scan.coils
    if coils is None and len(scan.samples) > 1:
        with shared.timed(seconds, "coil maps"):
            coils = _estimated(scan, operator)
    with shared.timed(seconds, "reconstruction"):
        maps, coefficients, course = _reconstructed(scan.samples, operator, dictionary, coils, options)
    if mask is None:
        mask = _foreground(np.abs(maps.m0))
    out = Path(options.out)
    inside = _inside(maps, mask)
    images = to_images(inside, mask)
    written = [path.name for path in write_maps(out, images, scan.voxel_size)]
    with whole(out / "coefficients.npz") as partial:
        np.savez(partial, coefficients=coefficients, basis=basis, objective=course)
    middle = mask.shape[0] // 2 if mask.ndim == 3 else slice(None)
    with whole(out / "maps.png") as partial:
        shown = {name: image[middle] for name, image in images.items()}
        estimates_figure(shown, mask[middle]).savefig(partial, dpi=150)
    ran = {name: str(about.get(name, "not stated in the dictionary")) for name in ("scan", "model")}
    ran["dictionary"] = f"{len(dictionary.parameters['t1'])} atoms of {options.dictionary}, rank {basis.shape[1]}"
    ran["data"] = "{} coils, {} pulses of {} samples of {}".format(*np.shape(scan.samples), options.raw)
    ran["method"] = options.method
    if len(course):
        ran["objective"] = f"{course[0]:.4g} ... {course[-1]:.4g} over {len(course)} iterations"
    ran["voxels"] = f"{mask.sum()}, median correlation {np.median(inside.correlation):.4f}"
    for name, values in inside.parameters.items():
        middle_range = np.percentile(values, [5, 95]) / shared.UNITS.get(name, 1)
        ran[name.upper()] = f"{shared.span(middle_range)}{shared.SUFFIXES.get(name, '')} (5 ... 95 % of the voxels)"
    report = summary.report("reconstruct", ran=ran, seconds=seconds)
    summary.write(out / "summary.json", report)
    print(summary.text(report))
    print(f"\nwritten to {out}: {', '.join(written)}, coefficients.npz, maps.png, summary.json")


def _foreground(strength: np.ndarray) -> np.ndarray:
    """Where there is signal, without the specks of noise that reach as high."""
    from scipy import ndimage

    bright = strength > FAINT * strength.max()
    found: Any = ndimage.label(bright)
    pieces = found[0]
    sizes = np.bincount(pieces[bright], minlength=1)
    return bright & (sizes >= SPECK * sizes.max())[pieces]


def _compressed(dictionary: Dictionary | Store, rank: int) -> tuple[Dictionary, np.ndarray]:
    """The dictionary in a subspace, and the basis of that."""
    found = dictionary.to_dictionary() if isinstance(dictionary, Store) else dictionary
    found = found if found.basis is not None else compress(found, rank)
    return found, np.asarray(found.basis)


def _require_pulses(scan: Series, simulated: int) -> None:
    pulses = scan.samples.shape[1]
    if pulses != simulated:
        raise ValueError(
            f"the raw data have {pulses} lines and the dictionary {simulated} pulses; they must be of one scan, with "
            "a line for every pulse"
        )


def _estimated(scan: Series, operator: SubspaceNufft):
    """Coil maps from the strongest coefficient image of each coil."""
    strongest = SubspaceNufft(operator.k, operator.basis[:, :1], operator.voxel_size, operator.matrix)
    weights = pipe_menon_weights(operator.k, operator.voxel_size, operator.matrix)
    return walsh(adjoint_reconstruction(scan.samples, strongest, weights=weights)[:, 0])


def _reconstructed(
    samples, operator: SubspaceNufft, dictionary: Dictionary, coils, options: Any
) -> tuple[Match, np.ndarray, np.ndarray]:
    """Maps, coefficient images, and the course of the objective."""
    n = options.iterations or ITERATIONS[options.method]
    if options.method == "lr-admm":
        found = lowrank_admm(
            samples, operator, dictionary, coils, mu=options.mu, n_iterations=n, n_cg=options.cg,
            progress=options.progress,
        )  # fmt: skip
        coefficients, course, maps = found.coefficients, found.history.objective, found.maps
    elif options.method == "subspace":
        coefficients = subspace_reconstruction(samples, operator, coils, tolerance=0.0, max_iterations=n).value
        course, maps = np.zeros(0), None
    else:
        sensed = jnp.ones((1, *operator.matrix)) if coils is None else coils
        found = regularised_reconstruction(
            samples, operator, sensed, PRIORS[options.method], strength=options.strength, iterations=n,
            progress=options.progress,
        )  # fmt: skip
        coefficients, course, maps = found.value, found.objective, None
    if maps is None or options.refine:
        at_voxels = np.moveaxis(np.asarray(coefficients), 0, -1)
        maps = mr.mrf.match(dictionary, at_voxels, refine=options.refine, progress=options.progress)
    return maps, np.asarray(coefficients), np.asarray(course)


def _inside(maps: Match, mask: np.ndarray) -> Match:
    """The maps of the voxels of a mask, as a list."""
    parameters = {name: values[mask] for name, values in maps.parameters.items()}
    return Match(parameters, maps.m0[mask], maps.correlation[mask], maps.index[mask])
