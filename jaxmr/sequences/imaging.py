"""Scans that cover k-space: families of pulses with a readout for each. Radians, seconds, metres.

Other readouts (radial, spiral) go with the same families: `spgr(flip, tr, te, readout=readouts.radial(...))`.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import as_float, is_concrete, require_values
from jaxmr.sequences.families import SPOILER, fisp, inverted, spgr, tse
from jaxmr.sequences.readouts import cartesian
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence
from jaxmr.units import deg, us


def gre(
    flip: Any,
    tr: Any,
    te: Any,
    *,
    matrix: tuple[int, ...],
    fov: Any,
    rows: Any = None,
    n_dummies: int = 0,
    dwell: Any = 20 * us,
    rf_increment: Any = 117 * deg,
    **fisp_options: Any,
) -> Sequence:
    """RF- and gradient-spoiled gradient echo (FLASH) of an image `(y, x)` or `(z, y, x)`, a line a repetition.

    flip: rad, a scalar. matrix, fov, rows, dwell: as in `readouts.cartesian`. n_dummies: repetitions before the first
    line. rf_increment: rad, None for no RF spoiling. Other arguments as in `fisp`.
    """
    lines = cartesian(matrix, fov, rows, dwell)
    flips = jnp.full(n_dummies + lines.n_lines, as_float("flip", flip))
    if rf_increment is None:
        return fisp(flips, tr, te, readout=lines, **fisp_options)
    return spgr(flips, tr, te, rf_increment=rf_increment, readout=lines, **fisp_options)


def rare(
    flip: Any,
    esp: Any,
    tr: Any,
    *,
    matrix: tuple[int, ...],
    fov: Any,
    rows: Any = None,
    dwell: Any = 20 * us,
    **tse_options: Any,
) -> Sequence:
    """Turbo spin echo (RARE) of an image, one line an echo, as many shots as the rows need.

    flip: rad, refocusing flips of a shot, (n,). tr: from shot to shot, s. rows: as in `readouts.cartesian`, shot after
    shot; by default the shots interleave, each from the first rows to the last. Other arguments as in `tse`.
    """
    flips, spacing = as_float("flip", flip), as_float("esp", esp)
    n_lines = int(np.prod(matrix[:-1])) if rows is None else len(rows)
    n_shots, left = divmod(n_lines, flips.shape[0])
    if left:
        raise ValueError(
            f"{n_lines} lines are no whole number of shots of {flips.shape[0]} echoes; change flip or rows"
        )
    if rows is None:
        order = np.arange(n_lines).reshape(-1, n_shots).T.ravel()
        rows = np.stack(np.unravel_index(order, matrix[:-1]), axis=-1)
    rest = as_float("tr", tr) - (flips.shape[0] + 0.5) * spacing
    if is_concrete(rest) and rest < 0:
        raise ValueError(f"tr {float(tr):g} s is shorter than a shot of {flips.shape[0]} echoes; make it longer")
    lines = [cartesian(matrix, fov, shot, dwell) for shot in np.split(np.asarray(rows), n_shots)]
    shots = [tse(flips, spacing, readout=line, **tse_options) for line in lines]
    segments = [segment for shot in shots for segment in (*shot.segments, Segment(None, (Event(rest),)))]
    return Sequence(tuple(segments[:-1]), shots[0].shapes)


def epi(
    flip: Any,
    te: Any,
    *,
    matrix: tuple[int, int],
    fov: Any,
    dwell: Any = 4 * us,
    blip: Any = 200 * us,
    inversion_time: Any = None,
    inversion_efficiency: Any = None,
) -> Sequence:
    """Gradient-echo EPI of a slice `(y, x)`: one pulse, then all lines in a zig-zag; the centre is sampled at `te`.

    blip: time from line to line, s. inversion_time: s, from the inversion to the pulse; None for no inversion.
    """
    lines = cartesian(matrix, fov, dwell=dwell)
    n_rows, n = matrix
    step, blip = -lines.moment[0] / n, as_float("blip", blip)
    centre = (n_rows // 2) * (lines.time + blip) + jnp.where(n_rows // 2 % 2, n - n // 2, n // 2 + 1) * lines.time / n
    first = as_float("te", te) - centre
    if is_concrete(first) and first < 0:
        raise ValueError(f"te {float(te):g} s is shorter than the way to the centre of k-space, {float(centre):g} s")
    forward = jnp.where(jnp.arange(n_rows) % 2 == 0, 1.0, -1.0)[:, None]
    row = lines.before[0] - lines.before[1] if n_rows > 1 else jnp.zeros(3)
    # A line ends where the next one, run backwards, begins, one step further on.
    turn = -row[None] - forward * jnp.zeros((1, 3)).at[0, 0].set(step)
    played = (Event(lines.time, forward * lines.moment[None], samples=n), Event(blip, turn))
    excite = Segment(Pulse(as_float("flip", flip)), (Event(first, lines.before[0]),))
    before = inverted(inversion_time, inversion_efficiency)
    return Sequence((*before, excite, Segment(None, played, n_rows)))


def mprage(
    flip: Any,
    tr: Any,
    te: Any,
    inversion_time: Any,
    shot_time: Any,
    *,
    matrix: tuple[int, int, int],
    fov: Any,
    dwell: Any = 20 * us,
    rf_increment: Any = 117 * deg,
    spoiler: Any = SPOILER,
) -> Sequence:
    """Magnetisation-prepared gradient echo of a volume `(z, y, x)`: per row y an inversion, then a train over z.

    inversion_time: from the inversion to the middle line of the train, s. shot_time: from inversion to inversion, s.
    Mugler & Brookeman, MRM 15:152 (1990).
    """
    n_z, n_y, _ = matrix
    times = {name: as_float(name, value) for name, value in (("tr", tr), ("ti", inversion_time), ("shot", shot_time))}
    wait = times["ti"] - (n_z // 2) * times["tr"]
    rest = times["shot"] - wait - n_z * times["tr"]
    for name, left in (("inversion_time", wait), ("shot_time", rest)):
        if is_concrete(left):
            require_values(f"{name} less the train", left, f"{name} must hold {n_z} repetitions of tr", minimum=0)
    segments: tuple[Segment, ...] = ()
    for row in range(n_y):
        rows = np.stack([np.arange(n_z), np.full(n_z, row)], axis=-1)
        lines = cartesian(matrix, fov, rows, dwell)
        train = spgr(
            jnp.full(n_z, as_float("flip", flip)), times["tr"], te,
            rf_increment=rf_increment, readout=lines, spoiler=spoiler,
        )  # fmt: skip
        segments += (Segment(Inversion(), (Event(wait),)), *train.segments, Segment(None, (Event(rest),)))
    return Sequence(segments)
