"""Writing .seq files: what is read again is what was saved, and PyPulseq reads it too."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from jaxmr.pulseq.blocks import Block, Rasters, Scan
from jaxmr.pulseq.seqfile.extensions import rotation_matrix, rotation_quaternion
from jaxmr.pulseq.seqfile.reading import load
from jaxmr.pulseq.seqfile.shapes import compressed, decompressed
from jaxmr.pulseq.seqfile.writing import save
from pulseq_waveforms import AXES, EVERYTHING, k_at_samples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports are not our concern
    pp = pytest.importorskip("pypulseq")

FOLDERS = ["koma_readcmp/v1.2", "koma_readcmp/v1.3", "koma_readcmp/v1.4", "koma_readcmp/v1.5", "koma_readcmp/extra"]
OFF_RASTER = {"epi_se", "ge", "epi_JEMRIS", "FID"}
"""Files whose dwell time is no multiple of 100 ns."""


def quiet(path) -> Scan:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some were changed after they had been signed
        return load(path)


def same(ours, theirs, bar=1e-9):
    """Numbers and arrays equal to 1e-9 of the largest, everything else equal."""
    if ours is None or isinstance(ours, str):
        assert ours == theirs
    else:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bar * np.max(np.abs(ours), initial=0))


def same_event(ours, theirs):
    assert (ours is None) == (theirs is None)
    if ours is not None:
        assert vars(ours).keys() == vars(theirs).keys()
        for name, value in vars(ours).items():
            # edges may be small beside the waveform that they end
            scale = {"first": ours, "last": ours}.get(name)
            if scale is not None:
                assert value == pytest.approx(getattr(theirs, name), abs=1e-8 * np.abs(ours.waveform).max())
            else:
                same(value, getattr(theirs, name))


def same_scans(ours: Scan, theirs: Scan):
    assert ours.rasters == pytest.approx(theirs.rasters)
    kept = {name: text for name, text in theirs.definitions.items() if name in ours.definitions}
    assert list(kept) == list(ours.definitions)
    assert {**kept, "TotalDuration": 0} == {**ours.definitions, "TotalDuration": 0}
    assert len(ours.blocks) == len(theirs.blocks)
    seen = set()
    for block, other in zip(ours.blocks, theirs.blocks, strict=True):
        assert block.duration == pytest.approx(other.duration, rel=1e-12)
        for name in ("rf", *AXES, "adc"):
            pair = getattr(block, name), getattr(other, name)
            if (id(pair[0]), id(pair[1])) not in seen:
                same_event(*pair)
                seen.add((id(pair[0]), id(pair[1])))
        same(block.rotation, other.rotation)
        assert len(block.extras) == len(other.extras)
        for extra, other_extra in zip(block.extras, other.extras, strict=True):
            same_event(extra, other_extra)


@pytest.mark.parametrize("folder", [*FOLDERS, "pypulseq", "mr_physics_pulseq/seq", "jemris_approved", "mrzero/seq"])
def test_files_survive_and_pypulseq_reads_them(shared, tmp_path, folder):
    for path in sorted((shared / folder).glob("*.seq")):
        scan = quiet(path)
        save(scan, tmp_path / path.name)
        again = load(tmp_path / path.name)  # warns, and so fails, if the signature does not fit
        assert again.version == (1, 5, 0)
        same_scans(scan, again)
        np.testing.assert_allclose(k_at_samples(again), k_at_samples(scan), rtol=0, atol=1e-7)
        if path.stem != "unknown_ext":
            theirs = pp.Sequence()
            theirs.read(str(tmp_path / path.name), remove_duplicates=False)
            assert theirs.check_timing()[0] or path.stem in OFF_RASTER
            same_as_pypulseq(again, theirs)


def same_as_pypulseq(scan, theirs):
    seen = set()
    for index, block in zip(theirs.block_events, scan.blocks, strict=True):
        for name, identity in zip(("rf", *AXES, "adc"), theirs.block_events[index][1:6], strict=True):
            event = getattr(block, name)
            assert (event is None) == (identity == 0)
            if event is None or (id(event), identity) in seen:
                continue
            seen.add((id(event), identity))
            other = getattr(theirs.get_block(index), name)
            for field in ("signal", "t", "waveform", "tt", "amplitude", "delay", "freq_offset", "center", "use"):
                if hasattr(event, field):
                    same(getattr(event, field), getattr(other, field), bar=1e-12)


def test_everything_survives(tmp_path):
    path = tmp_path / "scan.seq"
    path.write_text(EVERYTHING.partition("[SIGNATURE]")[0])
    scan = load(path)
    assert {extra.type for extra in scan.blocks[2].extras} == {"unknown", "soft_delay"}
    save(scan, tmp_path / "again.seq")
    again = load(tmp_path / "again.seq")
    same_scans(scan, again)
    save(again, tmp_path / "third.seq")
    assert (tmp_path / "third.seq").read_bytes() == (tmp_path / "again.seq").read_bytes()


def test_what_was_changed_is_written(shared, tmp_path):
    scan = load(shared / "pypulseq" / "write_gre.seq")
    seen = set()
    for block in scan.blocks:
        if block.rf is not None and id(block.rf) not in seen:
            seen.add(id(block.rf))
            block.rf.signal = block.rf.signal * -2j
    longer = scan.blocks[0]._replace(duration=scan.blocks[0].duration + 1e-3)
    save(scan._replace(blocks=(longer, *scan.blocks[1:])), tmp_path / "changed.seq")
    again = load(tmp_path / "changed.seq")
    assert again.blocks[0].duration == pytest.approx(longer.duration, rel=1e-12)
    same(scan.blocks[0].rf.signal, again.blocks[0].rf.signal)
    assert float(again.definitions["TotalDuration"]) == pytest.approx(float(scan.definitions["TotalDuration"]) + 1e-3)


def test_events_of_pypulseq_can_be_saved(tmp_path):
    system = pp.Opts(max_grad=30, grad_unit="mT/m", max_slew=100, slew_unit="T/m/s")
    rf, gz, gzr = pp.make_sinc_pulse(
        flip_angle=1, duration=2e-3, slice_thickness=5e-3, system=system, return_gz=True, use="excitation"
    )
    spiral = 1e4 * np.sin(np.linspace(0, 3, 301)) * np.linspace(0, 1, 301)
    gx = pp.make_arbitrary_grad("x", spiral[1::2], first=0, last=spiral[-1], system=system)
    gy = pp.make_arbitrary_grad("y", spiral[1:-1], first=0, last=spiral[-1], oversampling=True, system=system)
    ext = pp.make_extended_trapezoid("x", amplitudes=np.array([gx.last, 0]), times=np.array([0, 1e-4]), system=system)
    adc = pp.make_adc(100, dwell=1e-5, delay=1e-4, phase_modulation=np.linspace(0, 9, 100), system=system)
    soft = pp.make_soft_delay("TE", offset=1e-3, factor=2)
    blocks = (
        Block(pp.calc_duration(rf, gz), rf=rf, gz=gz, extras=(pp.make_label("LIN", "SET", 3),)),
        Block(pp.calc_duration(gzr), gz=gzr, extras=(pp.make_trigger("physio1", duration=1e-4),)),
        Block(1.5e-3, gx=gx, gy=gy, adc=adc),
        Block(1e-4, gx=ext, extras=(soft,)),
    )
    save(Scan((1, 5, 0), {"Name": "made"}, Rasters(), blocks), tmp_path / "made.seq")
    first, second, third, fourth = load(tmp_path / "made.seq").blocks
    same(first.rf.signal, rf.signal)
    assert (first.rf.center, first.rf.use) == (pytest.approx(rf.center), "excitation")
    assert second.gz.amplitude == pytest.approx(gzr.amplitude, rel=1e-11)
    for ours, theirs in ((third.gx, gx), (third.gy, gy), (fourth.gx, ext)):
        same(ours.waveform, theirs.waveform)
        same(ours.tt, theirs.tt)
        assert (ours.first, ours.last) == pytest.approx((theirs.first, theirs.last))
        assert ours.shape_dur == pytest.approx(theirs.shape_dur)
    same(third.adc.phase_modulation, adc.phase_modulation)
    assert [first.extras[0].value, second.extras[0].channel, fourth.extras[0].hint] == [3, "physio1", "TE"]


def test_equal_events_and_shapes_are_written_once(shared, tmp_path):
    scan = load(shared / "pypulseq" / "write_gre.seq")
    save(scan, tmp_path / "gre.seq")
    text = (tmp_path / "gre.seq").read_text()
    assert text.count("\nshape_id ") == 2
    traps = text.partition("[TRAP]\n")[2].partition("\n\n")[0].splitlines()
    assert len(traps) == len({tuple(row.split()[1:]) for row in traps})


BROKEN = {
    "no multiple of the raster": lambda block: block._replace(duration=1.234e-6 + block.duration),
    "rf ends after": lambda block: block._replace(duration=1e-3),
    "which no extension": lambda block: block._replace(extras=(type(block.rf)(type="smell"),)),
    "not finite": lambda block: block._replace(rf=changed(block.rf, signal=block.rf.signal * np.nan)),
    "should be finite": lambda block: block._replace(gz=changed(block.gz, amplitude=np.inf)),
    "delay is -1e-05 s, which no file can say": lambda block: block._replace(gz=changed(block.gz, delay=-1e-5)),
    "has use 'fun'": lambda block: block._replace(rf=changed(block.rf, use="fun")),
}


def changed(event, **values):
    return type(event)(**(vars(event) | values))


@pytest.mark.parametrize("message", BROKEN)
def test_what_no_file_can_say_is_refused_and_nothing_written(shared, tmp_path, message):
    scan = load(shared / "pypulseq" / "write_gre.seq")
    broken = scan._replace(blocks=(*scan.blocks[1:5], BROKEN[message](scan.blocks[0])))
    with pytest.raises(ValueError, match="block 5: .*" + message):
        save(broken, tmp_path / "scan.seq")
    with pytest.raises(ValueError, match="a name without spaces"):
        save(scan._replace(definitions={"two words": "1"}), tmp_path / "scan.seq")
    assert not list(tmp_path.iterdir())


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0, -0.25, 1 / 3, 97.0]), st.integers(1, 7)), min_size=1, max_size=12
    )
)
@settings(deadline=None, derandomize=True)
def test_compressed_shapes_come_back(runs):
    samples = np.cumsum(np.concatenate([np.full(n, slope) for slope, n in runs]))
    stored = np.array([float(f"{value:.15g}") for value in compressed(samples)])
    assert len(stored) <= len(samples)
    plain = len(stored) == len(samples)
    ours = stored if plain else decompressed(stored, len(samples))
    np.testing.assert_allclose(ours, samples, rtol=0, atol=1e-9)
    theirs = pp.decompress_shape.decompress_shape(type("", (), {"data": stored, "num_samples": len(samples)}))
    np.testing.assert_allclose(theirs, ours, rtol=1e-13)


def test_rotations_are_those_of_scipy():
    for rotation in [*Rotation.random(50, rng=0), *(Rotation.from_rotvec(np.pi * axis) for axis in np.eye(3))]:
        quaternion = rotation.as_quat(scalar_first=True)
        np.testing.assert_allclose(rotation_matrix(quaternion), rotation.as_matrix(), atol=1e-14)
        np.testing.assert_allclose(
            rotation_matrix(rotation_quaternion(rotation.as_matrix())), rotation.as_matrix(), atol=1e-14
        )
