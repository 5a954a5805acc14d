"""Live numbers: a concrete float64 beside the expression that made it.

A script computes with live numbers as with NumPy's: branches, formatting and files see the concrete side, which is
bit for bit what the script computes without them, while `evaluation` computes the other side with JAX, as a function
of the leaves. Decisions on live numbers (comparisons, whole numbers) are noted as guards. Rounding keeps its value
and has the derivative of the identity.

graph: expressions. number, arithmetic, numpy_functions: live numbers in scripts. guards: decisions, and
guard_checks: whether they hold. numbering, evaluation: expressions as a JAX program.
"""

from jaxmr.pulseq.live.arithmetic import elementwise, rounded
from jaxmr.pulseq.live.number import (
    GradientCutWarning,
    Live,
    array,
    factored,
    is_array,
    is_jax,
    is_live,
    lift,
    node_of,
    stack,
    value,
    values,
    wrap,
)

__all__ = [
    "GradientCutWarning",
    "Live",
    "array",
    "elementwise",
    "factored",
    "is_array",
    "is_jax",
    "is_live",
    "lift",
    "node_of",
    "rounded",
    "stack",
    "value",
    "values",
    "wrap",
]
