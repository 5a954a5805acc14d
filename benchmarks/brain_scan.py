"""The paper's fingerprinting scan of a numerical brain (Liu et al., section 3.3.1), shared by benchmarks.

1120 Gaussian pulses of 1 ms through 3 mm in five squared-sine lobes, inverted just before the first; one spoke or one
of 48 interleaves per pulse; 112x112 voxels. The paper prints its train (figure 4a) without numbers: the peaks here
span the 120 degrees of its training data, and TE/TR is the pair that its text gives.
"""

from pathlib import Path

import numpy as np

import jaxmr as mr
from jaxmr.core.digests import digest
from jaxmr.encoding import trajectory
from jaxmr.models import driver
from jaxmr.units import deg, mm, ms

PEAKS = (70, 35, 100, 50, 85)
"""Flips at the peaks of the lobes, degrees."""
N_PULSES, TR, TE = 1120, 8.7 * ms, 4.9 * ms
MATRIX, N_SAMPLES, N_INTERLEAVES, SNR = 112, 224, 48, 40.0
FOV = 0.2128
VOXEL = FOV / MATRIX
FEWEST = 0.1
"""Least M0 of a voxel of the brain; what has less lies on its rim."""
RANK, N_Z, TOLERANCE, EXACT = 12, 32, 1e-3, 1e-4
"""Of the dictionaries, sub-slices of both; EXACT is the tolerance of the voxels that are scanned."""
SIDES = 100, 100, 40
"""Values of T1 (0.1 to 5 s), T2 (0.01 to 2 s) and B1 (0.8 to 1.2)."""


def sequence():
    flip = mr.sequences.trains.sin_squared(np.float32(PEAKS) * np.float32(deg), N_PULSES)
    return mr.sequences.fisp(flip, np.float32(TR), np.float32(TE), np.float32(0))


def pulse():
    return mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)


def phantom():
    """The brain as maps, one tissue in each voxel (where several met, their geometric mean), and its true maps."""
    truth = mr.objects.truth(mr.objects.brain(MATRIX))
    truth["mask"] = truth["m0"] >= FEWEST
    maps = [np.where(truth["mask"], truth[name], 0).astype(np.float32) for name in ("t1", "t2", "m0", "b1")]
    return mr.objects.from_maps(*maps, mask=truth["mask"], voxel_size=VOXEL), truth


def readouts(kind: str):
    """k of every pulse, `(1120, n, 2)`, rad/m.

    Spirals as of Jiang et al.: 48 interleaves fill k-space at its edge, 24 at its centre. Every second sample of 2 us:
    the field of view asks for no more.
    """
    if kind == "radial":
        return np.float32(trajectory.radial(N_PULSES, N_SAMPLES, VOXEL))
    interleaves, _ = trajectory.spiral(
        N_INTERLEAVES, 2 * FOV, VOXEL, edge_density=0.5, max_gradient=24e-3, max_slew=150.0
    )
    return np.float32(trajectory.one_per_pulse(interleaves[:, ::2], N_PULSES))


def signals(folder: Path):
    """EPG-Bloch signal of every voxel of the phantom, kept in the folder."""
    scanned, _ = phantom()
    model = mr.EPGBloch(pulse=pulse(), n_z=N_Z, tolerance=EXACT)
    path = folder / f"signals-{digest((sequence(), scanned.tissue, model))[:12]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = driver.simulate_many(sequence(), scanned.tissue, model, progress=True, description="voxels").signals
        partial = path.with_suffix(".partial.npy")
        np.save(partial, found)
        partial.replace(path)
    return np.load(path)


MODELS = {
    "EPG, small tip": lambda: mr.EPG(profile=mr.rf.small_tip(pulse()), n_z=N_Z, tolerance=TOLERANCE),
    "EPG-Bloch": lambda: mr.EPGBloch(pulse=pulse(), n_z=N_Z, tolerance=TOLERANCE),
    "EPG-Bloch, 6 nodes": lambda: mr.EPGBloch(pulse=pulse(), nodes=mr.mrf.trained_nodes(6), tolerance=TOLERANCE),
    "RNN": mr.RNN.pretrained,
}


def store_path(name: str, folder: Path, sides=SIDES) -> Path:
    """Where the dictionary of a model lies; of a network, that of its weights."""
    model = MODELS[name]()
    weights = [digest(model)[:12]] if isinstance(model, mr.RNN) else []
    parts = name.lower().replace(" ", "-").replace(",", ""), *weights, "x".join(map(str, sides))
    return folder / f"{'-'.join(parts)}.zarr"


def dictionary(name: str, folder: Path, sides=SIDES):
    """The dictionary of a model, read from the folder if an earlier run left it there."""
    n_t1, n_t2, n_b1 = sides
    store = mr.mrf.store.write(
        store_path(name, folder, sides),
        sequence(),
        model=MODELS[name](),
        rank=RANK,
        progress=True,
        t1=np.geomspace(0.1, 5, n_t1, dtype=np.float32),
        t2=np.geomspace(0.01, 2, n_t2, dtype=np.float32),
        b1=np.linspace(0.8, 1.2, n_b1, dtype=np.float32),
    )
    return store.to_dictionary()
