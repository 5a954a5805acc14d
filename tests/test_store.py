"""Stores: the same bytes however often a run dies, whoever shares it, and clear words for what is broken."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.models import driver
from jaxmr.mrf import chunks, store
from jaxmr.units import ms

SEQUENCE = mr.sequences.fisp(sine_train(20), 12 * ms, 3 * ms, 20 * ms)
AXES = {"t1": np.geomspace(0.1, 3, 10), "t2": np.geomspace(0.01, 1, 10), "b1": np.linspace(0.8, 1.2, 5)}
MODEL = mr.EPG(orders=20)
MEMORY = 80 * 16 * 20 * float(driver.COPIES)
"""For parts of 80 atoms."""

CHILD = """
import os, signal, sys
import jax
jax.config.update("jax_enable_x64", True)
path, rank, point, process, port = sys.argv[1:]
if port == "none":
    jax.config.update("jax_num_cpu_devices", 2)
else:
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
sys.path.insert(0, os.environ["TESTS"])
from jaxmr.mrf import chunks, header, store
import test_store

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

sync, calls = os.fsync, []
def flush(handle):
    calls.append(handle)
    die() if len(calls) == int(point) else sync(handle)

if point == "basis":
    store.spanned = die
elif point == "header":
    header.Path.rename = die
elif point == "mark":
    header.mark = die
elif point != "never":
    chunks.os.fsync = flush
test_store.write(path, eval(rank))
"""


def write(path, rank=None, **changed):
    arguments = {"model": MODEL, "memory": MEMORY, "rank": rank, **AXES, **changed}
    return store.write(path, SEQUENCE, **arguments)


def start(path, rank, point="never", process=0, port="none") -> subprocess.Popen:
    environment = {**os.environ, "TESTS": str(Path(__file__).parent), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CHILD, str(path), repr(rank), str(point), str(process), str(port)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module", params=[None, 5], ids=["whole", "rank"])
def whole(request, tmp_path_factory):
    """A store, written without interruption, and its rank."""
    path = tmp_path_factory.mktemp("store") / "whole.zarr"
    return write(path, request.param), request.param


def test_a_store_holds_the_dictionary(whole):
    written, rank = whole
    dictionary = mr.mrf.dictionary(SEQUENCE, model=MODEL, rank=rank, **AXES)
    loaded = written.to_dictionary()
    assert len(written) == -(-written.n_atoms // 80) > 3
    assert relative(loaded.atoms, dictionary.atoms) < 1e-12
    for name in AXES:
        assert np.array_equal(loaded.parameters[name], dictionary.parameters[name])
    assert written.rank == rank
    assert written.error == 0
    if rank is not None:
        assert written.energy == pytest.approx(dictionary.energy)
        np.testing.assert_allclose(written.basis, dictionary.basis, atol=1e-10)
    assert sum(len(part.atoms) for part in written) == written.n_atoms == len(dictionary.t1)
    assert np.array_equal(np.concatenate([part.t2 for part in written]), written.t2)
    with pytest.raises(AttributeError, match="Store has no attribute 't9'; its parameters are t1, t2, b1"):
        _ = written.t9


def test_any_zarr_reader_opens_it(whole):
    import zarr

    written, rank = whole
    group = zarr.open_group(written.path, mode="r")
    assert group.attrs["complete"]
    assert group["atoms"].shape == (written.n_atoms, rank or 20)
    assert np.array_equal(group["atoms"][:], np.concatenate([part.atoms for part in written]))
    assert np.array_equal(group["parameters/t1"][:], written.t1)
    assert not [file for file in content(written.path) if "partial" in file]


def test_writing_again_only_reads(whole):
    written, rank = whole
    before = {file: file.stat().st_mtime_ns for file in written.path.rglob("*")}
    assert write(written.path, rank).n_atoms == written.n_atoms
    assert before == {file: file.stat().st_mtime_ns for file in written.path.rglob("*")}


def test_matching_streams(whole):
    written, _ = whole
    dictionary = written.to_dictionary()
    rng = np.random.default_rng(0)
    signals = dictionary.atoms[rng.integers(written.n_atoms, size=(4, 6))] * np.exp(1j)
    signals = signals + 0.01 * rng.normal(size=signals.shape)
    for top in (1, 3):
        found, expected = mr.mrf.match(written, signals, top=top), mr.mrf.match(dictionary, signals, top=top)
        assert np.array_equal(found.index, expected.index)
        np.testing.assert_allclose(found.m0, expected.m0)
        np.testing.assert_allclose(found.correlation, expected.correlation)
        assert np.array_equal(found.t2, expected.t2)
    if written.rank is not None:
        raw = mr.mrf.match(written, signals @ written.basis.T)
        assert np.array_equal(raw.index, mr.mrf.match(written, signals).index)
    with pytest.raises(ValueError, match=r"refine=True needs all atoms in memory: match\(store.to_dictionary\(\)"):
        mr.mrf.match(written, signals, refine=True)
    with pytest.raises(ValueError, match="top must be between 1 and"):
        mr.mrf.match(written, signals, top=10**6)


@pytest.mark.parametrize("points", [["header", "2"], pytest.param(["basis", "1", "3", "mark"], marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(whole, points, tmp_path):
    """SIGKILL in the basis, before the header is in place, before a chunk is, and before the last mark."""
    written, rank = whole
    path = tmp_path / "killed.zarr"
    for point in points:
        child = start(path, rank, point)
        said = child.communicate()[1]
        if point == "basis" and rank is None:
            assert child.returncode == 0, said
            return
        assert child.returncode == -signal.SIGKILL, said
        if path.exists():
            with pytest.raises(ValueError, match=r"is not complete, \d of \d parts are written; run what began it"):
                store.read(path)
        else:
            assert list(tmp_path.iterdir()) == [tmp_path / ".killed.zarr.partial"]
    write(path, rank)
    assert content(path) == content(written.path)
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_share_the_work(whole, tmp_path):
    """Each on one device, against one process on two: not a byte differs."""
    written, rank = whole
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = [start(tmp_path / "shared.zarr", rank, "never", process, port) for process in range(2)]
    for child in children:
        said = child.communicate(timeout=120)[1]
        assert child.returncode == 0, said
    assert content(tmp_path / "shared.zarr") == content(written.path)


def test_a_full_disk_is_said_and_nothing_is_lost(whole, tmp_path, monkeypatch):
    written, rank = whole
    path, calls = tmp_path / "full.zarr", []

    def full(handle):
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(chunks.os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device; all parts before this one are kept: make") as told:
            write(path, rank)
    assert told.value.errno == errno.ENOSPC
    assert told.value.filename == str(path / "atoms" / "c" / "2" / "0")
    assert len(list((path / "atoms" / "c").rglob("*0"))) >= 2
    assert not list(path.rglob("*.partial"))
    write(path, rank)
    assert content(path) == content(written.path)


@pytest.mark.parametrize("damage", ["flipped", "short", "missing"])
def test_a_damaged_chunk_is_said_and_repaired(whole, damage, tmp_path):
    written, rank = whole
    path = tmp_path / "damaged.zarr"
    write(path, rank)
    file = path / "atoms" / "c" / "1" / "0"
    body = bytearray(file.read_bytes())
    body[100] ^= 4
    file.unlink()
    if damage != "missing":
        file.write_bytes(body if damage == "flipped" else body[:-9])
    with pytest.raises(ValueError, match=f"{file} is missing or damaged .* write the store once more"):
        store.read(path).to_dictionary()
    write(path, rank)
    assert content(path) == content(written.path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rank": 3}, "differ in rank; choose another path"),
        ({"model": mr.EPG()}, "they differ in model"),
        ({"t1": np.geomspace(0.1, 3.1, 10)}, "they differ in parameters"),
        ({"memory": 1e5}, "they differ in memory"),
        ({"model": mr.EPG(), "memory": 1e5}, "they differ in model, memory"),
    ],
)
def test_other_arguments_are_refused(whole, changed, message):
    written, rank = whole
    before = content(written.path)
    with pytest.raises(ValueError, match=f"was begun with other inputs, .*{message}"):
        write(written.path, **{"rank": rank, **changed})
    assert content(written.path) == before


def test_what_is_no_store_is_refused(whole, tmp_path):
    written, rank = whole
    with pytest.raises(FileNotFoundError):
        store.read(tmp_path / "absent.zarr")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", written.path / "parameters"):
        with pytest.raises(ValueError, match=r"cannot be read as a jaxmr dictionary|is no jaxmr dictionary of version"):
            store.read(path)
    with pytest.raises(ValueError, match="cannot be read as a jaxmr dictionary"):
        write(tmp_path / "folder", rank)
    with pytest.raises(ValueError, match="rank must be between 1 and 20"):
        write(tmp_path / "never.zarr", 21)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_two_runs_at_a_time_are_refused(whole):
    written, rank = whole
    held = os.open(written.path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="is being written by another process; wait until it ends"):
        write(written.path, rank)
    os.close(held)


def test_plans_are_kept(tmp_path):
    sequence = mr.sequences.fisp(sine_train(60), 12 * ms, 3 * ms, 20 * ms)
    model = mr.EPG(tolerance=1e-3)
    written = store.write(tmp_path / "s.zarr", sequence, model=model, memory=3 * MEMORY, **AXES)
    assert 0 < written.error <= 1e-3
    orders = [band["choices"].get("orders") for band in written.header.bands]
    assert len(orders) > 1
    exact = mr.mrf.dictionary(sequence, model=mr.EPG(), **AXES).atoms
    assert 1e-9 < relative(written.to_dictionary().atoms, exact) < 1e-3
