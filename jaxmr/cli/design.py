"""`jaxmr design`: the train of flips that determines given tissues best, from constraints to a schedule file."""

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmr as mr
from jaxmr.cli import options as shared
from jaxmr.cli import summary
from jaxmr.core.files import whole
from jaxmr.design import DifferentialEvolution, MultiStart, constraints, distributions, objectives, parametrisations
from jaxmr.design.trapezoid import fit_trapezoid
from jaxmr.models import Model
from jaxmr.plot import design_figure
from jaxmr.sequences import Sequence, fisp, trains
from jaxmr.units import deg, ms

SMALLEST = 1 * deg
"""First value of a free flip, so that it is no silent pulse."""
OVERSHOOT = 10.0
"""Factor of the loss by which it grows with a spline's squared excess over the limits."""


class Problem(NamedTuple):
    """What is sought: a map from the numbers to flips, their first values and bounds, rad, and `excess` of a spline."""

    train: parametrisations.Map
    start: np.ndarray
    bounds: tuple[float, float]
    excess: Any


def run(options: Any) -> None:
    shared.use_cores()
    out = Path(options.out)
    scan = _start(options)
    known = _tissues(options)
    problem = _problem(options, scan)
    timing = {"tr": scan.tr, "te": scan.te, "inversion_time": scan.inversion_time}
    build = parametrisations.composed(fisp, {"flip": problem.train}, **timing)
    model = _model(options, build, scan, known, problem)
    weights: dict[str, float] = dict(options.weights or [("t1", 1.0), ("t2", 1.0)])
    judge = objectives.worst_case if options.objective == "worst" else objectives.weighted_trace

    def bounds_of(sequence: Sequence):
        return judge(sequence, known, model, weights=weights)

    def loss(sequence: Sequence, parameters: Any):
        found = bounds_of(sequence) * (1 + OVERSHOOT * problem.excess(parameters["flip"]))
        return found + options.smoothness * constraints.roughness(sequence) if options.smoothness else found

    evolving = options.solver == "differential-evolution"
    solver = (
        DifferentialEvolution(options.members, options.seed)
        if evolving
        else MultiStart(options.starts, max(128, options.starts), options.seed, kept=max(options.starts // 2, 1))
    )
    started = time.perf_counter()
    best = mr.design.optimise(
        build, loss, {"flip": problem.start}, bounds={"flip": problem.bounds}, solver=solver,
        steps=options.steps or (1000 if evolving else 200), tolerance=2e-3 if evolving else 2e-4,
        devices=jax.devices(), checkpoint=out / "search.npz", progress=options.progress,
    )  # fmt: skip
    seconds = {"search": time.perf_counter() - started}
    flips = np.asarray(problem.train(best.parameters["flip"]))
    before, after = scan.sequence, best.sequence
    _write(out, flips, scan)
    bars = {name: _bars(sequence, known, model, weights) for name, sequence in (("before", before), ("after", after))}
    figure = design_figure({"before": scan.flip, "after": flips}, {"after": best.history.loss}, bars)
    with whole(out / "design.png") as partial:
        figure.savefig(partial, dpi=150)
    found = {
        "objective_before": float(bounds_of(before)),
        "objective": float(bounds_of(after)),
        "trapezoid": fit_trapezoid(flips).correlation if np.ptp(flips) > 0 else 0.0,
        "largest_flip_deg": float(flips.max() / deg),
        "rms_flip_deg": float(np.sqrt(np.mean(flips**2)) / deg),
        "seconds_of_scan": float(mr.sequences.duration(after)),
    }
    ran = {
        "scan": shared.describe_scan(scan._replace(flip=flips, source=options.schedule or "constant flips before")),
        "tissues": f"{np.prod(known.shape)}: {_told(options)}",
        "model": shared.describe_model(options),
        "search": f"{options.solver}, {len(best.history.loss)} steps, ended by {best.reason}",
        "objective": f"{options.objective}, {found['objective_before']:.4g} before, {found['objective']:.4g} after",
        "flips": f"{flips.min() / deg:.3g} ... {flips.max() / deg:.3g} degrees, rms {found['rms_flip_deg']:.3g}",
    }
    facts = {"found": found, "relative_std": bars, "loss": best.history.loss.tolist(), "reason": best.reason}
    report = summary.report("design", ran=ran, seconds=seconds, **facts)
    summary.write(out / "summary.json", report)
    print(summary.text(report))
    print(f"\nwritten to {out}: train.csv, design.png, summary.json; search.npz to go on (with more --steps)")


def _start(options: Any) -> shared.Scan:
    """The scan before: `--schedule`, or constant flips of a third of the largest."""
    inversion_time = None if options.inversion_time is None else options.inversion_time * ms
    if options.max_flip <= 0:
        raise ValueError(f"--max-flip must be a positive angle in degrees, got {options.max_flip:g}")
    if options.schedule is None:
        if options.tr is None or options.te is None or options.pulses is None:
            raise ValueError("design needs --pulses, --tr and --te, or a --schedule to improve")
        flips = np.full(options.pulses, options.max_flip * deg / 3)
        tr, te = np.asarray(options.tr * ms), np.asarray(options.te * ms)
        return shared.Scan(fisp(flips, tr, te, inversion_time), flips, tr, te, inversion_time, "constant")
    if options.pulses is not None:
        raise ValueError("--pulses is for designs without --schedule, which has its own; leave it out")
    return shared.scan(options)


def _tissues(options: Any) -> mr.Tissue:
    """`--tissues`, at the transmit fields of `--b1`."""
    t1, t2 = np.array(options.tissues, float).T * ms
    known = mr.Tissue(t1=jnp.asarray(t1, float), t2=jnp.asarray(t2, float))
    if options.b1 is None:
        return known
    low, high, count = options.b1
    return distributions.over_b1(known, low, high, int(count))


def _problem(options: Any, scan: shared.Scan) -> Problem:
    n, largest = scan.flip.size, options.max_flip * deg
    points = n if options.train == "free" else options.points
    if not 2 <= points <= n or (options.train == "b-spline" and points < 4):
        raise ValueError(f"--points must be 2 (b-spline: 4) ... {n} for a train of {n} pulses, got {points}")
    inside = np.clip(scan.flip, 0, largest)
    # A first train through values of the one before.
    places = np.arange(1, points + 1) * n // points - 1 if options.train == "spline" else np.linspace(0, n - 1, points)
    start = np.maximum(np.interp(places, np.arange(n), inside), min(SMALLEST, largest))
    excess = lambda numbers: jnp.zeros((), numbers.dtype)  # noqa: E731
    if options.train == "spline":
        train = parametrisations.spline_within(n, 0.0, largest)
        excess = lambda numbers: constraints.outside(trains.spline(numbers, n), 0.0, largest)  # noqa: E731
    else:
        train = parametrisations.b_spline(n) if options.train == "b-spline" else lambda numbers: numbers
    if options.rms_flip is not None:
        train = parametrisations.limited_energy(n * (options.rms_flip * deg) ** 2, train)
    return Problem(train, start, (0.0, largest), excess)


def _model(options: Any, build: Any, scan: shared.Scan, known: mr.Tissue, problem: Problem) -> Model:
    """The model planned for the first train and for one that ramps up to the largest flips: the more orders of both."""
    largest = problem.bounds[1]
    plans = [
        mr.plan(fisp(flips, scan.tr, scan.te, scan.inversion_time), known, shared.model(options))
        for flips in (scan.flip, np.linspace(0, largest, scan.flip.size))
    ]
    chosen: Any = max(plans, key=lambda plan: (plan.orders or scan.flip.size, getattr(plan, "n_z", 0) or 0))
    if isinstance(chosen, mr.EPGBloch):
        highest = fisp(np.full(scan.flip.size, largest), scan.tr, scan.te, scan.inversion_time)
        return dataclasses.replace(chosen, tables=None).tabulated(highest, known)
    return chosen


def _write(out: Path, flips: np.ndarray, scan: shared.Scan) -> None:
    """A file that `--schedule` reads: flip in degrees, TR and TE in ms."""
    with whole(out / "train.csv") as partial:
        columns = shared.schedule_columns(scan._replace(flip=flips))
        np.savetxt(partial, columns, "%.6g", ",", header="flip,tr,te", comments="")


def _bars(sequence: Sequence, known: mr.Tissue, model: Model, weights: dict[str, float]) -> dict[str, float]:
    """Of each parameter and tissue the least relative standard deviation, the mean over transmit fields."""
    names = tuple(dict.fromkeys(("m0", *weights)))
    variances = np.asarray(mr.design.crlb(sequence, known, names, model))
    told = {}
    for name in weights:
        value = {"m0": 1.0, "b1": 1.0}.get(name, getattr(known, name, 1.0))
        relative = np.sqrt(variances[..., names.index(name)]) / np.asarray(value)
        relative = relative if relative.ndim == 1 else relative.mean(axis=-1)
        for i, each in enumerate(relative):
            told[f"{name.upper()}\ntissue {i + 1}"] = float(each)
    return told


def _told(options: Any) -> str:
    told = ", ".join(f"T1/T2 {t1:g}/{t2:g} ms" for t1, t2 in options.tissues)
    return told if options.b1 is None else f"{told}, B1 {options.b1[0]:g} ... {options.b1[1]:g}"
