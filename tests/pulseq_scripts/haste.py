"""HASTE: a long half-Fourier echo train whose crushers are joined to the slice gradient as extended trapezoids."""

import math

import numpy as np


def build(pp, excitation=math.pi / 2, refocusing=math.pi * 2 / 3, spoil_factor=1.5, echoes=6, n=16, fov=0.25):
    system = pp.Opts(max_grad=30, grad_unit="mT/m", max_slew=170, slew_unit="T/m/s", rf_ringdown_time=100e-6,
                     rf_dead_time=100e-6, adc_dead_time=10e-6)  # fmt: skip
    seq = pp.Sequence(system)
    dg, thickness, delta_k = 2.5e-4, 5e-3, 1 / fov
    rf, gz, _ = pp.make_sinc_pulse(
        flip_angle=excitation, system=system, duration=2.5e-3, slice_thickness=thickness, apodization=0.5,
        phase_offset=np.pi / 2, return_gz=True, use="excitation", delay=100e-6,
    )  # fmt: skip
    rf180, gz180, _ = pp.make_sinc_pulse(
        flip_angle=refocusing, system=system, duration=2e-3, slice_thickness=thickness, apodization=0.5,
        return_gz=True, use="refocusing", delay=100e-6,
    )  # fmt: skip
    select = pp.make_trapezoid("z", system=system, amplitude=gz180.amplitude, flat_time=2.2e-3, rise_time=dg)
    spoil = pp.make_trapezoid("z", system=system, area=gz.area * spoil_factor, duration=1.5e-3, rise_time=dg)
    rf180.delay = 1e-4
    before = pp.make_extended_trapezoid(
        "z", times=np.array([0, dg, 1.5e-3 - dg, 1.5e-3]), system=system,
        amplitudes=np.array([0, spoil.amplitude, spoil.amplitude, select.amplitude]),
    )  # fmt: skip
    during = pp.make_extended_trapezoid("z", times=[0, 2.2e-3], amplitudes=[select.amplitude] * 2, system=system)
    after = pp.make_extended_trapezoid(
        "z", times=[0, dg, 1.5e-3 - dg, 1.5e-3], system=system,
        amplitudes=np.array([select.amplitude, spoil.amplitude, spoil.amplitude, 0]),
    )  # fmt: skip
    gx = pp.make_trapezoid("x", system=system, flat_area=n * delta_k, flat_time=3.2e-3, rise_time=dg)
    adc = pp.make_adc(num_samples=n, duration=gx.flat_time, delay=gx.rise_time, system=system)
    gx_pre = pp.make_trapezoid("x", system=system, area=gx.area / 2, duration=1.5e-3, rise_time=dg)
    seq.add_block(rf, gz)
    seq.add_block(gx_pre, pp.make_trapezoid("z", area=-gz.area / 2, duration=1.5e-3, system=system))
    for i in range(echoes):
        rf180.phase_offset = 0.0 if i % 2 else np.pi
        gy = pp.make_trapezoid("y", system=system, area=(i - 1) * delta_k, duration=1.5e-3, rise_time=dg)
        seq.add_block(before)
        seq.add_block(during, rf180)
        seq.add_block(after, gy)
        seq.add_block(gx, adc)
        seq.add_block(pp.scale_grad(gy, -1.0) if abs(gy.amplitude) > 0 else pp.make_delay(1.5e-3))
    ok, report = seq.check_timing()
    seq.set_definition("Name", f"haste {len(report)} {ok}")
    return seq
