"""Phantoms of JEMRIS as jaxmr has them."""

from pathlib import Path

import h5py
import numpy as np

import jaxmr as mr


def sample(path: Path) -> mr.Phantom:
    """One spin a voxel where there is magnetisation, at x_i = (i - (N - 1)/2) resolution + offset.

    Off-resonance is in rad/s and winds clockwise there: the conjugate of the signal turns it back.
    """
    with h5py.File(path) as file:
        m0, r1, r2, _, db = np.moveaxis(file["sample/data"][()], -1, 0)
        resolution, offset = (file[f"sample/{name}"][()].ravel() for name in ("resolution", "offset"))
    y, x = np.nonzero(m0 > 0)
    place = lambda i, n, axis: (i - (n - 1) / 2) * resolution[axis] + offset[axis]  # noqa: E731
    position = np.stack([place(x, m0.shape[1], 0), place(y, m0.shape[0], 1), 0.0 * x], axis=-1)
    full = m0 > 0
    tissue = mr.Tissue(1e-3 / r1[full], 1e-3 / r2[full], m0[full], b0=db[full] / (2 * np.pi))
    return mr.Phantom(tissue, 1e-3 * position, (1e-3, 1e-3, 1e-3), voxel_shape="point")
