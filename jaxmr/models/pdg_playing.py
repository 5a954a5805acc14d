"""Play a planned phase distribution graph on a group of voxels: one scan per segment of the sequence."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmr.core import batch
from jaxmr.core.gathering import taken
from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Complex
from jaxmr.models import shaping
from jaxmr.models.pdg_reading import Steps, at_start, each_of, in_order, is_shared, runs_of, samples_of, shared_samples
from jaxmr.models.spins import Spins
from jaxmr.objects.phantom import Phantom
from jaxmr.physics import ensembles, kernels, pdg, registers
from jaxmr.physics.kernels import ComplexStates
from jaxmr.physics.rf import Waveform
from jaxmr.sequences.sequence import Sequence
from jaxmr.sequences.timeline import Timeline, over_periods, timeline_of

VOXELS = 512
"""Voxels of a group on a CPU (measured: fewer cost gradients more calls, more leave its cache)."""


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

    Pulses that have a shape are played with it, others are instantaneous.
    """
    initial = sequence.initial
    lanes, dtype = group["r1"].shape[0], group["r1"].dtype
    zero = jnp.zeros((steps[0].k.shape[-2], lanes), dtype)
    mx, my, mz = (0.0, 0.0, 1.0) if initial is None else initial
    states = ComplexStates(zero.at[0].set(mx), zero.at[0].set(my), zero.at[0].set(mz), zero, zero, zero)

    def play_one(states, part):
        segment, step = part
        states, seen = _play_segment(states, timeline_of(segment, jnp), step, sequence.shapes, space, group)
        if not seen:
            return states, None
        return states, jnp.moveaxis(jnp.concatenate(seen, axis=-1), 1, 0).reshape(seen[0].shape[1], -1)

    return over_periods(play_one, states, list(zip(sequence.segments, steps, strict=True)))


def _play_segment(states, played: Timeline, step: Steps, shapes: tuple[Waveform, ...], space, group):
    """All repetitions of one segment: the states after it, and of each readout the samples (n, coils, samples)."""
    runs = runs_of(played, step)
    each = {
        "flip": played.flip,
        "phase": played.phase,
        "frequency": played.frequency,
        "time": played.time,
        "moment": played.moment,
        "spread": played.spread,
        "runs": [each_of(played, step, run) for run in runs],
        "step": step,
    }

    def repetition(states, now):
        k, tau = now["step"].k, now["step"].tau
        pulse = kernels.identity()
        if played.efficiency is not None:
            states = states.invert(played.efficiency)
        elif played.flip is not None:
            shape = None if played.shape is None else shapes[played.shape]
            pulse = jax.lax.optimization_barrier(pulse_of(now["flip"], now["phase"], now["frequency"], shape, group))

        def read(run, of):
            signal = pdg.read(states, of["row"], of["sign"], pulse)
            dephased = of["sign"][:, None] * taken(k, of["row"]), of["sign"] * taken(tau, of["row"])
            first, ahead = played.readouts[run[0]], step.ahead[run[0]]
            if is_shared(of, first, ahead, group):
                return at_start(signal, dephased, of["start"], ahead, group)[:2]
            of = {
                **of,
                "path": of.get("path", first.path),
                "step": of.get("step", (first.step_time, first.step_moment)),
            }
            return samples_of(signal, dephased, first, of, ahead, space, group)

        seen = []
        for run, of in zip(runs, now["runs"], strict=True):
            if len(run) == 1:
                seen.append(read(run, of))
                continue
            several: Any = jax.lax.map(lambda one, run=run: read(run, one), of)
            seen.append(jnp.moveaxis(several, 1, 0).reshape(several.shape[1], -1))
        return pdg.move(_relaxed(states, pulse, now, group), now["step"].moves), seen

    # Reverse mode keeps the states of each repetition and computes the rest again: memory is what it waits for.
    kept = jax.checkpoint(repetition, prevent_cse=False)
    states, samples = jax.lax.scan(kept, states, each, length=played.repetitions)
    for number, (run, of) in enumerate(zip(runs, each["runs"], strict=True)):
        first, ahead = played.readouts[run[0]], step.ahead[run[0]]
        if is_shared(of, first, ahead, group):
            samples[number] = shared_samples(samples[number], first, of.get("receiver"), space, group)
    return states, in_order(samples, runs, played)


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
    slip = matmul(now["moment"] - step.moment, group["position"].T)
    slip = slip if "b0" not in group else slip + 2 * jnp.pi * (time - step.time) * group["b0"]
    operator = jax.lax.optimization_barrier(registers.turned(operator, *ensembles.factor(slip[None])))
    mixed = states.mix(operator.rows)
    if "diffusivity" in group:
        weights = pdg.diffusion(step.k, time, *now["spread"])
        mixed = mixed.attenuate(*(jnp.exp(-weight[:, None] * group["diffusivity"][None]) for weight in weights))
    return mixed.add(operator.offset)
