"""MRzero's reference scans (`../shared/data/mrzero/ref`) as sequences and phantoms of ours."""

import itertools

import jax.numpy as jnp
import numpy as np

import jaxmr as mr
from jaxmr.sequences.sequence import Event, Pulse, Segment, Sequence


def sequence_of(data) -> Sequence:
    """The event list; repetitions of one pattern in a row become one segment."""
    ends = [*data["ev_rep_start"][1:], len(data["ev_dt"])]
    repetitions = [_events(data, slice(start, end)) for start, end in zip(data["ev_rep_start"], ends, strict=True)]
    keys = [tuple(event["samples"] for event in events) for events in repetitions]
    segments, at = [], 0
    for _, run in itertools.groupby(keys):
        n = len(list(run))
        each = range(at, at + n)
        events = tuple(_stacked([repetitions[i][j] for i in each]) for j in range(len(repetitions[at])))
        flips = [np.asarray(data[f"ev_pulse_{name}"][at : at + n], float) for name in ("angle", "phase")]
        segments.append(Segment(Pulse(*map(jnp.asarray, flips)), events, n))
        at += n
    return Sequence(tuple(segments))


def _events(data, span: slice) -> list[dict]:
    dt, moment = np.asarray(data["ev_dt"][span], float), 2 * np.pi * np.asarray(data["ev_gradm"][span], float)
    adc, phase = data["ev_adc"][span], np.asarray(data["ev_adc_phase"][span], float)
    events, i = [], 0
    while i < len(dt):
        stop = i + 1
        while adc[i] and stop < len(dt) and adc[stop] and np.isclose(dt[stop], dt[i], rtol=1e-5):
            stop += 1
        path = np.cumsum(moment[i:stop], axis=0)
        events.append(
            {"time": dt[i:stop].sum(), "path": path, "samples": stop - i if adc[i] else 0, "receiver": -phase[i]}
        )
        i = stop
    return events


def _stacked(events: list[dict]) -> Event:
    times, paths, receivers = (np.array([event[name] for event in events]) for name in ("time", "path", "receiver"))
    samples = events[0]["samples"]
    return Event(
        jnp.asarray(times),
        moment=jnp.asarray(paths[:, -1]),
        receiver_phase=jnp.asarray(receivers) if samples else None,
        order=None,
        samples=samples,
        path=jnp.asarray(paths) if samples > 1 else None,
    )


def phantom_of(data, voxel_shape: str) -> mr.Phantom:
    """Its mixed-handed frame is ours with b0 and positions negated."""
    value = lambda name: np.asarray(data[f"vox_{name}"], float)  # noqa: E731
    tissue = mr.Tissue(
        value("T1"), value("T2"), m0=value("PD"), b1=value("B1"), b0=-value("B0"), t2_prime=value("T2dash"),
        diffusivity=1e-9 * value("D"),
    )  # fmt: skip
    return mr.Phantom(tissue, -value("pos"), 0.5 / np.asarray(data["nyquist"], float), voxel_shape=voxel_shape)
