"""The scan of a phantom by fingerprinting: every pulse its own image, of which it sees one spoke or interleaf.

Samples are `(coils, T, n)`, T pulses of n samples each, s = sum over voxels of m0 c M+ exp(-i k.r): a voxel is a point
at its centre, as the encoding operators have it, and stands still during a readout. k in rad/m, `(T, n, n_axes)`, as
from `encoding.trajectory` (`radial`, or `spiral` and `one_per_pulse`).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.batch import host_chunks
from jaxmr.core.checks import as_float, require_values
from jaxmr.core.types import Array, Complex, Float
from jaxmr.encoding import forward_nufft
from jaxmr.encoding.trajectory import require_units
from jaxmr.models import driver
from jaxmr.models.model import Model
from jaxmr.objects import Phantom, to_image
from jaxmr.sequences.sequence import Sequence

PULSES = 32
"""Images transformed at a time."""


def acquire(
    sequence: Sequence,
    phantom: Phantom,
    model: Model,
    k: Float[Array | np.ndarray, "n_pulses n n_axes"],
    *,
    devices: list | None = None,
    progress: bool = False,
) -> Complex[np.ndarray, "coils T n"]:
    """Samples without noise: the signal of every compartment by the model, each pulse's image by its own NUFFT.

    One coil of sensitivity 1 unless the phantom has coils. devices: for the simulation, all by default. Raises
    `ValueError` when k has not one row per pulse or is not in rad/m, or the phantom is not an image.
    """
    signals = driver.simulate_many(sequence, phantom.tissue, model, devices=devices, progress=progress).signals
    return sample_series(signals, phantom, k, progress=progress)


def sample_series(
    signals: Complex[Array | np.ndarray, "voxels T"],
    phantom: Phantom,
    k: Float[Array | np.ndarray, "n_pulses n n_axes"],
    *,
    progress: bool = False,
) -> Complex[np.ndarray, "coils T n"]:
    """`acquire` of signals that were simulated already, one row per compartment of the phantom, m0 included."""
    n_axes = len(phantom.matrix)
    if n_axes == 0:
        raise ValueError("this phantom is no image: give pixel= and matrix= to Phantom, or build it with from_maps")
    if k.shape[0] != signals.shape[1] or k.shape[2] < n_axes:
        raise ValueError(
            f"k must have shape ({signals.shape[1]}, samples, {n_axes}), a row per pulse and a column per image axis, "
            f"got {k.shape}; trajectory.one_per_pulse deals interleaves to pulses"
        )
    k = k[..., :n_axes]
    voxel_size = phantom.voxel_size[:n_axes]
    require_units(k, voxel_size, phantom.matrix)
    coils = np.ones((1, signals.shape[0])) if phantom.coils is None else np.asarray(phantom.coils)
    samples = np.empty((len(coils), *k.shape[:2]), np.result_type(signals, np.complex64))
    for chunk in host_chunks(k.shape[0], PULSES, "sampling", progress):
        points = as_float("k", k[chunk]).astype(np.finfo(samples.dtype).dtype)
        for number, coil in enumerate(coils):
            received = jnp.asarray(coil.astype(samples.dtype)[:, None] * signals[:, chunk])
            samples[number, chunk] = _sample(phantom, received, points, voxel_size)
    return samples


@jax.jit
def _sample(phantom, received, k, voxel_size):
    images = jnp.moveaxis(to_image(phantom, received), -1, 0)
    return jax.vmap(partial(forward_nufft, voxel_size=voxel_size))(images, k)


def add_noise(
    samples: Complex[Array | np.ndarray, "*shape"], snr: float, seed: int | np.random.Generator = 0
) -> tuple[Complex[np.ndarray, "*shape"], float]:
    """Samples with complex Gaussian noise, and its standard deviation in each of real and imaginary part.

    snr: the mean magnitude of the samples over that standard deviation (Liu et al., section 3.3.1). seed: a number or a
    NumPy generator; the same number gives the same noise.
    """
    samples = np.asarray(samples)
    require_values("samples", samples, "noise is relative to their mean magnitude")
    require_values("snr", snr, "infinite without noise: leave add_noise out", positive=True)
    std = float(np.abs(samples).mean() / snr)
    parts = np.random.default_rng(seed).normal(0, std, (*samples.shape, 2))
    return (samples + parts.view(complex)[..., 0]).astype(samples.dtype), std
