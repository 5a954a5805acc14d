"""Brain phantoms made on the spot: an axial slice of an average brain, and an invented one.

Both return a `Phantom` with partial volume of white matter, grey matter and CSF, the relaxation times of
`literature`, and smooth fields. Rows run from the face to the back of the head, columns from the
patient's right to the left; metres, seconds, hertz.

`brain` reads the ICBM 152 nonlinear symmetric template 2009a (Fonov, NeuroImage 54:313 (2011)) from the
nilearn package; nothing of it is shipped here. Its notice, which has to go with every copy:
Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute,
McGill University. Permission to use, copy, modify, and distribute this software and its documentation
for any purpose and without fee is hereby granted, provided that the above copyright notice appear in
all copies. The authors and McGill University make no representations about the suitability of this
software for any purpose. It is provided "as is" without express or implied warranty.
"""

import importlib.util
from pathlib import Path

import numpy as np

from jaxmr.objects.anatomy import FLUID, GREY, WHITE, invented_labels
from jaxmr.objects.literature_values import literature
from jaxmr.objects.phantom import Phantom, from_fractions, grid_position
from jaxmr.objects.tissue import Tissue

FOV = 0.2128
"""Extent of the image, m: 112 voxels of 1.9 mm."""

TISSUES = ("white matter", "grey matter", "CSF")
"""The order of fractions here."""


def brain(matrix: int = 112, position: float = 0.018, field: float = 3.0, seed: int = 0) -> Phantom:
    """An axial slice of the ICBM 152 average brain: `(matrix, matrix)` voxels on 0.213 m.

    position: of the slice in MNI space, m; 0.018 cuts the lateral ventricles. The slice is as thick as
    a voxel is wide. field: tesla, one of `literature`. seed: draws the fields (see `smooth_fields`).
    Raises `ImportError` without nilearn, `ValueError` where `position` is outside of the brain.

    The maps are averages over 152 people, which blurs folds that differ between them; they are
    sharpened at 1 mm (see `_sharpened`) before they are averaged over the voxels. Right and left are
    those of the template, which is symmetric.
    """
    size = _voxel(matrix)
    # Slice 94 of the template's 189 is at 22 mm.
    depth = _overlap(189, 1e-3, 1, size, centre=position - 0.022)[0]
    used = np.flatnonzero(depth)
    white, grey, t1 = (_template(name)[..., used] for name in ("wm", "gm", "t1"))
    if (white + grey).max(initial=0) < 0.5:
        raise ValueError(f"position {position:g} m is outside of the template's brain, -0.07 ... 0.08 m")
    fractions = _sharpened(white, grey, t1) @ depth[used]
    # The template is (x, y) with +x right and +y front: turn both, then rows are y.
    fractions = np.flip(fractions, (1, 2)).swapaxes(1, 2)
    rows = _overlap(233, 1e-3, matrix, size)
    columns = _overlap(197, 1e-3, matrix, size)
    return _phantom(rows @ fractions @ columns.T, field, seed, size)


def procedural(matrix: int = 112, field: float = 3.0, seed: int = 0) -> Phantom:
    """An invented axial brain slice, `(matrix, matrix)` voxels on 0.213 m; nothing is read or downloaded.

    Folded cortex of even thickness, ventricles and basal ganglia, drawn at 0.475 mm and averaged over the
    voxels. seed: draws the folds and the fields. field: tesla, one of `literature`.
    """
    fine, size = 448, _voxel(matrix)
    labels = invented_labels(fine, FOV / fine, np.random.default_rng(seed))
    average = _overlap(fine, FOV / fine, matrix, size)
    tissues = np.stack([labels == kind for kind in (WHITE, GREY, FLUID)])
    return _phantom(average @ tissues.astype(float) @ average.T, field, seed, size)


def smooth_fields(position, field: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """B1+ (relative) and B0 (Hz) in a head at `position`, `(n, 3)` m from its centre.

    B1+ is brightest in the middle: 1.18, and 0.85 at the rim, at 3 T; its spread grows with `field`. B0
    is what a shim of second order leaves, 10 or 20 Hz at 3 T, and the dipole field of the air in the
    frontal sinus below the slice, up to 70 Hz. seed: draws centre, tilt and shim.
    """
    rng = np.random.default_rng([seed, 1])
    x, y, _ = np.asarray(position).T
    x0, y0, sinus = rng.normal(0, 4e-3, 3)
    tilt_x, tilt_y = rng.uniform(-0.02, 0.02, 2)
    rim = ((x - x0) / 0.072) ** 2 + ((y - y0) / 0.090) ** 2
    b1 = 0.40 * np.exp(-1.8 * rim) - 0.22 + (tilt_x * x + tilt_y * y) / 0.090

    linear_x, linear_y, astigmatism = rng.uniform(-10, 10, 3)
    shim = (linear_x * x + linear_y * y) / 0.090 + (12 + astigmatism) * (x**2 - y**2) / 0.090**2
    below, rho2 = 0.032, (x - sinus) ** 2 + (y + 0.080) ** 2
    dipole = 70 * below**3 / 2 * (2 * below**2 - rho2) / (below**2 + rho2) ** 2.5
    return 1 + b1 * field / 3, (shim + dipole) * field / 3


def _voxel(matrix: int) -> float:
    if matrix < 1:
        raise ValueError(f"matrix must be at least 1, got {matrix}")
    return FOV / matrix


def _phantom(fractions: np.ndarray, field: float, seed: int, size: float) -> Phantom:
    tissues = [literature(name, field) for name in TISSUES]
    matrix = fractions.shape[1:]
    fields = smooth_fields(grid_position(matrix, (size, size, size)), field, seed)
    b1, b0 = (image.reshape(matrix) for image in fields)
    tissue = Tissue(**{name: np.stack([getattr(t, name) for t in tissues]) for name in ("t1", "t2", "m0")})
    return from_fractions(fractions, tissue, b1, b0, voxel_size=size)


def _template(name: str) -> np.ndarray:
    """One map of the template, `(x, y, z)` on 1 mm, 0 ... 1, without importing nilearn (it takes seconds)."""
    found = importlib.util.find_spec("nilearn")
    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    path = Path(found.origin).parent / "datasets" / "data" / file if found and found.origin else None
    if path is None or not path.is_file():
        raise ImportError(
            "brain() reads the ICBM template of the package nilearn (0.11 or later), which is not installed: "
            "uv sync --extra brain, or pip install 'jaxmr[brain]'; procedural() does without"
        )
    import nibabel

    return np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj) / 255


def _sharpened(white: np.ndarray, grey: np.ndarray, t1: np.ndarray) -> np.ndarray:
    """Fractions of white matter, grey matter and CSF, `(3, x, y, z)`, of one brain from the average.

    CSF is what the maps leave of the inside of the skull: of the brain in the T1 template, with its
    notches closed and 2 mm of subarachnoid space around it. Sulci are thinner than the average is
    sharp and lose CSF in it, hence the factor 2; the cube undoes the blur between tissues.
    """
    from scipy import ndimage

    disc = np.hypot(*np.mgrid[-6:7, -6:7]) <= 6
    inside = np.empty(t1.shape, bool)
    for z in range(t1.shape[2]):
        closed = ndimage.binary_closing(t1[..., z] > 0, disc)
        inside[..., z] = ndimage.binary_dilation(ndimage.binary_fill_holes(closed), iterations=2)
    fluid = np.clip(1 - white - grey, 0, 1)
    sharp = np.stack([white, grey, 2 * fluid]) ** 3
    return sharp / sharp.sum(0) * inside


def _overlap(n_in: int, step_in: float, n_out: int, step_out: float, centre: float = 0.0) -> np.ndarray:
    """Area average along one axis, `(n_out, n_in)`: the share of each old voxel in each new one.

    Voxel n // 2 of each grid is centred on 0; the new grid is moved by `centre`.
    """
    old = (np.arange(n_in + 1) - n_in // 2 - 0.5) * step_in
    new = (np.arange(n_out + 1) - n_out // 2 - 0.5) * step_out + centre
    shared = np.minimum(new[1:, None], old[1:]) - np.maximum(new[:-1, None], old[:-1])
    return np.clip(shared, 0, None) / step_out
