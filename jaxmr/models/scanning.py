"""Large phantoms on the host: k-space chunk by chunk, shared by the devices, with a progress bar.

k-space is a sum over voxels, so any model that plays gradients may take a phantom apart. Not traced; to
differentiate, use `mr.simulate`.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core import batch
from jaxmr.core.checks import is_concrete
from jaxmr.core.types import Array, Complex
from jaxmr.models import imaging
from jaxmr.models.imaging import ImagingModel
from jaxmr.models.isochromats import Isochromats
from jaxmr.objects.phantom import Phantom
from jaxmr.sequences.sequence import Sequence

MEMORY = 256 << 20
"""Bytes of one chunk's samples, were they kept voxel by voxel."""
STEPS = 20
"""Chunks that a bar should have,"""
FEWEST = 256
"""unless a device had fewer voxels of each than this."""


def scan(
    sequence: Sequence,
    phantom: Phantom,
    model: ImagingModel,
    *,
    progress: bool = False,
    devices: list | None = None,
) -> Complex[Array, "coils samples"]:
    """All samples of all coils: `mr.simulate` of a phantom in chunks of voxels that bound the memory.

    progress: a bar that counts voxels. devices: share each chunk between them; without it, none is chosen.
    Raises `ValueError` for traced input.
    """
    if not is_concrete((sequence, phantom, model)):
        raise ValueError("scan works on the host and its input is being traced; use simulate inside jit and grad")
    model = model.planned(sequence, phantom)
    workers = None if devices is None else tuple(devices)
    size = _voxels_per_chunk(sequence, phantom, 1 if workers is None else len(workers))
    phantom, total = _on_host(phantom), 0.0
    for part in batch.host_chunks(phantom.tissue.shape[0], size, "voxels", progress):
        chunk, drawn = _chunk(phantom, part, size), _drawn(model, part.start)
        total = total + jax.block_until_ready(imaging.kspace(sequence, chunk, drawn, workers))
    return jnp.asarray(total)


def _voxels_per_chunk(sequence: Sequence, phantom: Phantom, n_workers: int) -> int:
    """Few enough for the memory and for a bar that moves, enough for every device."""
    n = phantom.tissue.shape[0]
    n_coils = 1 if phantom.coils is None else phantom.coils.shape[0]
    bytes_per_voxel = 2 * phantom.tissue.t1.dtype.itemsize * max(sequence.n_echoes, 1) * n_coils
    fitting = max(MEMORY // bytes_per_voxel, 1)
    return min(fitting, max(-(-n // STEPS), n_workers * FEWEST))


def _on_host(phantom: Phantom) -> Phantom:
    """The phantom with NumPy leaves, without its image, and with m0 written out."""
    tissue = phantom.tissue
    if tissue.m0 is None:
        tissue = eqx.tree_at(lambda t: t.m0, tissue, jnp.ones_like(tissue.t1), is_leaf=lambda x: x is None)
    bare = Phantom(tissue, phantom.position, phantom.voxel_size, phantom.coils, voxel_shape=phantom.voxel_shape)
    return jax.tree.map(np.asarray, bare)


def _drawn(model: ImagingModel, first: int) -> ImagingModel:
    """The model for voxels from `first` on: isochromats that diffuse draw what they would in the whole phantom."""
    if not isinstance(model, Isochromats):
        return model
    return dataclasses.replace(model, first_voxel=jnp.asarray(model.first_voxel + first))


def _chunk(phantom: Phantom, part: slice, size: int) -> Phantom:
    """`size` voxels from `part` on; behind the last there is more of it, without magnetisation."""
    index = np.arange(part.start, part.start + size)
    inside = index < phantom.tissue.shape[0]
    index = np.minimum(index, phantom.tissue.shape[0] - 1)
    tissue = phantom.tissue[index]
    tissue = eqx.tree_at(lambda t: t.m0, tissue, np.where(inside, tissue.m0, 0))
    chunk = eqx.tree_at(lambda p: (p.tissue, p.position), phantom, (tissue, phantom.position[index]))
    return chunk if phantom.coils is None else eqx.tree_at(lambda p: p.coils, chunk, phantom.coils[:, index])
