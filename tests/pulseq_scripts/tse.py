"""Turbo spin echo whose refocusing flips are a list, with crushers joined to the slice gradient's timing."""

import math

import numpy as np


def build(pp, excitation=math.pi / 2, flips=(math.pi,) * 4, esp=14e-3, tr=0.3, n=8, fov=0.2, thickness=5e-3):
    system = pp.Opts(max_grad=30, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s", rf_dead_time=100e-6)
    seq = pp.Sequence(system)
    raster, delta_k, turbo = system.grad_raster_time, 1 / fov, len(flips)
    rf, gz, gz_reph = pp.make_sinc_pulse(
        flip_angle=excitation, duration=2.5e-3, slice_thickness=thickness, phase_offset=math.pi / 2, return_gz=True,
        system=system, use="excitation", delay=100e-6,
    )  # fmt: skip
    gx = pp.make_trapezoid("x", flat_area=n * delta_k, flat_time=3.2e-3, system=system)
    adc = pp.make_adc(num_samples=n, duration=gx.flat_time, delay=gx.rise_time, system=system)
    gx_pre = pp.make_trapezoid("x", area=gx.area / 2, system=system)
    crusher = pp.make_trapezoid("z", area=4 / thickness, system=system)
    # the half echo spacings around a refocusing pulse, cut down to the raster
    length = max(pp.calc_duration(gx_pre), pp.calc_duration(gz_reph))
    first = pp.make_sinc_pulse(
        flip_angle=flips[0], duration=2e-3, slice_thickness=thickness, return_gz=True, system=system,
        use="refocusing", delay=100e-6,
    )[1]  # fmt: skip
    half = pp.calc_duration(first) / 2
    after_excitation = esp / 2 - (pp.calc_duration(gz) - rf.delay - pp.calc_rf_center(rf)[0]) - length
    after_excitation = raster * math.floor((after_excitation - half - pp.calc_duration(crusher)) / raster)
    around = (esp - pp.calc_duration(gx)) / 2 - half - pp.calc_duration(crusher)
    around = round(around / raster) * raster
    if after_excitation < 0 or around < 0:
        raise ValueError(f"echo spacing {esp * 1e3:.1f} ms is too short")
    shots = int(np.ceil(n / turbo))
    for shot in range(shots):
        seq.add_block(rf, gz)
        seq.add_block(gx_pre, gz_reph, pp.make_delay(length))
        seq.add_block(pp.make_delay(after_excitation))
        elapsed = esp / 2
        for echo, flip in enumerate(flips):
            line = (shot + echo * shots) - n // 2
            pulse, gz180, _ = pp.make_sinc_pulse(
                flip_angle=flip, duration=2e-3, slice_thickness=thickness, return_gz=True, system=system,
                use="refocusing", delay=100e-6,
            )  # fmt: skip
            gy = pp.make_trapezoid("y", area=line * delta_k, duration=pp.calc_duration(crusher), system=system)
            seq.add_block(crusher)
            seq.add_block(pulse, gz180)
            seq.add_block(crusher, gy)
            if around > 0:
                seq.add_block(pp.make_delay(around))
            seq.add_block(gx, adc)
            if around > 0:
                seq.add_block(pp.make_delay(around))
            seq.add_block(pp.scale_grad(gy, scale=-1))
            elapsed += esp
        seq.add_block(pp.make_delay(np.ceil((tr - elapsed) / raster) * raster))
    seq.set_definition("TurboFactor", turbo)
    return seq
