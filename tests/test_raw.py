"""Raw data files: what the ISMRMRD package reads of ours and we of its, which way up, and what is refused."""

import warnings

import h5py
import numpy as np
import pytest

from jaxmr.io.raw import read_raw, write_raw
from jaxmr.objects.phantom import grid_position
from jaxmr.units import deg, ms, us

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports are not our concern
    ismrmrd = pytest.importorskip("ismrmrd")
    from ismrmrd import xsd

FOV = (0.24, 0.2, 0.005)
MATRIX = (10, 12)


def letter(matrix=MATRIX) -> np.ndarray:
    """An L as a reader sees it, row 0 on top."""
    image = np.zeros(matrix)
    image[2:8, 4] = 1
    image[7, 4:8] = 1
    return image


def cartesian(fov=FOV, matrix=MATRIX, oversampling=1) -> np.ndarray:
    """k of every line from the lowest ky up, `(samples, 3)`, rad/m."""
    n_y, n_x = matrix
    ky, kx = np.meshgrid(
        np.arange(n_y) - n_y // 2, np.arange(n_x * oversampling) - n_x * oversampling // 2, indexing="ij"
    )
    cycles = np.stack([kx / oversampling, ky, 0 * kx], -1).reshape(-1, 3)
    return 2 * np.pi * cycles / np.array(fov)


def scan(k, image, fov=FOV, coils=((1, 0), (0.3j, 2))) -> np.ndarray:
    """The sum over voxels of m c exp(-i k r), coils linear along x."""
    position = grid_position(image.shape, np.array(fov) / [*image.shape[::-1], 1])
    maps = np.array([a + b * position[:, 0] for a, b in coils])
    return (maps * image.ravel()) @ np.exp(-1j * (k @ position.T)).T


def acquisitions(path):
    with ismrmrd.Dataset(str(path), create_if_needed=False) as dataset:
        header = xsd.CreateFromDocument(dataset.read_xml_header())
        return header, [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]


def write(path, k=None, image=None, **changes):
    k = cartesian() if k is None else k
    options = {"lines": 12, "matrix": MATRIX, "fov": FOV, "dwell": 10 * us} | changes
    kspace = scan(k, letter() if image is None else image)
    write_raw(path, kspace, k, **options)
    return kspace


def test_a_letter_comes_out_upright_through_ismrmrd_and_a_plain_fft(tmp_path):
    order = np.random.default_rng(0).permutation(10)  # lines in any order
    k = cartesian().reshape(10, 12, 3)[order].reshape(-1, 3)
    write(tmp_path / "scan.h5", k)
    header, lines = acquisitions(tmp_path / "scan.h5")
    space = header.encoding[0].encodedSpace.matrixSize
    grid = np.zeros((2, space.y, space.x), complex)
    for line in lines:
        grid[:, line.idx.kspace_encode_step_1] = line.data
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(grid, axes=(1, 2))), axes=(1, 2))
    np.testing.assert_allclose(image[0], letter(), atol=1e-6)
    x = (np.arange(12) - 6) * 0.02
    np.testing.assert_allclose(image[1], letter() * (0.3j + 2 * x), atol=1e-6)


def test_ismrmrd_reads_the_same_numbers(tmp_path):
    k = cartesian()
    noise = np.random.default_rng(1).normal(size=(2, 50)) + 0.5j
    kspace = write(
        tmp_path / "scan.h5",
        k,
        noise=noise,
        counters={"repetition": np.repeat([0, 1], 5), "slice": 3},
        timing={"tr": 12 * ms, "te": [3 * ms, 6 * ms], "flip": 15 * deg},
        field_strength=1.5,
    )
    header, (silence, *lines) = acquisitions(tmp_path / "scan.h5")
    assert header.experimentalConditions.H1resonanceFrequency_Hz == 63866218
    assert header.acquisitionSystemInformation.receiverChannels == 2
    encoding = header.encoding[0]
    assert encoding.trajectory.value == "cartesian"
    assert encoding.reconSpace.fieldOfView_mm.x == pytest.approx(240)
    assert encoding.reconSpace.fieldOfView_mm.z == pytest.approx(5)
    limit = encoding.encodingLimits.kspace_encoding_step_1
    assert (limit.minimum, limit.maximum, limit.center) == (0, 9, 5)
    assert encoding.encodingLimits.repetition.maximum == 1
    assert pytest.approx([12]) == header.sequenceParameters.TR
    assert pytest.approx([3, 6]) == header.sequenceParameters.TE
    assert header.sequenceParameters.flipAngle_deg == pytest.approx([15])

    assert silence.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    np.testing.assert_allclose(silence.data, noise, rtol=1e-6)
    assert len(lines) == 10
    for i, line in enumerate(lines):
        rows = slice(12 * i, 12 * i + 12)
        np.testing.assert_allclose(line.data, kspace[:, rows], atol=1e-6)
        np.testing.assert_allclose(line.traj, (k * np.array(FOV) / (2 * np.pi))[rows], atol=1e-6)
        assert (line.idx.kspace_encode_step_1, line.idx.repetition, line.idx.slice) == (i, i // 5, 3)
        assert (line.version, line.scan_counter, line.center_sample, line.number_of_samples) == (1, i + 1, 6, 12)
        assert line.sample_time_us == pytest.approx(10)
        assert (tuple(line.read_dir), tuple(line.slice_dir)) == ((1, 0, 0), (0, 0, 1))
        assert [line.isChannelActive(c) for c in range(3)] == [True, True, False]
        flags = {
            name: line.is_flag_set(getattr(ismrmrd, f"ACQ_{name}"))
            for name in ("FIRST_IN_SLICE", "LAST_IN_SLICE", "LAST_IN_REPETITION", "LAST_IN_MEASUREMENT", "IS_REVERSE")
        }
        assert flags == {
            "FIRST_IN_SLICE": i in (0, 5),
            "LAST_IN_SLICE": i in (4, 9),
            "LAST_IN_REPETITION": i in (4, 9),
            "LAST_IN_MEASUREMENT": i == 9,
            "IS_REVERSE": False,
        }
    with ismrmrd.File(str(tmp_path / "scan.h5"), mode="r") as file:
        np.testing.assert_array_equal(file["dataset"].acquisitions[3].data, lines[2].data)


def test_what_is_read_is_what_was_written(tmp_path):
    k = cartesian(oversampling=2)
    noise = np.ones((2, 50), complex)
    counters = {"repetition": np.arange(10) // 5}
    kspace = write(tmp_path / "s.h5", k, lines=24, oversampling=2, noise=noise, counters=counters, timing={"ti": 0.05})
    raw = read_raw(tmp_path / "s.h5")
    assert raw.kspace.dtype == np.complex64
    assert raw.k is not None
    np.testing.assert_allclose(raw.kspace, kspace, atol=1e-5)
    np.testing.assert_allclose(raw.k, k, rtol=1e-6)
    np.testing.assert_array_equal(raw.noise, noise)
    np.testing.assert_array_equal(raw.lines, np.full(10, 24))
    np.testing.assert_array_equal(raw.headers["idx"]["repetition"], counters["repetition"])
    np.testing.assert_array_equal(raw.headers["center_sample"], 12)
    assert raw.dwell == pytest.approx(10 * us)
    scanned = raw.description
    assert (scanned.matrix, scanned.encoded_matrix) == ((1, 10, 12), (1, 10, 24))
    assert scanned.fov == pytest.approx(FOV)
    assert scanned.encoded_fov == pytest.approx((0.48, 0.2, 0.005))
    assert scanned.timing["ti"] == pytest.approx([0.05])
    assert scanned.frequency == pytest.approx(127732435)
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


def test_lines_of_an_epi_that_run_backwards_are_flagged_and_kept_in_time(tmp_path):
    k = cartesian().reshape(10, 12, 3)
    k[1::2] = k[1::2, ::-1]
    kspace = write(tmp_path / "epi.h5", k.reshape(-1, 3), trajectory="epi")
    _, lines = acquisitions(tmp_path / "epi.h5")
    assert [line.is_flag_set(ismrmrd.ACQ_IS_REVERSE) for line in lines] == [False, True] * 5
    assert [line.center_sample for line in lines] == [6, 5] * 5
    np.testing.assert_allclose(lines[1].data, kspace[:, 12:24], atol=1e-6)


def test_steps_of_a_volume_and_of_what_is_not_cartesian(tmp_path):
    fov = (0.24, 0.2, 0.1)
    plane = cartesian(fov)
    k = np.concatenate([plane + np.array([0, 0, 2 * np.pi * step / 0.1]) for step in (-2, -1, 0, 1)])
    kspace = np.ones((1, len(k)), complex)
    write_raw(tmp_path / "v.h5", kspace, k, lines=12, matrix=(4, *MATRIX), fov=fov, dwell=10 * us)
    counted = read_raw(tmp_path / "v.h5").headers["idx"]
    np.testing.assert_array_equal(counted["kspace_encode_step_2"], np.repeat(np.arange(4), 10))
    np.testing.assert_array_equal(counted["kspace_encode_step_1"], np.tile(np.arange(10), 4))

    angle, radius = np.meshgrid(np.arange(7), np.arange(16) - 8, indexing="ij")
    spokes = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], -1).reshape(-1, 3) * 30.0
    write(tmp_path / "r.h5", spokes, lines=16, trajectory="radial")
    raw = read_raw(tmp_path / "r.h5")
    np.testing.assert_array_equal(raw.headers["idx"]["kspace_encode_step_1"], np.arange(7))
    np.testing.assert_allclose(raw.k, spokes, atol=1e-4)
    assert acquisitions(tmp_path / "r.h5")[0].encoding[0].encodingLimits.kspace_encoding_step_1.maximum == 6


def test_one_number_is_the_field_of_view_of_the_image(tmp_path):
    write(tmp_path / "s.h5", cartesian((0.24, 0.24, 1.0)), fov=0.24)
    assert read_raw(tmp_path / "s.h5").description.fov == pytest.approx((0.24, 0.24, 0.02))


def foreign(path, trajectory=None, lengths=(5, 7), coils=(3, 3), header=None):
    """A file written by the package ismrmrd, line by line."""
    draw = np.random.default_rng(2)
    data = [draw.normal(size=(c, n)) + 1j * draw.normal(size=(c, n)) for c, n in zip(coils, lengths, strict=True)]
    size = xsd.matrixSizeType(x=8, y=6, z=1)
    extent = xsd.fieldOfViewMm(x=160.0, y=120.0, z=5.0)
    space = xsd.encodingSpaceType(matrixSize=size, fieldOfView_mm=extent)
    encoding = xsd.encodingType(
        encodedSpace=space,
        reconSpace=space,
        encodingLimits=xsd.encodingLimitsType(),
        trajectory=xsd.trajectoryType("spiral"),
    )
    conditions = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63500000)
    document = xsd.ToXML(xsd.ismrmrdHeader(experimentalConditions=conditions, encoding=[encoding]))
    with ismrmrd.Dataset(str(path)) as dataset:
        dataset.write_xml_header(document if header is None else header)
        for i, line in enumerate(data):
            path = None if trajectory is None else np.full((lengths[i], 2), trajectory, np.float32)
            acquisition = ismrmrd.Acquisition.from_array(line.astype(np.complex64), path, sample_time_us=2.5)
            acquisition.idx.contrast = i
            dataset.append_acquisition(acquisition)
    return data


def test_a_file_of_ismrmrd_is_read(tmp_path):
    data = foreign(tmp_path / "f.h5")
    raw = read_raw(tmp_path / "f.h5")
    np.testing.assert_allclose(raw.kspace, np.concatenate(data, 1), rtol=1e-6)
    assert raw.k is None
    assert raw.noise is None
    assert raw.lines.tolist() == [5, 7]
    assert raw.headers["idx"]["contrast"].tolist() == [0, 1]
    assert raw.dwell == pytest.approx(2.5 * us)
    assert raw.description.matrix == (1, 6, 8)
    assert raw.description.fov == pytest.approx((0.16, 0.12, 0.005))
    assert raw.description.frequency == 63500000
    assert raw.description.trajectory == "spiral"


@pytest.mark.parametrize(
    ("stored", "kx", "ky"), [(2.0, 4 * np.pi / 0.16, 4 * np.pi / 0.12), (0.5, 50 * np.pi, 50 * np.pi)]
)
def test_trajectories_in_either_unit_become_radians_per_metre(tmp_path, stored, kx, ky):
    foreign(tmp_path / "f.h5", stored)
    raw = read_raw(tmp_path / "f.h5")
    np.testing.assert_allclose(raw.k, np.tile([kx, ky, 0], (12, 1)), rtol=1e-6)


def test_truncated_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "s.h5"
    write(path)
    content = path.read_bytes()
    for cut in (0, 5, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"s\.h5 cannot be read as ISMRMRD raw data: it is truncated"):
            read_raw(path)
    broken = {b"<encoding>": b"<encodimg>", b"GCOL": b"GCOX", b"number_of_samples": b"number_of_sample_"}
    for old, new in broken.items():
        assert old in content
        path.write_bytes(content.replace(old, new))
        with pytest.raises(ValueError, match=r"cannot be read as ISMRMRD"):
            read_raw(path)
    with pytest.raises(FileNotFoundError):
        read_raw(tmp_path / "absent.h5")
    with h5py.File(path, "w") as file:
        file["atoms"] = np.ones(3)
    with pytest.raises(ValueError, match="another format"):
        read_raw(path)
    with h5py.File(path, "w") as file:
        file["dataset/data"], file["dataset/xml"] = np.ones(3), ["<a/>"]
    with pytest.raises(ValueError, match="another format"):
        read_raw(path)
    foreign(tmp_path / "coils.h5", coils=(3, 2))
    with pytest.raises(ValueError, match=r"its lines have \[2, 3\] coils"):
        read_raw(tmp_path / "coils.h5")
    foreign(tmp_path / "xml.h5", header="<other/>")
    with pytest.raises(ValueError, match="not an ismrmrdHeader"):
        read_raw(tmp_path / "xml.h5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lines": 7}, "lines must be the samples per acquisition, a divisor of 120"),
        ({"dwell": 10}, "dwell must be the time between samples in s"),
        ({"matrix": (8, 12)}, "k leaves the grid: kspace_encode_step_1"),
        ({"matrix": (12,)}, r"matrix must be \(y, x\)"),
        ({"fov": 0.3}, "not straight along x on the grid"),
        ({"fov": 240.0}, "fov must be one positive number"),
        ({"trajectory": "zigzag"}, "trajectory must be one of"),
        ({"counters": {"echo": 1}}, "counters has no 'echo'"),
        ({"counters": {"set": np.arange(3)}}, "counter set must be 10 integers"),
        ({"counters": {"set": -1}}, r"counter set must be 0 \.\.\. 65535"),
        ({"timing": {"esp": 1}}, "timing has no esp"),
        ({"noise": np.ones((2, 70_000), complex)}, r"noise must have shape \(2, n\)"),
    ],
)
def test_what_the_format_cannot_hold_is_named_and_nothing_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "s.h5", **changes)
    assert not list(tmp_path.iterdir())
