"""What is measured: tissue and phantoms."""

from jaxmr.objects.tissue import Tissue, grid

__all__ = ["Tissue", "grid"]
