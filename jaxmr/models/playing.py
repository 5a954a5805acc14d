"""Play a sequence on the EPG of many voxels: one scan per segment, repetition by repetition.

Shared by the models that differ only in what a pulse does. Voxels lie on the last axis of the states,
sub-slices before it; relaxation is in rates, 1/s.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.types import Array, Complex, Float
from jaxmr.models.repetition import Families, Lattice, PulseRule, Slices, Voxels, repeat
from jaxmr.objects.tissue import Tissue
from jaxmr.physics import kernels
from jaxmr.sequences.sequence import (
    Pulse,
    Segment,
    Sequence,
    moment_per_order,
    net_times,
    order_bounds,
    sample_steps,
    total_order,
)

UNROLL = {kernels.RealStates: 4, kernels.ComplexStates: 2}
"""Repetitions per step of the scan (measured on two CPUs; more only costs compilation)."""
UNROLL_DERIVATIVES = 2
"""The same with derivatives: more would take 10 % longer."""
FEW = 32
"""Orders up to which a growing and shrinking train is not worth cutting."""
SMALL = 4096
"""Numbers of a part of the states below which it does not pay to unroll, and derivatives would pay for it."""
N_BLOCKS = 8
"""Blocks of constant orders that a long exact train is cut into: its states grow, then shrink."""

RATES = {"t1": "r1", "t2": "r2", "b1": "b1"}
"""What each parameter changes in the states; b0 and t2_prime change the received signal only."""


def one_axis(sequence: Sequence) -> bool:
    """Whether all pulses turn about one axis by structure: no phases, or one scalar phase of the only train."""
    pulses = [segment.pulse for segment in sequence.segments if isinstance(segment.pulse, Pulse)]
    given = [pulse.phase for pulse in pulses if pulse.phase is not None]
    if sequence.initial is not None or any(pulse.quadrature for pulse in pulses):
        return False
    return not given or (len(pulses) == 1 and given[0].ndim == 0)


def is_real(sequence: Sequence, tissue: Tissue) -> bool:
    """Whether real arithmetic serves instantaneous pulses, by structure."""
    return not needs_precession(sequence, tissue) and (one_axis(sequence) or _is_cpmg(sequence, tissue))


def _is_cpmg(sequence: Sequence, tissue: Tissue) -> bool:
    """Whether it is an excitation, then a train in quadrature that keeps the odd orders: these have no Z at first."""
    trains = [(s.pulse, s.repetitions) for s in sequence.segments if isinstance(s.pulse, Pulse)]
    if len(trains) != 2 or sequence.initial is not None:
        return False
    (excitation, n), (refocusing, _) = trains
    about_x = n == 1 and excitation.phase is None and not excitation.quadrature
    about_y = refocusing is sequence.segments[-1].pulse and refocusing.phase is None and refocusing.quadrature
    return about_x and about_y and _lattices(sequence, tissue)[-1].offset != 0


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
    return _play(sequence, tissue, rule, slices, orders, real, keep, ())[0]


def play_with_derivatives(
    sequence: Sequence,
    tissue: Tissue,
    rule: PulseRule,
    slices: Slices,
    orders: int | None,
    real: bool,
    names: tuple[str, ...],
) -> tuple[Complex[Array, "voxels n_echoes"], Complex[Array, "n_names voxels n_echoes"]] | None:
    """`play`, and the derivatives by the parameters `names`, per SI unit; None where it has no rule for one of them."""
    known = {*RATES, "t2_prime"} | (set() if needs_precession(sequence, tissue) else {"b0"})
    if tissue.diffusivity is not None or not set(names) <= known:
        return None
    signal, *columns = _play(sequence, tissue, rule, slices, orders, real, None, names)
    return signal, jnp.stack(columns)


def _play(sequence, tissue, rule, slices, orders, real, keep, names) -> list:
    """The signal, and its derivative by each of `names`."""
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
    wrt = tuple(RATES[name] for name in names if name in RATES)
    bounds, lattices = order_bounds(sequence), _lattices(sequence, tissue)
    families = _start(sequence, voxels, slices, real, len(wrt))
    received = []
    for i, segment in enumerate(sequence.segments):
        limit = bounds[i] if orders is None else np.minimum(bounds[i], orders)
        families, echoes = _play_segment(families, segment, voxels, rule, slices, limit, lattices[i], wrt)
        if echoes is not None:
            static = None if times is None else times[i]
            received.append(_received_families(echoes, segment, tissue, static, names))
    if not received:
        raise ValueError("the sequence takes no sample; give one of its events samples=1")
    return [jnp.concatenate(parts, axis=1) for parts in zip(*received, strict=True)]


def _lattices(sequence: Sequence, tissue: Tissue) -> list[Lattice]:
    """The orders that the samples can see, at the pulses of each segment.

    A last train that winds g orders a repetition mixes only orders that differ by g, and k with -k. If all its
    samples come from one such set it keeps that set alone: in CPMG the odd orders, a half, and no T1 recovery.
    """
    lattices = [Lattice()] * len(sequence.segments)
    last = sequence.segments[-1]
    stride = abs(total_order(last))
    wounds = [wound for _, wound, _ in sample_steps(last)]
    if stride > 1 and wounds and tissue.diffusivity is None:
        sets = {wound % stride for wound in wounds}
        if len(sets) == 1 and 2 * min(sets) in (0, stride):
            lattices[-1] = Lattice(stride, min(sets))
    return lattices


def _start(sequence: Sequence, voxels: Voxels, slices: Slices, real: bool, n_derivatives: int) -> Families:
    """Equilibrium, or the sequence's initial magnetisation, on order 0; it depends on nothing."""
    one = jnp.ones_like(voxels.r1, shape=(1, slices.n * voxels.r1.shape[1]))
    zero = jnp.zeros_like(one)
    if real:
        return (kernels.RealStates(zero, zero, one), *[kernels.RealStates(zero, zero, zero)] * n_derivatives)
    mx, my, mz = (0.0, 0.0, 1.0) if sequence.initial is None else sequence.initial
    start = kernels.ComplexStates(mx * one, my * one, mz * one, zero, zero, zero)
    return (start, *[kernels.ComplexStates(*[zero] * 6)] * n_derivatives)


def _play_segment(
    families: Families,
    segment: Segment,
    voxels: Voxels,
    rule: PulseRule,
    slices: Slices,
    limit: np.ndarray,
    lattice: Lattice,
    wrt: tuple[str, ...],
):
    """Families after the segment, and its samples: of each family (real or None, imaginary), (n, samples, voxels)."""
    kind = type(families[0])
    leaves: dict[str, Any] = {f"time {i}": event.duration for i, event in enumerate(segment.events)}
    if isinstance(segment.pulse, Pulse):
        leaves["flip"] = segment.pulse.flip
        phase = segment.pulse.phase
        if phase is not None and kind is kernels.ComplexStates:
            leaves["turn"] = jnp.zeros_like(phase) if phase.ndim == 0 else phase - jnp.append(phase[1:], phase[-1:])
            families = _turn(families, -jnp.ravel(phase)[0])
    fixed = {name: leaf for name, leaf in leaves.items() if leaf.ndim == 0}
    trains = {name: leaf for name, leaf in leaves.items() if leaf.ndim == 1}

    def repetition(families, train):
        return repeat(families, segment, {**fixed, **train}, voxels, rule, slices, lattice, wrt)

    # Reverse mode reads the states once more and computes the rest again: it waits for memory otherwise (a CRLB
    # gradient by 336 flips, EPG-Bloch: 10 ms in place of 37).
    remembered = jax.checkpoint(repetition, prevent_cse=False)
    families = tuple(kernels.thin(states, lattice.offset, lattice.stride) for states in families)
    rows = np.maximum(-(-(limit - lattice.offset) // lattice.stride), 1)
    echoes = []
    blocks = _blocks(rows)
    for start, stop, orders in blocks:
        families = tuple(kernels.resize(states, orders) for states in families)
        part = {name: leaf[start:stop] for name, leaf in trains.items()}
        # Each block is compiled by itself: several of them unrolled would take a while.
        worthwhile = len(blocks) == 1 and families[0][0].size >= SMALL
        most = UNROLL_DERIVATIVES if wrt else UNROLL[kind]
        unroll = min(most if worthwhile else 1, stop - start)
        families, taken = jax.lax.scan(remembered, families, part, length=stop - start, unroll=unroll)
        echoes.append(taken)
    if isinstance(segment.pulse, Pulse) and segment.pulse.phase is not None:
        families = _turn(families, jnp.ravel(segment.pulse.phase)[-1])
    if not echoes[0]:
        return families, None
    join = lambda *parts: jnp.concatenate(parts)  # noqa: E731
    samples = jax.tree.map(join, *echoes)
    stack = lambda parts: None if parts[0] is None else jnp.stack(parts, axis=1)  # noqa: E731
    return families, [
        (stack([re for re, _ in parts]), stack([im for _, im in parts])) for parts in zip(*samples, strict=True)
    ]


def _turn(families: Families, angle) -> Families:
    """Into or out of a pulse's frame; real states stay in the frame of their one axis."""
    if isinstance(families[0], kernels.RealStates):
        return families
    return tuple(states.turn(jnp.cos(angle), jnp.sin(angle)) for states in families)


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


def _received_families(families: list, segment: Segment, tissue: Tissue, static_times, names) -> list:
    """Of the signal and of each of its derivatives by `names`, the samples as the receiver stores them."""
    signal = _received(families[0], segment, tissue, static_times)
    changed = iter(families[1:])
    columns = []
    for name in names:
        if name in RATES:
            column = _received(next(changed), segment, tissue, static_times)
            rate = {"t1": tissue.t1, "t2": tissue.t2}.get(name)
            columns.append(column if rate is None else -column / rate[:, None] ** 2)
        else:
            value = getattr(tissue, name)
            along = lambda x, name=name: _received(  # noqa: E731
                families[0], segment, dataclasses.replace(tissue, **{name: x}), static_times
            )
            columns.append(jax.jvp(along, (value,), (jnp.ones_like(value),))[1])
    return [signal, *columns]


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
