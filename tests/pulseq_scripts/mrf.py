"""MR fingerprinting (FISP): an adiabatic inversion, then a train of flips and repetition times."""

import numpy as np


def build(pp, flips=None, trs=None, te=4e-3, n=16, fov=0.3):
    flips = 0.1 + 0.5 * np.sin(np.pi * np.arange(12) / 12) if flips is None else flips
    trs = 12e-3 + 1e-3 * np.sin(np.arange(12)) if trs is None else trs
    system = pp.Opts(max_grad=30, grad_unit="mT/m", max_slew=120, slew_unit="T/m/s", rf_ringdown_time=20e-6,
                     rf_dead_time=100e-6)  # fmt: skip
    seq = pp.Sequence(system)
    raster = system.grad_raster_time
    inversion = pp.make_adiabatic_pulse("hypsec", duration=8e-3, dwell=1e-5, system=system, delay=100e-6)
    seq.add_block(inversion)
    seq.add_block(pp.make_trapezoid("z", area=3000, system=system))
    gx = pp.make_trapezoid("x", flat_area=n / fov, flat_time=1.6e-3, system=system)
    adc = pp.make_adc(n, duration=gx.flat_time, delay=gx.rise_time, system=system)
    gx_pre = pp.make_trapezoid("x", area=-gx.area / 2, duration=1e-3, system=system)
    spoiler = pp.make_trapezoid("z", area=2000, system=system)
    total = 0.0
    for flip, tr in zip(flips, trs):  # noqa: B905
        rf, gz, gzr = pp.make_sinc_pulse(
            flip_angle=flip, duration=1e-3, slice_thickness=5e-3, time_bw_product=2, system=system, return_gz=True,
            use="excitation", delay=100e-6,
        )  # fmt: skip
        gzr = pp.make_trapezoid("z", area=gzr.area, duration=1e-3, system=system)
        played = pp.calc_duration(gz) - rf.delay - pp.calc_rf_center(rf)[0] + 1e-3 + pp.calc_duration(gx) / 2
        wait = round(float(te - played) / raster) * raster
        seq.add_block(rf, gz)
        seq.add_block(gx_pre, gzr)
        seq.add_block(pp.make_delay(wait))
        seq.add_block(gx, adc)
        rest = tr - pp.calc_duration(gz) - 1e-3 - wait - pp.calc_duration(gx)
        rest = max(np.ceil(rest / raster) * raster, pp.calc_duration(spoiler))
        seq.add_block(spoiler, pp.make_delay(rest))
        total += rest
    seq.set_definition("Rest", round(total, 6))
    return seq
