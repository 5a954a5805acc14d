r"""Limits of a scan as penalties: 0 where they hold, growing with the square of the relative excess.

Add them, times a weight, to a loss; twice differentiable but for the limit itself. Bounds of single numbers belong to
`optimise(bounds=)`, and limits that must hold exactly to a parametrisation (`spline_within`, `b_spline`,
`shared_time`, `limited_energy`).
"""

import jax.numpy as jnp

from jaxmr.core.types import Array, Float
from jaxmr.design import losses
from jaxmr.sequences.sequence import Pulse, Sequence


def excess(value, limit: float) -> Float[Array, ""]:
    r"""$\sum \max(0, v / l - 1)^2$ of a value, or of several, over a positive limit of the same unit."""
    if not limit > 0:
        raise ValueError(f"limit must be positive and of the unit of the value, got {limit:g}")
    return jnp.sum(jnp.maximum(jnp.asarray(value) / limit - 1, 0) ** 2)


def outside(values, lowest: float, highest: float) -> Float[Array, ""]:
    r"""$\sum (d / (h - l))^2$, d the distance of each value from lowest ... highest.

    Of the flips of a spline before they are clipped: with it, a search looks for a spline that needs no clipping.
    """
    if not lowest < highest:
        raise ValueError(f"lowest must be below highest, got {lowest:g} and {highest:g}")
    values = jnp.asarray(values)
    return jnp.sum(((values - jnp.clip(values, lowest, highest)) / (highest - lowest)) ** 2)


def longer(sequence: Sequence, limit: float) -> Float[Array, ""]:
    """Excess of the duration of the sequence over `limit`, s."""
    return excess(losses.duration(sequence), limit)


def hotter(sequence: Sequence, limit: float) -> Float[Array, ""]:
    r"""Excess of the mean RF power $\sum \alpha^2 / T$ over `limit`, rad^2/s: the SAR of pulses of one shape.

    Ideal inversions do not count. The patient's SAR is this times a factor of the pulse's shape, coil and body.
    """
    return excess(losses.squared_flips(sequence) / losses.duration(sequence), limit)


def flips_above(sequence: Sequence, limit: float) -> Float[Array, ""]:
    """Excess of each flip over `limit`, rad, added up."""
    return sum((excess(flips, limit) for flips in _flips(sequence)), jnp.zeros(()))


def flips_below(sequence: Sequence, limit: float, scale: float) -> Float[Array, ""]:
    r"""$\sum \max(0, (l - \alpha) / s)^2$ of the flips below `limit`, rad, in units of `scale`, rad."""
    if not scale > 0:
        raise ValueError(f"scale must be a positive angle in rad, got {scale:g}")
    below = (jnp.sum(jnp.maximum((limit - flips) / scale, 0) ** 2) for flips in _flips(sequence))
    return sum(below, jnp.zeros(()))


def roughness(sequence: Sequence) -> Float[Array, ""]:
    r"""$\sum (\alpha_{n-1} - 2 \alpha_n + \alpha_{n+1})^2$ of the trains, rad^2: 0 for straight ones."""
    bent = (jnp.sum(jnp.diff(flips, n=2) ** 2) for flips in _flips(sequence) if flips.shape[0] > 2)
    return sum(bent, jnp.zeros(()))


def _flips(sequence: Sequence) -> list[Float[Array, "n"]]:
    """The flips of each segment's pulses."""
    played = [(part.pulse, part.repetitions) for part in sequence.segments]
    return [jnp.broadcast_to(jnp.asarray(pulse.flip), (n,)) for pulse, n in played if isinstance(pulse, Pulse)]
