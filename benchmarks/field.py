"""Claim: on a CPU jaxmr simulates EPG in a fraction of the time of the fastest peers, at their accuracy or better.

Every peer runs in this run, in turns with jaxmr, on as many threads, warm. Peers live in an environment of their own
(they need torch; see README.md), whose Python is named by --peers; without it, or where one is missing, the table
says so. FISP trains are sampled right after each pulse, as blochsim's and MRpro's are.
error: of the signal (or Jacobian) against all orders in float64; difference: of peer and jaxmr.

    uv run benchmarks/field.py --peers PEERS/bin/python
    uv run benchmarks/field.py --peers PEERS/bin/python --only fisp cpmg --against blochsim
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxmr as mr
from jaxmr.units import mm, ms
from reporting import save
from workloads import TI, TR, atoms, lobes, quadratic_phase, relative

ORDERS, N_Z, N_ECHOES, ESP = 20, 32, 64, 10 * ms
ROUNDS, BUDGET, PAUSE = 7, 4.0, 0.25
"""Most rounds; seconds after which a slow peer has no other turn; and for idle threads to stop spinning."""
PEERS = ("blochsim", "MRpro", "NumPy", "sycomore")


class Work(NamedTuple):
    """A workload: what is simulated, and the fraction of blochsim's time that is aimed at."""

    title: str
    target: float | None
    arrays: dict
    model: Callable
    driver: bool = False
    peers: tuple[str, ...] = PEERS


def workloads() -> dict[str, Work]:
    """All workloads by name; models are made once JAX has its devices."""
    pulse = lambda: mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=5 * mm)  # noqa: E731
    positions = np.asarray(mr.rf.slice_positions(5 * mm, N_Z), float)
    weight = mr.rf.SLICE_RANGE / N_Z

    def fisp(n, orders=ORDERS, **more):
        t1, t2 = atoms(n)
        train = {"kind": "fisp", "t1": t1, "t2": t2, "flip": lobes(), "tr": TR, "ti": TI}
        return {**train, "orders": orders, "jacobian": False, **more}

    t1, t2 = atoms(10_000)
    cpmg = {"kind": "cpmg", "t1": t1, "t2": t2, "flip": np.full(N_ECHOES, np.deg2rad(150)), "esp": ESP, "orders": 0}
    profile = {"scale": np.asarray(mr.rf.small_tip(pulse())(positions), float), "weight": weight}
    shaped = {
        "weight": mr.rf.SLICE_RANGE,
        "waveform": np.asarray(pulse().samples, float),
        "duration": 1 * ms,
        "bandwidth": 3.0 / ms,
        "positions": positions / (5 * mm),
    }
    few = lambda: mr.EPG(orders=ORDERS)  # noqa: E731
    return {
        "fisp": Work("FISP, 1000 atoms, K = 20", 0.25, fisp(1000), few),
        "new": Work("the same, new flip angles", 0.25, fisp(1000), few, peers=("blochsim", "NumPy")),
        "exact": Work("the same, all orders", 0.2, fisp(1000, 0), mr.EPG),
        "tolerance": Work(
            "the same, jaxmr to 1e-5, plan included",
            0.2,
            fisp(1000, 0),
            lambda: mr.EPG(tolerance=1e-5),
            driver=True,
            peers=("blochsim",),
        ),
        "quadratic": Work("quadratic RF phase, K = 20", 0.15, fisp(1000, phase=quadratic_phase(1000)), few),
        "profile": Work(
            "32-point profile, 100 atoms, K = 20",
            0.3,
            fisp(100, **profile),
            lambda: mr.EPG(profile=mr.rf.small_tip(pulse()), n_z=N_Z, orders=ORDERS),
        ),
        "bloch": Work(
            "EPG-Bloch, n_z = 32, 100 atoms, K = 20",
            0.3,
            fisp(100, **shaped),
            lambda: mr.EPGBloch(pulse=pulse(), n_z=N_Z, orders=ORDERS),
            peers=("blochsim",),
        ),
        "jacobian-100": Work("signal, dT1, dT2, 100 atoms, K = 20", 0.3, fisp(100, jacobian=True), few),
        "jacobian": Work("signal, dT1, dT2, 1000 atoms, K = 20", 0.3, fisp(1000, jacobian=True), few),
        "cpmg": Work("CPMG, 64 echoes, 10,000 atoms, all orders", 0.05, {**cpmg, "jacobian": False}, mr.EPG),
    }


class Jaxmr:
    """jaxmr at a workload, with the calls of a `Peer`."""

    def __init__(self, work: Work, *, double: bool = False):
        import jax

        arrays, dtype = work.arrays, np.float64 if double else np.float32
        self.arrays, self.dtype, self.last = arrays, dtype, None
        model, wants = work.model(), arrays["jacobian"]
        self.tissue = mr.Tissue(t1=arrays["t1"].astype(dtype), t2=arrays["t2"].astype(dtype))
        self.sequence = self.sequence_of(arrays["flip"])

        def simulate(sequence, tissue):
            if wants:
                return mr.simulate_with_jacobian(sequence, tissue, model, ("t1", "t2"), devices=jax.devices())
            return mr.simulate(sequence, tissue, model, devices=jax.devices()), None

        if work.driver:
            self.simulate = lambda sequence, tissue: (
                mr.mrf.dictionary(sequence, tissue=tissue, model=model).atoms,
                None,
            )
        else:
            self.simulate = jax.jit(simulate)
        start = time.perf_counter()
        self.run()
        self.first = time.perf_counter() - start

    def sequence_of(self, flips):
        flips, phase = flips.astype(self.dtype), self.arrays.get("phase")
        if self.arrays["kind"] == "cpmg":
            return mr.sequences.tse(flips, ESP)
        return mr.sequences.fisp(flips, TR, 0.0, TI, phase=None if phase is None else phase.astype(self.dtype))

    def run(self, flips=None) -> float:
        import jax

        start = time.perf_counter()
        sequence = self.sequence if flips is None else self.sequence_of(flips)
        self.last = jax.block_until_ready(self.simulate(sequence, self.tissue))
        return time.perf_counter() - start

    def result(self) -> dict:
        names = ("signal", "jacobian")
        return {name: np.asarray(value) for name, value in zip(names, self.last, strict=True) if value is not None}


class Peer:
    """Another simulator, in a process of its own."""

    def __init__(self, name: str, python: Path | None, folder: Path):
        self.name, self.folder, self.process = name, folder, None
        executable = sys.executable if python is None and name == "NumPy" else python
        if executable is not None:
            command = [executable, Path(__file__).with_name("peers.py")]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )

    def ask(self, **request) -> dict:
        if self.process is None:
            return {"error": "not installed (give --peers)"}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "its process died"}

    def prepare(self, arrays: dict) -> dict:
        path = self.folder / "work.npz"
        np.savez(path, **arrays)
        return self.ask(do="prepare", peer=self.name, work=str(path))

    def run(self, flips=None) -> float:
        if flips is None:
            answer = self.ask(do="run")
        else:
            np.save(self.folder / "flip.npy", flips)
            answer = self.ask(do="renew", flip=str(self.folder / "flip.npy"))
        return answer["seconds"]

    def result(self) -> dict:
        path = self.folder / "result.npz"
        self.ask(do="result", path=str(path))
        with np.load(path) as file:
            return {key: file[key] for key in file.files}

    def close(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait(timeout=30)


def in_turns(ours: Jaxmr, peer: Peer, flips=None) -> tuple[list[float], list[float]]:
    """Seconds of both, one call each in every round."""
    times = [], []
    for i in range(ROUNDS):
        for side, each in zip(times, (peer, ours), strict=True):
            time.sleep(PAUSE)
            side.append(each.run(None if flips is None else flips * (1 - 1e-3 * (i + 1))))
        if sum(times[0]) > BUDGET:
            break
    return times


def in_phase(found: dict, reference: dict) -> dict:
    """Signal and Jacobian turned by one phase, as peers put the axes of pulse and receiver elsewhere."""
    turn = np.exp(-1j * np.angle(np.vdot(reference["signal"], found["signal"])))
    return {name: turn * value for name, value in found.items()}


def error_of(found: dict, reference: dict) -> float:
    """Relative error of the signal, or of the worse column of the Jacobian."""
    if "jacobian" not in reference:
        return relative(found["signal"], reference["signal"])
    return max(relative(found["jacobian"][:, i], reference["jacobian"][:, i]) for i in range(2))


def measure(name: str, work: Work, peers: list[Peer], rows: list[dict]) -> None:
    """One workload against all peers: lines of the table, rows of the file."""
    import jax

    with jax.enable_x64(True):
        exact = {"orders": None, "tolerance": None}
        model = work.model()
        truth = Work("", None, work.arrays, lambda: type(model)(**{**vars(model), **exact}))
        reference = Jaxmr(truth, double=True).result()
    ours = Jaxmr(work)
    own = error_of(in_phase(ours.result(), reference), reference)
    print(f"{work.title}: jaxmr compiled in {ours.first:.1f} s, error {own:.1e}", flush=True)
    for peer in (peer for peer in peers if peer.name in work.peers):
        answer = peer.prepare(work.arrays)
        if "error" in answer:
            rows.append({"work": name, "title": work.title, "peer": peer.name, "skipped": answer["error"]})
            print(f"  {peer.name:10}{answer['error']}", flush=True)
            continue
        theirs, mine = in_turns(ours, peer, work.arrays["flip"] if name == "new" else None)
        found = in_phase(peer.result(), reference)
        row = {
            "work": name,
            "title": work.title,
            "peer": peer.name,
            "peer_version": answer["version"],
            "peer_first": answer["first"],
            "peer_seconds": theirs,
            "jaxmr_first": ours.first,
            "jaxmr_seconds": mine,
            "ratio": statistics.median(mine) / statistics.median(theirs),
            "target": work.target if peer.name == "blochsim" else None,
            "peer_error": None if name == "new" else error_of(found, reference),
            "jaxmr_error": own,
            "difference": error_of(found, in_phase(ours.result(), found)),
        }
        rows.append(row)
        target = f"(target {row['target']})" if row["target"] else ""
        error = "" if name == "new" else f"{row['peer_error']:9.1e}"
        print(
            f"  {peer.name:10}{1e3 * statistics.median(theirs):9.1f} ms, ours {1e3 * statistics.median(mine):7.1f} ms: "
            f"ratio {row['ratio']:6.3f} {target:14}error {error:9}  difference {row['difference']:8.1e}"
            f"  first {answer['first']:.1f} s, {len(theirs)} turns",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of the environment that holds the peers")
    parser.add_argument("--only", nargs="+", help="workloads by name")
    parser.add_argument("--against", nargs="+", choices=PEERS, default=PEERS, help="peers by name")
    arguments = parser.parse_args()
    mr.use_cores()
    works = workloads()
    unknown = set(arguments.only or ()) - works.keys()
    if unknown:
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(works)}")
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        peers = [Peer(name, arguments.peers, Path(folder)) for name in arguments.against]
        try:
            for name, work in works.items():
                if not arguments.only or name in arguments.only:
                    measure(name, work, peers, rows)
        finally:
            for peer in peers:
                peer.close()
    if not arguments.only and len(arguments.against) == len(PEERS):
        print(f"-> {save('field', rows)}")


if __name__ == "__main__":
    main()
