"""Reading a .seq file: what its blocks play, one after the other.

Before version 1.4 a block lasts as long as its longest event (an RF pulse: its delay and one raster step a sample).
Before version 1.5 the file does not say what a sampled gradient is at its edges: it begins where the block before
ended, and between two samples it is their mean, as the MATLAB toolbox has it.
Reference: the specification of the Pulseq file format, versions 1.2 to 1.5.
"""

import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from jaxmr.pulseq.blocks import AXES, PLAYERS, Block, Rasters, Scan, end
from jaxmr.pulseq.seqfile.events import adc_events, gradients, rf_events
from jaxmr.pulseq.seqfile.extensions import extension_lists
from jaxmr.pulseq.seqfile.parsing import Parsed, numbers, parsed, row_fault

RASTER_NAMES = {
    "rf": "RadiofrequencyRasterTime",
    "grad": "GradientRasterTime",
    "adc": "AdcRasterTime",
    "block": "BlockDurationRaster",
}


def load(path: str | os.PathLike) -> Scan:
    """Read a .seq file of version 1.2 to 1.5; a `ValueError` names the line where it is broken.

    A file that its signature does not fit, or that lacks a raster it should define, is read with a warning.
    """
    content = Path(path).read_bytes()
    try:
        file = parsed(content)
        rasters = _rasters(file)
        blocks = _blocks(file, rasters)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Scan(file.version, file.definitions, rasters, tuple(blocks))


def _rasters(file: Parsed) -> Rasters:
    """As defined; the usual ones where the file says nothing, which versions before 1.4 need not."""
    found = {}
    for field, name in RASTER_NAMES.items():
        if name in file.definitions:
            line = file.definition_lines[name]
            (found[field],) = numbers([file.definitions[name]], [line]).tolist()
            if not 1e-12 <= found[field] <= 1:
                raise ValueError(f"line {line}: {name} is {found[field]:g} s; it should be a short time")
    missing = [name for field, name in RASTER_NAMES.items() if field not in found]
    if missing and file.version >= (1, 4, 0):
        warnings.warn(f"the file does not define {', '.join(missing)}: the usual values are taken", stacklevel=3)
    return Rasters(**found)


def _blocks(file: Parsed, rasters: Rasters) -> list[Block]:
    table = file.tables["BLOCKS"]
    columns = {name: column.tolist() for name, column in table.columns.items()}
    used = {name: _used(file, name) for name in (*PLAYERS, "ext", "delay_id")}
    players = {
        "rf": rf_events(file, rasters, used["rf"]),
        "adc": adc_events(file, used["adc"]),
        **{axis: gradients(file, rasters, used[axis], axis[1]) for axis in AXES},
    }
    lists = extension_lists(file)
    delays = file.tables["DELAYS"]
    delay = dict(zip(delays.columns["id"].tolist(), (delays.columns["delay"] / 1e6).tolist(), strict=True))
    blocks = []
    for row in range(len(table.lines)):
        events = {name: players[name].get(columns[name][row]) for name in PLAYERS}
        extras = lists.get(columns["ext"][row], ())
        ends = {name: end(event) for name, event in events.items() if event is not None}
        if file.version < (1, 4, 0):
            triggers = [extra.delay + extra.duration for extra in extras if hasattr(extra, "duration")]
            duration = max(0.0, delay.get(columns["delay_id"][row], 0.0), *ends.values(), *triggers)
        else:
            duration = columns["duration"][row] * rasters.block
            late = [name for name in ends if ends[name] > duration + 1e-9]
            if late:
                what = f"{late[0]} ends {ends[late[0]]:g} s after the begin of its block, which lasts {duration:g} s"
                raise row_fault(table, row, what)
        rotations = [extra.matrix for extra in extras if extra.type == "rotation"]
        if len(rotations) > 1:
            raise row_fault(table, row, "the block has two rotations")
        others = tuple(extra for extra in extras if extra.type != "rotation")
        blocks.append(Block(duration, **events, rotation=rotations[0] if rotations else None, extras=others))
    if file.version < (1, 5, 0):
        _continue_edges(blocks)
    return blocks


def _used(file: Parsed, name: str) -> list[int]:
    """The ids that a column of the blocks names; a `ValueError` unless they exist."""
    sections = {"rf": ["RF"], "adc": ["ADC"], "ext": ["EXTENSIONS"], "delay_id": ["DELAYS"]}
    table, column = file.tables["BLOCKS"], file.tables["BLOCKS"].columns[name]
    known = [file.tables[section].columns["id"] for section in sections.get(name, ["GRADIENTS", "TRAP"])]
    lost = np.flatnonzero(~np.isin(column, np.concatenate([[0], *known])))
    if lost.size:
        where = " or ".join(f"[{section}]" for section in sections.get(name, ["GRADIENTS", "TRAP"]))
        raise row_fault(table, int(lost[0]), f"the block names {name} {column[lost[0]]}, which {where} does not have")
    return np.unique(column[column > 0]).tolist()


def _continue_edges(blocks: list[Block]) -> None:
    """Give the gradients whose edges the file does not say a first and a last value."""
    for axis in AXES:
        before = 0.0
        for block in blocks:
            event: SimpleNamespace | None = getattr(block, axis)
            if event is None or event.type == "trap":
                before = 0.0
                continue
            if event.first is None:
                event.first = before if event.delay == 0 else 0.0
            if event.last is None:
                # each sample is the mean of the two edges of its step
                signs = (-1.0) ** np.arange(len(event.waveform))[::-1]
                event.last = float(2 * signs @ event.waveform + (-1) ** len(event.waveform) * event.first)
            before = event.last if end(event) > block.duration - 1e-9 else 0.0
