"""Phantoms from label images: a number per voxel names its tissue, a table the tissue's properties.

Labels are the classes of BrainWeb (brainweb.bic.mni.mcgill.ca; Collins, IEEE TMI 17:463 (1998)), of
KomaMRI's `brain2D.mat` and `pelvis2D.mat`, and of JEMRIS' `MNIbrain.mat`. The properties are those
the same projects simulate with: BrainWeb's for 1.5 T. Seconds, hertz, metres.
"""

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmr.objects.phantom import Phantom, from_maps

BRAINWEB_SHAPE = (181, 217, 181)
"""(z, y, x) of BrainWeb's volumes of 1 mm."""


class Properties(NamedTuple):
    """Proton density, T1 and T2 (s) and chemical shift (Hz) of a class."""

    m0: float
    t1: float
    t2: float
    b0: float = 0.0


CSF = Properties(1.0, 2.569, 0.329)
GREY = Properties(0.86, 0.833, 0.083)
WHITE = Properties(0.77, 0.500, 0.070)
FAT = Properties(1.0, 0.350, 0.070)
MUSCLE = Properties(1.0, 0.900, 0.047)

BRAINWEB = {0: None, 1: CSF, 2: GREY, 3: WHITE, 4: FAT, 5: MUSCLE, 6: CSF, 7: None, 8: GREY, 9: WHITE}
"""0 air, 1 CSF, 2 grey and 3 white matter, 4 fat, 5 muscle, 6 skin, 7 skull, 8 glia, 9 connective tissue."""

KOMA_BRAIN = {
    0: None,
    23: CSF,
    46: GREY,
    70: WHITE,
    93: FAT._replace(b0=-220.0),
    116: MUSCLE,
    139: Properties(1.0, 0.569, 0.329),  # skin
    162: None,  # skull
    185: None,  # vessels
    209: WHITE._replace(b0=-220.0),  # fat around the muscles
    232: CSF,  # dura
    255: WHITE,  # marrow
}

KOMA_PELVIS = {
    0: None,
    51: None,  # air
    102: Properties(0.86, 0.366, 0.070, -220.0),  # fat
    153: Properties(0.9, 1.200, 0.080),  # soft tissue
    204: Properties(0.4, 0.381, 0.052),  # spongy bone
    255: Properties(0.2, 0.100, 0.0003),  # cortical bone
}


def from_labels(labels: np.ndarray, table: dict[int, Properties | None], voxel_size) -> Phantom:
    """A phantom from integer `labels` `(y, x)` or `(z, y, x)`; classes that are `None` stay empty.

    Raises `ValueError` for labels that the table does not have.
    """
    strange = np.setdiff1d(labels, list(table))
    if strange.size:
        raise ValueError(f"labels {strange[:5].tolist()} are none of the classes {sorted(table)}")
    m0, t1, t2, b0 = (np.zeros(labels.shape) for _ in Properties._fields)
    for label, properties in table.items():
        if properties is not None:
            where = labels == label
            m0[where], t1[where], t2[where], b0[where] = properties
    return from_maps(t1, t2, m0, b0=b0 if b0.any() else None, voxel_size=voxel_size)


def read_rawb(path: Path) -> np.ndarray:
    """Labels of BrainWeb's discrete model in "raw byte (unsigned)" format, gzipped or not.

    `(z, y, x)`, x to the patient's right and y to the front.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    expected = math.prod(BRAINWEB_SHAPE)
    if len(content) != expected:
        raise ValueError(f"181 x 217 x 181 = {expected} bytes, got {len(content)}")
    return np.frombuffer(content, np.uint8).reshape(BRAINWEB_SHAPE)
