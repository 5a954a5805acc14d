"""What is measured: tissue and phantoms."""

from jaxmr.objects.brains import brain, procedural
from jaxmr.objects.literature_values import literature
from jaxmr.objects.phantom import Phantom, from_fractions, from_maps, to_image, truth
from jaxmr.objects.readers import load
from jaxmr.objects.tissue import Tissue, grid

__all__ = [
    "Phantom",
    "Tissue",
    "brain",
    "from_fractions",
    "from_maps",
    "grid",
    "literature",
    "load",
    "procedural",
    "to_image",
    "truth",
]
