"""Reading .seq files: as the MATLAB toolbox and PyPulseq read them, one version as another, fast, broken ones too."""

import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from jaxmr.pulseq.blocks import Scan, end
from jaxmr.pulseq.seqfile.reading import load
from pulseq_waveforms import AXES, begins, corners, k_at_samples, sample_times

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports are not our concern
    pp = pytest.importorskip("pypulseq")

HEADER = """# Pulseq sequence file
[VERSION]
major 1
minor {minor}
revision 0
"""
RASTERS = """
[DEFINITIONS]
GradientRasterTime 1e-05
RadiofrequencyRasterTime 1e-06
AdcRasterTime 1e-07
BlockDurationRaster 1e-05
"""

GAMMA_HZ = 42.5774688e6
"""Hz/T of the MATLAB toolbox in `koma_readcmp`."""

EDITED = {"v1.4/epi", "v1.4/gr-uniformly-shaped", "v1.5/gr-uniformly-shaped"}
"""Files of `koma_readcmp` that were changed after they had been signed."""

MATLAB = {
    "v1.2": ["epi_JEMRIS", "fid"],
    "v1.3": ["fid"],
    "v1.4": [
        "epi",
        "fid",
        "gr-time-shaped",
        "gr-trapezoidal",
        "gr-uniformly-shaped",
        "rf-pulse",
        "rf-uniformly-shaped",
    ],
    "v1.5": ["fid", "gr-trapezoidal", "gr-uniformly-shaped", "rf-pulse", "rf-time-shaped", "rf-uniformly-shaped"],
}


def quiet(path) -> Scan:
    """The scan, of a file that was changed after it had been signed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(path)


@pytest.mark.parametrize("name", [f"{version}/{name}" for version in MATLAB for name in MATLAB[version]])
def test_blocks_are_those_of_the_matlab_toolbox(shared, name):
    loadmat = pytest.importorskip("scipy.io").loadmat
    folder = shared / "koma_readcmp"
    scan = (quiet if name in EDITED else load)(folder / f"{name}.seq")
    theirs = loadmat(folder / f"{name}.mat", simplify_cells=True)["sequence"]
    theirs = theirs if isinstance(theirs, list) else [theirs]
    assert len(theirs) == len(scan.blocks)
    for begin, block, expected in zip(begins(scan), scan.blocks, theirs, strict=False):
        ours = {key: (np.empty(0), np.empty(0)) for key in expected}
        if block.rf is not None:
            t = begin + block.rf.delay + block.rf.t
            signal = block.rf.signal * np.exp(1j * block.rf.phase_offset) / GAMMA_HZ
            ours["rf"] = np.concatenate([t[:1], t, t[-1:]]), np.concatenate([[0], signal, [0]])
            ours["df"] = t[[0, 0, -1, -1]], block.rf.freq_offset * np.array([0, 1, 1, 0])
        for axis in AXES:
            gradient = getattr(block, axis)
            if gradient is not None and end(gradient) > 0:  # the toolbox does not show trapezoids that last 0 s
                t, g = corners(gradient)
                ours[axis] = begin + t, g / GAMMA_HZ
        if block.adc is not None:
            ours["adc"] = begin + sample_times(block.adc), np.ones(block.adc.num_samples)
        for key, (t, a) in ours.items():
            np.testing.assert_allclose(t, np.atleast_1d(expected[key]["t"]), rtol=0, atol=1e-9, err_msg=key)
            other = np.atleast_1d(expected[key]["A"])
            scale = np.max(np.abs(other), initial=0)
            np.testing.assert_allclose(a, other, rtol=0, atol=1e-6 * scale, err_msg=key)


@pytest.mark.parametrize(
    ("name", "versions", "bar"), [("simple_mprage", "140 141 142 150", 1e-9), ("trufi_v", "140 141 142 150", 0.003)]
)
def test_versions_agree_in_kspace(shared, name, versions, bar):
    k, *others = [k_at_samples(load(shared / "pypulseq" / f"{name}{version}.seq")) for version in versions.split()]
    assert np.ptp(k, axis=0).max() > 100
    for other in others:
        np.testing.assert_allclose(other, k, rtol=0, atol=bar)


FOLDERS = (
    "jemris_approved koma_readcmp/extra koma_readcmp/v1.4 koma_readcmp/v1.5 mr_physics_pulseq/seq mrzero/seq pypulseq"
)
MISREAD = {"unknown_ext.seq", "gr-time-shaped.seq"}
"""Files that PyPulseq refuses, or does not finish to read."""

CUT_SHORT = "rf-uniformly-shaped"
"""A pulse of ten samples that PyPulseq's flip angle, without the last one, makes a refocusing pulse."""


@pytest.mark.parametrize("folder", FOLDERS.split())
def test_blocks_are_those_of_pypulseq_from_version_1_4_on(shared, folder):
    n_read = 0
    for path in sorted((shared / folder).glob("*.seq")):
        scan = quiet(path)
        if scan.version < (1, 4, 0) or path.name in MISREAD:
            continue
        theirs = pp.Sequence()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old versions
            theirs.read(str(path), detect_rf_use=scan.version < (1, 5, 0), remove_duplicates=False)
        theirs.block_cache.clear()  # filled before it knew what the pulses are for
        assert len(theirs.block_events) == len(scan.blocks)
        for index, block in zip(theirs.block_events, scan.blocks, strict=True):
            other = theirs.get_block(index)
            assert block.duration == pytest.approx(other.block_duration, rel=1e-12)
            for name in ("rf", *AXES, "adc"):
                unsaid = set() if scan.version >= (1, 5, 0) else {"first", "last"}
                unsaid |= {"use"} if path.stem == CUT_SHORT and scan.version < (1, 5, 0) else set()
                same_events(getattr(block, name), getattr(other, name), unsaid)
            labels = [(extra.type, extra.label, extra.value) for extra in block.extras if hasattr(extra, "label")]
            assert labels == [(label.type, label.label, label.value) for label in (other.label or {}).values()]
        n_read += 1
    assert n_read


def same_events(event, other, unsaid):
    """Equal to 1e-12, but for what the file does not say and the two infer in ways of their own."""
    assert (event is None) == (other is None)
    ours = {} if event is None else vars(event)
    for name in ours.keys() - {"dead_time", "ringdown_time"} - unsaid:
        theirs = getattr(other, name)
        if ours[name] is None:
            assert np.size(theirs) == 0
        elif isinstance(theirs, str):
            assert ours[name] == theirs, name
        else:
            np.testing.assert_allclose(ours[name], theirs, rtol=1e-12, atol=1e-12 * np.max(np.abs(theirs)))


def test_every_file_loads(shared):
    paths = sorted(shared.rglob("*.seq"))
    assert len(paths) > 70
    edited = []
    for path in paths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scan = load(path)
        assert scan.blocks
        assert all(block.duration >= 0 for block in scan.blocks)
        edited += [f"{path.parent.name}/{path.stem}"] * len(caught)
    assert set(edited) == EDITED


def test_a_changed_file_warns_that_its_signature_does_not_fit(shared):
    with pytest.warns(UserWarning, match="differs from the one that was signed"):
        load(shared / "koma_readcmp" / "v1.4" / "epi.seq")


def test_labels(shared):
    blocks = load(shared / "koma_readcmp" / "extra" / "label_test.seq").blocks
    said = [[(extra.type, extra.label, extra.value) for extra in block.extras] for block in blocks]
    increment, linear = ("labelinc", "LIN", 1), ("labelset", "LIN", 0)
    assert said == [
        [("labelset", "REV", 0), ("labelset", "ECO", 0)],
        [increment, ("labelset", "ECO", 0)],
        [increment, ("labelset", "ECO", 2)],
        [increment, ("labelset", "ECO", 1)],
        [increment, ("labelset", "ECO", 2)],
        [("labelset", "ECO", 1), linear],
    ]
    assert blocks[1].extras[0] is blocks[2].extras[0]


def test_unknown_extensions_keep_their_words(shared):
    blocks = load(shared / "koma_readcmp" / "extra" / "unknown_ext.seq").blocks
    assert [(extra.type, extra.name, extra.text) for extra in blocks[2].extras] == [
        ("unknown", "UNKNOWN2", "1 LIN"),
        ("unknown", "UNKNOWN1", "2 ECO"),
    ]


def test_soft_delays_and_triggers(shared):
    scan = load(shared / "pypulseq" / "write_gre_label_softdelay.seq")
    delays = {extra.hint: extra for block in scan.blocks for extra in block.extras if extra.type == "soft_delay"}
    theirs = pp.Sequence()
    theirs.read(str(shared / "pypulseq" / "write_gre_label_softdelay.seq"))
    known = [theirs.get_block(i).soft_delay for i in theirs.block_events]
    known = {delay.hint: delay for delay in known if delay is not None}
    assert delays.keys() == known.keys() != set()
    for hint, delay in delays.items():
        for name in ("numID", "offset", "factor"):
            assert getattr(delay, name) == pytest.approx(getattr(known[hint], name), abs=1e-12), name
    trigger = load(shared / "koma_readcmp" / "extra" / "epi_ramp.seq").blocks[0].extras[0]
    assert (trigger.type, trigger.channel, trigger.delay, trigger.duration) == ("output", "osc0", 0.0, 1e-4)


def write(path: Path, text: str, minor: int) -> Path:
    path.write_text(HEADER.format(minor=minor) + (RASTERS if minor > 3 else "") + text)
    return path


def test_what_version_1_5_added(tmp_path):
    text = """
[BLOCKS]
1 10 0 1 0 0 1 1
2 10 0 0 2 0 0 0
[GRADIENTS]
1 1000 -200 300 1 -1 20
2 1000 0 0 1 2 0
[ADC]
1 3 10000 5 0.5 -0.25 100 1.5 3
[EXTENSIONS]
1 7 1 0
extension ROTATIONS 7
1 0.707106781 0 0 0.707106781
[SHAPES]
shape_id 1
num_samples 3
0.5
1
0.5
shape_id 2
num_samples 3
0
4
9
shape_id 3
num_samples 3
0
0
1
"""
    first, second = load(write(tmp_path / "scan.seq", text, 5)).blocks
    np.testing.assert_allclose(first.gx.tt, [5e-6, 10e-6, 15e-6], rtol=1e-12)  # twice a raster step
    np.testing.assert_allclose(first.gx.waveform, [500, 1000, 500])
    assert (first.gx.first, first.gx.last) == (-200, 300)
    assert first.gx.shape_dur == pytest.approx(2e-5)
    assert first.gx.delay == pytest.approx(2e-5)
    np.testing.assert_allclose(second.gy.tt, [0, 4e-5, 9e-5], rtol=1e-12)
    adc = first.adc
    assert (adc.freq_ppm, adc.phase_ppm, adc.freq_offset, adc.phase_offset) == (0.5, -0.25, 100, 1.5)
    np.testing.assert_allclose(adc.phase_modulation, [0, 0, 1])
    assert first.extras == ()
    np.testing.assert_allclose(first.rotation @ [1, 2, 3], [-2, 1, 3], atol=1e-9)  # a quarter turn about z


def test_edges_that_an_old_file_does_not_say(tmp_path):
    text = """
[BLOCKS]
1 5 0 1 0 0 0 0
2 3 0 2 0 3 0 0
3 3 0 0 0 3 0 0
[GRADIENTS]
1 1000 1 0 0
2 1000 2 0 0
3 1000 2 3 0
[SHAPES]
shape_id 1
num_samples 5
0.1
0.3
0.5
0.7
0.9
shape_id 2
num_samples 3
0.9
0.6
0.2
shape_id 3
num_samples 3
0
1
3
"""
    first, second, _ = load(write(tmp_path / "scan.seq", text, 4)).blocks
    assert (first.gx.first, first.gx.last) == pytest.approx((0, 1000), abs=1e-9)  # a ramp
    assert (second.gx.first, second.gx.last) == pytest.approx((1000, 0), abs=1e-9)  # from there over 800 and 400 down
    assert (second.gz.first, second.gz.last) == pytest.approx((900, 200))  # samples at the edges are the edges


def test_what_old_pulses_are_for(tmp_path):
    rf = "{} {} 1 2 0 {} 0"
    text = "\n".join(
        [
            *["[BLOCKS]", *(f"{i} 0 {i} 0 0 0 0 0" for i in range(1, 5)), "[RF]"],
            *[rf.format(1, 31.25, 0), rf.format(2, 62.5, 0), rf.format(3, 62.5, -441.0), rf.format(4, 62.5, -500)],
            *["[SHAPES]", "shape_id 1", "num_samples 8000", "1", "0", "0", "7997"],
            *["shape_id 2", "num_samples 8000", "0", "0", "7998"],
        ]
    )
    pulses = [block.rf for block in load(write(tmp_path / "scan.seq", text, 3)).blocks]
    assert [rf.use for rf in pulses] == ["excitation", "refocusing", "saturation", "refocusing"]
    assert pulses[0].center == pytest.approx(4e-3, rel=1e-12)
    assert pulses[0].signal is not pulses[1].signal
    assert pulses[1].signal is pulses[2].signal


def test_times_of_a_shape_may_begin_at_a_rounding_error(tmp_path):
    """As PyPulseq writes the sum of gradients whose delays are not exact."""
    gradient = pp.make_extended_trapezoid("x", times=np.array([0, 1e-4, 3e-4, 5e-4]), amplitudes=np.array([0, 1, 1, 0]))
    sequence = pp.Sequence()
    gradient.tt[0] = -2.7e-20
    sequence.add_block(gradient)
    sequence.write(str(tmp_path / "scan.seq"))
    assert "-2.7e-15" in (tmp_path / "scan.seq").read_text()
    times = load(tmp_path / "scan.seq").blocks[0].gx.tt
    assert times[0] == 0.0
    np.testing.assert_allclose(times, [0, 1e-4, 3e-4, 5e-4], rtol=1e-12)


def many_blocks(n: int) -> str:
    """A spoiled gradient echo with its own phase encode and RF phase in every repetition of 5 blocks."""
    rng = np.random.default_rng(0)
    shape = np.sinc(np.linspace(-2, 2, 2000))
    rows = range(1, n // 5 + 1)
    phases = rng.uniform(0, 6, n // 5)
    lines = ["[BLOCKS]"]
    for i in rows:
        lines += [f"{5 * i - 4} 220 {i} 0 0 1 0 0", f"{5 * i - 3} 100 0 2 {3 + i} 0 0 0"]
        lines += [f"{5 * i - 2} 400 0 3 0 0 {i} 0", f"{5 * i - 1} 100 0 2 {3 + i} 0 0 0", f"{5 * i} 50 0 0 0 0 0 0"]
    lines += ["[RF]"]
    lines += [f"{i} 300 1 2 0 1000 100 0 0 0 {phase:.6g} e" for i, phase in zip(rows, phases, strict=True)]
    lines += ["[TRAP]", *(f"{i} {1e5 * i} 100 800 100 0" for i in range(1, 4))]
    lines += [f"{3 + i} {rng.uniform(-1e6, 1e6):.6g} 100 500 100 0" for i in rows]
    lines += ["[ADC]", *(f"{i} 256 12500 100 0 0 0 {phase:.6g} 0" for i, phase in zip(rows, phases, strict=True))]
    lines += ["[SHAPES]", "shape_id 1", "num_samples 2000", *(f"{value:.9g}" for value in shape)]
    return "\n".join([*lines, "shape_id 2", "num_samples 2000", "0", "0", "1998", ""])


def test_five_thousand_blocks_are_read_at_once(tmp_path):
    path = write(tmp_path / "scan.seq", many_blocks(5000), 5)
    begin = time.perf_counter()
    scan = load(path)
    assert time.perf_counter() - begin < 5
    assert len(scan.blocks) == 5000
    assert len({id(block.rf) for block in scan.blocks if block.rf is not None}) == 1000
    assert len({id(block.rf.signal) for block in scan.blocks if block.rf is not None}) == 1
