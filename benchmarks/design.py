"""Claim: a gradient method finds the Cramér-Rao design of the paper, or a better one, in a tenth of evolution's time.

Liu et al., NMR Biomed 2021, section 3.3.2 and figure 9: 336 flips, a cubic spline through 11 control points and (0, 0),
0 ... 90 degrees, TE/TR 4.9/8.7 ms, inverted just before; tissues of T1/T2 900/85 and 500/65 ms; 20 orders; EPG, and
EPG-Bloch with a Gaussian pulse of 1 ms and 3 mm at 32 positions. The least mean over the tissues of the bounds of T1
and T2, M0 unknown, each relative to its square, at a noise of 1 of the real and the imaginary part. Differential
evolution as in the paper (10 members per parameter, tolerance 0.002, at most 1000 generations) against descent from
four starts. Both have the same loss: the bounds, times 1 + 10 times the spline's squared excess over the limits; the
train is clipped to them. Seconds are those of compiled programs; first: those of a run of one step, which compiles.

The original train is that of the paper's figure 4, 336 of 1120 pulses of five sine-squared lobes. The paper does not
print their peaks: `ORIGINAL` are ours, and the best peaks there are stand beside it.

    uv run benchmarks/design.py
    uv run benchmarks/design.py --only epg
"""

import argparse
import contextlib
import time
import warnings
from typing import Any

import numpy as np

import jaxmr as mr
from jaxmr.units import deg, mm, ms
from reporting import RESULTS, save

N, POINTS, LARGEST = 336, 11, 90 * deg
TR, TE, ORDERS, N_Z = 8.7 * ms, 4.9 * ms, 20, 32
T1, T2 = (0.9, 0.5), (0.085, 0.065)
WEIGHT = 10.0
N_ORIGINAL, ORIGINAL = 1120, np.array([60.0, 60.0, 60.0, 60.0, 60.0])
GENERATIONS, TOLERANCE = 1000, 0.002
STARTS, ROUNDS, FALL, PATIENCE = 4, 200, 2e-4, 12


def fisp(flips):
    return mr.sequences.fisp(flips, TR, TE, 0.0)


def tissue():
    return mr.Tissue(t1=np.float32(T1), t2=np.float32(T2))


def models() -> dict[str, Any]:
    """By name, with the tables of their pulses."""
    pulse = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)
    largest = fisp(np.full(N, LARGEST, np.float32))
    return {
        "epg": mr.EPG(orders=ORDERS),
        "epg-bloch": mr.EPGBloch(pulse=pulse, n_z=N_Z, orders=ORDERS).tabulated(largest, tissue()),
    }


def original() -> np.ndarray:
    """First pulses of the sine-squared train, rad."""
    return np.asarray(mr.sequences.trains.sin_squared(ORIGINAL * deg, N_ORIGINAL))[:N]


def searched(solver, model, seed: int, progress: bool) -> dict:
    """One search, timed after a run of one step that compiles it."""
    import jax
    import jax.numpy as jnp

    from jaxmr.core import batch
    from jaxmr.design.evolution import DifferentialEvolution, evolve
    from jaxmr.design.multistart import MultiStart, descend
    from jaxmr.design.population import populate

    known, train = tissue(), mr.design.parametrisations.spline_within(N, 0.0, LARGEST)

    def objective(parameters, model):
        bounds = mr.design.objectives.weighted_trace(fisp(train(parameters)), known, model)
        plain = mr.sequences.trains.spline(parameters, N)
        return bounds * (1 + WEIGHT * mr.design.constraints.outside(plain, 0.0, LARGEST))

    start = jnp.full(POINTS, LARGEST / 3, jnp.float32)
    ends = jnp.zeros_like(start), jnp.full_like(start, LARGEST)
    population = populate(objective, start, ends, model, jax.devices())

    def run(steps, bar):
        if solver == "evolution":
            return evolve(population, DifferentialEvolution(10, seed), steps, TOLERANCE, None, bar)
        return descend(population, MultiStart(STARTS, seed=seed), steps, FALL, PATIENCE, None, bar)

    seconds = []
    for steps, shown in ((1, False), (GENERATIONS if solver == "evolution" else ROUNDS, progress)):
        began = time.perf_counter()
        with batch.progress_bar(steps, solver, shown) as bar:
            found = run(steps, bar)
        seconds.append(time.perf_counter() - began)
    n_steps = len(found.history.loss)
    per_step = 10 * POINTS if solver == "evolution" else STARTS
    control = np.asarray(population.parameters(found.numbers))
    flips = np.asarray(train(jnp.asarray(control)))
    return {
        "solver": solver, "seed": seed, "loss": found.loss, "seconds": seconds[1], "first": seconds[0],
        "steps": n_steps, "reason": found.reason, "values": n_steps * per_step + (0 if solver == "evolution" else 128),
        "gradients": 0 if solver == "evolution" else n_steps * per_step, "control_deg": (control / deg).tolist(),
        "history": found.history.loss.tolist(), "flips_deg": (flips / deg).tolist(), **judged(flips, model),
    }  # fmt: skip


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
    print(
        f"{'model':10}{'train':24}{'objective':>10}{'seconds':>9}{'first s':>9}{'steps':>7}{'values':>9}"
        f"{'gradients':>10}{'trapezoid':>10}{'inverted':>9}"
    )
    for name, model in models().items():
        if name not in options.only:
            continue
        flips = original()
        before = {"solver": "original", "flips_deg": (flips / deg).tolist(), **judged(flips, model)}
        before["best_peaks"] = best_lobes(model)
        made = [before]
        report(name, before)
        for solver in ("gradient", "evolution"):
            made.append(searched(solver, model, 0, options.progress))
            report(name, made[-1])
        _, gradient, evolution = made
        ratio = evolution["seconds"] / gradient["seconds"]
        reached = int(np.argmax(np.array(gradient["history"]) <= evolution["loss"]))
        better = gradient["loss"] <= evolution["loss"]
        print(f"{name:10}gradient {'reaches' if better else 'misses'} evolution's optimum, {ratio:.1f} times faster"
              + (f"; is there after {reached + 1} of {gradient['steps']} rounds" if better else ""))  # fmt: skip
        rows += [{"model": name, **row} for row in made]
        write_trains(name, {"original": np.array(before["flips_deg"]), "optimised": np.array(gradient["flips_deg"])})
        figure(name, before, gradient, evolution)
    if len(options.only) == 2:
        print(f"-> {save('design', rows)}")


def report(name: str, row: dict) -> None:
    told = {key: row.get(key, "") for key in ("seconds", "first", "steps", "values", "gradients")}
    told = {key: f"{value:.1f}" if isinstance(value, float) else str(value) for key, value in told.items()}
    print(
        f"{name:10}{row['solver']:24}{row['objective']:10.4f}{told['seconds']:>9}{told['first']:>9}{told['steps']:>7}"
        f"{told['values']:>9}{told['gradients']:>10}{row['trapezoid']:10.3f}{row['inverted_trapezoid']:9.3f}",
        flush=True,
    )
    if "best_peaks" in row:
        peaks = row["best_peaks"]
        print(
            f"{name:10}{'the same, best peaks':24}{peaks['objective']:10.4f}  {peaks['peaks_deg']} degrees", flush=True
        )


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
