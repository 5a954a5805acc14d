"""Broken .seq files: one ValueError that names the file and what is wrong, never anything else, and soon."""

import re
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxmr.pulseq.blocks import Scan
from jaxmr.pulseq.seqfile.reading import load
from pulseq_waveforms import EVERYTHING as NEW
from pulseq_waveforms import SHAPES

OLD = f"""
[VERSION]
major 1
minor 3
revision 1
[BLOCKS]
1 0 1 0 0 0 0 0
2 1 0 1 2 0 1 0
[RF]
1 2500 1 2 100 0 0
[GRADIENTS]
2 1000 3 10
[TRAP]
1 1e5 100 300 100 0
[ADC]
1 16 12500 100 0 0
[DELAYS]
1 2000
[SHAPES]

{SHAPES}
shape_id 3
num_samples 5
0.1
0.1
0
0.2
-0.1
-0.3
"""


def attempt(path, content: bytes) -> Scan | str:
    """The scan, or what the ValueError says."""
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the file (differs|does not define)")
        try:
            return load(path)
        except ValueError as error:
            return str(error)


def test_the_files_that_will_be_broken_are_whole(tmp_path):
    for text in (OLD, NEW):
        scan = attempt(tmp_path / "scan.seq", text.encode())
        assert isinstance(scan, Scan), scan


MISTAKES = {
    "empty": (NEW, NEW, "", r"the file has no section \[VERSION\]"),
    "no version": (NEW, "[VERSION]\nmajor 1\nminor 5\nrevision 0\n", "", r"no section \[VERSION\]"),
    "no blocks": (OLD, "[BLOCKS]\n1 0 1 0 0 0 0 0\n2 1 0 1 2 0 1 0\n", "", r"no section \[BLOCKS\]"),
    "future version": (NEW, "minor 5", "minor 6", r"line \d+: version 1.6 .* 1.2 to 1.5 are read"),
    "word for a version": (NEW, "minor 5", "minor five", r"HERE: 'minor five' is none of"),
    "half a version": (NEW, "minor 5\n", "", r"line \d+: \[VERSION\] says no minor"),
    "unknown section": (NEW, "[ADC]", "[ADX]", r"no section is called '\[ADX\]'"),
    "unclosed header": (NEW, "[ADC]", "[ADC", r"no section is called '\[ADC'"),
    "section twice": (NEW, "[TRAP]", "[RF]", r"HERE: a second section \[RF\]"),
    "not Pulseq": (NEW, "# Pulseq", "Pulseq", r"HERE: 'Pulseq sequence file' stands before"),
    "delays in 1.5": (NEW, "[TRAP]", "[DELAYS]\n1 10\n[TRAP]", r"\[DELAYS\] ended with version 1.3"),
    "too few columns": (NEW, "2 50 0 1 2 0 1 2", "2 50 0 1 2 0 1", r"HERE: \[BLOCKS\] has the 8 columns"),
    "a word": (NEW, "2 1e5 0 100", "2 1e5 0 ten", r"HERE: 'ten' is not a number"),
    "not a number": (NEW, "2 1e5 0 100", "2 nan 0 100", r"HERE: 'nan' is not a number"),
    "infinite": (NEW, "2 1e5 0 100", "2 1e999 0 100", r"HERE: '1e999' is not a number"),
    "underscore": (NEW, "2 1e5 0 100", "2 1_0 0 100", r"HERE: '1_0' is not a number"),
    "fraction of an id": (NEW, "1 20 1 0 0 2 0 1", "1 20 1.5 0 0 2 0 1", r"HERE: rf is 1.5 and should be a whole"),
    "negative duration": (NEW, "1 20 1 0", "1 -20 1 0", r"HERE: duration is -20, which is too small"),
    "negative rise": (NEW, "2 1e5 0 100", "2 1e5 -10 100", r"HERE: rise is -10"),
    "no dwell": (NEW, "1 5 12500", "1 5 0", r"HERE: dwell is 0, which is too small"),
    "id twice": (NEW, "2 50 0 1", "1 50 0 1", r"HERE: a second row of id 1 in \[BLOCKS\]"),
    "absent event": (NEW, "1 20 1 0 0 2", "1 20 7 0 0 2", r"HERE: the block names rf 7, which \[RF\] does not have"),
    "absent gradient": (NEW, "1 20 1 0 0 2", "1 20 1 0 0 9", r"HERE: the block names gz 9, which \[GRADIENTS\] or"),
    "absent shape": (NEW, "1 2500 1 2", "1 2500 8 2", r"HERE: there is no shape 8 in \[SHAPES\]"),
    "unequal shapes": (NEW, "1 2500 1 2", "1 2500 1 3", r"HERE: shape 3 has 5 samples where 100 are needed"),
    "times run back": (NEW, "2\n4\n6\n", "2\n1\n6\n", r"line \d+: the times of shape 4 do not run forward"),
    "even half raster": (NEW, "3 500 0 0 3", "3 500 0 0 1", r"HERE: .* odd number of samples, not 100"),
    "no use": (NEW, "1.5 e", "1.5 x", r"HERE: use is 'x', which begins none of"),
    "too long for its block": (NEW, "2 50 0", "2 10 0", r"HERE: gy ends 0.00015 s after"),
    "raster": (NEW, "BlockDurationRaster 1e-05", "BlockDurationRaster 0", r"HERE: BlockDurationRaster is 0 s"),
    "rasters": (NEW, "BlockDurationRaster 1e-05", "BlockDurationRaster x", r"HERE: 'x' is not a number"),
    "circle": (NEW, "5 5 1 0\n", "5 5 1 3\n", r"line \d+: the extension list \d runs in a circle"),
    "absent entry": (NEW, "5 5 1 0\n", "5 5 1 9\n", r"the next entry of the list is 9, which"),
    "absent extension": (NEW, "5 5 1 0\n", "5 6 1 0\n", r"the extension of type 6 is not specified"),
    "absent label": (NEW, "1 1 1 0\n", "1 1 2 0\n", r"LABELSET has no entry 2"),
    "label": (NEW, "1 4 LIN", "1 LIN", r"an entry of LABELSET says value, label; here are 1 words"),
    "trigger": (NEW, "1 1 2 10 100", "1 5 2 10 100", r"a trigger has type 1 \(output\) or 2 \(input\), not 5"),
    "trigger time": (NEW, "1 1 2 10 100", "1 1 2 -10 100", r"times that are not negative"),
    "quaternion": (NEW, "1 0.6 0 0.8 0", "1 0 0 0 0", r"quaternion of a rotation has length 1, not 0"),
    "extension": (NEW, "extension TRIGGERS 2", "extension TRIGGERS", r"expected 'extension NAME TYPE'"),
    "extension twice": (NEW, "extension TRIGGERS 2", "extension TRIGGERS 1", r"a second extension of type 1"),
    "entry": (NEW, "1 any words", "any words", r"an entry of NEVER_HEARD begins with an id"),
    "two rotations": (NEW, "5 5 1 0\n", "5 4 1 0\n", r"line \d+: the block has two rotations"),
    "no samples": (OLD, "num_samples 5", "num_samples 0", r"shape 3 has 0 samples"),
    "huge shape": (OLD, "num_samples 100\n1", "num_samples 999999999999999\n1", r"shape 1 has 9+ samples"),
    "huge run": (OLD, "0\n0\n97", "0\n0\n97000000000", r"line \d+: shape 1: .* no number of repetitions follows"),
    "short run": (OLD, "0\n0\n97", "0\n0\n96", r"line \d+: shape 1: .* 100 samples, but .* make 99"),
    "no run": (OLD, "0\n0\n98", "0\n0", r"shape 2: the compressed shape has a pair of equal numbers"),
    "shape without id": (OLD, "shape_id 1\n", "", r"HERE: expected 'shape_id', not 'num_samples 100'"),
    "shape without size": (OLD, "shape_id 2\nnum_samples 100\n", "shape_id 2\n", r"'shape_id' and 'num_samples'"),
    "shape twice": (OLD, "shape_id 2", "shape_id 1", r"a second shape of id 1"),
    "huge ADC": (NEW, "1 5 12500", "1 100000000000 12500", r"HERE: an ADC event of 100000000000 samples"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_error_says_what_is_wrong_and_where(tmp_path, mistake):
    text, old, new, message = MISTAKES[mistake]
    assert old in text
    said = attempt(tmp_path / "scan.seq", text.replace(old, new, 1).encode())
    assert isinstance(said, str)
    here = text.count("\n", 0, text.index(old)) + 1
    message = message.replace("HERE", f"line {here}")
    assert re.match(re.escape(f"{tmp_path / 'scan.seq'}: ") + ".*" + message, said), said


def test_text_in_another_encoding_is_refused(tmp_path):
    for content in (NEW.encode("utf-16"), NEW.replace("Name test", "Name tést").encode("latin-1"), bytes(range(256))):
        assert "is not UTF-8 text" in attempt(tmp_path / "scan.seq", content)


def test_missing_rasters_warn(tmp_path):
    path = tmp_path / "scan.seq"
    path.write_text(NEW.replace("AdcRasterTime 1e-07\n", "").partition("[SIGNATURE]")[0])
    with pytest.warns(UserWarning, match="does not define AdcRasterTime: the usual values"):
        load(path)


@st.composite
def broken(draw) -> bytes:
    """A file that was cut, or whose bytes, lines or numbers were changed."""
    content = draw(st.sampled_from([OLD, NEW])).encode()
    how = draw(st.sampled_from(["cut", "bytes", "lines", "numbers"]))
    if how == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if how == "bytes":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    lines = content.decode().splitlines()
    if how == "lines":
        for _ in range(draw(st.integers(1, 3))):
            del lines[draw(st.integers(0, len(lines) - 1))]
        return "\n".join(lines).encode()
    number = st.one_of(
        st.integers(-3, 12).map(str),
        st.integers(-(10**20), 10**20).map(str),
        st.floats(width=64).map(repr),
        st.sampled_from(["1e308", "-0", "0x10", "\u0661", "1_0", "999999999", "33554432", ""]),
    )
    at = draw(st.sampled_from([i for i, line in enumerate(lines) if re.search(r"\d", line)]))
    words = lines[at].split(" ")
    words[draw(st.integers(0, len(words) - 1))] = draw(number)
    lines[at] = " ".join(words)
    return "\n".join(lines).encode()


@given(content=broken())
@settings(
    max_examples=1000, deadline=2000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_broken_file_is_read_or_refused_with_one_clear_error(tmp_path, content):
    said = attempt(tmp_path / "scan.seq", content)
    if isinstance(said, str):
        assert re.match(r".*scan\.seq: (line \d+: |the file has no section |the different waveforms )", said), said
    else:
        assert all(block.duration >= 0 for block in said.blocks)
