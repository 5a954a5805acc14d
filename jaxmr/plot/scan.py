"""A scan at a glance: what is played, where k-space is sampled, and the image that comes of it.

Times run from RF centre to RF centre, as in a `Sequence`; gradients are the mean over each event (or over each step
of a readout with a path), so ramps and the slice gradient under a shaped pulse do not show. k = -moment in rad/m.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmr.core.types import Array, Shaped
from jaxmr.sequences.sequence import Event, Inversion, Pulse, Segment, Sequence
from jaxmr.units import GAMMA, deg, mm, ms, mT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = Shaped[Array, "y x"] | Any

_MOST_STRETCHES = 500  # of the diagram: an EPI shot is shown whole, a scan without pulses is not
_MOST_POINTS = 50_000  # of k-space: more cannot be told apart
_COLOURS = {"RF": "tab:red", "Gx": "tab:blue", "Gy": "tab:green", "Gz": "tab:purple", "ADC": "0.25"}


class _Turn(NamedTuple):
    """A pulse or an inversion at a time: flip and phase in degrees, and its envelope, over times from its centre."""

    time: float
    flip: float
    phase: float
    name: str
    envelope: tuple[np.ndarray, np.ndarray] | None


class _Stretch(NamedTuple):
    """An event as played: times (steps + 1,), s, and k at them (steps + 1, 3); with samples each step ends in one."""

    times: np.ndarray
    k: np.ndarray
    samples: int


def scan_figure(
    sequence: Sequence,
    images: Mapping[str, Image] | None = None,
    *,
    voxel_size: tuple[float, float] | None = None,
    n_pulses: int = 3,
    phase: bool = False,
) -> "Figure":
    """The sequence diagram until `n_pulses` pulses have been played, all of k-space, and images.

    images: by their title, `(y, x)`, shown as magnitude with the first row on top; with `phase` the phase of complex
    ones beside it. voxel_size: (dx, dy), m, for axes in mm. k-space is the plane of kx and ky, samples coloured
    by time, what the diagram shows as a line. Raises `ValueError` for other shapes or a sequence without events.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = {name: np.asarray(image) for name, image in (images or {}).items()}
    for name, image in shown.items():
        if image.ndim != 2:
            raise ValueError(f"image {name} must have shape (y, x), got {image.shape}; of a volume pass one slice")
    if n_pulses < 1:
        raise ValueError(f"n_pulses must be at least 1, got {n_pulses}")
    played = list(_play(sequence))
    if not any(isinstance(part, _Stretch) for part in played):
        raise ValueError("the sequence has no events: there is nothing to draw")
    beginning = _beginning(played, n_pulses)

    n_panels = 1 + sum(1 + (phase and np.iscomplexobj(image)) for image in shown.values())
    figure = Figure(figsize=(max(9.0, 4.3 * n_panels), 8.2), layout=ConstrainedLayoutEngine(w_pad=0.12))
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    above, below = halves
    _draw_diagram(above.subplots(5, 1, sharex=True, gridspec_kw={"height_ratios": (1.5, 1, 1, 1, 0.5)}), beginning)
    pulses, drawn = (sum(isinstance(part, _Turn) for part in parts) for parts in (played, beginning))
    above.suptitle(f"{'first ' if drawn < pulses else ''}{drawn} of {pulses} RF pulses", fontsize="medium")
    panels = iter(below.subplots(1, n_panels, squeeze=False)[0])
    _draw_kspace(next(panels), played, beginning)
    for name, image in shown.items():
        _draw_image(next(panels), np.abs(image), voxel_size, title=name, label="magnitude (a.u.)", colours="gray")
        if phase and np.iscomplexobj(image):
            turned = np.angle(image)
            _draw_image(next(panels), turned, voxel_size, title=name, label="phase (rad)", colours="twilight")
    return figure


def _play(sequence: Sequence) -> Iterator[_Turn | _Stretch]:
    """Everything in the order of time, numbers of every repetition filled in."""
    time, k = 0.0, np.zeros(3)
    for segment in sequence.segments:
        turns = _turns(segment, sequence)
        events = [_filled(event, segment.repetitions) for event in segment.events]
        for i in range(segment.repetitions):
            if turns is not None:
                yield turns[i]._replace(time=time)
                k = {"excitation": 0.0, "refocusing": -1.0}.get(getattr(segment.pulse, "use", ""), 1.0) * k
            for durations, moments, samples in events:
                steps = np.concatenate([np.zeros((1, 3)), moments[i]])
                times = time + durations[i] * np.linspace(0, 1, len(steps))
                yield _Stretch(times, k - steps, samples)
                time, k = times[-1], k - steps[-1]


def _turns(segment: Segment, sequence: Sequence) -> list[_Turn] | None:
    """The pulses of a segment, their times still open."""
    n, pulse = segment.repetitions, segment.pulse
    if isinstance(pulse, Inversion):
        return [_Turn(0.0, 180.0, 0.0, "inversion", None)] * n
    if not isinstance(pulse, Pulse):
        return None
    flip = np.broadcast_to(np.asarray(pulse.flip) / deg, n)
    phase = np.broadcast_to(0 if pulse.phase is None else np.asarray(pulse.phase) / deg, n) + 90 * pulse.quadrature
    envelope = None
    if pulse.shape is not None:
        shape = sequence.shapes[pulse.shape]
        samples = np.asarray(shape.samples)
        height = np.abs(samples) if np.iscomplexobj(samples) else samples
        begin, dwell = -float(shape.centre), float(shape.dwell)
        envelope = begin + dwell * (np.arange(len(height)) + 0.5), height / np.abs(height).max()
    return [_Turn(0.0, float(a), float(p) % 360, "", envelope) for a, p in zip(flip, phase, strict=True)]


def _filled(event: Event, n: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Durations (n,), moments wound at the end of each step (n, steps, 3), and samples of an event."""
    steps = max(event.samples, 1)
    if event.path is not None:
        moments = np.asarray(event.path, float)
    else:
        whole = np.zeros(3) if event.moment is None else np.asarray(event.moment, float)
        moments = whole[..., None, :] * (np.arange(1, steps + 1) / steps)[:, None]
    return np.broadcast_to(np.asarray(event.duration, float), n), np.broadcast_to(moments, (n, steps, 3)), event.samples


def _beginning(played, n_pulses):
    """The parts before pulse `n_pulses` + 1, and not too many."""
    parts, pulses = [], 0
    for part in played:
        pulses += isinstance(part, _Turn)
        if pulses > n_pulses or len(parts) >= _MOST_STRETCHES + n_pulses:
            break
        parts.append(part)
    return parts


def _draw_diagram(rows, parts) -> None:
    turns = [part for part in parts if isinstance(part, _Turn)]
    stretches = [part for part in parts if isinstance(part, _Stretch)]
    for axis, name in zip(rows, _COLOURS, strict=True):
        unit = {"RF": "\n(deg)", "ADC": ""}.get(name, "\n(mT/m)")
        axis.set_ylabel(name + unit, rotation=0, ha="right", va="center", multialignment="center")
        axis.yaxis.set_label_coords(-0.065, 0.5)
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(bottom=False)
    _draw_pulses(rows[0], turns)
    for column in range(3):
        _draw_gradient(rows[1 + column], stretches, column, tuple(_COLOURS.values())[1 + column])
    sampled = [part.times[1:] / ms for part in stretches if part.samples]
    rows[4].vlines(np.concatenate([*sampled, []]), 0, 1, color=_COLOURS["ADC"], linewidth=0.7)
    rows[4].set(yticks=[], ylim=(0, 1.2), xlabel="time (ms)")
    rows[4].tick_params(bottom=True)
    edges = [stretches[0].times[0], stretches[-1].times[-1]]
    edges += [turn.time + end for turn in turns if turn.envelope for end in turn.envelope[0][[0, -1]]]
    first, last = min(edges) / ms, max(edges) / ms
    margin = 0.02 * (last - first) or 1.0
    rows[4].set_xlim(first - margin, last + margin)


def _draw_pulses(axis: "Axes", turns: list[_Turn]) -> None:
    phased = any(turn.phase for turn in turns)
    low, high = 0.0, 0.0
    for i, turn in enumerate(turns):
        at, heights = turn.time / ms, np.array([turn.flip])
        if turn.envelope is None:
            axis.vlines(at, 0, turn.flip, color=_COLOURS["RF"], linewidth=2)
        else:
            heights = turn.flip * turn.envelope[1]
            axis.fill_between((turn.time + turn.envelope[0]) / ms, 0, heights, color=_COLOURS["RF"], alpha=0.7)
        low, high = min(low, heights.min()), max(high, heights.max())
        if i % -(-len(turns) // 8):  # more labels than eight would run into each other
            continue
        flip, phase = f"{round(turn.flip, 1):g}°", f", phase {round(turn.phase, 1):g}°" if phased else ""
        label = turn.name or flip + phase
        axis.annotate(
            label, (at, max(turn.flip, 0)), (3, 3), textcoords="offset points", fontsize="small", color=_COLOURS["RF"]
        )
    reach = (high - low) or 1.0
    axis.set_ylim(low - 0.1 * reach, high + 0.4 * reach)


def _draw_gradient(axis: "Axes", stretches: list[_Stretch], column: int, colour: str) -> None:
    """Mean gradient of each step; a moment that takes no time is an arrow with its value."""
    times, values, kicks = [], [], []
    for part in stretches:
        moment, steps = -np.diff(part.k[:, column]), np.diff(part.times)
        if steps.any():
            times.append(np.repeat(part.times, 2)[1:-1])
            values.append(np.repeat(moment / steps / (GAMMA * mT), 2))
        elif moment.any():
            kicks.append((part.times[0] / ms, moment.sum()))
    height = np.concatenate([*values, [0.0]])
    reach = np.abs(height).max() or 1.0
    if times:
        axis.fill_between(np.concatenate(times) / ms, 0, height[:-1], color=colour, alpha=0.5, linewidth=0)
        axis.plot(np.concatenate(times) / ms, height[:-1], color=colour, linewidth=0.8)
    for time, moment in kicks:
        arrow = {"arrowstyle": "-|>", "color": colour}
        axis.annotate("", (time, np.sign(moment) * reach), (time, 0), arrowprops=arrow)
        axis.annotate(
            f"{moment:.3g} rad/m", (time, np.sign(moment) * reach * 0.7), (4, 0), textcoords="offset points",
            va="center", fontsize="x-small", color=colour,
        )  # fmt: skip
    axis.set_ylim(-1.25 * reach, 1.25 * reach)
    if not height.any():
        axis.set_yticks([0])


def _draw_kspace(axis: "Axes", played, beginning) -> None:
    axis.set(title="k-space", xlabel="$k_x$ (rad/m)", ylabel="$k_y$ (rad/m)")
    axis.set_aspect("equal")
    axis.locator_params(nbins=5)
    line = []  # broken at every excitation, where k jumps
    for part in beginning:
        line.append(part.k[:, :2] if isinstance(part, _Stretch) else np.full((1, 2), np.nan))
    axis.plot(*np.concatenate(line).T, color="0.6", linewidth=0.8, zorder=1)
    sampled = [part for part in played if isinstance(part, _Stretch) and part.samples]
    if not sampled:
        return
    k = np.concatenate([part.k[1:, :2] for part in sampled])
    times = np.concatenate([part.times[1:] for part in sampled])
    every = slice(None, None, -(-len(k) // _MOST_POINTS))
    unit, name = (ms, "ms") if times[-1] < 10 else (1.0, "s")
    size = float(np.clip(4000 / len(k[every]), 0.5, 12))
    points = axis.scatter(*k[every].T, s=size, c=times[every] / unit, cmap="viridis", zorder=2, linewidths=0)
    _colour_bar(points, f"time of sample ({name})")


def _draw_image(axis: "Axes", image, voxel_size, *, title: str, label: str, colours: str) -> None:
    n_y, n_x = image.shape
    extent, unit = (-0.5, n_x - 0.5, n_y - 0.5, -0.5), "pixel"
    if voxel_size is not None:
        dx, dy = voxel_size[0] / mm, voxel_size[1] / mm
        left, top = (-(n_x // 2) - 0.5) * dx, (-(n_y // 2) - 0.5) * dy
        extent, unit = (left, left + n_x * dx, top + n_y * dy, top), "mm"
    low, high = (-np.pi, np.pi) if colours == "twilight" else (0, np.nanmax(image) or 1)
    drawn = axis.imshow(image, colours, vmin=low, vmax=high, extent=extent, interpolation="nearest")
    axis.set(title=title, xlabel=f"x ({unit})", ylabel=f"y ({unit})")
    _colour_bar(drawn, label)


def _colour_bar(drawn, label: str) -> None:
    """As tall as the panel, which a bar beside axes of fixed aspect is not."""
    bar = drawn.axes.inset_axes((1.04, 0.0, 0.05, 1.0))
    drawn.axes.figure.colorbar(drawn, cax=bar, label=label)
