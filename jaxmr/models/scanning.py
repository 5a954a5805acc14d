"""Large phantoms on the host: k-space chunk by chunk, on every device in turn, with a progress bar.

k-space is a sum over voxels, so any model that plays gradients may take a phantom apart. Not traced; to
differentiate, use `mr.simulate`.
"""

import collections

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core import batch
from jaxmr.core.checks import is_concrete
from jaxmr.core.types import Array, Complex
from jaxmr.models import imaging
from jaxmr.models.imaging import ImagingModel
from jaxmr.objects.phantom import Phantom
from jaxmr.sequences.sequence import Sequence

MEMORY = 256 << 20
"""Bytes of one chunk's samples, were they kept voxel by voxel."""
STEPS = 20
"""Chunks per device that a bar should have,"""
FEWEST = 256
"""unless they would be smaller than this many voxels."""


def scan(
    sequence: Sequence,
    phantom: Phantom,
    model: ImagingModel,
    *,
    progress: bool = False,
    devices: list | None = None,
) -> Complex[Array, "coils samples"]:
    """All samples of all coils: `mr.simulate` of a phantom in chunks of voxels that bound the memory.

    progress: a bar that counts voxels. devices: each works on a chunk of its own; without it, the default one.
    Raises `ValueError` for traced input.
    """
    if not is_concrete((sequence, phantom, model)):
        raise ValueError("scan works on the host and its input is being traced; use simulate inside jit and grad")
    model = model.planned(sequence, phantom)
    workers = jax.devices()[:1] if devices is None else devices
    played = [jax.device_put(eqx.filter((sequence, model), eqx.is_array), device) for device in workers]
    static = eqx.filter((sequence, model), eqx.is_array, inverse=True)
    n = phantom.tissue.shape[0]
    size = _voxels_per_chunk(sequence, phantom, len(workers))
    phantom = _on_host(phantom)
    waiting: collections.deque = collections.deque()
    total: np.ndarray | None = None

    def collect():
        found = np.asarray(waiting.popleft())
        return found if total is None else total + found

    for i, part in enumerate(batch.host_chunks(n, size, "voxels", progress)):
        worker = i % len(workers)
        if len(waiting) == len(workers):
            total = collect()
        chunk = jax.device_put(_chunk(phantom, part, size), workers[worker])
        own_sequence, own_model = eqx.combine(played[worker], static)
        waiting.append(imaging.kspace(own_sequence, chunk, own_model))
    while waiting:
        total = collect()
    return jnp.asarray(total)


def _voxels_per_chunk(sequence: Sequence, phantom: Phantom, n_workers: int) -> int:
    """Few enough for the memory and for a bar that moves, as many on every device."""
    n = phantom.tissue.shape[0]
    n_coils = 1 if phantom.coils is None else phantom.coils.shape[0]
    bytes_per_voxel = 2 * phantom.tissue.t1.dtype.itemsize * max(sequence.n_echoes, 1) * n_coils
    fitting = max(MEMORY // bytes_per_voxel, 1)
    return min(fitting, max(-(-n // (STEPS * n_workers)), FEWEST))


def _on_host(phantom: Phantom) -> Phantom:
    """The phantom with NumPy leaves, without its image, and with m0 written out."""
    tissue = phantom.tissue
    if tissue.m0 is None:
        tissue = eqx.tree_at(lambda t: t.m0, tissue, jnp.ones_like(tissue.t1), is_leaf=lambda x: x is None)
    bare = Phantom(tissue, phantom.position, phantom.voxel_size, phantom.coils, voxel_shape=phantom.voxel_shape)
    return jax.tree.map(np.asarray, bare)


def _chunk(phantom: Phantom, part: slice, size: int) -> Phantom:
    """`size` voxels from `part` on; behind the last there is more of it, without magnetisation."""
    index = np.arange(part.start, part.start + size)
    inside = index < phantom.tissue.shape[0]
    index = np.minimum(index, phantom.tissue.shape[0] - 1)
    tissue = phantom.tissue[index]
    tissue = eqx.tree_at(lambda t: t.m0, tissue, np.where(inside, tissue.m0, 0))
    chunk = eqx.tree_at(lambda p: (p.tissue, p.position), phantom, (tissue, phantom.position[index]))
    return chunk if phantom.coils is None else eqx.tree_at(lambda p: p.coils, chunk, phantom.coils[:, index])
