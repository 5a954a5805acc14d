"""Names for arrays, with their shapes. `*batch` is the tissue's batch, `n` the repetitions of a segment."""

from jaxtyping import Array, Complex, Float, Shaped

RealScalar = Float[Array, ""] | float
Train = Float[Array, ""] | Float[Array, "n"]
"""A number of every repetition (shape `()`), or one number per repetition (shape `(n,)`)."""
TissueArray = Float[Array, "*batch"]
Signal = Complex[Array, "*batch n_echoes"]
Jacobian = Complex[Array, "*batch n_parameters n_echoes"]

__all__ = ["Array", "Complex", "Float", "Jacobian", "RealScalar", "Shaped", "Signal", "TissueArray", "Train"]
