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
    c, s = _cos_sin(angle)
    return Operator(((1.0, None, None), (None, c, -s), (None, s, c)))


@jax.custom_jvp
def _cos_sin(angle):
    """Both once: XLA would compute them again for their derivatives."""
    return jax.lax.optimization_barrier((jnp.cos(angle), jnp.sin(angle)))


@_cos_sin.defjvp
def _cos_sin_jvp(primals, tangents):
    c, s = _cos_sin(*primals)
    return (c, s), (-s * tangents[0], c * tangents[0])


def identity() -> Operator:
    """No pulse."""
    return Operator(((1.0, None, None), (None, 1.0, None), (None, None, 1.0)))


def quarter_turned(pulse: Operator) -> Operator:
    """`pulse` about the axis a quarter turn further on."""
    minus = lambda a: None if a is None else -a  # noqa: E731
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = pulse.rows
    rows = ((yy, minus(yx), minus(yz)), (minus(xy), xx, xz), (minus(zy), zx, zz))
    offset = pulse.offset
    return Operator(rows, None if offset is None else (minus(offset[1]), offset[0], offset[2]))


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
    return functools.reduce(operator.add, products) if products else jnp.zeros_like(values[0])


def _add(value: Orders, offset) -> Orders:
    return value if offset is None else value.at[:1].add(offset)


class RealStates(NamedTuple):
    """Trains whose pulses share one axis, x, without off-resonance: F = i `plus`, conj(F(-k)) = i `minus`, Z = `z`.

    X is imaginary, Y and Z are real; under pulses about y, which need orders that do not recover, Z is imaginary.
    """

    plus: Orders
    minus: Orders
    z: Orders

    @property
    def transverse(self) -> tuple[int, ...]:
        """Which parts are transverse, and decay with T2; the others decay with T1."""
        return (0, 1)

    def mix(self, rows: tuple) -> "RealStates":
        """Apply a rotation about x, or about y; it must not mix imaginary with real parts."""
        cartesian = 0.5 * (self.plus + self.minus), 0.5 * (self.plus - self.minus), self.z
        x, y, z = (_mix(row, cartesian) for row in rows)
        return RealStates(x + y, x - y, z)

    def add(self, offset: tuple) -> "RealStates":
        """Add what recovers along z to order 0."""
        return self._replace(z=_add(self.z, offset[2]))

    def attenuate(self, plus, minus, z) -> "RealStates":
        """Multiply F(k), F(-k) and Z(k) by factors of their own."""
        return RealStates(plus * self.plus, minus * self.minus, z * self.z)

    def wind(self, orders: int, half: bool = False) -> "RealStates":
        """Dephase by `orders` (either sign); `half`: row j is order j + 1/2."""
        if orders < 0:
            minus, plus = _wind(self.minus, self.plus, -orders, -1, half)
        else:
            plus, minus = _wind(self.plus, self.minus, orders, -1, half)
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
    """Any train: real and imaginary parts of X(k), Y(k), Z(k), in the frame of the next pulse.

    F(k) = X + iY and conj(F(-k)) = X - iY, X and Y complex: the Fourier series of Mx, My and Mz, on which a pulse
    acts by one real matrix, real and imaginary parts apart.
    """

    x_re: Orders
    y_re: Orders
    z_re: Orders
    x_im: Orders
    y_im: Orders
    z_im: Orders

    @property
    def transverse(self) -> tuple[int, ...]:
        """Which parts are transverse, and decay with T2; the others decay with T1."""
        return (0, 1, 3, 4)

    def mix(self, rows: tuple) -> "ComplexStates":
        """Apply a matrix to (X, Y, Z) of every order."""
        return ComplexStates(*(_mix(row, part) for part in (self[:3], self[3:]) for row in rows))

    def add(self, offset: tuple) -> "ComplexStates":
        """Add (X, Y, Z) to order 0."""
        x, y, z = (_add(value, b) for value, b in zip(self[:3], offset, strict=True))
        return self._replace(x_re=x, y_re=y, z_re=z)

    def turn(self, c, s) -> "ComplexStates":
        """Multiply F by exp(i angle), given as cosine and sine."""
        return self.mix(((c, -s, None), (s, c, None), (None, None, 1.0)))

    def attenuate(self, plus, minus, z) -> "ComplexStates":
        """Multiply F(k), F(-k) and Z(k) by factors of their own."""
        pr, pi, mr, mi = self.circular()
        return cartesian(plus * pr, plus * pi, minus * mr, minus * mi, z * self.z_re, z * self.z_im)

    def wind(self, orders: int, half: bool = False) -> "ComplexStates":
        """Dephase by `orders` (either sign); `half`: row j is order j + 1/2."""
        if orders < 0:
            mirrored = ComplexStates(self.x_re, -self.y_re, self.z_re, self.x_im, -self.y_im, self.z_im)
            x_re, y_re, z_re, x_im, y_im, z_im = mirrored.wind(-orders, half)
            return ComplexStates(x_re, -y_re, z_re, x_im, -y_im, z_im)
        pr, pi, mr, mi = self.circular()
        if orders == 1 and len(pr) > 1:
            first = 0 if half else 1
            cross_re, cross_im = mr[first : first + 1], -mi[first : first + 1]
            x_re, y_re = _shifted_sum(pr, mr, cross_re), _shifted_sum(pi, -mi, cross_im)
            x_im, y_im = _shifted_sum(pi, mi, cross_im), _shifted_sum(-pr, mr, -cross_re)
            return ComplexStates(0.5 * x_re, 0.5 * y_re, self.z_re, 0.5 * x_im, 0.5 * y_im, self.z_im)
        (pr, mr), (pi, mi) = _wind(pr, mr, orders, 1, half), _wind(pi, mi, orders, -1, half)
        return cartesian(pr, pi, mr, mi, self.z_re, self.z_im)

    def invert(self, efficiency) -> "ComplexStates":
        """Z -> -efficiency Z; what is transverse is crushed."""
        zero = jnp.zeros_like(self.z_re)
        return ComplexStates(zero, zero, -efficiency * self.z_re, zero, zero, -efficiency * self.z_im)

    def order(self, k: int) -> "ComplexStates":
        """One order alone."""
        return ComplexStates(*(value[k : k + 1] for value in self))

    def echo(self, wound: int) -> tuple:
        """Of order abs(wound) alone, the F(0) that winding `wound` orders makes: real and imaginary part."""
        pr, pi, mr, mi = (part[0] for part in self.circular())
        return (mr, -mi) if wound > 0 else (pr, pi)

    def circular(self) -> tuple:
        """Real and imaginary parts of F(k) and conj(F(-k))."""
        xr, yr, _, xi, yi, _ = self
        return xr - yi, xi + yr, xr + yi, xi - yr


def cartesian(pr, pi, mr, mi, z_re, z_im) -> ComplexStates:
    return ComplexStates(0.5 * (pr + mr), 0.5 * (pi - mi), z_re, 0.5 * (pi + mi), 0.5 * (mr - pr), z_im)


def _shifted_sum(up: Orders, down: Orders, crossing: Float[Array, "1 lanes"]) -> Orders:
    """`up` shifted one order up, `crossing` entering it, plus `down` shifted one order down, in one pass."""
    return jnp.concatenate([crossing + down[1:2], up[:-2] + down[2:], up[-2:-1]])


def _wind(growing: Orders, shrinking: Orders, orders: int, sign: int, half: bool) -> tuple[Orders, Orders]:
    """Shift one part of F(k) up and of conj(F(-k)) down; `sign` is what conjugation does to that part."""
    if orders == 0:
        return growing, shrinking
    n = growing.shape[0]
    padded = jnp.concatenate([shrinking, jnp.zeros_like(growing, shape=(orders, *growing.shape[1:]))])
    first = 0 if half else 1
    crossing = padded[first : orders + first][::-1]
    crossing = crossing if sign > 0 else -crossing
    return jnp.concatenate([crossing, growing[: max(n - orders, 0)]])[:n], padded[orders:]


def thin(states, offset: int, stride: int):
    """Every `stride`-th order from `offset` on."""
    return type(states)(*(value[offset::stride] for value in states))


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
