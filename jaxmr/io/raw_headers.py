"""Headers of ISMRMRD files: the fields of a line, the order of lines, and the XML description of the scan.

Times in the XML are ms, lengths mm, angles degrees; ours are SI. Matrices are images, `(z, y, x)`; fields of view
(x, y, z). Reference: the schema ismrmrd.xsd of format version 1.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from jaxmr.units import GAMMA, deg, mm, ms

COUNTERS = (
    "kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition", "set",
    "segment",
)  # fmt: skip
_COUNTERS = np.dtype([*((name, "<u2") for name in COUNTERS), ("user", "<u2", (8,))])
HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("number_of_samples", "<u2"),
        ("available_channels", "<u2"),
        ("active_channels", "<u2"),
        ("channel_mask", "<u8", (16,)),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)),
        ("phase_dir", "<f4", (3,)),
        ("slice_dir", "<f4", (3,)),
        ("patient_table_position", "<f4", (3,)),
        ("idx", _COUNTERS),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
    ]
)
"""Header of one line, without padding."""

NOISE, REVERSE = 1 << 18, 1 << 21
"""Flags of a line, for the bits of `flags`."""

TRAJECTORIES = ("cartesian", "epi", "radial", "goldenangle", "spiral", "other")
GRIDDED = ("cartesian", "epi")
"""Trajectories whose lines are the rows of a grid."""

_NAMESPACE = "http://www.ismrm.org/ISMRMRD"
_TIMING = {"tr": ("TR", ms), "te": ("TE", ms), "ti": ("TI", ms), "flip": ("flipAngle_deg", deg)}

# The first of a counter's flags says "first with this value", the next bit "last"; lines are compared within `group`.
_IMAGE = ("slice", "contrast", "phase", "repetition", "set")
_ORDER = (
    (0, ("kspace_encode_step_2", "average", *_IMAGE)),
    (2, ("kspace_encode_step_1", "average", *_IMAGE)),
    (4, ("average", *_IMAGE)),
    (6, _IMAGE),
    (8, ("contrast",)),
    (10, ("phase",)),
    (12, ("repetition",)),
    (14, ("set",)),
    (16, ("segment",)),
)
_LAST_IN_MEASUREMENT = 24


class Description(NamedTuple):
    """What the XML header tells.

    matrix, encoded_matrix: (z, y, x) of the image and of k-space (with readout oversampling). fov, encoded_fov:
    (x, y, z), m. timing: "tr", "te", "ti" (s) and "flip" (rad) where given. frequency: of protons, Hz. xml: all of it.
    """

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]
    encoded_matrix: tuple[int, int, int]
    encoded_fov: tuple[float, float, float]
    trajectory: str
    timing: dict[str, np.ndarray]
    frequency: float
    xml: str


def extent_of(fov: float | tuple[float, float, float], matrix: tuple[int, ...]) -> np.ndarray:
    """Field of view (x, y, z), m, from it or from one number for the axes of the image; a slice is then a voxel thick.

    Raises `ValueError` for another shape of either, or unless it can be in metres.
    """
    if len(matrix) not in (2, 3) or min(matrix) < 1:
        raise ValueError(f"matrix must be (y, x) or (z, y, x), got {matrix}")
    extent = np.asarray(fov, float)
    if extent.shape not in ((), (3,)) or not ((extent > 0) & (extent < 10)).all():
        raise ValueError(f"fov must be one positive number or (x, y, z), in metres, got {fov}; 240 mm is 0.24")
    if extent.shape == () and len(matrix) == 2:
        return extent / np.array([1, 1, matrix[1]])
    return np.broadcast_to(extent, (3,))


def order_flags(counters: np.ndarray) -> np.ndarray:
    """Flags that say which line is the first and which the last of its image, repetition and so on, `(n_lines,)`."""
    n = len(counters)
    flags = np.zeros(n, np.uint64)
    for bit, group in _ORDER:
        keys = np.stack([counters[name] for name in group], axis=1)
        _, first = np.unique(keys, axis=0, return_index=True)
        _, from_end = np.unique(keys[::-1], axis=0, return_index=True)
        flags[first] |= np.uint64(1 << bit)
        flags[n - 1 - from_end] |= np.uint64(1 << (bit + 1))
    flags[-1] |= np.uint64(1 << _LAST_IN_MEASUREMENT)
    return flags


def describe(
    matrix: tuple[int, ...],
    fov: float | tuple[float, float, float],
    oversampling: int,
    trajectory: str,
    n_coils: int,
    counters: np.ndarray,
    field_strength: float,
    timing: Mapping[str, Any],
) -> bytes:
    """The XML header; arguments as for `write_raw`. Raises `ValueError` for what the format cannot say."""
    if trajectory not in TRAJECTORIES:
        raise ValueError(f"trajectory must be one of {', '.join(TRAJECTORIES)}, got {trajectory!r}")
    if unknown := set(timing) - set(_TIMING):
        raise ValueError(f"timing has no {', '.join(sorted(unknown))} in this format, only {', '.join(_TIMING)}")
    size = np.array([*matrix[::-1], 1][:3])
    extent = extent_of(fov, matrix) / mm

    root = ElementTree.Element("ismrmrdHeader", xmlns=_NAMESPACE)
    system = ElementTree.SubElement(root, "acquisitionSystemInformation")
    _add(system, "systemVendor", "jaxmr")
    _add(system, "systemFieldStrength_T", field_strength)
    _add(system, "receiverChannels", n_coils)
    conditions = ElementTree.SubElement(root, "experimentalConditions")
    _add(conditions, "H1resonanceFrequency_Hz", round(GAMMA * field_strength / (2 * math.pi)))
    encoding = ElementTree.SubElement(root, "encoding")
    for name, factor in (("encodedSpace", oversampling), ("reconSpace", 1)):
        space = ElementTree.SubElement(encoding, name)
        for kind, values in (("matrixSize", size), ("fieldOfView_mm", extent)):
            triple = ElementTree.SubElement(space, kind)
            for axis, value, scale in zip("xyz", values.tolist(), (factor, 1, 1), strict=True):
                _add(triple, axis, value * scale)
    limits = ElementTree.SubElement(encoding, "encodingLimits")
    gridded = trajectory in GRIDDED
    for name, n in (("kspace_encode_step_1", size[1]), ("kspace_encode_step_2", size[2])):
        last = int(n) - 1 if gridded else int(counters[name].max())
        _limit(limits, name.replace("encode", "encoding"), last, (last + 1) // 2 if gridded else 0)
    for name in COUNTERS[2:]:
        _limit(limits, name, int(counters[name].max()), 0)
    _add(encoding, "trajectory", trajectory)
    if timing:
        parameters = ElementTree.SubElement(root, "sequenceParameters")
        for name, (tag, unit) in _TIMING.items():
            for value in np.ravel(np.asarray(timing.get(name, []), float)).tolist():
                _add(parameters, tag, value / unit)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def parse(xml: bytes | str) -> Description:
    """What the XML header tells of the first encoding. Raises `ValueError` for what is no such header."""
    text = xml.decode() if isinstance(xml, bytes) else xml
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise ValueError(f"its XML header is damaged: {error}") from error
    if root.tag != f"{{{_NAMESPACE}}}ismrmrdHeader":
        raise ValueError(f"its XML header is a {root.tag}, not an ismrmrdHeader")
    timing = {}
    for name, (tag, unit) in _TIMING.items():
        values = [float(found.text or "nan") for found in root.findall(f"{{*}}sequenceParameters/{{*}}{tag}")]
        if values:
            timing[name] = unit * np.array(values)
    return Description(
        _matrix(root, "reconSpace"),
        _fov(root, "reconSpace"),
        _matrix(root, "encodedSpace"),
        _fov(root, "encodedSpace"),
        _text(root, "encoding/trajectory"),
        timing,
        float(_text(root, "experimentalConditions/H1resonanceFrequency_Hz")),
        text,
    )


def _add(parent, name: str, value) -> None:
    ElementTree.SubElement(parent, name).text = str(value)


def _limit(parent, name: str, largest: int, centre: int) -> None:
    limit = ElementTree.SubElement(parent, name)
    for part, value in (("minimum", 0), ("maximum", largest), ("center", centre)):
        _add(limit, part, value)


def _text(root, path: str) -> str:
    found = root.find("/".join(f"{{*}}{name}" for name in path.split("/")))
    if found is None or not found.text:
        raise ValueError(f"its XML header has no {path}")
    return found.text.strip()


def _matrix(root, space: str) -> tuple[int, int, int]:
    z, y, x = (int(_text(root, f"encoding/{space}/matrixSize/{axis}")) for axis in "zyx")
    return z, y, x


def _fov(root, space: str) -> tuple[float, float, float]:
    x, y, z = (float(_text(root, f"encoding/{space}/fieldOfView_mm/{axis}")) * mm for axis in "xyz")
    return x, y, z
