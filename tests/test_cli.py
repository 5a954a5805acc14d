"""The program as its users start it: files in, files and a summary out, one line when something is wrong."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

import jaxmr as mr
from jaxmr.__main__ import main
from jaxmr.cli import options
from jaxmr.cli.fingerprint import notes
from jaxmr.cli.parser import command_line
from jaxmr.io.hdf5 import load_dictionary, read_about
from jaxmr.io.nifti import read_map, read_series, write_maps
from jaxmr.io.signals import read_signals

PULSES = 80
GRID = ["--grid", "t1=600:2400:8", "t2=45:110:6", "b1=0.85:1.15:5"]
TISSUES = {"t1": (0.838, 1.607), "t2": (0.071, 0.076), "m0": (0.691, 0.837)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A short schedule of constant times, one of varying times, and a phantom of two tissues with fields."""
    folder = tmp_path_factory.mktemp("cli")
    n = np.arange(PULSES)
    flip = 10 + 45 * np.sin(np.pi * (n + 1) / 40) ** 2
    constant = np.stack([flip, np.full(PULSES, 12.0), np.full(PULSES, 3.0)], axis=1)
    np.savetxt(folder / "constant.csv", constant, "%.6g", ",", header="flip,tr,te", comments="")
    varying = np.stack([flip, 13 + np.sin(n / 7)], axis=1)
    np.savetxt(folder / "varying.csv", varying, "%.6g", ",", header="fa,tr", comments="")
    np.savetxt(folder / "flips.txt", flip)
    y, x = np.mgrid[-1:1:9j, -1:1:8j]
    inside, kind = x**2 + y**2 < 1.4, (x > 0.1).astype(int)
    maps = {name: np.where(inside, np.array(values)[kind], 0) for name, values in TISSUES.items()}
    np.savez(folder / "phantom.npz", **maps, b1=1 + 0.1 * y, b0=20 * x, voxel_size=np.array([2e-3, 3e-3, 5e-3]))
    return folder


def program(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "jaxmr", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def bloch(folder) -> tuple[Path, str]:
    """A run of EPG-Bloch as a user starts it: its folder and what it printed."""
    out = folder / "runs" / "bloch"
    scan = ["--schedule", folder / "constant.csv", "--phantom", folder / "phantom.npz"]
    done = program("fingerprint", "--out", out, *scan, *GRID)
    assert done.stderr == ""
    return out, done.stdout


@pytest.fixture(scope="session")
def epg(folder) -> Path:
    """A run of plain EPG in this process."""
    out = folder / "epg"
    scan = ["--schedule", str(folder / "constant.csv"), "--phantom", str(folder / "phantom.npz")]
    assert main(["fingerprint", "--out", str(out), *scan, *GRID, "--model", "epg"]) == 0
    return out


def truth(folder) -> tuple[dict[str, np.ndarray], np.ndarray]:
    with np.load(folder / "phantom.npz") as archive:
        maps = dict(archive)
    return maps, maps["m0"] > 0


def test_a_fingerprint_finds_the_tissue_that_was_simulated(bloch, folder):
    maps, mask = truth(folder)
    for name, tolerance in {"t1": 0.01, "t2": 0.02, "b1": 0.01, "m0": 0.02}.items():
        found = read_map(bloch[0] / f"{name}.nii.gz")
        np.testing.assert_allclose(found[mask], maps[name][mask], rtol=tolerance, err_msg=name)
        assert not found[~mask].any()
    assert nib.load(bloch[0] / "t1.nii.gz").header.get_zooms() == pytest.approx((2, 3, 5))


def test_m0_has_the_phase_that_off_resonance_gives_it(bloch, folder):
    """The dictionary is on resonance: what precesses until the echo, exp(2 pi i b0 te), is left to M0."""
    maps, mask = truth(folder)
    expected = np.exp(2j * np.pi * maps["b0"] * 3e-3)
    turned = np.exp(1j * read_map(bloch[0] / "m0_phase.nii.gz"))
    np.testing.assert_allclose(turned[mask], expected[mask], atol=1e-3)


def test_the_folder_of_a_fingerprint_is_complete_and_describes_itself(bloch, folder):
    out, printed = bloch
    maps = ("t1", "t2", "b1", "m0", "m0_phase", "correlation")
    files = {*(f"{name}.nii.gz" for name in maps), "dictionary.h5", "maps.png", "schedule.png"}
    assert {path.name for path in out.iterdir()} == files | {"schedule.csv", "summary.json"}
    for picture in ("maps.png", "schedule.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    schedules = (out / "schedule.csv", folder / "constant.csv")
    written, given = (np.loadtxt(path, delimiter=",", skiprows=1) for path in schedules)
    np.testing.assert_allclose(written, given, rtol=1e-5)
    dictionary = load_dictionary(out / "dictionary.h5")
    assert dictionary.atoms.shape == (8 * 6 * 5, PULSES)
    assert np.unique(dictionary.t1)[[0, -1]] == pytest.approx((0.6, 2.4))
    about = read_about(out / "dictionary.h5")
    assert "80 pulses, TR 12 ms, TE 3 ms, inversion 20 ms before" in about["scan"]
    assert about["model"].startswith("EPG-Bloch, Gaussian pulse 1 ms, time-bandwidth 3, slice 5 mm")
    assert len(about["flip_deg"].split()) == PULSES
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n_atoms"] == 240
    assert summary["n_voxels"] == summary["n_pure_voxels"] == int(truth(folder)[1].sum())
    assert {"scan", "dictionary", "matching", "files", "total"} < summary["seconds"].keys()
    assert all(summary["accuracy"][name]["within_half_step"] == 1 for name in ("t1", "t2", "b1"))
    assert "240 atoms: T1 8 (600 ... 2400 ms), T2 6 (45 ... 110 ms), B1 5 (0.85 ... 1.15)" in printed
    assert printed.splitlines()[0] == f"jaxmr {mr.__version__} fingerprint on {summary['devices']}"
    assert len(printed.splitlines()) < 24


def test_dictionary_simulate_and_match_are_the_steps_of_a_fingerprint(epg, folder, capsys):
    scan = ["--schedule", str(folder / "constant.csv"), "--model", "epg"]
    atoms, signals, out = (str(folder / "steps" / name) for name in ("d.h5", "signals.npz", "maps"))
    assert main(["dictionary", "--out", atoms, *scan, *GRID]) == 0
    assert main(["simulate", "--out", signals, "--phantom", str(folder / "phantom.npz"), *scan]) == 0
    capsys.readouterr()
    assert main(["match", atoms, signals, "--refine", "--out", out]) == 0
    printed = capsys.readouterr().out
    for name in ("t1", "t2", "b1", "m0"):
        np.testing.assert_allclose(read_map(f"{out}/{name}.nii.gz"), read_map(epg / f"{name}.nii.gz"), rtol=1e-6)
    mask = truth(folder)[1]
    assert f"{mask.sum()} of {signals}, median correlation 1.0000" in printed
    assert "80 pulses, TR 12 ms" in printed
    assert Path(out, "maps.png").read_bytes().startswith(b"\x89PNG")

    rough = str(folder / "steps" / "rough")
    np.save(folder / "mask.npy", mask & (np.arange(8) > 4))
    assert main(["match", atoms, signals, "--mask", str(folder / "mask.npy"), "--out", rough]) == 0
    t1 = read_map(f"{rough}/t1.nii.gz")
    assert set(np.unique(t1)) - {0} <= set(load_dictionary(atoms).t1)
    np.testing.assert_array_equal(t1 > 0, np.load(folder / "mask.npy"))


def test_signals_of_a_reconstruction_may_be_nifti_or_numpy(folder, epg, tmp_path):
    assert main(["simulate", "--out", str(tmp_path / "s.npz"), "--phantom", str(folder / "phantom.npz"),
                 "--schedule", str(folder / "constant.csv"), "--model", "epg"]) == 0  # fmt: skip
    signals, size = read_signals(tmp_path / "s.npz")
    assert size == pytest.approx((2e-3, 3e-3, 5e-3))
    (like,) = write_maps(tmp_path, {"like": np.ones(signals.shape[:2])}, size)
    image = nib.Nifti1Image(signals.astype(np.complex64).swapaxes(0, 1)[:, :, None], nib.load(like).affine)
    theirs, ours = nib.orientations.axcodes2ornt("PSR"), nib.orientations.io_orientation(image.affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(ours, theirs))
    nib.save(turned, tmp_path / "s.nii.gz")  # another program's order of axes
    np.save(tmp_path / "s.npy", signals)
    with pytest.raises(ValueError, match="does not tell the size of a voxel; give --voxel-size in mm"):
        fail(["match", epg / "dictionary.h5", tmp_path / "s.npy", "--out", tmp_path / "x"])
    series, size = read_series(tmp_path / "s.nii.gz")
    np.testing.assert_array_equal(series, signals.astype(np.complex64))
    assert size == pytest.approx((2e-3, 3e-3, 5e-3))
    match = ["match", str(epg / "dictionary.h5")]
    for run, file in {"nifti": ["s.nii.gz"], "npy": ["s.npy", "--voxel-size", "2,3,5"]}.items():
        file[0] = str(tmp_path / file[0])
        assert main([*match, *file, "--refine", "--out", str(tmp_path / run)]) == 0
        found = nib.load(tmp_path / run / "t1.nii.gz")
        assert found.header.get_zooms() == pytest.approx((2, 3, 5))
        np.testing.assert_allclose(read_map(tmp_path / run / "t1.nii.gz"), read_map(epg / "t1.nii.gz"), rtol=1e-5)


def test_what_makes_a_match_wrong_is_noted(folder):
    phantom = mr.objects.load(folder / "phantom.npz")
    images = mr.objects.truth(phantom)
    values = {name: image[images["m0"] > 0] for name, image in images.items()}
    constant = scan_of("--schedule", folder / "constant.csv")
    varying = constant._replace(tr=np.linspace(12e-3, 14e-3, PULSES))
    grid = options.grid(["t1=500:2000:9"], constant)
    assert notes(constant, phantom, values, grid) == []
    (note,) = notes(varying, phantom, values, grid)
    assert note.startswith("TR or TE varies, so that off-resonance changes the signal beyond its phase")
    assert note.endswith("add an axis: --grid b0=-20:20:COUNT")
    assert notes(varying, phantom, values, options.grid(["b0=-20:20:5"], varying)) == []
    (note,) = notes(constant, phantom, values, options.grid(["t1=900:2000:9"], constant))
    assert note == f"T1 of {(values['t1'] < 0.9).sum()} voxels lies beyond the grid, where no match can be right"
    (note,) = notes(constant, phantom, {**values, "purity": np.full(values["t1"].size, 0.9)}, grid)
    assert note == "no voxel is of one tissue, so nothing was scored"


def test_a_b0_axis_finds_off_resonance_where_times_vary(folder, tmp_path):
    """The bound is reached: the spread of many voxels is that of the best unbiased estimator."""
    n = 24
    flat = {name: np.full((n, n), values[0]) for name, values in TISSUES.items()}
    b0 = np.broadcast_to(np.linspace(-10, 10, n), (n, n))
    np.savez(tmp_path / "p.npz", **flat, b0=b0, voxel_size=np.full(3, 2e-3))
    scan = ["--schedule", str(folder / "varying.csv"), "--te", "3", "--phantom", str(tmp_path / "p.npz")]
    grid = ["--grid", "t1=700:1000:5", "t2=55:90:5", "b1=1", "b0=-16:16:9"]
    assert main(["fingerprint", *scan, *grid, "--model", "epg", "--snr", "100", "--out", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["notes"] == []
    scores = summary["precision"]["white matter"]
    assert scores.keys() == {"t1", "t2", "b0", "m0"}
    for name, score in scores.items():
        assert 0.85 < score["spread"] / score["bound"] < 1.2, (name, score)
    found = read_map(tmp_path / "out" / "b0.nii.gz")
    assert np.median(np.abs(found - b0)) < 2 * scores["b0"]["bound"]


def test_simulate_writes_numbers_and_pictures(folder, tmp_path, capsys):
    run = ["simulate", "--schedule", str(folder / "flips.txt"), "--tr", "12", "--te", "3", "--model", "epg"]
    run += ["--t1", "838,1607", "--t2", "71,76", "--b1", "0.9"]
    for name in ("s.csv", "s.npz", "s.png"):
        assert main([*run, "--out", str(tmp_path / "new" / name)]) == 0
    assert "no inversion" not in capsys.readouterr().out
    flip = np.radians(np.loadtxt(folder / "flips.txt"))
    sequence = mr.sequences.fisp(flip, 12e-3, 3e-3, 20e-3)
    exact = mr.simulate(sequence, mr.Tissue(t1=[0.838, 1.607], t2=[0.071, 0.076], b1=0.9), mr.EPG())
    with np.load(tmp_path / "new" / "s.npz", allow_pickle=False) as archive:
        np.testing.assert_allclose(archive["signals"], exact, atol=1e-3)
        np.testing.assert_allclose(archive["t1"], [0.838, 1.607])
    table = np.loadtxt(tmp_path / "new" / "s.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table[:, 3] + 1j * table[:, 4], exact[1], atol=1e-3)
    head = (tmp_path / "new" / "s.csv").read_text().splitlines()[0]
    assert head.startswith('pulse,"real (T1 838, T2 71, B1 0.9)","imaginary (T1 838')
    assert (tmp_path / "new" / "s.png").read_bytes().startswith(b"\x89PNG")


def fail(arguments) -> None:
    """Run a command for its exception."""
    parsed = command_line().parse_args([str(argument) for argument in arguments])
    __import__(f"jaxmr.cli.{parsed.command}", fromlist=["run"]).run(parsed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND; see jaxmr --help"),
        ("fingerprint", "the following arguments are required: --out; see jaxmr fingerprint --help"),
        ("fingerprint --out o --model bloch", "invalid choice: 'bloch'"),
        ("fingerprint --out o --snr 0", "--snr must be positive, got 0; leave it out for no noise"),
        ("fingerprint --out o --schedule absent.csv", "absent.csv: No such file or directory"),
        ("fingerprint --out o --schedule flips.txt --te 3", "flips.txt has no column tr; give --tr in ms"),
        ("fingerprint --out o --schedule constant.csv --tr 12", "constant.csv has a column tr; leave out --tr"),
        ("fingerprint --out o --phantom absent.npz", "cannot read absent.npz: there is no such file or folder"),
        ("fingerprint --out o --grid t1=3:2:10", "--grid t1=3:2:10: expected t1=START:STOP:COUNT"),
        ("fingerprint --out o --grid t3=1:2:10", "--grid t3=1:2:10: expected"),
        ("fingerprint --out o --grid t1=0:2:10", "positive (except b0) and ascending"),
        ("fingerprint --out o --grid b0=-20:20:5", "off-resonance is only a phase of M0, which no match can tell"),
        ("fingerprint --out o --tolerance 2", "tolerance is a relative error between 0 and 1, got 2.0"),
        ("fingerprint --out constant.csv", "constant.csv: File exists"),
        ("dictionary --out d.h5 --grid t1=30 t2=100", "every atom has t2 > t1 and was dropped"),
        ("dictionary --out d.h5 --memory 2GB", "--memory is for a zarr folder, and --out is d.h5; end it in .zarr"),
        ("dictionary --out d.zarr --memory 2", "argument --memory: invalid size value: '2'"),
        ("dictionary --out d.zarr --memory -1GB", "argument --memory: "),
        ("simulate --out s.txt --t1 1 --t2 1", "--out s.txt: write a .npz, or of --t1 and --t2 a .csv or .png"),
        ("simulate --out s.csv --phantom brain", "--out s.csv: write a .npz"),
        ("simulate --out s.csv --t1 838", "simulate needs --t1 and --t2 (ms), or --phantom"),
        ("simulate --out s.npz --phantom phantom.npz --t1 8", "give --phantom or --t1 and --t2"),
        ("simulate --out s.csv --t1 1,2,3 --t2 1,2", "one value or as many as the others, got --t1 3, --t2 2"),
        ("simulate --out s.csv --t1 one --t2 1", "argument --t1: invalid numbers value: 'one'"),
        ("match absent.h5 phantom.npz --out o", "No such file or directory"),
        ("match constant.csv phantom.npz --out o", "constant.csv cannot be read as a jaxmr dictionary"),
        ("match epg/dictionary.h5 phantom.npz --out o", "no array called signals, only t1, t2"),
        ("match epg/dictionary.h5 constant.csv --out o", "constant.csv cannot be read as .npy, .npz or NIfTI"),
        ("match epg/dictionary.h5 real.npy --out o", "signals must be complex with the echoes on the last axis"),
        ("match epg/dictionary.h5 objects.npy --out o", "objects.npy cannot be read"),
        ("match epg/dictionary.h5 epg/t1.nii.gz --out o", "a series of images has four"),
        ("match epg/dictionary.h5 zero.npy --out o --voxel-size 1", "the mask is empty, or all signals are zero"),
        ("match epg/dictionary.h5 short.npy --out o --voxel-size 1", "signals must end in an axis of n_points = 80"),
        ("match epg/dictionary.h5 short.npy --out o --voxel-size 1,2", "one number or three (dx,dy,dz), in mm, got 2"),
        ("match epg/dictionary.h5 short.npy --out o --voxel-size 1 --mask mask2.npy", "the mask has shape (2, 2)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, folder, epg, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    np.save("real.npy", np.ones((4, 5, PULSES)))
    np.save("zero.npy", np.zeros((4, 5, PULSES), complex))
    np.save("short.npy", np.ones((4, 5, 7), complex))
    np.save("mask2.npy", np.ones((2, 2)))
    np.save("objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    assert main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("jaxmr: error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_the_program_ends_with_status_2_and_no_traceback(folder):
    done = program("fingerprint", "--out", folder / "never", "--schedule", folder / "absent.csv", check=False)
    assert done.returncode == 2
    assert done.stderr == f"jaxmr: error: {folder / 'absent.csv'}: No such file or directory\n"
    assert not (folder / "never").exists()


def test_an_interrupt_ends_the_program_quietly(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxmr.cli.info.run", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "jaxmr: interrupted\n"


@pytest.mark.parametrize("command", ["", "fingerprint", "dictionary", "match", "simulate", "info"])
def test_help_has_an_example_that_is_valid(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    for example in re.findall(r"jaxmr ([a-z].*)", capsys.readouterr().out.split("example:")[1]):
        assert command_line().parse_args(example.split()).command == (command or "fingerprint")
        checked = True
    assert checked


@pytest.mark.parametrize(("word", "n_z"), [("auto", None), ("48", 48)])
def test_sub_slices_are_given_or_left_to_the_plan(word, n_z):
    parsed = command_line().parse_args(["dictionary", "--out", "d.h5", "--slices", word])
    model = options.model(parsed)
    assert (model.n_z, model.tolerance) == (n_z, 1e-3)
    assert options.model(command_line().parse_args(["dictionary", "--out", "d.h5"])).n_z == 32


def test_info_prints_versions_and_devices():
    import jax

    printed = dict(line.split(maxsplit=1) for line in program("info").stdout.splitlines())
    assert printed["jaxmr"] == mr.__version__
    assert printed["jax"] == jax.__version__
    assert printed["numpy"] == np.__version__
    assert printed.keys() == {"jaxmr", "python", "jax", "jaxlib", "equinox", "numpy", "devices"}


def scan_of(*arguments: str):
    return options.scan(command_line().parse_args(["simulate", "--out", "s.npz", *map(str, arguments)]))


def test_constant_times_are_scalars_and_the_built_in_scan_is_the_documented_one(folder):
    constant = scan_of("--schedule", folder / "constant.csv")
    varying = scan_of("--schedule", folder / "varying.csv", "--te", "2")
    assert constant.constant
    assert not varying.constant
    assert [event.duration.ndim for event in constant.sequence.segments[-1].events] == [0, 0]
    assert [event.duration.ndim for event in varying.sequence.segments[-1].events] == [0, 1]
    built_in = scan_of()
    assert built_in.sequence.n_echoes == 1000
    assert (built_in.tr, built_in.te, built_in.inversion_time) == pytest.approx((12e-3, 3e-3, 20e-3))
    assert np.degrees(built_in.flip).max() <= 70
    assert len(scan_of("--inversion-time", "none").sequence.segments) == 1
    assert scan_of("--tr", "15", "--te", "4").tr == pytest.approx(15e-3)


def test_axes_are_spaced_as_the_help_says_and_the_default_grid_is_large_enough():
    axes = options.grid(["t2=20:320:5", "b1=1.1,0.9,1", "b0=-20:20:5"], scan_of()._replace(tr=np.ones(3)))
    np.testing.assert_allclose(axes["t2"], [0.02, 0.04, 0.08, 0.16, 0.32])
    np.testing.assert_allclose(axes["b1"], [0.9, 1, 1.1])
    np.testing.assert_allclose(axes["b0"], [-20, -10, 0, 10, 20])
    axes = options.grid([], scan_of())
    t1, t2 = np.meshgrid(axes["t1"], axes["t2"])
    assert (t2 <= t1).sum() * axes["b1"].size >= 20_000


def test_without_nilearn_an_invented_brain_stands_in(monkeypatch, capsys):
    def missing():
        raise ImportError("brain() reads the ICBM template of the package nilearn")

    monkeypatch.setattr("jaxmr.objects.brain", missing)
    phantom, name = options.phantom(None)
    assert phantom.matrix == (112, 112)
    assert name == "procedural brain (nilearn is missing)"
    assert "uv sync --extra brain" in capsys.readouterr().err
    with pytest.raises(ImportError, match="nilearn"):
        options.phantom("brain")


def test_a_dictionary_can_be_compressed(folder, tmp_path, capsys):
    run = ["dictionary", "--schedule", str(folder / "constant.csv"), "--model", "epg", *GRID, "--rank", "6"]
    assert main([*run, "--out", str(tmp_path / "d.h5")]) == 0
    assert "rank 6, 99.9" in capsys.readouterr().out
    with h5py.File(tmp_path / "d.h5") as file:
        assert file["atoms"].shape == (240, 6)
        assert file["basis"].shape == (PULSES, 6)


def test_a_zarr_folder_is_a_dictionary_that_goes_on(folder, tmp_path, capsys):
    """Begun, found complete the second time, described, and matched to the same maps as the HDF5 file."""
    scan = ["--schedule", str(folder / "constant.csv"), "--model", "epg"]
    run = ["dictionary", *scan, *GRID, "--rank", "6"]
    assert main([*run, "--out", str(tmp_path / "d.h5")]) == 0
    for _ in range(2):
        assert main([*run, "--memory", "1MB", "--out", str(tmp_path / "d.zarr")]) == 0
        assert "rank 6, 99.9" in capsys.readouterr().out
    assert main(["simulate", *scan, "--t1", "838,1607", "--t2", "71,76", "--out", str(tmp_path / "s.npz")]) == 0
    told = []
    for name in ("d.h5", "d.zarr"):
        capsys.readouterr()
        assert main(["info", str(tmp_path / name)]) == 0
        told.append(sorted(capsys.readouterr().out.splitlines()))
        assert main(["match", str(tmp_path / name), str(tmp_path / "s.npz"), "--out", str(tmp_path / name[2:])]) == 0
    assert told[0] == told[1]
    assert {"atoms      240", "echoes     80", "T2         45 ... 110 ms"} < set(told[0])
    for name in ("t1", "t2"):
        ours, theirs = (read_map(tmp_path / kind / f"{name}.nii.gz") for kind in ("h5", "zarr"))
        assert np.array_equal(ours, theirs)


@pytest.mark.slow
def test_the_default_fingerprint_is_accurate_and_fast(tmp_path):
    """The issue's bars, for the command of the README."""
    pytest.importorskip("nilearn")
    started = time.perf_counter()
    program("fingerprint", "--out", tmp_path / "out")
    seconds = time.perf_counter() - started
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["ran"]["phantom"].startswith("brain (ICBM 152)")
    assert summary["n_atoms"] >= 20_000
    assert summary["n_pure_voxels"] > 2000
    for name in ("t1", "t2", "b1"):
        assert summary["accuracy"][name]["within_half_step"] >= 0.95, name
        assert summary["accuracy"][name]["median_error"] < 0.01, name
    assert summary["seconds"]["dictionary"] < 60
    assert seconds < 120
