"""Selective RF pulses: shapes, what they do to a spin at one place, and their small-tip slice profile.

A pulse is a `Waveform` of unit flip; the flip angle is given when it is played, so one shape serves a whole
train. Rotations are right-handed and a positive gradient moment winds M+ by exp(+i moment z). Units: seconds,
metres, radians, hertz; gradients as gamma G in rad/(s m). References: Pauly, Le Roux, Nishimura and Macovski,
IEEE TMI 10:53 (1991); Liu et al., "Fast and accurate modeling of transient-state sequences by RNNs", eq. (2).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import as_float, is_concrete, require_values
from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Complex, Float, Leaf, RealScalar
from jaxmr.physics.bloch import cos_root, sinc_root

SLICE_RANGE = 3.0
"""Sub-slices reach over this many slice thicknesses (Liu et al., section 3.1)."""


class Waveform(eqx.Module):
    """A selective RF pulse shape of unit flip, and the gradient played with it.

    samples: rad/s per radian of flip, `sum(samples) * duration / n == 1` (complex: the modulus of that sum is
    1, its phase is kept); sample i is the mean over dwell [i, i + 1]. duration: s. gradient: gamma G, rad/(s m),
    constant during the pulse, along the slice axis z or as a vector, or one vector per sample; 0 is
    non-selective. thickness: nominal slice thickness, m; without a gradient it says nothing about the pulse and
    is 1. centre: time of the RF centre from the start, s. symmetric: real samples, the same read backwards.
    """

    samples: Float[Leaf, "n"] | Complex[Leaf, "n"]
    duration: Float[Leaf, ""]
    gradient: Float[Leaf, ""] | Float[Leaf, "3"] | Float[Leaf, "n 3"]
    thickness: Float[Leaf, ""]
    centre: Float[Leaf, ""]
    symmetric: bool = eqx.field(static=True)

    @property
    def dwell(self) -> RealScalar:
        """Duration of one sample, s."""
        return self.duration / self.samples.shape[0]


def slice_gradient(waveform: Waveform) -> Float[Array, ""]:
    """gamma G along the slice axis, whichever that is. Raises `ValueError` where the gradient changes meanwhile."""
    if waveform.gradient.ndim == 2:
        raise ValueError(
            "a pulse whose gradient changes while it is played has no slice profile of one axis; simulate with "
            'Isochromats or PDG(pulses="finite")'
        )
    return waveform.gradient if waveform.gradient.ndim == 0 else jnp.linalg.norm(waveform.gradient)


def moment_before_centre(waveform: Waveform) -> Float[Array, ""] | Float[Array, "3"]:
    """What the gradient of the pulse winds until the RF centre, rad/m."""
    if waveform.gradient.ndim < 2:
        return waveform.gradient * waveform.centre
    n, dwell = waveform.samples.shape[0], waveform.dwell
    time = jnp.clip(waveform.centre - dwell * jnp.arange(n), 0, dwell)
    return matmul(time, waveform.gradient)


def moment_after_centre(waveform: Waveform) -> Float[Array, ""] | Float[Array, "3"]:
    """What it winds from there on, rad/m."""
    if waveform.gradient.ndim < 2:
        return waveform.gradient * (waveform.duration - waveform.centre)
    return waveform.dwell * jnp.sum(waveform.gradient, axis=0) - moment_before_centre(waveform)


def block(duration: RealScalar, n_samples: int = 1) -> Waveform:
    """A hard pulse of constant amplitude without gradient.

    One sample describes it; more only resolve relaxation during the pulse.
    """
    return _unit(jnp.ones_like(_midpoints(n_samples)), duration, 0.0, 1.0, symmetric=True)


def gaussian(duration: RealScalar, time_bandwidth: RealScalar, thickness: RealScalar, n_samples: int = 100) -> Waveform:
    r"""$\exp(-\pi (\mathrm{time\_bandwidth}\, t / \mathrm{duration})^2)$ at midpoints, as PyPulseq."""
    time_bandwidth = _positive("time_bandwidth", time_bandwidth, "a slice needs about 3")
    shape = jnp.exp(-jnp.pi * (time_bandwidth * _midpoints(n_samples)) ** 2)
    return _unit(shape, duration, _gradient(duration, time_bandwidth, thickness), thickness, symmetric=True)


def sinc(
    duration: RealScalar,
    time_bandwidth: RealScalar,
    thickness: RealScalar,
    apodisation: RealScalar = 0.0,
    n_samples: int = 100,
) -> Waveform:
    """A sinc windowed by `(1 - apodisation) + apodisation cos(2 pi t / duration)`, as PyPulseq.

    `apodisation` is 0 (none) to 0.5 (Hann); 0.46 is Hamming.
    """
    time_bandwidth = _positive("time_bandwidth", time_bandwidth, "it is the number of zero crossings")
    apodisation = as_float("apodisation", apodisation)
    require_values("apodisation", apodisation, "0 is no window, 0.5 a Hann window", minimum=0)
    if is_concrete(apodisation) and apodisation > 1:
        raise ValueError(f"apodisation must be at most 1, got {apodisation:g}; 0.5 is a Hann window")
    t = _midpoints(n_samples)
    shape = (1 - apodisation + apodisation * jnp.cos(2 * jnp.pi * t)) * jnp.sinc(time_bandwidth * t)
    return _unit(shape, duration, _gradient(duration, time_bandwidth, thickness), thickness, symmetric=True)


class _Design(NamedTuple):
    """Flip an SLR pulse is designed at, and the ripples of B that give those of its profile."""

    flip: float
    ripples: Callable[[float, float], tuple[float, float]]


# Pass and stop ripple of the polynomial B from those of the magnetisation (Pauly et al.).
_DESIGNS = {
    "small_tip": _Design(0.0, lambda p, s: (p, s)),
    "excitation": _Design(math.pi / 2, lambda p, s: (math.sqrt(p / 2), s / math.sqrt(2))),
    "refocusing": _Design(math.pi, lambda p, s: (p / 4, math.sqrt(s))),
    "inversion": _Design(math.pi, lambda p, s: (p / 8, math.sqrt(s / 2))),
}


def slr(
    duration: RealScalar,
    time_bandwidth: RealScalar,
    thickness: RealScalar,
    kind: str = "excitation",
    pass_ripple: float = 0.01,
    stop_ripple: float = 0.01,
    n_samples: int = 100,
) -> Waveform:
    """A linear-phase Shinnar-Le Roux pulse (Pauly et al. 1991), designed on the host.

    An SLR pulse is designed at one flip and keeps its promise only when played with it: pi/2 for `kind`
    "excitation", pi for "refocusing" (between crushers) and "inversion", any small one for "small_tip".
    pass_ripple, stop_ripple: largest error of |M+| (excitation), |beta|^2 (refocusing) or Mz (inversion)
    inside and outside the slice; the narrowest transition that keeps both is taken. They are kept from
    n_samples = 10 time_bandwidth on. `thickness` is the width at half the height of B. Raises `ValueError`
    when time_bandwidth leaves no room for the transition.
    """
    if kind not in _DESIGNS:
        raise ValueError(f"kind must be one of {', '.join(_DESIGNS)}, got {kind!r}")
    if not is_concrete((time_bandwidth, pass_ripple, stop_ripple)):
        raise ValueError(
            "time_bandwidth and the ripples of an SLR pulse must be concrete numbers, got traced ones; "
            "design the pulse outside jit, only duration and thickness can be traced"
        )
    for name, ripple in (("pass_ripple", pass_ripple), ("stop_ripple", stop_ripple)):
        if not 0 < ripple < 1:
            raise ValueError(f"{name} must be between 0 and 1, got {ripple:g}; 0.01 is common")
    time_bandwidth = float(_positive("time_bandwidth", time_bandwidth, "a sharp slice needs about 8"))
    flip, ripples = _DESIGNS[kind]
    # A fifth in hand: the hard pulses of the theory become constant samples here.
    inside, outside = ripples(0.8 * pass_ripple, 0.8 * stop_ripple)
    b = _low_pass(len(_midpoints(n_samples)), time_bandwidth, inside, outside, one_sided=flip == math.pi)
    shape = b if kind == "small_tip" else _inverse_slr(math.sin(flip / 2) * b)
    gradient = _gradient(duration, time_bandwidth, thickness)
    return _unit(jnp.asarray(shape, float), duration, gradient, thickness, symmetric=True)


def _low_pass(n: int, time_bandwidth: float, inside: float, outside: float, *, one_sided: bool) -> np.ndarray:
    """Symmetric filter of n taps for B, with response 1 at the centre of the slice.

    Inside, the response stays in 1 +- inside, or (`one_sided`, for pulses of pi, as |B| <= 1) in
    1 - 2 inside ... 1. Outside, the ripple allowed falls with frequency, because equiripple pulses end in
    spikes. A linear programme finds the least ripple; the transition grows until that is little enough.
    """
    from scipy.optimize import linprog

    half = np.arange((n + 1) // 2) - (n - 1) / 2

    def response(frequency):  # of the first half of the taps and their mirror images, cycles per duration
        return np.where(half == 0, 1, 2) * np.cos(2 * np.pi / n * np.outer(frequency, half))

    below, above = (2 * inside, 0.0) if one_sided else (inside, inside)
    transition = _transition(inside, outside)
    while transition < time_bandwidth < n - transition:
        edge, start = (time_bandwidth - transition) / 2, (time_bandwidth + transition) / 2
        band = np.linspace(0, edge, max(32, math.ceil(24 * edge)))[1:]
        stop = np.linspace(start, n / 2, 3 * n)
        allowed = outside * start / stop
        rows = np.vstack([response(band), -response(band), response(stop), -response(stop)])
        target = np.concatenate([np.ones_like(band), -np.ones_like(band), 0 * stop, 0 * stop])
        ripple = np.concatenate([np.full_like(band, above), np.full_like(band, below), allowed, allowed])
        solution = linprog(
            c=np.append(np.zeros_like(half), 1.0),
            A_ub=np.column_stack([rows, -ripple]),
            b_ub=target,
            A_eq=np.append(response([0.0]), [[0.0]], axis=1),
            b_eq=[1.0],
            bounds=[(None, None)] * len(half) + [(0, None)],
        )
        if solution.success and solution.x[-1] <= 1:
            taps = solution.x[:-1]
            return np.append(taps, taps[::-1][n % 2 :])
        transition *= 1.04
    raise ValueError(
        f"time_bandwidth {time_bandwidth:g} with {n} samples leaves no room for a transition of "
        f"{transition:.1f} / duration that keeps the ripples; raise time_bandwidth, n_samples or the ripples"
    )


def _transition(inside: float, outside: float) -> float:
    """Transition width times duration of an equiripple filter: D_infinity of Pauly et al."""
    p, s = math.log10(inside), math.log10(outside)
    return (5.309e-3 * p**2 + 7.114e-2 * p - 4.761e-1) * s - (2.66e-3 * p**2 + 5.941e-1 * p + 4.278e-1)


def _inverse_slr(b: np.ndarray) -> np.ndarray:
    """Flips (rad) of the hard pulses whose rotation has the polynomial `b`, undone from the last one."""
    n_fourier = 512 << (len(b) - 1).bit_length()
    # |B| = 1 is a zero of A on the unit circle, where its logarithm is infinite: stay a hair inside.
    b = b / max(1.0, (1 + 1e-5) * np.abs(np.fft.rfft(b, n_fourier)).max())
    a = _minimum_phase(np.sqrt(1 - np.abs(np.fft.fft(b, n_fourier)) ** 2))[: len(b)]
    flips = np.zeros(len(b))
    for j in reversed(range(len(b))):
        half = math.atan2(b[0], a[0])
        flips[j] = 2 * half
        c, s = math.cos(half), math.sin(half)
        a, b = (c * a + s * b)[:-1], (c * b - s * a)[1:]
    return flips


def _minimum_phase(magnitude: np.ndarray) -> np.ndarray:
    """Coefficients of the minimum-phase polynomial of this magnitude on the unit circle, by its cepstrum."""
    cepstrum = np.real(np.fft.ifft(np.log(magnitude)))
    half = len(magnitude) // 2
    cepstrum[1:half] *= 2
    cepstrum[half + 1 :] = 0
    return np.real(np.fft.ifft(np.exp(np.fft.fft(cepstrum))))


def arbitrary(samples, duration: RealScalar, gradient: RealScalar = 0.0, thickness: RealScalar = 1.0) -> Waveform:
    """Any shape, in any unit, scaled to unit flip; differentiable in `samples`.

    samples: real or complex, shape (n,). gradient: gamma G, rad/(s m). Concrete samples decide whether the
    pulse is symmetric; traced ones count as general. Raises `ValueError` for a shape without area.
    """
    samples = jnp.asarray(samples) if np.iscomplexobj(samples) else as_float("samples", samples)
    if samples.ndim != 1 or samples.shape[0] == 0:
        raise ValueError(f"samples must have shape (n,) with n >= 1, got shape {samples.shape}")
    require_values("samples", samples, "resample the pulse to a regular raster")
    symmetric = False
    if is_concrete(samples):
        shape = np.asarray(samples)
        peak = np.abs(shape).max()
        if np.abs(shape.sum()) <= 1e-6 * peak * len(shape):
            raise ValueError(f"samples must have an area, or no scale gives unit flip; got sum {shape.sum():g}")
        # 1e-6 of the peak: a symmetric pulse that went through float32 or a text file still counts.
        symmetric = not np.iscomplexobj(shape) and bool(np.abs(shape - shape[::-1]).max() <= 1e-6 * peak)
    return _unit(samples, duration, gradient, thickness, symmetric=symmetric)


def _positive(name: str, value: RealScalar, remedy: str) -> Float[Array, ""]:
    """`value` as a scalar array, refused unless it is positive."""
    array = as_float(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be one number, got shape {array.shape}; use jax.vmap for several")
    require_values(name, array, remedy, positive=True)
    return array


def _midpoints(n: int, name: str = "n_samples") -> Float[Array, "n"]:
    """Midpoints of n parts of the interval -1/2 ... 1/2, exactly antisymmetric."""
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"{name} must be a positive integer, got {n!r}; 100 samples resolve a slice")
    return (2 * jnp.arange(n, dtype=float) + 1 - n) / (2 * n)


def _gradient(duration, time_bandwidth, thickness) -> Float[Array, ""]:
    """gamma G, rad/(s m), that gives a pulse of bandwidth time_bandwidth / duration this slice thickness."""
    return 2 * jnp.pi * time_bandwidth / as_float("duration", duration) / as_float("thickness", thickness)


def _unit(shape, duration, gradient, thickness, *, symmetric: bool) -> Waveform:
    """`shape` scaled to unit flip, with its RF centre."""
    duration = _positive("duration", duration, "durations are in seconds")
    thickness = _positive("thickness", thickness, "it is in metres")
    gradient = as_float("gradient", gradient)
    require_values("gradient", gradient, "it is gamma G in rad/(s m)")
    area = jnp.sum(shape) * duration / shape.shape[0]
    samples = shape / (jnp.abs(area) if jnp.iscomplexobj(shape) else area)
    centre = duration / 2 if symmetric else duration * _peak(shape)
    return Waveform(samples, duration, gradient, thickness, centre, symmetric)


def _peak(shape) -> Float[Array, ""]:
    """Middle of the samples equal to the peak over the duration (PyPulseq's `calc_rf_center`)."""
    amplitude = jnp.abs(jax.lax.stop_gradient(shape))
    highest = amplitude >= 0.99999 * jnp.max(amplitude)
    n = shape.shape[0]
    first, last = jnp.argmax(highest), n - 1 - jnp.argmax(highest[::-1])
    return (first + last + 1) / (2 * n)


class Spinor(NamedTuple):
    r"""Cayley-Klein parameters of a rotation by $\varphi$ about the unit axis n.

    $\alpha = \cos(\varphi/2) - i n_z \sin(\varphi/2)$ and $\beta = -i (n_x + i n_y) \sin(\varphi/2)$,
    as in Pauly et al., here for right-handed rotations.
    """

    alpha: Complex[Array, ""]
    beta: Complex[Array, ""]


def spinor(waveform: Waveform, flip: RealScalar, position: RealScalar, b0: RealScalar = 0.0) -> Spinor:
    """The rotation by a pulse of `flip` at `position` (m) along the slice axis and off-resonance `b0` (Hz).

    Every sample is one exact rotation about its effective field. Relaxation and the rephaser after the pulse
    are left out.
    """
    dwell = waveform.dwell
    transverse = waveform.samples * flip * dwell
    axial = (slice_gradient(waveform) * position + 2 * jnp.pi * b0) * dwell

    def step(total: Spinor, angle) -> tuple[Spinor, None]:
        square = (angle.real**2 + angle.imag**2 + axial**2) / 4
        half_sine = sinc_root(square) / 2
        alpha = cos_root(square) - 1j * axial * half_sine
        beta = -1j * angle * half_sine
        return Spinor(
            alpha * total.alpha - beta.conj() * total.beta, beta * total.alpha + alpha.conj() * total.beta
        ), None

    one = jnp.ones((), jnp.result_type(transverse, axial, 1j))
    return jax.lax.scan(step, Spinor(one, 0 * one), transverse.astype(one.dtype))[0]


def rotate_by_spinor(
    rotation: Spinor, m_plus: Complex[Array, ""], m_z: RealScalar
) -> tuple[Complex[Array, ""], Float[Array, ""]]:
    """M+ and Mz after the rotation (Pauly et al., the Cayley-Klein form of the rotation matrix)."""
    alpha, beta = rotation
    turned = alpha.conj() ** 2 * m_plus - beta**2 * jnp.conj(m_plus) + 2 * alpha.conj() * beta * m_z
    kept = (alpha * alpha.conj() - beta * beta.conj()).real * m_z
    return turned, kept - 2 * (alpha * beta * jnp.conj(m_plus)).real


def excite(
    waveform: Waveform, flip: RealScalar, position: RealScalar, b0: RealScalar = 0.0
) -> tuple[Complex[Array, ""], Float[Array, ""]]:
    """M+ and Mz after a pulse from equilibrium (Mz = 1) and the slice rephaser.

    The rephaser is minus the gradient area after the RF centre.
    """
    m_plus, m_z = rotate_by_spinor(spinor(waveform, flip, position, b0), jnp.zeros((), complex), 1.0)
    rephaser = -slice_gradient(waveform) * (waveform.duration - waveform.centre)
    return m_plus * jnp.exp(1j * rephaser * position), m_z


class SmallTip(eqx.Module):
    """The small-tip slice profile of a pulse, as a function of position."""

    waveform: Waveform

    def __call__(self, z: Float[Array, "*n_z"] | float) -> Float[Array, "*n_z"] | Complex[Array, "*n_z"]:
        r"""Profile at `z` (m), any shape; 1 at z = 0. A symmetric pulse has a real, signed profile.

        Liu et al. eq. (2) followed by the rephaser, with s the samples and c the RF centre:
        $\int_0^T s(t) e^{i \gamma G z (c - t)} dt$. The effective flip at z is `abs(profile) * flip`, its
        phase is that of the profile.
        """
        pulse = self.waveform
        n = pulse.samples.shape[0]
        winding = jnp.asarray(slice_gradient(pulse) * z)
        before_centre = pulse.centre - pulse.duration * (jnp.arange(n) + 0.5) / n
        angle = jnp.multiply.outer(winding, before_centre)
        kernel = jnp.cos(angle) if pulse.symmetric else jnp.exp(1j * angle)
        # The samples are constant over a dwell: its integral is the midpoint times a sinc.
        held = pulse.dwell * sinc_root((winding * pulse.dwell / 2) ** 2)
        return held * matmul(kernel, pulse.samples.astype(kernel.dtype))


def small_tip(waveform: Waveform) -> SmallTip:
    """The small-tip profile of `waveform`; its relative error is of second order in the flip."""
    return SmallTip(waveform)


def slice_positions(thickness: RealScalar, n_z: int) -> Float[Array, "n_z"]:
    """`n_z` midpoints over `SLICE_RANGE` thicknesses, m; the signal of the slice is that many times their mean."""
    return SLICE_RANGE * thickness * _midpoints(n_z, "n_z")


def energy(waveform: Waveform, flip: Float[Array, "*n"] | float) -> Float[Array, "*n"]:
    r"""$\int |\mathrm{flip}\, s(t)|^2 dt$ in rad2/s, which SAR is proportional to; flips of any shape."""
    return flip**2 * waveform.dwell * jnp.sum(jnp.abs(waveform.samples) ** 2)
