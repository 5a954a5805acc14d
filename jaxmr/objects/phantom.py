"""Phantoms: tissue with a place, and the images it is made from or compared with.

A phantom is a list of compartments. A voxel of one tissue is one compartment; a voxel shared by
several (partial volume) is several compartments at the same position, whose `m0` is proton density
times volume fraction; their signals add. Units: metres, and those of `Tissue`.

Images are `(y, x)` or `(z, y, x)`, the row index counting y. Voxel i of N along an axis sits at
(i - N // 2) times the voxel size, as the discrete Fourier transform has it. Where a phantom is a
patient, the axes are DICOM's: +x the patient's left, +y the back, +z the head. A slice shown with its first
row on top is then what a radiologist expects: the face up, the patient's right on the left.
"""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from jaxmr.core.checks import as_float, is_concrete, require_values
from jaxmr.objects.tissue import Tissue

VOXEL_SHAPES = ("sinc", "box", "point")


class Phantom(eqx.Module):
    """Compartments of tissue in space.

    tissue: leaves of shape (n,). position: (n, 3), m, columns x, y, z. voxel_size: (dx, dy, dz), m.
    coils: receive sensitivities, (coils, n). pixel: (n,), the flat index of the image pixel each
    compartment belongs to, in an image of shape `matrix`. voxel_shape: how the magnetisation fills the
    voxel: "sinc" (band limited: no dephasing up to half a cycle per voxel, total beyond), "box" or
    "point". Raises `ValueError` when shapes disagree.
    """

    tissue: Tissue
    position: Float[Array, "n 3"]
    voxel_size: Float[Array, "3"]
    coils: Complex[Array, "coils n"] | None
    pixel: Int[Array, " n"] | None
    matrix: tuple[int, ...] = eqx.field(static=True)
    voxel_shape: str = eqx.field(static=True)

    def __init__(
        self,
        tissue: Tissue,
        position,
        voxel_size,
        coils=None,
        pixel=None,
        matrix: tuple[int, ...] = (),
        voxel_shape: str = "sinc",
    ):
        if len(tissue.shape) != 1:
            raise ValueError(f"the tissue of a Phantom has shape (n,), got {tissue.shape}; reshape it or use from_maps")
        n = tissue.shape[0]
        self.tissue = tissue
        self.position = as_float("position", position)
        self.voxel_size = as_float("voxel_size", voxel_size)
        self.coils = None if coils is None else jnp.asarray(coils).astype(complex)
        self.pixel = None if pixel is None else jnp.asarray(pixel)
        self.matrix = tuple(int(size) for size in matrix)
        self.voxel_shape = voxel_shape
        if voxel_shape not in VOXEL_SHAPES:
            raise ValueError(f"voxel_shape must be one of {', '.join(VOXEL_SHAPES)}, got {voxel_shape!r}")
        if self.position.shape != (n, 3):
            raise ValueError(
                f"position must have shape ({n}, 3), x y z of each entry of tissue, got {self.position.shape}"
            )
        if self.voxel_size.shape != (3,):
            raise ValueError(f"voxel_size must be (dx, dy, dz), got shape {self.voxel_size.shape}")
        if self.coils is not None and (self.coils.ndim != 2 or self.coils.shape[1] != n):
            raise ValueError(f"coils must have shape (coils, {n}), got {self.coils.shape}")
        require_values("position", self.position, "it is in metres")
        require_values("voxel_size", self.voxel_size, "it is in metres", positive=True)
        if (self.pixel is None) != (self.matrix == ()):
            raise ValueError("pixel and matrix belong together: give both, or neither")
        if self.pixel is not None:
            _require_pixels(self.pixel, n, self.matrix)


def to_image(phantom: Phantom, values) -> Array:
    """Sum values of compartments, `(n, *rest)`, into the image they belong to, `(*matrix, *rest)`.

    Differentiable in `values`. Raises `ValueError` for a phantom without pixels.
    """
    pixel = _pixels(phantom)
    values = jnp.asarray(values)
    n = pixel.shape[0]
    if values.ndim == 0 or values.shape[0] != n:
        raise ValueError(f"values must have shape ({n}, ...), one entry per compartment, got {values.shape}")
    rest = values.shape[1:]
    image = jnp.zeros((math.prod(phantom.matrix), *rest), values.dtype).at[pixel].add(values)
    return image.reshape(*phantom.matrix, *rest)


def truth(phantom: Phantom) -> dict[str, np.ndarray]:
    """What a perfect measurement of each pixel would find, as NumPy images of shape `matrix`.

    "t1", "t2": geometric means over the compartments, "b1", "b0": their means, all weighted by abs(m0),
    NaN where there is no tissue. Relaxation times are scale parameters: a plain mean would double T2
    where 3 % of CSF lies in grey matter, whose signal changes by a few per cent.
    "m0": their sum, 0 where there is none. "purity": the share of the largest compartment in that sum,
    1 for a single tissue, NaN where there is none.
    """
    pixel = np.asarray(_pixels(phantom))
    tissue = phantom.tissue
    n_pixels = math.prod(phantom.matrix)
    m0 = np.ones(tissue.shape) if tissue.m0 is None else np.asarray(tissue.m0)
    weight = np.abs(m0)
    total = np.bincount(pixel, weight, n_pixels)
    summed = np.zeros(n_pixels, m0.dtype)
    np.add.at(summed, pixel, m0)
    # Assignment in ascending order of weight leaves the largest compartment in place.
    order = np.argsort(weight, kind="stable")
    largest = np.zeros(n_pixels, int)
    largest[pixel[order]] = order
    divisor = np.where(total == 0, np.nan, total)

    def mean(values):
        return np.bincount(pixel, weight * values, n_pixels) / divisor

    def geometric_mean(times):
        # In units of the largest compartment, so that a pixel of one tissue has exactly its value.
        leading = np.asarray(times)[largest]
        return leading * np.exp(mean(np.log(np.asarray(times) / leading[pixel])))

    images = {
        "t1": geometric_mean(tissue.t1),
        "t2": geometric_mean(tissue.t2),
        "b1": mean(np.ones(tissue.shape) if tissue.b1 is None else np.asarray(tissue.b1)),
        "b0": mean(np.zeros(tissue.shape) if tissue.b0 is None else np.asarray(tissue.b0)),
        "m0": summed,
        "purity": weight[largest] / divisor,
    }
    return {name: image.reshape(phantom.matrix) for name, image in images.items()}


def from_maps(
    t1,
    t2,
    m0=None,
    b1=None,
    b0=None,
    t2_prime=None,
    diffusivity=None,
    *,
    mask=None,
    voxel_size=None,
    fov=None,
    voxel_shape: str = "sinc",
) -> Phantom:
    """A phantom of one compartment per voxel from image maps, in the units of `Tissue`.

    The maps are `(y, x)` or `(z, y, x)`. mask: the voxels that hold tissue; by default those where t1,
    t2 and m0 are finite and positive. voxel_size: one number or (dx, dy, dz), m. fov: instead, the
    extent of the image, one number for every axis of the image or (x, y, z); a slice is z thick, and
    as thick as a pixel is wide where only one number is given. Raises `ValueError` naming the map
    that has another shape, or that is NaN or negative inside the mask.
    """
    given = {"t1": t1, "t2": t2, "m0": m0, "b1": b1, "b0": b0}
    given |= {"t2_prime": t2_prime, "diffusivity": diffusivity}
    maps = {name: np.asarray(value) for name, value in given.items() if value is not None}
    matrix = maps["t1"].shape
    if len(matrix) not in (2, 3):
        raise ValueError(f"maps must be images (y, x) or (z, y, x), got t1 of shape {matrix}")
    for name, image in maps.items():
        if image.shape != matrix:
            raise ValueError(f"map {name} has shape {image.shape}, t1 has {matrix}; resample to one grid")
    if mask is None:
        inside = np.ones(matrix, bool)
        for name in {"t1", "t2", "m0"} & maps.keys():
            size = np.abs(maps[name]) if np.iscomplexobj(maps[name]) else maps[name]
            inside &= np.isfinite(size) & (size > 0)
    else:
        inside = np.asarray(mask).astype(bool)
        if inside.shape != matrix:
            raise ValueError(f"mask has shape {inside.shape}, the maps have {matrix}")
    if not inside.any():
        raise ValueError("no voxel holds tissue: the mask is empty, or no voxel has positive t1, t2 and m0")
    for name, image in maps.items():
        _require_map(name, np.where(inside, image, 1))
    voxel = _voxel_size(matrix, voxel_size, fov)
    pixel = np.flatnonzero(inside)
    return Phantom(
        Tissue(**{name: image[inside] for name, image in maps.items()}),
        grid_position(matrix, voxel)[pixel],
        voxel,
        pixel=pixel,
        matrix=matrix,
        voxel_shape=voxel_shape,
    )


def from_fractions(
    fractions, tissue: Tissue, b1=None, b0=None, *, voxel_size=None, fov=None, minimum: float = 0.02
) -> Phantom:
    """A phantom with partial volume from the volume fraction of each tissue in each voxel.

    fractions: `(k, y, x)` or `(k, z, y, x)`, sums at most 1 (the rest is empty). tissue: batch shape
    (k,), its m0 the proton density. b1, b0: images of the fields. Fractions below `minimum` are dropped,
    what they held goes to the others of the voxel; a voxel that holds less tissue than that is empty.
    voxel_size, fov: as for `from_maps`.
    """
    fractions = np.asarray(fractions, float)
    if fractions.ndim not in (3, 4) or tissue.shape != fractions.shape[:1]:
        raise ValueError(
            "fractions must have shape (k, y, x) or (k, z, y, x) and tissue shape (k,), "
            f"got {fractions.shape} and {tissue.shape}"
        )
    matrix = fractions.shape[1:]
    total = fractions.sum(0)
    if not np.isfinite(fractions).all() or (fractions < 0).any() or (total > 1 + 1e-6).any():
        raise ValueError("fractions must be finite, at least 0, and sum to at most 1 in every voxel")
    kept = np.where((fractions >= minimum * total) & (total >= minimum), fractions, 0)
    held = kept.sum(0)
    kept *= np.divide(total, held, out=np.zeros(matrix), where=held > 0)
    # Transposed, so that the compartments of a voxel are neighbours.
    pixel, kind = np.nonzero(kept.reshape(len(kept), -1).T)
    density = np.ones(len(kept)) if tissue.m0 is None else np.asarray(tissue.m0)
    m0 = density[kind] * kept.reshape(len(kept), -1)[kind, pixel]
    # In NumPy, because each gather would be compiled for this number of compartments.
    given = {name: getattr(tissue, name) for name in ("t1", "t2", "t2_prime", "diffusivity")}
    leaves = {name: np.asarray(leaf)[kind] for name, leaf in given.items() if leaf is not None}
    fields = {name: np.asarray(image) for name, image in {"b1": b1, "b0": b0}.items() if image is not None}
    for name, image in fields.items():
        if image.shape != matrix:
            raise ValueError(f"map {name} has shape {image.shape}, the fractions have {matrix}")
        leaves[name] = image.ravel()[pixel]
    voxel = _voxel_size(matrix, voxel_size, fov)
    return Phantom(Tissue(m0=m0, **leaves), grid_position(matrix, voxel)[pixel], voxel, pixel=pixel, matrix=matrix)


def grid_position(matrix: tuple[int, ...], voxel_size) -> np.ndarray:
    """Centres (x, y, z), m, of the voxels of an image, in flat order, `(prod(matrix), 3)`."""
    # A slice has no third axis: its z is 0.
    axes = [(np.arange(n) - n // 2) * step for n, step in zip(matrix[::-1], voxel_size, strict=False)]
    position = np.zeros((math.prod(matrix), 3))
    for column, coordinate in enumerate(np.meshgrid(*axes[::-1], indexing="ij")[::-1]):
        position[:, column] = coordinate.ravel()
    return position


def _voxel_size(matrix: tuple[int, ...], voxel_size, fov) -> np.ndarray:
    """(dx, dy, dz) from either of the two ways to say it."""
    if (voxel_size is None) == (fov is None):
        raise ValueError("give the voxel_size or the fov, in metres, and not both")
    name, value = ("fov", fov) if voxel_size is None else ("voxel_size", voxel_size)
    extent = np.asarray(value, float)
    if extent.shape not in ((), (3,)) or not (np.isfinite(extent) & (extent > 0)).all():
        raise ValueError(f"{name} must be one positive number or three (x, y, z), in metres, got {value!r}")
    if voxel_size is not None:
        return np.broadcast_to(extent, (3,))
    if extent.shape == () and len(matrix) == 2:
        return extent / np.array([matrix[1], matrix[0], matrix[1]])
    return np.broadcast_to(extent, (3,)) / np.array([*matrix[::-1], 1][:3])


def _require_map(name: str, values: np.ndarray) -> None:
    """Raise `ValueError` naming the map unless its values, an image, are physical."""
    remedy = "mask such voxels out"
    if name in ("t1", "t2", "t2_prime"):
        require_values(f"map {name}", values, remedy, positive=True)
    elif name == "b0" or np.iscomplexobj(values):
        require_values(f"map {name}", values, remedy)
    else:
        require_values(f"map {name}", values, remedy, minimum=0)


def _require_pixels(pixel: Array, n: int, matrix: tuple[int, ...]) -> None:
    if not jnp.issubdtype(pixel.dtype, jnp.integer) or pixel.shape != (n,):
        raise ValueError(f"pixel must be integers of shape ({n},), got {pixel.dtype} of shape {pixel.shape}")
    if is_concrete(pixel) and n and (pixel.min() < 0 or pixel.max() >= math.prod(matrix)):
        raise ValueError(
            f"pixel must be flat indices into an image of shape {matrix}, got {pixel.min()} ... {pixel.max()}"
        )


def _pixels(phantom: Phantom) -> Array:
    if phantom.pixel is None:
        raise ValueError("this phantom has no pixels: give pixel= and matrix= to Phantom, or build it with from_maps")
    return phantom.pixel
