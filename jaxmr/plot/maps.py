"""Parameter maps beside the truth, as a reader of qMRI papers expects them.

T1 in Lipari and T2 in Navia, on a logarithmic scale, as the ISMRM quantitative MR study group recommends:
Fuderer et al., "Color-map recommendation for MR relaxometry maps", MRM 93:490 (2025).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmr.core.types import Array, Float, Shaped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Image = Shaped[Array, "y x"] | Any
"""Of any library; its shape is checked by hand, to say what is wrong."""


class Style(NamedTuple):
    label: str
    unit: str
    scale: float  # display value of one SI unit
    colours: str
    kind: str  # logarithmic, linear, or diverging about a centre
    centre: float = 0.0


_STYLES = {
    "t1": Style("T1", "ms", 1e3, "cmc.lipari", "logarithmic"),
    "t2": Style("T2", "ms", 1e3, "cmc.navia", "logarithmic"),
    "b1": Style("B1", "relative", 1, "coolwarm", "diverging", 1.0),
    "b0": Style("B0", "Hz", 1, "coolwarm", "diverging"),
    "m0": Style("M0", "a.u.", 1, "gray", "linear"),
}


def maps_figure(
    truth: Mapping[str, Image],
    estimate: Mapping[str, Image],
    mask: Image | None = None,
) -> "Figure":
    """A row for each of t1, t2, b1, b0 and m0 that both have: truth, estimate, and relative error in %.

    Times in s (shown in ms), b0 in Hz (error in Hz); of a complex m0 the magnitude. Outside the `mask`
    (without one: where the truth is NaN or 0) all is black. The number in the corner of the error is the
    median of its absolute value. Raises `ValueError` when nothing is to be compared or shapes differ.
    """
    from matplotlib.figure import Figure

    rows = [name for name in _STYLES if name in truth and name in estimate]
    if not rows:
        raise ValueError(
            f"truth has {sorted(truth)} and estimate has {sorted(estimate)}; both need one of {list(_STYLES)}"
        )
    images = {name: (_image(truth[name]), _image(estimate[name])) for name in rows}
    shapes = {image.shape for pair in images.values() for image in pair}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
        raise ValueError("all maps must be images of one shape (y, x); of a volume pass one slice, maps[z]")
    height = 2.6 * shape[0] / shape[1]
    figure = Figure(figsize=(10.8, (height + 0.15) * len(rows) + 0.5), layout="compressed")
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for axes, name in zip(grid, rows, strict=True):
        true, found = images[name]
        tissue = np.isfinite(true) & ((true != 0) if mask is None else np.asarray(mask, bool))
        if _STYLES[name].kind == "logarithmic":
            tissue &= true > 0
        if not tissue.any():
            raise ValueError(f"no voxel of {name} is left to show; check the mask and the truth")
        _draw_row(axes, _STYLES[name], np.where(tissue, true, np.nan), np.where(tissue, found, np.nan))
    for axis, title in zip(grid[0], ("truth", "estimate", "error"), strict=True):
        axis.set_title(title)
    return figure


def comparison_figure(
    truth: Mapping[str, Image],
    estimates: Mapping[str, Mapping[str, Image]],
    mask: Image,
) -> "Figure":
    """A row for each of t1, t2, b1 and m0 of the truth: the truth, then map and relative error of every estimate.

    estimates: maps by the name to put above them. Units as for `maps_figure`. A row has one scale for its maps and one
    for its errors; the number in the corner is the mean absolute error in %, over the `mask`. Raises `ValueError` when
    an estimate lacks a map or shapes differ.
    """
    from matplotlib.figure import Figure

    rows = [name for name in ("t1", "t2", "b1", "m0") if name in truth]
    inside = np.asarray(mask, bool)
    images = {name: _image(truth[name]) for name in rows}
    found = {}
    for title, maps in estimates.items():
        missing = [name for name in rows if name not in maps]
        if missing:
            raise ValueError(
                f"estimate {title!r} has no map of {', '.join(missing)}; leave it out of the truth as well"
            )
        found[title] = {name: _image(maps[name]) for name in rows}
    every = [*images.values(), *(image for maps in found.values() for image in maps.values())]
    if not rows or any(image.shape != inside.shape or image.ndim != 2 for image in every):
        raise ValueError(f"all maps must be images (y, x) of the mask's shape, {inside.shape}, with at least t1")
    height = 1.95 * inside.shape[0] / inside.shape[1]
    figure = Figure(figsize=(2.6 * (1 + 2 * len(found)), (height + 0.1) * len(rows) + 0.6), layout="compressed")
    grid = figure.subplots(len(rows), 1 + 2 * len(found), squeeze=False)
    for axes, name in zip(grid, rows, strict=True):
        style = _STYLES[name]
        true = np.where(inside, images[name], np.nan) * style.scale
        norm = _norm(style, true)
        axes[0].set_ylabel(style.label, rotation=0, ha="right", va="center", fontsize="large")
        _colour_bar(_show(axes[0], true, style.colours, norm), style.unit)
        # Both are 0 outside of the brain, which has no error.
        divisor = np.where(inside, images[name], np.nan)
        errors = [100 * (maps[name] / divisor - 1) for maps in found.values()]
        reach = max(np.nanpercentile(np.abs(error), 90) for error in errors) or 1.0
        for i, (maps, error) in enumerate(zip(found.values(), errors, strict=True)):
            _show(axes[1 + 2 * i], np.where(inside, maps[name] * style.scale, np.nan), style.colours, norm)
            shown = _show_error(axes[2 + 2 * i], error, reach, f"mean |error| {np.nanmean(np.abs(error)):.3g} %")
            if i == len(errors) - 1:
                _colour_bar(shown, "%")
    titles = ["truth", *(title for name in found for title in (name, "error"))]
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title)
    return figure


def estimates_figure(estimate: Mapping[str, Image], mask: Image | None = None) -> "Figure":
    """A panel for each of t1, t2, b1, b0 and m0 that there is, where no truth is known.

    Units as for `maps_figure`. Outside the `mask` (without one: where the estimate is NaN or 0) all is black.
    Raises `ValueError` when there is nothing to show.
    """
    from matplotlib.figure import Figure

    names = [name for name in _STYLES if name in estimate]
    images = {name: _image(estimate[name]) for name in names}
    shown = {name: np.isfinite(image) & (image != 0) if mask is None else mask for name, image in images.items()}
    if not any(inside.any() for inside in shown.values()):
        raise ValueError(f"nothing to show of {sorted(estimate)}; one of {list(_STYLES)} must have voxels in the mask")
    height, width = images[names[0]].shape
    figure = Figure(figsize=(3.6 * len(names), min(0.5 + 2.8 * height / width, 12)), layout="compressed")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        style = _STYLES[name]
        image = np.where(shown[name], images[name] * style.scale, np.nan)
        axis.set_title(style.label)
        _colour_bar(_show(axis, image, style.colours, _norm(style, image)), style.unit)
    return figure


def _norm(style, image):
    """The window: what the middle 99 % of an image in display units need."""
    from matplotlib.colors import LogNorm, Normalize

    low, middle, high = np.nanpercentile(image, [0.5, 50, 99.5])
    if style.kind == "logarithmic":  # fluid saturates, so that the tissues differ
        return LogNorm(max(low, middle / 10) / 1.5, min(high, 4 * middle))
    if style.kind == "diverging":
        reach = max(abs(low - style.centre), abs(high - style.centre)) or 1
        return Normalize(style.centre - reach, style.centre + reach)
    return Normalize(0, high)


def _draw_row(axes, style, true, found):
    true, found = true * style.scale, found * style.scale
    norm = _norm(style, true)
    axes[0].set_ylabel(style.label, rotation=0, ha="right", va="center", fontsize="large")
    _show(axes[0], true, style.colours, norm)
    _colour_bar(_show(axes[1], found, style.colours, norm), style.unit)

    error, unit = found - true, style.unit
    if style is not _STYLES["b0"]:  # a field map passes through zero: its error stays in Hz
        error, unit = 100 * error / np.where(true == 0, np.nan, true), "%"
    size = np.abs(error[np.isfinite(error)])
    reach = _round_up(np.percentile(size, 95)) if size.size else 1.0
    typical = f"median |error| {np.median(size):.2g} {unit}" if size.size else "no estimate"
    _colour_bar(_show_error(axes[2], error, reach, typical), unit)


def _show_error(axis, error, reach, note):
    """Signed errors between -reach and reach, with a note in the corner."""
    from matplotlib.colors import Normalize

    box = {"facecolor": "black", "edgecolor": "none", "pad": 1.5}
    axis.text(0.03, 0.03, note, transform=axis.transAxes, color="white", fontsize="small", bbox=box)
    return _show(axis, error, "coolwarm", Normalize(-reach, reach))


def _show(axis, image: Float[np.ndarray, "y x"], colours: str, norm):
    import cmcrameri.cm  # noqa: F401  (gives matplotlib the maps named cmc)

    axis.set_facecolor("black")
    axis.set(xticks=[], yticks=[])
    return axis.imshow(np.ma.masked_invalid(image), colours, norm, interpolation="nearest")


def _colour_bar(shown, unit):
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

    image, (low, high) = shown.get_array().compressed(), shown.get_clim()
    below, above = (image < low).any(), (image > high).any()
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    bar = shown.axes.figure.colorbar(shown, ax=shown.axes, label=unit, extend=extend)
    if isinstance(shown.norm, LogNorm):
        bar.ax.yaxis.set(
            major_locator=LogLocator(subs=(1, 2, 3, 5)), major_formatter=ScalarFormatter(), minor_locator=NullLocator()
        )


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9)))


def _image(image: Any) -> np.ndarray:
    image = np.asarray(image)
    return np.abs(image) if np.iscomplexobj(image) else image.astype(float)
