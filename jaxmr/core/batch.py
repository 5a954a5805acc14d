"""Where the work happens: chunks that fit the cache, devices that share the voxels, progress on the host.

Nothing here knows physics. A batched function takes a tree of arrays whose leading axis is the
voxel and returns arrays with the same leading axis.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

CACHE_BYTES = 192 * 1024
"""State of one chunk that stays in a core's second-level cache (measured: flat from 64 to 256 kB)."""
LANES = (256, 512)
"""Fewest and most lanes of a chunk: below, vectors run empty; above, nothing is gained."""


def use_cores(n: int | None = None) -> None:
    """Make one CPU device per core (or `n`), for `devices=jax.devices()`. Call before JAX starts.

    Raises RuntimeError once JAX has started: the number of devices is fixed by then.
    """
    import os

    wanted = n or os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError as error:
        if jax.default_backend() == "cpu" and jax.device_count() == wanted:
            return
        raise RuntimeError(
            "use_cores() must be called before JAX starts: put it right after `import jaxmr`, before any array"
        ) from error


def voxels_per_chunk(bytes_per_voxel: int, lanes_per_voxel: int) -> int:
    """Voxels computed together: a power of two, so that their states stay in the cache of a CPU core.

    Never so few lanes that vectors run empty. Other devices take all voxels at once.
    """
    if jax.default_backend() != "cpu":
        return 1 << 30
    fitting = max(CACHE_BYTES // bytes_per_voxel, LANES[0] // lanes_per_voxel, 1)
    most = max(LANES[1] // lanes_per_voxel, 1)
    return min(2 ** int(np.log2(fitting)), most)


def _pad(tree: Any, n: int) -> Any:
    """Repeat the last voxel until there are `n` (valid physics, so that no NaN is made)."""

    def pad(leaf):
        missing = n - leaf.shape[0]
        return leaf if missing == 0 else jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, axis=0)])

    return jax.tree.map(pad, tree)


def in_chunks(function: Callable[[Any], Any], voxels: Any, chunk: int) -> Any:
    """`function` over the leading axis of `voxels`, `chunk` at a time, one chunk after the other."""
    n = jax.tree.leaves(voxels)[0].shape[0]
    if n <= chunk:
        return function(voxels)
    n_chunks = -(-n // chunk)
    chunk = -(-n // n_chunks)
    padded = _pad(voxels, n_chunks * chunk)
    stacked = jax.tree.map(lambda leaf: leaf.reshape(n_chunks, chunk, *leaf.shape[1:]), padded)
    results = jax.lax.map(function, stacked)
    return jax.tree.map(lambda leaf: leaf.reshape(n_chunks * chunk, *leaf.shape[2:])[:n], results)


def over_devices(function: Callable[[Any, Any], Any], shared: Any, voxels: Any, devices: list) -> Any:
    """`function(shared, voxels)` with the voxels dealt to `devices` in equal shares, padded where needed."""
    n = jax.tree.leaves(voxels)[0].shape[0]
    share = -(-n // len(devices))
    mesh = Mesh(np.array(devices), ("voxels",))
    split, whole = PartitionSpec("voxels"), PartitionSpec()
    mapped = jax.shard_map(function, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False)
    results = mapped(shared, _pad(voxels, share * len(devices)))
    return jax.tree.map(lambda leaf: leaf[:n], results)


def progress_bar(n: int, description: str, progress: bool):
    """A bar over `n` things, in a `with` statement; silent unless asked for."""
    from tqdm import tqdm

    return tqdm(total=n, desc=description, disable=not progress, unit_scale=True)


def host_chunks(n: int, size: int, description: str, progress: bool) -> Iterator[slice]:
    """Slices of `size` that cover `n`, with a progress bar if asked for."""
    with progress_bar(n, description, progress) as bar:
        for start in range(0, n, size):
            stop = min(start + size, n)
            yield slice(start, stop)
            bar.update(stop - start)
