"""Sequence: how the magnetisation is driven, apart from what is measured and by which model.

A sequence is a tuple of segments; each repeats one static pattern, a pulse followed by events,
`repetitions` times. Numbers are leaves and may be traced: a scalar (shape `()`) holds for every
repetition, an array `(n,)` gives one number per repetition. That structure, never a value, decides
which fast path a model takes. Times in seconds from RF centre to RF centre, angles in radians,
moments in rad/m, k = -moment.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import is_concrete
from jaxmr.core.types import Array, Float, Leaf, Train
from jaxmr.physics.rf import Waveform


class Pulse(eqx.Module):
    """Turn the magnetisation by `flip` about the transverse axis at `phase` (right-handed).

    flip: rad, scaled by the tissue's `b1`; a negative flip turns the other way. phase: rad; None is 0.
    shape: which of the sequence's `shapes` is played; None leaves it to the model (instantaneous in `EPG`).
    quadrature: turn about `phase` + pi/2; said by structure, so that CPMG is known to need real arithmetic only.
    use: "excitation", "refocusing" or "other": what the pulse is for, which no model needs but `trajectory` does.
    frequency: Hz that the carrier of a shaped pulse is off, its phase as stated at the RF centre; instantaneous pulses
    do not see it.
    """

    flip: Train
    phase: Train | None = None
    shape: int | None = eqx.field(static=True, default=None)
    quadrature: bool = eqx.field(static=True, default=False)
    use: str = eqx.field(static=True, default="excitation")
    frequency: Train | None = None


class Inversion(eqx.Module):
    """Mz -> -efficiency Mz; a crusher removes what is transverse. Not scaled by `b1`. None: ideal (1)."""

    efficiency: Float[Leaf, ""] | None = None


class Event(eqx.Module):
    """A stretch of free precession, perhaps under a gradient, perhaps sampled.

    duration: s. moment: gradient moment (3,) or (n, 3), rad/m; None is 0. order: EPG orders that the moment
    winds (static); None says that no integer describes it; encoding that is rewound counts 0. samples: the stretch
    is that many equal steps, each of which ends in a sample; 0 takes none. receiver_phase: rad, multiplies the
    samples by exp(-i phase). path: moment wound by each sample, rad/m, where the gradient is not constant
    (the last is `moment`); None is constant. modulation: added to the receiver phase sample by sample, rad.
    """

    duration: Train
    moment: Float[Leaf, "3"] | Float[Leaf, "n 3"] | None = None
    receiver_phase: Train | None = None
    order: int | None = eqx.field(static=True, default=0)
    samples: int = eqx.field(static=True, default=0)
    path: Float[Leaf, "samples 3"] | Float[Leaf, "n samples 3"] | None = None
    modulation: Float[Leaf, "samples"] | Float[Leaf, "n samples"] | None = None


class Segment(eqx.Module):
    """One pattern, a pulse (or an inversion, or nothing) and its events, played `repetitions` times."""

    pulse: Pulse | Inversion | None
    events: tuple[Event, ...]
    repetitions: int = eqx.field(static=True, default=1)


class Sequence(eqx.Module):
    """Segments played one after the other.

    shapes: the library that `Pulse.shape` points into. initial: magnetisation (Mx, My, Mz) before the first
    segment, in units of the equilibrium; None is (0, 0, 1). spin_echo: every sample is a spin echo of a
    CPMG train (set by the family that built it), so that static dephasing does not show.
    """

    segments: tuple[Segment, ...]
    shapes: tuple[Waveform, ...] = ()
    initial: Float[Leaf, "3"] | None = None
    spin_echo: bool = eqx.field(static=True, default=False)

    @property
    def n_echoes(self) -> int:
        """Number of samples the sequence takes."""
        return sum(segment.repetitions * sum(event.samples for event in segment.events) for segment in self.segments)


def total_order(segment: Segment) -> int:
    """EPG orders wound by one repetition; a `ValueError` where no integer describes a gradient."""
    orders = [event.order for event in segment.events]
    if None in orders:
        raise ValueError(
            f"event {orders.index(None)} of a segment has a gradient moment that is no multiple of one EPG order; "
            "simulate with isochromats or PDG, or give its order"
        )
    return sum(order for order in orders if order is not None)


def repetition_time(segment: Segment) -> Train:
    """Time of one repetition, s."""
    return sum((event.duration for event in segment.events), jnp.asarray(0.0))


def sample_steps(segment: Segment) -> list[tuple[Train, int, Train | None]]:
    """Of each sample of one repetition: time after the pulse (s), orders wound by then, receiver phase."""
    steps, start, wound = [], jnp.asarray(0.0), 0
    for event in segment.events:
        if event.samples > 1 and event.order != 0:
            raise ValueError(
                f"an event with {event.samples} samples winds {event.order} EPG orders: samples between orders "
                "have no EPG signal; use isochromats or PDG"
            )
        wound += event.order or 0
        for i in range(event.samples):
            receiver = event.receiver_phase
            if event.modulation is not None:
                receiver = event.modulation[..., i] + (0.0 if receiver is None else receiver)
            steps.append((start + event.duration * ((i + 1) / event.samples), wound, receiver))
        start = start + event.duration
    return steps


def net_times(sequence: Sequence) -> list[list[Train]] | None:
    """Of each segment's samples, the time that static dephasing has acted, s; None where it differs by path.

    It is one number for all paths if the time a path has spent dephased is proportional to its order:
    with one constant repetition time and a net gradient, or at the echoes of a CPMG train (0).
    """
    if sequence.spin_echo:
        return [[jnp.asarray(0.0) for _ in sample_steps(segment)] for segment in sequence.segments]
    pulsed = [segment for segment in sequence.segments if isinstance(segment.pulse, Pulse)]
    if len(pulsed) != 1 or pulsed[0] is not sequence.segments[-1] or sequence.initial is not None:
        return None
    order, time = total_order(pulsed[0]), repetition_time(pulsed[0])
    if order == 0 or any(event.duration.ndim for event in pulsed[0].events):
        return None
    times = [start - wound * time / order for start, wound, _ in sample_steps(pulsed[0])]
    return [*([] for _ in sequence.segments[:-1]), times]


def moment_per_order(sequence: Sequence) -> Float[Array, ""]:
    """Gradient moment of one EPG order, rad/m; a `ValueError` unless the winding events state one and the same."""
    moments = [
        jnp.linalg.norm(event.moment, axis=-1) / abs(event.order)
        for segment in sequence.segments
        for event in segment.events
        if event.order and event.moment is not None
    ]
    if not moments:
        raise ValueError("diffusion needs the gradient moment of an EPG order: give winding events a moment in rad/m")
    if is_concrete(moments) and np.ptp(np.concatenate([np.ravel(m) for m in moments])) > 1e-5 * np.max(moments[0]):
        raise ValueError("the winding events differ in their moment per EPG order; make them equal, or use PDG")
    return jnp.ravel(moments[0])[0]


def duration(sequence: Sequence) -> Float[Array, ""]:
    """Total time, s."""
    total = jnp.asarray(0.0)
    for segment in sequence.segments:
        time = repetition_time(segment)
        total = total + (jnp.sum(time) if time.ndim else segment.repetitions * time)
    return total


def order_bounds(sequence: Sequence) -> list[np.ndarray]:
    """Of each repetition of each segment, the number of EPG orders that can still reach a sample (exact)."""
    wound, sampled = [], []
    for segment in sequence.segments:
        total_order(segment)
        step = sum(abs(event.order or 0) for event in segment.events)
        wound += [step] * segment.repetitions
        sampled += [any(event.samples for event in segment.events)] * segment.repetitions
    last = max((i for i, taken in enumerate(sampled) if taken), default=-1)
    total = np.concatenate([[0], np.cumsum(wound)])
    reached = total[1:]
    returning = np.maximum(total[last + 1] - total[:-1], 0)
    needed = 1 + np.minimum(reached, returning)
    return np.split(needed, np.cumsum([segment.repetitions for segment in sequence.segments])[:-1])


def scale_flips(sequence: Sequence, factor: Any) -> Sequence:
    """The sequence as a voxel with that transmit field sees it: every flip times `factor`."""
    segments = tuple(
        eqx.tree_at(lambda s: s.pulse.flip, segment, factor * segment.pulse.flip)
        if isinstance(segment.pulse, Pulse)
        else segment
        for segment in sequence.segments
    )
    return eqx.tree_at(lambda s: s.segments, sequence, segments)
