"""Chunks, devices and progress: the same numbers however the work is dealt out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import jaxmr as mr
from checks import relative
from jaxmr.core import batch


@pytest.mark.parametrize("n", [1, 7, 8, 23])
@pytest.mark.parametrize("devices", [None, 2])
def test_groups_and_devices_change_nothing(n, devices):
    voxels = {"a": jnp.arange(float(n)), "b": jnp.ones((n, 2))}
    function = lambda scale, v: scale * v["a"][:, None] ** 2 * v["b"]  # noqa: E731
    groups = batch.in_groups(voxels, 4, devices or 1)
    assert groups["a"].size < n + 4 * (devices or 1)
    found = batch.over_groups(function, jnp.asarray(2.0), groups, devices and jax.devices())
    assert np.array_equal(found.reshape(-1, 2)[:n], function(2.0, voxels))


def test_groups_are_dealt_out_where_they_do_not_fill_the_devices():
    groups = jnp.arange(15.0).reshape(3, 5)
    found = batch.over_groups(lambda scale, g: scale * g, jnp.asarray(2.0), groups, jax.devices())
    assert np.array_equal(found, 2 * groups)


def test_a_committed_array_and_a_users_own_jit_keep_working():
    """Without devices= nothing is moved: the result lies where the user put the tissue."""
    second = jax.devices()[1]
    tissue = jax.device_put(mr.Tissue(t1=[1.0, 2.0], t2=[0.1, 0.2]), second)
    sequence = mr.sequences.fisp(np.full(5, 0.4), 0.012, 0.003)
    signal = jax.jit(lambda t: mr.simulate(sequence, t, mr.EPG()))(tissue)
    assert signal.devices() == {second}


def test_a_users_own_shard_map_keeps_working():
    """Values and gradients of voxels that the user has dealt to the devices."""
    sequence = mr.sequences.fisp(np.full(8, 0.4), 0.012, 0.003, 0.02)
    mesh, voxels = Mesh(np.array(jax.devices()), ("voxels",)), PartitionSpec("voxels")
    t1, t2 = jnp.linspace(0.5, 2, 6), jnp.linspace(0.05, 0.2, 6)
    simulate = lambda t1, t2: mr.simulate(sequence, mr.Tissue(t1=t1, t2=t2), mr.EPG())  # noqa: E731
    gradient = jax.grad(lambda t2, t1: jnp.abs(simulate(t1, t2)).sum())
    for function in (simulate, lambda t1, t2: gradient(t2, t1)):
        mapped = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=(voxels, voxels), out_specs=voxels))
        assert relative(mapped(t1, t2), function(t1, t2)) < 1e-13


def test_chunk_sizes_are_bounded():
    assert batch.voxels_per_chunk(10, 1) == 512
    assert batch.voxels_per_chunk(10**9, 1) == 128
    assert batch.voxels_per_chunk(10**9, 16) == 8
    assert batch.voxels_per_chunk(10**9, 1000) == 1


def test_use_cores_is_refused_once_jax_runs():
    mr.use_cores(len(jax.devices()))  # already so: nothing to do
    with pytest.raises(RuntimeError, match="must be called before JAX starts: put it right after `import jaxmr`"):
        mr.use_cores(7)


def test_progress_covers_everything(capsys):
    parts = list(batch.host_chunks(10, 4, "counting", progress=True))
    assert [(part.start, part.stop) for part in parts] == [(0, 4), (4, 8), (8, 10)]
    assert "counting" in capsys.readouterr().err
    assert not capsys.readouterr().err
    list(batch.host_chunks(3, 2, "quiet", progress=False))
    assert not capsys.readouterr().err
