"""Sequence families: each a chain of pulses and events. Angles in radians, times in seconds.

Scalars stay scalars (one number for all repetitions), which keeps a model's fast paths; `tr` and `te`
may also have one entry per pulse.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import as_float, is_concrete, require_train, require_values
from jaxmr.core.types import Array, Float, Train
from jaxmr.physics.rf import Waveform
from jaxmr.sequences.readouts import Readout
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence
from jaxmr.units import deg

SPOILER = 2 * math.pi * 1e3
"""Default spoiling moment, rad/m: one turn per millimetre."""


def _trains(flip: Any, **times: Any) -> tuple[Float[Array, "n"], dict[str, Train]]:
    """Flip train and timings, checked: shapes always, values while they are concrete."""
    train = as_float("flip", flip)
    if train.ndim != 1 or train.shape[0] == 0:
        raise ValueError(
            f"flip must have shape (n,), one angle in radians per pulse, got shape {train.shape}; "
            "for a constant train use jnp.full(n, angle)"
        )
    require_values("flip", train, "angles are in radians")
    checked = {name: as_float(name, value) for name, value in times.items()}
    for name, value in checked.items():
        require_train(name, value, train.shape[0])
        require_values(name, value, "times are in seconds", minimum=0)
    return train, checked


def _after(te: Train, tr: Train) -> Train:
    """Time from the echo to the next pulse."""
    if is_concrete((te, tr)) and np.any(np.asarray(te) > np.asarray(tr)):
        raise ValueError(
            f"te must not exceed tr, got te {np.max(te):g} s and tr {np.min(tr):g} s; times are in seconds"
        )
    return tr - te


def inverted(inversion_time: Any, efficiency: Any) -> tuple[Segment, ...]:
    """An inversion that long before what follows, or nothing if the time is None."""
    if inversion_time is None:
        if efficiency is not None:
            raise ValueError("inversion_efficiency was given without an inversion_time; give both or neither")
        return ()
    time = as_float("inversion_time", inversion_time)
    if time.ndim:
        raise ValueError(f"inversion_time must be one number in seconds, got shape {time.shape}")
    require_values("inversion_time", time, "it is in seconds; None leaves the inversion out", minimum=0)
    pulse = Inversion(None if efficiency is None else as_float("inversion_efficiency", efficiency))
    return (Segment(pulse, (Event(time),)),)


def _phase(name: str, phase: Any, n: int) -> Train | None:
    if phase is None:
        return None
    checked = as_float(name, phase)
    require_train(name, checked, n)
    return checked


def _along_z(moment: Any) -> Float[Array, "3"]:
    return jnp.zeros(3, jnp.result_type(float)).at[2].set(moment)


def _shape(shape: Waveform | None) -> tuple[tuple[Waveform, ...], int | None]:
    return ((), None) if shape is None else ((shape,), 0)


def fisp(
    flip: Any,
    tr: Any,
    te: Any,
    inversion_time: Any = None,
    *,
    phase: Any = None,
    inversion_efficiency: Any = None,
    spoiler: Any = SPOILER,
    pulse: Waveform | None = None,
    readout: Readout | None = None,
) -> Sequence:
    """Gradient-spoiled steady-state free precession: pulse, sample after `te`, wind one order.

    flip (n,) rad; tr, te scalars or (n,), s; inversion_time: from the inversion to the first pulse, None for no
    inversion; phase: of the pulses and the receiver, rad; spoiler: moment along z per repetition, rad/m;
    pulse: the shape of all pulses. readout: sample its lines, the echo at their centre; the pulses before the last
    n_lines prepare and are not sampled. Jiang et al., MRM 74:1621 (2015).
    """
    train, times = _trains(flip, tr=tr, te=te)
    rf_phase = _phase("phase", phase, train.shape[0])
    shapes, index = _shape(pulse)
    rest, spoiling = _after(times["te"], times["tr"]), _along_z(spoiler)
    before = inverted(inversion_time, inversion_efficiency)
    if readout is None:
        events = (
            Event(times["te"], samples=1, receiver_phase=rf_phase),
            Event(rest, moment=spoiling, order=1),
        )
        return Sequence((*before, Segment(Pulse(train, rf_phase, index), events, train.shape[0])), shapes)
    pulses = Pulse(train, rf_phase, index)
    played = _last(train.shape[0], readout.n_lines, times["te"], rest, rf_phase)
    events = (*_line(readout, *played), Event(jnp.zeros(()), moment=spoiling, order=1))
    idle = (Event(times["tr"], moment=spoiling, order=1),)
    return Sequence((*before, *_prepared(pulses, events, idle, readout.n_lines)), shapes)


def _line(readout: Readout, te: Train, rest: Train, receiver_phase: Train | None) -> tuple[Event, ...]:
    """A line whose centre is sampled after `te`, rewound within the `rest` of the repetition."""
    first, last = te - readout.echo, rest - (readout.time - readout.echo)
    if is_concrete((first, last)) and (np.min(first) < 0 or np.min(last) < 0):
        raise ValueError(
            f"a line of {float(readout.time):g} s, its centre after {float(readout.echo):g} s, does not fit te and tr: "
            f"te {np.min(te):g} s, {np.min(rest):g} s from there to the next pulse; take a shorter dwell"
        )
    return readout.prephaser(first), readout.sampling(receiver_phase), readout.rewinder(last)


def _prepared(pulses: Pulse, line: tuple[Event, ...], idle: tuple[Event, ...], n_lines: int) -> tuple[Segment, ...]:
    """A train of which the last `n_lines` repetitions play `line`, those before them `idle`."""
    n = pulses.flip.shape[0]
    if n_lines == n:
        return (Segment(pulses, line, n),)
    first, last = slice(0, n - n_lines), slice(n - n_lines, n)
    part = lambda tree, chosen: jax.tree.map(lambda leaf: leaf[chosen] if leaf.shape == (n,) else leaf, tree)  # noqa: E731
    return Segment(part(pulses, first), part(idle, first), n - n_lines), Segment(part(pulses, last), line, n_lines)


def _last(n: int, n_lines: int, *trains: Train | None) -> list[Any]:
    """What of each train, one number or `n`, belongs to the last `n_lines` pulses."""
    if n_lines > n:
        raise ValueError(f"readout has {n_lines} lines, but the train only {n} pulses; give one flip for each line")
    return [train if train is None or train.ndim == 0 else train[n - n_lines :] for train in trains]


def spgr(flip: Any, tr: Any, te: Any, *, rf_increment: Any = 117 * deg, **fisp_options: Any) -> Sequence:
    """RF- and gradient-spoiled gradient echo: the FISP whose pulse n = 1, 2, ... has phase n (n - 1)/2 `rf_increment`.

    The receiver follows the pulses. Other arguments as in `fisp`. Zur et al., MRM 21:251 (1991).
    """
    n = as_float("flip", flip).shape[0] if as_float("flip", flip).ndim else 1
    if is_concrete(rf_increment):
        # In whole numbers of turns and float64: n^2/2 turns would cost float32 all its digits.
        i = np.arange(n, dtype=np.float64)
        turns = np.mod(i * (i + 1) / 2 * (float(rf_increment) / (2 * np.pi)), 1.0)
    else:
        steps = jnp.mod(jnp.arange(n) * (rf_increment / (2 * jnp.pi)), 1.0)
        turns = jnp.mod(jnp.cumsum(steps), 1.0)
    return fisp(flip, tr, te, phase=2 * jnp.pi * jnp.asarray(turns), **fisp_options)


def bssfp(
    flip: Any,
    tr: Any,
    te: Any = None,
    inversion_time: Any = None,
    *,
    half_pulse: bool = True,
    pulse: Waveform | None = None,
    readout: Readout | None = None,
) -> Sequence:
    """Balanced steady-state free precession with alternating pulses: flips +a, -a, +a, ...

    te defaults to tr/2. half_pulse: a preparation -a_0/2, tr/2 before the first pulse. The receiver follows the
    alternation. readout: as in `fisp`. Scheffler & Lehnhardt, Eur Radiol 13:2409 (2003).
    """
    tr_ = as_float("tr", tr)
    train, times = _trains(flip, tr=tr_, te=tr_ / 2 if te is None else te)
    n = train.shape[0]
    shapes, index = _shape(pulse)
    # A pulse of phase pi is a negative flip: one phase for all keeps the arithmetic real.
    sign = jnp.where(jnp.arange(n) % 2 == 0, 1.0, -1.0).astype(train.dtype)
    receiver = jnp.where(sign > 0, 0.0, jnp.pi).astype(train.dtype)
    rest, pulses = _after(times["te"], times["tr"]), Pulse(sign * train, None, index)
    if readout is None:
        events = (Event(times["te"], samples=1, receiver_phase=receiver), Event(rest))
        main = (Segment(pulses, events, n),)
    else:
        line = _line(readout, *_last(n, readout.n_lines, times["te"], rest, receiver))
        main = _prepared(pulses, line, (Event(times["tr"]),), readout.n_lines)
    segments = inverted(inversion_time, None)
    if half_pulse:
        first = times["tr"] if times["tr"].ndim == 0 else times["tr"][0]
        segments += (Segment(Pulse(-train[0] / 2, None, index), (Event(first / 2),)),)
    return Sequence((*segments, *main), shapes)


def tse(
    flip: Any,
    esp: Any,
    *,
    excitation: Any = math.pi / 2,
    refocusing_phase: Any = None,
    spoiler: Any = SPOILER,
    pulse: Waveform | None = None,
    readout: Readout | None = None,
) -> Sequence:
    """Turbo spin echo (RARE): an excitation about x, then refocusing pulses `flip` (n,), one echo after each.

    esp: echo spacing, s, a scalar. Equal crushers on both sides of each refocusing pulse wind one order.
    refocusing_phase: rad, a scalar or (n,); None is pi/2 (CPMG), and faster than the number. readout: sample one of
    its lines at each echo.
    """
    train, times = _trains(flip, esp=esp)
    if times["esp"].ndim:
        raise ValueError(f"esp must be one echo spacing in seconds, got shape {times['esp'].shape}")
    shapes, index = _shape(pulse)
    moment, half = _along_z(spoiler), times["esp"] / 2
    phase = _phase("refocusing_phase", refocusing_phase, train.shape[0])
    excite = Segment(Pulse(as_float("excitation", excitation), None, index), (Event(half, moment, order=1),))
    pulses = Pulse(train, phase, index, quadrature=refocusing_phase is None, use="refocusing")
    events = (Event(half, moment, order=1, samples=1), Event(half, moment, order=1))
    if readout is not None:
        if readout.n_lines != train.shape[0]:
            raise ValueError(f"readout has {readout.n_lines} lines, flip {train.shape[0]} pulses; one line an echo")
        first, line, last = _line(readout, half, half, None)
        crush = lambda event: dataclasses.replace(event, moment=event.moment + moment[None], order=1)  # noqa: E731
        events = (crush(first), line, crush(last))
    return Sequence((excite, Segment(pulses, events, train.shape[0])), shapes, spin_echo=readout is None)


def cpmg(n_echoes: int, esp: Any, **tse_options: Any) -> Sequence:
    """Carr-Purcell-Meiboom-Gill train: `tse` with `n_echoes` refocusing pulses of 180 degrees."""
    return tse(jnp.full(n_echoes, jnp.pi), esp, **tse_options)
