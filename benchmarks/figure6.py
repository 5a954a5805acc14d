"""Claim: EPG-Bloch on two cores is thousands of times faster than in figure 6 of the paper, and several than snapMRF.

The paper's RNN on a GPU stays faster than EPG-Bloch on a CPU.

Time to simulate N_s signals of 1120 pulses, 32 sub-slices: (a) one B1, 100 ... 6400 atoms, (b) 10^3 ... 80^3 atoms of
T1, T2 and B1; with K = 20 and with orders chosen for 1e-3 (planning included), and with derivatives by T1 and T2 (and
B1). Warm; the first call apart. What would take longer than --limit is extrapolated from fewer atoms, and marked so.
The paper's numbers are those in its text (Liu et al., section 4.3: V100 GPU, Xeon 2.6 GHz), none read off its curves.

    uv run benchmarks/figure6.py
    uv run benchmarks/figure6.py --limit 5
"""

import argparse
import time
from pathlib import Path

import numpy as np

import jaxmr as mr
from jaxmr.units import mm, ms
from reporting import RESULTS, save
from workloads import lobes, relative

N_PULSES, N_Z, ORDERS, TOLERANCE = 1120, 32, 20, 1e-3
TR, TE, TI = 10 * ms, 5 * ms, 20 * ms
FIXED, SIDES = (100, 200, 400, 800, 1600, 3200, 6400), (10, 20, 40, 80)
N_CHECKED = 24
LEAST_PART = 1000
"""Fewest atoms to extrapolate from: a call has a cost of its own."""

PAPER = {
    "a": [
        ("snapMRF, GPU (paper, text)", 6400, 15.7),
        ("RNN, GPU (from the text's 100 x)", 6400, 15.7 / 100),
        ("RNN, CPU (from the text's 200 x)", 6400, 15.7 / 100 * 200),
        ("EPG-Bloch, CPU (from the text's 34,000 x)", 6400, 15.7 / 100 * 34_000),
    ],
    "b": [
        ("snapMRF, GPU (paper, text; 20 B1)", 6400, 144.0),
        ("EPG-Bloch, CPU (paper, text)", 312_480, 71 * 3600.0),
        ("RNN, GPU (paper, text: less than)", 312_480, 10.0),
    ],
}


def fixed(n: int) -> dict:
    """n pairs of T1 0.1 ... 5 s and T2 0.01 ... 2 s, T2 at most T1."""
    rng = np.random.default_rng(0)
    t1 = np.geomspace(0.1, 5, n)
    return {"t1": t1, "t2": np.minimum(t1, np.exp(rng.uniform(np.log(0.01), np.log(2), n)))}


def cube(side: int) -> dict:
    """side^3 atoms, B1 of 0.8 ... 1.2 the slowest axis."""
    pairs, b1 = fixed(side**2), np.linspace(0.8, 1.2, side)
    return {name: np.tile(value, side) for name, value in pairs.items()} | {"b1": np.repeat(b1, side**2)}


def ways() -> dict:
    """What is timed: name to a function of a sequence and a tissue."""
    import jax

    pulse = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=5 * mm)
    few = mr.EPGBloch(pulse=pulse, n_z=N_Z, orders=ORDERS)
    chosen = mr.EPGBloch(pulse=pulse, n_z=N_Z, tolerance=TOLERANCE)

    def signals(model):
        return lambda sequence, tissue: mr.mrf.dictionary(sequence, tissue=tissue, model=model, drop=False).atoms

    def derivatives(sequence, tissue):
        wrt = ("t1", "t2") if tissue.b1 is None else ("t1", "t2", "b1")
        planned = mr.plan(sequence, tissue[:1], few)
        found = mr.simulate_with_jacobian(sequence, tissue, planned, wrt, devices=jax.devices())
        return jax.block_until_ready(found)[0]

    return {
        f"signal, K = {ORDERS}": signals(few),
        "signal, tolerance 1e-3": signals(chosen),
        f"derivatives, K = {ORDERS}": derivatives,
    }


def measure(way, sequence, values: dict) -> tuple[float, float]:
    """Seconds of the first and of the second call."""
    tissue = mr.Tissue(**{name: np.float32(value) for name, value in values.items()})
    times = []
    for _ in range(2):
        start = time.perf_counter()
        way(sequence, tissue)
        times.append(time.perf_counter() - start)
    return times[0], times[1]


def curve(name: str, way, panel: str, sequence, limit: float) -> list[dict]:
    """One line of the figure; sizes beyond the limit are measured in part, or only scaled."""
    rows, per_atom = [], 0.0
    for size in FIXED if panel == "a" else SIDES:
        values = fixed(size) if panel == "a" else cube(size)
        n = part = len(values["t1"])
        if per_atom * n > limit and panel == "a" and part > LEAST_PART:
            rows.append(rows[-1] | {"atoms": n, "seconds": per_atom * n, "extrapolated": True})
            line(rows[-1])
            continue
        if per_atom * n > limit:
            # Whole planes of one B1, evenly spread: atoms of one B1 share their operators.
            planes = max(int(limit / per_atom / size**2), 1)
            chosen = np.arange(n).reshape(size, -1)[np.linspace(0, size - 1, planes).astype(int)].ravel()
            kept = min(max(int(limit / per_atom), LEAST_PART), len(chosen))
            chosen = chosen[np.linspace(0, len(chosen) - 1, kept).astype(int)]
            part = len(chosen)
            values = {key: value[chosen] for key, value in values.items()}
        first, warm = measure(way, sequence, values)
        per_atom = warm / part
        rows.append(
            {
                "panel": panel,
                "work": name,
                "atoms": n,
                "seconds": per_atom * n,
                "measured_atoms": part,
                "measured_seconds": warm,
                "first_seconds": first,
                "extrapolated": part < n,
            }
        )
        line(rows[-1])
    return rows


def line(row: dict) -> None:
    """A line of the table."""
    mark = ""
    if row["extrapolated"]:
        mark = f"extrapolated from {row['measured_atoms']} atoms in {row['measured_seconds']:.1f} s"
    columns = f"{row['panel']:4}{row['work']:26}{row['atoms']:9}{row['seconds']:12.2f}{row['first_seconds']:10.1f}"
    print(f"{columns}  {mark}", flush=True)


def accuracy(sequence, way) -> float:
    """Largest relative error of a few atoms of panel (b) against all orders."""
    values = {name: value[:: len(value) // N_CHECKED][:N_CHECKED] for name, value in cube(10).items()}
    tissue = mr.Tissue(**{name: np.float32(value) for name, value in values.items()})
    pulse = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=5 * mm)
    exact = np.asarray(mr.simulate(sequence, tissue, mr.EPGBloch(pulse=pulse, n_z=N_Z)))
    return max(relative(a, b) for a, b in zip(np.asarray(way(sequence, tissue)), exact, strict=True))


def draw(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for panel, axis in zip("ab", axes, strict=True):
        names = dict.fromkeys(row["work"] for row in rows if row["panel"] == panel)
        for colour, name in enumerate(names):
            line = [row for row in rows if row["panel"] == panel and row["work"] == name]
            x, y = [row["atoms"] for row in line], [row["seconds"] for row in line]
            axis.loglog(x, y, color=f"C{colour}", label=f"jaxmr EPG-Bloch, CPU: {name}")
            for full in (True, False):
                points = [(a, b) for a, b, row in zip(x, y, line, strict=True) if row["extrapolated"] != full]
                face = f"C{colour}" if full else "white"
                axis.plot(*zip(*points, strict=True), "o", color=f"C{colour}", mfc=face) if points else None
        for marker, (label, n, seconds) in zip("s^vD", PAPER[panel], strict=False):
            axis.plot(n, seconds, marker, color="0.4", label=label)
        axis.set_xlabel("number of signals")
        axis.set_title("(a) one B1" if panel == "a" else "(b) T1, T2 and B1")
        axis.grid(True, which="major", alpha=0.3)
        axis.legend(fontsize=7)
    axes[0].set_ylabel("seconds (hollow: extrapolated)")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=20.0, help="longest call, s; the rest is extrapolated")
    limit = parser.parse_args().limit
    mr.use_cores()
    sequence = mr.sequences.fisp(np.float32(lobes(N_PULSES)), TR, TE, TI)
    rows: list[dict] = []
    print(f"{'':4}{'work':26}{'atoms':>9}{'seconds':>12}{'first s':>10}")
    for panel in "ab":
        for name, way in ways().items():
            rows += curve(name, way, panel, sequence, limit)
    errors = {name: accuracy(sequence, way) for name, way in ways().items() if name.startswith("signal")}
    for name, error in errors.items():
        print(f"largest error of {N_CHECKED} atoms, {name}: {error:.1e}")
    for panel, points in PAPER.items():
        for label, n, seconds in points:
            rows.append({"panel": panel, "work": label, "atoms": n, "seconds": seconds, "source": "Liu et al."})
            print(f"{panel:4}{label:44}{n:9}{seconds:12.2f}")
    draw([row for row in rows if "source" not in row], RESULTS / "figure6.png")
    print(f"-> {save('figure6', [*rows, {'errors': errors}])}")


if __name__ == "__main__":
    main()
