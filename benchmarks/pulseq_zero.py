"""Claim: an iteration of an optimised PyPulseq script takes a tenth of Pulseq-zero's time, or less.

A turbo spin echo (`tse_script.py`, 64x64, 4 shots of 16 echoes, instantaneous pulses) of the invented brain of
`imaging.py`. One iteration goes from 17 flip angles through the script, the simulation and the loss
|s - s_0|^2 + weight SAR (by Parseval as well of images) to its gradient. Pulseq-zero runs the script again each time,
plans its graph again, as its documentation has it, and simulates by MRzeroCore; with "kept" its graph is that of the
first iteration. jaxmr traced the script once; `optimise` plans again in every tenth iteration, which is its cost "as
used". Both are processes on two threads that take turns, each with the setting that reaches a level of error (against
jaxmr at 1e-5 in float64) fastest. Pulseq-zero lives in an environment of its own (`pip install torch mrzerocore
pulseqzero`), whose Python is named by --peers. On a machine that computes something else torch's threads wait for each
other: 10 times slower, and no comparison.

    uv run benchmarks/pulseq_zero.py --peers PEERS/bin/python
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import equinox as eqx
import numpy as np

import jaxmr as mr
from imaging import LOOSER, Side, brain, in_turns
from imaging_peers import serve
from jaxmr import pulseq
from pulseq_zero_peer import WEIGHT
from reporting import save
from tse_script import TURBO, tse
from workloads import relative

LEVELS = {
    1e-2: {"states": 200, "magnitude": 1e-3, "threshold": 3e-3, "probes": 2},
    1e-3: {"states": 200, "magnitude": 5e-4, "threshold": 3e-4, "probes": 2},
}
"""Error: thresholds of MRzeroCore that `imaging.py` found to be the fastest that reach it."""
EVERY = 10
"""Iterations from plan to plan in `mr.design.optimise`."""
START = np.append(np.pi / 2, np.full(TURBO, np.pi))
NOW = 0.9 * START
TARGET = 10.0


class Jaxmr:
    """jaxmr at the script, with the requests of the peer."""

    def prepare(self, path: str | None = None, target: str | None = None) -> dict:
        import jax

        self.phantom, self.devices = brain(), jax.devices()
        self.traced = pulseq.trace(lambda flips: tse(pulseq, flips), flips=START)
        self.target = np.load(target)["target"] if target else None
        self.model, self.last = None, {}
        return {"voxels": self.phantom.tissue.shape[0]}

    def level(self, tolerance: float, **_) -> dict:
        self.tolerance = tolerance
        self.plan()
        self.compiled = eqx.filter_jit(self._loss_and_gradient)
        return {"states": self.model.n_states}

    def plan(self) -> None:
        self.model = mr.PDG(self.tolerance).planned(self.traced(flips=NOW), self.phantom)

    def _signal(self, flips, model):
        return mr.simulate(self.traced(flips=flips), self.phantom, model, devices=self.devices)[0]

    def _loss_and_gradient(self, flips, model):
        import jax
        import jax.numpy as jnp

        def loss(flips):
            signal = self._signal(flips, model)
            difference = signal - self.target
            return jnp.sum(difference.real**2 + difference.imag**2) + WEIGHT * jnp.sum(flips**2), signal

        return jax.value_and_grad(loss, has_aux=True)(flips)

    def iteration(self) -> None:
        import jax.numpy as jnp

        (loss, signal), gradient = self.compiled(jnp.asarray(NOW, jnp.float32), self.model)
        self.last = {"loss": np.asarray(loss), "signal": np.asarray(signal), "gradient": np.asarray(gradient)}

    def planned(self) -> None:
        self.plan()
        self.iteration()

    def kept(self) -> None:
        self.iteration()

    def result(self, path: str) -> None:
        np.savez(path, **self.last)


def reference(path: Path) -> dict[str, np.ndarray]:
    """Signal of the start, which the loss asks for; signal and gradient now, from a fine plan in float64."""
    import jax

    with jax.enable_x64(True):
        truth = Jaxmr()
        truth.prepare()
        # Far from the start, so that the loss is no difference of like numbers.
        model = mr.PDG(1e-5).planned(truth.traced(flips=START), truth.phantom)
        truth.target = np.asarray(mr.simulate(truth.traced(flips=START), truth.phantom, model))[0]
        model = mr.PDG(1e-5).planned(truth.traced(flips=NOW), truth.phantom)
        (loss, signal), gradient = eqx.filter_jit(truth._loss_and_gradient)(jax.numpy.asarray(NOW), model)
        phantom = truth.phantom
        tissue = phantom.tissue
        np.savez(
            path, target=truth.target.astype(np.complex64), now=NOW, pos=-np.asarray(phantom.position),
            pd=np.asarray(tissue.m0), t1=np.asarray(tissue.t1), t2=np.asarray(tissue.t2), b0=-np.asarray(tissue.b0),
            nyquist=0.5 / np.asarray(phantom.voxel_size),
        )  # fmt: skip
    return {"loss": np.asarray(loss), "signal": np.asarray(signal), "gradient": np.asarray(gradient)}


def measured(level: float, setting: dict, python: Path, folder: Path, truth: dict) -> list[dict]:
    """Iterations of both at one level of error, plans in each or kept."""
    path, rows = str(folder / "scan.npz"), []
    here, there = (Path(__file__), Path(__file__).with_name("pulseq_zero_peer.py"))
    with (
        Side(folder, [sys.executable, str(here), "--serve"], target=path) as ours,
        Side(folder, [str(python), str(there)], path=path) as theirs,
    ):
        for factor in LOOSER:
            mine_too = ours.ask("level", tolerance=factor * level)["states"]
            ours.ask("iteration")
            if relative(ours.result()["signal"], truth["signal"]) <= level:
                break
        states = [mine_too, theirs.ask("level", **setting)["states"]]
        for do in ("planned", "kept"):
            firsts = [side.ask(do)["seconds"] for side in (ours, theirs)]
            mine, peer = in_turns([ours, theirs], do)
            found = [side.result() for side in (ours, theirs)]
            row = {
                "level": level, "tolerance": factor * level, "plan": do, "setting": setting, "states": states,
                "firsts": firsts,
                "jaxmr": mine, "peer": peer, "versions": theirs.about["versions"],
                "ratio": statistics.median(peer) / statistics.median(mine),
                "errors": [relative(one["signal"], truth["signal"]) for one in found],
                "gradient_errors": [relative(one["gradient"], truth["gradient"]) for one in found],
            }  # fmt: skip
            rows.append(row)
            print(
                f"error {level:g}, plan {'in each iteration' if do == 'planned' else 'kept':17} jaxmr "
                f"{1e3 * statistics.median(mine):7.1f} ms, Pulseq-zero {1e3 * statistics.median(peer):7.0f} ms, ratio "
                f"{row['ratio']:.1f} (target {TARGET:g}); first {firsts[0]:.1f} and {firsts[1]:.1f} s; errors of "
                f"the signal {row['errors'][0]:.1e}, {row['errors'][1]:.1e}, "
                f"of the gradient {row['gradient_errors'][0]:.0e}, {row['gradient_errors'][1]:.0e}",
                flush=True,
            )
    planned, kept = ({side: statistics.median(row[side]) for side in ("jaxmr", "peer")} for row in rows)
    used = (planned["jaxmr"] + (EVERY - 1) * kept["jaxmr"]) / EVERY
    print(
        f"error {level:g}, as used: jaxmr (a plan every {EVERY}) {1e3 * used:.0f} ms, Pulseq-zero (a plan each) "
        f"{1e3 * planned['peer']:.0f} ms, ratio {planned['peer'] / used:.1f} (target {TARGET:g})",
        flush=True,
    )
    return [*rows, {"level": level, "jaxmr_as_used": used, "ratio_as_used": planned["peer"] / used}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of the environment that holds Pulseq-zero")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    mr.use_cores()
    if arguments.serve:
        return serve(Jaxmr())
    if arguments.peers is None:
        parser.error("--peers is needed: there is nothing to compare with")
    started, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        truth = reference(Path(folder) / "scan.npz")
        for level, setting in LEVELS.items():
            rows += measured(level, setting, arguments.peers, Path(folder), truth)
    print(f"-> {save('pulseq_zero', rows)} ({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
