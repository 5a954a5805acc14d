"""A turbo spin echo as a PyPulseq script, 64x64 in 4 shots of 16 echoes; `pp` is PyPulseq or what stands in for it."""

import math

N, TURBO, FOV, THICKNESS, ESP, TR = 64, 16, 0.18158933333, 5e-3, 12e-3, 3.0


def tse(pp, flips):
    """flips: of the excitation, and of the refocusing pulses of a shot, rad."""
    system = pp.Opts(max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s", rf_ringdown_time=20e-6)
    seq = pp.Sequence(system)
    selective = {"slice_thickness": THICKNESS, "apodization": 0.5, "return_gz": True, "system": system}
    rf, gz, rephaser = pp.make_sinc_pulse(
        flips[0], duration=2e-3, phase_offset=math.pi / 2, use="excitation", **selective
    )
    read = pp.make_trapezoid("x", flat_area=N / FOV, flat_time=2.56e-3, system=system)
    adc = pp.make_adc(N, duration=2.56e-3, delay=read.rise_time, system=system)
    before = pp.make_trapezoid("x", area=read.area / 2, duration=1.5e-3, system=system)
    rephaser = pp.make_trapezoid("z", area=rephaser.area, duration=1.5e-3, system=system)
    crusher = pp.make_trapezoid("z", area=4 / THICKNESS, duration=1.5e-3, system=system)
    pulses = [pp.make_sinc_pulse(flip, duration=2e-3, use="refocusing", **selective)[:2] for flip in flips[1:]]
    slices = gz.rise_time + gz.flat_time + gz.fall_time
    first = ESP / 2 - slices - 2 * 1.5e-3
    rest = ESP / 2 - slices / 2 - 1.5e-3 - (read.rise_time + read.flat_time + read.fall_time) / 2
    after = rest - 1.5e-3
    for shot in range(N // TURBO):
        seq.add_block(rf, gz)
        seq.add_block(before, rephaser)
        seq.add_block(pp.make_delay(round(first / 1e-5) * 1e-5))
        for echo, (pulse, gz180) in enumerate(pulses):
            line = shot + echo * (N // TURBO) - N // 2
            along = pp.make_trapezoid("y", area=line / FOV, duration=1.5e-3, system=system)
            back = pp.make_trapezoid("y", area=-line / FOV, duration=1.5e-3, system=system)
            seq.add_block(crusher)
            seq.add_block(pulse, gz180)
            seq.add_block(crusher, along)
            seq.add_block(pp.make_delay(round(rest / 1e-5) * 1e-5))
            seq.add_block(read, adc)
            seq.add_block(back)
            seq.add_block(pp.make_delay(round(after / 1e-5) * 1e-5))
        seq.add_block(pp.make_delay(TR - ESP * (TURBO + 0.5)))
    return seq
