"""The numbers of a `Sequence` put back into the scan that it was read from.

The template is converted once more and compared leaf by leaf; what differs changes the events that it came from, and
nothing else does. Flips and phases are those at the RF centre; shapes and times of RF, gradients and samples within a
block stay where they are on their rasters, and hardware limits, which no file states, are not looked at.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxmr.physics.rf import Waveform
from jaxmr.pulseq.blocks import Scan
from jaxmr.pulseq.conversion.pulses import constant_steps, means_over
from jaxmr.pulseq.conversion.segments import Place, drafted
from jaxmr.pulseq.template.durations import stretched
from jaxmr.pulseq.template.gradients import Row, rewound
from jaxmr.sequences.sequence import Event, Pulse, Segment, Sequence


class _Edits(NamedTuple):
    """New events of blocks, by number and name; those made so far, by what they were made of."""

    blocks: dict[int, dict[str, Any]]
    made: dict[Any, SimpleNamespace]

    def put(self, number: int, name: str, event: SimpleNamespace, key: tuple, **changes: Any) -> None:
        """Give a block a changed copy of its event; blocks that share the event and `key` share the copy."""
        self.made.setdefault((id(event), key), SimpleNamespace(**{**vars(event), **changes}))
        self.blocks.setdefault(number, {})[name] = self.made[id(event), key]


def updated(scan: Scan, sequence: Sequence, b0: float | None = None) -> Scan:
    """The scan with the numbers of `sequence`, which has the structure of its own `to_sequence(scan.blocks, b0)`.

    A changed flip scales the RF amplitude, shape samples are put back on the raster, moments scale the gradients that
    wind them, durations change blocks that have room (rounded to the raster). Numbers that did not change leave their
    events as they are. Raises `ValueError` for another structure, and for what the events of the template cannot say.
    """
    draft, places = drafted(scan.blocks, b0)
    original = draft.assemble([np.asarray(leaf) for leaf in draft.leaves])
    _require_structure(original, sequence)
    edits = _Edits({}, {})
    _pulses(scan, places, original, sequence, edits)
    _receivers(scan, places, original, sequence, edits)
    wanted: dict[Row, np.ndarray] = _moments(places, original, sequence)
    if wanted:
        for (number, axis), event in rewound(scan.blocks, places, wanted).items():
            edits.blocks.setdefault(number, {})[axis] = event
    changes = _event_differences(places, original, sequence, "duration", ())
    for number, duration in stretched(scan.blocks, places, changes, scan.rasters.block).items():
        edits.blocks.setdefault(number, {})["duration"] = duration
    blocks = tuple(block._replace(**edits.blocks.get(number, {})) for number, block in enumerate(scan.blocks))
    definitions = dict(scan.definitions)
    if changes and "TotalDuration" in definitions:
        definitions["TotalDuration"] = f"{sum(float(block.duration) for block in blocks):.12g}"
    return scan._replace(blocks=blocks, definitions=definitions)


def _require_structure(original: Sequence, sequence: Sequence) -> None:
    """A `ValueError` that says where the sequence is not made like the template."""
    n = len(original.segments), len(sequence.segments), len(original.shapes), len(sequence.shapes)
    _require(n[0] == n[1], f"it has {n[1]} segments, the template {n[0]}")
    _require(n[2] == n[3], f"it has {n[3]} shapes, the template {n[2]}")
    _require(sequence.initial is None, "it has an initial magnetisation, which no file holds")
    for number, (old, new) in enumerate(zip(original.segments, sequence.segments, strict=True)):
        facts = (
            ("repetitions", old.repetitions, new.repetitions),
            ("events", len(old.events), len(new.events)),
            ("samples", [e.samples for e in old.events], [e.samples for e in new.events]),
            ("paths", [e.path is None for e in old.events], [e.path is None for e in new.events]),
            ("pulse", _kind(old), _kind(new)),
        )
        for name, ours, theirs in facts:
            _require(ours == theirs, f"segment {number} has {name} {theirs}, in the template {ours}")
    for number, (old, new) in enumerate(zip(original.shapes, sequence.shapes, strict=True)):
        for name in ("samples", "duration", "gradient", "thickness", "centre"):
            ours, theirs = np.shape(getattr(old, name)), np.shape(getattr(new, name))
            _require(ours == theirs, f"{name} of shape {number} has the form {theirs}, in the template {ours}")
        for name in ("duration", "thickness", "centre"):
            fixed = _difference(name, getattr(new, name), getattr(old, name), 1, ()) is None
            _require(fixed, f"{name} of shape {number} was changed, but the times of an RF pulse stay")


def _require(true: bool, what: str) -> None:
    if not true:
        raise ValueError(
            f"sequence does not fit the template: {what}; change only numbers of what was read from it, "
            "or write without a template"
        )


def _kind(segment: Segment) -> Any:
    pulse = segment.pulse
    return (pulse.shape, pulse.use, pulse.quadrature) if isinstance(pulse, Pulse) else pulse


def _difference(where: str, new: Any, old: Any, n: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """What was added to a leaf, (n, *shape); None if nothing was. Leaves in less than float64 differ where they show.

    None as a leaf is 0. A leaf that was one number may have become one of each repetition.
    """
    if new is old:
        return None
    new, old = (np.zeros(shape) if leaf is None else np.asarray(leaf) for leaf in (new, old))
    if new.shape not in (shape, (n, *shape)):
        raise ValueError(f"{where} must have shape {shape} or {(n, *shape)}, got {new.shape}")
    if not np.isfinite(new).all():
        raise ValueError(f"{where} must be finite, got {new[~np.isfinite(new)][0]}; the template has numbers there")
    old = np.broadcast_to(old, np.broadcast_shapes(old.shape, new.shape))
    wide = np.result_type(new, np.float64)
    added = np.where(new == old.astype(np.result_type(new.dtype, old.dtype) if np.iscomplexobj(old) else new.dtype),
                     0.0, new.astype(wide) - old)  # fmt: skip
    return np.broadcast_to(added, (n, *shape)) if added.any() else None


def _event_differences(
    places: list[Place], original: Sequence, sequence: Sequence, name: str, shape: tuple[int, ...] | None
) -> dict[tuple[int, int], np.ndarray]:
    """What was added to a leaf of events, by place and stretch. shape: None of a path, (0,) of samples."""
    found, first = {}, _firsts(places)
    for s, (old, new) in enumerate(zip(original.segments, sequence.segments, strict=True)):
        for e, (before, after) in enumerate(zip(old.events, new.events, strict=True)):
            if shape is None and before.path is None:
                continue
            form = {None: (before.samples, 3), (0,): (before.samples,)}.get(shape, shape)
            leaves = getattr(after, name), getattr(before, name)
            added = _difference(f"{name} of segment {s}, event {e}", *leaves, old.repetitions, form)
            if added is not None:
                found |= {(first[s] + i, e): np.asarray(row) for i, row in enumerate(added) if row.any()}
    return found


def _firsts(places: list[Place]) -> dict[int, int]:
    """The place of the first repetition of each segment."""
    return {place.segment: i for i, place in reversed(list(enumerate(places)))}


def _moments(places: list[Place], original: Sequence, sequence: Sequence) -> dict[Row, np.ndarray]:
    """What was added to moments, and to paths after them, by place and stretch; stretch -1 is a pulse's gradient."""
    moments = _event_differences(places, original, sequence, "moment", (3,))
    paths = _event_differences(places, original, sequence, "path", None)
    found = {}
    for key in sorted(moments.keys() | paths.keys()):
        moment = moments.get(key, np.zeros(3))
        event: Event = original.segments[places[key[0]].segment].events[key[1]]
        path = paths.get(key, np.zeros((event.samples if event.path is not None else 0, 3)))
        found[key] = np.concatenate([moment[None], path])
    for number, (old, new) in enumerate(zip(original.shapes, sequence.shapes, strict=True)):
        form = np.shape(old.gradient)
        added = _difference(f"gradient of shape {number}", new.gradient, old.gradient, 1, form)
        if added is not None:
            rows = np.pad(added.reshape(1, 1), ((0, 0), (2, 0))) if form == () else added.reshape(-1, 3)
            for i, place in enumerate(places):
                pulse = original.segments[place.segment].pulse
                if isinstance(pulse, Pulse) and pulse.shape == number:
                    found[i, -1] = rows
    return found


def _pulses(scan: Scan, places: list[Place], original: Sequence, sequence: Sequence, edits: _Edits) -> None:
    """Amplitudes, phases, carriers and shapes."""
    shapes = [
        _difference(f"samples of shape {i}", new.samples, old.samples, 1, np.shape(old.samples))
        for i, (new, old) in enumerate(zip(sequence.shapes, original.shapes, strict=True))
    ]
    first = _firsts(places)
    for s, (old, new) in enumerate(zip(original.segments, sequence.segments, strict=True)):
        if not isinstance(old.pulse, Pulse) or not isinstance(new.pulse, Pulse) or old.pulse.shape is None:
            continue
        n, index = old.repetitions, old.pulse.shape
        names = ("flip", "phase", "frequency")
        added = [
            _difference(f"{name} of segment {s}", getattr(new.pulse, name), getattr(old.pulse, name), n, ())
            for name in names
        ]
        bent = shapes[index]
        if bent is None and all(change is None for change in added):
            continue
        flips = np.broadcast_to(np.asarray(old.pulse.flip, float), (n,))
        flip, phase, frequency = (np.zeros(n) if change is None else change for change in added)
        for i in range(n):
            number = places[first[s] + i].span.block
            rf = scan.blocks[number].rf
            assert rf is not None
            key = (flips[i], flip[i], phase[i], frequency[i], -1 if bent is None else index)
            if (id(rf), key) in edits.made:
                edits.put(number, "rf", rf, key)
                continue
            changes: dict[str, Any] = {}
            if phase[i] or frequency[i]:
                # The phase is stated at the RF centre, in a file at the begin of the shape.
                changes["phase_offset"] = rf.phase_offset + phase[i] - 2 * np.pi * frequency[i] * rf.center
                changes["freq_offset"] = rf.freq_offset + frequency[i]
            if flip[i] or bent is not None:
                shape = original.shapes[index]
                changes |= _signal(rf, flips[i], flip[i], shape, bent, scan.rasters.rf)
            if changes:
                edits.put(number, "rf", rf, key, **changes)


def _signal(
    rf: SimpleNamespace, flip: float, added: float, shape: Waveform, bent: np.ndarray | None, raster: float
) -> dict[str, Any]:
    """The waveform with another flip and `bent` added to the samples of its shape, which are means over it."""
    new = flip + added
    if flip == 0 and bent is None:
        # A pulse of no amplitude says nothing of its shape, which is read as a constant one.
        return {"signal": np.full(len(rf.t), new / (2 * np.pi * rf.shape_dur), complex)}
    signal = rf.signal * (new / flip) if flip else 0 * rf.signal
    means = new / (2 * np.pi) * (np.zeros(len(shape.samples)) if bent is None else bent[0])
    if flip == 0:
        means = means + new / (2 * np.pi) * shape.samples
    if not means.any():
        return {"signal": signal}
    edges, cells = constant_steps(np.ascontiguousarray(rf.t, float).tobytes(), rf.shape_dur, float(rf.freq_offset))
    if len(cells) != len(means):
        edges = np.arange(len(means) + 1) / len(means)
    elif len(cells) <= cells.shape[1]:
        # Of all waveforms with these means that which differs least; where samples are steps, the same in each cell.
        return {"signal": signal + cells.T @ np.linalg.solve(cells @ cells.T, means)}
    n = round(rf.shape_dur / raster)
    if n < len(means) or abs(n * raster - rf.shape_dur) > 1e-9:
        raise ValueError(
            f"the shape of an RF pulse of {len(rf.t)} samples in {rf.shape_dur:g} s was changed, which has no "
            f"{len(means)} whole steps of {raster:g} s; sample it on the raster of the file first"
        )
    fine = np.arange(n + 1) / n
    overlap = np.minimum(fine[1:, None], edges[None, 1:]) - np.maximum(fine[:-1, None], edges[None, :-1])
    signal = means_over(rf.t / rf.shape_dur, fine) @ signal + n * np.clip(overlap, 0, None) @ means
    return {"signal": signal, "t": (np.arange(n) + 0.5) * raster}


def _receivers(scan: Scan, places: list[Place], original: Sequence, sequence: Sequence, edits: _Edits) -> None:
    """Phases of the receiver; what differs from sample to sample becomes the modulation of the ADC."""
    phases = _event_differences(places, original, sequence, "receiver_phase", ())
    modulations = _event_differences(places, original, sequence, "modulation", (0,))
    if not (phases or modulations):
        return
    added: dict[int, list[np.ndarray]] = {}
    for i, place in enumerate(places):
        for j, stretch in enumerate(place.span.stretches):
            if stretch.samples:
                more = phases.get((i, j), 0.0) + modulations.get((i, j), np.zeros(stretch.samples))
                added.setdefault(stretch.block, []).append(more)
    for number, parts in added.items():
        more, adc = np.concatenate(parts), scan.blocks[number].adc
        assert adc is not None
        if not more.any():
            continue
        changes: dict[str, Any] = {"phase_offset": adc.phase_offset + more[0]}
        if np.abs(more - more[0]).max() > 0:
            changes["phase_modulation"] = (
                (0.0 if adc.phase_modulation is None else adc.phase_modulation) + more - more[0]
            )
        edits.put(number, "adc", adc, (more.tobytes(),), **changes)
