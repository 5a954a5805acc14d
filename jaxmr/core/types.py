"""Names for arrays, with their shapes. `*batch` is the tissue's batch, `n` the repetitions of a segment."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Complex, Float, Shaped

# To a type checker both are one: what is written for the arrays of JAX holds for those of NumPy.
if TYPE_CHECKING:
    Leaf = Array
else:
    Leaf = Array | np.ndarray
"""Of a sequence: live in a program, or float64 of NumPy as it was read from a file."""
RealScalar = Float[Array, ""] | float
Train = Float[Leaf, ""] | Float[Leaf, "n"]
"""A number of every repetition (shape `()`), or one number per repetition (shape `(n,)`)."""
TissueArray = Float[Array, "*batch"]
Signal = Complex[Array, "*batch n_echoes"]
Jacobian = Complex[Array, "*batch n_parameters n_echoes"]

__all__ = ["Array", "Complex", "Float", "Jacobian", "Leaf", "RealScalar", "Shaped", "Signal", "TissueArray", "Train"]
