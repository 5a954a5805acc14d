"""Where the work happens: groups that fit the cache, devices that share them, progress on the host.

Nothing here knows physics. Voxels lie in groups: a tree of arrays `(n_groups, lanes, ...)`, computed group by
group. What is one for a whole group (a transmit field that its voxels share) is a leaf `(n_groups, 1)`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

CACHE_BYTES = 192 * 1024
"""State of one chunk that stays in a core's second-level cache (measured: flat from 64 to 256 kB)."""
LANES = (128, 512)
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
    """Repeat the last row until there are `n` (valid physics, so that no NaN is made)."""

    def pad(leaf):
        missing = n - leaf.shape[0]
        return leaf if missing == 0 else jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, axis=0)])

    return jax.tree.map(pad, tree)


def in_groups(voxels: Any, lanes: int, n_devices: int = 1) -> Any:
    """Leaves `(n, ...)` as `(n_groups, lanes, ...)` with at most so many lanes, padded, a share for every device."""
    n = jax.tree.leaves(voxels)[0].shape[0]
    n_groups = -(-n // lanes)
    n_groups = -(-n_groups // n_devices) * n_devices
    lanes = -(-n // n_groups)
    padded = _pad(voxels, n_groups * lanes)
    return jax.tree.map(lambda leaf: leaf.reshape(n_groups, lanes, *leaf.shape[1:]), padded)


def over_groups(
    function: Callable[[Any, Any], Any], shared: Any, groups: Any, devices: tuple | list | None = None
) -> Any:
    """`function(shared, group)` for every group along the leading axis, the results stacked alike.

    A CPU device computes one group after the other, others all side by side. With several `devices` the groups
    are dealt to them in equal shares, padded where needed.
    """
    n = jax.tree.leaves(groups)[0].shape[0]
    if devices is None or len(devices) == 1:
        return _share(function, shared, groups)
    mesh = Mesh(np.array(devices), ("groups",))
    split, whole = PartitionSpec("groups"), PartitionSpec()
    mapped = jax.shard_map(
        lambda shared, groups: _share(function, shared, groups),
        mesh=mesh,
        in_specs=(whole, split),
        out_specs=split,
        check_vma=False,
    )
    results = mapped(shared, _pad(groups, -(-n // len(devices)) * len(devices)))
    return jax.tree.map(lambda leaf: leaf[:n], results)


def _share(function, shared, groups):
    """All groups of one device."""
    if jax.tree.leaves(groups)[0].shape[0] == 1:
        only = function(shared, jax.tree.map(lambda leaf: leaf[0], groups))
        return jax.tree.map(lambda leaf: leaf[None], only)
    one = lambda group: function(shared, group)  # noqa: E731
    return jax.lax.map(one, groups) if jax.default_backend() == "cpu" else jax.vmap(one)(groups)


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
