"""Blocks as sequences: against PyPulseq's k-space, KomaMRI's and JEMRIS's signals, a scanner, and sampled waveforms."""

import warnings

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
import jemris
from checks import relative
from jaxmr.physics import waveforms
from jaxmr.pulseq.blocks import Block
from jaxmr.pulseq.conversion.segments import to_sequence
from jaxmr.pulseq.seqfile.reading import load
from jaxmr.units import deg, mm, ms, us

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyPulseq's syntax warnings
    import pypulseq as pp

SYSTEM = pp.Opts(max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s", rf_ringdown_time=20 * us)
FILES = (
    "write_gre", "write_gre_label", "write_gre_label_softdelay", "write_epi", "write_epi_se", "write_epi_se_rs",
    "write_tse", "write_radial_gre", "write_mprage", "simple_mprage140", "simple_mprage150", "trufi_v140", "trufi_v150",
)  # fmt: skip


def blocks_of(*parts) -> list[Block]:
    """Blocks of PyPulseq's events, each part a tuple of what is played together."""
    found = []
    for events in parts:
        named = {f"g{e.channel}" if hasattr(e, "channel") else e.type: e for e in events if e.type != "delay"}
        found.append(Block(pp.calc_duration(*events), **named))
    return found


@pytest.mark.parametrize("name", FILES)
def test_kspace_is_that_of_pypulseq(shared, name):
    """PyPulseq counts moments as k; here k is minus the moment."""
    path = shared / f"pypulseq/{name}.seq"
    sequence = pp.Sequence()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sequence.read(str(path))
        expected = 2 * np.pi * sequence.calculate_kspace()[0].T
    found = mr.sequences.trajectory(to_sequence(load(path).blocks, b0=3.0))
    assert np.abs(found + expected).max() < (2e-3 if name == "write_tse" else 2e-6)


def test_spin_echoes_of_old_files_are_refocused(shared):
    """Files before 1.5 do not say what pulses are for; PyPulseq then leaves the slice dephased."""
    k = np.asarray(mr.sequences.trajectory(to_sequence(load(shared / "koma_readcmp/extra/epi_se.seq").blocks)))
    assert np.abs(k[:, 2]).max() < 0.1
    assert k[:, 0].max() == pytest.approx(-k[:, 0].min(), rel=0.05)


@pytest.mark.parametrize(("name", "phantom"), [("a", "column1d"), ("b", "sphere_chemical_shift")])
def test_signals_of_komamri(shared, name, phantom):
    """Left-handed: its RF phases are 0, so that the conjugate is ours. JEMRIS jitters its spins by 1 % of a voxel."""
    folder = shared / "koma_jemris"
    place = jemris.sample(folder / f"{phantom}.h5")
    sequence = to_sequence(load(folder / "epi_100x100_TE100_FOV230.seq").blocks)
    signal = np.conj(mr.simulate(sequence, place, mr.PDG(1e-4, pulses="finite"))[0]) / place.tissue.shape[0]
    with h5py.File(folder / f"{name}_signal_koma.mat") as file:
        koma = file[next(iter(file))][()].ravel()
    with h5py.File(folder / f"{name}_signals_jemris.h5") as file:
        judged = file["signal/channels/00"][()] @ [1, 1j, 0]
    assert relative(signal, koma["real"] + 1j * koma["imag"]) < 1e-3
    assert relative(signal, judged) < 1.5e-2


@pytest.mark.parametrize(("name", "bar"), [("trapezoid", 1e-4), ("gre", 5e-4), ("radial", 5e-4)])
def test_signals_of_jemris_from_its_files(shared, name, bar):
    """Left-handed: RF and receiver phases are negated, and the signal is conjugated."""
    folder = shared / "jemris_approved"
    blocks = [negated(block) for block in load(folder / f"{name}.seq").blocks]
    place = jemris.sample(folder / "sample.h5")
    signal = mr.simulate(to_sequence(blocks), place, mr.Isochromats())[0] / place.tissue.shape[0]
    with h5py.File(folder / f"{name}_signal.h5") as file:
        expected = file["signal/channels/00"][()] @ [1, 1j, 0]
    assert relative(np.conj(signal), expected) < bar


def negated(block: Block) -> Block:
    """The block as a left-handed program plays it."""
    for event in (block.rf, block.adc):
        if event is not None and not hasattr(event, "negated"):
            event.phase_offset, event.freq_offset, event.negated = -event.phase_offset, -event.freq_offset, True
    return block


def everything():
    """A slice along a diagonal, played off resonance and while gradients ramp; a readout on ramps, demodulated."""
    rf, gz, gzr = pp.make_sinc_pulse(
        70 * deg, duration=2 * ms, slice_thickness=4 * mm, time_bw_product=3, freq_offset=400.0, phase_offset=0.7,
        return_gz=True, system=SYSTEM, use="excitation",
    )  # fmt: skip
    gx = pp.make_trapezoid("x", area=180, duration=3 * ms, system=SYSTEM)
    ramp = pp.make_trapezoid(
        "y", amplitude=2e5, rise_time=0.8 * ms, flat_time=0.5 * ms, fall_time=0.9 * ms, system=SYSTEM
    )
    back = pp.make_trapezoid("z", area=-2 * 180, duration=2 * ms, system=SYSTEM)
    read = pp.make_trapezoid("x", area=-300, duration=2 * ms, system=SYSTEM)
    adc = pp.make_adc(40, dwell=40 * us, delay=200 * us, freq_offset=150.0, phase_offset=0.3, system=SYSTEM)
    hard = pp.make_block_pulse(-50 * deg, duration=0.4 * ms, delay=0.5 * ms, system=SYSTEM, use="refocusing")
    return blocks_of(
        (rf, gx, gz), (gzr,), (hard, ramp), (back,), (read, adc), (pp.make_delay(1 * ms),), (rf, gz), (adc,)
    )


def sampled(blocks: list[Block], step=2 * us):
    """The same as waveforms with nodes every `step`, straight between them, and the demodulated times of samples."""
    begins = np.cumsum([0.0] + [block.duration for block in blocks])
    pulses = [(t + b.rf.delay, t + b.rf.delay + b.rf.shape_dur) for t, b in zip(begins, blocks, strict=False) if b.rf]
    # Pulses begin and end at once.
    edges = np.ravel(pulses)[:, None] + [-1e-10, 1e-10]
    nodes = np.union1d(np.arange(round(begins[-1] / step) + 1) * step, edges)
    rf, gradient = np.zeros(len(nodes), complex), np.zeros((len(nodes), 3))
    times, phases, begin = [], [], 0.0
    for block in blocks:
        if block.rf is not None:
            t = nodes - begin - block.rf.delay
            inside = (t > 0) & (t < block.rf.shape_dur)
            carrier = np.exp(1j * (block.rf.phase_offset + 2 * np.pi * block.rf.freq_offset * t[inside]))
            rf[inside] = 2 * np.pi * np.interp(t[inside], block.rf.t, block.rf.signal) * carrier
        for axis, g in enumerate((block.gx, block.gy, block.gz)):
            if g is not None:
                corners = np.cumsum([begin + g.delay, g.rise_time, g.flat_time, g.fall_time])
                gradient[:, axis] += 2 * np.pi * np.interp(nodes, corners, [0, g.amplitude, g.amplitude, 0], 0, 0)
        if block.adc is not None:
            since = block.adc.dwell * (np.arange(block.adc.num_samples) + 0.5)
            times.append(begin + block.adc.delay + since)
            phases.append(block.adc.phase_offset + 2 * np.pi * block.adc.freq_offset * since)
        begin += block.duration
    shape = waveforms.Waveforms(jnp.asarray(nodes), jnp.asarray(rf), jnp.asarray(gradient))
    return shape, np.concatenate(times), np.concatenate(phases)


@pytest.mark.parametrize("model", [mr.Isochromats(), mr.PDG(1e-5, pulses="finite")], ids=["isochromats", "pdg"])
def test_gradients_carriers_and_receivers_are_those_of_the_waveforms(model):
    rng = np.random.default_rng(0)
    tissue = mr.Tissue(t1=[0.9, 0.5, 0.3], t2=[0.08, 0.05, 0.1], b1=[1.0, 0.9, 1.1], b0=[0.0, 60.0, -40.0])
    place = mr.Phantom(tissue, 4e-3 * rng.normal(size=(3, 3)), (1e-3,) * 3, voxel_shape="point")
    blocks = everything()
    shape, times, phases = sampled(blocks)
    expected = waveforms.receive(shape, place, times)[0] * np.exp(-1j * phases)
    sequence = to_sequence(blocks)
    assert relative(mr.simulate(sequence, place, model)[0], expected) < 1e-3
    np.testing.assert_allclose(mr.sequences.sample_times(sequence), times - 1 * ms - blocks[0].rf.delay, atol=1e-12)


def test_the_shape_of_a_negative_flip_is_that_of_a_positive_one():
    flips = np.deg2rad([-30.0, 20.0, 50.0])
    pulses = [pp.make_gauss_pulse(flip, duration=1 * ms, system=SYSTEM, use="excitation") for flip in flips]
    adc = pp.make_adc(4, dwell=10 * us, delay=20 * us, system=SYSTEM)
    sequence = to_sequence([block for pulse in pulses for block in blocks_of((pulse,), (adc,))])
    assert len(sequence.shapes) == len(sequence.segments) == 1
    np.testing.assert_allclose(sequence.segments[0].pulse.flip, flips, rtol=1e-12)


def test_epg_plays_what_winds_whole_orders(shared):
    """A FISP train of blocks with a spoiler is that of the family; encoding that is not rewound has no EPG."""
    flips = np.deg2rad([10.0, 40.0, 60.0, 30.0])
    spoiler = pp.make_trapezoid("z", area=500, duration=3 * ms, system=SYSTEM)
    adc = pp.make_adc(1, dwell=10 * us, delay=1 * ms - 5 * us, system=SYSTEM)
    parts = []
    for flip in flips:
        rf = pp.make_block_pulse(flip, duration=0.2 * ms, system=SYSTEM, use="excitation")
        parts += [(rf, pp.make_delay(1 * ms)), (adc, pp.make_delay(2 * ms)), (spoiler,)]
    sequence = to_sequence(blocks_of(*parts))
    tissue = mr.Tissue(t1=0.9, t2=0.08)
    plain = mr.sequences.fisp(flip=flips, tr=6 * ms, te=1.9 * ms)
    np.testing.assert_allclose(
        mr.simulate(sequence, tissue, mr.EPG()), mr.simulate(plain, tissue, mr.EPG()), atol=1e-12
    )
    gre = to_sequence(load(shared / "pypulseq/write_gre.seq").blocks)
    with pytest.raises(ValueError, match="PDG"):
        mr.simulate(gre, tissue, mr.EPG())


def test_offsets_in_ppm_need_the_field():
    rf = pp.make_gauss_pulse(1.5, duration=8 * ms, freq_ppm=-3.45, system=SYSTEM, use="saturation")
    blocks = blocks_of((rf,), (pp.make_adc(4, dwell=10 * us, delay=20 * us, system=SYSTEM),))
    with pytest.raises(ValueError, match=r"freq_ppm=-3\.45, which is relative to the main field; give b0= in tesla"):
        to_sequence(blocks)
    frequency = to_sequence(blocks, b0=3.0).segments[0].pulse.frequency
    assert frequency == pytest.approx(-3.45e-6 * 3 * 42.577478518e6, rel=1e-9)


@pytest.mark.parametrize("name", ["sinc_w_apod", "gauss"])
def test_slice_profiles_of_a_scanner(shared, name):
    """|M+| after block 2 along the read axis, as its own scan measured it: one scale, a shift of 3 pixels, a flip."""
    data = np.load(shared / "mr_physics_pulseq/se2d_kspace_dev.npz")

    def image(key):
        coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(data[key], (0, 2)), axes=(0, 2)), (0, 2))
        return np.sqrt((np.abs(coils) ** 2).sum(1))[24:40].sum(0)

    inside = image("image") > 0.3 * image("image").max()
    measured = image(name)[inside] / image("image")[inside]
    excitation = load(shared / f"mr_physics_pulseq/seq/se_2D_{name}_spr.seq").blocks[1]
    sequence = to_sequence([excitation, Block(1 * ms, adc=pp.make_adc(1, dwell=2 * us))])
    x = (np.arange(64 * 8) + 0.5) / 8 * 2 * mm - 64 * mm
    position = np.stack([x, 0 * x, 0 * x], axis=-1)
    tissue = mr.Tissue(t1=np.full(x.size, 1.0), t2=np.full(x.size, 0.1))
    # A coil for each place, so that k-space of the first sample is the magnetisation itself.
    place = mr.Phantom(tissue, position, (0.25 * mm, 1 * mm, 1 * mm), np.eye(x.size), voxel_shape="point")
    magnitude = np.abs(mr.simulate(sequence, place, mr.Isochromats())[:, 0])
    fits = []
    for shift in range(-24, 25):
        simulated = np.roll(magnitude, shift).reshape(64, 8).mean(1)
        for one in (simulated[inside], simulated[::-1][inside]):
            scaled = one * (one @ measured) / (one @ one)
            fits.append((relative(scaled, measured), np.corrcoef(one, measured)[0, 1]))
    nrmse, correlation = min(fits)
    assert nrmse <= 0.06
    assert correlation >= 0.99


def test_saturation_chooses_by_frequency_also_where_pulses_are_instantaneous():
    """Fat is gone, water stays; against every spin by itself."""
    rf = pp.make_gauss_pulse(
        110 * deg, duration=8 * ms, bandwidth=220, freq_offset=-440.0, system=SYSTEM, use="saturation"
    )
    spoiler = pp.make_trapezoid("z", area=2000, duration=4 * ms, system=SYSTEM)
    excite = pp.make_block_pulse(90 * deg, duration=10 * us, system=SYSTEM, use="excitation")
    adc = pp.make_adc(8, dwell=100 * us, delay=0.5 * ms, system=SYSTEM)
    blocks = blocks_of((rf,), (spoiler,), (excite,), (adc, pp.make_delay(2 * ms)))
    sequence = to_sequence(blocks)
    for b0, kept in ((0.0, 0.99), (-440.0, 0.31)):
        tissue = mr.Tissue(t1=[1.0], t2=[0.1], b0=[b0])
        place = mr.Phantom(tissue, np.zeros((1, 3)), (1e-3,) * 3, voxel_shape="box")
        found = mr.simulate(sequence, place, mr.PDG(1e-4))[0]
        assert relative(found, mr.simulate(sequence, place, mr.Isochromats(400))[0]) < 5e-3
        assert np.abs(found[0]) == pytest.approx(kept, abs=0.02)
