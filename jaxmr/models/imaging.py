"""Models that play a sequence with gradients on a phantom and give k-space, as a scanner's raw data.

A sample is the sum over voxels of m0 times coil times M+, no volume and no 1/N; k = -moment. The samples come in
the order in which the sequence takes them.
"""

import abc

import equinox as eqx

from jaxmr.core.checks import cast
from jaxmr.core.types import Array, Complex
from jaxmr.objects.phantom import Phantom
from jaxmr.sequences.sequence import Sequence


class ImagingModel(eqx.Module):
    """A way to compute k-space. Concrete models are final."""

    @abc.abstractmethod
    def kspace(
        self, sequence: Sequence, phantom: Phantom, devices: tuple | None = None
    ) -> Complex[Array, "coils samples"]:
        """All samples of all coils (one without coils); pure, with the model's choices made.

        devices: share the voxels between them; without it, none is chosen.
        """

    @abc.abstractmethod
    def planned(self, sequence: Sequence, phantom: Phantom) -> "ImagingModel":
        """The model with its open choices made for concrete input."""

    @abc.abstractmethod
    def is_static(self) -> bool:
        """Whether every choice is already made, so that traced input needs no plan."""


@eqx.filter_jit
def kspace(
    sequence: Sequence, phantom: Phantom, model: ImagingModel, devices: tuple | None = None
) -> Complex[Array, "coils samples"]:
    """`model.kspace`, compiled, in the precision of the phantom."""
    sequence, model, phantom = cast((sequence, model, phantom), phantom.tissue.t1.dtype)
    return model.kspace(sequence, phantom, devices)
