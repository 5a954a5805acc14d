"""Reading .seq files: as the MATLAB toolbox and PyPulseq read them, one version as another, fast, broken ones too."""

import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from jaxmr.pulseq.events import end
from jaxmr.pulseq.reading import Scan, load

GAMMA_HZ = 42.5774688e6
"""Hz/T of the MATLAB toolbox in `koma_readcmp`."""

AXES = ("gx", "gy", "gz")
EDITED = {"v1.4/epi", "v1.4/gr-uniformly-shaped", "v1.5/gr-uniformly-shaped"}
"""Files of `koma_readcmp` that were changed after they had been signed."""

MATLAB = (
    "v1.2/epi_JEMRIS v1.2/fid v1.3/fid v1.4/epi v1.4/fid v1.4/gr-time-shaped v1.4/gr-trapezoidal "
    "v1.4/gr-uniformly-shaped v1.4/rf-pulse v1.4/rf-uniformly-shaped v1.5/fid v1.5/gr-trapezoidal "
    "v1.5/gr-uniformly-shaped v1.5/rf-pulse v1.5/rf-time-shaped v1.5/rf-uniformly-shaped"
).split()


def quiet(path) -> Scan:
    """The scan, of a file that was changed after it had been signed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(path)


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


def k_at_samples(scan) -> np.ndarray:
    """Moment at every sample, `(samples, 3)`, 1/m; an excitation begins anew, a refocusing pulse turns the sign."""
    k, found = np.zeros(3), []
    for block in scan.blocks:
        centre = block.rf.delay + block.rf.center if block.rf is not None else None
        wanted = np.concatenate(
            [[] if block.adc is None else sample_times(block.adc), [] if centre is None else [centre], [block.duration]]
        )
        moments = np.zeros((len(wanted), 3))
        for i, axis in enumerate(AXES):
            if getattr(block, axis) is not None:
                t, g = corners(getattr(block, axis))
                area = np.concatenate([[0.0], np.cumsum(np.diff(t) * (g[1:] + g[:-1]) / 2)])
                for j, moment in enumerate(np.clip(wanted, t[0], t[-1])):
                    n = min(int(np.searchsorted(t, moment, "right")) - 1, len(t) - 2)
                    slope = (g[n + 1] - g[n]) / (t[n + 1] - t[n]) if t[n + 1] > t[n] else 0.0
                    ahead = moment - t[n]
                    moments[j, i] = area[n] + g[n] * ahead + slope * ahead**2 / 2
        moments = moments if block.rotation is None else moments @ block.rotation.T
        if centre is not None:
            assert block.adc is None
            turn = {"excitation": 0, "refocusing": -1}.get(block.rf.use, 1)
            k = turn * (k + moments[-2]) + moments[-1] - moments[-2]
        else:
            found.extend(k + moments[:-1])
            k = k + moments[-1]
    return np.array(found)


@pytest.mark.parametrize("name", MATLAB)
def test_blocks_are_those_of_the_matlab_toolbox(shared, name):
    loadmat = pytest.importorskip("scipy.io").loadmat
    folder = shared / "koma_readcmp"
    scan = (quiet if name in EDITED else load)(folder / f"{name}.seq")
    theirs = loadmat(folder / f"{name}.mat", simplify_cells=True)["sequence"]
    theirs = theirs if isinstance(theirs, list) else [theirs]
    assert len(theirs) == len(scan.blocks)
    for begin, block, expected in zip(begins(scan), scan.blocks, theirs, strict=False):
        ours = {key: (np.empty(0), np.empty(0)) for key in expected}
        if block.rf is not None:
            t = begin + block.rf.delay + block.rf.t
            signal = block.rf.signal * np.exp(1j * block.rf.phase_offset) / GAMMA_HZ
            ours["rf"] = np.concatenate([t[:1], t, t[-1:]]), np.concatenate([[0], signal, [0]])
            ours["df"] = t[[0, 0, -1, -1]], block.rf.freq_offset * np.array([0, 1, 1, 0])
        for axis in AXES:
            gradient = getattr(block, axis)
            if gradient is not None and end(gradient) > 0:  # the toolbox does not show trapezoids that last 0 s
                t, g = corners(gradient)
                ours[axis] = begin + t, g / GAMMA_HZ
        if block.adc is not None:
            ours["adc"] = begin + sample_times(block.adc), np.ones(block.adc.num_samples)
        for key, (t, a) in ours.items():
            np.testing.assert_allclose(t, np.atleast_1d(expected[key]["t"]), rtol=0, atol=1e-9, err_msg=key)
            other = np.atleast_1d(expected[key]["A"])
            scale = np.max(np.abs(other), initial=0)
            np.testing.assert_allclose(a, other, rtol=0, atol=1e-6 * scale, err_msg=key)
