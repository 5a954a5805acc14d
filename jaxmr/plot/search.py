"""A search at a glance: numbers over its steps, and images before and after."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def search_figure(
    curves: Mapping[str, Any], images: Mapping[str, Any] | None = None, *, marks: Mapping[str, float] | None = None
) -> "Figure":
    """Curves above, images `(y, x)` below, by their titles; images as magnitude in one grey scale.

    curves: (n,) over the steps, or (n, k), k of them in one panel. marks: where a curve should end, by its title.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = {name: np.abs(np.asarray(image)) for name, image in (images or {}).items()}
    n_panels = max(len(curves), len(shown))
    n_rows = 2 if shown else 1
    figure = Figure(figsize=(3.4 * n_panels, 3.2 * n_rows), layout=ConstrainedLayoutEngine())
    rows: Any = figure.subplots(n_rows, n_panels, squeeze=False)
    for axis, (name, curve) in zip(rows[0], curves.items(), strict=False):
        axis.plot(np.asarray(curve), linewidth=1.2)
        axis.set(title=name, xlabel="step")
        axis.spines[["top", "right"]].set_visible(False)
        if marks is not None and name in marks:
            axis.axhline(marks[name], color="0.5", linewidth=0.8, linestyle="--")
    for axis in rows[0][len(curves) :]:
        axis.set_axis_off()
    if shown:
        brightest = max(image.max() for image in shown.values())
        for axis, (name, image) in zip(rows[1], shown.items(), strict=False):
            axis.imshow(image, "gray", vmin=0, vmax=brightest, interpolation="nearest")
            axis.set_title(name)
        for axis in rows[1]:
            axis.set_axis_off()
    return figure
