"""Many voxels: each is simulated once, in parts of one size, and how they are dealt out changes no bit."""

import jax
import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.models import driver
from jaxmr.models.driver import schedule, simulate_many, simulate_parts
from jaxmr.units import mm, ms

SEQUENCE = mr.sequences.fisp(sine_train(60), 12 * ms, 3 * ms, 20 * ms)
BLOCH = mr.EPGBloch(pulse=mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm), n_z=8)


def voxels(n: int = 230, levels: int = 3) -> mr.Tissue:
    rng = np.random.default_rng(0)
    t2 = np.geomspace(0.02, 0.9, n)[rng.permutation(n)]
    return mr.Tissue(t1=rng.uniform(1, 2, n), t2=t2, b1=np.linspace(0.8, 1.2, levels)[rng.integers(levels, size=n)])


@pytest.mark.parametrize("model", [mr.EPG(tolerance=1e-3), BLOCH], ids=["planned", "fixed"])
@pytest.mark.parametrize("levels", [1, 3, 200])
def test_a_schedule_has_every_voxel_once_in_parts_of_one_size(model, levels):
    tissue, rows = voxels(levels=levels), 40
    parts = schedule(SEQUENCE, tissue, model, rows)
    assert [len(part.voxels) for part in parts] == [40] * 5 + [30]
    assert np.array_equal(np.sort(np.concatenate([part.voxels for part in parts])), np.arange(230))
    for part in parts:
        assert np.array_equal(part.lanes.ravel()[part.slots], part.voxels)
        assert set(part.lanes.ravel()) == set(part.voxels)
        if part.shares_b1:
            assert (np.ptp(np.asarray(tissue.b1)[part.lanes], axis=1) == 0).all()
    if levels == 1:
        assert all(part.shares_b1 for part in parts)
    again = schedule(SEQUENCE, tissue, model, rows)
    assert all(np.array_equal(a.lanes, b.lanes) for a, b in zip(parts, again, strict=True))


def test_bands_are_planned_apart_and_one_compilation_serves_each():
    parts = schedule(SEQUENCE, voxels(), mr.EPG(tolerance=1e-3), 40)
    orders = [part.model.orders or 61 for part in parts]
    assert orders == sorted(orders, reverse=True)
    assert len(set(orders)) > 2
    shapes = {(part.model.orders, part.lanes.shape, part.shares_b1) for part in parts}
    assert len(shapes) == len(set(orders))


@pytest.mark.parametrize("model", [mr.EPG(tolerance=1e-3), BLOCH], ids=["epg", "bloch"])
@pytest.mark.parametrize("levels", [3, 200])
@pytest.mark.parametrize("rank", [None, 4])
def test_devices_change_no_bit_and_a_basis_is_a_projection(model, levels, rank):
    """Not even in parts of few groups: files written with other devices must be the same."""
    tissue = voxels(levels=levels)
    basis = None
    if rank is not None:
        basis = np.linalg.qr(np.random.default_rng(1).normal(size=(60, rank)) + 0j)[0]
    parts = schedule(SEQUENCE, tissue, model, 115)
    one, two = (
        [found for _, found in simulate_parts(SEQUENCE, tissue, parts, basis=basis, devices=jax.devices()[:n])]
        for n in (1, 2)
    )
    exact = np.asarray(mr.simulate(SEQUENCE, tissue, mr.EPG() if isinstance(model, mr.EPG) else model))
    exact = exact if basis is None else exact @ basis.conj()
    for part, a, b in zip(parts, one, two, strict=True):
        assert a.tobytes() == b.tobytes()
        assert relative(a, exact[part.voxels]) < 1e-3


def test_sharing_b1_changes_nothing_else(monkeypatch):
    tissue = voxels()
    shared = simulate_many(SEQUENCE, tissue, BLOCH)
    monkeypatch.setattr(driver, "WASTE", 0.0)
    assert not any(part.shares_b1 for part in schedule(SEQUENCE, tissue, BLOCH, 100))
    assert relative(simulate_many(SEQUENCE, tissue, BLOCH).signals, shared.signals) < 1e-13


def test_memory_bounds_the_rows_and_small_jobs_are_one_part():
    rows = lambda memory, n: driver.rows_within(SEQUENCE, voxels(n), memory)  # noqa: E731
    assert rows(None, 100) == 100
    assert rows(1e9, 64_000) == 2000
    assert rows(1e6, 64_000) == int(1e6 / (driver.COPIES * 16 * 60))
    assert rows(1, 64_000) == 1


def test_parts_of_a_gpu_fill_it(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert driver.rows_within(SEQUENCE, voxels(100)) == 100
    assert driver.rows_within(SEQUENCE, voxels(64_000)) == driver.GPU_FEWEST
    assert driver._shape([np.array([10_000])], 4096) == (3, 3392)
    assert driver._shape([np.array([60, 64])], 64) == (2, 64)


def test_lanes_of_a_cpu_are_whole_vectors_where_that_is_nearly_free(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert driver._shape([np.array([313])], 64) == (5, 64)
    assert driver._shape([np.array([300])], 64) == (5, 60)
    assert driver._shape([np.array([126])], 63) == (2, 63)
    assert driver._shape([np.array([3])], 64) == (1, 3)
