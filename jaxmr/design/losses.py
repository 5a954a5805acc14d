r"""Losses: what a scan should have little of. Pure functions, least is best, differentiable in all they are given.

Of images: how far from a target, how bright what should be dark. Of sequences: what they ask of the patient (flips,
RF energy, time) and of the gradients. A sum of them, each with its weight, is a loss for `optimise`; minus a loss is
what a scan should have much of. Units: SI, moments in rad/m.
"""

import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Float
from jaxmr.physics import rf
from jaxmr.sequences.sequence import Event, Pulse, Sequence, duration
from jaxmr.units import GAMMA

__all__ = [
    "contrast",
    "duration",
    "image_distance",
    "largest_gradient",
    "largest_slew",
    "rf_energy",
    "smooth_maximum",
    "squared_flips",
    "suppression",
]


def image_distance(image, target, *, magnitude: bool = False) -> Float[Array, ""]:
    r"""$\sum |x - t|^2 / \sum |t|^2$ of two images of one shape, complex, or of their `magnitude`.

    Its square root is the normalised root mean square error. The loss of Loktyushin et al., MRM 86:709 (2021).
    """
    image, target = jnp.asarray(image), jnp.asarray(target)
    if image.shape != target.shape:
        raise ValueError(f"image and target must have one shape, got {image.shape} and {target.shape}")
    if magnitude:
        image, target = _magnitude(image), _magnitude(target)
    return jnp.sum(_power(image - target)) / jnp.sum(_power(target))


def suppression(unwanted, wanted) -> Float[Array, ""]:
    r"""$\overline{|u|^2} / \overline{|w|^2}$: mean power of what should vanish over that of what should be seen.

    Any two sets of signals or pixels; 0 where the first are nulled, as by fluid suppression (Hajnal et al., J. Comput.
    Assist. Tomogr. 16:841 (1992)).
    """
    return jnp.mean(_power(jnp.asarray(unwanted))) / jnp.mean(_power(jnp.asarray(wanted)))


def contrast(first, second) -> Float[Array, ""]:
    r"""$(a - b) / (a + b)$ of the mean magnitudes of two sets of signals or pixels, -1 ... 1 (Michelson's).

    Least where `second` is bright and `first` dark.
    """
    a, b = (jnp.mean(_magnitude(jnp.asarray(signals))) for signals in (first, second))
    return (a - b) / (a + b)


def squared_flips(sequence: Sequence) -> Float[Array, ""]:
    r"""$\sum \alpha^2$ of all pulses, rad^2: the deposited energy, if all pulses have one shape.

    The SAR of Endres and Zaiss (Pulseq-zero, ISMRM 2025). Ideal inversions do not count.
    """
    return jnp.sum(_joined(flips**2 for _, flips in _pulses(sequence)))


def rf_energy(sequence: Sequence) -> Float[Array, ""]:
    r"""$\sum \int |\omega_1|^2 dt = \sum \alpha^2 \int |s|^2 dt$ of all pulses with their shapes s, rad^2/s.

    In the patient the SAR is this over the time, times a factor of coil and body. Raises `ValueError` for a pulse
    without a shape.
    """
    energies = [jnp.zeros(())]
    for pulse, flips in _pulses(sequence):
        if pulse.shape is None:
            raise ValueError("rf_energy needs the shape of every pulse; give the family pulse=, or use squared_flips")
        energies.append(jnp.sum(rf.energy(sequence.shapes[pulse.shape], flips)))
    return jnp.sum(jnp.stack(energies))


def largest_gradient(sequence: Sequence, *, sharpness: float = 32.0) -> Float[Array, ""]:
    r"""The largest $|m_i| / (\gamma T)$ along an axis, T/m: the least amplitude that winds m within the time T.

    Along a `path`, of its steps. A smooth maximum (see `smooth_maximum`); inf where a moment has no time. The exact
    amplitudes of a Pulseq script are in its `constraints`.
    """
    return smooth_maximum(_joined(jnp.abs(_gradients(e)[0]).ravel() for e in _wound(sequence)), sharpness=sharpness)


def largest_slew(sequence: Sequence, *, sharpness: float = 32.0) -> Float[Array, ""]:
    r"""The largest $4 |m_i| / (\gamma T^2)$ along an axis, T/m/s: the least slew that winds m within the time T.

    That of a triangle from zero to zero. Events with samples, which play a constant gradient, do not count, or along
    a `path` by the change of gradient from step to step. Smooth and inf as `largest_gradient`.
    """
    slews = []
    for event in _wound(sequence):
        gradient, time = _gradients(event)
        if event.path is not None:
            slews.append(jnp.abs(jnp.diff(gradient, axis=-2) / time).ravel())
        elif event.samples == 0:
            slews.append(jnp.abs(4 * gradient / time).ravel())
    return smooth_maximum(_joined(slews), sharpness=sharpness)


def smooth_maximum(values, *, sharpness: float = 32.0) -> Float[Array, ""]:
    r"""$(\sum v^p)^{1/p}$ of values >= 0, p the sharpness: between the maximum and $n^{1/p}$ times it."""
    values = jnp.asarray(values)
    largest = jax.lax.stop_gradient(jnp.max(values, initial=0.0))
    scale = jnp.where(largest > 0, largest, 1)
    total = jnp.sum((values / scale) ** sharpness)
    return jnp.where(largest > 0, scale * jnp.where(total > 0, total, 1) ** (1 / sharpness), 0)


def _power(values):
    return values.real**2 + values.imag**2


def _magnitude(values):
    """|v|, its derivative 0 at 0."""
    power = _power(values)
    return jnp.where(power > 0, jnp.sqrt(jnp.where(power > 0, power, 1)), 0)


def _pulses(sequence: Sequence) -> list[tuple[Pulse, Array]]:
    """The pulse of each segment that has one, and the flips of all its repetitions."""
    played = [(part.pulse, part.repetitions) for part in sequence.segments]
    return [(pulse, jnp.broadcast_to(jnp.asarray(pulse.flip), (n,))) for pulse, n in played if isinstance(pulse, Pulse)]


def _wound(sequence: Sequence) -> list[Event]:
    events = [event for segment in sequence.segments for event in segment.events]
    return [event for event in events if event.moment is not None or event.path is not None]


def _gradients(event: Event) -> tuple[Float[Array, "*n steps 3"], Float[Array, "*n 1 1"]]:
    """Mean gradient of each step of an event, T/m, and the time of a step, s, with as many axes."""
    if event.path is None:
        moments = jnp.asarray(event.moment)[..., None, :]
    else:
        moments = jnp.diff(jnp.asarray(event.path), axis=-2, prepend=0)
    time = jnp.asarray(event.duration)[..., None, None] / moments.shape[-2]
    # A train of times of one moment, or of moments in one time.
    rank = max(time.ndim, moments.ndim)
    time, moments = (x.reshape((1,) * (rank - x.ndim) + x.shape) for x in (time, moments))
    return moments / (GAMMA * time), time


def _joined(parts):
    return jnp.concatenate([jnp.zeros(1), *parts])
