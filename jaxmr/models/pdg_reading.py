"""What a planned phase distribution graph shows: the samples of a readout, from the states that are read."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Complex
from jaxmr.physics import ensembles, pdg
from jaxmr.sequences.timeline import Readout, Timeline

PRODUCT = 8_000_000
"""Bytes of the samples of several states that are computed at a time."""


class Steps(eqx.Module):
    """The graph of one segment: `moves` after each repetition, and the states read by each readout, (n, R).

    k (n, S, 3), tau (n, S): dephasing of the states before each pulse. moment (n, 3), time (n,): of each repetition.
    All as planned; where the sequence has moved since, F carries the phases that make the difference.
    ahead: of each readout, whether no state that it reads refocuses in time later on.
    """

    moves: pdg.Moves
    k: Any
    tau: Any
    moment: Any
    time: Any
    rows: tuple[Any, ...]
    signs: tuple[Any, ...]
    ahead: tuple[bool, ...] = eqx.field(static=True)


def runs_of(played: Timeline, step: Steps) -> list[list[int]]:
    """Readouts that differ in numbers only: they are compiled once."""
    runs: dict[Any, list[int]] = {}
    for i, (readout, ahead) in enumerate(zip(played.readouts, step.ahead, strict=True)):
        kind = (readout.samples, readout.path is None, _rank(readout.receiver), ahead)
        runs.setdefault(kind, []).append(i)
    return list(runs.values())


def _rank(receiver: Any) -> str | None:
    """Whether the phases of a receiver are none, one for a readout, or one for each sample."""
    return None if receiver is None else "samples" if receiver.ndim == 2 else "readout"


def in_order(samples: list, runs: list[list[int]], played: Timeline) -> list:
    """Samples (n, coils, samples) of runs as they were taken."""
    if len(runs) < 2:
        return samples
    starts = np.cumsum([0, *(readout.samples for readout in played.readouts)])
    places = [np.arange(starts[i], starts[i + 1]) for run in runs for i in run]
    return [jnp.concatenate(samples, axis=-1)[..., np.argsort(np.concatenate(places))]]


def each_of(played: Timeline, step: Steps, run: list[int]) -> dict[str, Any]:
    """What differs between the repetitions of a segment and the readouts of a run: leaves (n, ...) or (n, run, ...)."""
    n, found = played.repetitions, []
    for i in run:
        readout = played.readouts[i]
        one: dict[str, Any] = {"row": step.rows[i], "sign": step.signs[i]}
        one["start"] = (readout.start_time, readout.start_moment, readout.start_spread)
        if readout.receiver is not None:
            phase = readout.receiver
            one["receiver"] = phase if phase.ndim == 2 else jnp.broadcast_to(phase, (n,))
        # What all repetitions share is left out of the scan, so that it is computed once.
        alone = len(run) == 1
        if not (alone and readout.step_time.ndim == 0 and readout.step_moment.ndim == 1):
            step_moment = jnp.broadcast_to(readout.step_moment, (n, 3))
            one["step"] = jnp.broadcast_to(readout.step_time, (n,)), step_moment
        if readout.path is not None and not (alone and readout.path.ndim == 2):
            one["path"] = jnp.broadcast_to(readout.path, (n, readout.samples, 3))
        found.append(one)
    return found[0] if len(run) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *found)


def _is_separable(ahead: bool, group) -> bool:
    """Whether states decay alike from sample to sample: no diffusion, and T2' only ahead."""
    return "diffusivity" not in group and ("r2_prime" not in group or ahead)


def is_shared(of, readout: Readout, ahead: bool, group) -> bool:
    """Whether from sample to sample the same happens to all states in all repetitions."""
    return "step" not in of and "path" not in of and readout.path is None and _is_separable(ahead, group)


def at_start(signal: ensembles.Factor, dephased, start, ahead: bool, group):
    """Signal (R, voxels) of states at the beginning of a readout, and their dephasing (R, 3), (R,) there."""
    start_time, start_moment, _ = start
    k, tau = dephased[0] + start_moment[None], dephased[1] + start_time
    turned = matmul(k, group["position"].T)
    if "b0" in group:
        turned = turned + 2 * jnp.pi * tau[:, None] * group["b0"][None]
    decay = start_time * group["r2"][None]
    if "r2_prime" in group and _is_separable(ahead, group):
        decay = decay + tau[:, None] * group["r2_prime"][None]
    return ensembles.times(signal, pdg.exponential(-decay, turned)), k, tau


def _from_sample_to_sample(step_time, step_moment, group) -> tuple[Array, Array]:
    """Decay and turn (voxels,) of all states, where they are separable."""
    rate = group["r2"] if "r2_prime" not in group else group["r2"] + group["r2_prime"]
    turn = matmul(step_moment, group["position"].T)
    return -step_time * rate, turn if "b0" not in group else turn + 2 * jnp.pi * step_time * group["b0"]


def _weight(group) -> ensembles.Factor:
    """Magnetisation times coil map (coils, voxels), real where both are."""
    weight = group["weight"].T
    return ensembles.Factor(weight.real, weight.imag)


def shared_samples(started, readout: Readout, receiver, space, group) -> Complex[Array, "n coils samples"]:
    """Samples of all repetitions from signal (n, R, voxels) and k (n, R, 3) at the start of their readouts.

    One matrix product with what all of them share: several times faster than a small one in each repetition.
    """
    n, (signal, _) = readout.samples, started
    steps = jnp.arange(1, n + 1, dtype=signal.re.dtype)
    decay, turn = _from_sample_to_sample(readout.step_time, readout.step_moment, group)
    wave = pdg.exponential(steps[:, None] * decay[None], steps[:, None] * turn[None])
    wave = pdg.weighted(wave, _weight(group))
    path = steps[:, None] * readout.step_moment[None]

    def one(part):
        signal, k = part
        seen = pdg.product(signal, wave)
        shapes = pdg.shape_factor(k[:, None] + path[None], space[0], space[1], jnp)
        return jnp.stack([jnp.sum(shapes[:, None] * part.reshape(k.shape[0], -1, n), axis=0) for part in seen])

    bytes_each = 4 * signal.re.dtype.itemsize * signal.re.shape[1] * wave.re.shape[0]
    at_a_time = max(1, PRODUCT // bytes_each)
    re, im = jnp.moveaxis(jax.lax.map(jax.checkpoint(one), started, batch_size=at_a_time), 1, 0)
    total = jax.lax.complex(re, im)
    if receiver is None:
        return total
    return total * jnp.exp(-1j * receiver).reshape(len(total), 1, -1)


def samples_of(signal, dephased, readout: Readout, of, ahead: bool, space, group) -> Complex[Array, "coils samples"]:
    """Samples of the states `signal` (R, voxels), which have `dephased` by k (R, 3) and tau (R,) at the pulse."""
    (step_time, step_moment), n = of["step"], readout.samples
    steps = jnp.arange(1, n + 1, dtype=step_time.dtype)
    times = step_time * steps
    path = step_moment[None] * steps[:, None] if of["path"] is None else of["path"]
    signal, k, tau = at_start(signal, dephased, of["start"], ahead, group)
    weight = _weight(group)
    shapes = pdg.shape_factor(k[:, None] + path[None], space[0], space[1], jnp)
    separable = _is_separable(ahead, group)
    if separable and readout.path is None:
        signal = pdg.weighted(signal, weight)
        seen = pdg.projected(signal, *pdg.exponentials(*_from_sample_to_sample(step_time, step_moment, group), n), n)
    else:
        rate = group["r2"] if not separable or "r2_prime" not in group else group["r2"] + group["r2_prime"]
        turn = matmul(path, group["position"].T)
        if "b0" in group:
            turn = turn + 2 * jnp.pi * times[:, None] * group["b0"][None]
        wave = pdg.exponential(-times[:, None] * rate[None], turn)
        damping = None if separable else _damping(k, tau, times, path, of["start"], group)
        seen = pdg.summed(signal, wave, damping, weight)
    total = jax.lax.complex(*(jnp.sum(shapes[None] * part.reshape(-1, k.shape[0], n), axis=1) for part in seen))
    return total if "receiver" not in of else total * jnp.exp(-1j * of["receiver"]).reshape(1, -1)


def _damping(k, tau, times, path, start, group):
    """What T2' and diffusion leave of each state at each sample, (R, samples, voxels)."""
    start_time, start_moment, (first, second) = start
    exponent = 0.0
    if "r2_prime" in group:
        exponent = jnp.abs(tau[:, None] + times[None])[..., None] * group["r2_prime"][None, None]
    if "diffusivity" in group:
        at_pulse = k - start_moment[None]
        first = first[None] + times[:, None] * (start_moment[None] + path / 2)
        square = jnp.sum(start_moment**2) + jnp.sum(path * start_moment[None], axis=1) + jnp.sum(path**2, axis=1) / 3
        second = second + times * square
        crossed = matmul(at_pulse, first.T)
        weight = (start_time + times)[None] * jnp.sum(at_pulse**2, axis=1)[:, None] + 2 * crossed + second[None]
        exponent = exponent + weight[..., None] * group["diffusivity"][None, None]
    return jnp.exp(-exponent)
