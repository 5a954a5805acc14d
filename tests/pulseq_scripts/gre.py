"""Spoiled gradient echo: slice selection, rewound phase encoding, RF spoiling, labels."""

import numpy as np


def build(pp, flip=0.2, te=5e-3, tr=12e-3, spoil=4.0, rf_increment=117.0, n=12, fov=0.22, thickness=4e-3):
    system = pp.Opts(
        max_grad=28, grad_unit="mT/m", max_slew=140, slew_unit="T/m/s", rf_ringdown_time=20e-6,
        rf_dead_time=100e-6, adc_dead_time=10e-6,
    )  # fmt: skip
    seq = pp.Sequence(system)
    rf, gz, gzr = pp.make_sinc_pulse(
        flip_angle=flip, duration=2e-3, slice_thickness=thickness, apodization=0.42, time_bw_product=4, system=system,
        return_gz=True, use="excitation", delay=system.rf_dead_time,
    )  # fmt: skip
    delta_k = 1 / fov
    gx = pp.make_trapezoid("x", flat_area=n * delta_k, flat_time=2.4e-3, system=system)
    adc = pp.make_adc(n, duration=gx.flat_time, delay=gx.rise_time, system=system)
    gx_pre = pp.make_trapezoid("x", area=-gx.area / 2, duration=1.2e-3, system=system)
    gz_reph = pp.make_trapezoid("z", area=gzr.area, duration=1.2e-3, system=system)
    gx_spoil = pp.make_trapezoid("x", area=spoil * n * delta_k, system=system)
    gz_spoil = pp.make_trapezoid("z", area=4 / thickness, system=system)
    to_echo = pp.calc_duration(gz) - pp.calc_rf_center(rf)[0] - rf.delay + pp.calc_duration(gx_pre)
    raster = system.grad_raster_time
    delay_te = np.ceil((te - to_echo - pp.calc_duration(gx) / 2) / raster) * raster
    played = pp.calc_duration(gz) + pp.calc_duration(gx_pre) + pp.calc_duration(gx) + delay_te
    delay_tr = np.ceil((tr - played) / raster) * raster
    assert delay_te >= 0
    assert delay_tr >= pp.calc_duration(gx_spoil, gz_spoil)
    phase = increment = 0.0
    for i in range(n):
        rf.phase_offset = adc.phase_offset = phase / 180 * np.pi
        increment = divmod(increment + rf_increment, 360.0)[1]
        phase = divmod(phase + increment, 360.0)[1]
        gy = pp.make_trapezoid("y", area=(i - n / 2) * delta_k, duration=1.2e-3, system=system)
        seq.add_block(rf, gz)
        seq.add_block(gx_pre, gy, gz_reph, pp.make_label("LIN", "SET", i))
        seq.add_block(pp.make_delay(delay_te))
        seq.add_block(gx, adc)
        back = pp.scale_grad(gy, -1.0)
        seq.add_block(pp.make_delay(delay_tr), gx_spoil, back, gz_spoil)
    seq.set_definition("FOV", [fov, fov, thickness])
    seq.set_definition("Name", f"gre te {te * 1e3:.2f} ms")
    return seq
