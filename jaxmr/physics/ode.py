r"""The Bloch equations for RF and gradients that are functions of time, with adaptive error control.

For adiabatic and frequency-swept pulses, and wherever fixed steps need a judge. Right-handed,

    dM/dt = omega(t) x M - (Mx/T2, My/T2, (Mz - M0)/T1),    omega = (b1 rf(t), gradient(t) . r + 2 pi b0),

with the transverse components of omega the real and imaginary part of b1 rf. Units: s, Hz, m; RF in rad/s,
gradients as gamma G in rad/(s m). References: Bloch, Phys. Rev. 70:460 (1946); diffrax, Kidger (2021).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import is_concrete
from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Complex, Float, RealScalar
from jaxmr.physics.bloch import Magnetisation

MAX_STEPS = 1 << 16
"""Steps after which the solver gives up, 20 turns each at the default tolerance."""


def solve(
    magnetisation: Magnetisation,
    rf: Callable[[Float[Array, ""]], Complex[Array, ""] | Float[Array, ""]],
    gradient: Callable[[Float[Array, ""]], Float[Array, "3"]] | None,
    times: Float[Array, "n"],
    position: Float[Array, "3"],
    t1: RealScalar,
    t2: RealScalar,
    b0: RealScalar = 0.0,
    b1: RealScalar = 1.0,
    m0: RealScalar = 1.0,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    breaks: Float[Array, "m"] | None = None,
) -> Float[Array, "n 3"]:
    """Magnetisation of one isochromat at `times`, the first of which is the start.

    rf(t): rad/s, complex or real. gradient(t): gamma G, rad/(s m); None is no gradient. times: s, increasing.
    position: m. rtol, atol: largest error of a step, relative and absolute; float32 bears no less than the
    defaults. breaks: times at which a waveform jumps or starts; no step crosses them, or a short pulse after a
    long pause could be missed. Reverse-mode differentiable, also in what `rf` and `gradient` close over where they
    are Equinox modules; batch it with `jax.vmap`. Raises `ValueError` for times that do not increase, and
    an error of diffrax when the tolerance cannot be met.
    """
    import diffrax

    times = jnp.asarray(times)
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(f"times must have shape (n,), the start and at least one more, got shape {times.shape}")
    if is_concrete(times) and not bool(np.all(np.diff(np.asarray(times)) > 0)):
        raise ValueError("times must increase strictly; sort them and leave doubles out")

    def rate(t, m, arguments):
        rf, gradient, position, t1, t2, b0, b1, m0 = arguments
        transverse = b1 * jnp.asarray(rf(t))
        axial = 2 * jnp.pi * b0
        if gradient is not None:
            axial = axial + matmul(gradient(t), position)
        omega = jnp.stack([transverse.real, transverse.imag, jnp.asarray(axial, m.dtype)]).astype(m.dtype)
        return jnp.cross(omega, m) - jnp.stack([m[0] / t2, m[1] / t2, (m[2] - m0) / t1])

    controller = diffrax.PIDController(rtol=rtol, atol=atol)
    if breaks is not None:
        controller = diffrax.ClipStepSizeController(controller, jump_ts=jnp.sort(jnp.asarray(breaks)))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),  # pyright: ignore[reportArgumentType]
        diffrax.Dopri8(),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=magnetisation,
        args=(rf, gradient, position, t1, t2, b0, b1, m0),
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=controller,
        max_steps=MAX_STEPS,
    )
    assert solution.ys is not None
    return solution.ys
