"""The surrogate as a model: the call of the exact models, answered by the trained network."""

import importlib.resources
import warnings
from pathlib import Path
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import is_concrete
from jaxmr.core.types import Array, Complex, Float
from jaxmr.learning import checkpoints
from jaxmr.models.model import Model
from jaxmr.models.planning import OURS, AccuracyWarning
from jaxmr.mrf.surrogate import examples
from jaxmr.mrf.surrogate.network import Network, scaled_pulses, scaled_tissue, untrained
from jaxmr.objects.tissue import Tissue
from jaxmr.physics.rf import Waveform
from jaxmr.sequences.sequence import Inversion, Pulse, Segment, Sequence, repetition_time, sample_steps, total_order
from jaxmr.units import ms

SLACK = 1e-5
"""Relative, by which rounding may leave a trained range."""


@final
class RNN(Model):
    """EPG-Bloch of gradient-spoiled trains as a recurrent network learnt it: T1, T2, B1, and derivatives by log T1, T2.

    For one pulse shape (Gaussian of 1 ms, time-bandwidth 3) of one phase, one sample and one spoiler a repetition,
    after any inversion and rest. Input outside of what it was trained for warns: T1 0.1 ... 5 s, T2 0.01 ... 2 s, TR
    5 ... 20 ms, TE 0.3 ... 0.7 TR, flips times B1 0 ... 144 degrees. Derivatives by T1 and T2 are read out beside the
    signal; others differentiate the network. error: the largest of its model card.
    Liu et al., NMR Biomed 2021, section 2.2.
    """

    network: Network
    error: Float[Array, ""]

    @staticmethod
    def pretrained() -> "RNN":
        """The network that comes with jaxmr; `card` tells what it was trained on and how exact it is."""
        return load(_shipped())

    def prepare(self, sequence: Sequence, tissue: Tissue) -> Any:
        return None

    def signals(
        self, shared: Any, sequence: Sequence, tissue: Tissue, keep: Float[Array, "voxels"] | None = None
    ) -> Complex[Array, "voxels n_echoes"]:
        return _received(self._outputs(sequence, tissue)[:, 0], sequence)

    def fastest(self, shared: Any, sequence: Sequence, tissue: Tissue) -> Complex[Array, "voxels n_echoes"]:
        return self.signals(shared, sequence, tissue)

    def derivatives(
        self, shared: Any, sequence: Sequence, tissue: Tissue, names: tuple[str, ...]
    ) -> tuple[Complex[Array, "voxels n_echoes"], Complex[Array, "n_names voxels n_echoes"]] | None:
        if not set(names) <= {"t1", "t2"}:
            return None
        outputs = self._outputs(sequence, tissue)
        by = {"t1": outputs[:, 1] / tissue.t1[None], "t2": outputs[:, 2] / tissue.t2[None]}
        if "t1" in names and len(sequence.segments) > 1:
            by["t1"] += self._through_preparation(sequence, tissue)
        rows = [_received(by[name], sequence) for name in names]
        return _received(outputs[:, 0], sequence), jnp.stack(rows)

    def state_shape(self, sequence: Sequence, tissue: Tissue) -> tuple[int, int]:
        layer = self.network.layers[0]
        return len(self.network.layers) * layer.recurrent.shape[1] + 2 * layer.recurrent.shape[0], 1

    def planned(self, sequence: Sequence, tissue: Tissue) -> "RNN":
        if is_concrete((sequence, tissue)):
            _require_pulse(sequence)
            _warn_outside(sequence, tissue)
        return self

    def is_static(self) -> bool:
        return True

    def _outputs(self, sequence: Sequence, tissue: Tissue, mz=None) -> Float[Array, "n_echoes 3 voxels"]:
        before, segment = _train(sequence, tissue)
        along = jnp.asarray(_prepared(before, sequence, tissue.t1) if mz is None else mz)
        start = jnp.zeros((3, *tissue.t1.shape), tissue.t1.dtype).at[2].set(along)
        hidden = self.network.start(start)
        return self.network.run(hidden, scaled_tissue(tissue.t1, tissue.t2), _played(segment, tissue))[1]

    def _through_preparation(self, sequence: Sequence, tissue: Tissue) -> Float[Array, "n_echoes voxels"]:
        """What T1 changes before the first pulse: the network reads out the derivative of what comes after."""
        before, _ = _train(sequence, tissue)
        along = lambda t1: _prepared(before, sequence, t1)  # noqa: E731
        mz, slope = jax.jvp(along, (tissue.t1,), (jnp.ones_like(tissue.t1),))
        return jax.jvp(lambda mz: self._outputs(sequence, tissue, mz)[:, 0], (mz,), (slope,))[1]


def load(path: str | Path) -> RNN:
    """A surrogate from a file that `jaxmr train-surrogate` wrote; a `ValueError` for another file."""
    header = card(path)
    shape = jax.eval_shape(untrained, jax.random.key(0))
    network = checkpoints.load(path, shape)
    return RNN(network, jnp.asarray(max(max(row) for row in header["errors"].values())))


def card(path: str | Path | None = None) -> dict[str, Any]:
    """The model card in a file of weights, by default those that come with jaxmr: data, seed, versions, errors."""
    header = checkpoints.read_header(_shipped() if path is None else path)
    if "errors" not in header:
        raise ValueError(f"{path} is no file of a trained surrogate; give the weights that train-surrogate wrote")
    return header


def _shipped() -> Path:
    return Path(str(importlib.resources.files("jaxmr.mrf.surrogate"))) / "weights" / "rnn.eqx"


def _train(sequence: Sequence, tissue: Tissue) -> tuple[tuple[Segment, ...], Segment]:
    """What comes before the pulses, and the segment of the pulses; a `ValueError` for what no surrogate learnt."""
    *before, last = sequence.segments
    unknown = [name for name in ("b0", "t2_prime", "diffusivity") if getattr(tissue, name) is not None]
    if unknown:
        raise ValueError(f"the RNN knows t1, t2, b1 and m0, not {', '.join(unknown)}; leave it out, or use EPGBloch")
    plain = all(
        not isinstance(segment.pulse, Pulse) and not any(event.samples for event in segment.events)
        for segment in before
    )
    pulse = last.pulse
    if not plain or not isinstance(pulse, Pulse) or len(sample_steps(last)) != 1 or abs(total_order(last)) != 1:
        raise ValueError(
            "the RNN learnt gradient-spoiled trains: one segment of pulses, one sample and one spoiler each, after "
            "inversions and rests; simulate other sequences with EPGBloch"
        )
    ((_, wound, receiver),) = sample_steps(last)
    phase_ndim = 0 if pulse.phase is None else pulse.phase.ndim
    if wound != 0 or phase_ndim or (receiver is not None and receiver.ndim) or pulse.quadrature:
        raise ValueError("the RNN learnt pulses of one phase, sampled before the spoiler; use EPGBloch for others")
    return tuple(before), last


def _require_pulse(sequence: Sequence) -> None:
    """A `ValueError` where the sequence has a pulse that the network has not seen; thickness does not matter."""
    trained = _signature(examples.pulse())
    for shape in sequence.shapes:
        found = _signature(shape)
        if found.shape != trained.shape or not np.allclose(found, trained, rtol=1e-3, atol=1e-3 * trained.max()):
            raise ValueError("the RNN was trained for a Gaussian of 1 ms and time-bandwidth 3; use EPGBloch for others")


def _signature(pulse: Waveform) -> Float[np.ndarray, "n"]:
    """What signals of a slice depend on: shape, duration in ms, and bandwidth times thickness."""
    parts = pulse.samples * pulse.duration, pulse.duration / ms, pulse.gradient * pulse.thickness * pulse.duration
    return np.concatenate([np.ravel(np.asarray(part)) for part in parts])


def _prepared(before: tuple[Segment, ...], sequence: Sequence, t1):
    """Longitudinal magnetisation of each voxel before the first pulse."""
    mz = jnp.ones_like(t1) * (1.0 if sequence.initial is None else sequence.initial[2])
    for segment in before:
        for _ in range(segment.repetitions):
            if isinstance(segment.pulse, Inversion):
                mz = -mz * (1.0 if segment.pulse.efficiency is None else segment.pulse.efficiency)
            mz = 1 + (mz - 1) * jnp.exp(-repetition_time(segment) / t1)
    return mz


def _played(segment: Segment, tissue: Tissue) -> Float[Array, "n 3 #voxels"]:
    """The scaled pulses: flips times the transmit field, which one voxel or all of them have."""
    each = lambda train: jnp.broadcast_to(train, segment.repetitions)[:, None]  # noqa: E731
    pulse: Any = segment.pulse
    flip = each(pulse.flip)
    ((te, _, _),) = sample_steps(segment)
    return scaled_pulses(
        each(repetition_time(segment)), each(te), flip if tissue.b1 is None else flip * tissue.b1[None]
    )


def _received(along: Float[Array, "n_echoes voxels"], sequence: Sequence) -> Complex[Array, "voxels n_echoes"]:
    """Signal along its axis, a quarter turn ahead of the pulses, as the receiver sees it."""
    segment = sequence.segments[-1]
    ((_, _, receiver),) = sample_steps(segment)
    pulse: Any = segment.pulse
    turn = (0.0 if pulse.phase is None else pulse.phase) - (0.0 if receiver is None else receiver)
    return (1j * jnp.exp(1j * jnp.asarray(turn, along.dtype)) * along).T


def _warn_outside(sequence: Sequence, tissue: Tissue) -> None:
    """Warn, once, of the first input that lies outside of what was trained."""
    _, segment = _train(sequence, tissue)
    ((te, _, _),) = sample_steps(segment)
    tr = repetition_time(segment)
    pulse: Any = segment.pulse
    b1 = np.ones(1) if tissue.b1 is None else np.asarray(tissue.b1)
    degrees = np.degrees(np.asarray(pulse.flip)) * b1.max()
    steepest = np.degrees(examples.trains.LARGEST) * examples.B1[1]
    checks = (
        ("t1", np.asarray(tissue.t1), examples.T1, "s"),
        ("t2", np.asarray(tissue.t2), examples.T2, "s"),
        ("tr", np.asarray(tr), examples.TR, "s"),
        ("te / tr", np.asarray(te / tr), examples.TE_PART, ""),
        ("flip times b1", degrees, (0.0, steepest), "degrees"),
    )
    for name, values, (least, most), unit in checks:
        slack = SLACK * most
        outside = (values < least - slack) | (values > most + slack)
        if outside.any():
            worst = values[outside].flat[0]
            warnings.warn(
                f"{name} = {worst:.4g} {unit} is outside of {least:g} ... {most:g} {unit}, for which the surrogate "
                "was trained: it extrapolates; use EPGBloch there",
                AccuracyWarning,
                skip_file_prefixes=OURS,
            )
            return
