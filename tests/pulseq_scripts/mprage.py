"""MPRAGE: adiabatic inversion, a train of spoiled gradient echoes, a recovery; joined readout and spoiler."""

import math

import numpy as np


def build(pp, ti=0.15, flip=7 * math.pi / 180, recovery=0.2, n=8, partitions=2, fov=0.192):
    system = pp.Opts(
        max_grad=24, grad_unit="mT/m", max_slew=100, slew_unit="T/m/s", rf_ringdown_time=20e-6,
        rf_dead_time=100e-6, adc_dead_time=10e-6,
    )  # fmt: skip
    seq = pp.Sequence(system)
    rf = pp.make_block_pulse(flip, duration=100e-6, system=system, use="excitation", delay=100e-6)
    inversion = pp.make_adiabatic_pulse("hypsec", duration=10.24e-3, dwell=1e-5, system=system, delay=100e-6)
    delta_k, dwell = 1 / fov, 10e-6
    readout_time = round(n * dwell * 16 / 10e-6) * 10e-6
    readout = pp.make_trapezoid(
        "x", system=system, amplitude=n * delta_k / readout_time, flat_time=math.ceil(readout_time / 1e-5 + 1) * 1e-5
    )
    adc = pp.make_adc(num_samples=n, duration=readout_time, delay=readout.rise_time, system=system)
    before = pp.make_trapezoid("x", area=-readout.amplitude * (adc.dwell * (n / 2 + 0.5) + 0.5 * readout.rise_time),
                               system=system)  # fmt: skip
    ro_part, _ = pp.split_gradient_at(readout, readout.rise_time + readout.flat_time, system=system)
    spoiler = pp.make_extended_trapezoid_area(
        channel="x", grad_start=readout.amplitude, grad_end=0, area=4 * n * delta_k, system=system
    )[0]
    lines = (np.arange(n) - n / 2) * delta_k
    slabs = (np.arange(partitions) - partitions // 2) * delta_k
    gpe1 = pp.make_trapezoid("y", area=-max(abs(lines)), system=system)
    gpe2 = pp.make_trapezoid("z", area=-max(abs(slabs)), system=system)
    scale1, scale2 = lines / max(abs(lines)), slabs / max(abs(slabs))
    inner = pp.calc_duration(rf) + pp.calc_duration(before, gpe1, gpe2) + pp.calc_duration(ro_part)
    inner += pp.calc_duration(spoiler)
    delay = ti - (n // 2) * inner - pp.calc_duration(inversion) + inversion.delay + pp.calc_rf_center(inversion)[0]
    delay = round(delay / 10e-6) * 10e-6
    end = pp.make_trapezoid("x", area=pp.eps + 4 * n * delta_k, duration=20e-3, system=system)
    count = pp.make_label(type="INC", label="LIN", value=1)
    reset = pp.make_label(type="SET", label="LIN", value=0)
    for j in range(partitions):
        seq.add_block(inversion)
        seq.add_block(pp.make_delay(delay), end)
        phase = step = 0
        for i in range(n):
            rf.phase_offset = phase / 180 * np.pi
            adc.phase_offset = phase / 180 * np.pi
            step = (step + 50) % 360.0
            phase = (phase + step) % 360.0
            seq.add_block(rf)
            y, z = pp.scale_grad(gpe1, scale1[i]), pp.scale_grad(gpe2, scale2[j])
            seq.add_block(before, y, z)
            seq.add_block(ro_part, adc)
            seq.add_block(spoiler, pp.scale_grad(y, -1), pp.scale_grad(z, -1), count)
        seq.add_block(pp.make_delay(recovery), reset, pp.make_label("PAR", "INC", 1))
    return seq
