"""Pulses of some duration, brought back to their RF centre: what stands in the place of an instantaneous one.

The events on both sides of a pulse count free precession over all of their time; what of it passes during the pulse
is taken back around the hard-pulse steps that are played instead.
"""

import jax
import jax.numpy as jnp

from jaxmr.models.precession import Motion, along, at_rest, moved
from jaxmr.models.spins import Spins
from jaxmr.physics import ensembles
from jaxmr.physics.ensembles import Ensemble
from jaxmr.physics.kernels import Operator
from jaxmr.physics.rf import Waveform, moment_after_centre, moment_before_centre


def shaped(
    state: Ensemble, shape: Waveform, flip, phase, frequency, spins: Spins, motion: Motion | None = None, time=0.0
) -> Ensemble:
    """State after a pulse of some duration, brought back to its centre."""
    dwell, after = shape.dwell, shape.duration - shape.centre
    off_resonance = jnp.zeros_like(state.z)
    for part in (spins.omega, spins.spread):
        off_resonance = off_resonance if part is None else off_resonance + part

    def axial(gradient, instant):
        """Precession in a gradient, or winding by a moment: along z, or a vector."""
        place = at_rest(spins) if motion is None else moved(spins, motion, instant)
        position = place.centre if place.offset is None else place.centre + place.offset
        return gradient * position[2] if gradient.ndim == 0 else along(gradient, position)

    def relax(state, duration):
        return ensembles.relax(state, jnp.exp(-duration * spins.r1), jnp.exp(-duration * spins.r2))

    def back(state, duration, moment):
        """Free precession, and the winding of the gradient, taken back."""
        winding = ensembles.factor(-axial(moment, time) - duration * off_resonance)
        return Ensemble(*ensembles.times(ensembles.transverse(state), winding), state.z)

    instants = dwell * (jnp.arange(shape.samples.shape[0]) + 0.5) - shape.centre
    phase = phase if frequency is None else phase + 2 * jnp.pi * frequency * instants
    samples = shape.samples * flip * dwell * jnp.exp(1j * phase)
    strength = 1.0 if spins.b1 is None else spins.b1
    # A steady gradient is no row: spins at rest meet one field all the time.
    rows = shape.gradient if shape.gradient.ndim == 2 else None
    at_centre = None if rows is not None or motion is not None else axial(shape.gradient, time)

    def step(state, sample):
        rx, ry, instant, gradient = sample
        field = axial(shape.gradient if gradient is None else gradient, instant) if at_centre is None else at_centre
        state = ensembles.turn(state, strength * rx, strength * ry, dwell * (field + off_resonance))
        return relax(state, dwell), None

    # Strang: half a dwell of relaxation before the first rotation, and half too much after the last.
    state = back(relax(state, dwell / 2 - shape.centre), shape.centre, moment_before_centre(shape))
    instants = (time + instants).astype(state.z.dtype)
    state, _ = jax.lax.scan(step, state, (samples.real, samples.imag, instants, rows))
    return relax(back(state, after, moment_after_centre(shape)), -dwell / 2 - after)


def operator(shape: Waveform, flip, phase, frequency, spins: Spins) -> Operator:
    """The pulse as an affine map of (Mx, My, Mz), entries (1, voxels), of spins at the centres of their voxels."""
    zero = jnp.zeros_like(spins.r1)
    one = jnp.ones_like(zero)
    columns = jnp.concatenate([zero, one, zero, zero]), jnp.concatenate([zero, zero, one, zero])
    played = shaped(Ensemble(*columns, jnp.concatenate([zero, zero, zero, one])), shape, flip, phase, frequency, spins)
    offset = tuple(part[:1] for part in played)
    rows = tuple(tuple(part[i : i + 1] - part[:1] for i in (1, 2, 3)) for part in played)
    return Operator(rows, offset)
