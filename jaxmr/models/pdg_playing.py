"""Play a planned phase distribution graph on a group of voxels: one scan per segment of the sequence."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core import batch
from jaxmr.core.gathering import taken
from jaxmr.core.types import Array, Complex
from jaxmr.models import shaping
from jaxmr.models.spins import Spins
from jaxmr.objects.phantom import Phantom
from jaxmr.physics import ensembles, kernels, pdg, registers
from jaxmr.physics.kernels import ComplexStates
from jaxmr.physics.rf import Waveform
from jaxmr.sequences.sequence import Sequence
from jaxmr.sequences.timeline import Readout, Timeline, periods, timeline_of

VOXELS = 512
"""Voxels of a group on a CPU (measured: fewer cost gradients more calls, more leave its cache)."""


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


def grouped(phantom: Phantom, n_devices: int) -> dict[str, Any]:
    """The voxels in groups that are computed together; those that fill up have no magnetisation."""
    tissue = phantom.tissue
    n, dtype = tissue.t1.shape[0], tissue.t1.dtype
    weight = jnp.ones(n, dtype) if tissue.m0 is None else tissue.m0
    weight = weight[:, None] if phantom.coils is None else weight[:, None] * phantom.coils.T
    leaves = {
        "r1": 1 / tissue.t1,
        "r2": 1 / tissue.t2,
        "b1": tissue.b1,
        "b0": tissue.b0,
        "r2_prime": None if tissue.t2_prime is None else 1 / tissue.t2_prime,
        "diffusivity": tissue.diffusivity,
        "position": phantom.position,
        "weight": weight,
    }
    lanes = VOXELS if jax.default_backend() == "cpu" else n
    groups = batch.in_groups({name: leaf for name, leaf in leaves.items() if leaf is not None}, lanes, n_devices)
    inside = jnp.arange(groups["r1"].size).reshape(groups["r1"].shape) < n
    return {**groups, "weight": jnp.where(inside[..., None], groups["weight"], 0)}


def play(
    sequence: Sequence,
    steps: tuple[Steps, ...],
    space: tuple[Array, str],
    group: dict[str, Any],
) -> Complex[Array, "coils samples"]:
    """The samples of one group of voxels; `space` is the size and the shape of a voxel.

    Pulses are played with the sequence's `shapes`; without any they are instantaneous.
    """
    initial = sequence.initial
    lanes, dtype = group["r1"].shape[0], group["r1"].dtype
    zero = jnp.zeros((steps[0].k.shape[-2], lanes), dtype)
    mx, my, mz = (0.0, 0.0, 1.0) if initial is None else initial
    states = ComplexStates(zero.at[0].set(mx), zero.at[0].set(my), zero.at[0].set(mz), zero, zero, zero)

    def period(states, parts):
        taken = []
        for segment, step in parts:
            states, seen = _play_segment(states, timeline_of(segment, jnp), step, sequence.shapes, space, group)
            if seen:
                taken.append(jnp.moveaxis(jnp.concatenate(seen, axis=-1), 1, 0).reshape(seen[0].shape[1], -1))
        return states, jnp.concatenate(taken, axis=-1) if taken else None

    samples, parts = [], list(zip(sequence.segments, steps, strict=True))
    for start, length, count in periods(parts):
        chosen = parts[start : start + length * count]
        if count == 1:
            states, taken = period(states, chosen)
        else:
            # Shots after one another are compiled once.
            alike = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *chosen[i::length]) for i in range(length)]
            states, taken = jax.lax.scan(period, states, alike)
            taken = None if taken is None else jnp.moveaxis(taken, 0, 1).reshape(taken.shape[1], -1)
        if taken is not None:
            samples.append(taken)
    return jnp.concatenate(samples, axis=-1)


def _play_segment(states, played: Timeline, step: Steps, shapes: tuple[Waveform, ...], space, group):
    """All repetitions of one segment: the states after it, and of each readout the samples (n, coils, samples)."""
    runs = _runs(played, step)
    each = {
        "flip": played.flip,
        "phase": played.phase,
        "frequency": played.frequency,
        "time": played.time,
        "moment": played.moment,
        "spread": played.spread,
        "runs": [_each(played, step, run) for run in runs],
        "step": step,
    }

    def repetition(states, now):
        k, tau = now["step"].k, now["step"].tau
        pulse = kernels.identity()
        if played.efficiency is not None:
            states = states.invert(played.efficiency)
        elif played.flip is not None:
            shape = None if played.shape is None or not shapes else shapes[played.shape]
            pulse = jax.lax.optimization_barrier(pulse_of(now["flip"], now["phase"], now["frequency"], shape, group))

        def read(run, of):
            signal = pdg.read(states, of["row"], of["sign"], pulse)
            dephased = of["sign"][:, None] * taken(k, of["row"]), of["sign"] * taken(tau, of["row"])
            first = played.readouts[run[0]]
            of = {
                **of,
                "path": of.get("path", first.path),
                "step": of.get("step", (first.step_time, first.step_moment)),
            }
            return _samples(signal, *dephased, first, of, step.ahead[run[0]], space, group)

        samples = []
        for run, of in zip(runs, now["runs"], strict=True):
            seen = jax.lax.map(lambda one, run=run: read(run, one), of) if len(run) > 1 else read(run, of)[None]
            samples.append(jnp.moveaxis(seen, 1, 0).reshape(seen.shape[1], -1))
        return pdg.move(_relaxed(states, pulse, now, group), now["step"].moves), samples

    # Reverse mode keeps the states of each repetition and computes the rest again: memory is what it waits for.
    kept = jax.checkpoint(repetition, prevent_cse=False)
    states, samples = jax.lax.scan(kept, states, each, length=played.repetitions)
    return states, _in_order(samples, runs, played)


def pulse_of(flip, phase, frequency, shape: Waveform | None, group) -> kernels.Operator:
    """A pulse as every voxel sees it: instantaneous, or with its shape."""
    if shape is None:
        angle = flip * group["b1"] if "b1" in group else flip
        return pdg.rotation(jnp.broadcast_to(angle, group["r1"].shape)[None], phase)
    b1 = group["b1"][None] if "b1" in group else None
    omega = 2 * jnp.pi * group["b0"][None] if "b0" in group else None
    centre, weight = group["position"].T[:, None], ensembles.Factor(jnp.ones(()), jnp.zeros(()))
    spins = Spins(centre, None, group["r1"][None], group["r2"][None], b1, omega, None, weight)
    return shaping.operator(shape, flip, phase, frequency, spins)


def _relaxed(states: ComplexStates, pulse: kernels.Operator, now, group) -> ComplexStates:
    """Pulse, relaxation and diffusion of a whole repetition, and what F winds more or less than planned."""
    time, step = now["time"], now["step"]
    e1, e2 = jnp.exp(-time * group["r1"])[None], jnp.exp(-time * group["r2"])[None]
    operator = kernels.scaled(pulse, e2, e1, -jnp.expm1(-time * group["r1"])[None])
    # Paths that are one state as planned part again when moments and times move: their phases are kept with F.
    slip = (now["moment"] - step.moment) @ group["position"].T
    slip = slip if "b0" not in group else slip + 2 * jnp.pi * (time - step.time) * group["b0"]
    operator = jax.lax.optimization_barrier(registers.turned(operator, *ensembles.factor(slip[None])))
    mixed = states.mix(operator.rows)
    if "diffusivity" in group:
        weights = pdg.diffusion(step.k, time, *now["spread"])
        mixed = mixed.attenuate(*(jnp.exp(-weight[:, None] * group["diffusivity"][None]) for weight in weights))
    return mixed.add(operator.offset)


def _runs(played: Timeline, step: Steps) -> list[list[int]]:
    """Readouts that differ in numbers only: they are compiled once."""
    runs: dict[Any, list[int]] = {}
    for i, (readout, ahead) in enumerate(zip(played.readouts, step.ahead, strict=True)):
        kind = (readout.samples, readout.path is None, _rank(readout.receiver), ahead)
        runs.setdefault(kind, []).append(i)
    return list(runs.values())


def _rank(receiver: Any) -> str | None:
    """Whether the phases of a receiver are none, one for a readout, or one for each sample."""
    return None if receiver is None else "samples" if receiver.ndim == 2 else "readout"


def _in_order(samples: list, runs: list[list[int]], played: Timeline) -> list:
    """Samples (n, coils, samples) of runs as they were taken."""
    if len(runs) < 2:
        return samples
    starts = np.cumsum([0, *(readout.samples for readout in played.readouts)])
    places = [np.arange(starts[i], starts[i + 1]) for run in runs for i in run]
    return [jnp.concatenate(samples, axis=-1)[..., np.argsort(np.concatenate(places))]]


def _each(played: Timeline, step: Steps, run: list[int]) -> dict[str, Any]:
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


def _samples(signal, k, tau, readout: Readout, of, ahead: bool, space, group) -> Complex[Array, "coils samples"]:
    """Samples of the states `signal` (R, voxels), which have dephased by `k` (R, 3) and `tau` (R,) at the pulse."""
    start_time, start_moment, start_spread = of["start"]
    (step_time, step_moment), n = of["step"], readout.samples
    steps = jnp.arange(1, n + 1, dtype=step_time.dtype)
    times = step_time * steps
    path = step_moment[None] * steps[:, None] if of["path"] is None else of["path"]
    k, tau = k + start_moment[None], tau + start_time
    position = group["position"].T
    turned = jnp.matmul(k, position, precision="highest")
    if "b0" in group:
        turned = turned + 2 * jnp.pi * tau[:, None] * group["b0"][None]
    decay = start_time * group["r2"][None]
    rate = group["r2"]
    separable = "diffusivity" not in group and ("r2_prime" not in group or ahead)
    if separable and "r2_prime" in group:
        decay, rate = decay + tau[:, None] * group["r2_prime"][None], rate + group["r2_prime"]
    signal = ensembles.times(signal, pdg.exponential(-decay, turned))
    weight = group["weight"].T
    weight = ensembles.Factor(weight.real, weight.imag)
    shapes = pdg.shape_factor(k[:, None] + path[None], space[0], space[1], jnp)
    if separable and readout.path is None:
        signal = pdg.weighted(signal, weight)
        turn = jnp.matmul(step_moment, position, precision="highest")
        if "b0" in group:
            turn = turn + 2 * jnp.pi * step_time * group["b0"]
        seen = pdg.projected(signal, *pdg.exponentials(-step_time * rate, turn, n), n)
    else:
        turn = jnp.matmul(path, position, precision="highest")
        if "b0" in group:
            turn = turn + 2 * jnp.pi * times[:, None] * group["b0"][None]
        wave = pdg.exponential(-times[:, None] * rate[None], turn)
        damping = None
        if not separable:
            damping = _damping(k, tau, times, path, (start_time, start_moment, start_spread), group)
        seen = pdg.summed(signal, wave, damping, weight)
    total = jax.lax.complex(*(jnp.sum(shapes[None] * part.reshape(-1, k.shape[0], n), axis=1) for part in seen))
    return total if "receiver" not in of else total * jnp.exp(-1j * of["receiver"])


def _damping(k, tau, times, path, start, group):
    """What T2' and diffusion leave of each state at each sample, (R, samples, voxels)."""
    start_time, start_moment, (first, second) = start
    exponent = 0.0
    if "r2_prime" in group:
        exponent = jnp.abs(tau[:, None] + times[None])[..., None] * group["r2_prime"][None, None]
    if "diffusivity" in group:
        at_pulse = k - start_moment[None]
        first = first[None] + times[:, None] * (start_moment[None] + path / 2)
        square = jnp.sum(start_moment**2) + path @ start_moment + jnp.sum(path**2, axis=1) / 3
        second = second + times * square
        weight = (
            (start_time + times)[None] * jnp.sum(at_pulse**2, axis=1)[:, None] + 2 * at_pulse @ first.T + second[None]
        )
        exponent = exponent + weight[..., None] * group["diffusivity"][None, None]
    return jnp.exp(-exponent)
