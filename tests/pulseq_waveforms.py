"""What the blocks of a Pulseq sequence play, as corners and integrals: for the tests of reading and writing."""

import numpy as np

from jaxmr.pulseq.blocks import AXES

SHAPES = """\
shape_id 1
num_samples 100
1
0
0
97
shape_id 2
num_samples 100
0
0
98
"""
"""Two compressed shapes: a constant of 1 and one of 0."""

EVERYTHING = f"""
# Pulseq sequence file
[VERSION]
major 1
minor 5
revision 0

[DEFINITIONS]
GradientRasterTime 1e-05
RadiofrequencyRasterTime 1e-06
AdcRasterTime 1e-07
BlockDurationRaster 1e-05
Name test

[BLOCKS]
1 20 1 0 0 2 0 1
2 50 0 1 2 0 1 2
3 10 0 3 0 0 0 3

[RF]
1 2500 1 2 0 50 20 0.5 0 100 1.5 e
[GRADIENTS]
1 1000 0 100 3 4 10
3 500 0 0 3 -1 0
[TRAP]
2 1e5 0 100 50 0
[ADC]
1 5 12500 100 0 0 50 0.5 4
[EXTENSIONS]
1 1 1 0
2 2 1 1
3 3 1 4
4 4 1 5
5 5 1 0
extension LABELSET 1
1 4 LIN
extension TRIGGERS 2
1 1 2 10 100
extension DELAYS 3
1 0 100 2 TE
extension ROTATIONS 4
1 0.6 0 0.8 0
extension NEVER_HEARD 5
1 any words
[SHAPES]
{SHAPES}shape_id 3
num_samples 5
0
0.5
1
0.5
0
shape_id 4
num_samples 5
0
1
2
4
6
[SIGNATURE]
Type md5
Hash 00000000000000000000000000000000
"""
"""A file with everything that version 1.5 knows, and an extension that it does not."""


def begins(scan) -> np.ndarray:
    """When each block begins, s, and the last ends."""
    return np.concatenate([[0.0], np.cumsum([block.duration for block in scan.blocks])])


def corners(gradient) -> tuple[np.ndarray, np.ndarray]:
    """Times from the begin of the block and values (Hz/m) between which a gradient is linear."""
    if gradient.type == "trap":
        steps = [gradient.delay, gradient.rise_time, gradient.flat_time, gradient.fall_time]
        return np.cumsum(steps), gradient.amplitude * np.array([0.0, 1, 1, 0])
    t = gradient.delay + np.concatenate([[0.0], gradient.tt, [gradient.shape_dur]])
    return t, np.concatenate([[gradient.first], gradient.waveform, [gradient.last]])


def sample_times(adc) -> np.ndarray:
    return adc.delay + (np.arange(adc.num_samples) + 0.5) * adc.dwell


def moment(gradient, t) -> np.ndarray:
    """Integral of a gradient from the begin of its block to each of the times, 1/m."""
    nodes, g = corners(gradient)
    keep = np.concatenate([[True], np.diff(nodes) > 0]) if gradient.type == "grad" else np.full(len(nodes), True)
    nodes, g = nodes[keep], g[keep]
    area = np.concatenate([[0.0], np.cumsum(np.diff(nodes) * (g[1:] + g[:-1]) / 2)])
    t = np.clip(t, nodes[0], nodes[-1])
    n = np.clip(np.searchsorted(nodes, t, "right") - 1, 0, len(nodes) - 2)
    return area[n] + (t - nodes[n]) * (g[n] + np.interp(t, nodes, g)) / 2


def k_at_samples(scan) -> np.ndarray:
    """Moment at every sample, `(samples, 3)`, 1/m; an excitation begins anew, a refocusing pulse turns the sign."""
    k, found = np.zeros(3), []
    for block in scan.blocks:
        t = np.array([block.duration])
        if block.adc is not None:
            t = np.concatenate([sample_times(block.adc), t])
        elif block.rf is not None:
            t = np.concatenate([[block.rf.delay + block.rf.center], t])
        moments = np.zeros((len(t), 3))
        for i, gradient in enumerate(getattr(block, axis) for axis in AXES):
            if gradient is not None:
                moments[:, i] = moment(gradient, t)
        if block.rotation is not None:
            moments = moments @ block.rotation.T
        if block.rf is not None:
            assert block.adc is None
            turn = {"excitation": 0, "refocusing": -1}.get(block.rf.use, 1)
            k = turn * (k + moments[0]) + moments[1] - moments[0]
        else:
            found.extend(k + moments[:-1])
            k = k + moments[-1]
    return np.array(found)
