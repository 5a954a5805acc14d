"""Phantoms from files of image maps: NIfTI folders, `.npz` archives, MRzero's and JEMRIS' formats.

What each function returns is a phantom in the units of `Tissue`; what it cannot make sense of it
raises as `ValueError`, to which `load` adds the name of the file.
"""

from pathlib import Path

import numpy as np

from jaxmr.objects.phantom import Phantom, from_maps
from jaxmr.objects.tissue import Tissue

MAPS = ("t1", "t2", "m0", "b1", "b0", "t2_prime", "diffusivity")
"""Names of maps in files; "pd" stands for "m0"."""

Slice = int | str | None
"""An index of z, "middle", or None for the whole volume."""


def nifti_maps(folder: Path, slice: Slice) -> Phantom:
    """The images `t1.nii.gz`, `t2.nii.gz`, ... of a folder."""
    names = {file.name.lower().removesuffix(".gz"): file for file in sorted(folder.iterdir())}
    files = {name.removesuffix(".nii"): file for name, file in names.items() if name.endswith(".nii")}
    images = {name: canonical(file) for name, file in _named(files).items()}
    sizes = {name: np.round(size, 9).tolist() for name, (_, size) in images.items()}
    if any(size != sizes["t1"] for size in sizes.values()):
        raise ValueError(f"the maps differ in voxel size: {sizes}")
    maps = {name: cut(image, slice) for name, (image, _) in images.items()}
    return _in_seconds(maps, voxel_size=sizes["t1"])


def archived_maps(arrays: dict[str, np.ndarray], slice: Slice) -> Phantom:
    """Arrays t1, t2, ... as images, and the voxel_size."""
    _require(arrays, "voxel_size")
    maps = {name: cut(image, slice) for name, image in _named(arrays).items()}
    return _in_seconds(maps, voxel_size=arrays["voxel_size"])


def mrzero_maps(arrays: dict[str, np.ndarray], slice: Slice) -> Phantom:
    """MRzero's arrays `PD_map`, ... `(x, y, z)`, D in 1e-3 mm2/s, T2' 0 where unknown, and its FOV."""
    _require(arrays, "PD_map", "T1_map", "T2_map", "FOV")
    keys = {"m0": "PD", "t1": "T1", "t2": "T2", "b0": "B0", "t2_prime": "T2dash", "diffusivity": "D"}
    images = {name: arrays[f"{key}_map"] for name, key in keys.items() if f"{key}_map" in arrays}
    if "B1_map" in arrays:
        images["b1"] = np.abs(arrays["B1_map"][0])  # the first transmit channel
    maps = {name: cut(upright(image.T), slice) for name, image in images.items()}
    if "diffusivity" in maps:
        maps["diffusivity"] = 1e-9 * maps["diffusivity"]
    if "t2_prime" in maps:
        maps["m0"] = np.where(maps["t2_prime"] > 0, maps["m0"], 0)
    return _in_seconds(maps, fov=arrays["FOV"])


def mrzero_columns(array: np.ndarray, slice: Slice) -> Phantom:
    """MRzero's `cropped_brain`, `(x, y, 5)`: PD, T1, T2, B0, B1 on the field of view it is simulated with."""
    if array.ndim != 3 or array.shape[2] != 5:
        raise ValueError(f"cropped_brain must have shape (x, y, 5), got {array.shape}")
    maps = dict(zip(("m0", "t1", "t2", "b0", "b1"), upright(array.T), strict=True))
    maps["b1"] = np.maximum(maps["b1"], 0)  # it runs below 0 in two voxels of the rim
    return _in_seconds({name: cut(image, slice) for name, image in maps.items()}, fov=(0.2, 0.2, 0.008))


def jemris_sample(path: Path, slice: Slice) -> Phantom:
    """A JEMRIS sample: M0, 1/T1, 1/T2, 1/T2* (1/ms), off-resonance (rad/s) on `([z,] y, x)`, lengths in mm.

    Positions are JEMRIS' own, (i - (N - 1) / 2) * resolution + offset: its sequences refer to them.
    """
    import h5py

    with h5py.File(path) as file:
        arrays = {name: np.asarray(file[f"sample/{name}"]) for name in ("data", "resolution", "offset")}
    data = arrays["data"]
    if data.ndim not in (3, 4) or data.shape[-1] != 5:
        raise ValueError(f"sample/data must have shape ([z,] y, x, 5), got {data.shape}")
    resolution, offset = (1e-3 * arrays[name].ravel() for name in ("resolution", "offset"))
    axes = [(np.arange(n) - (n - 1) / 2) * resolution[k] + offset[k] for k, n in enumerate(data.shape[-2::-1])]
    coordinates = np.meshgrid(*axes[::-1], indexing="ij")[::-1]
    place = np.stack([*coordinates, np.zeros(data.shape[:-1])][:3], -1)
    if data.ndim == 4:
        place = np.stack([cut(place[..., k], slice) for k in range(3)], -1)
        data = np.stack([cut(data[..., k], slice) for k in range(5)], -1)
    inside = (data[..., :3] > 0).all(-1)
    m0, r1, r2, r2_star, offset_frequency = data[inside].T
    dephasing = 1e3 * (r2_star - r2)
    tissue = Tissue(
        t1=1e-3 / r1,
        t2=1e-3 / r2,
        m0=m0,
        b0=offset_frequency / (2 * np.pi) if offset_frequency.any() else None,
        # Where some voxels dephase and others do not, T2' of the others is as good as infinite.
        t2_prime=1 / np.maximum(dephasing, 1e-6) if (dephasing > 1e-6).any() else None,
    )
    pixel = np.flatnonzero(inside)
    return Phantom(tissue, place[inside], resolution, pixel=pixel, matrix=inside.shape)


def canonical(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image nibabel can read as `(z, y, x)`, `(y, x)` if it is one axial slice, and (dx, dy, dz), m."""
    import nibabel
    from nibabel import affines, nifti1, orientations, spatialimages

    image = nibabel.load(path)
    if not isinstance(image, spatialimages.SpatialImage):
        raise ValueError(f"{path.name} is not an image")
    values = np.asarray(image.dataobj)
    if values.ndim < 2 or any(n != 1 for n in values.shape[3:]):
        raise ValueError(f"{path.name} must be a slice or a volume, got shape {values.shape}")
    values = values.reshape(*values.shape[:3], *(1,) * (3 - values.ndim)) if values.ndim != 3 else values
    orientation = orientations.io_orientation(image.affine)
    turned = image.affine @ orientations.inv_ornt_aff(orientation, values.shape)
    volume = upright(orientations.apply_orientation(values, orientation).T)
    unit = 1e-3
    if isinstance(image, nifti1.Nifti1Pair):
        unit = {"meter": 1.0, "micron": 1e-6}.get(str(image.header.get_xyzt_units()[0]), 1e-3)
    return volume[0] if len(volume) == 1 else volume, unit * affines.voxel_sizes(turned)


def upright(image: np.ndarray) -> np.ndarray:
    """Turn `(..., y, x)` with x to the right and y to the front to x to the left and y to the back."""
    return image[..., ::-1, ::-1]


def cut(image: np.ndarray, slice: Slice) -> np.ndarray:
    """The slice asked for of `(z, y, x)`; an image `(y, x)` is what it is."""
    if image.ndim == 2 or slice is None:
        if slice not in (None, "middle"):
            raise ValueError(f"it is a single slice; leave out slice={slice!r}")
        return image
    if image.ndim != 3:
        raise ValueError(f"an image must be (y, x) or (z, y, x), got shape {image.shape}")
    if slice == "middle":
        return image[len(image) // 2]
    if not isinstance(slice, int) or not -len(image) <= slice < len(image):
        raise ValueError(f"slice must be 'middle', None or an index below {len(image)}, got {slice!r}")
    return image[slice]


def _named(given: dict) -> dict:
    """What of `given` goes by the name of a map."""
    renamed = {"m0": given["pd"], **given} if "pd" in given else given
    _require(given, "t1", "t2")
    return {name: renamed[name] for name in MAPS if name in renamed}


def _require(given: dict, *names: str) -> None:
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing, there are {', '.join(sorted(given)) or 'none'}")


def _in_seconds(maps: dict[str, np.ndarray], **size) -> Phantom:
    for name in ("t1", "t2"):
        positive = maps[name][maps[name] > 0]
        if positive.size and (median := float(np.median(positive))) > 50:
            raise ValueError(f"{name} has a median of {median:g}: times must be in seconds, not milliseconds")
    return from_maps(**maps, **size)
