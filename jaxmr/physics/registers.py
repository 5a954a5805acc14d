"""One repetition of an EPG with every order an array of its own, for kernels that keep the states in registers.

The same verbs as in `kernels.py`, which says what the parts of the states mean. A state is a tuple with one array
per order (lanes of voxels, of any shape), so that dephasing only renames arrays, and costs nothing; loops over the
orders are unrolled as the kernel is traced. Entries of an operator are numbers, or arrays like the states.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmr.physics.kernels import Operator

Orders = tuple[Any, ...]
"""One array of lanes for each of the orders 0 ... K-1."""


def _mix(row, values):
    return functools.reduce(operator.add, [a * value for a, value in zip(row, values, strict=True) if a is not None])


def _halved(rows: tuple) -> list:
    """The rows for 2X and 2Y in place of X and Y: a few products per voxel instead of some per order."""
    return [tuple(None if a is None else 0.5 * a for a in row[:2]) + row[2:] for row in rows]


def _sum(a, b):
    return b if a is None else a if b is None else a + b


def rotation(c, s) -> Operator:
    """`kernels.hard_pulse` from the cosine and sine of its angle."""
    return Operator(((1.0, None, None), (None, c, -s), (None, s, c)))


def turned(action: Operator, c, s) -> Operator:
    """`action`, then F times exp(i angle), given as cosine and sine: cheaper on the operator than on each order."""
    x, y, z = action.rows
    scaled = lambda factor, row: tuple(None if a is None else factor * a for a in row)  # noqa: E731
    added = lambda a, b: tuple(_sum(p, q) for p, q in zip(a, b, strict=True))  # noqa: E731
    rows = (added(scaled(c, x), scaled(-s, y)), added(scaled(s, x), scaled(c, y)), z)
    if action.offset is None:
        return Operator(rows)
    bx, by, bz = action.offset
    bx, by = added(scaled(c, (bx,)), scaled(-s, (by,)))[0], added(scaled(s, (bx,)), scaled(c, (by,)))[0]
    return Operator(rows, (bx, by, bz))


class RealRegisters(NamedTuple):
    """`kernels.RealStates`: F = i `plus`, conj(F(-k)) = i `minus`, Z = `z`, of each order."""

    plus: Orders
    minus: Orders
    z: Orders

    def pulse(self, action: Operator) -> "RealRegisters":
        """Apply a rotation about x, or about y, to every order, the offset along z to order 0."""
        rows = _halved(action.rows)
        plus, minus, along = [], [], []
        for p, m, z in zip(*self, strict=True):
            x, y, z = (_mix(row, (p + m, p - m, z)) for row in rows)
            plus.append(x + y)
            minus.append(x - y)
            along.append(z)
        if action.offset is not None:
            along[0] = _sum(along[0], action.offset[2])
        return RealRegisters(tuple(plus), tuple(minus), tuple(along))

    def turn(self, c, s) -> "RealRegisters":
        """Real states stay in the frame of their one axis."""
        return self

    def wind(self, orders: int) -> "RealRegisters":
        """Dephase by `orders` (either sign)."""
        if orders < 0:
            minus, plus = _wind(self.minus, self.plus, -orders, -1)
        else:
            plus, minus = _wind(self.plus, self.minus, orders, -1)
        return RealRegisters(plus, minus, self.z)

    def invert(self, efficiency) -> "RealRegisters":
        """Z -> -efficiency Z; what is transverse is crushed."""
        zero = _zeros(self.z)
        return RealRegisters(zero, zero, tuple(-efficiency * z for z in self.z))

    def echo(self, wound: int) -> tuple:
        """Of order abs(wound) alone, the F(0) that winding `wound` orders makes: real (None: 0) and imaginary part."""
        return None, (-self.minus[0] if wound > 0 else self.plus[0])


class ComplexRegisters(NamedTuple):
    """`kernels.ComplexStates`: real and imaginary parts of F(k), conj(F(-k)) and Z(k), of each order."""

    plus_re: Orders
    plus_im: Orders
    minus_re: Orders
    minus_im: Orders
    z_re: Orders
    z_im: Orders

    def pulse(self, action: Operator) -> "ComplexRegisters":
        """Apply an affine map of (X, Y, Z) to every order, its offset to order 0."""
        rows = _halved(action.rows)
        offset = (None, None, None) if action.offset is None else action.offset
        orders = []
        for k, (pr, pi, mr, mi, zr, zi) in enumerate(zip(*self, strict=True)):
            xr, yr, zr_ = (_mix(row, (pr + mr, pi - mi, zr)) for row in rows)
            xi, yi, zi_ = (_mix(row, (pi + mi, mr - pr, zi)) for row in rows)
            if k == 0:
                xr, yr, zr_ = (_sum(value, b) for value, b in zip((xr, yr, zr_), offset, strict=True))
            orders.append((xr - yi, xi + yr, xr + yi, xi - yr, zr_, zi_))
        return ComplexRegisters(*zip(*orders, strict=True))

    def turn(self, c, s) -> "ComplexRegisters":
        """Multiply F by exp(i angle), given as cosine and sine."""
        orders = [
            (c * pr - s * pi, c * pi + s * pr, c * mr + s * mi, c * mi - s * mr, zr, zi)
            for pr, pi, mr, mi, zr, zi in zip(*self, strict=True)
        ]
        return ComplexRegisters(*zip(*orders, strict=True))

    def wind(self, orders: int) -> "ComplexRegisters":
        """Dephase by `orders` (either sign)."""
        pr, pi, mr, mi, zr, zi = self
        if orders < 0:
            (mr, pr), (mi, pi) = _wind(mr, pr, -orders, 1), _wind(mi, pi, -orders, -1)
        else:
            (pr, mr), (pi, mi) = _wind(pr, mr, orders, 1), _wind(pi, mi, orders, -1)
        return ComplexRegisters(pr, pi, mr, mi, zr, zi)

    def invert(self, efficiency) -> "ComplexRegisters":
        """Z -> -efficiency Z; what is transverse is crushed."""
        zero = _zeros(self.z_re)
        z_re, z_im = (tuple(-efficiency * z for z in part) for part in (self.z_re, self.z_im))
        return ComplexRegisters(zero, zero, zero, zero, z_re, z_im)

    def echo(self, wound: int) -> tuple:
        """Of order abs(wound) alone, the F(0) that winding `wound` orders makes: real and imaginary part."""
        return (self.minus_re[0], -self.minus_im[0]) if wound > 0 else (self.plus_re[0], self.plus_im[0])


Registers = RealRegisters | ComplexRegisters


def only(states: Registers, k: int) -> Registers:
    """Order `k` alone."""
    return type(states)(*(part[k : k + 1] for part in states))


def resize(states: Registers, orders: int) -> Registers:
    """Keep orders 0 ... `orders` - 1; new ones are empty."""
    return type(states)(*((part + _zeros(part[:1]) * orders)[:orders] for part in states))


def _zeros(part: Orders) -> Orders:
    return (jnp.zeros_like(part[0]),) * len(part)


def _wind(growing: Orders, shrinking: Orders, orders: int, sign: int) -> tuple[Orders, Orders]:
    """Shift one part of F(k) up and of conj(F(-k)) down; `sign` is what conjugation does to that part."""
    padded = shrinking + _zeros(growing[:1]) * orders
    crossing = padded[orders:0:-1]
    crossing = crossing if sign > 0 else tuple(-value for value in crossing)
    return (crossing + growing)[: len(growing)], padded[orders:]
