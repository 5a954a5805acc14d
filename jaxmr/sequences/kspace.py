"""Where in k-space the samples of a sequence lie, and when they are taken.

Both are sums over events: of moments, which pulses keep, turn about or end, and of times, which they keep. On numbers
they are added up by NumPy, because there compilation would take longer than all else.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import is_concrete
from jaxmr.core.types import Array, Float
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence
from jaxmr.sequences.timeline import Run, event_runs, over_periods, over_run


def trajectory(sequence: Sequence) -> Float[Array, "samples 3"]:
    """k of every sample, rad/m: minus the moment since the last excitation, turned about at refocusing pulses.

    What a pulse does is its `use`. Differentiable.
    """
    return -_at_samples(_moment, _kept_moment, 3, sequence)


def sample_times(sequence: Sequence) -> Float[Array, "samples"]:
    """Time of every sample since the first pulse, s. Differentiable."""
    return _at_samples(_time, _kept_time, 1, sequence)[:, 0]


def _moment(event: Event, xp: ModuleType) -> tuple[Any, Any]:
    """Moment that an event adds, and that until each of its samples where it does not grow steadily."""
    return xp.zeros(3) if event.moment is None else event.moment, event.path


def _kept_moment(pulse: Pulse | Inversion | None) -> int:
    """What a pulse leaves of the moment before it: nothing, its opposite (-1), or all (1)."""
    if isinstance(pulse, Inversion):
        return 0
    return 1 if pulse is None else {"excitation": 0, "refocusing": -1}.get(pulse.use, 1)


def _time(event: Event, xp: ModuleType) -> tuple[Any, None]:
    """Time that an event adds, as `_moment`."""
    return event.duration[..., None], None


def _kept_time(pulse: Pulse | Inversion | None) -> int:
    """All of it."""
    return 1


def _at_samples(added: Callable, kept: Callable, n_axes: int, sequence: Sequence) -> Float[Array, "samples n_axes"]:
    """Sums at all samples of what each event adds and each pulse keeps."""
    if sequence.n_echoes == 0:
        return jnp.zeros((0, n_axes))
    if not is_concrete(sequence):
        return _traced(added, kept, n_axes, sequence)
    segments = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), list(sequence.segments))
    follow = lambda total, segment: _follow(added, kept(segment.pulse), total, segment, np)  # noqa: E731
    _, samples = over_run(follow, np.zeros(n_axes), Run(segments, 1))
    return jnp.asarray(np.concatenate(samples, axis=1).T)


@eqx.filter_jit
def _traced(added: Callable, kept: Callable, n_axes: int, sequence: Sequence) -> Float[Array, "samples n_axes"]:
    follow = lambda total, segment: _follow(added, kept(segment.pulse), total, segment, jnp)  # noqa: E731
    return over_periods(follow, jnp.zeros(n_axes), list(sequence.segments)).T


def _follow(added: Callable, kept: int, total: Any, segment: Segment, xp: ModuleType) -> tuple[Any, Any]:
    """Total after all repetitions of a segment, and at its samples (axes, n), if it takes any."""
    n, n_axes = segment.repetitions, len(total)

    def play(since, event):
        change, path = added(event, xp)
        after = since + xp.broadcast_to(change, since.shape)
        if event.samples == 0:
            return after, None
        if path is None:
            path = change[..., None, :] * np.arange(1, event.samples + 1)[:, None] / event.samples
        seen = since[:, None] + xp.broadcast_to(path, (n, event.samples, n_axes))
        return after, xp.moveaxis(seen, 2, 1).reshape(n * n_axes, -1)

    since, taken = xp.zeros((n, n_axes)), []
    for run in [Run(list(segment.events), 1)] if xp is np else event_runs(segment):
        since, samples = over_run(play, since, run)
        taken += samples
    begins = _begins(total, since, kept, xp)
    total = begins[-1] + since[-1]
    if not taken:
        return total, None
    samples = xp.concatenate(taken, axis=1).reshape(n, n_axes, -1) + begins[..., None]
    return total, xp.moveaxis(samples, 1, 0).reshape(n_axes, -1)


def _begins(total: Any, changes: Any, kept: int, xp: ModuleType) -> Any:
    """Total behind the pulse of every repetition, (n, axes), where each adds a row of `changes`."""
    if kept == 0:
        return xp.zeros_like(changes)
    # In a frame that turns about with the pulses, changes add up.
    turns = np.where(np.arange(len(changes)) % 2, kept, 1)[:, None]
    return turns * xp.cumsum(xp.concatenate([kept * total[None], (turns * changes)[:-1]]), axis=0)
