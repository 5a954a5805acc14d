"""Who lies in the scanner of `jaxmr scan`, in which field of view, and what is around the head. SI units."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from jaxmr import objects
from jaxmr.cli import options as shared
from jaxmr.cli.parser import PROTOCOLS
from jaxmr.core.batch import progress_bar
from jaxmr.encoding import coils
from jaxmr.objects import Phantom
from jaxmr.objects.brains import FOV
from jaxmr.objects.phantom import grid_position
from jaxmr.units import mm

POSITION, LOWEST, HIGHEST = 0.018, -0.065, 0.075
"""Of the middle slice of a volume of the brain in MNI space, and where there is brain, m."""
DISTANCE = 1.25
"""Of the coils from the axis, relative to the farthest tissue."""


class Geometry(NamedTuple):
    """Of the image: its shape, `(y, x)` or `(z, y, x)`, field of view and voxel size (x, y, z), m."""

    matrix: tuple[int, ...]
    fov: tuple[float, float, float]
    voxel_size: tuple[float, float, float]


def subject(options: Any) -> tuple[Phantom, str, Geometry]:
    """The phantom, what to call it, and the geometry of the image.

    What is built in is as fine as the image. A slice fills a volume by repetition; the brain has all its slices.
    Raises `ValueError` for a matrix or field of view that the sequence cannot have.
    """
    matrix = _matrix(options)
    built_in = options.phantom in (None, "brain", "procedural")
    if built_in:
        extent = FOV
        fov = _fov(options.fov, extent, len(matrix))
        n = math.ceil(FOV / (fov[0] / matrix[-1]) - 1e-6)
        phantom, name = shared.phantom(options.phantom, options.seed, matrix=n)
    else:
        phantom, name = objects.load(options.phantom, slice=None if len(matrix) == 3 else "middle"), options.phantom
        dx, dy, _ = map(float, phantom.voxel_size)
        fov = _fov(options.fov, max(phantom.matrix[-1] * dx, phantom.matrix[-2] * dy), len(matrix))
    thickness = float(phantom.voxel_size[2])
    if len(matrix) == 3 and len(phantom.matrix) == 2:
        depth = fov[2] if len(fov) == 3 else matrix[0] * thickness
        n_slices = max(round(depth / thickness), 1)
        if name.startswith("brain"):
            phantom = _brain(n_slices, phantom, options)
        else:
            phantom, name = stacked([phantom] * n_slices), f"{name}, the same in {n_slices} slices"
        thickness = depth / matrix[0]
    elif len(matrix) == 3:
        thickness = (fov[2] if len(fov) == 3 else phantom.matrix[0] * thickness) / matrix[0]
    counts = (*matrix[::-1], 1)[:3]
    whole = (fov[0], fov[1], thickness * counts[2])
    dx, dy, dz = (extent / count for extent, count in zip(whole, counts, strict=True))
    return phantom, name, Geometry(matrix, whole, (dx, dy, dz))


def stacked(slices: list[Phantom]) -> Phantom:
    """Slices as a volume, the first at the feet, the middle one at z = 0."""
    first = slices[0]
    n, thickness = len(slices), float(first.voxel_size[2])
    counts = [part.tissue.shape[0] for part in slices]
    index = np.repeat(np.arange(n), counts)
    position = np.concatenate([np.asarray(part.position) for part in slices])
    position = position + thickness * (index - n // 2)[:, None] * np.array([0, 0, 1])
    pixel = np.concatenate([np.asarray(part.pixel) for part in slices]) + index * math.prod(first.matrix)
    tissue = jax.tree.map(lambda *leaves: np.concatenate([np.asarray(x) for x in leaves]), *(s.tissue for s in slices))
    return Phantom(tissue, position, first.voxel_size, pixel=pixel, matrix=(n, *first.matrix))


def with_coils(phantom: Phantom, n_coils: int, geometry: Geometry) -> tuple[Phantom, Any]:
    """The phantom seen by `n_coils` loops on a cylinder around it, and their maps `(coils, *matrix)` on the image.

    Fields are scaled to a mean square of 1 in the tissue. One coil sees all alike and has no map: None.
    """
    if n_coils < 1:
        raise ValueError(f"--coils must be at least 1, a receiver that sees all alike, got {n_coils}")
    if n_coils == 1:
        return phantom, None
    position = np.asarray(phantom.position)
    middle = (position.max(axis=0) + position.min(axis=0)) / 2
    radius = DISTANCE * float(np.hypot(*(position - middle)[:, :2].T).max())
    centre, normal = coils.around_cylinder(n_coils, radius)
    loops = centre + middle[None], normal, min(1.1 * math.pi / n_coils, 0.6) * radius
    fields = coils.loops(position, *loops)
    scale = np.sqrt(np.mean(np.sum(np.abs(fields) ** 2, axis=0)))
    maps = coils.loops(grid_position(geometry.matrix, geometry.voxel_size), *loops) / scale
    seen = eqx.tree_at(lambda p: p.coils, phantom, fields / scale, is_leaf=lambda leaf: leaf is None)
    return seen, maps.reshape(n_coils, *geometry.matrix)


def _brain(n_slices: int, like: Phantom, options: Any) -> Phantom:
    """The slices of the brain around the one that a slice shows, as far as there is brain."""
    thickness = float(like.voxel_size[2])
    slices = []
    with progress_bar(n_slices, "slices", options.progress) as bar:
        for i in range(n_slices):
            position = POSITION + thickness * (i - n_slices // 2)
            inside = min(max(position, LOWEST), HIGHEST)
            found = objects.brain(like.matrix[0], inside)
            # Above and below the brain there is nothing.
            slices.append(found if inside == position else _empty(found))
            bar.update()
    return stacked(slices)


def _empty(phantom: Phantom) -> Phantom:
    nothing = jax.tree.map(lambda leaf: leaf[:0], phantom.tissue)
    return Phantom(nothing, phantom.position[:0], phantom.voxel_size, pixel=np.zeros(0, int), matrix=phantom.matrix)


def _matrix(options: Any) -> tuple[int, ...]:
    """Shape of the image: one number is that of rows and columns."""
    if options.sequence not in PROTOCOLS:
        return options.matrix
    usual = PROTOCOLS[options.sequence].matrix
    asked: tuple[int, ...] = usual if options.matrix is None else options.matrix
    given = asked
    if len(given) == 1:
        given = (*usual[:-2], *given, *given)
    if len(given) != len(usual) or min(given) < 2:
        form = "x".join(map(str, usual))
        told = "x".join(map(str, asked))
        raise ValueError(f"--matrix {told}: {options.sequence} needs one number or {form}, of 2 voxels and more")
    return given


def _fov(given: list[float] | None, extent: float, n_axes: int) -> tuple[float, ...]:
    """(x, y), or (x, y, z) where it is given, m."""
    if given is None:
        return extent, extent
    if len(given) not in (1, 2, n_axes) or not all(math.isfinite(size) and size > 0 for size in given):
        form = "x,y" if n_axes == 2 else "x,y,z"
        raise ValueError(f"--fov is one positive number or {form}, mm, got {','.join(f'{g:g}' for g in given)}")
    sizes = given * 2 if len(given) == 1 else given
    return tuple(size * mm for size in sizes)
