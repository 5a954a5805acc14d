"""Writing a .seq file of version 1.5.0.

Each event becomes a row of a table; equal rows, and equal shapes, are written once. Numbers have 12 digits, shapes an
error of 1e-9 of their peak, so that a file read and written again plays the same.
Reference: the specification of the Pulseq file format 1.5.
"""

import hashlib
import os
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxmr.core.files import whole
from jaxmr.pulseq.blocks import PLAYERS, Block, Rasters, Scan, end
from jaxmr.pulseq.seqfile.events import USES
from jaxmr.pulseq.seqfile.extensions import TRIGGER_CHANNELS, TRIGGER_TYPES, rotation_quaternion
from jaxmr.pulseq.seqfile.reading import RASTER_NAMES
from jaxmr.pulseq.seqfile.shapes import compressed

HEADERS = {
    "RF": "id amplitude(Hz) mag_id phase_id time_id center(us) delay(us) ppm rad/MHz freq(Hz) phase(rad) use",
    "GRADIENTS": "id amplitude(Hz/m) first(Hz/m) last(Hz/m) shape_id time_id delay(us)",
    "TRAP": "id amplitude(Hz/m) rise(us) flat(us) fall(us) delay(us)",
    "ADC": "id num dwell(ns) delay(us) ppm rad/MHz freq(Hz) phase(rad) phase_id",
    "EXTENSIONS": "id type ref next",
}


class _Tables(NamedTuple):
    """What has been written so far: the id of each text.

    rows: of each table, by section and text. entries: of each extension. delays: number of each soft delay, by hint.
    kept: by identity, what has been made of an event or array, not to make it again.
    """

    rasters: Rasters
    rows: dict[str, dict[tuple[str, str], int]]
    shapes: dict[str, int]
    entries: dict[str, dict[str, int]]
    delays: dict[str, int]
    kept: dict[int, Any]


def save(scan: Scan, path: str | os.PathLike) -> None:
    """Write the scan as a .seq file of version 1.5.0, signed; the file is whole or not there.

    Numbers must be concrete. A `ValueError` names the block that no file can say: one whose duration is no multiple
    of the raster, one that ends before its events, or one with negative or infinite times.
    """
    tables = _Tables(scan.rasters, {"RF": {}, "GRADIENTS": {}, "ADC": {}, "EXTENSIONS": {}}, {}, {}, {}, {})
    lines = []
    for number, block in enumerate(scan.blocks, 1):
        try:
            lines.append(f"{number} {_block(tables, block)}\n")
        except ValueError as error:
            raise ValueError(f"block {number}: {error}") from None
    text = "".join(
        [
            "# Pulseq sequence file\n# Created by jaxmr\n\n[VERSION]\nmajor 1\nminor 5\nrevision 0\n\n",
            _definitions(scan),
            "# id duration(raster) rf gx gy gz adc ext\n[BLOCKS]\n",
            *lines,
            "\n",
            *(_section(tables, name) for name in HEADERS),
            *_specifications(tables),
            "[SHAPES]\n\n" if tables.shapes else "",
            *(f"shape_id {identity}\n{shape}\n" for shape, identity in tables.shapes.items()),
        ]
    )
    signature = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    with whole(path) as partial:
        partial.write_bytes(f"{text}\n[SIGNATURE]\nType md5\nHash {signature}\n".encode())


def _block(tables: _Tables, block: Block) -> str:
    steps = float(block.duration) / tables.rasters.block
    if not (np.isfinite(steps) and steps > -0.5 and abs(steps - round(steps)) < 1e-4):
        raise ValueError(
            f"it lasts {float(block.duration):.12g} s, which is no multiple of the raster {tables.rasters.block:g} s: "
            "round it, or give the scan a finer raster"
        )
    ids = []
    writers = {"rf": _rf, "adc": _adc}
    for name in PLAYERS:
        event = getattr(block, name)
        if event is None:
            ids.append(0)
            continue
        if id(event) not in tables.kept:
            tables.kept[id(event)] = writers.get(name, _gradient)(tables, event)
        ids.append(tables.kept[id(event)])
        if float(end(event)) > float(block.duration) + 1e-9:
            raise ValueError(
                f"its {name} ends after {float(end(event)):.12g} s, the block {float(block.duration):.12g} s"
            )
    return " ".join(map(str, [round(steps), *ids, _list(tables, block)]))


def _rf(tables: _Tables, rf: SimpleNamespace) -> int:
    if id(rf.signal) not in tables.kept:
        signal = np.asarray(rf.signal, complex)
        peak = np.abs(signal).max()
        cycles = np.where(np.abs(signal) > 0, np.angle(signal) / (2 * np.pi) % 1, 0.0)
        magnitude = np.abs(signal) / (peak or 1)
        tables.kept[id(rf.signal)] = peak, _shape(tables, magnitude), _shape(tables, cycles)
    peak, magnitude_id, phase_id = tables.kept[id(rf.signal)]
    steps = np.asarray(rf.t, float) / tables.rasters.rf
    time_id = 0 if _same(steps, np.arange(len(steps)) + 0.5) else _shape(tables, steps)
    if rf.use not in USES:
        raise ValueError(f"the RF pulse has use {rf.use!r}, which is none of {', '.join(USES)}")
    times = [_scaled("center", rf.center, 1e6), _scaled("delay", rf.delay, 1e6)]
    rest = _numbers(rf, "freq_ppm", "phase_ppm", "freq_offset", "phase_offset")
    words = [f"{peak:.12g}", magnitude_id, phase_id, time_id, *times, *rest, rf.use[0]]
    return _row(tables, "RF", "RF", words)


def _gradient(tables: _Tables, gradient: SimpleNamespace) -> int:
    delay = _scaled("delay", gradient.delay, 1e6)
    if gradient.type == "trap":
        times = [_scaled(name, getattr(gradient, name), 1e6) for name in ("rise_time", "flat_time", "fall_time")]
        return _row(tables, "GRADIENTS", "TRAP", [*_numbers(gradient, "amplitude"), *times, delay])
    waveform, steps = np.asarray(gradient.waveform, float), np.asarray(gradient.tt, float) / tables.rasters.grad
    n, n_steps = len(waveform), float(gradient.shape_dur) / tables.rasters.grad
    if _same(steps, np.arange(n) + 0.5) and _same(n_steps, n):
        time_id = 0
    elif n % 2 == 1 and _same(steps, (np.arange(n) + 1) / 2) and _same(n_steps, (n + 1) / 2):
        time_id = -1
    else:
        if not _same(n_steps, steps[-1]):  # a shape with times ends with its last sample
            waveform, steps = np.append(waveform, float(gradient.last)), np.append(steps, n_steps)
        time_id = _shape(tables, steps)
    peak = waveform[np.abs(waveform).argmax()]
    shape_id = _shape(tables, waveform / (peak or 1))
    words = [f"{peak:.12g}", *_numbers(gradient, "first", "last"), shape_id, time_id, delay]
    return _row(tables, "GRADIENTS", "GRADIENTS", words)


def _adc(tables: _Tables, adc: SimpleNamespace) -> int:
    modulation = np.asarray([] if adc.phase_modulation is None else adc.phase_modulation, float)
    times = [_scaled("dwell", adc.dwell, 1e9), _scaled("delay", adc.delay, 1e6)]
    rest = _numbers(adc, "freq_ppm", "phase_ppm", "freq_offset", "phase_offset")
    shape_id = _shape(tables, modulation) if len(modulation) else 0
    return _row(tables, "ADC", "ADC", [int(adc.num_samples), *times, *rest, shape_id])


def _list(tables: _Tables, block: Block) -> int:
    """The first entry of the block's extensions, which are listed last to first; 0 without any."""
    entry = 0
    for name, text in [_extension(tables, extra) for extra in block.extras] + _rotation(block):
        references = tables.entries.setdefault(name, {})
        kind = list(tables.entries).index(name) + 1
        entry = _row(tables, "EXTENSIONS", "EXTENSIONS", [kind, _number(references, text), entry])
    return entry


def _extension(tables: _Tables, extra: SimpleNamespace) -> tuple[str, str]:
    """The name of the extension, and what its entry says."""
    if extra.type in ("labelset", "labelinc"):
        return extra.type.upper(), f"{_numbers(extra, 'value')[0]} {extra.label}"
    if extra.type in TRIGGER_CHANNELS:
        kind = {name: number for number, name in TRIGGER_TYPES.items()}[extra.type]
        channels = {name: number for number, name in TRIGGER_CHANNELS[extra.type].items()}
        times = _scaled("delay", extra.delay, 1e6), _scaled("duration", extra.duration, 1e6)
        return "TRIGGERS", f"{kind} {channels.get(extra.channel, extra.channel)} {times[0]} {times[1]}"
    if extra.type == "soft_delay":
        number = extra.numID if extra.numID is not None else max(tables.delays.values(), default=-1) + 1
        number = tables.delays.setdefault(extra.hint, number)
        offset, factor = f"{float(extra.offset) * 1e6:.12g}", _numbers(extra, "factor")[0]
        return "DELAYS", f"{number} {offset} {factor} {extra.hint}"
    if extra.type == "unknown":
        return extra.name, extra.text
    raise ValueError(f"an extra of type {extra.type!r}, which no extension of the format says")


def _rotation(block: Block) -> list[tuple[str, str]]:
    if block.rotation is None:
        return []
    return [("ROTATIONS", " ".join(f"{part:.12g}" for part in rotation_quaternion(np.asarray(block.rotation, float))))]


def _definitions(scan: Scan) -> str:
    """In their order, with the rasters and the duration as they are."""
    total = sum(float(block.duration) for block in scan.blocks)
    values = {name: getattr(scan.rasters, field) for field, name in RASTER_NAMES.items()} | {"TotalDuration": total}
    texts = scan.definitions | {name: f"{value:.12g}" for name, value in values.items()}
    for name, text in texts.items():
        if len(name.split()) != 1 or name[:1] in "#[" or "\n" in str(text):
            raise ValueError(f"the definition {name!r} is {text!r}: it needs a name without spaces and one line")
    return "[DEFINITIONS]\n" + "".join(f"{name} {text}\n" for name, text in texts.items()) + "\n"


def _section(tables: _Tables, name: str) -> str:
    rows = tables.rows["GRADIENTS" if name == "TRAP" else name]
    lines = [f"{identity} {text}\n" for (section, text), identity in rows.items() if section == name]
    return f"# {HEADERS[name]}\n[{name}]\n" + "".join(lines) + "\n" if lines else ""


def _specifications(tables: _Tables) -> list[str]:
    return [
        f"extension {name} {kind}\n" + "".join(f"{identity} {text}\n" for text, identity in texts.items()) + "\n"
        for kind, (name, texts) in enumerate(tables.entries.items(), 1)
    ]


def _row(tables: _Tables, table: str, section: str, words: list) -> int:
    return _number(tables.rows[table], (section, " ".join(map(str, words))))


def _shape(tables: _Tables, samples: np.ndarray) -> int:
    if not np.isfinite(samples).all():
        raise ValueError("a waveform has samples that are not finite")
    numbers = "".join(f"{value:.15g}\n" for value in (compressed(samples) + 0.0).tolist())
    return _number(tables.shapes, f"num_samples {len(samples)}\n{numbers}")


def _number(ids: dict, entry: Any) -> int:
    """The id of an entry, a new one if need be."""
    return ids.setdefault(entry, len(ids) + 1)


def _numbers(event: SimpleNamespace, *names: str) -> list[str]:
    values = [float(getattr(event, name)) + 0.0 for name in names]
    if not np.isfinite(values).all():
        raise ValueError(f"{', '.join(names)} of its {event.type} should be finite, not {values}")
    return [f"{value:.12g}" for value in values]


def _scaled(name: str, time: Any, unit: float) -> str:
    """A time in the unit of the file."""
    if not 0 <= float(time) < np.inf:
        raise ValueError(f"{name} is {float(time):g} s, which no file can say")
    return f"{float(time) * unit:.12g}"


def _same(steps: Any, others: Any) -> bool:
    return bool(np.allclose(steps, others, rtol=0, atol=1e-6))
