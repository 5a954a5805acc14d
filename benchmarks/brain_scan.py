"""The paper's fingerprinting scan of a numerical brain (Liu et al., section 3.3.1), shared by benchmarks.

1120 Gaussian pulses of 1 ms through 3 mm in five squared-sine lobes, inverted just before the first; one spoke or one
of 48 interleaves per pulse; 112x112 voxels. The paper prints its train (figure 4a) without numbers: the peaks here
span the 120 degrees of its training data, and TE/TR is the pair that its text gives.
"""

from pathlib import Path

import numpy as np

import jaxmr as mr
from jaxmr.units import deg, mm, ms

PEAKS = (60, 100, 40, 120, 80)
"""Flips at the peaks of the lobes, degrees."""
N_PULSES, TR, TE = 1120, 8.7 * ms, 4.9 * ms
MATRIX, N_SAMPLES, N_INTERLEAVES, SNR = 112, 224, 48, 40.0
RANK, N_Z, TOLERANCE, EXACT = 12, 32, 1e-3, 1e-4
"""Of the dictionaries; EXACT is the tolerance of the voxels that are scanned."""
SIDES = 100, 100, 40
"""Values of T1 (0.1 to 5 s), T2 (0.01 to 2 s) and B1 (0.8 to 1.2)."""


def sequence():
    flip = mr.sequences.trains.sin_squared(np.float32(PEAKS) * np.float32(deg), N_PULSES)
    return mr.sequences.fisp(flip, np.float32(TR), np.float32(TE), np.float32(0))


def pulse():
    return mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)


MODELS = {
    "EPG, small tip": lambda: mr.EPG(profile=mr.rf.small_tip(pulse()), n_z=N_Z, tolerance=TOLERANCE),
    "EPG-Bloch": lambda: mr.EPGBloch(pulse=pulse(), n_z=N_Z, tolerance=TOLERANCE),
}


def dictionary(name: str, folder: Path, sides=SIDES):
    """The dictionary of a model, read from the folder if an earlier run left it there."""
    n_t1, n_t2, n_b1 = sides
    store = mr.mrf.store.write(
        folder / f"{name.lower().replace(' ', '-').replace(',', '')}-{n_t1}x{n_t2}x{n_b1}.zarr",
        sequence(),
        model=MODELS[name](),
        rank=RANK,
        progress=True,
        t1=np.geomspace(0.1, 5, n_t1, dtype=np.float32),
        t2=np.geomspace(0.01, 2, n_t2, dtype=np.float32),
        b1=np.linspace(0.8, 1.2, n_b1, dtype=np.float32),
    )
    return store.to_dictionary()
