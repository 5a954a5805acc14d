"""Parameter maps as NIfTI files, one per map, in SI units, and series of images such as fingerprints.

Our images are `(z, y, x)` or `(y, x)` as a radiologist sees them: row 0 anterior, column 0 the patient's
right, slice 0 inferior. NIfTI files are `(x, y, z)` with a map to world millimetres that grow to the right,
anterior and superior; ours have the orientation codes L, P, S, so that viewers show them upright.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmr.core.files import whole
from jaxmr.core.types import Array, Shaped

_UNITS = {"t1": "s", "t2": "s", "t2_prime": "s", "b0": "Hz", "diffusivity": "m2/s"}
_OURS = ("L", "P", "S")


def write_maps(
    folder: str | os.PathLike, maps: Mapping[str, Shaped[Array, "*z y x"] | Any], voxel_size: Sequence[float]
) -> list[Path]:
    """Write every map as `folder/NAME.nii.gz` and return the paths; the folder is made if need be.

    voxel_size: (dx, dy, dz) in m. A complex map becomes its magnitude `NAME.nii.gz` and its phase
    `NAME_phase.nii.gz` (rad). The centre of the volume is the origin of the world.
    Raises `ValueError` for maps of different shapes or that are not 2-D or 3-D.
    """
    import nibabel as nib

    images = {}
    for name, image in maps.items():
        image = np.asarray(image)
        images[name] = np.abs(image) if np.iscomplexobj(image) else image
        if np.iscomplexobj(image):
            images[f"{name}_phase"] = np.angle(image)
    shapes = {name: image.shape for name, image in images.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) not in (2, 3) for shape in shapes.values()):
        raise ValueError(f"maps must be images of one shape, (y, x) or (z, y, x), got {shapes}")
    if len(voxel_size) != 3 or not all(0 < size < 1 for size in voxel_size):
        raise ValueError(f"voxel_size must be (dx, dy, dz) in metres, got {tuple(voxel_size)}; 1 mm is 1e-3")

    paths = []
    for name, image in images.items():
        data = _storable(image).reshape(-1, *image.shape[-2:]).T
        step = np.array([-1e3, -1e3, 1e3]) * np.asarray(voxel_size)
        affine = np.diag([*step, 1])
        affine[:3, 3] = -step * (np.array(data.shape) - 1) / 2
        nifti = nib.Nifti1Image(data, affine)
        nifti.header.set_xyzt_units("mm")
        nifti.header["descrip"] = f"jaxmr {name} {_unit(name)}".strip()
        path = Path(folder, f"{name}.nii.gz")
        with whole(path) as partial:
            nib.save(nifti, partial)
        paths.append(path)
    return paths


def read_map(path: str | os.PathLike) -> Shaped[np.ndarray, "*z y x"]:
    """The image of a NIfTI file, turned to our orientation: `(z, y, x)`, or `(y, x)` if it is one slice."""
    data, _ = _oriented(path)
    if data.ndim != 3:
        raise ValueError(f"{path} has {data.ndim} axes; a map has two or three axes")
    return data[0] if len(data) == 1 else data


def read_series(path: str | os.PathLike) -> tuple[Shaped[np.ndarray, "*z y x n"], tuple[float, float, float]]:
    """The images of a NIfTI file of four axes, time last, and the voxel size (dx, dy, dz) in m.

    Turned as by `read_map`. Raises `ValueError` for a file with another number of axes.
    """
    data, voxel_size = _oriented(path)
    if data.ndim != 4:
        raise ValueError(f"{path} has {data.ndim} axes; a series of images has four, the last of them time")
    return data[0] if len(data) == 1 else data, voxel_size


def _oriented(path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The data as `(z, y, x, *rest)`, a slice with z of length 1, and the voxel size in m."""
    import nibabel as nib
    from nibabel import orientations
    from nibabel.filebasedimages import ImageFileError

    try:
        nifti: Any = nib.load(path)
    except ImageFileError as error:
        raise ValueError(f"{path} cannot be read as a NIfTI image: {error}") from error
    theirs, ours = orientations.io_orientation(nifti.affine), orientations.axcodes2ornt(_OURS)
    data = np.asanyarray(nifti.dataobj)
    data = data.reshape(*data.shape, *[1] * (3 - data.ndim))
    turned = orientations.apply_orientation(data, orientations.ornt_transform(theirs, ours))
    order = np.argsort(theirs[:, 0])
    unit = {"meter": 1.0, "micron": 1e-6}.get(str(nifti.header.get_xyzt_units()[0]), 1e-3)
    dx, dy, dz = unit * np.linalg.norm(nifti.affine[:3, :3], axis=0)[order].astype(float)
    return np.ascontiguousarray(turned.swapaxes(0, 2)), (dx, dy, dz)


def _storable(image):
    """A type that every NIfTI viewer reads: masks as bytes, integers as int32, floats as they are."""
    if image.dtype == bool:
        return image.astype(np.uint8)
    return image.astype(np.int32) if np.issubdtype(image.dtype, np.integer) else image


def _unit(name):
    return "rad" if name.endswith("_phase") else _UNITS.get(name, "")
