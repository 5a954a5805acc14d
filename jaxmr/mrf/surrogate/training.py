"""Training of a surrogate: mean squared error of signal and derivatives, crop by crop of long trains.

An error counts by the one that the published network makes of its family: a loss of 1 means as exact as that. The
paper minimises absolute errors; squares serve the relative norms of its table better, in which a few signals (T1
above 4 s, fast pulses) weigh most.

The hidden states go on from one crop to the next, their gradient does not: a long train costs no more memory than
a crop, and gives a step of the optimiser for each of them.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from jaxmr.core import batch
from jaxmr.core.digests import digest
from jaxmr.core.types import Float
from jaxmr.learning import checkpoints
from jaxmr.learning.optimisers import soap
from jaxmr.mrf.surrogate.examples import Examples, Inputs
from jaxmr.mrf.surrogate.network import Network, scaled_pulses, scaled_tissue, untrained
from jaxmr.sequences.trains import KINDS

GOAL = (0.00418, 0.00801), (0.00574, 0.01008), (0.0078, 0.01694), (0.01285, 0.02037), (0.05155, 0.03913)
"""Errors that the published network reached, `(family, (signal, derivatives))`: table 1 of Liu et al."""


class Settings(NamedTuple):
    """How to train. together: signals of a step. crop: pulses of a step. rate: the largest, after the warm-up."""

    epochs: int = 230
    together: int = 256
    crop: int = 140
    rate: float = 0.0015
    warm_up: int = 300
    seed: int = 0


class State(NamedTuple):
    """All that a training needs to go on."""

    network: Network
    optimiser: Any


class Progress(NamedTuple):
    """After an epoch: its mean loss, and the table `(family, (signal, derivatives))` of relative errors."""

    epoch: int
    loss: float
    table: Float[np.ndarray, "families 2"]
    network: Network


def train(
    examples: Examples,
    test: Examples,
    settings: Settings,
    *,
    start: Network | None = None,
    checkpoint: str | os.PathLike | None = None,
    devices: list | None = None,
    progress: bool = False,
) -> Iterator[Progress]:
    """Train a network, epoch by epoch; each yields what it reached.

    start: a network that has learnt already. checkpoint: a file to which each epoch goes, and from which a killed
    training goes on: on a CPU with the same numbers as without the kill. Raises `ValueError` for the checkpoint of a
    training with other settings or another start.
    """
    optimiser = _optimiser(settings, len(examples.outputs), examples.outputs.shape[1])
    network: Any = untrained(jax.random.key(settings.seed)) if start is None else start
    state = State(network, optimiser.init(network))
    about = {**settings._asdict(), "start": None if start is None else digest(start)}
    begun = 0
    if checkpoint is not None and Path(checkpoint).exists():
        header = checkpoints.read_header(checkpoint)
        begun = header.pop("epoch", 0)
        if header != about:
            raise ValueError(f"checkpoint {checkpoint} is of a training with {header}; remove it, or use its settings")
        state = checkpoints.load(checkpoint, state)
    devices = jax.local_devices() if devices is None else devices
    weights = 1 / (np.array(GOAL, np.float32)[:, [0, 1, 1]] * _sizes(examples))
    steps = _steps(optimiser, settings.crop, tuple(devices))
    n = len(examples.outputs)
    together = settings.together // len(devices) * len(devices)
    for epoch in range(begun, settings.epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(n)
        losses = []
        with batch.progress_bar(n, f"epoch {epoch + 1} of {settings.epochs}", progress) as bar:
            for first in range(0, n - together + 1, together):
                rows = order[first : first + together]
                state, loss = steps(state, taken(examples, rows), weights)
                losses.append(loss)
                bar.update(together)
        if checkpoint is not None:
            checkpoints.save(checkpoint, state, {**about, "epoch": epoch + 1})
        yield Progress(epoch + 1, float(np.mean(losses)), table(state.network, test, devices), state.network)


def taken(examples: Examples, rows: Any) -> Examples:
    """Some of the examples."""
    return Examples(Inputs(*(leaf[rows] for leaf in examples.inputs)), examples.outputs[rows])


def _sizes(examples: Examples) -> Float[np.ndarray, "families 3"]:
    """Root mean squares of signals, and of both derivatives together, by family."""
    squares = np.stack(
        [np.mean(examples.outputs[examples.inputs.kind == i] ** 2, axis=(0, 1)) for i in range(len(KINDS))]
    )
    squares[:, 1:] = squares[:, 1:].mean(axis=1, keepdims=True)
    return np.sqrt(squares)


def _optimiser(settings: Settings, n: int, n_pulses: int) -> optax.GradientTransformation:
    """SOAP with a warm-up and a cosine over all steps."""
    steps = settings.epochs * (n // settings.together) * (n_pulses // settings.crop)
    longest = max(steps, settings.warm_up + 1)
    return soap(optax.warmup_cosine_decay_schedule(0.0, settings.rate, settings.warm_up, longest))


def _prepared(inputs: Inputs, outputs) -> tuple[Any, Any, Any, Any]:
    """What the network sees, voxels last: magnetisation at the start, tissue, pulses, and what it should answer."""
    magnetisation = jnp.zeros((3, *inputs.mz.shape)).at[2].set(inputs.mz)
    played = scaled_pulses(inputs.tr.T, inputs.te.T, inputs.flip.T)
    return magnetisation, scaled_tissue(inputs.t1, inputs.t2), played, jnp.moveaxis(outputs, 0, -1)


def _steps(optimiser: optax.GradientTransformation, crop: int, devices: tuple) -> Callable:
    """One step for each crop of a batch, compiled; the devices share its signals."""

    def loss(network, hidden, tissue, weight, played, wanted):
        hidden, found = network.run(hidden, tissue, played)
        return jnp.mean((weight[None] * (found - wanted)) ** 2), hidden

    def share(state: State, examples: Examples, weights):
        magnetisation, tissue, played, wanted = _prepared(*examples)
        weight = weights[examples.inputs.kind].T
        crops = jax.tree.map(lambda leaf: leaf.reshape(-1, crop, *leaf.shape[1:]), (played, wanted))

        def step(carry, part):
            state, hidden = carry
            # Of the first crop the initial layer learns too: its output is where the states begin.
            begin = lambda network: jax.tree.map(  # noqa: E731
                lambda fresh, old: jnp.where(part[0] == 0, fresh, old), network.start(magnetisation), hidden
            )
            both = eqx.filter_value_and_grad(
                lambda network: loss(network, begin(network), tissue, weight, *part[1]), has_aux=True
            )
            (value, hidden), slope = both(state.network)
            value, slope = jax.lax.pmean((value, slope), "signals")
            change, memory = optimiser.update(slope, state.optimiser, state.network)
            return (State(eqx.apply_updates(state.network, change), memory), hidden), value

        counted = (jnp.arange(crops[0].shape[0]), crops)
        (state, _), values = jax.lax.scan(step, (state, state.network.start(magnetisation)), counted)
        return state, jnp.mean(values)

    mesh, split, same = Mesh(np.array(devices), ("signals",)), PartitionSpec("signals"), PartitionSpec()
    mapped = jax.shard_map(share, mesh=mesh, in_specs=(same, split, same), out_specs=(same, same), check_vma=False)
    return jax.jit(mapped)


def outputs(network: Network, inputs: Inputs, devices: list | None = None) -> Float[np.ndarray, "n n_pulses 3"]:
    """What the network answers."""
    key = tuple(jax.local_devices() if devices is None else devices)
    return np.concatenate(
        [
            np.asarray(_answer(network, Inputs(*(leaf[rows] for leaf in inputs)), key))
            for rows in batch.host_chunks(len(inputs.t1), 1024, "surrogate", False)
        ]
    )


@eqx.filter_jit
def _answer(network: Network, inputs: Inputs, devices: tuple):
    def one(network, inputs):
        magnetisation, tissue, played, _ = _prepared(inputs, jnp.zeros((1, 1, 1)))
        return jnp.moveaxis(network.run(network.start(magnetisation), tissue, played)[1], -1, 0)

    n = len(inputs.t1)
    groups = batch.in_groups(inputs, min(n, 64), len(devices))
    found = batch.over_groups(one, network, groups, devices)
    return found.reshape(-1, *found.shape[2:])[:n]


def table(network: Network, test: Examples, devices: list | None = None) -> Float[np.ndarray, "families 2"]:
    """Table 1: relative errors of signals and of derivatives, by family.

    The norm of the error over the norm of the reference, over all signals of a family, both derivatives together.
    """
    return errors(outputs(network, test.inputs, devices), test)


def errors(found: Float[np.ndarray, "n n_pulses 3"], test: Examples) -> Float[np.ndarray, "families 2"]:
    """`table` of what something else answered."""
    each = [test.inputs.kind == i for i in range(len(KINDS))]
    return np.stack([relative_errors(found[of], test.outputs[of]) for of in each])


def relative_errors(
    found: Float[np.ndarray, "n n_pulses 3"], wanted: Float[np.ndarray, "n n_pulses 3"]
) -> Float[np.ndarray, "2"]:
    """Norm of the error over norm of what is wanted, of signals and of both derivatives together."""
    parts = slice(0, 1), slice(1, 3)
    return np.array([np.linalg.norm((found - wanted)[..., part]) / np.linalg.norm(wanted[..., part]) for part in parts])


def readout_difference(network: Network, inputs: Inputs) -> float:
    """How far the derivatives that are read out are from those of the signal, relative to their norm."""

    def one(network, inputs):
        magnetisation, tissue, played, _ = _prepared(inputs, jnp.zeros((1, 1, 1)))
        answers = network.run(network.start(magnetisation), tissue, played)[1]
        along = jnp.log(inputs.t1), jnp.log(inputs.t2)

        def signal(log_t1, log_t2):
            tissue = scaled_tissue(jnp.exp(log_t1), jnp.exp(log_t2))
            return network.run(network.start(magnetisation), tissue, played)[1][:, 0]

        zero, unit = jnp.zeros_like(along[0]), jnp.ones_like(along[0])
        slopes = [jax.jvp(signal, along, by)[1] for by in ((unit, zero), (zero, unit))]
        return answers[:, 1:], jnp.stack(slopes, axis=1)

    read, slopes = eqx.filter_jit(one)(network, inputs)
    return float(jnp.linalg.norm(read - slopes) / jnp.linalg.norm(slopes))
