r"""The slice-selective pulse as one operator: EPG-Bloch at the price of EPG.

The hard-pulse steps of a shaped pulse act alike on every EPG order, so they compose into one affine map
before they touch the states (Liu et al., NMR Biomed 2021, eqs. 3, 4 and appendix A, where they are applied
one by one). Here the map stands for a pulse of no duration at its RF centre: the gradient that winds before
and after the centre is taken back, and so is free relaxation over the pulse, so that events count their
time from centre to centre and the operator is the identity for a pulse of zero flip. With R1 factored out,

    M -> C(z, beta, delta) M + b,    beta = B1 * flip,    delta = R2 - R1,

and b follows from C, R1 and the response v(z, beta, delta) to a constant source along z. C and v are smooth:
a quadratic in delta and a cubic B-spline in beta (twice continuously differentiable, as optimisers need)
reproduce them. Off-resonance shifts the slice, which an integral over the whole slice does not see.

Units: s, rad, m, 1/s. Axes (X, Y, Z), right-handed, pulse phase 0.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Float, RealScalar
from jaxmr.physics import bloch
from jaxmr.physics.rf import Waveform, slice_gradient

N_NODES = 65
"""Nodes over |beta|; with two more beyond each end."""


def compose(
    waveform: Waveform, position: RealScalar, flip: RealScalar, delta: RealScalar
) -> tuple[Float[Array, "3 3"], Float[Array, "3"]]:
    """The centred operator of one pulse at one position: matrix C and source response v.

    Strang steps, one per waveform sample: half the relaxation, the rotation, half the relaxation, in a frame
    that decays with R1, so that the transverse part decays with `delta` = R2 - R1.
    """
    n = waveform.samples.shape[0]
    dwell = waveform.duration / n
    winding = slice_gradient(waveform) * position
    half = jnp.exp(-delta * dwell / 2)
    decay = jnp.stack([half, half, jnp.ones_like(half)])[:, None]
    # The columns of C, and v as a fourth one that also receives the source.
    source = jnp.zeros((3, 4), decay.dtype).at[2, 3].set(0.5 / n)
    turn = jax.vmap(bloch.turn, in_axes=(1, None), out_axes=1)
    precess = jax.vmap(bloch.precess, in_axes=(1, None), out_axes=1)

    def recover(time):
        grown = jnp.exp(delta * time)
        return jnp.stack([grown, grown, jnp.ones_like(grown)])

    def step(columns, sample):
        rotation = jnp.stack([flip * sample.real, flip * sample.imag, winding]) * dwell
        return decay * turn(decay * (columns + source), rotation) + source, None

    before, after = waveform.centre, waveform.duration - waveform.centre
    columns = jnp.eye(3, 4, dtype=decay.dtype) * jnp.append(recover(before), 1.0)[None]
    columns, _ = jax.lax.scan(step, precess(columns, -winding * before), waveform.samples)
    columns = recover(after)[:, None] * precess(columns, -winding * after)
    return columns[:, :3], columns[:, 3]


def source_offset(column: Any, response: Any, r1: Any, duration: RealScalar, centre: RealScalar) -> tuple:
    """Offset b of the centred operator (X, Y, Z) from the third `column` of C and the `response` v, three values each.

    What recovers during the pulse, minus what the free precession around the centre will count anyway.
    """
    recovered = 2 * jnp.sinh(duration * r1 / 2)
    before, after = -jnp.expm1(-centre * r1), jnp.expm1((duration - centre) * r1)
    x, y, z = (recovered * v - before * c for v, c in zip(response, column, strict=True))
    return x, y, z - after


class OperatorTable(eqx.Module):
    """C and v of one waveform at `n_z` positions, for all beta and delta of a simulation.

    coefficients (nodes, 3, 12, n_z): B-spline node, power of delta / delta_scale, entry (C row by row, then v).
    """

    coefficients: Float[Array, "nodes 3 12 n_z"]
    spacing: Float[Array, ""]
    delta_scale: Float[Array, ""]
    duration: Float[Array, ""]
    centre: Float[Array, ""]


def tabulate(
    waveform: Waveform, positions: Float[Array, "n_z"], largest_flip: RealScalar, largest_delta: RealScalar
) -> OperatorTable:
    """Table of `compose` for |beta| up to `largest_flip` and delta from 0 to `largest_delta` (1/s).

    The ranges only place the nodes: no derivative flows through them. A node at delta = 0 is essential.
    """
    dtype = positions.dtype
    largest = jax.lax.stop_gradient(jnp.maximum(jnp.asarray(largest_flip, dtype), 1e-3))
    scale = jax.lax.stop_gradient(jnp.maximum(jnp.asarray(largest_delta, dtype), 1.0))
    spacing = largest / (N_NODES - 1)
    flips = spacing * jnp.arange(-2, N_NODES + 2, dtype=dtype)
    chebyshev = jnp.asarray([0.0, 0.5 - 0.5**1.5, 0.5 + 0.5**1.5], dtype)

    def entries(flip, z, delta):
        matrix, response = compose(waveform, z, flip, delta)
        return jnp.concatenate([matrix.reshape(9), response])

    over_z = jax.vmap(entries, in_axes=(None, 0, None), out_axes=1)
    over_delta = jax.vmap(over_z, in_axes=(None, None, 0))
    values = jax.vmap(over_delta, in_axes=(0, None, None))(flips, positions, scale * chebyshev)
    powers = jnp.linalg.inv(jnp.vander(chebyshev, increasing=True))
    values = jnp.einsum("pd,gdqz->gpqz", powers, values, precision="highest")
    # Quasi-interpolation by B-splines: exact for cubics, local, and without a linear system to solve.
    coefficients = values[1:-1] - (values[2:] - 2 * values[1:-1] + values[:-2]) / 6
    return OperatorTable(coefficients, spacing, scale, waveform.duration, waveform.centre)


ODD = (2, 5, 6, 7, 9, 10)
"""Entries odd in beta: those that mix transverse and longitudinal magnetisation."""


def look_up(table: OperatorTable, beta: Float[Array, "*pulses"]) -> Float[Array, "*pulses 3 12 n_z"]:
    """Polynomials in delta of the operators at angles `beta`; beyond the table's range they extrapolate."""
    negative = beta < 0
    x = jnp.where(negative, -beta, beta) / table.spacing
    cell = jnp.clip(jnp.floor(x), 0, N_NODES - 2).astype(jnp.int32)
    t = x - cell
    weights = jnp.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    a, b, c, d = weights[..., None, None, None]
    nodes = table.coefficients
    value = a * nodes[cell] + b * nodes[cell + 1] + c * nodes[cell + 2] + d * nodes[cell + 3]
    # A negative flip is a positive one seen from the opposite axis.
    opposite = jnp.ones((1, 12, 1), value.dtype).at[:, jnp.asarray(ODD)].set(-1).reshape(*[1] * beta.ndim, 1, 12, 1)
    return jnp.where(negative[..., None, None, None], opposite * value, value)
