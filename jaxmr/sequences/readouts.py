"""Readouts: how the lines of a scan cover k-space, apart from the sequence that makes the echo.

A family that is given a `Readout` plays one line after each of its pulses: prephase, sample, rewind. Moments in rad/m,
k = -moment, s = sum of m exp(-i k.r). All gradients are rewound, so that EPG models see one dephased order at most.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import as_float, require_values
from jaxmr.core.types import Array, Float
from jaxmr.encoding import trajectory
from jaxmr.sequences.sequence import Event
from jaxmr.units import us


class Readout(eqx.Module):
    """Lines of a scan.

    before, after: moments wound before and after each line, (n, 3). moment: wound while it is sampled, (3,) or (n, 3).
    path: until each sample, where the gradient is not constant. time: of the sampling, s. echo: from its begin until
    the sample at the centre of k-space, s. samples: of a line.
    """

    before: Float[Array, "n 3"]
    moment: Float[Array, "3"] | Float[Array, "n 3"]
    after: Float[Array, "n 3"]
    time: Float[Array, ""]
    echo: Float[Array, ""]
    path: Float[Array, "n samples 3"] | None = None
    samples: int = eqx.field(static=True, default=1)

    @property
    def n_lines(self) -> int:
        """Number of lines."""
        return self.before.shape[0]

    def prephaser(self, time: Any) -> Event:
        """What comes before the samples."""
        return Event(time, self.before)

    def sampling(self, receiver_phase: Any = None) -> Event:
        """The samples of a line."""
        return Event(self.time, self.moment, receiver_phase, samples=self.samples, path=self.path)

    def rewinder(self, time: Any) -> Event:
        """What comes after them."""
        return Event(time, self.after)


def cartesian(matrix: tuple[int, ...], fov: Any, rows: Any = None, dwell: Any = 20 * us) -> Readout:
    """Lines along x of an image of shape `matrix` (y, x) or (z, y, x).

    fov: m, one number or (x, y[, z]). rows: which line is taken when, row numbers (n,) of a slice, (n, 2) as (z, y) of
    a volume; in order from the first if None. Sample i of a line lies at (i - N // 2) 2 pi / fov.
    Raises `ValueError` for a matrix or rows that do not fit.
    """
    if len(matrix) not in (2, 3) or min(matrix) < 1:
        raise ValueError(f"matrix must be (y, x) or (z, y, x), positive numbers of voxels, got {matrix}")
    step = 2 * jnp.pi / _extent("fov", fov, len(matrix))
    phases = matrix[:-1]
    if rows is None:
        rows = np.stack(np.unravel_index(np.arange(np.prod(phases)), phases), axis=-1)
    taken = np.asarray(rows).reshape(len(rows), -1)
    if taken.shape[1] != len(phases) or (taken < 0).any() or (taken >= np.array(phases)).any():
        raise ValueError(f"rows must be row numbers (n,) below {phases}, or (n, 2) for a volume, got {rows!r}")
    n = matrix[-1]
    lines = jnp.zeros((len(taken), 3)).at[:, 0].set(-(n // 2 + 1) * step[0])
    for axis in range(len(phases)):
        # Axes of the image are (z, y), those of k (y, z).
        centred = taken[:, -1 - axis] - phases[-1 - axis] // 2
        lines = lines.at[:, 1 + axis].set(centred * step[1 + axis])
    moment = jnp.zeros(3).at[0].set(-n * step[0])
    return _readout(lines, moment, None, n, as_float("dwell", dwell), n // 2 + 1)


def radial(
    n_spokes: int, n_samples: int, voxel_size: Any, angle: float = trajectory.GOLDEN_ANGLE, dwell: Any = 10 * us
) -> Readout:
    """Spokes through the centre of k-space as `encoding.trajectory.radial` lays them out."""
    k = jnp.asarray(trajectory.radial(n_spokes, n_samples, voxel_size, angle))
    step = (k[:, -1] - k[:, 0]) / (n_samples - 1)
    along = lambda values: jnp.pad(values, ((0, 0), (0, 1)))  # noqa: E731
    first = along(k[:, 0] - step)
    return _readout(first, -n_samples * along(step), None, n_samples, as_float("dwell", dwell), n_samples // 2 + 1)


def along_path(k: Any, dwell: Any) -> Readout:
    """Lines of any shape that begin at the centre of k-space, such as spirals: k (n, samples, 2 or 3), rad/m."""
    points = as_float("k", k)
    if points.ndim != 3 or points.shape[-1] not in (2, 3):
        raise ValueError(f"k must have shape (lines, samples, 2 or 3), got {points.shape}")
    points = jnp.pad(points, ((0, 0), (0, 0), (0, 3 - points.shape[-1])))
    start = jnp.zeros((points.shape[0], 3))
    return _readout(start, -points[:, -1], -points, points.shape[1], as_float("dwell", dwell), 0)


def _readout(first, moment, path, n: int, dwell, echo: int) -> Readout:
    require_values("dwell", dwell, "it is the time of a sample in seconds", positive=True)
    before = -first
    return Readout(before, moment, -(before + jnp.broadcast_to(moment, before.shape)), n * dwell, echo * dwell, path, n)


def _extent(name: str, value: Any, n_axes: int) -> Array:
    extent = as_float(name, value)
    if extent.ndim and extent.shape != (n_axes,):
        raise ValueError(f"{name} must be one number or {n_axes} of them, m, got shape {extent.shape}")
    require_values(name, extent, "it is in metres", positive=True)
    return jnp.broadcast_to(extent, (n_axes,))
