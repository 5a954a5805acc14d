"""Where in k-space the samples of a sequence lie, and when they are taken."""

import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Float
from jaxmr.sequences.sequence import Inversion, Pulse, Sequence
from jaxmr.sequences.timeline import Timeline, timelines


def trajectory(sequence: Sequence) -> Float[Array, "samples 3"]:
    """k of every sample, rad/m: minus the moment since the last excitation, turned about at refocusing pulses.

    What a pulse does is its `use`. Differentiable.
    """
    moment, taken = jnp.zeros(3), []
    for segment, timeline in zip(sequence.segments, timelines(sequence, jnp), strict=True):
        use = segment.pulse.use if isinstance(segment.pulse, Pulse) else None
        sign = {"excitation": 0.0, "refocusing": -1.0}.get(use or "", 1.0)
        sign = 0.0 if isinstance(segment.pulse, Inversion) else sign

        def follow(moment, change, sign=sign):
            begin = sign * moment
            return begin + change, begin

        moment, begins = jax.lax.scan(follow, moment, timeline.moment)
        parts = [begins[:, None] + _samples(timeline, i) for i in range(len(timeline.readouts))]
        if parts:
            taken.append(-jnp.concatenate(parts, axis=1).reshape(-1, 3))
    return jnp.concatenate(taken) if taken else jnp.zeros((0, 3))


def _samples(timeline: Timeline, i: int) -> Float[Array, "n samples 3"]:
    """Moments of a readout's samples since the pulse."""
    readout = timeline.readouts[i]
    shape = (timeline.repetitions, readout.samples, 3)
    if readout.path is not None:
        return readout.start_moment[:, None] + jnp.broadcast_to(readout.path, shape)
    steps = jnp.arange(1, readout.samples + 1)[None, :, None]
    each = jnp.broadcast_to(readout.step_moment, (timeline.repetitions, 3))
    return readout.start_moment[:, None] + each[:, None] * steps


def sample_times(sequence: Sequence) -> Float[Array, "samples"]:
    """Time of every sample since the first pulse, s."""
    start, taken = jnp.asarray(0.0), []
    for timeline in timelines(sequence, jnp):
        begins = start + jnp.concatenate([jnp.zeros(1), jnp.cumsum(timeline.time)])
        parts = []
        for readout in timeline.readouts:
            steps = jnp.arange(1, readout.samples + 1)
            within = jnp.broadcast_to(readout.step_time, (timeline.repetitions,))[:, None] * steps[None]
            parts.append((begins[:-1] + readout.start_time)[:, None] + within)
        if parts:
            taken.append(jnp.concatenate(parts, axis=1).reshape(-1))
        start = begins[-1]
    return jnp.concatenate(taken) if taken else jnp.zeros(0)
