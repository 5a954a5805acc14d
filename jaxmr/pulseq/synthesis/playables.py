"""Pulses and samples of a `Sequence` as blocks around the instants where they act.

A pulse acts at its RF centre; samples are taken in the middle of their dwells. What gradients wind on the way there
and from there on is stated, for what comes before and after to make up for. Times in s, moments in rad/m.
"""

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxmr.physics.rf import Waveform, sinc
from jaxmr.pulseq.blocks import AXES, Block
from jaxmr.pulseq.synthesis.curves import Curve, following
from jaxmr.pulseq.synthesis.limits import Limits, down, near, up
from jaxmr.pulseq.synthesis.trapezoids import NOTHING, ramp, trapezoid
from jaxmr.sequences.sequence import Event
from jaxmr.units import ms, us

SHORTEST_PULSE = 0.1 * ms
SINC, TIME_BANDWIDTH, SINC_STEP = 1 * ms, 4, 2 * us
"""Selective pulses, at least this long."""
SINGLE = 10 * us
"""Dwell of a sample that stands alone."""


class Played(NamedTuple):
    """A block and when it begins and ends. before, after: what it winds until the pulse or the first sample, and from
    the pulse or the last sample on, (3,). longer: s by which its samples take more time than they should."""

    block: Block
    begin: float
    end: float
    before: np.ndarray
    after: np.ndarray
    longer: float = 0.0


class Shot(NamedTuple):
    """What one pulse is. samples (n,): rad/s a radian, over the duration. gradient: (3,) or (n, 3), rad/(s m)."""

    samples: np.ndarray
    duration: float
    centre: float
    gradient: np.ndarray


def hard(largest: float, limits: Limits) -> Shot:
    """A block pulse, the shortest that makes the largest flip (rad) within the peak B1."""
    needed = max(abs(largest) / (limits.gamma * limits.max_b1), SHORTEST_PULSE)
    duration = up(needed, 2 * limits.rasters.rf)
    return Shot(np.array([1 / duration]), duration, duration / 2, np.zeros(3))


def selective_sinc(largest: float, thickness: float, limits: Limits) -> Shot:
    """A sinc of time-bandwidth 4 and 1 ms, longer where its flips need it, selecting along z."""
    n = round(SINC / SINC_STEP)
    unit = np.asarray(sinc(SINC, TIME_BANDWIDTH, thickness, n_samples=n).samples, float)
    needed = abs(largest) * np.abs(unit).max() * SINC / (limits.gamma * limits.max_b1)
    duration = up(max(needed, SINC), 2 * limits.raster)
    return of_waveform(sinc(duration, TIME_BANDWIDTH, thickness, n_samples=round(duration / SINC_STEP)))


def of_waveform(waveform: Waveform) -> Shot:
    """A shape as it is."""
    gradient = np.asarray(waveform.gradient, float)
    if gradient.ndim == 0:
        gradient = np.array([0.0, 0.0, float(gradient)])
    samples = np.asarray(waveform.samples)
    return Shot(samples, float(waveform.duration), float(waveform.centre), gradient)


def pulse(
    shot: Shot, flip: float, phase: float, frequency: float, use: str, time: float, limits: Limits, known: dict
) -> Played:
    """A pulse whose centre is at `time`, or the nearest one on the raster. known: waveforms made before."""
    raster = limits.rasters.rf
    duration = max(near(shot.duration, raster), raster)
    centre, at = near(shot.centre, raster), near(time, raster)
    start, stop = at - centre, at - centre + duration
    signal, t = _signal(shot, flip, duration, raster, known)
    gradients = _during(shot, start, stop, centre, limits)
    begin = min(start - limits.rf_dead_time, *(begin for begin, _, _ in gradients))
    end = max(stop + limits.rf_ringdown_time, *(end for _, end, _ in gradients))
    begin, end = down(begin, limits.rasters.block), up(end, limits.rasters.block)
    rf = SimpleNamespace(
        type="rf",
        signal=signal,
        t=t,
        shape_dur=duration,
        delay=near(start - begin, raster),
        center=centre,
        use=use,
        freq_offset=frequency,
        phase_offset=phase - 2 * math.pi * frequency * centre,
        freq_ppm=0.0,
        phase_ppm=0.0,
        dead_time=limits.rf_dead_time,
        ringdown_time=limits.rf_ringdown_time,
    )
    return _around(begin, end, at, at, gradients, limits, rf=rf)


def samples(event: Event, start: float, limits: Limits, i: int) -> Played:
    """Repetition `i` of a readout that begins at `start`; one of more than one sample."""
    n = event.samples
    path = None if event.path is None else repetition(event.path, i, 2)
    moment = np.zeros(3) if event.moment is None else repetition(event.moment, i, 1)
    wanted = float(repetition(event.duration, i, 0)) / n
    step = moment / n
    least = np.abs(step).max() / (2 * math.pi * limits.strongest) if path is None else 0.0
    dwell = max(near(wanted, limits.rasters.adc), limits.rasters.adc)
    if least > dwell * (1 + 1e-9):
        dwell = up(least, limits.rasters.adc)
    while True:
        begin = near(start + (max(dwell, wanted) if dwell > wanted else wanted) - dwell / 2, limits.rasters.rf)
        first, last, stop = begin + dwell / 2, begin + (n - 0.5) * dwell, begin + n * dwell
        if path is None:
            gradients = _steady(step / dwell, begin, stop, limits)
            break
        curve = following(first + dwell * np.arange(n), path, limits)
        amplitude, slew = curve.excess(limits)
        if max(amplitude, slew) <= 1 + 1e-6:
            gradients = [(curve.times[0], curve.times[-1], curve)]
            break
        dwell = up(dwell * max(amplitude, math.sqrt(slew), 1.01), limits.rasters.adc)
    longer = n * (dwell - wanted) if dwell > wanted + limits.rasters.adc else 0.0
    edges = [begin - limits.adc_dead_time, *(since for since, _, _ in gradients)]
    ends = [stop + limits.adc_dead_time, *(until for _, until, _ in gradients)]
    adc = _adc(n, dwell, _receiver(event, i))
    block_begin, block_end = down(min(edges), limits.rasters.block), up(max(ends), limits.rasters.block)
    adc.delay = near(begin - block_begin, limits.rasters.rf)
    return _around(block_begin, block_end, first, last, gradients, limits, adc=adc)._replace(longer=longer)


def sample(event: Event, time: float, limits: Limits, i: int) -> Played:
    """The one sample of an event, taken at `time`."""
    begin = near(time - SINGLE / 2, limits.rasters.rf)
    block_begin = down(begin - limits.adc_dead_time, limits.rasters.block)
    block_end = up(begin + SINGLE + limits.adc_dead_time, limits.rasters.block)
    adc = _adc(1, SINGLE, _receiver(event, i))
    adc.delay = near(begin - block_begin, limits.rasters.rf)
    return _around(block_begin, block_end, time, time, [], limits, adc=adc)


def repetition(leaf: Any, i: int, ndim: int) -> np.ndarray:
    """The number of one repetition of a leaf that has `ndim` axes of its own."""
    array = np.asarray(leaf, float)
    return array if array.ndim == ndim else np.asarray(array[i])


def _receiver(event: Event, i: int) -> tuple[float, np.ndarray | None]:
    phase = 0.0 if event.receiver_phase is None else float(repetition(event.receiver_phase, i, 0))
    return phase, None if event.modulation is None else repetition(event.modulation, i, 1)


def _adc(n: int, dwell: float, receiver: tuple[float, np.ndarray | None]) -> SimpleNamespace:
    return SimpleNamespace(
        type="adc",
        num_samples=n,
        dwell=dwell,
        delay=0.0,
        freq_offset=0.0,
        phase_offset=receiver[0],
        freq_ppm=0.0,
        phase_ppm=0.0,
        phase_modulation=receiver[1],
        dead_time=0.0,
    )


def _signal(shot: Shot, flip: float, duration: float, raster: float, known: dict) -> tuple[np.ndarray, np.ndarray]:
    """The RF in Hz and its times; constant steps of the shape are means over those of the raster."""
    key = id(shot.samples), flip
    if key not in known:
        n, steps = len(shot.samples), round(duration / raster)
        height = flip * shot.duration / duration / (2 * math.pi)
        if n == 1:
            signal, t = height * shot.samples[[0, 0]] + 0j, np.array([0.0, duration])
        else:
            fine = np.arange(steps + 1) / steps
            area = np.concatenate([[0], np.cumsum(shot.samples)])
            edges = np.interp(fine, np.arange(n + 1) / n, area)
            signal, t = height * np.diff(edges) * (steps / n) + 0j, (np.arange(steps) + 0.5) * raster
        known[key] = signal, t
    return known[key]


def _during(shot: Shot, start: float, stop: float, centre: float, limits: Limits) -> list[tuple[float, float, Any]]:
    """The gradients of a pulse."""
    if not shot.gradient.any():
        return [(start, stop, None)]
    if np.abs(shot.gradient).max() > 2 * math.pi * limits.strongest * (1 + 1e-9):
        raise ValueError(
            f"a pulse needs a gradient of {np.abs(shot.gradient).max() / limits.gamma:g} T/m, above max_grad="
            f"{limits.max_grad:g}: make it longer, or its slice thicker"
        )
    if shot.gradient.ndim == 1:
        return _steady(shot.gradient, start, stop, limits)
    dwell = shot.duration / len(shot.gradient)
    wound = dwell * np.concatenate([np.zeros((1, 3)), np.cumsum(shot.gradient, axis=0)])
    curve = following(start + dwell * np.arange(len(wound)), wound, limits)
    if max(curve.excess(limits)) > 1 + 1e-6:
        raise ValueError("the gradient of a pulse is beyond max_grad or max_slew; design it for these limits")
    return [(curve.times[0], curve.times[-1], curve)]


def _steady(gradient: np.ndarray, start: float, stop: float, limits: Limits) -> list[tuple[float, float, Any]]:
    """Plateaus between these times and around, with ramps."""
    if np.abs(gradient).max() * (stop - start) < NOTHING:
        return [(start, stop, None)]
    raster = limits.rasters.grad
    rise = ramp(float(np.abs(gradient).max() / (2 * math.pi)), limits)
    since, until = down(start, raster), up(stop, raster)
    times = np.array([since - rise, since, until, until + rise])
    heights = np.array([[0.0], [1], [1], [0]]) * gradient / (2 * math.pi)
    return [(since - rise, until + rise, Curve(times, heights))]


def _around(begin: float, end: float, first: float, last: float, gradients: list, limits: Limits, **events: Any):
    """The block between two times, and what it winds until `first` and from `last` on."""
    before, after = np.zeros(3), np.zeros(3)
    raster = limits.rasters.grad
    for _, _, curve in gradients:
        if curve is None:
            continue
        before = before + curve.moment_until(first)
        after = after + curve.moment_until(curve.times[-1]) - curve.moment_until(last)
        delay = near(curve.times[0] - begin, raster)
        times = np.round((curve.times - curve.times[0]) / raster) * raster
        for axis, heights in enumerate(curve.heights.T):
            if not heights.any():
                continue
            if len(times) == 4:
                rise, flat = near(times[1], raster), near(times[2] - times[1], raster)
                events[AXES[axis]] = trapezoid(axis, float(heights[1]), rise, flat, delay)
            else:
                events[AXES[axis]] = SimpleNamespace(
                    type="grad",
                    channel="xyz"[axis],
                    waveform=heights,
                    tt=times,
                    first=0.0,
                    last=0.0,
                    shape_dur=float(times[-1]),
                    delay=delay,
                )
    return Played(Block(near(end - begin, limits.rasters.block), **events), begin, end, before, after)
