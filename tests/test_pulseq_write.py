"""Files read, changed and written again: what was changed comes back, and nothing else is different."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmr.pulseq.blocks import Block, Rasters, Scan
from jaxmr.pulseq.conversion.segments import to_sequence
from jaxmr.pulseq.files import read, write
from jaxmr.pulseq.seqfile.reading import load
from jaxmr.pulseq.seqfile.writing import save
from jaxmr.pulseq.template.updating import updated
from jaxmr.sequences.sequence import Sequence
from jaxmr.units import ms, us

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyPulseq's syntax warnings
    import pypulseq as pp

FILES = (
    "pypulseq/write_gre_label_softdelay", "pypulseq/write_epi", "pypulseq/write_epi_se_rs", "pypulseq/write_tse",
    "pypulseq/write_radial_gre", "pypulseq/simple_mprage150", "pypulseq/seq6", "koma_readcmp/v1.4/gr-time-shaped",
    "koma_readcmp/v1.4/rf-pulse", "koma_readcmp/v1.2/epi_JEMRIS",
)  # fmt: skip
B0 = 3.0


def quiet(path) -> Scan:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some were changed after they had been signed
        return load(path)


def changed(sequence: Sequence, **new) -> Sequence:
    """Leaves by their path, as in `segments[1].pulse.flip`, replaced by what a function makes of them."""
    for path, change in new["leaves"].items():
        where = lambda tree, path=path: eval(f"tree.{path}", {"tree": tree})  # noqa: E731
        old = where(sequence)
        made = np.asarray(change(np.zeros(()) if old is None else old))
        sequence = eqx.tree_at(where, sequence, made, is_leaf=lambda leaf: leaf is None)
    return sequence


def same(sequence: Sequence, other: Sequence, bar=1e-9, loose=()) -> None:
    """Leaves equal to `bar` of the largest, those whose path ends like one of `loose` to 1e-6; phases up to turns."""
    ours, theirs = (jax.tree.flatten_with_path(one)[0] for one in (sequence, other))
    assert [path for path, _ in ours] == [path for path, _ in theirs]
    for (path, leaf), (_, found) in zip(ours, theirs, strict=True):
        name = jax.tree_util.keystr(path)
        apart = np.asarray(leaf) - np.asarray(found)
        if "phase" in name:
            apart = apart - 2 * np.pi * np.round(apart / (2 * np.pi))
        if "thickness" not in name:  # which the gradient and the samples tell
            allowed = 1e-6 if name.endswith(tuple(loose)) else bar
            assert np.abs(apart).max() <= allowed * max(np.abs(leaf).max(), 1e-3), name


def kept(scan: Scan, again: Scan) -> None:
    """Labels, triggers and definitions."""
    texts = lambda s: {name: text for name, text in s.definitions.items() if name != "TotalDuration"}  # noqa: E731
    assert texts(scan).items() <= texts(again).items()
    assert [[vars(e) for e in block.extras] for block in scan.blocks] == [
        [vars(e) for e in block.extras] for block in again.blocks
    ]


@pytest.mark.parametrize("name", FILES)
def test_unchanged_files_stay_as_they_are(shared, tmp_path, name):
    """Bytes, also after the sequence has been to float32 and back to a file."""
    scan = quiet(shared / f"{name}.seq")
    save(scan, tmp_path / "plain.seq")
    sequence = to_sequence(scan.blocks, B0)
    for kind in (np.float64, np.float32):
        rounded = jax.tree.map(lambda leaf, kind=kind: leaf if np.iscomplexobj(leaf) else leaf.astype(kind), sequence)
        save(updated(scan, rounded, B0), tmp_path / "again.seq")
        assert (tmp_path / "again.seq").read_bytes() == (tmp_path / "plain.seq").read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_everything_scaled_comes_back(shared, tmp_path, name):
    """Flips and gradients scaled, pulses and receivers turned, in all repetitions of all segments."""
    scan = quiet(shared / f"{name}.seq")
    sequence = to_sequence(scan.blocks, B0)

    def change(path, leaf):
        name = jax.tree_util.keystr(path)
        factors = {"flip": 0.7, "moment": -0.9, "path": -0.9, "gradient": -0.9}
        factor = next((factor for end, factor in factors.items() if name.endswith(end)), 1.0)
        return leaf * factor + (0.3 if name.endswith("phase") else 0.0)

    wanted = jax.tree_util.tree_map_with_path(change, sequence)
    save(updated(scan, wanted, B0), tmp_path / "out.seq")
    again = load(tmp_path / "out.seq")
    same(wanted, to_sequence(again.blocks, B0))
    kept(scan, again)
    assert [block.duration for block in again.blocks] == pytest.approx([block.duration for block in scan.blocks])


def optimised(sequence: Sequence) -> Sequence:
    """Flips of every repetition, also negative, another pulse, and phases."""
    shape = sequence.shapes[0]
    window = 1 + 0.2 * np.cos(np.linspace(0, 6, len(shape.samples)))
    bent = shape.samples * window
    leaves = {"shapes[0].samples": lambda _: bent / (bent.sum() * shape.duration / len(bent))}
    for i, segment in enumerate(sequence.segments):
        factor = np.linspace(-0.5, 1.6, segment.repetitions)
        leaves[f"segments[{i}].pulse.flip"] = lambda flip, factor=factor: flip * factor
        leaves[f"segments[{i}].pulse.phase"] = lambda phase: phase + 0.1
    return changed(sequence, leaves=leaves)


def trains(sequence: Sequence, name: str) -> np.ndarray:
    """Of all pulses."""
    return np.concatenate([np.broadcast_to(getattr(s.pulse, name), s.repetitions) for s in sequence.segments])


def idle(sequence: Sequence, segment: int = 0) -> list[int]:
    events = sequence.segments[segment].events
    return [i for i, e in enumerate(events) if e.moment is None and not e.samples and np.min(e.duration) > 0]


@pytest.mark.parametrize("name", ["write_gre_label", "write_radial_gre"])
def test_an_optimised_scan_goes_back_to_its_file(shared, tmp_path, name):
    """Flips of every repetition (also negative) and the shape of the pulse; PyPulseq reads and accepts it."""
    path = shared / f"pypulseq/{name}.seq"
    wanted = optimised(read(path))
    write(tmp_path / "out.seq", wanted, template=path)
    same(wanted, read(tmp_path / "out.seq"), loose=["samples", "flip"])
    kept(load(path), load(tmp_path / "out.seq"))
    theirs = pp.Sequence()
    theirs.read(str(tmp_path / "out.seq"))
    assert theirs.check_timing()[0]
    pulses = [block for block in (theirs.get_block(i) for i in theirs.block_events) if block.rf is not None]
    angles = [2 * np.pi * np.sum(block.rf.signal) * theirs.system.rf_raster_time for block in pulses]
    turned = [np.exp(1j * (b.rf.phase_offset + 2 * np.pi * b.rf.freq_offset * b.rf.center)) for b in pulses]
    expected = trains(wanted, "flip") * np.exp(1j * trains(wanted, "phase"))
    np.testing.assert_allclose(np.array(angles) * turned, expected, atol=1e-6)


@pytest.mark.parametrize(("name", "least"), [("write_gre", 0.0), ("write_gre_label_softdelay", 1.0)])
def test_times_are_those_of_blocks_with_room(shared, tmp_path, name, least):
    """TE longer in a constant TR, rounded to the raster, repetition by repetition; soft delays have to agree."""
    path = shared / f"pypulseq/{name}.seq"
    sequence, leaves = read(path), {}
    for s, segment in enumerate(sequence.segments):
        before, after = idle(sequence, s)
        more = np.linspace(1, least, segment.repetitions) * ms
        leaves[f"segments[{s}].events[{before}].duration"] = lambda time, more=more: time + more
        leaves[f"segments[{s}].events[{after}].duration"] = lambda time, more=more: time - more
    wanted = changed(sequence, leaves=leaves)
    write(tmp_path / "out.seq", wanted, template=path)
    again = read(tmp_path / "out.seq")
    for s, segment in enumerate(wanted.segments):
        n = segment.repetitions
        for i, (event, found) in enumerate(zip(segment.events, again.segments[s].events, strict=True)):
            bar = 5.001 * us if i in idle(sequence, s) else 1e-12
            np.testing.assert_allclose(np.broadcast_to(found.duration, n), np.broadcast_to(event.duration, n), atol=bar)
    scan = load(tmp_path / "out.seq")
    kept(load(path), scan)
    assert float(scan.definitions["TotalDuration"]) == pytest.approx(sum(block.duration for block in scan.blocks))
    theirs = pp.Sequence()
    theirs.read(str(tmp_path / "out.seq"))
    assert theirs.check_timing()[0]


def test_a_spoiler_may_change_in_one_repetition(shared, tmp_path):
    path = shared / "pypulseq/write_gre.seq"
    sequence = read(path)
    n, events = sequence.segments[0].repetitions, sequence.segments[0].events
    varied = [i for i, event in enumerate(events) if np.ndim(event.moment) == 2]
    spoiler = max(varied, key=lambda i: np.abs(events[i].moment).max())
    factor = np.ones((n, 1))
    factor[3], factor[5] = 0.5, -2.0

    wanted = changed(sequence, leaves={
        f"segments[0].events[{spoiler}].moment": lambda moment: np.broadcast_to(moment, (n, 3)) * factor
    })  # fmt: skip
    write(tmp_path / "out.seq", wanted, template=path)
    before, after = load(path), load(tmp_path / "out.seq")
    different = [
        i
        for i, (block, other) in enumerate(zip(before.blocks, after.blocks, strict=True))
        if any(
            abs(getattr(block, axis).amplitude - getattr(other, axis).amplitude) > 1
            for axis in ("gx", "gy", "gz")
            if getattr(block, axis) is not None
        )
    ]
    assert len(different) == 2
    moments = read(tmp_path / "out.seq").segments[0].events[spoiler].moment
    np.testing.assert_allclose(moments, wanted.segments[0].events[spoiler].moment, rtol=1e-9, atol=1e-6)


def test_receivers_and_frequencies(shared, tmp_path):
    """Phases sample by sample become the modulation of the ADC; a carrier keeps its phase at the RF centre."""
    path = shared / "pypulseq/write_gre.seq"
    sequence = read(path)
    # The first sample stands apart, its dwell begins with the block.
    first, readout = (i for i, event in enumerate(sequence.segments[0].events) if event.samples)
    samples = sequence.segments[0].events[readout].samples
    bent = 0.1 * np.arange(samples) ** 1.5
    wanted = changed(sequence, leaves={
        f"segments[0].events[{first}].receiver_phase": lambda phase: phase + 0.4,
        f"segments[0].events[{readout}].receiver_phase": lambda phase: phase + 0.4,
        f"segments[0].events[{readout}].modulation": lambda _: bent,
        "segments[0].pulse.frequency": lambda _: np.asarray(120.0),
    })  # fmt: skip
    write(tmp_path / "out.seq", wanted, template=path)
    again = read(tmp_path / "out.seq")

    def turned(sequence, i):
        event = sequence.segments[0].events[i]
        modulation = np.zeros(event.samples) if event.modulation is None else event.modulation
        return np.exp(1j * (np.reshape(event.receiver_phase, (-1, 1)) + np.reshape(modulation, (-1, event.samples))))

    for i in (first, readout):
        np.testing.assert_allclose(turned(again, i), turned(wanted, i), atol=1e-9)
    np.testing.assert_allclose(again.segments[0].pulse.frequency, 120.0)
    apart = np.exp(1j * again.segments[0].pulse.phase) - np.exp(1j * wanted.segments[0].pulse.phase)
    assert np.abs(apart).max() < 1e-9


def test_a_pulse_of_two_nodes_takes_a_shape_on_the_raster():
    """Which means the same over the steps that it was given in."""
    rf = pp.make_block_pulse(0.5, duration=0.8 * ms, delay=0.1 * ms, use="excitation")
    blocks = (Block(1 * ms, rf=rf), Block(1 * ms, adc=pp.make_adc(4, dwell=10 * us, delay=20 * us)))
    scan = Scan((1, 5, 0), {}, Rasters(), blocks)
    bent = lambda samples: samples * np.linspace(0.5, 1.5, len(samples))  # noqa: E731
    wanted = changed(to_sequence(blocks), leaves={"shapes[0].samples": bent})
    again = to_sequence(updated(scan, wanted).blocks)
    n = len(wanted.shapes[0].samples)
    found = again.shapes[0].samples.reshape(n, -1).mean(axis=1) * again.segments[0].pulse.flip
    np.testing.assert_allclose(found, 0.5 * wanted.shapes[0].samples, rtol=1e-6)


def refusals(sequence: Sequence) -> dict:
    """Changes of a gradient echo that no template can take, by what is said of them."""
    events = sequence.segments[0].events
    readout = max(i for i, event in enumerate(events) if event.samples)
    slice_only = np.array([0.0, 0.0, 1.2])
    replace = lambda where, value: {where: lambda _: value}  # noqa: E731
    return {
        r"segment 0, event 0, repetition 0: its moment along z cannot change alone.*gradient of the pulse": {
            "segments[0].events[0].moment": lambda moment: moment * slice_only
        },
        r"segment 0, event \d+, repetition 0: its moment along y was changed, but the template has no gradient there": {
            f"segments[0].events[{readout}].moment": lambda moment: moment + np.array([0.0, 50.0, 0.0])
        },
        r"event \d+, repetition 0: its duration was changed by 0.001 s, but it has gradients or samples": {
            f"segments[0].events[{readout}].duration": lambda time: time + 1 * ms
        },
        r"duration of shape 0 was changed, but the times of an RF pulse stay": {
            "shapes[0].duration": lambda time: 2 * time
        },
        r"flip of segment 0 must have shape \(\) or \(\d+,\), got \(3,\)": replace(
            "segments[0].pulse.flip", np.ones(3)
        ),
        r"flip of segment 0 must be finite, got nan": replace("segments[0].pulse.flip", np.asarray(np.nan)),
    }


@pytest.mark.parametrize("which", range(6))
def test_what_a_template_cannot_say_is_refused(shared, which):
    scan = load(shared / "pypulseq/write_gre.seq")
    sequence = to_sequence(scan.blocks)
    message, leaves = list(refusals(sequence).items())[which]
    with pytest.raises(ValueError, match=message):
        updated(scan, changed(sequence, leaves=leaves))


def test_another_structure_is_refused(shared):
    scan = load(shared / "pypulseq/write_gre.seq")
    sequence = to_sequence(scan.blocks)
    fewer = eqx.tree_at(lambda s: s.segments, sequence, ())
    with pytest.raises(ValueError, match=r"it has 0 segments, the template \d+; change only numbers"):
        updated(scan, fewer)
    with pytest.raises(ValueError, match="it has an initial magnetisation"):
        updated(scan, Sequence(sequence.segments, sequence.shapes, jnp.zeros(3)))


def test_a_delay_cannot_be_made_shorter_than_what_it_holds(shared):
    scan = load(shared / "pypulseq/write_gre.seq")
    sequence = to_sequence(scan.blocks)
    event = idle(sequence)[0]
    shorter = changed(sequence, leaves={f"segments[0].events[{event}].duration": lambda time: time - 1.0})
    with pytest.raises(ValueError, match=r"for which no block of the template has room.*add a delay"):
        updated(scan, shorter)


def test_a_template_has_its_own_slices(shared, tmp_path):
    path = shared / "pypulseq/write_gre.seq"
    with pytest.raises(ValueError, match="whose pulses are what they are"):
        write(tmp_path / "out.seq", read(path), template=path, selective=5e-3)
