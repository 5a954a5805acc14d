"""Ultrashort echo time: half pulse with centre at its end, ramp-sampled spokes from the middle of k-space."""

import math
from math import cos, sin

import numpy as np


def build(pp, flip=0.17, dummy_delay=1e-3, spokes=6, n=16, fov=0.25):
    system = pp.Opts(max_grad=28, grad_unit="mT/m", max_slew=100, slew_unit="T/m/s", rf_dead_time=100e-6,
                     adc_dead_time=10e-6)  # fmt: skip
    seq = pp.Sequence(system=system)
    rf, gz, _ = pp.make_sinc_pulse(
        flip_angle=flip, duration=1e-3, slice_thickness=5e-3, apodization=0.5, time_bw_product=2, center_pos=1,
        system=system, return_gz=True, use="excitation", delay=100e-6,
    )  # fmt: skip
    gz.delay = round(gz.delay, 7)
    area = n / fov / 2
    gx = pp.make_trapezoid("x", area=area * 1.2, duration=6e-4, system=system)
    dwell = math.floor(5e-4 / n / 1e-7) * 1e-7
    adc = pp.make_adc(n, dwell=dwell, delay=1e-5, system=system)
    spoil = pp.make_trapezoid("z", area=2 * area, system=system)
    for i in range(spokes):
        phi = i * np.pi * 2 / spokes
        rf.freq_offset = 100 * cos(phi)
        sx, sy = cos(phi + 0.05), sin(phi + 0.05)
        gy = pp.make_trapezoid("y", amplitude=gx.amplitude * sy, rise_time=gx.rise_time, flat_time=gx.flat_time,
                               fall_time=gx.fall_time, system=system)  # fmt: skip
        seq.add_block(rf, gz)
        seq.add_block(pp.scale_grad(gx, sx), gy, adc)
        seq.add_block(spoil, pp.make_delay(dummy_delay))
    seq.set_definition("SamplesPerSpoke", f"{n:d}")
    return seq
