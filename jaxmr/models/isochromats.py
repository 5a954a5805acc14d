"""Isochromats: k-space of any sequence by following single spins, the plainest physics there is.

Between pulses a spin makes one jump per event, exp(i (moment . r + 2 pi b0 t)) with T1 and T2. A pulse with a shape is
played in hard-pulse steps, each an exact rotation about the effective field (Strang splitting with relaxation).

Durations count from RF centre to RF centre. A shaped pulse therefore stands at its centre: the free precession and
relaxation that the events on both sides count over the time of the pulse are taken back around it, and so is the
winding of its slice gradient before and after the centre (the rephaser). The first pulse starts before time 0, from
what free precession backwards makes of the initial magnetisation: equilibrium stays equilibrium. A sample inside
the second half of a pulse has no meaning.

Units: s, Hz, m, rad/m. Reference: Bloch, Phys. Rev. 70:460 (1946).
"""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core import batch
from jaxmr.core.types import Array, Complex
from jaxmr.models import precession
from jaxmr.models.imaging import ImagingModel
from jaxmr.models.precession import Jump, Motion, at_rest
from jaxmr.models.shaping import shaped
from jaxmr.models.spins import SPREADS, Spins, Voxels, pattern, populate, voxels_of
from jaxmr.objects.phantom import Phantom
from jaxmr.physics import ensembles
from jaxmr.physics.ensembles import Ensemble
from jaxmr.physics.rf import Waveform
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence

CPU_MEMORY, MEMORY = 4 << 20, 2 << 30
"""Bytes of the spins computed together: on a CPU what its caches hold, elsewhere a share of the device's memory."""


@final
class Isochromats(ImagingModel):
    """Many spins per voxel, each followed through the whole sequence.

    per_voxel: isochromats of a voxel, a number or a grid (nx, ny, nz). More are needed than a voxel is wound by
    turns (of several pathways: their sum), or signal that should be spoiled comes back. spread: "regular" puts
    a number of them on a lattice with that many midpoints along every axis; "sobol" on a Sobol sequence (powers
    of 2). They fill the voxel as a box, also where the phantom says "sinc", which no positive density of spins
    has; in "point" voxels all sit at the centre. t2_prime spreads their frequencies, with an error of about
    per_voxel^(-3/4). motion(position, t) -> position: where a spin that belongs at `position` (3,), m, is at time
    t, s after the first segment began; coils and fields see it where it belongs. memory: bytes for the spins
    computed together; None suits the device.
    """

    per_voxel: int | tuple[int, int, int] = eqx.field(static=True, default=64)
    spread: str = eqx.field(static=True, default="regular")
    motion: Motion | None = None
    memory: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        counts = (self.per_voxel,) if isinstance(self.per_voxel, int) else self.per_voxel
        if min(counts) < 1:
            raise ValueError(f"per_voxel must be positive, got {self.per_voxel}; 1 is a spin at the centre")
        if self.spread not in SPREADS:
            raise ValueError(f"spread must be one of {', '.join(SPREADS)}, got {self.spread!r}")
        if self.spread == "sobol" and (len(counts) > 1 or counts[0] & (counts[0] - 1)):
            raise ValueError(f"a Sobol sequence needs a power of 2 as per_voxel, got {self.per_voxel}; try 64")

    def kspace(
        self, sequence: Sequence, phantom: Phantom, devices: tuple | None = None
    ) -> Complex[Array, "coils samples"]:
        """All samples of all coils, group by group. Differentiable in every float of sequence, phantom and motion."""
        if phantom.tissue.diffusivity is not None:
            raise ValueError("Isochromats do not diffuse; leave diffusivity out, or simulate with PDG")
        if sequence.n_echoes == 0:
            raise ValueError("the sequence takes no sample; give one of its events samples=1")
        where = pattern(phantom, self.per_voxel, self.spread)
        n_devices = 1 if devices is None else len(devices)
        groups = self._groups(sequence, phantom, len(where), n_devices)
        size = None if phantom.voxel_shape == "point" else phantom.voxel_size
        # What motion holds besides arrays, its code, stays outside of what is dealt to the devices.
        arrays, static = eqx.partition((sequence, self.motion, size), eqx.is_array)

        def signal(arrays, group: Voxels):
            sequence, motion, size = eqx.combine(arrays, static)
            return play(sequence, populate(group, where, size), motion)

        def total(arrays, groups: Voxels):
            if groups.r1.shape[0] == 1:
                return signal(arrays, jax.tree.map(lambda leaf: leaf[0], groups))
            # Checkpointed, so that reverse mode keeps the history of one group at a time.
            one = jax.checkpoint(signal)
            start = jnp.zeros((groups.weight.shape[-1], sequence.n_echoes), groups.weight.dtype)
            return jax.lax.scan(lambda total, group: (total + one(arrays, group), None), start, groups)[0]

        return jnp.sum(batch.over_groups(total, arrays, groups, devices), axis=0)

    def _groups(self, sequence: Sequence, phantom: Phantom, n_spins: int, n_devices: int) -> Voxels:
        """The voxels, leaves (devices, groups, voxels, ...), as many together as the memory holds."""
        voxels = voxels_of(phantom, n_spins)
        n, n_coils = voxels.weight.shape
        memory = self.memory or (CPU_MEMORY if jax.default_backend() == "cpu" else MEMORY)
        bytes_per_voxel = n_spins * voxels.r1.dtype.itemsize * _numbers_per_spin(sequence, n_coils)
        groups = batch.in_groups(voxels, max(memory // bytes_per_voxel, 1), n_devices)
        n_groups, lanes = groups.r1.shape
        real = jnp.arange(n_groups * lanes).reshape(n_groups, lanes, 1) < n
        groups = groups._replace(weight=jnp.where(real, groups.weight, 0))
        return jax.tree.map(lambda leaf: leaf.reshape(n_devices, -1, *leaf.shape[1:]), groups)

    def planned(self, sequence: Sequence, phantom: Phantom) -> "Isochromats":
        """The model itself: it has no open choices."""
        return self

    def is_static(self) -> bool:
        """True."""
        return True


def _numbers_per_spin(sequence: Sequence, n_coils: int) -> int:
    """Real numbers that a spin needs while the sequence is played: its state, temporaries, tables of samples."""
    tables = 0
    for segment in sequence.segments:
        lengths = [precession.table_lengths(event.samples, n_coils) for event in segment.events if event.samples > 1]
        tables = max(tables, sum(2 * (coarse * (1 + n_coils) + fine) for coarse, fine in lengths))
    return 12 + tables


def play(sequence: Sequence, spins: Spins, motion: Motion | None = None) -> Complex[Array, "coils samples"]:
    """Signal of some spins together, in the order of the samples."""
    initial = (0.0, 0.0, 1.0) if sequence.initial is None else sequence.initial
    one = jnp.ones(spins.shape, spins.r1.dtype)
    carry = Ensemble(*(component * one for component in initial)), jnp.zeros((), one.dtype)
    parts = []
    for segment in sequence.segments:
        carry, samples = _play_segment(carry, segment, sequence.shapes, spins, motion)
        if samples is not None:
            parts.append(samples)
    return jnp.concatenate(parts, axis=1)


def _play_segment(carry, segment: Segment, shapes: tuple[Waveform, ...], spins: Spins, motion: Motion | None):
    """State and time after the segment, and its samples (coils, repetitions * samples), if it takes any."""
    trains, fixed = eqx.partition(segment, _per_repetition(segment))
    # What is the same in every repetition is computed once.
    ready = [
        None
        if motion is not None or event.path is not None or jax.tree.leaves((train.duration, train.moment))
        else precession.jump(event, spins, at_rest(spins))
        for event, train in zip(segment.events, trains.events, strict=True)
    ]

    def repetition(carry, train):
        state, time = carry
        one = eqx.combine(train, fixed)
        state = _pulse(state, one.pulse, shapes, spins, motion, time)
        taken = []
        for event, jump in zip(one.events, ready, strict=True):
            state, samples = _play_event(state, event, jump, spins, motion, time)
            time = time + event.duration
            if samples is not None:
                phase = 0.0 if event.receiver_phase is None else event.receiver_phase
                phase = phase if event.modulation is None else phase + event.modulation
                taken.append(jax.lax.complex(*samples) * jnp.exp(-1j * phase))
        return (state, time), jnp.concatenate(taken, axis=1) if taken else None

    carry, samples = jax.lax.scan(repetition, carry, trains, length=segment.repetitions)
    if samples is not None:
        samples = jnp.moveaxis(samples, 0, 1).reshape(samples.shape[1], -1)
    return carry, samples


def _per_repetition(segment: Segment) -> Any:
    """Which leaves hold one value per repetition: those with an axis more than a single value has."""
    ranks = {"moment": 1, "path": 2, "modulation": 1}
    return jax.tree_util.tree_map_with_path(lambda path, leaf: jnp.ndim(leaf) > ranks.get(path[-1].name, 0), segment)


def _play_event(state: Ensemble, event: Event, jump: Jump | None, spins: Spins, motion: Motion | None, time):
    """State after the event, and its samples, (coils, samples) each, or None."""
    if event.samples and (motion is not None or event.path is not None):
        return precession.walk(state, event, spins, motion, time)
    if jump is None:
        jump = precession.jump(event, spins, precession.mean_place(spins, motion, time, event.duration))
    # Or else XLA computes all of the repetition again for every row of the tables.
    state = precession.once(state) if jump.tables else state
    before = ensembles.transverse(state)
    state = ensembles.advance(state, jump.winding, jump.e1)
    if event.samples == 0:
        return state, None
    if jump.tables is None:
        return state, precession.received(state, spins)
    return state, precession.sampled(before, jump.tables, event.samples, spins)


def _pulse(state: Ensemble, pulse: Pulse | Inversion | None, shapes, spins: Spins, motion: Motion | None, time):
    """State after the pulse, at its centre."""
    if pulse is None:
        return state
    if isinstance(pulse, Inversion):
        efficiency = 1.0 if pulse.efficiency is None else pulse.efficiency
        return Ensemble(0 * state.x, 0 * state.y, -efficiency * state.z)
    phase = 0.0 if pulse.phase is None else pulse.phase
    phase = phase + jnp.pi / 2 if pulse.quadrature else phase
    if pulse.shape is not None:
        return shaped(state, shapes[pulse.shape], pulse.flip, phase, pulse.frequency, spins, motion, time)
    return ensembles.tip(state, pulse.flip if spins.b1 is None else pulse.flip * spins.b1, phase)
