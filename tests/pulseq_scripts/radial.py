"""Radial gradient echo: one readout turned from spoke to spoke."""

import numpy as np


def build(pp, flip=0.17, angle=np.pi * (3 - 5**0.5) / 2, tr=20e-3, spokes=5, n=16, fov=0.26):
    system = pp.Opts(max_grad=28, grad_unit="mT/m", max_slew=80, slew_unit="T/m/s", rf_ringdown_time=20e-6)
    seq = pp.Sequence(system)
    rf, gz, gzr = pp.make_gauss_pulse(
        flip_angle=flip, duration=3e-3, slice_thickness=3e-3, time_bw_product=3, system=system, return_gz=True,
        use="excitation",
    )  # fmt: skip
    gx = pp.make_trapezoid("x", flat_area=n / fov, flat_time=3.2e-3, system=system)
    adc = pp.make_adc(n, duration=gx.flat_time, delay=gx.rise_time, system=system)
    gx_pre = pp.make_trapezoid("x", area=-gx.area / 2 - 0.5 / fov, duration=2e-3, system=system)
    gx_spoil = pp.make_trapezoid("x", area=0.5 * n / fov, system=system)
    gz_spoil = pp.make_trapezoid("z", area=4 / 3e-3, system=system)
    used = pp.calc_duration(gz) + 2e-3 + pp.calc_duration(gx) + pp.calc_duration(gx_spoil, gz_spoil)
    delay = np.ceil((tr - used) / system.grad_raster_time) * system.grad_raster_time
    for i in range(spokes):
        rf.phase_offset = np.mod(117 * (i * i + i + 2) / 2, 360) * np.pi / 180
        adc.phase_offset = rf.phase_offset
        seq.add_block(rf, gz)
        seq.add_block(*pp.rotate(gx_pre, pp.scale_grad(gzr, 1.0), angle=i * angle + 0.1, axis="z"))
        seq.add_block(*pp.rotate(gx, adc, angle=i * angle + 0.1, axis="z"))
        seq.add_block(*pp.rotate(gx_spoil, gz_spoil, pp.make_delay(delay + 4e-3), angle=i * angle + 0.1, axis="z"))
    return seq
