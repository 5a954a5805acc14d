"""From the text of a .seq file to its tables, whatever the version: 1.2 to 1.5.

Tables have the columns of version 1.5 (see `COLUMNS`), in the units of the file; columns that a version does not have
are 0. Everything that can be told from one table is checked here. Errors are `ValueError`s that name the line.
Reference: the specification of the Pulseq file format, versions 1.2 to 1.5.
"""

import hashlib
import itertools
import re
import warnings
from typing import NamedTuple

import numpy as np

from jaxmr.pulseq.seqfile.shapes import decompressed

COLUMNS = {
    "BLOCKS": {
        (1, 2): "id delay_id rf gx gy gz adc",
        (1, 3): "id delay_id rf gx gy gz adc ext",
        (1, 4): "id duration rf gx gy gz adc ext",
    },
    "RF": {
        (1, 2): "id amplitude mag_id phase_id delay freq phase",
        (1, 4): "id amplitude mag_id phase_id time_id delay freq phase",
        (1, 5): "id amplitude mag_id phase_id time_id center delay freq_ppm phase_ppm freq phase use",
    },
    "GRADIENTS": {
        (1, 2): "id amplitude shape_id delay",
        (1, 4): "id amplitude shape_id time_id delay",
        (1, 5): "id amplitude first last shape_id time_id delay",
    },
    "TRAP": {(1, 2): "id amplitude rise flat fall delay"},
    "ADC": {
        (1, 2): "id num dwell delay freq phase",
        (1, 5): "id num dwell delay freq_ppm phase_ppm freq phase phase_id",
    },
    "DELAYS": {(1, 2): "id delay"},
    "EXTENSIONS": {(1, 3): "id type ref next"},
}
"""Of each section, its columns since each version that changed them. us (`dwell` ns), Hz, Hz/m, rad, ppm, rad/MHz."""

SECTIONS = (*COLUMNS, "VERSION", "DEFINITIONS", "SHAPES", "SIGNATURE")
POSITIVE = {"id", "num", "dwell", "type", "ref"}
SIGNED = {"amplitude", "freq", "phase", "freq_ppm", "phase_ppm", "first", "last", "time_id"}
REAL = SIGNED - {"time_id"} | {"delay", "center", "rise", "flat", "fall", "dwell"}

LARGEST = 1e15
"""Numbers beyond are nonsense; within, integers are exact and products stay finite."""

MOST_SAMPLES = 2**25
"""Samples of all shapes of a file together: 256 MiB."""


class Lines(NamedTuple):
    """The lines of a section that are neither blank nor comments, and their numbers in the file."""

    header: int
    text: list[str]
    numbers: list[int]


class Table(NamedTuple):
    """Columns by name, each `(n,)`; `use` is a list of words. lines: where in the file each row is."""

    columns: dict
    lines: list[int]

    def row_of(self) -> dict[int, int]:
        """Row of each id."""
        return {identity: row for row, identity in enumerate(self.columns["id"].tolist())}


class Specification(NamedTuple):
    """An extension: its name, and by id what each of its lines says after the id, and the line's number."""

    name: str
    entries: dict[int, tuple[str, int]]


class Parsed(NamedTuple):
    """A .seq file. extensions: by type. shapes: the samples of each, by id."""

    version: tuple[int, int, int]
    definitions: dict[str, str]
    definition_lines: dict[str, int]
    tables: dict[str, Table]
    extensions: dict[int, Specification]
    shapes: dict[int, np.ndarray]


def parsed(content: bytes) -> Parsed:
    """The tables of a .seq file."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: byte 0x{content[error.start]:02x} is not UTF-8 text") from None
    sections = _sections(text)
    version = _version(sections)
    definitions, definition_lines = _definitions(sections.get("DEFINITIONS"))
    if version >= (1, 4, 0) and "DELAYS" in sections:
        raise ValueError(f"line {sections['DELAYS'].header}: [DELAYS] ended with version 1.3; blocks have durations")
    lists, extensions = _extensions(sections.pop("EXTENSIONS", None))
    if lists is not None:
        sections["EXTENSIONS"] = lists
    tables = {name: _table(name, sections.get(name), version[:2]) for name in COLUMNS}
    shapes = _shapes(sections.get("SHAPES"), stored_plainly=version >= (1, 4, 0))
    _check_signature(content, sections.get("SIGNATURE"))
    return Parsed(version, definitions, definition_lines, tables, extensions, shapes)


def row_fault(table: Table, row: int, what: str) -> ValueError:
    """The error that names the line of a row."""
    return ValueError(f"line {table.lines[row]}: {what}")


def numbers(cells: list[str], lines: list[int]) -> np.ndarray:
    """The numbers that the cells say, `(n,)`; `lines` says where each is."""
    try:
        values = np.array(list(map(float, cells)), np.float64)
    except ValueError:
        values = np.full(len(cells), np.nan)
    plain = re.fullmatch(r"[-+.0-9eE ]*", " ".join(cells))
    if plain and bool((np.abs(values) <= LARGEST).all()):
        return values
    for cell, line in zip(cells, lines, strict=True):
        if not _is_number(cell):
            raise ValueError(f"line {line}: {cell[:40]!r} is not a number between -{LARGEST:g} and {LARGEST:g}")
    raise AssertionError("a cell that is no number was not found")


def _is_number(cell: str) -> bool:
    try:
        return bool(re.fullmatch(r"[-+.0-9eE]+", cell)) and abs(float(cell)) <= LARGEST
    except ValueError:
        return False


def _sections(text: str) -> dict[str, Lines]:
    """The lines under each header."""
    rows = [row.strip() for row in text.split("\n")]
    headers = [i for i, row in enumerate(rows) if row.startswith("[")]
    for i, row in enumerate(rows[: headers[0] if headers else None]):
        if row and not row.startswith("#"):
            raise ValueError(f"line {i + 1}: {row[:40]!r} stands before the first section: is this a Pulseq file?")
    sections = {}
    for start, end in itertools.pairwise([*headers, len(rows)]):
        name = rows[start].removeprefix("[").removesuffix("]")
        if not rows[start].endswith("]") or name not in SECTIONS:
            raise ValueError(f"line {start + 1}: no section is called {rows[start][:40]!r}")
        if name in sections:
            raise ValueError(f"line {start + 1}: a second section [{name}]")
        kept = [i for i in range(start + 1, end) if rows[i] and not rows[i].startswith("#")]
        sections[name] = Lines(start + 1, [rows[i] for i in kept], [i + 1 for i in kept])
    for name in ("VERSION", "BLOCKS"):
        if name not in sections:
            raise ValueError(f"the file has no section [{name}]")
    return sections


def _version(sections: dict[str, Lines]) -> tuple[int, int, int]:
    section = sections["VERSION"]
    found = {}
    for row, line in zip(section.text, section.numbers, strict=True):
        match = re.fullmatch(r"(major|minor|revision)\s+([0-9]{1,4})\w*", row)  # a revision may be "0post1"
        if not match:
            raise ValueError(f"line {line}: {row[:40]!r} is none of major, minor and revision with its number")
        found[match[1]] = int(match[2])
    missing = [part for part in ("major", "minor") if part not in found]
    if missing:
        raise ValueError(f"line {section.header}: [VERSION] says no {missing[0]}")
    version = (found["major"], found["minor"], found.get("revision", 0))
    if not (1, 2) <= version[:2] <= (1, 5):
        raise ValueError(
            f"line {section.header}: version {version[0]}.{version[1]} of the Pulseq format; 1.2 to 1.5 are read"
        )
    return version


def _definitions(section: Lines | None) -> tuple[dict[str, str], dict[str, int]]:
    """What each name is defined as, as it is written, and where."""
    texts, lines = {}, {}
    for row, line in zip(section.text, section.numbers, strict=True) if section else ():
        name, *rest = row.split(maxsplit=1)
        texts[name], lines[name] = rest[0] if rest else "", line
    return texts, lines


def _table(name: str, section: Lines | None, version: tuple[int, int]) -> Table:
    """A section of numbers in the columns of version 1.5."""
    layouts = COLUMNS[name]
    known = list(dict.fromkeys(" ".join(layouts.values()).split()))
    section = section or Lines(0, [], [])
    since = [layout for first, layout in layouts.items() if first <= version]
    if not since and section.text:
        raise ValueError(f"line {section.header}: version {version[0]}.{version[1]} has no section [{name}]")
    columns = since[-1].split() if since else known
    rows = [row.split() for row in section.text]
    for row, line in zip(rows, section.numbers, strict=True):
        if len(row) != len(columns):
            raise ValueError(f"line {line}: [{name}] has the {len(columns)} columns {columns}, here are {len(row)}")
    words = columns[-1:] == ["use"]
    cells = [cell for row in rows for cell in (row[:-1] if words else row)]
    width = len(columns) - words
    values = numbers(cells, [line for line in section.numbers for _ in range(width)]).reshape(-1, width)
    found = dict(zip(columns, values.T, strict=False))
    table = {}
    for column in known:
        numeric = found.get(column, np.zeros(len(rows)))
        table[column] = numeric if column in REAL else _whole(numeric, column, section.numbers)
        wrong = numeric <= 0 if column in POSITIVE and column in found else numeric < 0
        if column not in SIGNED and wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"line {section.numbers[at]}: {column} is {numeric[at]:g}, which is too small")
    if "use" in known:
        table["use"] = [row[-1] for row in rows] if words else ["" for _ in rows]
    _, first, counts = np.unique(table["id"], return_index=True, return_counts=True)
    if (counts > 1).any():
        twice = int(table["id"][first[counts > 1][0]])
        again = int(np.flatnonzero(table["id"] == twice)[1])
        raise ValueError(f"line {section.numbers[again]}: a second row of id {twice} in [{name}]")
    return Table(table, section.numbers)


def _whole(values: np.ndarray, column: str, lines: list[int]) -> np.ndarray:
    """As integers; a `ValueError` where one is none."""
    integers = values.astype(np.int64)
    wrong = np.flatnonzero(integers != values)
    if wrong.size:
        raise ValueError(f"line {lines[wrong[0]]}: {column} is {values[wrong[0]]:g} and should be a whole number")
    return integers


def _extensions(section: Lines | None) -> tuple[Lines | None, dict[int, Specification]]:
    """The lines of the lists, and the specifications by their type."""
    if section is None:
        return None, {}
    heads = [i for i, row in enumerate(section.text) if row.split()[0] == "extension"]
    lists = Lines(section.header, section.text[: (heads or [None])[0]], section.numbers[: (heads or [None])[0]])
    extensions = {}
    for head, end in itertools.pairwise([*heads, len(section.text)]):
        match = re.fullmatch(r"extension\s+(\S+)\s+([0-9]{1,9})", section.text[head])
        if not match:
            raise ValueError(f"line {section.numbers[head]}: expected 'extension NAME TYPE' with a number as type")
        if int(match[2]) in extensions:
            raise ValueError(f"line {section.numbers[head]}: a second extension of type {match[2]}")
        entries = {}
        for row, line in zip(section.text[head + 1 : end], section.numbers[head + 1 : end], strict=True):
            identity, *rest = row.split(maxsplit=1)
            if not re.fullmatch("[0-9]{1,9}", identity) or int(identity) in entries:
                raise ValueError(f"line {line}: an entry of {match[1]} begins with an id of its own, not {row[:40]!r}")
            entries[int(identity)] = (rest[0] if rest else "", line)
        extensions[int(match[2])] = Specification(match[1], entries)
    return lists, extensions


def _shapes(section: Lines | None, stored_plainly: bool) -> dict[int, np.ndarray]:
    """The samples of each shape, by id; read-only. stored_plainly: a shape may be uncompressed."""
    if section is None:
        return {}
    heads = [i for i, row in enumerate(section.text) if row.startswith("shape_id")]
    if section.text and heads[:1] != [0]:
        raise ValueError(f"line {section.numbers[0]}: expected 'shape_id', not {section.text[0][:40]!r}")
    shapes, total = {}, 0
    for head, end in itertools.pairwise([*heads, len(section.text)]):
        line = section.numbers[head]
        match = re.fullmatch(
            r"shape_id\s+([0-9]{1,9})\nnum_samples\s+([0-9]{1,15})", "\n".join(section.text[head : head + 2])
        )
        if not match:
            raise ValueError(f"line {line}: a shape begins with 'shape_id' and 'num_samples', each with a whole number")
        identity, n_samples = int(match[1]), int(match[2])
        total += n_samples
        if identity in shapes:
            raise ValueError(f"line {line}: a second shape of id {identity}")
        if not n_samples or total > MOST_SAMPLES:
            raise ValueError(
                f"line {line}: shape {identity} has {n_samples} samples; shapes have some, "
                f"and those of a file together at most {MOST_SAMPLES}"
            )
        stored = numbers(section.text[head + 2 : end], section.numbers[head + 2 : end])
        try:
            plain = stored_plainly and len(stored) == n_samples
            shapes[identity] = stored if plain else decompressed(stored, n_samples)
        except ValueError as error:
            raise ValueError(f"line {line}: shape {identity}: {error}") from None
        shapes[identity].setflags(write=False)
    return shapes


def _check_signature(content: bytes, section: Lines | None) -> None:
    """Warn where the file is not the one that was signed: without or (JEMRIS) with the newline before [SIGNATURE]."""
    said = dict(row.split(maxsplit=1) for row in section.text if len(row.split()) == 2) if section else {}
    if said.get("Type", "").lower() != "md5" or "Hash" not in said:
        return
    end = re.search(rb"\n\[SIGNATURE\]", content)
    assert end is not None
    unix = [content[: end.start() + newline].replace(b"\r\n", b"\n").rstrip(b"\r") for newline in (0, 1)]
    sums = {hashlib.md5(text, usedforsecurity=False).hexdigest() for text in (content[: end.start()], *unix)}
    if said["Hash"].strip().lower() not in sums:
        warnings.warn("the file differs from the one that was signed (its md5 is another)", stacklevel=2)
