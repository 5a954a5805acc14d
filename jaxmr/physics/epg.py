"""Extended phase graph: what RF, relaxation and gradients do to one voxel.

The magnetisation of a voxel is kept as its Fourier series along the dephasing direction:
F(k) and Z(k) for k = 0, 1, ... with conj(F(-k)) in place of the negative orders. Every verb is a
pure function from states to states. Trailing axes of the states, if any, are voxels or sub-slices.
Units: seconds, hertz, radians; diffusivity m2/s, moments rad/m. Right-handed RF; off-resonance
winds F by exp(+2 pi i b0 t). Reference: Weigel, JMRI 41:266 (2015).

These verbs say what happens, in the simplest way; `kernels.py` does the same for many voxels at once.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmr.core.types import Array, Complex, Float


class States(NamedTuple):
    """Configuration states of orders 0 ... K-1: `plus` F(k), `minus` conj(F(-k)), `z` Z(k)."""

    plus: Complex[Array, "K *voxels"]
    minus: Complex[Array, "K *voxels"]
    z: Complex[Array, "K *voxels"]


def initial(orders: int, magnetisation: Float[Array, "3"] | tuple = (0.0, 0.0, 1.0), voxels: tuple = ()) -> States:
    """States of a voxel whose uniform magnetisation is (Mx, My, Mz); the default is equilibrium."""
    mx, my, mz = (jnp.asarray(value) for value in magnetisation)
    zero = jnp.zeros((orders, *voxels), jnp.result_type(complex))
    return States(zero.at[0].set(mx + 1j * my), zero.at[0].set(mx - 1j * my), zero.at[0].set(mz))


def rf(states: States, flip, phase=0.0) -> States:
    """Rotate by `flip` about the transverse axis at angle `phase` (Weigel eq. 15, right-handed)."""
    plus, minus, z = states
    c2, s2, s, c = jnp.cos(flip / 2) ** 2, jnp.sin(flip / 2) ** 2, jnp.sin(flip), jnp.cos(flip)
    e = jnp.exp(1j * phase)
    return States(
        c2 * plus + e**2 * s2 * minus - 1j * e * s * z,
        s2 / e**2 * plus + c2 * minus + 1j / e * s * z,
        -0.5j / e * s * plus + 0.5j * e * s * minus + c * z,
    )


def affine(states: States, matrix: Float[Array, "3 3"], offset: Float[Array, "3"]) -> States:
    """Apply M -> matrix M + offset, given in (Mx, My, Mz); the offset reaches order 0 only (Liu et al. eq. A4)."""
    plus, minus, z = states
    x, y = (plus + minus) / 2, (plus - minus) / 2j
    x, y, z = (row[0] * x + row[1] * y + row[2] * z for row in matrix)
    x, y, z = (value.at[0].add(b) for value, b in zip((x, y, z), offset, strict=True))
    return States(x + 1j * y, x - 1j * y, z)


def invert(states: States, efficiency=1.0) -> States:
    """Ideal inversion, Mz -> -efficiency Mz; a crusher removes what is transverse."""
    return States(jnp.zeros_like(states.plus), jnp.zeros_like(states.minus), -efficiency * states.z)


def relax(states: States, time, t1, t2, b0=0.0, m0=1.0) -> States:
    """Decay by `t1` and `t2`, recover towards `m0`, precess at `b0`, for `time`."""
    e1, e2 = jnp.exp(-time / t1), jnp.exp(-time / t2 + 2j * jnp.pi * b0 * time)
    plus, minus, z = states
    return States(e2 * plus, e2.conj() * minus, (e1 * z).at[0].add(-m0 * jnp.expm1(-time / t1)))


def diffuse(states: States, time, diffusivity, moment_per_order, wound: int = 0) -> States:
    """Attenuate by isotropic diffusion during `time`, in which a gradient winds `wound` orders.

    `moment_per_order` in rad/m. Weigel et al., JMR 205:276 (2010): order k weighs b = dk^2 t k^2, and under
    the gradient the mean of the square over the path from k to k + wound.
    """
    k = jnp.arange(states.plus.shape[0]).reshape(-1, *[1] * (states.plus.ndim - 1))
    b = moment_per_order**2 * time
    plus = jnp.exp(-b * diffusivity * ((k + wound / 2) ** 2 + wound**2 / 12))
    minus = jnp.exp(-b * diffusivity * ((k - wound / 2) ** 2 + wound**2 / 12))
    return States(states.plus * plus, states.minus * minus, states.z * jnp.exp(-b * diffusivity * k**2))


def dephase(states: States, orders: int = 1) -> States:
    """Wind `orders` units of gradient moment, `F(k) -> F(k + orders)`; what leaves the range is lost."""
    plus, minus, z = states
    for _ in range(abs(orders)):
        if orders > 0:
            plus, minus = _wind(plus, minus)
        else:
            minus, plus = _wind(minus, plus)
    return States(plus, minus, z)


def _wind(growing, shrinking):
    """Move `growing` one order up and `shrinking` one down; order 0 of both comes from `shrinking`."""
    if growing.shape[0] == 1:
        return jnp.zeros_like(growing), jnp.zeros_like(shrinking)
    shrinking = jnp.concatenate([shrinking[1:], jnp.zeros_like(shrinking[:1])])
    return jnp.concatenate([shrinking[:1].conj(), growing[:-1]]), shrinking


def signal(states: States) -> Complex[Array, "*voxels"]:
    """What the receiver sees: F(0)."""
    return states.plus[0]
