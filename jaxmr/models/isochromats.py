"""Isochromats: k-space of any sequence by following single spins, the plainest physics there is.

Between pulses a spin makes one jump per event, exp(i (moment . r + 2 pi b0 t)) with T1 and T2. A pulse with a shape is
played in hard-pulse steps, each an exact rotation about the effective field (Strang splitting with relaxation).

Where tissue has a diffusivity, spins walk at random, freely, through voxel walls; the error of a sample falls with one
over the square root of their number. A spin keeps the tissue of the voxel in which it began, and counts there wherever
it goes. k-weights (EPG, PDG) count it where it is when it is sampled: an image is the same in the midst of a uniform
object, but a voxel's share in a sample at moment k, with k(s) on its way, differs by
exp(D (2 k . integral of k(s) ds - k^2 t)), which is near 1 where k winds little over the length of a walk.

Durations count from RF centre to RF centre. A shaped pulse therefore stands at its centre: the free precession and
relaxation that the events on both sides count over the time of the pulse are taken back around it, and so is the
winding of its slice gradient before and after the centre (the rephaser). The first pulse starts before time 0, from
what free precession backwards makes of the initial magnetisation: equilibrium stays equilibrium. A sample inside
the second half of a pulse has no meaning.

Units: s, Hz, m, rad/m. Reference: Bloch, Phys. Rev. 70:460 (1946).
"""

from functools import partial
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core import batch
from jaxmr.core.types import Array, Complex
from jaxmr.models import precession, walking
from jaxmr.models.imaging import ImagingModel
from jaxmr.models.precession import Jump, Motion, at_rest
from jaxmr.models.shaping import shaped
from jaxmr.models.spins import SPREADS, Spins, Voxels, pattern, populate, voxels_of
from jaxmr.models.walking import Drift
from jaxmr.objects.phantom import Phantom
from jaxmr.physics import ensembles
from jaxmr.physics.ensembles import Ensemble
from jaxmr.physics.rf import Waveform
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence
from jaxmr.sequences.timeline import Run, event_runs, over_periods, over_run

CPU_MEMORY, MEMORY = 4 << 20, 2 << 30
"""Bytes of the spins computed together: on a CPU what its caches hold, elsewhere a share of the device's memory."""
KEPT = 4096
"""Numbers per spin of tables that scanned events keep for all repetitions: more leave too few spins in the caches."""


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

    Spins of tissue with a diffusivity walk at random from where they sit, or motion has them; coils, fields and
    diffusivity stay those of their voxel, and during a shaped pulse they stand. The error of a sample is at most
    about sqrt(sum |m0 coil|^2 / per_voxel) over the voxels, without bias. Every sample is a step of its own, a
    hundred times the work of spins that stay. seed: of the walks, as an array to be traced; a seed gives the same
    walks for any memory, devices and precision. first_voxel: number of the phantom's first voxel, where it is part
    of a larger one, so that parts walk differently (`scan` says it). The derivative by diffusivity D has no bias
    where D > 0, and a relative error of about (2 b D spins)^(-1/2) at a small b-value; where D = 0 it is taken as 0.
    """

    per_voxel: int | tuple[int, int, int] = eqx.field(static=True, default=64)
    spread: str = eqx.field(static=True, default="regular")
    motion: Motion | None = None
    memory: int | None = eqx.field(static=True, default=None)
    seed: int | Array = 0
    first_voxel: int | Array = 0

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
        voxels = voxels_of(phantom, n_spins, self.seed, self.first_voxel)
        n, n_coils = voxels.weight.shape
        memory = self.memory or (CPU_MEMORY if jax.default_backend() == "cpu" else MEMORY)
        numbers = _numbers_per_spin(sequence, n_coils, voxels.seeds is not None)
        bytes_per_voxel = n_spins * voxels.r1.dtype.itemsize * numbers
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


def _numbers_per_spin(sequence: Sequence, n_coils: int, diffuses: bool) -> int:
    """Real numbers that a spin needs while the sequence is played: its state, temporaries, tables of samples."""
    if diffuses:
        # Nine more of drift and its draws, no tables.
        return 12 + 15
    tables = 0
    for segment in sequence.segments:
        held = [
            (run.repeats if _keeps(run, segment, n_coils) else 1) * _table_numbers(event, n_coils)
            for run in event_runs(segment)
            for event in run.parts
        ]
        tables = max(tables, sum(held))
    return 12 + tables


def play(sequence: Sequence, spins: Spins, motion: Motion | None = None) -> Complex[Array, "coils samples"]:
    """Signal of some spins together, in the order of the samples."""
    initial = (0.0, 0.0, 1.0) if sequence.initial is None else sequence.initial
    one = jnp.ones(spins.shape, spins.r1.dtype)
    state = Ensemble(*(component * one for component in initial))
    carry = state, walking.start(spins.walk, spins.shape), jnp.zeros((), one.dtype)
    segments = jax.tree.map(lambda leaf: jnp.asarray(leaf, one.dtype), list(sequence.segments))
    play_one = lambda carry, one: _play_segment(carry, one, sequence.shapes, spins, motion)  # noqa: E731
    return over_periods(play_one, carry, segments)


def _play_segment(carry, segment: Segment, shapes: tuple[Waveform, ...], spins: Spins, motion: Motion | None):
    """State, drift and time after the segment, and its samples (coils, repetitions * samples), if it takes any."""
    pulses, pulse = _separated(segment.pulse)
    runs = event_runs(segment)
    events = [_separated(run.parts, stacked=run.repeats > 1) for run in runs]
    # What is the same in every repetition is computed once, unless spins move or it would fill the memory.
    n_coils = spins.weight.re.shape[0]
    still = motion is None and spins.walk is None
    ready = [
        [
            _ready(event, train, run.repeats, spins) if still and _keeps(run, segment, n_coils) else None
            for event, train in zip(run.parts, trains, strict=True)
        ]
        for run, (trains, _) in zip(runs, events, strict=True)
    ]

    def play_one(carry, part):
        (state, drift, time), (event, jump) = carry, part
        state, drift, samples = _play_event(state, drift, event, jump, spins, motion, time)
        if samples is not None:
            phase = 0.0 if event.receiver_phase is None else event.receiver_phase
            phase = phase if event.modulation is None else phase + event.modulation[None]
            samples = jax.lax.complex(*samples) * jnp.exp(-1j * phase)
        return (state, drift, time + event.duration), samples

    @partial(jax.checkpoint, prevent_cse=False)
    def play_scanned(carry, part):
        (state, drift, time), (event, jump) = carry, part
        if jump is None:
            # Or else reverse mode computes the tables of all events beforehand, which do not depend on the state.
            time, event = precession.once((time, event))
        return play_one((state, drift, time), (event, jump))

    # Reverse mode keeps the states between scanned events and computes the rest again: tables would fill the memory.
    plays = [play_one if run.repeats == 1 else play_scanned for run in runs]

    def repetition(carry, train):
        state, drift, time = carry
        pulses, trains = train
        state = _pulse(state, drift, eqx.combine(pulses, pulse), shapes, spins, motion, time)
        carry, taken = (state, drift, time), []
        for play, run, jumps, changing, (_, fixed) in zip(plays, runs, ready, trains, events, strict=True):
            parts = list(zip(eqx.combine(changing, fixed), jumps, strict=True))
            carry, samples = over_run(play, carry, run._replace(parts=parts))
            taken += samples
        return carry, jnp.concatenate(taken, axis=1) if taken else None

    trains = pulses, [changing for changing, _ in events]
    carry, samples = jax.lax.scan(repetition, carry, trains, length=segment.repetitions)
    if samples is not None:
        samples = jnp.moveaxis(samples, 0, 1).reshape(samples.shape[1], -1)
    return carry, samples


def _keeps(run: Run, segment: Segment, n_coils: int) -> bool:
    """Whether what the events of a run do is kept for all repetitions; of scanned ones it adds up."""
    if run.repeats == 1:
        return True
    return segment.repetitions > 1 and run.repeats * sum(_table_numbers(e, n_coils) for e in run.parts) <= KEPT


def _ready(event: Event, train: Event, count: int, spins: Spins) -> Jump | None:
    """The jumps of an event that is the same in every repetition, of as many as are stacked; None of others."""
    if event.path is not None or jax.tree.leaves((train.duration, train.moment)):
        return None
    one = lambda event: precession.jump(event, spins, at_rest(spins))  # noqa: E731
    return one(event) if count == 1 else jax.lax.map(one, event)


def _table_numbers(event: Event, n_coils: int) -> int:
    """Real numbers per spin of the tables of an event's samples."""
    if event.samples < 2:
        return 0
    coarse, fine = precession.table_lengths(event.samples, n_coils)
    return 2 * (coarse * (1 + n_coils) + fine)


def _separated(part: Any, stacked: bool = False) -> tuple[Any, Any]:
    """Leaves that hold one value per repetition, that axis first, and those that hold one for all.

    The former have an axis more than a single value has. stacked: all leaves have one before it.
    """
    ranks = {"moment": 1, "path": 2, "modulation": 1}
    many = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.ndim(leaf) > ranks.get(path[-1].name, 0) + stacked, part
    )
    trains, fixed = eqx.partition(part, many)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), trains) if stacked else trains, fixed


def _play_event(
    state: Ensemble, drift: Drift | None, event: Event, jump: Jump | None, spins: Spins, motion: Motion | None, time
):
    """State and drift after the event, and its samples, (coils, samples) each, or None."""
    if event.samples and (motion is not None or drift is not None or event.path is not None):
        return precession.walk(state, drift, event, spins, motion, time)
    if jump is None:
        place, drift = precession.journey(spins, motion, drift, time, event.duration, event.moment is not None)
        jump = precession.jump(event, spins, place)
    # Or else XLA computes all of the repetition again for every row of the tables.
    state = precession.once(state) if jump.tables else state
    before = ensembles.transverse(state)
    state = ensembles.advance(state, jump.winding, jump.e1)
    if event.samples == 0:
        return state, drift, None
    if jump.tables is None:
        return state, drift, precession.received(state, spins)
    return state, drift, precession.sampled(before, jump.tables, event.samples, spins)


def _pulse(
    state: Ensemble,
    drift: Drift | None,
    pulse: Pulse | Inversion | None,
    shapes: tuple[Waveform, ...],
    spins: Spins,
    motion: Motion | None,
    time,
):
    """State after the pulse, at its centre."""
    if pulse is None:
        return state
    if isinstance(pulse, Inversion):
        efficiency = 1.0 if pulse.efficiency is None else pulse.efficiency
        return Ensemble(0 * state.x, 0 * state.y, -efficiency * state.z)
    phase = 0.0 if pulse.phase is None else pulse.phase
    phase = phase + jnp.pi / 2 if pulse.quadrature else phase
    if pulse.shape is not None:
        return shaped(state, shapes[pulse.shape], pulse.flip, phase, pulse.frequency, spins, motion, time, drift)
    return ensembles.tip(state, pulse.flip if spins.b1 is None else pulse.flip * spins.b1, phase)
