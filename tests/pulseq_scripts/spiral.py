"""One Archimedean spiral under slew and amplitude limits, made of samples, with a ramp back to zero."""

import numpy as np


def build(pp, flip=np.pi / 4, turns=3.0, peak=18e3, te_delay=1e-3, samples=400):
    system = pp.Opts(max_grad=30, grad_unit="mT/m", max_slew=120, slew_unit="T/m/s", rf_ringdown_time=30e-6)
    seq = pp.Sequence(system)
    rf, gz, gzr = pp.make_sinc_pulse(
        flip_angle=flip, duration=3e-3, slice_thickness=3e-3, apodization=0.5, time_bw_product=4, system=system,
        return_gz=True, use="excitation",
    )  # fmt: skip
    tau = np.linspace(0, 1, samples)
    window = np.sin(np.pi * tau) ** 2
    wave = np.zeros((2, samples))
    wave[0] = peak * window * np.cos(2 * np.pi * turns * tau)
    wave[1, :] = peak * window * np.sin(2 * np.pi * turns * tau)
    slew = np.diff(wave, axis=1) / system.grad_raster_time
    worst = np.max(np.abs(slew))
    if worst > system.max_slew:
        raise ValueError(f"slew {worst / system.max_slew:.2f} of what is allowed")
    gx = pp.make_arbitrary_grad("x", waveform=wave[0], first=0.0, last=0.0, system=system)
    gy = pp.make_arbitrary_grad("y", waveform=wave[1], first=0.0, last=0.0, system=system)
    adc = pp.make_adc(200, dwell=int(gx.shape_dur / 200 / 1e-7) * 1e-7, system=system)
    spoiler = pp.make_trapezoid("z", area=1000, system=system)
    for shot in range(2):
        seq.add_block(rf, gz)
        seq.add_block(gzr, pp.make_delay(te_delay))
        seq.add_block(*(pp.rotate(gx, gy, adc, angle=np.pi * shot, axis="z") if shot else (gx, gy, adc)))
        seq.add_block(spoiler)
    return seq
