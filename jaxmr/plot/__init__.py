"""Figures: parameter maps in the colours of the field, flip-angle trains."""

from jaxmr.plot.maps import estimates_figure, maps_figure
from jaxmr.plot.sequence import train_figure

__all__ = ["estimates_figure", "maps_figure", "train_figure"]
