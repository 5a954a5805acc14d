"""Spin-echo EPI that samples on the ramps, its blips split and joined to neighbouring readouts."""

import math

import numpy as np


def build(pp, te=60e-3, flip=math.pi / 2, n=16, fov=0.25, thickness=3e-3):
    system = pp.Opts(
        max_grad=32, grad_unit="mT/m", max_slew=130, slew_unit="T/m/s", rf_ringdown_time=30e-6, rf_dead_time=100e-6
    )
    seq = pp.Sequence(system)
    raster, delta_k = system.grad_raster_time, 1 / fov
    rf, gz, gz_reph = pp.make_sinc_pulse(
        flip_angle=flip, system=system, duration=2e-3, slice_thickness=thickness, apodization=0.5, time_bw_product=4,
        return_gz=True, use="excitation", delay=100e-6,
    )  # fmt: skip
    rf180, gz180, _ = pp.make_sinc_pulse(
        flip_angle=math.pi, system=system, duration=2.5e-3, slice_thickness=thickness, apodization=0.5,
        phase_offset=math.pi / 2, return_gz=True, use="refocusing", delay=100e-6,
    )  # fmt: skip
    crusher = pp.make_trapezoid("z", system=system, area=gz.area, duration=3e-3)
    blip_time = math.ceil(2 * math.sqrt(delta_k / system.max_slew) / 10e-6 / 2) * 10e-6 * 2
    blip = pp.make_trapezoid("y", system=system, area=-delta_k, duration=blip_time)
    readout = 5.2e-4
    extra = blip_time / 2 * blip_time / 2 * system.max_slew
    gx = pp.make_trapezoid("x", system=system, area=n * delta_k + extra, duration=readout + blip_time)
    lost = gx.amplitude / gx.rise_time * blip_time / 2 * blip_time / 2 / 2
    lost += gx.amplitude / gx.fall_time * blip_time / 2 * blip_time / 2 / 2
    gx.amplitude = gx.amplitude * n * delta_k / (gx.area - lost)
    gx.area = gx.amplitude * (gx.flat_time + gx.rise_time / 2 + gx.fall_time / 2)
    gx.flat_area = gx.amplitude * gx.flat_time
    dwell = math.floor(delta_k / gx.amplitude / system.adc_raster_time) * system.adc_raster_time
    samples = math.floor(readout / dwell / 4) * 4
    adc = pp.make_adc(num_samples=samples, dwell=dwell, delay=blip_time / 2)
    middle = dwell * ((samples - 1) / 2 + 0.5)
    adc.delay = round((gx.rise_time + gx.flat_time / 2 - middle) * 1e6) * 1e-6
    parts = pp.split_gradient_at(grad=blip, time_point=blip_time / 2, system=system)
    up, down, _ = pp.align(right=parts[0], left=[parts[1], gx])
    both = pp.add_gradients((down, up), system=system)
    pre_time = 1.1e-3
    gx_pre = pp.make_trapezoid("x", system=system, area=gx.area / 2, duration=pre_time)
    gy_pre = pp.make_trapezoid("y", system=system, area=n // 2 * delta_k, duration=pre_time)
    reph = pp.make_trapezoid("z", system=system, area=gz_reph.area, duration=pre_time)
    to_centre = (n // 2 + 0.5) * pp.calc_duration(gx)
    after = pp.calc_duration(gz) - rf.delay - pp.calc_rf_center(rf)[0] + pre_time
    first = te / 2 - after - pp.calc_duration(crusher) - rf180.delay - pp.calc_rf_center(rf180)[0]
    second = te / 2 - (pp.calc_duration(gz180) - rf180.delay - pp.calc_rf_center(rf180)[0]) - to_centre
    second -= pp.calc_duration(crusher)
    if min(first, second) < 0:
        raise ValueError(f"te = {te * 1e3} ms is too short")
    seq.add_block(rf, gz)
    seq.add_block(gx_pre, gy_pre, reph)
    seq.add_block(pp.make_delay(math.ceil(first / raster) * raster))
    seq.add_block(crusher)
    seq.add_block(rf180, gz180)
    seq.add_block(crusher)
    seq.add_block(pp.make_delay(math.ceil(second / raster) * raster))
    for i in range(n):
        blips = both if 0 < i < n - 1 else (up if i == 0 else down)
        seq.add_block(gx, blips, adc)
        gx = pp.scale_grad(gx, -1)
    seq.set_definition("Name", f"epi {np.round(te * 1e3, 1)}")
    return seq
