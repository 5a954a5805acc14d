"""Figures: parameter maps in the colours of the field, flip-angle trains, a scan from its pulses to its image."""

from jaxmr.plot.design import design_figure
from jaxmr.plot.maps import comparison_figure, estimates_figure, maps_figure
from jaxmr.plot.scan import scan_figure
from jaxmr.plot.search import search_figure
from jaxmr.plot.sequence import train_figure

__all__ = [
    "comparison_figure",
    "design_figure",
    "estimates_figure",
    "maps_figure",
    "scan_figure",
    "search_figure",
    "train_figure",
]
