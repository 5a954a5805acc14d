"""Claim: by EPG-Bloch a gradient finds the Cramér-Rao design of the paper, or a better one, in a tenth of the time.

Liu et al., NMR Biomed 2021, section 3.3.2 and figure 9: 336 flips, a cubic spline through 11 control points and (0, 0),
0 ... 90 degrees, TE/TR 4.9/8.7 ms, inverted just before; tissues of T1/T2 900/85 and 500/65 ms; 20 orders; EPG, and
EPG-Bloch with a Gaussian pulse of 1 ms and 3 mm at 32 positions. The least mean over the tissues of the bounds of T1
and T2, M0 unknown, each relative to its square, at a noise of 1 of the real and the imaginary part. Differential
evolution as in the paper (10 members per parameter, tolerance 0.002, at most 1000 generations) against descent from
six starts, of which two go on after 16 rounds; for EPG-Bloch on 12 positions and 10 orders, then from the best on all.
Both have the same loss: the bounds, times 1 + 10 times the spline's squared excess over the limits; the train is
clipped to them.
Seconds are those of compiled programs; first: those of a run of 20 steps, which compiles; reached: those of a descent
that ends where its loss is first as low as evolution's from the same seed.

The original train is that of the paper's figure 4, 336 of 1120 pulses of five sine-squared lobes. The paper does not
print their peaks: `ORIGINAL` are ours, and the best peaks there are stand beside it.

    uv run benchmarks/design.py
    uv run benchmarks/design.py --only epg
"""

import argparse
import contextlib
import statistics
import time
import warnings
from typing import Any

import numpy as np

import jaxmr as mr
from jaxmr.units import deg, mm, ms
from reporting import RESULTS, save

N, POINTS, LARGEST = 336, 11, 90 * deg
TR, TE = 8.7 * ms, 4.9 * ms
COARSE, FINE = (12, 10), (32, 20)
T1, T2 = (0.9, 0.5), (0.085, 0.065)
WEIGHT = 10.0
N_ORIGINAL, ORIGINAL = 1120, np.array([60.0, 60.0, 60.0, 60.0, 60.0])
GENERATIONS, TOLERANCE = 1000, 0.002
STARTS, DRAWN, KEPT, ROUNDS, FALL, PATIENCE = 6, 128, 2, 200, 5e-4, 8
SEEDS = (0, 1, 2)
COLUMNS = {
    "seconds": ("seconds", 9), "reached": ("reached", 9), "cpu_seconds": ("cpu s", 8), "first": ("first s", 9),
    "steps": ("steps", 7), "values": ("values", 8), "gradients": ("gradients", 11), "trapezoid": ("trapezoid", 11),
    "inverted_trapezoid": ("inverted", 10),
}  # fmt: skip


def fisp(flips):
    return mr.sequences.fisp(flips, TR, TE, 0.0)


def tissue():
    return mr.Tissue(t1=np.float32(T1), t2=np.float32(T2))


def models() -> dict[str, tuple[Any, ...]]:
    """By name, with the tables of their pulses, the one that counts last."""
    pulse = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)
    largest = fisp(np.full(N, LARGEST, np.float32))
    coarse, fine = (mr.EPGBloch(pulse=pulse, n_z=n, orders=k).tabulated(largest, tissue()) for n, k in (COARSE, FINE))
    return {"epg": (mr.EPG(orders=FINE[1]),), "epg-bloch": (coarse, fine)}


def original() -> np.ndarray:
    """First pulses of the sine-squared train, rad."""
    return np.asarray(mr.sequences.trains.sin_squared(ORIGINAL * deg, N_ORIGINAL))[:N]


def population_of(model, together: int = 1):
    """Losses of control points within 0 ... 90 degrees, and the map from them to flips.

    together: members that a core simulates side by side.
    """
    import jax
    import jax.numpy as jnp

    from jaxmr.design.population import populate

    known, train = tissue(), mr.design.parametrisations.spline_within(N, 0.0, LARGEST)

    def objective(parameters, model):
        bounds = mr.design.objectives.weighted_trace(fisp(train(parameters)), known, model)
        plain = mr.sequences.trains.spline(parameters, N)
        return bounds * (1 + WEIGHT * mr.design.constraints.outside(plain, 0.0, LARGEST))

    start = jnp.full(POINTS, LARGEST / 3, jnp.float32)
    bounds = jnp.zeros_like(start), jnp.full_like(start, LARGEST)
    return populate(objective, start, bounds, model, jax.devices(), together)


def evolved(populations, seed: int, steps: int, bar):
    """Differential evolution with the last, full model; the numbers of values and gradients."""
    from jaxmr.design.evolution import DifferentialEvolution, evolve

    found = evolve(populations[-1], DifferentialEvolution(10, seed), steps, TOLERANCE, None, bar)
    return found, len(found.history.loss) * 10 * POINTS, 0


def descended(populations, seed: int, steps: int, bar):
    """Descent from several starts with the first model, from the best of them with another, in so many steps."""
    from jaxmr.design.multistart import HEAT, MultiStart, descend

    solver, gradients = MultiStart(STARTS, DRAWN, seed, KEPT), 0
    for i, population in enumerate(populations):
        last = i + 1 == len(populations)
        found = descend(population, solver, steps if last else ROUNDS, FALL, PATIENCE, None, bar)
        n = len(found.history.loss)
        gradients += solver.starts * min(n, HEAT) + min(solver.kept, solver.starts) * max(n - HEAT, 0)
        solver = MultiStart(1)
        if not last:
            populations[i + 1] = populations[i + 1]._replace(start=found.numbers)
    return found, DRAWN, gradients


def searched(
    name: str,
    models: tuple[Any, ...],
    progress: bool,
    targets: tuple = (np.inf,) * len(SEEDS),
    *,
    judge: Any = None,
    together: int = 1,
) -> list[dict]:
    """Searches from several seeds, timed after a run of 20 steps that compiles them; targets: losses to reach.

    judge: the model that judges what is found, by default the last one. together: of `population_of`.
    """
    import jax.numpy as jnp

    from jaxmr.core import batch

    search, most = (evolved, GENERATIONS) if name == "evolution" else (descended, ROUNDS)

    def timed(seed: int, steps: int, shown: bool):
        began, worked = time.perf_counter(), time.process_time()
        with batch.progress_bar(steps, name, shown) as bar:
            found = search(list(populations), seed, steps, bar)
        return found, time.perf_counter() - began, time.process_time() - worked

    train = mr.design.parametrisations.spline_within(N, 0.0, LARGEST)
    populations = [population_of(model, together) for model in models]
    # As many steps as use every program once.
    first, rows = timed(SEEDS[0], 20, False)[1], []
    for seed, target in zip(SEEDS, targets, strict=True):
        (found, values, gradients), seconds, cpu = timed(seed, most, progress)
        reached = None
        if found.loss <= target < np.inf:
            reached = timed(seed, 1 + int(np.argmax(found.history.loss <= target)), False)[1]
        control = np.asarray(populations[-1].parameters(found.numbers))
        flips = np.asarray(train(jnp.asarray(control)))
        rows.append({
            "solver": name, "seed": seed, "loss": found.loss, "seconds": seconds, "cpu_seconds": cpu, "first": first,
            "reached": reached,
            "steps": len(found.history.loss), "reason": found.reason, "values": values, "gradients": gradients,
            "control_deg": (control / deg).tolist(), "history": found.history.loss.tolist(),
            "flips_deg": (flips / deg).tolist(), **judged(flips, models[-1] if judge is None else judge),
        })  # fmt: skip
        report(rows[-1])
    return rows


def judged(flips, model) -> dict:
    """Objective of a train alone, by all orders as well, its bounds, and how much it is like a trapezoid."""
    import dataclasses

    from jaxmr.design.trapezoid import fit_trapezoid

    exact = dataclasses.replace(model, orders=None)
    sequence, known = fisp(np.asarray(flips, np.float32)), tissue()
    bounds = np.asarray(mr.design.crlb(sequence, known, ("m0", "t1", "t2"), model))
    upright, inverted = fit_trapezoid(flips), fit_trapezoid(-np.asarray(flips))
    return {
        "objective": float(mr.design.objectives.weighted_trace(sequence, known, model)),
        "objective_all_orders": float(mr.design.objectives.weighted_trace(sequence, known, exact)),
        "relative_std_t1": (np.sqrt(bounds[:, 1]) / np.array(T1)).tolist(),
        "relative_std_t2": (np.sqrt(bounds[:, 2]) / np.array(T2)).tolist(),
        "trapezoid": upright.correlation, "trapezoid_corners": upright.corners,
        "inverted_trapezoid": inverted.correlation, "inverted_corners": inverted.corners,
    }  # fmt: skip


def best_lobes(model) -> dict:
    """The original train with the best peaks of its two lobes, on a grid of 10 degrees."""
    import jax

    from jaxmr.core import batch

    known = tissue()
    peaks = np.stack(np.meshgrid(*[np.arange(10.0, 91.0, 10.0)] * 2), axis=-1).reshape(-1, 2)
    trains = np.stack([mr.sequences.trains.sin_squared(np.resize(p, 5) * deg, N_ORIGINAL)[:N] for p in peaks])

    def of(model, flips):
        return mr.design.objectives.weighted_trace(fisp(flips), known, model)

    found = jax.jit(lambda m, t: batch.over_groups(of, m, t, jax.devices()))(model, np.float32(trains))
    i = int(np.argmin(found))
    return {"peaks_deg": peaks[i].tolist(), "objective": float(found[i])}


def write_trains(name: str, columns: dict[str, np.ndarray]) -> None:
    """Each train as a file that `jaxmr simulate --schedule` reads: flip in degrees, TR and TE in ms."""
    for train, flips in columns.items():
        table = np.column_stack([flips, np.full(N, TR / ms), np.full(N, TE / ms)])
        path = RESULTS / f"design-{name}-{train}.csv"
        np.savetxt(path, table, "%.4f", ",", header="flip,tr,te", comments="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("epg", "epg-bloch"), default=["epg", "epg-bloch"])
    parser.add_argument("--no-progress", dest="progress", action="store_false")
    options = parser.parse_args()
    warnings.simplefilter("ignore", mr.AccuracyWarning)  # 20 orders are the paper's
    mr.use_cores()
    RESULTS.mkdir(exist_ok=True)
    rows = []
    print(f"{'train':22}{'objective':>9}" + "".join(f"{title:>{width}}" for title, width in COLUMNS.values()))
    for name, several in models().items():
        if name not in options.only:
            continue
        print(name)
        flips = original()
        before = {"solver": "original", "flips_deg": (flips / deg).tolist(), **judged(flips, several[-1])}
        before["best_peaks"] = best_lobes(several[-1])
        report(before)
        evolution = searched("evolution", several, options.progress)
        targets = tuple(row["loss"] for row in evolution)
        gradient = searched("gradient", several, options.progress, targets)
        times = [statistics.median(row["seconds"] for row in found) for found in (evolution, gradient)]
        better = [row["reached"] for row in gradient if row["reached"] is not None]
        within = f", {times[0] / statistics.median(better):.1f} times where it reaches that loss" if better else ""
        print(f"gradient as good or better in {len(better)} of {len(SEEDS)} seeds:", end=" ")
        print(f"{times[0] / times[1]:.1f} times faster{within}", flush=True)
        rows += [{"model": name, **row} for row in (before, *gradient, *evolution)]
        best = [min(found, key=lambda row: row["loss"]) for found in (gradient, evolution)]
        write_trains(name, {"original": np.array(before["flips_deg"]), "optimised": np.array(best[0]["flips_deg"])})
        figure(name, before, *best)
    if len(options.only) == 2:
        print(f"-> {save('design', rows)}")


def report(row: dict) -> None:
    cells = []
    for key, (_, width) in COLUMNS.items():
        value = row.get(key)
        digits = 3 if key.endswith("trapezoid") else 2
        told = "" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)
        cells.append(f"{told:>{width}}")
    print(f"{row['solver']:22}{row['objective']:9.4f}" + "".join(cells), flush=True)
    if "best_peaks" in row:
        peaks = row["best_peaks"]
        print(f"{'the same, best peaks':22}{peaks['objective']:9.4f}  {peaks['peaks_deg']} degrees", flush=True)


def figure(name: str, before: dict, gradient: dict, evolution: dict) -> None:
    """Trains before and after: the paper's figure 9 (a)."""
    from jaxmr.core.files import whole
    from jaxmr.plot import design_figure

    flips = {row["solver"]: np.array(row["flips_deg"]) * deg for row in (before, evolution, gradient)}
    drawn = design_figure(flips, {row["solver"]: row["history"] for row in (evolution, gradient)})
    with contextlib.suppress(FileNotFoundError), whole(RESULTS / f"design-{name}.png") as partial:
        drawn.savefig(partial, dpi=110)


if __name__ == "__main__":
    main()
