"""Single-shot gradient-echo EPI after an ideal-looking inversion, blips between alternating readouts."""

import math

import numpy as np


def build(pp, ti=0.1, flip=math.pi / 2, n=8, fov=0.22, thickness=3e-3, blip_factor=1.0):
    system = pp.Opts(
        max_grad=32, grad_unit="mT/m", max_slew=130, slew_unit="T/m/s", rf_ringdown_time=30e-6, rf_dead_time=100e-6
    )
    seq = pp.Sequence(system)
    raster, delta_k = system.grad_raster_time, 1 / fov
    inversion = pp.make_block_pulse(math.pi, duration=1e-3, system=system, use="inversion", delay=100e-6)
    spoiler = pp.make_trapezoid("z", area=8 / thickness, system=system)
    rf, gz, _ = pp.make_sinc_pulse(
        flip_angle=flip, system=system, duration=3e-3, slice_thickness=thickness, apodization=0.5, time_bw_product=4,
        return_gz=True, use="excitation", delay=100e-6,
    )  # fmt: skip
    width = n * delta_k
    dwell = 4e-6
    readout_time = n * dwell
    flat_time = math.ceil(readout_time * 1e5) * 1e-5
    gx = pp.make_trapezoid("x", system=system, amplitude=width / readout_time / 8, flat_time=flat_time * 8)
    adc = pp.make_adc(
        num_samples=n, duration=readout_time * 8, system=system,
        delay=gx.rise_time + flat_time * 4 - (readout_time - dwell) * 4,
    )  # fmt: skip
    pre_time = 8e-4
    gx_pre = pp.make_trapezoid("x", system=system, area=-gx.area / 2, duration=pre_time)
    gz_reph = pp.make_trapezoid("z", system=system, area=-gz.area / 2, duration=pre_time)
    gy_pre = pp.make_trapezoid("y", system=system, area=-n / 2 * delta_k * blip_factor, duration=pre_time)
    blip_time = np.ceil(2 * np.sqrt(delta_k / system.max_slew) / 10e-6 + 2) * 10e-6
    gy = pp.make_trapezoid("y", system=system, area=delta_k * blip_factor, duration=blip_time)
    from_inversion = pp.calc_duration(inversion) - inversion.delay - pp.calc_rf_center(inversion)[0]
    delay = ti - from_inversion - pp.calc_duration(spoiler) - rf.delay - pp.calc_rf_center(rf)[0]
    seq.add_block(inversion)
    seq.add_block(spoiler)
    seq.add_block(pp.make_delay(round(delay / raster) * raster))
    seq.add_block(rf, gz)
    seq.add_block(gx_pre, gy_pre, gz_reph)
    for i in range(n):
        seq.add_block(gx, adc)
        if i < n - 1:
            seq.add_block(gy)
        gx.amplitude = -gx.amplitude
    seq.set_definition("TI", float(ti))
    return seq
