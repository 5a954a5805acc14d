r"""The two optimisations of Pulseq-zero (Endres and Zaiss, ISMRM 2025): fluid suppression by EPI, less SAR by TSE.

One slice of 64 x 64 pixels, scanned by the scripts of `scripts`, simulated by PDG with pulses at their RF centre. They
need the extra `pulseq`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax

from jaxmr.core.types import Array, Complex, Float
from jaxmr.design import losses, scripts
from jaxmr.design.search import Optimum, optimise
from jaxmr.encoding import centred_ifft, to_grid
from jaxmr.models import PDG, simulate
from jaxmr.objects import Phantom
from jaxmr.objects.brains import FOV
from jaxmr.sequences import Sequence, trajectory
from jaxmr.units import deg

FLUID_T1 = 3.0
"""Tissue that relaxes slower is fluid, s."""
TIMES = 0.05, 10.0
"""Bounds of the inversion time, s."""
SHOTS, ECHOES = 4, 16
SCALE = 0.755
"""All flips times this: 43 % less SAR, as cheaply as can be."""


class Recipe(NamedTuple):
    """An optimisation that was run.

    best: what it found. traced: the script, for its .seq: `traced.pulseq(**parameters)`. images: of parameters, as
    they come out of a plan made for them, (receivers, y, x).
    """

    best: Optimum
    traced: Any
    images: Callable[[Any], Complex[Array, "receivers y x"]]


def fluid_suppression(
    phantom: Phantom,
    start: float = 1.0,
    *,
    n: int = scripts.MATRIX,
    fov: float = FOV,
    steps: int = 40,
    tolerance: float = 1e-2,
    progress: bool = False,
    devices: list | None = None,
) -> Recipe:
    r"""The inversion time, from `start`, that nulls fluid against the brain: mean power of the one over the other's.

    Two receivers see one kind of tissue each, so that pixels with both count for both; the images have them in the
    order fluid, brain. With b1 = 1 the fluid is nulled at $T_1 \ln 2$. n: pixels of a row. fov: m. steps, progress: as
    for `optimise`. tolerance: of the PDG. devices: share the voxels.
    """
    import jaxmr.pulseq as pp

    seen = fluid_and_brain(phantom)
    fixed = {"n": n, "fov": fov}
    traced = pp.trace(_with(scripts.inversion_epi, fixed), inversion_time=start)
    image = reconstruction(traced(inversion_time=start), n, fov)
    model = PDG(tolerance)

    def loss(sequence, parameters, model):
        fluid, brain = image(simulate(sequence, seen, model, devices=devices))
        return losses.suppression(fluid, brain)

    # At the bottom a line search only sees rounding.
    solver = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=6))
    best = optimise(
        traced, loss, {"inversion_time": start}, bounds={"inversion_time": TIMES}, solver=solver,
        plan=(model, seen), steps=steps, patience=3, progress=progress,
    )  # fmt: skip
    return Recipe(best, traced, _images(traced, seen, model, image))


def tse_sar(
    phantom: Phantom,
    weight: float = 0.03,
    *,
    shots: int = SHOTS,
    echoes: int = ECHOES,
    fov: float = FOV,
    steps: int = 60,
    tolerance: float = 1e-2,
    progress: bool = False,
    devices: list | None = None,
) -> Recipe:
    """Flips, from 90 and 180 degrees, all of them free, that keep the image and save SAR.

    loss: squared difference from the first image, relative to it, plus `weight` times the sum of squared flips,
    relative to the first. shots, echoes: as many lines of k-space, and pixels of a row, as both together. Other
    options as for `fluid_suppression`.
    """
    import jaxmr.pulseq as pp

    n, model = shots * echoes, PDG(tolerance)
    start = {"excitation": np.full(shots, 90 * deg), "refocusing": np.full((shots, echoes), 180 * deg)}
    traced = pp.trace(_with(scripts.tse, {"n": n, "fov": fov}), **start)
    first = traced(**start)
    image = reconstruction(first, n, fov)
    images = _images(traced, phantom, model, image)
    target, most = images(start)[0], losses.squared_flips(first)

    def loss(sequence, parameters, model):
        found = image(simulate(sequence, phantom, model, devices=devices))[0]
        return losses.image_distance(found, target) + weight * losses.squared_flips(sequence) / most

    best = optimise(traced, loss, start, solver=optax.adam(0.03), plan=(model, phantom), steps=steps, progress=progress)
    return Recipe(best, traced, images)


def relative_sar(flips: dict[str, Any]) -> Float[np.ndarray, "steps"]:
    """Sum of the squared flips of each step of a `tse_sar` history, over that of the first."""
    of_leaves = [np.sum(np.square(leaf), axis=tuple(range(1, np.ndim(leaf)))) for leaf in flips.values()]
    total = np.sum(of_leaves, axis=0)
    return total / total[0]


def fluid_and_brain(phantom: Phantom) -> Phantom:
    """The phantom with two receivers: one sees only what relaxes slower than `FLUID_T1`, one the rest."""
    fluid = np.asarray(phantom.tissue.t1) > FLUID_T1
    if fluid.all() or not fluid.any():
        raise ValueError(f"the phantom must have fluid (T1 above {FLUID_T1:g} s) and other tissue")
    seen = jnp.asarray(np.stack([fluid, ~fluid]), complex)
    return eqx.tree_at(lambda p: p.coils, phantom, seen, is_leaf=lambda leaf: leaf is None)


def reconstruction(example: Sequence, n: int, fov: float) -> Callable[[Any], Complex[Array, "coils y x"]]:
    """From k-space `(coils, samples)` of scans whose k is that of `example` to images, in units of the signal."""
    k = np.asarray(trajectory(example)) - np.array([np.pi / fov, 0.0, 0.0])
    return lambda kspace: centred_ifft(to_grid(kspace, k, (n, n), fov / n))


def _with(script: Callable, fixed: dict[str, Any]) -> Callable:
    """The script with some of its numbers fixed."""
    return lambda **live: script(**live, **fixed)


def _images(traced, phantom, model, image):
    def images(parameters):
        sequence = traced(**parameters)
        return image(simulate(sequence, phantom, model.planned(sequence, phantom)))

    return images
