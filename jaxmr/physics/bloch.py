"""Isochromats: what RF, gradients, off-resonance and relaxation do to one magnetisation vector.

The slow and obvious simulator that the fast kernels are tested against. Magnetisation is a real `(3,)` array
(Mx, My, Mz); every verb is a pure function of one isochromat, to be batched with `jax.vmap`. Rotations are
right-handed, dM/dt = omega x M with omega = (Re rf, Im rf, 2 pi b0 + gradient . position). Units: seconds,
hertz, radians, metres; RF in rad/s, gradients as gamma G in rad/(s m). Reference: Bloch, Phys. Rev. 70:460
(1946).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Complex, Float, RealScalar

Magnetisation = Float[Array, "3"]


def equilibrium(m0: RealScalar = 1.0) -> Magnetisation:
    """Magnetisation at rest, `m0` along z."""
    return jnp.stack([jnp.zeros_like(m0), jnp.zeros_like(m0), jnp.asarray(m0)])


def transverse(magnetisation: Magnetisation) -> Complex[Array, ""]:
    """M+ = Mx + i My, the signal of the isochromat."""
    return jax.lax.complex(magnetisation[0], magnetisation[1])


def rotate(magnetisation: Magnetisation, flip: RealScalar, phase: RealScalar = 0.0) -> Magnetisation:
    """Rotate by `flip` about the transverse axis at angle `phase` from x: an instantaneous pulse."""
    axis = jnp.stack([jnp.cos(phase), jnp.sin(phase), jnp.zeros_like(jnp.cos(phase))])
    along = axis * matmul(axis, magnetisation)
    return along + (magnetisation - along) * jnp.cos(flip) + jnp.cross(axis, magnetisation) * jnp.sin(flip)


def precess(magnetisation: Magnetisation, angle: RealScalar) -> Magnetisation:
    """Turn M+ by exp(i angle), where angle = 2 pi b0 time + moment . position."""
    x, y, z = magnetisation
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([c * x - s * y, s * x + c * y, z])


def relax(
    magnetisation: Magnetisation, time: RealScalar, t1: RealScalar, t2: RealScalar, m0: RealScalar = 1.0
) -> Magnetisation:
    """Decay by `t1` and `t2` and recover towards `m0` for `time`."""
    x, y, z = magnetisation
    e2 = jnp.exp(-time / t2)
    return jnp.stack([e2 * x, e2 * y, z - (m0 - z) * jnp.expm1(-time / t1)])


def turn(magnetisation: Magnetisation, rotation: Float[Array, "3"]) -> Magnetisation:
    """Rotate about and by the vector `rotation` (rad): Rodrigues' formula, smooth through zero."""
    square = jnp.sum(rotation**2)
    sideways = jnp.cross(rotation, magnetisation)
    # 1 - cos(a) = 2 sin^2(a/2), so that one smooth function serves both terms.
    half = sinc_root(square / 4)
    return magnetisation + sinc_root(square) * sideways + half**2 / 2 * jnp.cross(rotation, sideways)


def play(
    magnetisation: Magnetisation,
    rf: Complex[Array, "n"],
    gradient: Float[Array, "n 3"],
    dwell: RealScalar | Float[Array, "n"],
    position: Float[Array, "3"],
    t1: RealScalar,
    t2: RealScalar,
    b0: RealScalar = 0.0,
    b1: RealScalar = 1.0,
    m0: RealScalar = 1.0,
) -> Magnetisation:
    """Magnetisation after RF and gradient waveforms that are constant over each dwell.

    rf: rad/s. gradient: gamma G, rad/(s m). dwell: s, one for all samples or one each. position: m. b0: Hz.
    b1: transmit field over nominal. Each sample is an exact rotation about its effective field between two
    halves of relaxation (Strang splitting, error of second order in dwell; none without relaxation).
    """
    axial = matmul(gradient, position) + 2 * jnp.pi * b0
    omega = jnp.stack([b1 * rf.real, b1 * rf.imag, axial], axis=-1)
    times = jnp.broadcast_to(jnp.asarray(dwell, axial.dtype), axial.shape)

    def step(state: Magnetisation, sample) -> tuple[Magnetisation, None]:
        omega, time = sample
        state = relax(state, time / 2, t1, t2, m0)
        state = turn(state, omega * time)
        return relax(state, time / 2, t1, t2, m0), None

    return jax.lax.scan(step, magnetisation, (omega, times))[0]


# Taylor coefficients of sin(a)/a in a^2, highest first: float64 up to a^2 = 0.1, derivatives included.
_SINC_SERIES = np.array([(-1) ** k / math.factorial(2 * k + 1) for k in reversed(range(8))])


def sinc_root(square: Float[Array, "*shape"] | float) -> Float[Array, "*shape"]:
    """sin(a)/a from a^2: smooth, with finite derivatives at zero."""
    square = jnp.asarray(square)
    small = square < 0.1
    series = jnp.polyval(jnp.asarray(_SINC_SERIES, square.dtype), jnp.where(small, square, 0))
    root = jnp.sqrt(jnp.where(small, 1, square))
    return jnp.where(small, series, jnp.sin(root) / root)


def cos_root(square: Float[Array, "*shape"] | float) -> Float[Array, "*shape"]:
    """cos(a) from a^2, as smooth as `sinc_root`: 1 - 2 sin^2(a/2)."""
    return 1 - square / 2 * sinc_root(square / 4) ** 2
