"""From the tables of a .seq file to its RF, gradient and ADC events, in the time and units of `blocks`.

Times count from the begin of the shape; samples without a time shape lie in the middle of their raster step.
Before version 1.5 the file does not say where an RF pulse has its centre (taken as the middle of its highest plateau)
nor what it is for (told from its flip angle and frequency). Arrays are read-only, for events share them.
Reference: the specification of the Pulseq file format, versions 1.2 to 1.5.
"""

import math
from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import numpy as np

from jaxmr.pulseq.blocks import Rasters
from jaxmr.pulseq.seqfile.parsing import MOST_SAMPLES, Parsed, Table, row_fault
from jaxmr.units import GAMMA

USES = ("excitation", "refocusing", "inversion", "saturation", "preparation", "other", "undefined")

FIELDS = (1.5, 3.0, 7.0)
"""Field strengths (T) at which an old file's frequency may be that of fat."""

ROUNDING = 1e-6
"""Raster steps by which the first time of a shape may lie before 0."""


def rf_events(file: Parsed, rasters: Rasters, ids: Iterable[int]) -> dict[int, SimpleNamespace]:
    """The RF events of these ids."""
    table, events, signals, times = file.tables["RF"], {}, {}, {}
    for row, entry in _entries(table, ids):
        magnitude = _shape(file, table, row, entry.mag_id)
        key = (entry.amplitude, entry.mag_id, entry.phase_id)
        if key not in signals:
            signal = entry.amplitude * magnitude.astype(complex)
            if entry.phase_id:
                signal *= np.exp(2j * np.pi * _shape(file, table, row, entry.phase_id, len(magnitude)))
            _keep(signals, key, signal)
        steps, n_steps = _steps(file, table, row, entry.time_id, len(magnitude))
        key = (entry.time_id, len(magnitude))
        if key not in times:
            _keep(times, key, steps * rasters.rf)
        rf = SimpleNamespace(
            type="rf",
            signal=signals[entry.amplitude, entry.mag_id, entry.phase_id],
            t=times[key],
            shape_dur=math.ceil(n_steps - 1e-6) * rasters.rf,
            delay=entry.delay / 1e6,
            center=entry.center / 1e6,
            use=next((use for use in USES if use[0] == entry.use), ""),
            freq_offset=entry.freq,
            phase_offset=entry.phase,
            freq_ppm=entry.freq_ppm,
            phase_ppm=entry.phase_ppm,
            dead_time=0.0,
            ringdown_time=0.0,
        )
        if file.version < (1, 5, 0):
            rf.center, rf.use = _peak(rf), _purpose(rf, rasters.rf, timed=entry.time_id > 0)
        elif not rf.use:
            raise row_fault(table, row, f"use is {entry.use[:40]!r}, which begins none of {', '.join(USES)}")
        events[entry.id] = rf
    return events


def gradients(file: Parsed, rasters: Rasters, ids: Iterable[int], channel: str) -> dict[int, SimpleNamespace]:
    """The gradient events of these ids, as played along one axis.

    What a sampled gradient is at its edges is None where the file does not say (before version 1.5).
    """
    table, traps = file.tables["GRADIENTS"], file.tables["TRAP"]
    shaped = set(table.columns["id"].tolist())
    events, waveforms, times = {}, {}, {}
    for _, entry in _entries(traps, [identity for identity in ids if identity not in shaped]):
        events[entry.id] = SimpleNamespace(
            type="trap",
            channel=channel,
            amplitude=entry.amplitude,
            rise_time=entry.rise / 1e6,
            flat_time=entry.flat / 1e6,
            fall_time=entry.fall / 1e6,
            delay=entry.delay / 1e6,
        )
    for row, entry in _entries(table, [identity for identity in ids if identity in shaped]):
        shape = _shape(file, table, row, entry.shape_id)
        key = (entry.amplitude, entry.shape_id)
        if key not in waveforms:
            _keep(waveforms, key, entry.amplitude * shape)
        waveform = waveforms[key]
        steps, n_steps = _steps(file, table, row, entry.time_id, len(shape), halves=file.version >= (1, 5, 0))
        key = (entry.time_id, len(shape))
        if key not in times:
            _keep(times, key, steps * rasters.grad)
        first, last = entry.first, entry.last
        if file.version < (1, 5, 0):
            first = waveform[0].item() if steps[0] == 0 else None
            last = waveform[-1].item() if entry.time_id else None
        events[entry.id] = SimpleNamespace(
            type="grad",
            channel=channel,
            waveform=waveform,
            tt=times[key],
            first=first,
            last=last,
            shape_dur=n_steps * rasters.grad,
            delay=entry.delay / 1e6,
        )
    return events


def adc_events(file: Parsed, ids: Iterable[int]) -> dict[int, SimpleNamespace]:
    """The ADC events of these ids."""
    table, events = file.tables["ADC"], {}
    for row, entry in _entries(table, ids):
        if entry.num > MOST_SAMPLES:
            raise row_fault(table, row, f"an ADC event of {entry.num} samples; at most {MOST_SAMPLES} are read")
        events[entry.id] = SimpleNamespace(
            type="adc",
            num_samples=entry.num,
            dwell=entry.dwell / 1e9,
            delay=entry.delay / 1e6,
            freq_offset=entry.freq,
            phase_offset=entry.phase,
            freq_ppm=entry.freq_ppm,
            phase_ppm=entry.phase_ppm,
            phase_modulation=_shape(file, table, row, entry.phase_id, entry.num) if entry.phase_id else None,
            dead_time=0.0,
        )
    return events


def _entries(table: Table, ids: Iterable[int]) -> Iterator[tuple[int, SimpleNamespace]]:
    """The rows of these ids, with plain numbers."""
    row_of = table.row_of()
    columns = {name: column if isinstance(column, list) else column.tolist() for name, column in table.columns.items()}
    for row in (row_of[identity] for identity in ids):
        yield row, SimpleNamespace(**{name: column[row] for name, column in columns.items()})


def _shape(file: Parsed, table: Table, row: int, identity: int, n: int | None = None) -> np.ndarray:
    """The samples of a shape; it should have `n`."""
    if identity not in file.shapes:
        raise row_fault(table, row, f"there is no shape {identity} in [SHAPES]")
    shape = file.shapes[identity]
    if n is not None and len(shape) != n:
        raise row_fault(table, row, f"shape {identity} has {len(shape)} samples where {n} are needed")
    return shape


def _steps(
    file: Parsed, table: Table, row: int, time_id: int, n: int, halves: bool = False
) -> tuple[np.ndarray, float]:
    """When the samples are, and how long the shape is, in raster steps. halves: -1 may mean two samples a step."""
    if time_id == 0:
        return np.arange(n) + 0.5, n
    if time_id == -1 and halves:
        if n % 2 == 0:
            raise row_fault(table, row, f"a gradient sampled twice a step has an odd number of samples, not {n}")
        return (np.arange(n) + 1) / 2, (n + 1) / 2
    steps = _shape(file, table, row, time_id, n)
    if -ROUNDING < steps[0] < 0:  # sums of gradients begin at the rounding error of a delay
        steps = np.concatenate([[0.0], steps[1:]])
    if steps[0] < 0 or (np.diff(steps) < 0).any() or not steps[-1] > 0:
        raise row_fault(table, row, f"the times of shape {time_id} do not run forward from 0")
    return steps, steps[-1].item()


def _keep(store: dict, key: tuple, array: np.ndarray) -> None:
    """Remember an array that events share; a `ValueError` before memory is full."""
    array.setflags(write=False)
    store[key] = array
    total = sum(len(kept) for kept in store.values()) if len(array) * len(store) > MOST_SAMPLES else 0
    if total > MOST_SAMPLES:
        raise ValueError(f"the different waveforms have more than {MOST_SAMPLES} samples together")


def _peak(rf: SimpleNamespace) -> float:
    """Middle of the highest plateau."""
    magnitude = np.abs(rf.signal)
    plateau = np.flatnonzero(magnitude >= magnitude.max() * 0.99999)
    return (rf.t[plateau[0]] + rf.t[plateau[-1]]).item() / 2


def _purpose(rf: SimpleNamespace, raster: float, timed: bool) -> str:
    """Up to 90 degrees excite; above, long pulses on fat saturate and others refocus."""
    turns = abs(np.trapezoid(rf.signal, rf.t) if timed else np.sum(rf.signal) * raster)
    if turns * 360 <= 90.01:
        return "excitation"
    shifts = [2e6 * np.pi * rf.freq_offset / (GAMMA * field) for field in FIELDS]
    on_fat = rf.shape_dur > 6e-3 and any(-3.5 <= shift <= -3.4 for shift in shifts)
    return "saturation" if on_fat else "refocusing"
