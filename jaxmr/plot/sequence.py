"""Flip-angle trains and timings against the number of the pulse."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmr.core.types import Array, Complex, Float, Train
from jaxmr.units import deg, ms

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def train_figure(
    flip: Float[Array, "n"] | Any,
    tr: Train | Any = None,
    te: Train | Any = None,
    signals: Mapping[str, Complex[Array, "n"] | Any] | None = None,
) -> "Figure":
    """Flip angles (rad, shown in degrees), repetition and echo times (s, shown in ms), magnitude of signals.

    signals: curves by their legend, such as `{"white matter": signal}`.
    Raises `ValueError` when lengths differ.
    """
    from matplotlib.figure import Figure

    angles = np.asarray(flip) / deg
    n = len(angles)
    times = {name: np.asarray(time) for name, time in (("TR", tr), ("TE", te)) if time is not None}
    curves = {name: np.abs(np.asarray(signal)) for name, signal in (signals or {}).items()}
    for name, values in {**times, **curves}.items():
        if values.shape != (n,) and not (name in times and values.ndim == 0):
            raise ValueError(f"{name} must have one value for each of the {n} pulses, got shape {values.shape}")

    panels: list[tuple[str, dict[str, Any]]] = [("flip angle (deg)", {"": angles})]
    if times:
        panels.append(("time (ms)", {name: np.broadcast_to(t / ms, (n,)) for name, t in times.items()}))
    if curves:
        panels.append(("|signal| / M0", curves))
    figure = Figure(figsize=(8, 0.6 + 1.9 * len(panels)), layout="constrained")
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    pulse = np.arange(1, n + 1)
    for axis, (label, lines) in zip(column, panels, strict=True):
        for name, values in lines.items():
            axis.plot(pulse, values, label=name, linewidth=1.2)
        low, high = axis.get_ylim()
        axis.set(ylabel=label, xlim=(1, max(n, 2)), ylim=(min(0, low), max(0, 1.2 * high)))  # room for the legend
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if any(lines):
            axis.legend(frameon=False, loc="upper right", ncols=3)
    column[-1].set_xlabel("pulse")
    return figure
