"""`jaxmr scan` as its users start it: a phantom in, raw data, an image, a figure and a summary out."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

import jaxmr as mr
from jaxmr.__main__ import main
from jaxmr.cli import scan_subject
from jaxmr.cli.parser import PROTOCOLS, command_line
from jaxmr.cli.scan import mosaic, reconstruction
from jaxmr.cli.scan_sequences import protocol
from jaxmr.io.nifti import read_map
from jaxmr.units import deg, mm, ms

N = 16
SMALL = ["--matrix", str(N), "--dummies", "24"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Discs of white matter and CSF that tell up from down and left from right, 4 mm voxels, without and with B0."""
    folder = tmp_path_factory.mktemp("scan")
    y, x = np.mgrid[:N, :N] - N // 2
    tissue = x**2 + y**2 < 40
    fluid = (x - 2) ** 2 + (y + 3) ** 2 < 4  # in front, on the patient's left
    maps = {
        "t1": np.where(fluid, 2.0, 0.85) * tissue,
        "t2": np.where(fluid, 0.3, 0.07) * tissue,
        "m0": np.where(fluid, 1.0, 0.7) * tissue,
    }
    size = np.full(3, 4e-3)
    np.savez(folder / "flat.npz", **maps, voxel_size=size)
    np.savez(folder / "wavy.npz", **maps, b0=3.0 * x, voxel_size=size)
    return folder


def program(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "jaxmr", "scan", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def gre(folder) -> tuple[Path, str]:
    """A gradient echo as a user starts it: its folder and what it printed."""
    done = program("--phantom", folder / "wavy.npz", *SMALL, "--out", folder / "runs" / "gre")
    assert done.stderr == ""
    return folder / "runs" / "gre", done.stdout


def lines_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Headers and samples `(lines, coils, n)` of an ISMRMRD file, by h5py alone."""
    with h5py.File(path) as file:
        rows = file["dataset/data"][:]
    heads = rows["head"]
    n_coils, n = heads["active_channels"][0], heads["number_of_samples"][0]
    return heads, np.array([line.view(np.complex64).reshape(n_coils, n) for line in rows["data"]])


def transformed(path: Path, matrix: tuple[int, ...]) -> np.ndarray:
    """The image of the first coil by counters, flags and NumPy's FFT."""
    heads, lines = lines_of(path)
    grid = np.zeros(matrix, complex).reshape(-1, *matrix[-2:])
    for head, line in zip(heads, lines[:, 0], strict=True):
        # Of a line of N that runs backwards, the first sample is the last place.
        turned = line[::-1] if head["flags"] >> np.uint64(21) & np.uint64(1) else line
        grid[head["idx"]["kspace_encode_step_2"], head["idx"]["kspace_encode_step_1"]] = turned
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(grid.reshape(matrix))))


def image_of(out: Path) -> np.ndarray:
    return read_map(out / "image.nii.gz") * np.exp(1j * read_map(out / "image_phase.nii.gz"))


def arguments_of(*words: str | Path):
    return command_line().parse_args(["scan", "--out", "o", *map(str, words)])


def test_the_folder_is_complete_and_describes_itself(gre, folder):
    out, printed = gre
    files = {"image.nii.gz", "image_phase.nii.gz", "raw.h5", "scan.png", "summary.json"}
    assert {path.name for path in out.iterdir()} == files
    assert (out / "scan.png").read_bytes().startswith(b"\x89PNG")
    assert nib.load(out / "image.nii.gz").header.get_zooms() == pytest.approx((4, 4, 4))
    summary = json.loads((out / "summary.json").read_text())
    assert printed.startswith(f"jaxmr {mr.__version__} scan on ")
    assert {"phantom", "plan", "scan", "image", "files", "total"} == summary["seconds"].keys()
    assert summary["ran"]["scan"] == (
        "gre, 16 x 16 voxels of 4 x 4 x 4 mm, flip 60 degrees, TR 100 ms, TE 5 ms, 24 dummies, 256 samples in 4 s"
    )
    assert summary["ran"]["model"].startswith("phase distribution graph, tolerance 0.001 (")
    assert summary["ran"]["coils"] == "one, uniform"


def test_the_image_is_the_fourier_transform_of_the_raw_data(gre):
    out, _ = gre
    assert lines_of(out / "raw.h5")[0]["sample_time_us"][0] == pytest.approx(20)
    np.testing.assert_allclose(image_of(out), transformed(out / "raw.h5", (N, N)), atol=1e-6)


def test_the_image_is_the_tissue_in_its_place(gre, folder):
    """Spoiled steady state of the phantom, pixel by pixel, with the phase that off-resonance gives it until TE."""
    phantom = mr.objects.load(folder / "wavy.npz")
    sequence = mr.sequences.spgr(np.full(N + 24, 60 * deg), 100 * ms, 5 * ms)
    # The rows in the middle of k-space, taken in the middle of the scan, decide the contrast.
    signal = np.asarray(mr.simulate(sequence, phantom.tissue, mr.EPG()))[:, 24 + N // 2]
    expected = np.asarray(mr.objects.to_image(phantom, signal))
    found = image_of(gre[0])
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("sequence", ["tse", "epi", "bssfp"])
def test_other_cartesian_sequences_transform_alike_and_show_fluid_bright(sequence, folder, tmp_path):
    own = {"tse": ["--dummies", "1"], "epi": ["--te", "30"], "bssfp": ["--dummies", "2"]}[sequence]
    run = ["scan", "--sequence", sequence, "--phantom", str(folder / "wavy.npz"), "--matrix", str(N), *own]
    assert main([*run, "--out", str(tmp_path)]) == 0
    heads, _ = lines_of(tmp_path / "raw.h5")
    reverse = (heads["flags"] >> np.uint64(21)) & np.uint64(1)
    assert list(reverse[:4]) == ([0, 1, 0, 1] if sequence == "epi" else [0, 0, 0, 0])
    found = image_of(tmp_path)
    np.testing.assert_allclose(found, transformed(tmp_path / "raw.h5", (N, N)), atol=1e-5)
    # Rows run from the face to the back, columns from the patient's right to the left.
    assert np.unravel_index(np.argmax(np.abs(found)), found.shape)[0] in (4, 5, 6)
    assert np.unravel_index(np.argmax(np.abs(found)), found.shape)[1] in (9, 10, 11)


def test_non_cartesian_scans_give_the_cartesian_image(folder, tmp_path):
    """In the disc of k-space that all of them sample; flips so small that no line differs from the others."""
    run = ["--phantom", str(folder / "flat.npz"), "--matrix", str(N), "--te", "4", "--flip", "2", "--dummies", "0"]
    edge = np.hypot(*np.mgrid[:N, :N] - N // 2) < 0.9 * N // 2
    inside = {}
    for name in ("gre", "radial", "spiral"):
        assert main(["scan", "--sequence", name, *run, "--out", str(tmp_path / name)]) == 0
        inside[name] = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image_of(tmp_path / name))))[edge]
    for name in ("radial", "spiral"):
        error = np.linalg.norm(inside[name] - inside["gre"]) / np.linalg.norm(inside["gre"])
        assert error < 0.02, name
        found = mr.io.read_raw(tmp_path / name / "raw.h5")
        assert found.k is not None
        assert np.linalg.norm(found.k, axis=1).max() == pytest.approx(np.pi / 4e-3, rel=0.05)
        assert found.description.trajectory == name


def test_mprage_fills_a_volume(folder, tmp_path):
    run = ["scan", "--sequence", "mprage", "--phantom", str(folder / "flat.npz"), "--matrix", "2x4x8", "--dummies", "1"]
    assert main([*run, "--out", str(tmp_path)]) == 0
    volume = image_of(tmp_path)
    assert volume.shape == (2, 4, 8)
    np.testing.assert_allclose(volume, transformed(tmp_path / "raw.h5", (2, 4, 8)), atol=1e-6)
    assert nib.load(tmp_path / "image.nii.gz").header.get_zooms() == pytest.approx((8, 16, 4))
    np.testing.assert_allclose(np.abs(volume[0]), np.abs(volume[1]), rtol=0.05, atol=2e-3)
    raw = mr.io.read_raw(tmp_path / "raw.h5")
    assert raw.description.timing["ti"] == pytest.approx(0.9)


def test_isochromats_agree_with_the_graph(gre, folder, tmp_path):
    """Up to the shape of a voxel, which is a box of spins, but band limited in the graph."""
    run = ["--phantom", str(folder / "wavy.npz"), *SMALL, "--model", "isochromats", "--isochromats", "32"]
    assert main(["scan", *run, "--out", str(tmp_path)]) == 0
    box = np.sinc((np.arange(N) - N // 2) / N)
    graph, spins = (transformed(out / "raw.h5", (N, N)) for out in (gre[0], tmp_path))
    graph, spins = (np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(image))) for image in (graph, spins))
    inside = slice(1, None)
    expected = (graph * box * box[:, None])[inside, inside]
    assert np.linalg.norm(spins[inside, inside] - expected) < 0.02 * np.linalg.norm(expected)


def test_coils_are_combined_to_the_image_of_one(gre, folder, tmp_path):
    assert main(["scan", "--phantom", str(folder / "wavy.npz"), *SMALL, "--coils", "5", "--out", str(tmp_path)]) == 0
    heads, lines = lines_of(tmp_path / "raw.h5")
    assert heads["active_channels"][0] == lines.shape[1] == 5
    one, several = image_of(gre[0]), image_of(tmp_path)
    np.testing.assert_allclose(several, one, atol=0.02 * np.abs(one).max())


def test_noise_has_the_stated_strength_and_its_seed(gre, folder, tmp_path):
    noisy = {}
    for name in "ab":
        run = ["--phantom", str(folder / "wavy.npz"), *SMALL, "--snr", "10", "--seed", "1"]
        assert main(["scan", *run, "--out", str(tmp_path / name)]) == 0
        noisy[name] = image_of(tmp_path / name)
    np.testing.assert_array_equal(noisy["a"], noisy["b"])
    clean = image_of(gre[0])
    tissue = np.load(folder / "wavy.npz")["m0"] > 0
    rms = np.sqrt(np.mean(np.abs(clean[tissue]) ** 2))
    errors = noisy["a"] - clean
    assert rms / np.std([errors.real, errors.imag]) == pytest.approx(10, rel=0.1)
    np.testing.assert_allclose(noisy["a"], transformed(tmp_path / "a" / "raw.h5", (N, N)), atol=1e-6)


@pytest.mark.parametrize(("sequence", "matrix"), [("radial", 24), ("spiral", 24), ("gre", 24)])
def test_the_gain_of_noise_is_what_noise_does(sequence, matrix):
    small = ["--matrix", str(matrix), "--dummies", "0"]
    options = arguments_of("--sequence", sequence, "--phantom", "procedural", *small)
    _, _, geometry = scan_subject.subject(options)
    played = protocol(options, geometry)
    to_image, gain = reconstruction(played, geometry)
    parts = np.random.default_rng(0).standard_normal((1, len(played.k), 2))
    image = to_image(parts.view(complex)[..., 0])
    assert np.std(np.stack([image.real, image.imag])) == pytest.approx(gain, rel=0.1)


@pytest.mark.parametrize("sequence", PROTOCOLS)
def test_the_default_protocols_sample_the_echo_at_te(sequence):
    """The sample at the centre of k-space is taken te after the pulse, and the figure shows what is sampled."""
    matrix = "2x8x8" if sequence == "mprage" else "32"
    dummies = ["--dummies", "0"] if sequence in ("radial", "spiral") else []
    options = arguments_of("--sequence", sequence, "--phantom", "procedural", "--matrix", matrix, *dummies)
    _, _, geometry = scan_subject.subject(options)
    played = protocol(options, geometry)
    times = np.asarray(mr.sequences.sample_times(played.sequence))
    middle = int(np.argmin(np.linalg.norm(played.k, axis=1)))
    assert np.linalg.norm(played.k[middle]) < 0.06 * np.linalg.norm(played.k, axis=1).max()
    te = played.timing["te"]
    if sequence in ("epi",):
        assert times[middle] == pytest.approx(te, abs=played.dwell / 2)
    elif sequence == "tse":
        assert times[middle] % played.timing["tr"] == pytest.approx(te, abs=played.dwell)
    elif sequence == "bssfp":
        assert (times[middle] - played.timing["tr"] / 2) % played.timing["tr"] == pytest.approx(te, abs=2e-6)
    elif sequence != "mprage":
        assert times[middle] % played.timing["tr"] == pytest.approx(te, abs=2 * played.dwell)
    shown, n_pulses = played.diagram
    assert shown.n_echoes == played.sequence.n_echoes
    assert n_pulses >= 1


def test_a_brain_has_all_its_slices(monkeypatch):
    pytest.importorskip("nilearn")
    monkeypatch.setattr(scan_subject, "HIGHEST", 0.02)  # above, there is nothing
    options = arguments_of("--sequence", "mprage", "--matrix", "3x16x16")
    phantom, name, geometry = scan_subject.subject(options)
    assert name.startswith("brain")
    assert phantom.matrix == (3, 16, 16)
    assert geometry.fov == pytest.approx((0.2128, 0.2128, 3 * 0.2128 / 16))
    np.testing.assert_allclose(np.unique(np.asarray(phantom.position)[:, 2]), np.array([-1, 0]) * 0.0133, rtol=1e-5)
    truth = mr.objects.truth(phantom)["m0"]
    middle = mr.objects.truth(mr.objects.brain(16))["m0"]
    np.testing.assert_allclose(truth[1], middle, rtol=1e-6)
    assert truth[0].any()
    assert np.abs(truth[0] - middle).max() > 0.1
    assert not truth[2].any()


def test_fields_of_view_are_those_asked_for(folder):
    file = ["--phantom", str(folder / "flat.npz")]
    subject = lambda *words: scan_subject.subject(arguments_of(*words))  # noqa: E731
    assert subject(*file, "--matrix", "8x16")[2].voxel_size == pytest.approx((4 * mm, 8 * mm, 4 * mm))
    assert subject(*file, "--matrix", "8x16", "--fov", "80,60")[2].fov == pytest.approx((80 * mm, 60 * mm, 4 * mm))
    phantom, name, geometry = subject("--phantom", "procedural", "--fov", "240", "--matrix", "60")
    assert float(phantom.voxel_size[0]) <= geometry.voxel_size[0] == pytest.approx(4 * mm)
    assert name == "procedural brain"
    _, name, geometry = subject(*file, "--sequence", "mprage", "--matrix", "3x8x8", "--fov", "64,64,24")
    assert geometry.voxel_size == pytest.approx((8 * mm, 8 * mm, 8 * mm))
    assert name.endswith("flat.npz, the same in 6 slices")


def test_a_mosaic_goes_row_by_row():
    volume = np.arange(1, 6)[:, None, None] * np.ones((5, 2, 3))
    tiles = mosaic(volume)
    assert tiles.shape == (4, 9)
    assert tiles[::2, ::3].tolist() == [[1, 2, 3], [4, 5, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: --out; see jaxmr scan --help"),
        ("--out o --sequence flash", "'flash' is none of gre, bssfp"),
        ("--out o --matrix 0", "--matrix 0: gre needs one number or 96x96, of 2 voxels and more"),
        ("--out o --matrix 4x8x8", "--matrix 4x8x8: gre needs one number or 96x96"),
        ("--out o --sequence mprage --matrix 8x8", "--matrix 8x8: mprage needs one number or 16x64x64"),
        ("--out o --matrix big", "argument --matrix: invalid sizes value: 'big'"),
        ("--out o --fov -1", "--fov is one positive number or x,y, mm, got -1"),
        ("--out o --sequence spiral --matrix 8x16", "--matrix and --fov of spiral must be square, got 8x16"),
        ("--out o --te 0.1", "--te 0.1 ms is too short for lines of 96 samples"),
        ("--out o --sequence tse --te 1", "--te 1 ms is too short for lines of 96 samples"),
        ("--out o --sequence epi --te 5", "te 0.005 s is shorter than the way to the centre of k-space"),
        ("--out o --tr 5.1", "--tr leaves 0.1 ms after the echo"),
        ("--out o --te 0", "--te must be positive, ms, got 0"),
        ("--out o --sequence epi --tr 100", "--tr is no option of epi; leave it out"),
        ("--out o --inversion-time 100", "--inversion-time is no option of gre; leave it out"),
        ("--out o --dummies -1", "--dummies must be 0 (always with epi) or more, got -1"),
        ("--out o --coils 0", "--coils must be at least 1"),
        ("--out o --snr 0", "--snr must be positive, got 0"),
        ("--out o --tolerance 2", "tolerance is a relative error between 0 and 1, got 2.0"),
        ("--out o --model isochromats --isochromats 0", "per_voxel must be positive, got 0"),
        ("--out o --phantom absent.npz", "cannot read absent.npz: there is no such file or folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = arguments.split()
    words += [] if "--phantom" in words or not words else ["--phantom", "procedural"]
    assert main(["scan", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert not (tmp_path / "o").exists()


def test_help_has_examples_that_are_valid():
    done = program("--help")
    examples = done.stdout.split("example:")[1].split("\n  jaxmr ")[1:]
    assert len(examples) >= 2
    for example in examples:
        assert command_line().parse_args(example.split()).command == "scan"


@pytest.fixture(scope="module")
def pulseq_file(tmp_path_factory) -> Path:
    """A spoiled gradient echo of 16 lines, twofold oversampled, with a slice-selective pulse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyPulseq's syntax warnings
        import pypulseq as pp
    system = pp.Opts(max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s", rf_ringdown_time=20e-6)
    sequence, fov = pp.Sequence(system), 64e-3
    rf, gz, rephaser = pp.make_sinc_pulse(
        10 * deg,
        duration=2 * ms,
        slice_thickness=8e-3,
        apodization=0.5,
        return_gz=True,
        system=system,
        use="excitation",
    )
    read = pp.make_trapezoid("x", flat_area=N / fov, flat_time=1.28 * ms, system=system)
    adc = pp.make_adc(2 * N, duration=1.28 * ms, delay=read.rise_time, system=system)
    before = pp.make_trapezoid("x", area=-read.area / 2, duration=1 * ms, system=system)
    spoiler = pp.make_trapezoid("z", area=4 / 4e-3, duration=2 * ms, system=system)
    for i, line in enumerate([0] * 24 + list(range(N))):
        rf.phase_offset = adc.phase_offset = 117 * deg * i * (i + 1) / 2 % (2 * np.pi)
        along = pp.make_trapezoid("y", area=(line - N // 2) / fov, duration=1 * ms, system=system)
        back = pp.make_trapezoid("y", area=-along.area, duration=1 * ms, system=system)
        sequence.add_block(rf, gz)
        sequence.add_block(before, along, rephaser)
        sequence.add_block(read, *([] if i < 24 else [adc]))
        sequence.add_block(back, spoiler)
    sequence.set_definition("FOV", [fov, fov, 4e-3])
    path = tmp_path_factory.mktemp("pulseq") / "gre.seq"
    sequence.write(str(path))
    return path


@pytest.mark.parametrize("more", [[], ["--pulses", "finite"]], ids=["instantaneous", "finite"])
def test_a_pulseq_file_is_scanned(folder, pulseq_file, more, tmp_path):
    """The image is the phantom's own: upright, and its fluid in front on the patient's left."""
    main(["scan", "--sequence", str(pulseq_file), "--phantom", str(folder / "flat.npz"), *more, "--out", str(tmp_path)])
    image = np.abs(image_of(tmp_path))
    assert image.shape == (N, N)
    with np.load(folder / "flat.npz") as maps:
        inside, fluid = maps["m0"] > 0, maps["m0"] > 0.9
    assert image[inside].mean() > 20 * image[~inside].mean()
    place = lambda mask: np.argwhere(mask).mean(axis=0)  # noqa: E731
    # Little is saturated after so short a scan: the fluid, of the most magnetisation, is bright.
    bright = image > 1.2 * np.median(image[inside])
    assert np.abs(place(bright) - place(fluid)).max() < 0.5
    assert json.loads((tmp_path / "summary.json").read_text())["ran"]["scan"].startswith(str(pulseq_file))


def test_a_pulseq_file_without_an_image_is_refused(folder, pulseq_file, tmp_path):
    text = pulseq_file.read_text()
    broken = tmp_path / "broken.seq"
    broken.write_text(text[: len(text) // 3])
    done = program("--sequence", broken, "--phantom", folder / "flat.npz", "--out", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "broken.seq" in done.stderr
    assert "Traceback" not in done.stderr
