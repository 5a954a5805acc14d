"""The PyPulseq scripts of the recipes: an EPI after an inversion, and a TSE with all flips free.

What is optimised is what is written as a .seq. One slice, square, SI units; lines are read at half steps from the
centre of k-space, forwards and backwards alike. They need the extra `pulseq`; their numbers may be live.
"""

import math
from typing import Any

from jaxmr.objects.brains import FOV
from jaxmr.units import ms, us

MATRIX = 64
THICKNESS = 5e-3
ESP, TR = 10 * ms, 3.0
"""Of the TSE: from echo to echo, and from shot to shot, s."""


def system(pp: Any) -> Any:
    """Limits of the scanner."""
    return pp.Opts(
        max_grad=32, grad_unit="mT/m", max_slew=130, slew_unit="T/m/s",
        rf_ringdown_time=30 * us, rf_dead_time=100 * us, adc_dead_time=10 * us,
    )  # fmt: skip


def inversion_epi(inversion_time: Any, n: int = MATRIX, fov: Any = FOV) -> Any:
    """PyPulseq script: inversion, `inversion_time` (s, from centre to centre), excitation, all lines in a zig-zag."""
    import jaxmr.pulseq as pp

    limits = system(pp)
    seq = pp.Sequence(limits)
    raster, delta_k = limits.block_duration_raster, 1 / fov
    inversion = pp.make_block_pulse(math.pi, duration=1 * ms, delay=100 * us, system=limits, use="inversion")
    spoiler = pp.make_trapezoid("z", area=8 / THICKNESS, system=limits)
    rf, gz, gz_reph = pp.make_sinc_pulse(
        math.pi / 2, duration=3 * ms, slice_thickness=THICKNESS, apodization=0.5, time_bw_product=4, delay=100 * us,
        system=limits, return_gz=True, use="excitation",
    )  # fmt: skip
    gx = pp.make_trapezoid("x", flat_area=n * delta_k, flat_time=320 * us, system=limits)
    adc = pp.make_adc(n, duration=gx.flat_time, delay=gx.rise_time, system=limits)
    blip = pp.make_trapezoid("y", area=-delta_k, system=limits)
    gx_pre = pp.make_trapezoid("x", area=-gx.area / 2, duration=1 * ms, system=limits)
    gy_pre = pp.make_trapezoid("y", area=n // 2 * delta_k, duration=1 * ms, system=limits)
    played = pp.calc_duration(inversion) - inversion.delay - pp.calc_rf_center(inversion)[0]
    played += pp.calc_duration(spoiler) + rf.delay + pp.calc_rf_center(rf)[0]
    seq.add_block(inversion)
    seq.add_block(spoiler)
    seq.add_block(pp.make_delay(round((inversion_time - played) / raster) * raster))
    seq.add_block(rf, gz)
    seq.add_block(gx_pre, gy_pre, gz_reph)
    for line in range(n):
        seq.add_block(pp.scale_grad(gx, (-1) ** line), adc)
        if line < n - 1:
            seq.add_block(blip)
    seq.set_definition("FOV", [fov, fov, THICKNESS])
    seq.set_definition("Name", "inversion_epi")
    return seq


def tse(excitation: Any, refocusing: Any, n: int = MATRIX, fov: Any = FOV, esp: Any = ESP, tr: Any = TR) -> Any:
    """PyPulseq script: turbo spin echo of flips (rad) `excitation` (shots,) and `refocusing` (shots, echoes).

    Shots interleave, each from one edge of k-space to the other. esp: from echo to echo, tr: from shot to shot, s.
    """
    import jaxmr.pulseq as pp

    limits = system(pp)
    seq = pp.Sequence(limits)
    raster, delta_k = limits.block_duration_raster, 1 / fov
    n_shots, n_echoes = refocusing.shape
    selective = {"slice_thickness": THICKNESS, "time_bw_product": 4, "apodization": 0.5, "return_gz": True}
    selective |= {"delay": 100 * us, "system": limits}
    gx = pp.make_trapezoid("x", flat_area=n * delta_k, flat_time=3.2 * ms, system=limits)
    adc = pp.make_adc(n, duration=gx.flat_time, delay=gx.rise_time, system=limits)
    spoiler = pp.make_trapezoid("z", area=8 / THICKNESS, system=limits)
    crusher = 4 / THICKNESS
    for shot in range(n_shots):
        rf, gz, gz_reph = pp.make_sinc_pulse(
            excitation[shot], duration=2 * ms, phase_offset=math.pi / 2, use="excitation", **selective
        )
        centre, before = rf.delay + pp.calc_rf_center(rf)[0], 0.0
        seq.add_block(rf, gz)
        for echo in range(n_echoes):
            pulse, gz180, _ = pp.make_sinc_pulse(refocusing[shot, echo], duration=2 * ms, use="refocusing", **selective)
            before = pulse.delay + pp.calc_rf_center(pulse)[0]
            # Crushers, and the encoding that rides on them, fill what pulses and readout leave of the spacing.
            gap = (esp - pp.calc_duration(gx)) / 2
            ahead = pp.make_trapezoid("z", area=crusher, duration=_near(gap - before, raster), system=limits)
            after = _near(gap - pp.calc_duration(pulse, gz180) + before, raster)
            if echo == 0:
                first = {"duration": _near(esp / 2 - pp.calc_duration(rf, gz) + centre - before, raster)}
                first |= {"system": limits}
                seq.add_block(
                    pp.make_trapezoid("x", area=gx.area / 2, **first),
                    pp.make_trapezoid("z", area=gz_reph.area + crusher, **first),
                )
            area = (n // 2 - shot - echo * n_shots) * delta_k
            encode = pp.make_trapezoid("y", area=area, duration=after, system=limits)
            rewind = pp.make_trapezoid("y", area=-area, duration=pp.calc_duration(ahead), system=limits)
            seq.add_block(pulse, gz180)
            seq.add_block(pp.make_trapezoid("z", area=crusher, duration=after, system=limits), encode)
            seq.add_block(gx, adc)
            seq.add_block(ahead, rewind)
        if shot < n_shots - 1:
            seq.add_block(spoiler)
            played = n_echoes * esp + esp / 2 - before + centre + pp.calc_duration(spoiler)
            seq.add_block(pp.make_delay(_near(tr - played, raster)))
    seq.set_definition("FOV", [fov, fov, THICKNESS])
    seq.set_definition("Name", "tse")
    return seq


def _near(time: Any, raster: float) -> Any:
    return round(time / raster) * raster
