"""Phantoms from files: image maps and label images of other programs, and an `.npz` of our own.

`load` looks at what a file is. Patients come out in the axes of `jaxmr.objects.phantom`: the face up, the
patient's right on the left. Whatever is wrong, the `ValueError` names the file and what was expected.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxmr.objects.label_files import BRAINWEB, KOMA_BRAIN, KOMA_PELVIS, from_labels, read_rawb
from jaxmr.objects.map_files import (
    Slice,
    archived_maps,
    canonical,
    cut,
    jemris_sample,
    mrzero_columns,
    mrzero_maps,
    nifti_maps,
    upright,
)
from jaxmr.objects.phantom import Phantom


def load(path: str | Path, *, slice: Slice = "middle") -> Phantom:
    """Read a phantom, by what `path` is.

    - a folder: NIfTI maps `t1`, `t2` (`.nii` or `.nii.gz`) and, if there, `m0` or `pd`, `b1`, `b0`,
      `t2_prime`, `diffusivity`
    - `.npz`: arrays of those names, `(y, x)` or `(z, y, x)`, and `voxel_size`; or MRzero's `..._map`s
    - `.mat`: MRzero's `cropped_brain`, KomaMRI's brain2D (its axial slice) and pelvis2D, JEMRIS' `BRAIN`
    - `.h5`: a JEMRIS sample, in its own coordinates, because its sequences refer to them
    - `.rawb`, `.nii`, `.mnc`, also `.gz`: labels 0 ... 9 of BrainWeb's discrete anatomical model

    Times in seconds, off-resonance in Hz, diffusivity in m2/s, lengths in m; NIfTI headers say theirs.
    slice: of a volume, the axial slice of this index counted from the feet, "middle", or `None` for
    the volume. Voxels without m0, T1 or T2 are empty. Off-resonance is as stored: MRzero precesses
    the other way, so its own signals need -b0.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"cannot read {path}: there is no such file or folder")
    read, expected = _reader(path)
    try:
        return read(path, slice)
    except ImportError:
        raise
    except Exception as error:  # parsers raise whatever they like over damaged files
        raise ValueError(f"cannot read {path}: expected {expected}; {error}") from error


def _reader(path: Path) -> tuple[Callable[[Path, Slice], Phantom], str]:
    """Who reads `path`, and what they expect."""
    if path.is_dir():
        return nifti_maps, "a folder of NIfTI maps t1.nii.gz, t2.nii.gz"
    readers = {
        ".npz": (_npz, "an archive of t1, t2 and voxel_size, or of MRzero's PD_map, T1_map, T2_map and FOV"),
        ".mat": (_mat, "MRzero's cropped_brain, KomaMRI's axial or pelvis3D_slice, or JEMRIS' BRAIN"),
        ".h5": (jemris_sample, "a JEMRIS sample with sample/data, sample/resolution and sample/offset"),
        ".rawb": (_raw_bytes, "BrainWeb's labels as raw bytes"),
        ".nii": (_label_volume, "BrainWeb's labels (maps are read from the folder they are in)"),
        ".mnc": (_label_volume, "BrainWeb's labels"),
    }
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in readers:
        raise ValueError(f"cannot read {path}: it is no folder and none of {', '.join(readers)}")
    return readers[suffix]


def _npz(path: Path, slice: Slice) -> Phantom:
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    return mrzero_maps(arrays, slice) if "T1_map" in arrays else archived_maps(arrays, slice)


def _mat(path: Path, slice: Slice) -> Phantom:
    import scipy.io

    arrays = {name: array for name, array in scipy.io.loadmat(path).items() if not name.startswith("__")}
    if "cropped_brain" in arrays:
        return mrzero_columns(arrays["cropped_brain"], slice)
    if "axial" in arrays:
        return from_labels(cut(upright(arrays["axial"]), slice), KOMA_BRAIN, 0.5e-3)
    if "pelvis3D_slice" in arrays:
        return from_labels(cut(arrays["pelvis3D_slice"], slice), KOMA_PELVIS, 0.5e-3)
    if "BRAIN" in arrays:
        return from_labels(cut(upright(arrays["BRAIN"].T), slice), BRAINWEB, 1e-3)
    raise ValueError(f"there are {', '.join(sorted(arrays)) or 'no arrays'}")


def _raw_bytes(path: Path, slice: Slice) -> Phantom:
    return from_labels(cut(upright(read_rawb(path)), slice), BRAINWEB, 1e-3)


def _label_volume(path: Path, slice: Slice) -> Phantom:
    values, size = canonical(path)
    labels = np.rint(values).astype(int)
    if not np.allclose(values, labels, atol=1e-3):
        raise ValueError("its values are no labels")
    return from_labels(cut(labels, slice), BRAINWEB, size)
