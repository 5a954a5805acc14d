"""A design at a glance: the trains before and after, what they say of each tissue, and how the search went."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmr.units import deg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("0.55", "tab:orange", "tab:blue", "tab:green", "tab:red")


def design_figure(
    flips: Mapping[str, Any],
    losses: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Mapping[str, float]] | None = None,
) -> "Figure":
    """Flip angles (rad, shown in degrees) of trains (n,) by their names, the first one as it was before.

    losses: of each step of a search, by its name. bounds: by train, the least relative standard deviation of what
    stands below its bar.
    """
    from matplotlib.figure import Figure

    widths = [2.6, *([1.2] if losses else []), *([1.4] if bounds else [])]
    figure = Figure(figsize=(3.0 * sum(widths), 3.4), layout="constrained")
    axes: Any = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(flips)}
    for name, train in flips.items():
        angles = np.asarray(train) / deg
        axes[0].plot(np.arange(1, len(angles) + 1), angles, color=colours[name], linewidth=1.4, label=name)
    highest = max(np.max(np.asarray(train) / deg) for train in flips.values())
    axes[0].set(xlabel="pulse", ylabel="flip angle (deg)", ylim=(min(0, axes[0].get_ylim()[0]), 1.25 * highest))
    axes[0].legend(frameon=False, loc="upper left", ncols=len(flips))
    rest = iter(axes[1:])
    if losses:
        axis = next(rest)
        for i, (name, curve) in enumerate(losses.items(), start=1):
            values = np.asarray(curve)
            axis.plot(np.arange(1, len(values) + 1), values, color=colours.get(name, COLOURS[i]), linewidth=1.2)
        axis.set(xlabel="step", ylabel="least loss", xscale="log", yscale="log")
    if bounds:
        axis = next(rest)
        width = 0.8 / len(bounds)
        for i, (name, bars) in enumerate(bounds.items()):
            places = np.arange(len(bars)) + (i - (len(bounds) - 1) / 2) * width
            axis.bar(places, list(bars.values()), width, color=colours.get(name, COLOURS[i]))
        labels = list(next(iter(bounds.values())))
        axis.set_xticks(np.arange(len(labels)), labels, fontsize="small")
        axis.set(ylabel="Cramér-Rao bound, relative\nstandard deviation at noise = M0", yscale="linear")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
