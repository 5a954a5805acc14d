"""`jaxmr optimise`: the recipes of `jaxmr.design.recipes`, from a phantom to a .seq, figures and a summary."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmr.cli import options as shared
from jaxmr.cli import summary
from jaxmr.core.files import whole
from jaxmr.design import losses, recipes, scripts
from jaxmr.objects import Phantom
from jaxmr.plot import search_figure
from jaxmr.units import deg, ms


class Outcome(NamedTuple):
    """What a recipe found: for the .seq, the figure and the summary."""

    recipe: recipes.Recipe
    figure: Any
    found: dict[str, float]


def run(options: Any) -> None:
    shared.use_cores()
    seconds: dict[str, float] = {}
    with shared.timed(seconds, "phantom"):
        phantom, name = shared.phantom(options.phantom, options.seed, matrix=options.voxels)
    fov = _fov(phantom)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    with shared.timed(seconds, "search"):
        outcome = _RECIPES[options.recipe](phantom, fov, options)
    with shared.timed(seconds, "files"):
        best = outcome.recipe.best
        with whole(out / "optimised.seq") as partial:
            outcome.recipe.traced.pulseq(**best.parameters).write(str(partial), check_timing=False)
        with whole(out / "optimise.png") as partial:
            outcome.figure.savefig(partial, dpi=150)
    seconds["total"] = sum(seconds.values())
    n = len(best.history.loss)
    ran = {
        "recipe": f"{options.recipe}, {scripts.MATRIX} x {scripts.MATRIX} pixels on {1e3 * fov:.4g} mm",
        "phantom": f"{name}, {phantom.tissue.shape[0]} compartments",
        "search": f"{n} steps, loss {best.history.loss[0]:.4g} to {best.loss:.4g}, ended by {best.reason}",
        **{key: f"{value:.5g}" for key, value in outcome.found.items()},
    }
    facts = {
        "found": outcome.found,
        "parameters": jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), best.parameters),
    }
    report = summary.report("optimise", ran=ran, seconds=seconds, **facts, loss=best.history.loss.tolist())
    summary.write(out / "summary.json", report)
    print(summary.text(report))
    print(f"\nwritten to {out}: optimised.seq, optimise.png, summary.json")


def _fluid_suppression(phantom: Phantom, fov: float, options: Any) -> Outcome:
    start = options.start * ms
    recipe = recipes.fluid_suppression(
        phantom, start, fov=fov, steps=options.steps or 40, progress=options.progress, devices=jax.devices()
    )
    best = recipe.best
    before, after = (recipe.images(p) for p in ({"inversion_time": start}, best.parameters))
    null = float(np.max(phantom.tissue.t1)) * math.log(2)
    times = best.history.parameters["inversion_time"]
    images = {
        "before": before.sum(axis=0),
        "after": after.sum(axis=0),
        "fluid before": before[0],
        "fluid after": after[0],
    }
    figure = search_figure(
        {"loss": best.history.loss, "inversion time (s)": times}, images, marks={"inversion time (s)": null}
    )
    found = {"inversion_time": float(best.parameters["inversion_time"]), "t1_ln2": null}
    return Outcome(recipe, figure, found)


def _tse_sar(phantom: Phantom, fov: float, options: Any) -> Outcome:
    recipe = recipes.tse_sar(
        phantom, options.weight, fov=fov, steps=options.steps or 60, progress=options.progress, devices=jax.devices()
    )
    best = recipe.best
    start = jax.tree.map(lambda leaf: leaf[0], best.history.parameters)
    target, image, scaled = (
        recipe.images(p)[0] for p in (start, best.parameters, jax.tree.map(lambda f: recipes.SCALE * f, start))
    )
    sar = recipes.relative_sar(best.history.parameters)
    flips = best.history.parameters["refocusing"].reshape(len(sar), -1) / deg
    curves = {"loss": best.history.loss, "SAR": sar, "image error": best.history.loss - options.weight * sar}
    images = {"90 and 180 degrees": target, "optimised": image, f"all times {recipes.SCALE:g}": scaled}
    figure = search_figure({**curves, "refocusing flips (degrees)": flips}, images)
    found = {
        "sar": float(losses.squared_flips(best.sequence) / losses.squared_flips(recipe.traced(**start))),
        "image_error": float(losses.image_distance(image, target)),
        "image_error_scaled": float(losses.image_distance(scaled, target)),
    }
    return Outcome(recipe, figure, found)


def _fov(phantom: Phantom) -> float:
    """Of a square image that holds the phantom, m."""
    if len(phantom.matrix) != 2:
        raise ValueError("optimise scans one slice; give a phantom of one slice")
    size = np.asarray(phantom.voxel_size, float)
    return float(max(phantom.matrix[1] * size[0], phantom.matrix[0] * size[1]))


_RECIPES: dict[str, Callable[[Phantom, float, Any], Outcome]] = {
    "fluid-suppression": _fluid_suppression,
    "tse-sar": _tse_sar,
}
