"""Signals to learn from: random trains, timings and tissues, simulated by exact EPG-Bloch with derivatives.

The ranges are those of Liu et al., NMR Biomed 2021, section 3.2. To serve any transmit field of 0.8 ... 1.2 and any
inversion, signals to train on have their flips scaled by such a field, and a third of them start between -1 and 1.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core import batch
from jaxmr.core.files import whole
from jaxmr.models.epg import EPGBloch
from jaxmr.models.model import run_with_jacobian
from jaxmr.objects.tissue import Tissue
from jaxmr.physics import rf
from jaxmr.sequences import trains
from jaxmr.sequences.families import fisp
from jaxmr.sequences.sequence import Sequence

T1, T2 = (0.1, 5.0), (0.01, 2.0)
TR, TE_PART = (5e-3, 20e-3), (0.3, 0.7)
"""Ranges: s, s, s, and of the repetition time."""
B1 = 0.8, 1.2
N_PULSES = 1120
TRUNCATION = 1e-5
"""Of the reference's orders: what they leave out is this small (checked against all orders in the tests)."""
LADDER = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
TOGETHER = 128
"""Signals of one call; fewer that need the same orders take the next larger number, which saves a compilation."""


def pulse() -> rf.Waveform:
    """The pulse that surrogates are trained for: Gaussian, 1 ms, 3 mm."""
    return rf.gaussian(duration=1e-3, time_bandwidth=3.0, thickness=3e-3)


class Inputs(NamedTuple):
    """What is played to which tissue, arrays of NumPy or traced.

    kind (n,): index of the family. flip, tr, te (n, n_pulses): rad, s. t1, t2 (n,): s. mz (n,): longitudinal
    magnetisation at the start.
    """

    kind: Any
    flip: Any
    tr: Any
    te: Any
    t1: Any
    t2: Any
    mz: Any


class Examples(NamedTuple):
    """Inputs, and of each pulse the signal along its only axis and its derivatives by log T1 and log T2.

    outputs: (n, n_pulses, 3).
    """

    inputs: Inputs
    outputs: Any


def draw(n: int, seed: int, *, n_pulses: int = N_PULSES, augmented: bool) -> Inputs:
    """Random inputs, families in equal shares, one after the other.

    augmented: with transmit fields other than 1, and starts other than 1 and -1.
    """
    rng = np.random.default_rng(seed)
    shares = [len(range(i, n, len(trains.KINDS))) for i in range(len(trains.KINDS))]
    several = [
        trains.random_trains(kind, n_pulses, share, rng) for kind, share in zip(trains.KINDS, shares, strict=True)
    ]
    flip = np.concatenate([np.asarray(some) for some in several])
    kind = np.repeat(np.arange(len(shares)), shares)
    t1, t2 = _tissues(n, rng)
    tr, te = _timings(n, n_pulses, rng)
    mz = rng.choice([-1.0, 1.0], n)
    if augmented:
        flip = flip * rng.uniform(B1[0], B1[1], (n, 1))
        mz = np.where(rng.uniform(size=n) < 1 / 3, rng.uniform(-1, 1, n), mz)
    single = lambda array: np.asarray(array, np.float32)  # noqa: E731
    return Inputs(kind, *map(single, (flip, tr, te, t1, t2, mz)))


def _tissues(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """T1 and T2 uniform in their logarithms, T1 >= T2."""
    t1, t2 = np.exp(rng.uniform(np.log(T1[0]), np.log(T1[1]), n)), np.exp(rng.uniform(np.log(T2[0]), np.log(T2[1]), n))
    while (wrong := np.flatnonzero(t2 > t1)).size:
        t1[wrong] = np.exp(rng.uniform(np.log(T1[0]), np.log(T1[1]), wrong.size))
        t2[wrong] = np.exp(rng.uniform(np.log(T2[0]), np.log(T2[1]), wrong.size))
    return t1, t2


def _timings(n: int, n_pulses: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """TR and TE, one number for all pulses of a signal or one for each."""
    varying = rng.integers(2, size=(n, 1)) == 1
    ranges = TR, TE_PART
    constant = [rng.uniform(low, high, (n, 1)) for low, high in ranges]
    each = [rng.uniform(low, high, (n, n_pulses)) for low, high in ranges]
    tr, part = (np.where(varying, many, one) for many, one in zip(each, constant, strict=True))
    return tr, tr * part


def simulate(inputs: Inputs, model: EPGBloch | None = None, *, progress: bool = False) -> Examples:
    """The inputs with the outputs of EPG-Bloch: all orders that matter, pulses of 100 steps, 32 sub-slices."""
    n, n_pulses = inputs.flip.shape
    outputs = np.empty((n, n_pulses, 3), np.float32)
    needed = _orders(inputs)
    tabulated = (EPGBloch(pulse=pulse()) if model is None else model).tabulated(*extremes(inputs))
    devices = tuple(jax.local_devices())
    with batch.progress_bar(n, "exact signals", progress) as bar:
        for orders in np.unique(needed):
            cut = dataclasses.replace(tabulated, orders=int(orders))
            several = np.flatnonzero(needed == orders)
            for start in range(0, several.size, TOGETHER):
                rows = several[start : start + TOGETHER]
                filled = np.resize(rows, min(TOGETHER, -(-several.size // len(devices)) * len(devices)))
                part = Inputs(*(leaf[filled] for leaf in inputs))
                outputs[rows] = np.asarray(_simulated(cut, part, devices))[: rows.size]
                bar.update(rows.size)
    return Examples(inputs, outputs)


def _orders(inputs: Inputs) -> np.ndarray:
    """Of each signal, orders beyond which a path has decayed to the truncation, from a ladder.

    To come back from order k a path is transverse for 2 k repetitions, and each pulse splits it besides.
    """
    ratio = inputs.tr.mean(axis=1) / inputs.t2
    orders = 2 * np.log(0.07 / TRUNCATION) / (2 * ratio + 0.03)
    ladder = np.array([rung for rung in LADDER if rung < inputs.flip.shape[1]] + [inputs.flip.shape[1]])
    rungs = np.minimum(np.searchsorted(ladder, orders), len(ladder) - 1)
    for rung in range(rungs.max()):
        if np.count_nonzero(rungs == rung) < TOGETHER:
            rungs[rungs == rung] += 1
    return ladder[rungs]


def sequence(flip, tr, te, mz) -> Sequence:
    """The train of one example, after a preparation that leaves `mz`."""
    return dataclasses.replace(fisp(flip, tr, te), initial=jnp.zeros(3, mz.dtype).at[2].set(mz))


def extremes(inputs: Inputs) -> tuple[Sequence, Tissue]:
    """A train of the largest flip, and the tissues between which all others lie."""
    single = inputs.t1.dtype
    times = jnp.ones(2, single)
    largest = sequence(jnp.full(2, inputs.flip.max(), single), times, times, jnp.ones((), single))
    return largest, Tissue(t1=jnp.array([T1[0], T1[1]], single), t2=jnp.array([T2[0], T2[0]], single))


@eqx.filter_jit
def _simulated(model: EPGBloch, inputs: Inputs, devices: tuple):
    def one(model, example):
        played = sequence(example.flip, example.tr, example.te, example.mz)
        tissue = Tissue(t1=example.t1[None], t2=example.t2[None])
        signal, rows = run_with_jacobian(played, tissue, model, ("t1", "t2"))
        logarithmic = rows[0] * jnp.stack([example.t1, example.t2])[:, None]
        return jnp.concatenate([signal, logarithmic]).imag.T

    return batch.over_groups(one, model, inputs, devices)


def cached(
    path: str | os.PathLike, n: int, seed: int, *, n_pulses: int, augmented: bool, progress: bool = False
) -> Examples:
    """The examples of a .npz file, which is written first unless it is there.

    Raises `ValueError` for a file of other examples.
    """
    about = f"{n} signals of {n_pulses} pulses, seed {seed}{', augmented' if augmented else ''}"
    if not Path(path).exists():
        made = simulate(draw(n, seed, n_pulses=n_pulses, augmented=augmented), progress=progress)
        with whole(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, about=about, outputs=made.outputs, **made.inputs._asdict())
        return made
    try:
        with np.load(path, allow_pickle=False) as file:
            found = file["about"].item()
            read = Examples(Inputs(*(file[name] for name in Inputs._fields)), file["outputs"])
    except (KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path} holds no examples of a surrogate; remove it, and they are made anew") from error
    if found != about:
        raise ValueError(f"{path} holds {found}, wanted are {about}; remove it, or give another --out")
    return read
