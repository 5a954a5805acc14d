"""Play a sequence on the EPG of many voxels: one scan per segment, pulse by pulse.

Shared by the models that differ only in what a pulse does. Voxels lie on the last axis of the states,
sub-slices before it; relaxation is in rates, 1/s.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.types import Array, Complex, Float
from jaxmr.objects.tissue import Tissue
from jaxmr.physics import kernels
from jaxmr.sequences.sequence import (
    Inversion,
    Pulse,
    Segment,
    Sequence,
    moment_per_order,
    net_times,
    order_bounds,
    sample_steps,
)

UNROLL = {kernels.RealStates: 4, kernels.ComplexStates: 2}
"""Repetitions per step of the scan, for few orders (measured on two CPUs; more only costs compilation)."""
FEW = 32
N_BLOCKS = 8
"""Blocks of constant orders that a long exact train is cut into: its states grow, then shrink."""

Rows = Float[Array, "1 voxels"]


class Voxels(NamedTuple):
    """Rates of the voxels, 1/s, beside an axis for sub-slices; None is compiled out.

    diffusion: rate at which order 1 is attenuated, moment^2 D. keep: orders of each voxel.
    """

    r1: Rows
    r2: Rows
    b1: Rows | None
    b0: Rows | None
    diffusion: Rows | None
    keep: Rows | None


class Slices(NamedTuple):
    """How the sub-slices of a voxel add up to its signal.

    n: number simulated. weight: of each. imaginary: the other half of the slice cancels the real part.
    phase (n,): of the pulse at each sub-slice, rad, or None.
    """

    n: int = 1
    weight: float = 1.0
    imaginary: bool = False
    phase: Float[Array, "n"] | None = None


PulseRule = Callable[[Pulse, Any, Voxels], kernels.Operator]
"""What a pulse of that flip angle does to those voxels, in the frame of its phase."""


def one_axis(sequence: Sequence) -> bool:
    """Whether all pulses turn about one axis by structure: no phases, or one scalar phase of the only train."""
    phases = [segment.pulse.phase for segment in sequence.segments if isinstance(segment.pulse, Pulse)]
    given = [phase for phase in phases if phase is not None]
    return sequence.initial is None and (not given or (len(phases) == 1 and given[0].ndim == 0))


def needs_precession(sequence: Sequence, tissue: Tissue) -> bool:
    """Whether off-resonance must act on the states; with one constant timing it is a phase of the signal."""
    return tissue.b0 is not None and net_times(sequence) is None


def play(
    sequence: Sequence,
    tissue: Tissue,
    rule: PulseRule,
    slices: Slices,
    orders: int | None,
    real: bool,
    keep: Float[Array, "voxels"] | None,
) -> Complex[Array, "voxels n_echoes"]:
    """Signal of every voxel of a flat `tissue`, for m0 = 1; `orders` None keeps all that reach a sample."""
    times = net_times(sequence)
    if tissue.t2_prime is not None and times is None:
        raise ValueError(
            "t2_prime needs a sequence whose static dephasing is the same for all paths (constant TR with a net "
            "gradient, or CPMG echoes); leave t2_prime out, or simulate with PDG"
        )
    rows = lambda leaf: None if leaf is None else leaf[None]  # noqa: E731
    voxels = Voxels(
        r1=1 / tissue.t1[None],
        r2=1 / tissue.t2[None],
        b1=rows(tissue.b1),
        b0=rows(tissue.b0) if needs_precession(sequence, tissue) else None,
        diffusion=None if tissue.diffusivity is None else (moment_per_order(sequence) ** 2 * tissue.diffusivity)[None],
        keep=rows(keep),
    )
    bounds = order_bounds(sequence)
    states = _start(sequence, voxels, slices, real)
    signals = []
    for i, segment in enumerate(sequence.segments):
        limit = bounds[i] if orders is None else np.minimum(bounds[i], orders)
        states, echoes = _play_segment(states, segment, voxels, rule, slices, limit)
        if echoes is not None:
            static = None if times is None else times[i]
            signals.append(_received(echoes, segment, tissue, static))
    if not signals:
        raise ValueError("the sequence takes no sample; give one of its events samples=1")
    return jnp.concatenate(signals, axis=1)


def _start(sequence: Sequence, voxels: Voxels, slices: Slices, real: bool):
    """Equilibrium, or the sequence's initial magnetisation, on order 0."""
    one = jnp.ones_like(voxels.r1, shape=(1, slices.n * voxels.r1.shape[1]))
    zero = jnp.zeros_like(one)
    if real:
        return kernels.RealStates(zero, zero, one)
    mx, my, mz = (0.0, 0.0, 1.0) if sequence.initial is None else sequence.initial
    return kernels.ComplexStates(mx * one, my * one, mx * one, -my * one, mz * one, zero)


def _play_segment(states, segment: Segment, voxels: Voxels, rule: PulseRule, slices: Slices, limit: np.ndarray):
    """States after the segment, and its samples as (real or None, imaginary), each (n, samples, voxels)."""
    leaves: dict[str, Any] = {f"time {i}": event.duration for i, event in enumerate(segment.events)}
    if isinstance(segment.pulse, Pulse):
        leaves["flip"] = segment.pulse.flip
        phase = segment.pulse.phase
        if phase is not None and isinstance(states, kernels.ComplexStates):
            leaves["turn"] = jnp.zeros_like(phase) if phase.ndim == 0 else phase - jnp.append(phase[1:], phase[-1:])
            states = _turn(states, -jnp.ravel(phase)[0])
    fixed = {name: leaf for name, leaf in leaves.items() if leaf.ndim == 0}
    trains = {name: leaf for name, leaf in leaves.items() if leaf.ndim == 1}

    def repetition(states, train):
        return _repeat(states, segment, {**fixed, **train}, voxels, rule, slices)

    echoes = []
    for start, stop, orders in _blocks(limit):
        states = kernels.resize(states, orders)
        part = {name: leaf[start:stop] for name, leaf in trains.items()}
        unroll = min(UNROLL[type(states)] if orders <= FEW else 1, stop - start)
        states, taken = jax.lax.scan(repetition, states, part, length=stop - start, unroll=unroll)
        echoes.append(taken)
    if isinstance(segment.pulse, Pulse) and segment.pulse.phase is not None:
        states = _turn(states, jnp.ravel(segment.pulse.phase)[-1])
    if not echoes[0]:
        return states, None
    join = lambda *parts: jnp.concatenate(parts)  # noqa: E731
    samples = jax.tree.map(join, *echoes)
    stack = lambda parts: None if parts[0] is None else jnp.stack(parts, axis=1)  # noqa: E731
    return states, (stack([re for re, _ in samples]), stack([im for _, im in samples]))


def _turn(states, angle):
    """Into or out of a pulse's frame; real states stay in the frame of their one axis."""
    if isinstance(states, kernels.RealStates):
        return states
    return states.turn(jnp.cos(angle), jnp.sin(angle))


def _blocks(limit: np.ndarray) -> list[tuple[int, int, int]]:
    """Stretches (start, stop, orders) of a segment in which the number of orders is kept constant."""
    n = len(limit)
    saving = 1 - limit.mean() / limit.max()
    n_blocks = N_BLOCKS if limit.max() > FEW and saving > 0.25 else 1
    edges = np.linspace(0, n, n_blocks + 1).round().astype(int)
    blocks: list[tuple[int, int, int]] = []
    for start, stop in itertools.pairwise(edges):
        orders = int(limit[start:stop].max())
        if blocks and blocks[-1][2] == orders:
            blocks[-1] = (blocks[-1][0], int(stop), orders)
        else:
            blocks.append((int(start), int(stop), orders))
    return blocks


def _repeat(states, segment: Segment, values: dict, voxels: Voxels, rule: PulseRule, slices: Slices):
    """One repetition: the pulse, its samples, and everything up to the next pulse."""
    times = [values[f"time {i}"] for i in range(len(segment.events))]
    operator = kernels.identity()
    if isinstance(segment.pulse, Inversion):
        states = states.invert(1.0 if segment.pulse.efficiency is None else segment.pulse.efficiency)
    elif segment.pulse is not None:
        # Here and below: without the barrier XLA computes the matrix again for every order that it meets.
        operator = jax.lax.optimization_barrier(rule(segment.pulse, values["flip"], voxels))
    if voxels.diffusion is not None:
        return _repeat_diffusing(states, segment, operator, values, voxels, slices)
    echoes, start, wound = [], 0.0, 0
    for event, time in zip(segment.events, times, strict=True):
        wound += event.order or 0
        for i in range(event.samples):
            flat = _flat(operator if wound == 0 else operator._replace(offset=None), slices, voxels)
            reached = start + time * ((i + 1) / event.samples)
            echoes.append(_seen(states.order(abs(wound)).pulse(flat), wound, jnp.exp(-reached * voxels.r2), slices))
        start = start + time
    total = sum(times)
    e1, e2 = jnp.exp(-total * voxels.r1), jnp.exp(-total * voxels.r2)
    step = kernels.scaled(operator, e2, e1, -jnp.expm1(-total * voxels.r1))
    states = states.pulse(jax.lax.optimization_barrier(_flat(step, slices, voxels)))
    return _kept(_precess(states, values, total, voxels, slices).wind(wound), voxels, slices), tuple(echoes)


def _flat(tree, slices: Slices, voxels: Voxels):
    """Entries per sub-slice and voxel as lanes: (n_z or 1, voxels) to (1, lanes); scalars stay."""
    shape = (slices.n, voxels.r1.shape[1])
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape).reshape(1, -1) if jnp.ndim(x) else x, tree)


def _seen(states, wound: int, decay, slices: Slices):
    """One sample: F(0) of all sub-slices, added up."""

    def add(part):
        return slices.weight * jnp.sum(decay * part.reshape(slices.n, -1), axis=0)

    real, imag = states.echo(wound)
    if slices.phase is not None:
        c, s = (jnp.repeat(f(slices.phase), decay.shape[1]) for f in (jnp.cos, jnp.sin))
        real, imag = (-s * imag, c * imag) if real is None else (c * real - s * imag, c * imag + s * real)
    return None if real is None or slices.imaginary else add(real), add(imag)


def _precess(states, values: dict, time, voxels: Voxels, slices: Slices):
    """Off-resonance for `time`, and the step from this pulse's frame to the next one's."""
    if voxels.b0 is None and "turn" not in values:
        return states
    angle = values.get("turn", 0.0)
    if voxels.b0 is not None:
        angle = angle + _flat(2 * jnp.pi * time * voxels.b0, slices, voxels)
    return states.turn(jnp.cos(angle), jnp.sin(angle))


def _kept(states, voxels: Voxels, slices: Slices):
    """States without the orders beyond each voxel's own limit."""
    if voxels.keep is None:
        return states
    inside = jnp.arange(states[0].shape[0])[:, None] < _flat(voxels.keep, slices, voxels)
    return type(states)(*(jnp.where(inside, value, 0) for value in states))


def _repeat_diffusing(states, segment: Segment, operator, values: dict, voxels: Voxels, slices: Slices):
    """A repetition event by event: diffusion attenuates each order by its own factor."""
    states = states.pulse(_flat(operator, slices, voxels))
    echoes = []
    for i, event in enumerate(segment.events):
        steps = max(event.samples, 1)
        time = values[f"time {i}"] / steps
        for _ in range(steps):
            weights = _diffusion_weights(states, event.order or 0, time, voxels, slices)
            e1, e2 = jnp.exp(-time * voxels.r1), jnp.exp(-time * voxels.r2)
            relaxed = kernels.scaled(kernels.identity(), e2, e1, -jnp.expm1(-time * voxels.r1))
            states = states.attenuate(*weights).pulse(_flat(relaxed, slices, voxels)).wind(event.order or 0)
            if event.samples:
                echoes.append(_seen(states.order(0), 0, jnp.ones_like(voxels.r2), slices))
    total = sum(values[f"time {i}"] for i in range(len(segment.events)))
    return _kept(_precess(states, values, total, voxels, slices), voxels, slices), tuple(echoes)


def _diffusion_weights(states, wound: int, time, voxels: Voxels, slices: Slices):
    """Factors of F(k), F(-k) and Z(k) for one event (Weigel et al., JMR 205:276 (2010))."""
    k = jnp.arange(states[0].shape[0], dtype=voxels.r1.dtype)[:, None]
    rate = _flat(time * voxels.diffusion, slices, voxels)
    factor = lambda square: jnp.exp(-rate * square)  # noqa: E731
    middle = wound**2 / 12
    return factor((k + wound / 2) ** 2 + middle), factor((k - wound / 2) ** 2 + middle), factor(k**2)


def _received(echoes, segment: Segment, tissue: Tissue, static_times) -> Complex[Array, "voxels n"]:
    """Samples as the receiver stores them: phases of pulse, off-resonance and receiver, T2' decay."""
    real, imag = echoes
    signal = jax.lax.complex(jnp.zeros_like(imag) if real is None else real, imag)
    pulse_phase = segment.pulse.phase if isinstance(segment.pulse, Pulse) else None
    received = []
    for i, (time, _, receiver) in enumerate(sample_steps(segment)):
        sample = signal[:, i]
        angle = sum(sign * phase for sign, phase in ((1, pulse_phase), (-1, receiver)) if phase is not None)
        if not isinstance(angle, int):
            sample = sample * jnp.exp(1j * angle).reshape(-1, 1)
        if tissue.b0 is not None:
            when = time if static_times is None else static_times[i]
            sample = sample * jnp.exp(2j * jnp.pi * when.reshape(-1, 1) * tissue.b0[None])
        if tissue.t2_prime is not None and static_times is not None:
            sample = sample * jnp.exp(-jnp.abs(static_times[i]) / tissue.t2_prime)[None]
        received.append(sample)
    n, samples, n_voxels = signal.shape
    return jnp.stack(received, axis=1).reshape(n * samples, n_voxels).T
