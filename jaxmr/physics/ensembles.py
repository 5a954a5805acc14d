"""Many isochromats at once: the verbs of `bloch` on three real arrays of one shape.

Complex factors are kept as two real arrays too, which a CPU turns into vector instructions and complex numbers
into shuffles. Right-handed, as everywhere: M+ = Mx + i My is wound by exp(+i angle). Units: radians; magnetisation
in units of the equilibrium. Reference: Bloch, Phys. Rev. 70:460 (1946).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.types import Array, Complex, Float

Number = Float[Array, "..."] | float


class Ensemble(NamedTuple):
    """Magnetisation of many isochromats, arrays of one shape."""

    x: Float[Array, "*spins"]
    y: Float[Array, "*spins"]
    z: Float[Array, "*spins"]


class Factor(NamedTuple):
    """Complex numbers as two real arrays of one shape."""

    re: Float[Array, "*spins"]
    im: Float[Array, "*spins"]


# Taylor coefficients of sin(a)/a and (1 - cos a)/a^2 in a^2, highest first: float64 up to a = pi/2.
_SINE = np.array([(-1) ** k / math.factorial(2 * k + 1) for k in reversed(range(12))])
_VERSINE = np.array([(-1) ** k / math.factorial(2 * k + 2) for k in reversed(range(12))])
N_SINGLE = 7
"""Coefficients that float32 needs."""
PI_PARTS = (3.140625, math.pi - 3.140625)
"""The first has so few digits that its multiples are exact."""


def _series(square: Float[Array, "*spins"]) -> tuple[Float[Array, "*spins"], Float[Array, "*spins"]]:
    """sin(a)/a and (1 - cos a)/a^2 from a^2, for a up to pi/2."""
    n = len(_SINE) if square.dtype == jnp.float64 else N_SINGLE
    sine, versine = (jnp.polyval(jnp.asarray(c[-n:], square.dtype), square, unroll=n) for c in (_SINE, _VERSINE))
    return sine, versine


def _nearest_half_turn(angle: Float[Array, "*spins"]) -> tuple[Float[Array, "*spins"], Float[Array, "*spins"]]:
    """What is left of an angle, at most pi/2, and the sign of the half turns taken off."""
    halves = jnp.round(angle / math.pi)
    return angle - halves * PI_PARTS[0] - halves * PI_PARTS[1], 1 - 2 * jnp.mod(halves, 2)


def factor(angle: Float[Array, "*spins"]) -> Factor:
    """exp(i angle).

    By polynomials: a CPU computes them in vectors (0.5 ns), XLA's sines and cosines one by one (4 ns each).
    """
    rest, sign = _nearest_half_turn(angle)
    sine, versine = _series(rest**2)
    return Factor(sign * (1 - rest**2 * versine), sign * rest * sine)


def sine_and_versine(square: Float[Array, "*spins"]) -> tuple[Float[Array, "*spins"], Float[Array, "*spins"]]:
    """sin(a)/a and (1 - cos a)/a^2 from a^2, smooth through zero; by polynomials, as `factor`."""
    small = square < 2
    safe = jnp.where(small, 1, square)
    root = jnp.sqrt(safe)
    rest, sign = _nearest_half_turn(root)
    inner = jnp.where(small, square, rest**2)
    sine, versine = _series(inner)
    return (
        jnp.where(small, sine, sign * rest * sine / root),
        jnp.where(small, versine, (1 - sign * (1 - inner * versine)) / safe),
    )


def real_and_imaginary(value: Complex[Array, "*spins"]) -> Factor:
    """Complex numbers as a `Factor`."""
    return Factor(value.real, value.imag)


def times(a: Factor, b: Factor) -> Factor:
    """Product; shapes of one rank broadcast."""
    return Factor(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)


def scaled(a: Factor, by: Number) -> Factor:
    """Product with real numbers."""
    return Factor(a.re * by, a.im * by)


def transverse(spins: Ensemble) -> Factor:
    """M+ of every isochromat."""
    return Factor(spins.x, spins.y)


def tip(spins: Ensemble, flip: Number, phase: Number) -> Ensemble:
    """Turn by `flip` about the transverse axis at `phase` (one number): an instantaneous pulse."""
    # Without the barrier XLA computes these again for every spin that shares a flip.
    c, s, cp, sp = jax.lax.optimization_barrier((jnp.cos(flip), jnp.sin(flip), jnp.cos(phase), jnp.sin(phase)))
    along, across = cp * spins.x + sp * spins.y, cp * spins.y - sp * spins.x
    across, z = c * across - s * spins.z, s * across + c * spins.z
    return Ensemble(cp * along - sp * across, sp * along + cp * across, z)


def turn(spins: Ensemble, rx: Number, ry: Number, rz: Float[Array, "*spins"]) -> Ensemble:
    """Rotate every isochromat about and by its vector (rx, ry, rz), rad: Rodrigues' formula, smooth through zero."""
    square = rx**2 + ry**2 + rz**2
    # Without the barrier XLA computes both for each of the three components.
    sine, versine = jax.lax.optimization_barrier(sine_and_versine(square))
    cosine = 1 - versine * square
    along = versine * (rx * spins.x + ry * spins.y + rz * spins.z)
    return Ensemble(
        cosine * spins.x + sine * (ry * spins.z - rz * spins.y) + along * rx,
        cosine * spins.y + sine * (rz * spins.x - rx * spins.z) + along * ry,
        cosine * spins.z + sine * (rx * spins.y - ry * spins.x) + along * rz,
    )


def relax(spins: Ensemble, e1: Number, e2: Number) -> Ensemble:
    """Decay by the factors e1 = exp(-time/T1), towards equilibrium, and e2 = exp(-time/T2)."""
    return Ensemble(e2 * spins.x, e2 * spins.y, 1 + e1 * (spins.z - 1))


def advance(spins: Ensemble, winding: Factor, e1: Number) -> Ensemble:
    """Free precession: M+ times `winding`, the decay by T2 included, and recovery by e1 = exp(-time/T1)."""
    x, y = times(transverse(spins), winding)
    return Ensemble(x, y, 1 + e1 * (spins.z - 1))
