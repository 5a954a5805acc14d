"""Events of the extensions of a .seq file: labels, triggers, soft delays, rotations, and those nobody here knows.

A block points to a list of entries; each entry names an extension, one of its events, and the next entry. Events are
namespaces with PyPulseq's names; an unknown one keeps its words, so that it can be written again.
Reference: the specification of the Pulseq file format 1.5, section "Extensions".
"""

from types import SimpleNamespace

import numpy as np

from jaxmr.core.types import Float
from jaxmr.pulseq.seqfile.parsing import Parsed, numbers, row_fault

TRIGGER_TYPES = {1: "output", 2: "trigger"}
TRIGGER_CHANNELS = {"output": {1: "osc0", 2: "osc1", 3: "ext1"}, "trigger": {1: "physio1", 2: "physio2"}}


def extension_lists(file: Parsed) -> dict[int, tuple[SimpleNamespace, ...]]:
    """The events that each list, named by its first entry, holds, in the order in which they were added.

    An event is one namespace, however many lists hold it.
    """
    table = file.tables["EXTENSIONS"]
    columns, row_of = table.columns, table.row_of()
    events = {}
    for row, pair in enumerate(zip(columns["type"].tolist(), columns["ref"].tolist(), strict=True)):
        if pair not in events:
            events[pair] = _event(file, *pair, row)
    following = columns["next"].tolist()
    for row, entry in enumerate(following):
        if entry and entry not in row_of:
            raise row_fault(table, row, f"the next entry of the list is {entry}, which [EXTENSIONS] does not have")
    lists = {}
    for start in row_of:
        entry, found, seen = start, [], set()
        while entry:
            if entry in seen:
                raise row_fault(table, row_of[start], f"the extension list {start} runs in a circle")
            seen.add(entry)
            row = row_of[entry]
            found.append(events[columns["type"][row].item(), columns["ref"][row].item()])
            entry = following[row]
        lists[start] = tuple(reversed(found))  # written last to first
    return lists


def rotation_matrix(quaternion: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3 3"]:
    """The rotation that a unit quaternion (w, x, y, z) stands for."""
    w, (x, y, z) = quaternion[0], quaternion[1:]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def rotation_quaternion(matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4"]:
    """The unit quaternion (w, x, y, z) of a rotation, its largest part positive."""
    xx, yy, zz = np.diag(matrix)
    s, d = matrix + matrix.T, matrix - matrix.T
    # 4 q q^T, whose longest column is free of cancellation
    products = np.array(
        [
            [1 + xx + yy + zz, d[2, 1], d[0, 2], d[1, 0]],
            [d[2, 1], 1 + xx - yy - zz, s[0, 1], s[0, 2]],
            [d[0, 2], s[0, 1], 1 - xx + yy - zz, s[1, 2]],
            [d[1, 0], s[0, 2], s[1, 2], 1 - xx - yy + zz],
        ]
    )
    column = products[np.diag(products).argmax()]
    return column / np.linalg.norm(column)


def _event(file: Parsed, extension: int, identity: int, row: int) -> SimpleNamespace:
    table = file.tables["EXTENSIONS"]
    if extension not in file.extensions:
        raise row_fault(table, row, f"the extension of type {extension} is not specified in the file")
    name, entries = file.extensions[extension]
    if identity not in entries:
        raise row_fault(table, row, f"{name} has no entry {identity}")
    text, line = entries[identity]
    words = text.split()
    if name in ("LABELSET", "LABELINC"):
        value, label = _words(name, words, line, "value", "label")
        (value,) = numbers([value], [line]).tolist()
        value = int(value) if value.is_integer() else value
        return SimpleNamespace(type=name.lower(), label=label, value=value)
    if name == "TRIGGERS":
        return _trigger(words, line)
    if name == "DELAYS":
        *cells, hint = _words(name, words, line, "number", "offset", "factor", "hint")
        number, offset, factor = numbers(cells, [line] * 3).tolist()
        return SimpleNamespace(type="soft_delay", numID=int(number), offset=offset / 1e6, factor=factor, hint=hint)
    if name == "ROTATIONS":
        quaternion = numbers(_words(name, words, line, "w", "x", "y", "z"), [line] * 4)
        length = np.linalg.norm(quaternion)
        if abs(length - 1) > 1e-3:
            raise ValueError(f"line {line}: the quaternion of a rotation has length 1, not {length:g}")
        matrix = rotation_matrix(quaternion / length)
        matrix.setflags(write=False)
        return SimpleNamespace(type="rotation", matrix=matrix)
    return SimpleNamespace(type="unknown", name=name, text=text)


def _words(name: str, words: list[str], line: int, *expected: str) -> list[str]:
    if len(words) != len(expected):
        raise ValueError(f"line {line}: an entry of {name} says {', '.join(expected)}; here are {len(words)} words")
    return words


def _trigger(words: list[str], line: int) -> SimpleNamespace:
    cells = _words("TRIGGERS", words, line, "type", "channel", "delay", "duration")
    kind, channel, delay, duration = numbers(cells, [line] * 4).tolist()
    if kind not in TRIGGER_TYPES:
        raise ValueError(f"line {line}: a trigger has type 1 (output) or 2 (input), not {cells[0]}")
    if min(channel, delay, duration) < 0 or not channel.is_integer():
        raise ValueError(f"line {line}: a trigger needs the number of its channel, and times that are not negative")
    name = TRIGGER_TYPES[int(kind)]
    channel = TRIGGER_CHANNELS[name].get(int(channel), int(channel))
    return SimpleNamespace(type=name, channel=channel, delay=delay / 1e6, duration=duration / 1e6)
