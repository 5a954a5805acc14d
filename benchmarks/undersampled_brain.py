"""Claim: of an eighth of a brain's k-space SENSE and a wavelet prior predict samples they were not given.

A head by 8 coils, 12.4 % of k-space in a Poisson-disc pattern with a full centre: the data of sigpy's tutorial, which
are not part of this repository. 5 % of the samples, drawn outside of the centre, are held out. The rest is
reconstructed by zero-filling (E^H s / N), CG-SENSE and the wavelet prior, with coil maps from the centre. Error: the
norm of what the image, seen by the coils, lacks of the held-out samples, over their norm; 1 is no prediction at all,
and "noise" what the truth itself would lack, were all that is seen at the rim of k-space noise. Three draws; the two
weights were chosen on a fourth. The figure of the first draw goes to --out: results must not show the data.

    uv run benchmarks/undersampled_brain.py sigpy_cartesian_ksp.npy
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxmr as mr
from jaxmr.encoding import Fourier, centred_ifft
from jaxmr.encoding.coil_data import walsh
from reporting import save, timed

CENTRE, HELD, RIM = 24, 0.05, 0.97
"""Rows and columns of the full centre; share of the samples held out; where the rim begins, of the largest k."""
REGULARISATION, STRENGTH, LEVELS, ITERATIONS = 0.01, 0.004, 4, 100
SEEDS = (1, 2, 3)


def coil_maps(kspace):
    """Maps from the full centre, tapered so that its edge does not ring, and what lies outside of it."""
    window = np.zeros(kspace.shape[1:], np.float32)
    middle = tuple(slice(n // 2 - CENTRE // 2, n // 2 + CENTRE // 2) for n in window.shape)
    window[middle] = np.outer(*[np.hanning(CENTRE + 2)[1:-1]] * 2)
    return walsh(centred_ifft(jnp.asarray(kspace * window))), window == 0


def held_out(sampled, outside, seed):
    """Which of the samples outside of the centre are kept for the judgement."""
    places = np.flatnonzero(sampled & outside)
    chosen = np.random.default_rng(seed).choice(places, round(HELD * sampled.sum()), replace=False)
    held = np.zeros(sampled.size, bool)
    held[chosen] = True
    return held.reshape(sampled.shape)


def noise(kspace, sampled) -> float:
    """Root mean square of the samples at the rim."""
    offsets = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2) for n in sampled.shape], indexing="ij")
    return float(np.sqrt(np.mean(np.abs(kspace[:, sampled & (np.hypot(*offsets) > RIM)]) ** 2)))


def methods(samples, operator, coils):
    """Each reconstruction by its name, as a call that gives an image."""
    n = coils[0].size
    return {
        "zero-filled": lambda: mr.recon.adjoint_reconstruction(samples, operator, coils) / n,
        "CG-SENSE": lambda: (
            mr.recon.cg_sense(samples, operator, coils, regularisation=REGULARISATION * n, tolerance=1e-4).value
        ),
        "wavelet": lambda: (
            mr.recon.regularised_reconstruction(
                samples, operator, coils, mr.recon.Wavelet(LEVELS), strength=STRENGTH, iterations=ITERATIONS
            ).value
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kspace", type=Path, help="the .npy, complex (coils, y, x), 0 where nothing was sampled")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the figure")
    options = parser.parse_args()
    mr.use_cores()
    kspace = np.load(options.kspace)
    sampled = (kspace != 0).any(axis=0)
    coils, outside = coil_maps(kspace)
    rows = []
    print(f"{'method':13}{'seed':>5}{'held-out error':>16}{'noise':>8}{'ms':>8}{'first call s':>14}")
    for seed in SEEDS:
        held = held_out(sampled, outside, seed)
        judged = Fourier(held.shape, held)
        calls = methods(jnp.asarray(kspace * (sampled & ~held)), Fourier(held.shape, sampled & ~held), coils)
        floor = noise(kspace, sampled) / float(np.sqrt(np.mean(np.abs(kspace[:, held]) ** 2)))
        images = {}
        for name, call in calls.items():
            seconds = timed(lambda call=call: jax.block_until_ready(call()))
            images[name] = np.asarray(call())
            lacking = judged.forward(coils * images[name]) - kspace * held
            error = float(np.linalg.norm(lacking) / np.linalg.norm(kspace * held))
            rows.append(
                {"method": name, "seed": seed, "held_out": int(held.sum()), "error": error, "noise": floor, **seconds}
            )
            told = f"{name:13}{seed:5}{error:16.3f}{floor:8.3f}"
            print(f"{told}{1e3 * seconds['median']:8.0f}{seconds['first']:14.1f}", flush=True)
        if seed == SEEDS[0]:
            draw(images, sampled, held, options.out)
    print(f"-> {save('undersampled_brain', rows)}")


def draw(images: dict, sampled, held, out: Path) -> None:
    """Magnitudes on one grey scale; below, what two of them have beyond the third, and where samples lie."""
    from matplotlib.figure import Figure

    sizes = {name: np.abs(image) for name, image in images.items()}
    best = sizes["wavelet"]
    window = float(np.percentile(best, 99.5))
    figure = Figure(figsize=(9.6, 7.6), layout="compressed")
    above, below = figure.subplots(2, 3)
    for axis, (name, size) in zip(above, sizes.items(), strict=True):
        shown = axis.imshow(size, "gray", vmin=0, vmax=window)
        axis.set_title(name)
    figure.colorbar(shown, ax=above, label="magnitude, a.u.")
    for axis, name in zip(below, ("zero-filled", "CG-SENSE"), strict=False):
        shown = axis.imshow(sizes[name] - best, "coolwarm", vmin=-window / 4, vmax=window / 4)
        axis.set_title(f"{name} - wavelet")
    below[2].imshow(np.where(held, 2, sampled), "inferno", interpolation="nearest")
    below[2].set_title("samples, held out bright")
    figure.colorbar(shown, ax=below, label="difference, a.u.")
    for axis in (*above, *below):
        axis.set(xticks=[], yticks=[])
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "undersampled_brain.png", dpi=130)


if __name__ == "__main__":
    main()
