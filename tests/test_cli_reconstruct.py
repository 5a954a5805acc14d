"""`jaxmr reconstruct`: raw data written as others write them become the maps that were scanned, or one clear error."""

import json

import nibabel as nib
import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.__main__ import main
from jaxmr.cli.reconstruct import _foreground
from jaxmr.encoding import trajectory
from jaxmr.io.hdf5 import save_dictionary
from jaxmr.io.raw import write_raw
from jaxmr.io.series import read_series_of_lines
from jaxmr.units import ms

N, VOXEL, PULSES = 16, 8e-3, 60
SEQUENCE = mr.sequences.fisp(sine_train(PULSES), 10 * ms, 4 * ms, 0.0)
MODEL = mr.EPG(orders=20)
T1, T2 = np.array([0.5, 1.0, 2.0]), np.array([0.05, 0.1, 0.2])


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Three tissues in stripes on a disc, seen by two coils, all of k-space covered; with its dictionary."""
    folder = tmp_path_factory.mktemp("scan")
    y, x = np.mgrid[:N, :N] - N // 2
    inside = x**2 + y**2 < 36
    kind = np.clip((x + 6) // 4, 0, 2)
    phantom = mr.objects.from_maps(T1[kind], T2[kind], np.where(inside, 1.0, 0.0), voxel_size=VOXEL)
    own = np.stack([np.exp(0.04 * x), np.exp(-0.03 * x + 0.05j * y)])[:, inside]
    phantom = mr.Phantom(phantom.tissue, phantom.position, phantom.voxel_size, own, phantom.pixel, phantom.matrix)
    interleaves = trajectory.radial(PULSES, 2 * N, VOXEL)
    k = np.asarray(interleaves)
    samples = mr.mrf.acquire(SEQUENCE, phantom, MODEL, k)
    save_dictionary(
        folder / "dictionary.h5",
        mr.mrf.dictionary(SEQUENCE, t1=T1, t2=T2, model=MODEL, drop=False, rank=4, progress=False),
    )
    maps = np.stack([np.exp(0.04 * x), np.exp(-0.03 * x + 0.05j * y)])
    truth = {"t1": T1[kind], "t2": T2[kind], "inside": inside}
    np.savez(
        folder / "raw.npz", samples=samples, k=k, matrix=(N, N), voxel_size=np.array([VOXEL, VOXEL, 5e-3]), coils=maps
    )
    flat = np.concatenate([k, np.zeros((*k.shape[:2], 1))], axis=-1).reshape(-1, 3)
    write_raw(
        folder / "raw.h5",
        samples.reshape(2, -1),
        flat,
        lines=2 * N,
        matrix=(N, N),
        fov=(N * VOXEL, N * VOXEL, 5e-3),
        dwell=1e-5,
        trajectory="radial",
    )
    return folder, truth


def maps_of(out):
    images = {name: nib.load(out / f"{name}.nii.gz") for name in ("t1", "t2", "m0")}
    assert images["t1"].header.get_zooms()[:2] == pytest.approx((8, 8))
    return {name: np.squeeze(np.asarray(image.dataobj)).T for name, image in images.items()}


def test_without_a_mask_specks_of_noise_are_no_tissue():
    strength = np.full((32, 32), 0.05)
    head, tube = np.s_[4:20, 4:20], np.s_[24:30, 24:30]
    strength[head], strength[tube] = 1.0, 0.5
    tissue = strength > 0.1
    strength[2, 28] = strength[28, 3:5] = 0.3
    np.testing.assert_array_equal(_foreground(strength), tissue)


@pytest.mark.parametrize("method", ["lr-admm", "subspace", "locally-low-rank"])
def test_the_tissues_come_back(scan, tmp_path, method):
    folder, truth = scan
    command = ["reconstruct", str(folder / "raw.npz"), str(folder / "dictionary.h5"), "--out", str(tmp_path)]
    assert main([*command, "--method", method, "--strength", "0.001"]) == 0
    found = maps_of(tmp_path)
    core = truth["inside"]
    right = np.abs(found["t1"] / np.where(core, truth["t1"], 1) - (1 if found["t1"].max() < 10 else 1000)) < 0.01
    assert right[core].mean() > 0.95
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["ran"]["method"] == method
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    assert np.load(tmp_path / "coefficients.npz")["coefficients"].shape == (4, N, N)


def test_ismrmrd_files_and_estimated_coils(scan, tmp_path):
    """From a file of lines alone: matrix, voxels and k are its own, coil maps are estimated."""
    folder, truth = scan
    command = ["reconstruct", str(folder / "raw.h5"), str(folder / "dictionary.h5"), "--out", str(tmp_path)]
    assert main(command) == 0
    found, core = maps_of(tmp_path), truth["inside"]
    unit = 1 if found["t2"].max() < 10 else 1000
    assert (np.abs(found["t2"] / np.where(core, truth["t2"], 1) / unit - 1) < 0.01)[core].mean() > 0.9
    assert np.abs(found["m0"])[core].min() > 0


def test_both_formats_tell_the_same(scan):
    folder, _ = scan
    one, other = read_series_of_lines(folder / "raw.npz"), read_series_of_lines(folder / "raw.h5")
    assert one.matrix == other.matrix == (N, N)
    assert one.voxel_size == pytest.approx(other.voxel_size)
    assert relative(other.k, one.k) < 1e-6
    assert relative(other.samples, one.samples) < 1e-6


def test_what_is_missing_or_wrong_is_told(scan, tmp_path, capsys):
    folder, _ = scan
    whole = dict(np.load(folder / "raw.npz"))

    def error(name, *more, **changes):
        kept = {key: value for key, value in {**whole, **changes}.items() if value is not None}
        np.savez(tmp_path / f"{name}.npz", **kept)
        command = ["reconstruct", str(tmp_path / f"{name}.npz"), str(folder / "dictionary.h5")]
        assert main([*command, "--out", str(tmp_path / "out"), *more]) != 0
        return capsys.readouterr().err

    assert "does not tell k" in error("no_k", k=None)
    assert "give --trajectory" in error("no_k", k=None)
    assert "give --voxel-size in mm" in error("no_size", voxel_size=None)
    assert "have 59 lines and the dictionary 60 pulses" in error(
        "short", samples=whole["samples"][:, 1:], k=whole["k"][1:]
    )
    assert "k must have shape (pulses, n, axes)" in error("bent", k=whole["k"][:, 1:])
    assert "rad/m" in error("unit", k=whole["k"] / (2 * np.pi))
    broken = whole["samples"].copy()
    broken[0, 3, 4] = np.nan
    assert "samples must be finite" in error("nan", samples=broken)
    assert "samples must be complex" in error("magnitude", samples=np.abs(whole["samples"]))
    assert "coils must have shape (2, 16, 16)" in error("coils", coils=whole["coils"][:, 1:])
    (tmp_path / "no.npz").write_text("no archive")
    assert main(["reconstruct", str(tmp_path / "no.npz"), str(folder / "dictionary.h5"), "--out", str(tmp_path)]) != 0
    assert "damaged or another format" in capsys.readouterr().err
