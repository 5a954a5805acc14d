"""Relaxation times of human tissues at 1.5, 3 and 7 T, each with its source.

T1 and T2 in seconds; proton density relative to CSF, for brain only. One number per tissue hides
much: published white-matter T1 at 3 T spans 0.6 ... 1.1 s. Where a source measured people, it was
preferred to excised tissue; where one source measured several fields, to several sources.
"""

import difflib
from typing import NamedTuple

from jaxmr.objects.tissue import Tissue

SOURCES = {
    "brain": "T1 Wright, MAGMA 21:121 (2008), MPRAGE; T2 Cox, MRM 64:1440 (2010), GESSE, frontal grey matter",
    "CSF": "T1 Rooney, MRM 57:308 (2007), the same at every field; T2 Daoust, MRI 44:72 (2017), in vivo at 3 "
    "and 7 T, ex vivo for 1.5 T",
    "Stanisz": "Stanisz, MRM 54:507 (2005), excised tissue at 37 degrees C",
    "de Bazelaire": "de Bazelaire, Radiology 230:652 (2004)",
    "Gold": "Gold, AJR 183:343 (2004), subcutaneous fat",
    "blood 7 T": "arterial, haematocrit 0.42; T1 Grgac, MRM 70:1153 (2013); T2 Krishnamurthy, MRM 71:2035 (2014)",
    "water": "water content, 3 T: Oros-Peusquens, Front. Neurol. 10:1333 (2019)",
}
"""What the keys in `TABLE` and `PROTON_DENSITY` stand for."""


class Entry(NamedTuple):
    """A tissue at one field (tesla): relaxation times in s, and a key of `SOURCES`."""

    name: str
    field: float
    t1: float
    t2: float
    source: str


TABLE = (
    Entry("white matter", 1.5, 0.646, 0.080, "brain"),
    Entry("white matter", 3.0, 0.838, 0.071, "brain"),
    Entry("white matter", 7.0, 1.126, 0.047, "brain"),
    Entry("grey matter", 1.5, 1.197, 0.087, "brain"),
    Entry("grey matter", 3.0, 1.607, 0.076, "brain"),
    Entry("grey matter", 7.0, 1.939, 0.047, "brain"),
    Entry("CSF", 1.5, 4.3, 2.0, "CSF"),
    Entry("CSF", 3.0, 4.3, 2.0, "CSF"),
    Entry("CSF", 7.0, 4.3, 0.9, "CSF"),
    Entry("blood", 1.5, 1.441, 0.290, "Stanisz"),
    Entry("blood", 3.0, 1.932, 0.275, "Stanisz"),
    Entry("blood", 7.0, 2.171, 0.068, "blood 7 T"),
    Entry("spinal cord", 1.5, 0.745, 0.074, "Stanisz"),
    Entry("spinal cord", 3.0, 0.993, 0.078, "Stanisz"),
    Entry("muscle", 1.5, 1.008, 0.044, "Stanisz"),
    Entry("muscle", 3.0, 1.412, 0.050, "Stanisz"),
    Entry("myocardium", 1.5, 1.030, 0.040, "Stanisz"),
    Entry("myocardium", 3.0, 1.471, 0.047, "Stanisz"),
    Entry("cartilage", 1.5, 1.024, 0.030, "Stanisz"),
    Entry("cartilage", 3.0, 1.168, 0.027, "Stanisz"),
    Entry("fat", 1.5, 0.288, 0.165, "Gold"),
    Entry("fat", 3.0, 0.371, 0.133, "Gold"),
    Entry("bone marrow", 1.5, 0.549, 0.049, "de Bazelaire"),
    Entry("bone marrow", 3.0, 0.586, 0.049, "de Bazelaire"),
    Entry("liver", 1.5, 0.586, 0.046, "de Bazelaire"),
    Entry("liver", 3.0, 0.809, 0.034, "de Bazelaire"),
    Entry("spleen", 1.5, 1.057, 0.079, "de Bazelaire"),
    Entry("spleen", 3.0, 1.328, 0.061, "de Bazelaire"),
    Entry("pancreas", 1.5, 0.584, 0.046, "de Bazelaire"),
    Entry("pancreas", 3.0, 0.725, 0.043, "de Bazelaire"),
    Entry("kidney cortex", 1.5, 0.966, 0.087, "de Bazelaire"),
    Entry("kidney cortex", 3.0, 1.142, 0.076, "de Bazelaire"),
    Entry("kidney medulla", 1.5, 1.412, 0.085, "de Bazelaire"),
    Entry("kidney medulla", 3.0, 1.545, 0.081, "de Bazelaire"),
    Entry("prostate", 1.5, 1.317, 0.088, "de Bazelaire"),
    Entry("prostate", 3.0, 1.597, 0.074, "de Bazelaire"),
)

PROTON_DENSITY = {"white matter": 0.691, "grey matter": 0.837, "CSF": 1.0}
"""Water content relative to CSF (source "water")."""


def literature(name: str, field: float = 3.0) -> Tissue:
    """A tissue of the literature by its `name` ("white matter", "liver", ...) at `field` tesla.

    Leaves have shape (). Brain tissues carry their proton density as `m0`; others have none.
    Capitals do not matter, and "gray" is "grey". Raises `ValueError` with the names or the fields
    there are: nothing is interpolated between fields.
    """
    wanted = name.strip().lower().replace("gray", "grey")
    entries = {entry.field: entry for entry in TABLE if entry.name.lower() == wanted}
    if not entries:
        names = sorted({entry.name for entry in TABLE}, key=str.lower)
        lowered = {known.lower(): known for known in names}
        nearest = [lowered[match] for match in difflib.get_close_matches(wanted, lowered, n=3)]
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        raise ValueError(f"no tissue {name!r} in the literature table{hint}; it has {', '.join(names)}")
    if field not in entries:
        known_fields = ", ".join(f"{known:g}" for known in sorted(entries))
        raise ValueError(f"no {name} at {field:g} T in the literature table; it has {known_fields} T")
    entry = entries[field]
    return Tissue(t1=entry.t1, t2=entry.t2, m0=PROTON_DENSITY.get(entry.name))
