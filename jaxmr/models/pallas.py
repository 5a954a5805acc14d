"""Play a sequence on a GPU with the states of all voxels in registers: one kernel for the whole train.

The scan of `playing.py` sends the states through device memory once per repetition; here one program carries
`BLOCK` voxels, a lane each, from the first pulse to the last sample, and only the pulse operators are read and the
samples written. The sub-slices of a voxel are played one after the other and added up in the output. What cannot be
played so (`supported`) is left to the scan, and so are derivatives: the kernel has none.

The compiler behind it is Pallas' Triton backend, which jax deprecates in favour of one for Hopper GPUs; the choice
is made in `_compiled` alone.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Complex, Float
from jaxmr.models.playing import _received, needs_precession
from jaxmr.models.repetition import Slices
from jaxmr.objects.tissue import Tissue
from jaxmr.physics import kernels, registers, selective
from jaxmr.sequences.sequence import (
    Inversion,
    Pulse,
    Segment,
    Sequence,
    net_times,
    order_bounds,
    sample_steps,
    total_order,
)

BLOCK = 64
"""Voxels of one program; two warps."""
MOST_ORDERS = {True: 56, False: 24}
"""Orders that fit the 255 registers of a thread, in real and in complex arithmetic."""
UNROLL = {True: 4, False: 2}
"""Repetitions per turn of the loop, after which renamed registers are copied to where they began."""
MOST_SEGMENTS, MOST_EVENTS = 8, 8
"""Segments of a sequence; samples, and wound orders, of a repetition: all are unrolled in the kernel's code."""

Rows = Float[Array, "blocks lanes"]


class Levels(NamedTuple):
    """Transmit fields of a grid: the distinct values b1 (n_levels,), and which of them each block of voxels has."""

    b1: Float[Array, "n_levels"]
    index: Any


class HardPulses(NamedTuple):
    """Instantaneous pulses, their angle times `scale` (n_z,) in each sub-slice."""

    scale: Float[Array, "n_z"] | None = None

    def tabulate(self, pulse: Pulse, b1: Float[Array, "n_levels"] | None) -> Float[Array, "levels pulses n_z entries"]:
        """What the programs read: cosine and sine of the angles, or nominal angles where every voxel has its own B1."""
        scale = jnp.ones(1, pulse.flip.dtype) if self.scale is None else self.scale
        angle = jnp.ravel(pulse.flip)[None, :, None] * scale[None, None]
        return angle[..., None] if b1 is None else _circle(b1[:, None, None] * angle)

    def lanes(self, pulse: Pulse, r1: Rows, r2: Rows, b1: Rows | None) -> dict[str, Rows]:
        """Numbers of each voxel that the operator needs."""
        return {} if b1 is None else {"b1": b1}

    def operator(self, entries: list, lanes: dict[str, Any]) -> kernels.Operator:
        """The pulse, from what a program has read."""
        if lanes:
            angle = entries[0] * lanes["b1"]
            return registers.rotation(jnp.cos(angle), jnp.sin(angle))
        return registers.rotation(*entries)


class SelectivePulses(NamedTuple):
    """Slice-selective pulses, from one table for each of the sequence's shapes."""

    tables: tuple[selective.OperatorTable, ...]

    def tabulate(self, pulse: Pulse, b1: Float[Array, "n_levels"] | None) -> Float[Array, "levels pulses n_z entries"]:
        """What the programs read: 12 constants, 12 slopes and 12 curvatures in delta."""
        assert b1 is not None
        powers = selective.look_up(self.tables[pulse.shape or 0], b1[:, None] * jnp.ravel(pulse.flip)[None])
        powers = jnp.moveaxis(powers, -1, 2)
        return powers.reshape(*powers.shape[:3], 36)

    def lanes(self, pulse: Pulse, r1: Rows, r2: Rows, b1: Rows | None) -> dict[str, Rows]:
        """Numbers of each voxel that the operator needs."""
        table = self.tables[pulse.shape or 0]

        # The source's offset is affine in the third column of C and in the response v: three numbers of r1.
        def offset(column, response):
            return selective.source_offset((column,) * 3, (response,) * 3, r1, table.duration, table.centre)

        zero, one = jnp.zeros_like(r1), jnp.ones_like(r1)
        return {
            "delta": (r2 - r1) / table.delta_scale,
            "of response": offset(zero, one)[0],
            "of column": offset(one, zero)[0],
            "along z": offset(zero, zero)[2],
        }

    def operator(self, entries: list, lanes: dict[str, Any]) -> kernels.Operator:
        """The pulse, from what a program has read."""
        delta = lanes["delta"]
        powers = zip(entries[:12], entries[12:24], entries[24:], strict=True)
        values = [(square * delta + linear) * delta + constant for constant, linear, square in powers]
        rows = tuple(tuple(values[3 * i : 3 * i + 3]) for i in range(3))
        x, y, z = (
            lanes["of response"] * v + lanes["of column"] * row[2] for v, row in zip(values[9:], rows, strict=True)
        )
        return kernels.Operator(rows, (x, y, z + lanes["along z"]))


Pulses = HardPulses | SelectivePulses


class Part(NamedTuple):
    """A segment as the kernel's code sees it (of the segment, only what is static), and the row of its first sample.

    orders: kept while it is played. wound: orders wound until each sample of a repetition.
    """

    segment: Segment
    orders: int
    wound: tuple[int, ...]
    row: int


def supported(
    sequence: Sequence, tissue: Tissue, pulses: Pulses, orders: int | None, real: bool, levels: Levels | None = None
) -> bool:
    """Whether `play_in_registers` can play this, from structure alone; if not, the scan can (or says what is wrong)."""
    own_b1 = levels is None and _each_its_b1(tissue)
    if tissue.t1.dtype != jnp.float32 or tissue.t1.ndim != 1 or tissue.t1.shape[0] == 0:
        return False
    if tissue.diffusivity is not None or needs_precession(sequence, tissue):
        return False
    if (tissue.t2_prime is not None and net_times(sequence) is None) or (own_b1 and not isinstance(pulses, HardPulses)):
        return False
    if sequence.n_echoes == 0 or len(sequence.segments) > MOST_SEGMENTS:
        return False
    if any(event.order is None for segment in sequence.segments for event in segment.events):
        return False
    return all(
        part.orders <= MOST_ORDERS[real]
        and len(part.wound) <= MOST_EVENTS
        and all(abs(wound) < part.orders for wound in part.wound)
        and sum(abs(event.order or 0) for event in part.segment.events) <= MOST_EVENTS
        for part in _parts(sequence, orders)
    )


def play_in_registers(
    sequence: Sequence,
    tissue: Tissue,
    pulses: Pulses,
    slices: Slices,
    orders: int | None,
    real: bool,
    levels: Levels | None = None,
    *,
    interpret: bool = False,
) -> Complex[Array, "voxels n_echoes"]:
    """Signal of every voxel of a flat `tissue`, for m0 = 1: what `playing.play` returns, where `supported`.

    B1 is the tissue's, one per voxel or (1,) for all of them, unless `levels` gives it for each block of voxels.
    interpret: run it on a CPU, slowly, for tests.
    """
    n = tissue.t1.shape[0]
    r1, r2 = 1 / _blocks(tissue.t1), 1 / _blocks(tissue.t2)
    shared, b1 = jnp.ones(1, r1.dtype), None
    if levels is not None:
        shared = levels.b1
    elif _each_its_b1(tissue):
        shared, b1 = None, _blocks(tissue.b1)
    elif tissue.b1 is not None:
        shared = tissue.b1
    level = jnp.zeros(len(r1), jnp.int32) if levels is None else levels.index
    if level.shape != r1.shape[:1]:
        raise ValueError(f"levels.index needs an entry for each of {len(r1)} blocks, got shape {level.shape}")
    uniform = {
        "initial": sequence.initial,
        "slices": None if slices.phase is None else _circle(slices.phase),
        "weights": None if isinstance(slices.weight, float) else slices.weight,
        "segments": [_numbers(segment, pulses, shared, real) for segment in sequence.segments],
    }
    lanes = {
        "rates": (r1, r2),
        "segments": [
            pulses.lanes(segment.pulse, r1, r2, b1) if isinstance(segment.pulse, Pulse) else {}
            for segment in sequence.segments
        ],
    }
    imaginary = slices.imaginary or (real and slices.phase is None)
    parts = _parts(sequence, orders)
    kernel = functools.partial(_play, parts, pulses, slices, real)
    played = _compiled(kernel, level, lanes, uniform, sequence.n_echoes, 1 if imaginary else 2, interpret)
    last = [jnp.moveaxis(x, 0, 1).reshape(sequence.n_echoes, -1)[:, :n] for x in played]
    real_part, imag = (None, *last) if imaginary else last
    times, signals = net_times(sequence), []
    for i, part in enumerate(parts):
        shape = (part.segment.repetitions, len(part.wound), n)
        if part.wound:
            rows = slice(part.row, part.row + shape[0] * shape[1])
            echoes = tuple(None if x is None else x[rows].reshape(shape) for x in (real_part, imag))
            signals.append(_received(echoes, part.segment, tissue, None if times is None else times[i]))
    return jnp.concatenate(signals, axis=1)


def _each_its_b1(tissue: Tissue) -> bool:
    return tissue.b1 is not None and tissue.b1.shape != (1,)


def _blocks(leaf: Any) -> Rows:
    """Voxels (n,) as lanes of blocks, filled up with the last voxel."""
    missing = -leaf.shape[0] % BLOCK
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing)]).reshape(-1, BLOCK)


def _parts(sequence: Sequence, orders: int | None) -> list[Part]:
    parts, row = [], 0
    for segment, bound in zip(sequence.segments, order_bounds(sequence), strict=True):
        most = int(bound.max()) if orders is None else min(int(bound.max()), orders)
        wound = tuple(wound for _, wound, _ in sample_steps(segment))
        parts.append(Part(segment, most, wound, row))
        row += segment.repetitions * len(wound)
    return parts


def _circle(angle: Float[Array, "*n"]) -> Float[Array, "*n 2"]:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def _numbers(segment: Segment, pulses: Pulses, b1: Float[Array, "n_levels"] | None, real: bool) -> dict[str, Array]:
    """What all programs read while they play one segment; arrays with one row serve all repetitions."""
    numbers: dict[str, Array] = {}
    if segment.events:
        times = jnp.broadcast_arrays(*(jnp.atleast_1d(event.duration) for event in segment.events))
        numbers["times"] = jnp.stack(times, axis=-1)
    if isinstance(segment.pulse, Inversion) and segment.pulse.efficiency is not None:
        numbers["efficiency"] = segment.pulse.efficiency[None]
    elif isinstance(segment.pulse, Pulse):
        numbers["operators"] = pulses.tabulate(segment.pulse, b1)
        if segment.pulse.phase is not None and not real:
            phase = jnp.atleast_1d(segment.pulse.phase)
            numbers["frame"] = _circle(jnp.stack([-phase[0], phase[-1]]))
            if len(phase) > 1:
                numbers["turns"] = _circle(phase - jnp.append(phase[1:], phase[-1:]))
    return numbers


def _compiled(kernel, level, lanes: dict, uniform: dict, rows: int, n_parts: int, interpret: bool) -> tuple:
    """Outputs (blocks, rows, lanes) of one program for each block of voxels."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    n_blocks = level.shape[0]
    dtype = lanes["rates"][0].dtype
    own = pl.BlockSpec((None, BLOCK), lambda i: (i, 0))
    specs = (
        pl.BlockSpec((1,), lambda i: (i,)),
        jax.tree.map(lambda _: own, lanes),
        jax.tree.map(lambda leaf: pl.BlockSpec(leaf.shape, lambda _: (0,) * leaf.ndim), uniform),
    )
    call = pl.pallas_call(
        kernel,
        grid=(n_blocks,),
        in_specs=specs,
        out_specs=(pl.BlockSpec((None, rows, BLOCK), lambda i: (i, 0, 0)),) * n_parts,
        out_shape=(jax.ShapeDtypeStruct((n_blocks, rows, BLOCK), dtype),) * n_parts,
        compiler_params=None if interpret else triton.CompilerParams(num_warps=BLOCK // 32, num_stages=1),
        interpret=interpret,
    )
    return tuple(call(level, lanes, uniform))


def _play(
    parts: list[Part], pulses: Pulses, slices: Slices, real: bool, level, lanes: dict, uniform: dict, *out
) -> None:
    """The program of one block: every sub-slice through all segments, added up in the output."""
    lanes = jax.tree.map(lambda ref: ref[...], lanes)
    level, rates = level[0], lanes["rates"]
    empty = jnp.zeros_like(rates[0])

    def clear(row, done):
        for ref in out:
            ref[row, :] = empty
        return done

    def play_slice(z, done):
        turn = None if uniform["slices"] is None else (uniform["slices"][z, 0], uniform["slices"][z, 1])
        weight = slices.weight if uniform["weights"] is None else uniform["weights"][z]
        states = _start(empty, uniform["initial"], real)

        def store(row, echo):
            for ref, value in zip(out, _seen(echo, turn, len(out)), strict=True):
                ref[row, :] = weight * value if slices.n == 1 else ref[row, :] + weight * value

        for part, numbers, own in zip(parts, uniform["segments"], lanes["segments"], strict=True):
            quadrature = isinstance(part.segment.pulse, Pulse) and part.segment.pulse.quadrature

            def act(n, quadrature=quadrature, numbers=numbers, own=own):
                table = numbers["operators"]
                at = n if table.shape[1] > 1 else 0
                found = pulses.operator([table[level, at, z, entry] for entry in range(table.shape[3])], own)
                return kernels.quarter_turned(found) if quadrature else found

            states = registers.resize(states, part.orders)
            states = _play_part(states, part, numbers, act, rates, store, UNROLL[real])
        return done

    if slices.n == 1:
        play_slice(0, 0)
    else:
        jax.lax.fori_loop(0, out[0].shape[0], clear, 0)
        jax.lax.fori_loop(0, slices.n, play_slice, 0)


def _start(empty, initial, real: bool) -> registers.Registers:
    """Equilibrium, or the sequence's initial magnetisation, on order 0."""
    if real:
        return registers.RealRegisters((empty,), (empty,), (empty + 1,))
    mx, my, mz = (empty + value for value in ((0, 0, 1) if initial is None else (initial[i] for i in range(3))))
    return registers.ComplexRegisters((mx,), (my,), (mx,), (-my,), (mz,), (empty,))


def _play_part(states, part: Part, numbers: dict, act, rates, store, unroll: int):
    """States after all repetitions of a segment; its samples are stored."""
    segment, times = part.segment, numbers.get("times")
    constant = times is None or times.shape[0] == 1
    fixed = _relaxation(segment, times, 0, rates) if constant else None

    def repetition(n, states):
        decays, *relaxation = _relaxation(segment, times, n, rates) if fixed is None else fixed
        action = kernels.identity()
        if isinstance(segment.pulse, Inversion):
            states = states.invert(numbers["efficiency"][0] if "efficiency" in numbers else 1.0)
        elif segment.pulse is not None:
            action = act(n)
        for i, wound in enumerate(part.wound):
            seen = registers.only(states, abs(wound)).pulse(action if wound == 0 else action._replace(offset=None))
            echo = [None if value is None else decays[i] * value for value in seen.echo(wound)]
            store(part.row + len(part.wound) * n + i, echo)
        step = kernels.scaled(action, *relaxation)
        if "turns" in numbers:
            step = registers.turned(step, numbers["turns"][n, 0], numbers["turns"][n, 1])
        return states.pulse(step).wind(total_order(segment))

    def repetitions(i, states):
        for n in range(unroll):
            states = repetition(unroll * i + n, states)
        return states

    n_turns = segment.repetitions // unroll
    if "frame" in numbers:
        states = states.turn(numbers["frame"][0, 0], numbers["frame"][0, 1])
    if n_turns:
        states = jax.lax.fori_loop(0, n_turns, repetitions, states)
    for n in range(n_turns * unroll, segment.repetitions):
        states = repetition(n, states)
    if "frame" in numbers:
        states = states.turn(numbers["frame"][1, 0], numbers["frame"][1, 1])
    return states


def _relaxation(segment: Segment, times, n, rates) -> tuple:
    """Decay until each sample of a repetition; decay of F and Z and recovery of Z over all of it."""
    r1, r2 = rates
    start, decays = 0.0, []
    for i, event in enumerate(segment.events):
        time = times[n, i]
        decays += [jnp.exp(-(start + time * ((j + 1) / event.samples)) * r2) for j in range(event.samples)]
        start = start + time
    return decays, jnp.exp(-start * r2), jnp.exp(-start * r1), -jnp.expm1(-start * r1)


def _seen(echo: list, turn: tuple | None, n_parts: int) -> list:
    """Parts of a sample that are kept, after the phase that the pulse has at this sub-slice."""
    real, imag = echo
    if turn is not None:
        c, s = turn
        real, imag = (-s * imag, c * imag) if real is None else (c * real - s * imag, c * imag + s * real)
    return [imag] if n_parts == 1 else [real, imag]
