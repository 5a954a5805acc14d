"""One repetition of an EPG for many voxels at once: pulse, relaxation and dephasing fused.

The same physics as `epg.py`, arranged for speed. States have shape `(orders, lanes)` in real arithmetic; a
lane is one sub-slice of one voxel. The pulse is a real 3x3 matrix in (X, Y, Z), in the frame of its phase; an
entry that is zero by structure is None and costs nothing. Relaxation over the repetition commutes with
dephasing, so that it scales the matrix (a few products per voxel) and not the states (a product per order).
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Float

Orders = Float[Array, "K lanes"]


class Operator(NamedTuple):
    """Affine map of (X, Y, Z): three rows of three entries, and an offset that order 0 receives."""

    rows: tuple
    offset: tuple | None = None


def hard_pulse(angle: Float[Array, "*lanes"]) -> Operator:
    """Instantaneous right-handed rotation about x by `angle`, of any shape."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    return Operator(((jnp.ones_like(c), None, None), (None, c, -s), (None, s, c)))


def identity() -> Operator:
    """No pulse."""
    return Operator(((1.0, None, None), (None, 1.0, None), (None, None, 1.0)))


def scaled(pulse: Operator, e2, e1, recovery) -> Operator:
    """`pulse` followed by decay `e2`, `e1` and recovery of order 0."""
    factors = (e2, e2, e1)
    rows = tuple(tuple(None if a is None else f * a for a in row) for f, row in zip(factors, pulse.rows, strict=True))
    offset = (
        (None, None, None) if pulse.offset is None else tuple(f * b for f, b in zip(factors, pulse.offset, strict=True))
    )
    return Operator(rows, (*offset[:2], recovery if offset[2] is None else offset[2] + recovery))


def _mix(row, values) -> Orders:
    products = [a * value for a, value in zip(row, values, strict=True) if a is not None]
    return functools.reduce(operator.add, products)


def _add(value: Orders, offset) -> Orders:
    return value if offset is None else jnp.concatenate([value[:1] + offset, value[1:]])


class RealStates(NamedTuple):
    """Trains whose pulses share one axis, without off-resonance: F = i `plus`, conj(F(-k)) = i `minus`, Z = `z`."""

    plus: Orders
    minus: Orders
    z: Orders

    def pulse(self, action: Operator) -> "RealStates":
        """Apply a rotation about x (X is imaginary, Y and Z are real: the map must not mix X with the others)."""
        x, y = 0.5 * (self.plus + self.minus), 0.5 * (self.plus - self.minus)
        (scale, _, _), row_y, row_z = action.rows
        x, y, z = scale * x, _mix(row_y[1:], (y, self.z)), _mix(row_z[1:], (y, self.z))
        return RealStates(x + y, x - y, z if action.offset is None else _add(z, action.offset[2]))

    def attenuate(self, plus, minus, z) -> "RealStates":
        """Multiply each order by a factor of its own."""
        return RealStates(plus * self.plus, minus * self.minus, z * self.z)

    def wind(self, orders: int) -> "RealStates":
        """Dephase by `orders` (either sign)."""
        if orders < 0:
            minus, plus = _wind(self.minus, self.plus, -orders, -1)
        else:
            plus, minus = _wind(self.plus, self.minus, orders, -1)
        return RealStates(plus, minus, self.z)

    def invert(self, efficiency) -> "RealStates":
        """Z -> -efficiency Z; what is transverse is crushed."""
        return RealStates(jnp.zeros_like(self.plus), jnp.zeros_like(self.minus), -efficiency * self.z)

    def order(self, k: int) -> "RealStates":
        """One order alone."""
        return RealStates(*(value[k : k + 1] for value in self))

    def echo(self, wound: int) -> tuple:
        """Of order abs(wound) alone, the F(0) that winding `wound` orders makes: real (None: 0) and imaginary part."""
        return None, (-self.minus[0] if wound > 0 else self.plus[0])


class ComplexStates(NamedTuple):
    """Any train: real and imaginary parts of F(k), conj(F(-k)) and Z(k), in the frame of the next pulse."""

    plus_re: Orders
    plus_im: Orders
    minus_re: Orders
    minus_im: Orders
    z_re: Orders
    z_im: Orders

    def pulse(self, action: Operator) -> "ComplexStates":
        """Apply an affine map of (X, Y, Z) to every order, its offset to order 0."""
        pr, pi, mr, mi, zr, zi = self
        real = (0.5 * (pr + mr), 0.5 * (pi - mi), zr)
        imag = (0.5 * (pi + mi), 0.5 * (mr - pr), zi)
        xr, yr, zr = (_mix(row, real) for row in action.rows)
        xi, yi, zi = (_mix(row, imag) for row in action.rows)
        # Without the barrier XLA computes X and Y once for each state they enter, and over several pulses.
        xr, yr, zr, xi, yi, zi = jax.lax.optimization_barrier((xr, yr, zr, xi, yi, zi))
        if action.offset is not None:
            xr, yr, zr = (_add(value, b) for value, b in zip((xr, yr, zr), action.offset, strict=True))
        return ComplexStates(xr - yi, xi + yr, xr + yi, xi - yr, zr, zi)

    def turn(self, c, s) -> "ComplexStates":
        """Multiply F by exp(i angle), given as cosine and sine."""
        pr, pi, mr, mi, zr, zi = self
        return ComplexStates(c * pr - s * pi, c * pi + s * pr, c * mr + s * mi, c * mi - s * mr, zr, zi)

    def attenuate(self, plus, minus, z) -> "ComplexStates":
        """Multiply each order by a factor of its own."""
        factors = (plus, plus, minus, minus, z, z)
        return ComplexStates(*(f * value for f, value in zip(factors, self, strict=True)))

    def wind(self, orders: int) -> "ComplexStates":
        """Dephase by `orders` (either sign)."""
        pr, pi, mr, mi, zr, zi = self
        if orders < 0:
            (mr, pr), (mi, pi) = _wind(mr, pr, -orders, 1), _wind(mi, pi, -orders, -1)
        else:
            (pr, mr), (pi, mi) = _wind(pr, mr, orders, 1), _wind(pi, mi, orders, -1)
        return ComplexStates(pr, pi, mr, mi, zr, zi)

    def invert(self, efficiency) -> "ComplexStates":
        """Z -> -efficiency Z; what is transverse is crushed."""
        zero = jnp.zeros_like(self.z_re)
        return ComplexStates(zero, zero, zero, zero, -efficiency * self.z_re, -efficiency * self.z_im)

    def order(self, k: int) -> "ComplexStates":
        """One order alone."""
        return ComplexStates(*(value[k : k + 1] for value in self))

    def echo(self, wound: int) -> tuple:
        """Of order abs(wound) alone, the F(0) that winding `wound` orders makes: real and imaginary part."""
        return (self.minus_re[0], -self.minus_im[0]) if wound > 0 else (self.plus_re[0], self.plus_im[0])


def _wind(growing: Orders, shrinking: Orders, orders: int, sign: int) -> tuple[Orders, Orders]:
    """Shift one part of F(k) up and of conj(F(-k)) down; `sign` is what conjugation does to that part."""
    if orders == 0:
        return growing, shrinking
    n = growing.shape[0]
    padded = jnp.concatenate([shrinking, jnp.zeros_like(growing, shape=(orders, *growing.shape[1:]))])
    crossing = padded[1 : orders + 1][::-1]
    crossing = crossing if sign > 0 else -crossing
    return jnp.concatenate([crossing, growing[: max(n - orders, 0)]])[:n], padded[orders:]


def resize(states, orders: int):
    """Keep orders 0 ... `orders` - 1; new ones are empty."""

    def fit(value):
        missing = orders - value.shape[0]
        return (
            value[:orders]
            if missing <= 0
            else jnp.concatenate([value, jnp.zeros_like(value, shape=(missing, *value.shape[1:]))])
        )

    return type(states)(*(fit(value) for value in states))
