r"""How many sub-slices a simulation needs, found from one fine simulation of a few pilot voxels.

The midpoint rule with n points over a range L is wrong by exactly those Fourier coefficients of the integrand
that it cannot tell from its mean, $\sum_{k \ne 0} (-1)^k \hat f(2 \pi k n / L)$. One fine grid gives the
coefficients, and with them the error of every coarser grid. Host side.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from jaxmr.core.checks import cast
from jaxmr.models.model import prepare
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence

N_FINE = 384
"""Sub-slices of a pilot."""
LADDER = (8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160)
"""Numbers of sub-slices to choose from."""
MOST = 192
"""Taken where none of them is enough."""
ORDERS = 64
"""Most orders of a pilot: how fast F(0) varies along the slice is a matter of pulses and T2."""


def slice_errors(model: Any, sequence: Sequence, tissue: Tissue) -> np.ndarray:
    """Relative error `(voxels, len(LADDER))` of each voxel's signal with so many sub-slices; `model` has `N_FINE`."""
    profile = np.asarray(_profiles(sequence, tissue, model))
    if profile.shape[0] < N_FINE:
        profile = np.concatenate([-profile[::-1].conj(), profile])
    spectrum = np.fft.fft(profile, axis=0) / N_FINE
    signal = spectrum[0]
    norm = np.linalg.norm(signal, axis=-1)
    columns = []
    for n in LADDER:
        multiples = np.array([k for k in range(-N_FINE, N_FINE) if k and abs(k * n) < N_FINE // 2])
        # Coefficients of the fine midpoints, which lie half a fine step from the edge.
        factor = (-1.0) ** multiples * np.exp(-1j * np.pi * multiples * n / N_FINE)
        wrong = np.tensordot(factor, spectrum[multiples * n], axes=1)
        columns.append(np.linalg.norm(wrong, axis=-1) / np.where(norm > 0, norm, 1))
    return np.stack(columns, axis=-1)


@eqx.filter_jit
def _profiles(sequence: Sequence, tissue: Tissue, model: Any) -> jax.Array:
    shared = prepare(sequence, tissue, model)
    sequence, model = cast((sequence, model), tissue.t1.dtype)
    return model.profiles(shared, sequence, tissue)
