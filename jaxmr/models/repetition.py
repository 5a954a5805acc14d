"""One repetition of a sequence on the EPG of many voxels: the pulse, its samples, and what follows.

The states come in families: the states themselves, then their derivatives by the rates and the transmit field
that are asked for. A derivative obeys the same linear map as the states, plus a source that costs little: rates
scale what the map gave, and only the pulse itself needs products of its own. Everything here is plain JAX, so
that derivatives may be differentiated again.

Voxels lie on the last axis, sub-slices before it; relaxation is in rates, 1/s.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Float
from jaxmr.physics import kernels
from jaxmr.physics.kernels import Operator
from jaxmr.sequences.sequence import Inversion, Pulse, Segment

Rows = Float[Array, "1 voxels"]


class Voxels(NamedTuple):
    """Rates of the voxels, 1/s, beside an axis for sub-slices; None is compiled out.

    diffusion: rate at which order 1 is attenuated, moment^2 D. keep: orders of each voxel.
    """

    r1: Rows
    r2: Rows
    b1: Rows | Float[Array, "1 1"] | None
    b0: Rows | None
    diffusion: Rows | None
    keep: Rows | None


class Slices(NamedTuple):
    """How the sub-slices of a voxel add up to its signal.

    n: number simulated. weight: of each, one for all or (n,). imaginary: the other half of the slice cancels the
    real part. phase (n,): of the pulse at each sub-slice, rad, or None. apart: leave them apart, `n` times as many
    signals.
    """

    n: int = 1
    weight: float | Float[Array, "n"] = 1.0
    imaginary: bool = False
    phase: Float[Array, "n"] | None = None
    apart: bool = False


class PulseRule(NamedTuple):
    """What a pulse of a flip angle does to voxels, in the frame of its phase.

    act: `(pulse, flip, voxels) -> Operator`. relaxing: whether its matrix depends on r2 - r1 (on nothing else of
    relaxation).
    """

    act: Callable[[Pulse, Any, Voxels], Operator]
    relaxing: bool


class Lattice(NamedTuple):
    """The orders at the pulses of a segment: offset, offset + stride, ... (CPMG: only odd ones)."""

    stride: int = 1
    offset: int = 0

    def row(self, order: int) -> int:
        """Where `order` is kept."""
        return (order - self.offset) // self.stride


Families = tuple[Any, ...]
"""States, then their derivatives."""


def repeat(
    families: Families,
    segment: Segment,
    values: dict[str, Any],
    voxels: Voxels,
    rule: PulseRule,
    slices: Slices,
    lattice: Lattice,
    wrt: tuple[str, ...],
) -> tuple[Families, tuple]:
    """Families after one repetition, and of each sample and family the real (or None) and imaginary part.

    values: flip, turn and durations of this repetition. wrt: of "r1", "r2", "b1", one for each derivative.
    """
    times = [values[f"time {i}"] for i in range(len(segment.events))]
    operator, slopes = kernels.identity(), {}
    if isinstance(segment.pulse, Inversion):
        efficiency = 1.0 if segment.pulse.efficiency is None else segment.pulse.efficiency
        families = tuple(states.invert(efficiency) for states in families)
    elif segment.pulse is not None:
        # Here and below: without the barrier XLA computes the matrix again for every order that it meets.
        found = _pulse_and_slopes(segment.pulse, values["flip"], voxels, rule, wrt)
        operator, slopes = jax.lax.optimization_barrier(found)
    if voxels.diffusion is not None:
        return _repeat_diffusing(families, segment, operator, values, voxels, slices)
    echoes, start, wound = [], 0.0, 0
    for event, time in zip(segment.events, times, strict=True):
        wound += event.order or 0
        row = lattice.row(abs(wound))
        for i in range(event.samples):
            reached = start + time * ((i + 1) / event.samples)
            seen = _sampled(families, operator, slopes, row, wound, reached, voxels, slices, wrt)
            echoes.append(seen)
        start = start + time
    families = _advance(families, operator, slopes, sum(times), voxels, slices, lattice, wrt)
    turned = (_precess(states, values, sum(times), voxels, slices) for states in families)
    half = lattice.offset != 0
    families = tuple(states.wind(wound // lattice.stride, half) for states in turned)
    return tuple(_kept(states, voxels, slices, lattice) for states in families), tuple(echoes)


def _pulse_and_slopes(pulse: Pulse, flip, voxels: Voxels, rule: PulseRule, wrt) -> tuple[Operator, dict]:
    """The pulse's operator and its derivatives by those of `wrt` that it depends on."""

    def action(voxels: Voxels) -> Operator:
        found = rule.act(pulse, flip, voxels)
        return kernels.quarter_turned(found) if pulse.quadrature else found

    operator, slopes = action(voxels), {}
    plain = [[isinstance(entry, float) for entry in row] for row in operator.rows]
    for name in wrt:
        if name == "b1" or rule.relaxing:

            def along(x, name=name):
                return action(voxels._replace(**{name: x}))

            value = getattr(voxels, name)
            operator, slope = jax.jvp(along, (value,), (jnp.ones_like(value),))
            # An entry that is a plain number is constant.
            rows = tuple(
                tuple(None if constant else entry for constant, entry in zip(*pair, strict=True))
                for pair in zip(plain, slope.rows, strict=True)
            )
            slopes[name] = Operator(rows, slope.offset)
    return operator, slopes


def _sampled(families, operator, slopes, row: int, wound: int, time, voxels: Voxels, slices: Slices, wrt) -> tuple:
    """One sample `time` after the pulse, of every family: F(0) after `wound` orders."""
    decay = jnp.exp(-time * voxels.r2)
    rows, offset = _flat(operator, slices, voxels)
    fresh = wound == 0 and offset is not None
    states = families[0].order(row)
    after = states.mix(rows)
    seen = [_seen(after.add(offset) if fresh else after, wound, decay, slices)]
    for name, tangent in zip(wrt, families[1:], strict=True):
        after = tangent.order(row).mix(rows)
        slope = slopes.get(name)
        if slope is not None:
            changed, moved = _flat(slope, slices, voxels)
            after = _sum(after, states.mix(changed))
            after = after.add(moved) if fresh else after
        part = _seen(after, wound, decay, slices)
        seen.append(_tree(lambda a, b: a - time * b, part, seen[0]) if name == "r2" else part)
    return tuple(seen)


def _advance(families, operator, slopes, time, voxels: Voxels, slices: Slices, lattice: Lattice, wrt) -> Families:
    """Pulse and relaxation of the whole repetition `time`, of every family."""
    e1, e2 = jnp.exp(-time * voxels.r1), jnp.exp(-time * voxels.r2)
    # What recovers enters order 0, which is not always kept.
    whole = lattice.offset == 0
    step = kernels.scaled(operator, e2, e1, -jnp.expm1(-time * voxels.r1))
    rows, offset = _lanes(step, slices, voxels)
    moved = families[0].mix(rows)
    advanced = [moved.add(offset) if whole else moved]
    relaxed = None
    for name, tangent in zip(wrt, families[1:], strict=True):
        after, slope = tangent.mix(rows), slopes.get(name)
        if name == "b1" and slope is not None:
            after = _sum(after, families[0].mix(_lanes(_decayed(slope, e2, e1), slices, voxels).rows))
        elif slope is not None:
            # The pulse's matrix depends on r2 - r1: one product serves both rates.
            if relaxed is None:
                by_r2 = slope if name == "r2" else _negative(slope)
                relaxed = families[0].mix(_lanes(_decayed(by_r2, e2, e1), slices, voxels).rows)
            after = _tree(jnp.add if name == "r2" else jnp.subtract, after, relaxed)
        if name != "b1":
            after = _decaying(after, moved, time, name)
        if whole:
            change = _offset_slope(operator, slope, name, time, e2, e1)
            after = after.add(_lanes(change, slices, voxels))
        advanced.append(after)
    if isinstance(moved, kernels.ComplexStates):
        # Without the barrier XLA computes each product once for every order that it is wound to.
        return jax.lax.optimization_barrier(tuple(advanced))
    return tuple(advanced)


def _decayed(slope: Operator, e2, e1) -> Operator:
    return kernels.scaled(slope._replace(offset=None), e2, e1, None)


def _negative(slope: Operator) -> Operator:
    return Operator(tuple(tuple(None if a is None else -a for a in row) for row in slope.rows))


def _decaying(tangent, moved, time, name: str):
    """`tangent` with what a rate changes in the decay of `moved`, the states that the map gave."""
    return type(tangent)(
        *(
            value - time * old if (i in moved.transverse) == (name == "r2") else value
            for i, (value, old) in enumerate(zip(tangent, moved, strict=True))
        )
    )


def _offset_slope(operator: Operator, slope: Operator | None, name: str, time, e2, e1) -> tuple:
    """Derivative of the offset of pulse and relaxation together."""
    old = (None,) * 3 if operator.offset is None else operator.offset
    new = (None,) * 3 if slope is None or slope.offset is None else slope.offset
    change = [None if b is None else e * b for e, b in zip((e2, e2, e1), new, strict=True)]
    if name == "r2":
        decaying = [None if b is None else -time * e2 * b for b in old[:2]]
        change = [_add(a, b) for a, b in zip(change, [*decaying, None], strict=True)]
    if name == "r1":
        change[2] = _add(change[2], time * e1 if old[2] is None else time * e1 * (1 - old[2]))
    return tuple(change)


def _add(a, b):
    return a if b is None else b if a is None else a + b


def _tree(function, *trees):
    return jax.tree.map(function, *trees)


def _sum(a, b):
    return _tree(jnp.add, a, b)


def _flat(tree, slices: Slices, voxels: Voxels):
    """Entries per sub-slice and voxel as lanes: (n_z or 1, voxels) to (1, lanes); scalars stay."""
    return jax.tree.map(lambda x: x.reshape(1, -1) if jnp.ndim(x) else x, _spread(tree, slices, voxels))


def _lanes(tree, slices: Slices, voxels: Voxels):
    """`_flat`, computed once and not for every order."""
    # Two barriers: the shape of lanes is neither computed in (a voxel would be an index modulo their number) nor
    # left to be taken apart in every order.
    spread = jax.lax.optimization_barrier(_spread(tree, slices, voxels))
    lanes = jax.tree.map(lambda x: x.reshape(1, -1) if jnp.ndim(x) else x, spread)
    return jax.lax.optimization_barrier(lanes)


def _spread(tree, slices: Slices, voxels: Voxels):
    shape = (slices.n, voxels.r1.shape[1])
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape) if jnp.ndim(x) else x, tree)


def _seen(states, wound: int, decay, slices: Slices):
    """One sample: F(0) of all sub-slices, added up."""

    def add(part):
        decayed = decay * part.reshape(slices.n, -1)
        if slices.apart:
            return decayed.reshape(-1)
        weight = slices.weight
        if isinstance(weight, float):
            return weight * jnp.sum(decayed, axis=0)
        return matmul(weight, decayed)

    real, imag = states.echo(wound)
    if slices.phase is not None:
        c, s = (jnp.repeat(f(slices.phase), decay.shape[1]) for f in (jnp.cos, jnp.sin))
        real, imag = (-s * imag, c * imag) if real is None else (c * real - s * imag, c * imag + s * real)
    cancelled = slices.imaginary and not slices.apart
    return None if real is None or cancelled else add(real), add(imag)


def _precess(states, values: dict, time, voxels: Voxels, slices: Slices):
    """Off-resonance for `time`, and the step from this pulse's frame to the next one's."""
    if voxels.b0 is None and "turn" not in values:
        return states
    angle = values.get("turn", 0.0)
    if voxels.b0 is not None:
        angle = angle + _flat(2 * jnp.pi * time * voxels.b0, slices, voxels)
    return states.turn(jnp.cos(angle), jnp.sin(angle))


def _kept(states, voxels: Voxels, slices: Slices, lattice: Lattice):
    """States without the orders beyond each voxel's own limit."""
    if voxels.keep is None:
        return states
    orders = lattice.offset + lattice.stride * jnp.arange(states[0].shape[0])
    inside = orders[:, None] < _flat(voxels.keep, slices, voxels)
    return type(states)(*(jnp.where(inside, value, 0) for value in states))


def _repeat_diffusing(families: Families, segment: Segment, operator, values: dict, voxels: Voxels, slices: Slices):
    """A repetition event by event: diffusion attenuates each order by its own factor. States only."""
    rows, offset = _flat(operator, slices, voxels)
    states = families[0].mix(rows)
    states = states if offset is None else states.add(offset)
    echoes = []
    for i, event in enumerate(segment.events):
        steps = max(event.samples, 1)
        time = values[f"time {i}"] / steps
        for _ in range(steps):
            weights = _diffusion_weights(states, event.order or 0, time, voxels, slices)
            e1, e2 = jnp.exp(-time * voxels.r1), jnp.exp(-time * voxels.r2)
            relaxed = kernels.scaled(kernels.identity(), e2, e1, -jnp.expm1(-time * voxels.r1))
            rows, offset = _flat(relaxed, slices, voxels)
            states = states.attenuate(*weights).mix(rows).add(offset).wind(event.order or 0)
            if event.samples:
                echoes.append((_seen(states.order(0), 0, jnp.ones_like(voxels.r2), slices),))
    total = sum(values[f"time {i}"] for i in range(len(segment.events)))
    states = _precess(states, values, total, voxels, slices)
    return (_kept(states, voxels, slices, Lattice()),), tuple(echoes)


def _diffusion_weights(states, wound: int, time, voxels: Voxels, slices: Slices):
    """Factors of F(k), F(-k) and Z(k) for one event (Weigel et al., JMR 205:276 (2010))."""
    k = jnp.arange(states[0].shape[0], dtype=voxels.r1.dtype)[:, None]
    rate = _flat(time * voxels.diffusion, slices, voxels)
    factor = lambda square: jnp.exp(-rate * square)  # noqa: E731
    middle = wound**2 / 12
    return factor((k + wound / 2) ** 2 + middle), factor((k - wound / 2) ** 2 + middle), factor(k**2)
