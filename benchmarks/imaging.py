"""Claim: k-space of scans and its gradient in a fraction of MRzeroCore's time, at equal accuracy, in no more memory.

A 64x64 RF-spoiled GRE and a 64x64 TSE (4 shots of 16 echoes) of an invented brain of 2570 voxels (sinc-shaped; T1, T2,
M0 and B0 maps): k-space, and the gradient of a loss of it by all flips, all moments and the T1, T2, M0 and B0 maps.
Each program is a process, both take turns in this run, on as many threads, warm, each with the setting that reaches
a relative error of 1e-2 or of 1e-3 fastest. Errors are against jaxmr at 1e-5 in float64, with which MRzeroCore at its
finest setting here must agree. MRzeroCore lives in an environment of its own (see README.md), whose Python is named
by --peers; without it the table is ours alone. The last rows time a FLASH at 1e-4 on one device and on all.
On a machine that computes something else MRzeroCore's threads wait for each other: 20 times slower, and no comparison.

    uv run benchmarks/imaging.py --peers PEERS/bin/python
    uv run benchmarks/imaging.py --peers PEERS/bin/python --only gre --level 1e-2
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

import jaxmr as mr
from imaging_peers import serve
from jaxmr.units import deg, mm, ms
from reporting import save
from workloads import relative

N, HEAD = 64, 75
"""Voxels across the image, and across the field of view of the invented head, so that it fills the image."""
VOXEL = 212.8 * mm / HEAD
LEVELS = (1e-2, 1e-3)
LOOSER = (3.0, 2.0, 1.0, 0.5)
"""Our tolerances that are tried for a level, in units of it: what a plan promises is more than what it does."""
FINEST, FLASH, FLASH_TARGET = 1e-5, 1e-4, 60 * ms
ROUNDS, BUDGET, PAUSE = 7, 12.0, 0.25
"""Most turns; seconds after which a slow side has no other turn; and for idle threads to stop spinning."""
TARGET = 5.0
MAPS = {"t1": "t1", "t2": "t2", "m0": "pd", "b0": "b0"}
"""Names of the maps here and in MRzeroCore."""


class Setting(NamedTuple):
    """MRzeroCore's: most states of a repetition, least magnetisation of one, least signal of what is simulated, and
    tissues that its pre-pass tries beside the mean one."""

    states: int
    magnitude: float
    threshold: float
    probes: int = 0


class Scan(NamedTuple):
    """A scan, and the settings of MRzeroCore that are tried."""

    title: str
    settings: tuple[Setting, ...]


SCANS = {
    "gre": Scan(
        "GRE",
        (
            Setting(100, 1e-4, 5e-3),
            Setting(200, 1e-4, 5e-3),
            Setting(200, 1e-3, 5e-3, 2),
            Setting(200, 1e-4, 1e-4),
            Setting(200, 1e-4, 5e-4, 2),
            Setting(500, 1e-5, 1e-4),
        ),
    ),
    "tse": Scan(
        "TSE",
        (
            Setting(200, 1e-3, 3e-3, 2),
            Setting(200, 1e-4, 3e-3, 2),
            Setting(100, 1e-4, 3e-3, 3),
            Setting(200, 5e-4, 3e-4, 2),
            Setting(200, 1e-4, 3e-4, 2),
            Setting(500, 1e-5, 1e-4, 3),
        ),
    ),
}
LIMIT = Setting(2000, 1e-6, 1e-5, 3)
"""The finest, which the reference has to agree with."""


def sequence_of(name: str):
    """A scan's sequence, in the precision of the moment."""
    image: dict[str, Any] = {"matrix": (N, N), "fov": N * VOXEL}
    if name == "gre":
        return mr.sequences.gre(10 * deg, 12 * ms, 5 * ms, **image)
    return mr.sequences.rare(np.full(16, 150 * deg), 10 * ms, 3.0, **image)


def brain():
    """A slice through an invented brain, one compartment a voxel; B0 of at most 30 Hz."""
    whole = mr.objects.truth(mr.objects.procedural(HEAD))
    inside = np.isfinite(whole["t1"])
    first, left = np.argmax(inside.any(axis=1)), (HEAD - N) // 2
    maps = {name: image[first : first + N, left : left + N] for name, image in whole.items()}
    if np.isfinite(maps["t1"]).sum() != inside.sum():
        raise ValueError(f"the head is cut off by {N} x {N} voxels; draw it on more than {HEAD}")
    b0 = 30 * maps["b0"] / np.nanmax(np.abs(maps["b0"]))
    return mr.objects.from_maps(maps["t1"], maps["t2"], maps["m0"], b0=b0, voxel_size=VOXEL)


def parts(sequence, phantom) -> dict[str, Any]:
    """What is differentiated by."""
    segments = sequence.segments
    events = [event for segment in segments for event in segment.events]
    return {
        "flip": [segment.pulse.flip for segment in segments if segment.pulse is not None],
        "moment": [event.moment for event in events if event.moment is not None],
        **{name: getattr(phantom.tissue, name) for name in MAPS},
    }


def joined(free) -> dict[str, np.ndarray]:
    """`parts` as one array each."""
    flat = lambda leaves: np.concatenate([np.ravel(leaf) for leaf in leaves])  # noqa: E731
    return {name: flat(leaf) if isinstance(leaf, list) else np.asarray(leaf) for name, leaf in free.items()}


class Jaxmr:
    """jaxmr at a scan, with the requests of `imaging_peers`."""

    def prepare(self, name: str, path: str | None = None, devices: int = 0) -> dict:
        import jax

        self.sequence, self.phantom = sequence_of(name), brain()
        self.devices = jax.devices()[: devices or None]
        self.target = None if path is None else np.load(path)
        self.model, self.compiled, self.last = None, {}, {}
        return {"voxels": self.phantom.tissue.shape[0], "devices": len(self.devices)}

    def plan(self, tolerance: float) -> dict:
        self.model, self.compiled = mr.PDG(tolerance).planned(self.sequence, self.phantom), {}
        return {"states": self.model.n_states, "expected": float(self.model.error)}

    def forward(self) -> dict:
        return self._play("forward", self._signal)

    def gradient(self) -> dict:
        return self._play("gradient", self._gradient)

    def result(self, path: str) -> None:
        np.savez(path, **self.last)

    def _play(self, name, function) -> dict:
        import jax

        free = parts(self.sequence, self.phantom)
        arguments = free, self.sequence, self.phantom, self.model, self.target
        if name not in self.compiled:
            self.compiled[name] = eqx.filter_jit(function).lower(*arguments).compile()
        found = jax.block_until_ready(self.compiled[name](*arguments))
        self.last = {"signal": found} if name == "forward" else {"loss": found[0], **joined(found[1])}
        return {"temporary": self.compiled[name].compiled.memory_analysis().temp_size_in_bytes}

    def _signal(self, free, sequence, phantom, model, _):
        def leaves(pair):
            found = parts(*pair)
            return [*found["flip"], *found["moment"], *(found[name] for name in MAPS)]

        values = [*free["flip"], *free["moment"], *(free[name] for name in MAPS)]
        sequence, phantom = eqx.tree_at(leaves, (sequence, phantom), values)
        return mr.simulate(sequence, phantom, model, devices=self.devices)[0]

    def _gradient(self, free, sequence, phantom, model, target):
        import jax
        import jax.numpy as jnp

        def loss(free):
            difference = self._signal(free, sequence, phantom, model, None) - target
            return jnp.sum(difference.real**2 + difference.imag**2)

        return jax.value_and_grad(loss)(free)


def played(sequence) -> tuple[Any, Any]:
    """Flips of all pulses, (repetitions,), and moments of all events, a step of a readout each, (events, 3)."""
    import jax.numpy as jnp

    flips, moments = [], []
    for segment in sequence.segments:
        n = segment.repetitions
        if segment.pulse is not None:
            flips.append(jnp.broadcast_to(segment.pulse.flip, (n,)))
        steps = []
        for event in segment.events:
            count = max(event.samples, 1)
            moment = jnp.zeros(3) if event.moment is None else event.moment
            steps.append(jnp.broadcast_to(jnp.broadcast_to(moment, (n, 3))[:, None] / count, (n, count, 3)))
        moments.append(jnp.concatenate(steps, axis=1).reshape(-1, 3))
    return jnp.concatenate(flips), jnp.concatenate(moments)


def exported(sequence, phantom, target) -> dict[str, np.ndarray]:
    """The scan as MRzeroCore has it: precession exp(-i), so that positions and B0 change their sign."""
    flips, moments = played(sequence)
    starts, phases, times, samples, receivers, at = [], [], [], [], [], 0
    for segment in sequence.segments:
        n, events = segment.repetitions, segment.events
        counts = [max(event.samples, 1) for event in events]

        def each(values, n=n, counts=counts):
            columns = [np.broadcast_to(0 if value is None else value, n) for value in values]
            return np.repeat(np.stack(columns, axis=1), counts, axis=1).ravel()

        if segment.pulse is not None:
            phase = 0 if segment.pulse.phase is None else segment.pulse.phase
            phases.append(np.broadcast_to(phase + (np.pi / 2 if segment.pulse.quadrature else 0), n))
            starts.append(at + sum(counts) * np.arange(n))
        times.append(each([event.duration / count for event, count in zip(events, counts, strict=True)]))
        samples.append(each([int(event.samples > 0) for event in events]))
        receivers.append(each([event.receiver_phase for event in events]))
        at += n * sum(counts)
    tissue = phantom.tissue
    return {
        "rep_start": np.concatenate(starts), "angle": np.asarray(flips), "phase": np.concatenate(phases),
        "dt": np.concatenate(times), "gradm": np.asarray(moments) / (2 * np.pi), "adc": np.concatenate(samples),
        "adc_phase": -np.concatenate(receivers), "pos": -np.asarray(phantom.position), "pd": np.asarray(tissue.m0),
        "t1": np.asarray(tissue.t1), "t2": np.asarray(tissue.t2), "b0": -np.asarray(tissue.b0),
        "nyquist": 0.5 / np.asarray(phantom.voxel_size), "target": target,
    }  # fmt: skip


def imported(found: dict, sequence) -> dict[str, np.ndarray]:
    """MRzeroCore's gradients as ours."""
    import jax
    import jax.numpy as jnp

    _, back = jax.vjp(lambda sequence: played(sequence), sequence)
    (by,) = back((jnp.asarray(found["angle"], float), jnp.asarray(found["gradm"] / (2 * np.pi), float)))
    flips = [segment.pulse.flip for segment in by.segments if segment.pulse is not None]
    moments = [event.moment for segment in by.segments for event in segment.events if event.moment is not None]
    maps = {ours: (-1 if ours == "b0" else 1) * found[theirs] for ours, theirs in MAPS.items()}
    return joined({"flip": flips, "moment": moments, **maps})


class Side:
    """One of the programs at a scan, in a process of its own."""

    def __init__(self, folder: Path, command: list, **prepare):
        self.path = folder / f"{Path(str(command[1])).stem}.npz"
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.about = self.ask("prepare", **prepare)
        self.start = self.ask("memory")["now"]

    def ask(self, do: str, **request) -> dict:
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process died"}
        if "error" in answer:
            raise RuntimeError(f"{self.path.stem}, {do}: {answer['error']}")
        return answer

    def result(self) -> dict:
        self.ask("result", path=str(self.path))
        with np.load(self.path) as file:
            return {key: file[key] for key in file.files}

    def grown(self) -> tuple[int, int]:
        """Bytes now and at the peak since this was last asked, beyond those before the first plan."""
        found = self.ask("memory")
        return found["now"] - self.start, found["peak"] - self.start

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def in_turns(sides: list[Side], do: str) -> list[list[float]]:
    """Seconds of each side, one call each in every round."""
    times = [[] for _ in sides]
    for _ in range(ROUNDS):
        for side, found in zip(sides, times, strict=True):
            time.sleep(PAUSE)
            found.append(side.ask(do)["seconds"])
        if max(sum(found) for found in times) > BUDGET:
            break
    return times


class Run:
    """One scan: its reference, and both sides at it."""

    def __init__(self, name: str, python: Path | None, folder: Path):
        import jax

        self.name, self.scan, self.python, self.folder = name, SCANS[name], python, folder
        with jax.enable_x64(True):
            sequence, phantom = sequence_of(name), brain()
            truth = Jaxmr()
            truth.prepare(name)
            # The loss asks for far from what there is, so that its gradient is no difference of like numbers.
            changed = parts(sequence, phantom)
            changed["flip"] = [0.7 * flip for flip in changed["flip"]]
            changed |= {"t1": 1.5 * changed["t1"], "t2": 1.5 * changed["t2"], "b0": -changed["b0"]}
            truth.plan(FINEST)
            play = eqx.filter_jit(truth._signal)
            self.signal, target = (
                np.asarray(play(free, sequence, phantom, truth.model, None))
                for free in (parts(sequence, phantom), changed)
            )
            truth.target = target
            truth.gradient()
            self.gradient, self.sequence = truth.last, sequence
            np.savez(folder / "scan.npz", **exported(sequence, phantom, target))
            np.save(folder / "target.npy", target.astype(np.complex64))
        self.states = truth.model.n_states

    def ours(self) -> Side:
        here = [sys.executable, __file__, "--serve"]
        return Side(self.folder, here, name=self.name, path=str(self.folder / "target.npy"))

    def theirs(self) -> Side:
        command = [self.python, Path(__file__).with_name("imaging_peers.py")]
        return Side(self.folder, command, path=str(self.folder / "scan.npz"))

    def error(self, found: dict) -> float:
        """Of the signal."""
        return relative(found["signal"], self.signal)

    def gradient_errors(self, found: dict) -> dict[str, float]:
        """Of the gradient by each part."""
        import jax

        if "angle" in found:
            with jax.enable_x64(True):
                found = imported(found, self.sequence)
        return {name: relative(found[name], self.gradient[name]) for name in ("flip", "moment", *MAPS)}

    def tried(self) -> list[dict]:
        """All settings of MRzeroCore, the finest too: error and time, on one thread, which is disturbed less."""
        found = []
        with self.theirs() as side:
            side.ask("threads", n=1)
            for setting in (*self.scan.settings, LIMIT):
                planned = side.ask("plan", **setting._asdict())
                seconds = [side.ask("forward")["seconds"] for _ in range(1 if setting is LIMIT else 3)]
                row = {
                    "setting": setting._asdict(),
                    "states": planned["states"],
                    "plan_seconds": planned["seconds"],
                    "seconds": seconds,
                    "error": self.error(side.result()),
                }
                found.append(row)
                print(
                    f"  MRzeroCore {tuple(setting)}: {planned['states']} states, "
                    f"{min(seconds):.2f} s, error {row['error']:.1e}",
                    flush=True,
                )
        return found

    def level(self, level: float, tried: list[dict]) -> list[dict]:
        """Forward and gradient of both sides at one level of error."""
        enough = [row for row in tried[:-1] if row["error"] <= level]
        best = min(enough, key=lambda row: min(row["seconds"]), default=None)
        if tried and best is None:
            print(f"  no setting of MRzeroCore reaches {level:g}", flush=True)
        with self.ours() as ours:
            for factor in LOOSER:
                tolerance = factor * level
                plans = [ours.ask("plan", tolerance=tolerance)]
                first = ours.ask("forward")
                mine = self.error(ours.result())
                if mine <= level:
                    break
            row = {
                "scan": self.name, "level": level, "tolerance": tolerance, "jaxmr_states": plans[0]["states"],
                "jaxmr_plan": plans[0]["seconds"], "jaxmr_error": mine, "voxels": ours.about["voxels"],
            }  # fmt: skip
            if best is None:
                return self._timed(row, [ours], [first["seconds"]])
            with self.theirs() as theirs:
                planned = theirs.ask("plan", **best["setting"])
                first_of_theirs = theirs.ask("forward")["seconds"]
                row |= {
                    "peer": theirs.about["versions"], "setting": best["setting"], "peer_states": planned["states"],
                    "peer_plan": planned["seconds"], "peer_error": best["error"],
                }  # fmt: skip
                return self._timed(row, [ours, theirs], [first["seconds"], first_of_theirs])

    def _timed(self, row: dict, sides: list[Side], firsts: list[float]) -> list[dict]:
        rows, names = [], ("jaxmr", "peer")
        for do in ("forward", "gradient"):
            if do == "gradient":
                firsts = [side.ask(do)["seconds"] for side in sides]
            one = {**row, "work": do, "title": f"{self.scan.title}, {do}"}
            before = [side.grown() for side in sides]
            times = in_turns(sides, do)
            for name, side, first, seconds, (now, peak) in zip(names, sides, firsts, times, before, strict=False):
                _, warm = side.grown()
                one |= {f"{name}_first": first, f"{name}_seconds": seconds}
                one |= {f"{name}_memory": max(peak, warm), f"{name}_memory_warm": warm - now}
                if do == "gradient":
                    one[f"{name}_gradient_errors"] = self.gradient_errors(side.result())
            one["jaxmr_temporary"] = sides[0].ask(do)["temporary"]
            if len(sides) == 2:
                one["ratio"] = statistics.median(one["peer_seconds"]) / statistics.median(one["jaxmr_seconds"])
                one["ratio_fastest"] = min(one["peer_seconds"]) / min(one["jaxmr_seconds"])
                one["ratio_planned"] = planned_ratio(one)
            rows.append(one)
            print(line(one), flush=True)
        return rows


def planned_ratio(row: dict) -> float:
    """Of one call each, its graph included."""
    both = [row[f"{name}_plan"] + statistics.median(row[f"{name}_seconds"]) for name in ("peer", "jaxmr")]
    return both[0] / both[1]


def line(row: dict) -> str:
    """A line of the table."""
    text = f"  {row['title']:14} at {row['level']:g}, jaxmr to {row['tolerance']:g}"
    for name in ("jaxmr", "peer"):
        if f"{name}_seconds" in row:
            by = [f"{part} {error:.0e}" for part, error in row.get(f"{name}_gradient_errors", {}).items()]
            text += (
                f"\n    {name:6}{1e3 * statistics.median(row[f'{name}_seconds']):7.1f} ms, plan "
                f"{1e3 * row[f'{name}_plan']:5.0f} ms, first {row[f'{name}_first']:5.1f} s, "
                f"{row[f'{name}_memory'] / 2**20:6.0f} MiB (warm {row[f'{name}_memory_warm'] / 2**20:.0f}), "
                f"error {row[f'{name}_error']:.1e}{', of the gradient by ' if by else ''}{', '.join(by)}"
            )
    if "ratio" in row:
        text += (
            f"\n    ratio {row['ratio']:.1f} (target {TARGET:g}), fastest {row['ratio_fastest']:.1f}, "
            f"plan included {row['ratio_planned']:.1f}"
        )
    return text


def flash(folder: Path) -> list[dict]:
    """Our GRE to 1e-4 on one device and on all."""
    rows = []
    for devices in (1, 0):
        with Side(folder, [sys.executable, __file__, "--serve"], name="gre", devices=devices) as ours:
            planned = ours.ask("plan", tolerance=FLASH)
            first = ours.ask("forward")["seconds"]
            (seconds,) = in_turns([ours], "forward")
            rows.append(
                {
                    "scan": "gre", "work": "forward", "level": FLASH, "title": "FLASH",
                    "voxels": ours.about["voxels"], "devices": ours.about["devices"], "jaxmr_plan": planned["seconds"],
                    "jaxmr_states": planned["states"], "jaxmr_first": first, "jaxmr_seconds": seconds,
                    "jaxmr_memory": ours.grown()[1], "target": FLASH_TARGET,
                }
            )  # fmt: skip
        print(
            f"FLASH of {ours.about['voxels']} voxels at {FLASH:g}, {ours.about['devices']} device(s): "
            f"{1e3 * statistics.median(seconds):.1f} ms, fastest {1e3 * min(seconds):.1f} "
            f"(target {1e3 * FLASH_TARGET:g}), plan {1e3 * planned['seconds']:.0f} ms, first {first:.1f} s",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of the environment that holds MRzeroCore")
    parser.add_argument("--only", nargs="+", choices=(*SCANS, "flash"), help="rows that are not saved")
    parser.add_argument("--level", type=float, nargs="+", default=LEVELS, help="relative errors; not saved")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    mr.use_cores()
    if arguments.serve:
        return serve(Jaxmr())
    chosen = arguments.only or (*SCANS, "flash")
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in (name for name in SCANS if name in chosen):
            run = Run(name, arguments.peers, Path(folder))
            print(f"{run.scan.title}: reference of {run.states} states", flush=True)
            tried = run.tried() if arguments.peers else []
            if tried:
                print(f"  the references agree to {tried[-1]['error']:.1e}", flush=True)
                rows.append({"scan": name, "work": "settings", "tried": tried, "agreement": tried[-1]["error"]})
            for level in arguments.level:
                rows += run.level(level, tried)
        if "flash" in chosen:
            rows += flash(Path(folder))
    if arguments.peers and not arguments.only and arguments.level == LEVELS:
        print(f"-> {save('imaging', rows)}")


if __name__ == "__main__":
    main()
