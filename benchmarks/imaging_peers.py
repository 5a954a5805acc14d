"""MRzeroCore behind a small protocol, run by `imaging.py` in an environment of its own.

Requests are JSON lines on stdin, answers JSON lines on stdout. `prepare` reads a scan from an .npz file; `plan` is its
pre-pass with given thresholds; `forward` and `gradient` play it once; `result` writes what they found; `memory` answers
the bytes of this process, and their peak since it was last asked. jaxmr answers the same (`serve`). Nothing here
imports jaxmr; MRzeroCore is used as its documentation says: `compute_graph`, then `execute_graph` and autograd.

A scan: rep_start, angle, phase of the pulses; dt, gradm (1/m), adc, adc_phase of the events (a step of a readout each);
pos, pd, t1, t2, b0 (Hz) of the voxels, in MRzero's frame; nyquist (1/m); target of the loss.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

THREADS = 2
NEVER = 1e9
"""T2' (s) of voxels that have none."""


def resident(peak: bool = False) -> int:
    """Bytes of this process that lie in memory, or lay there at most since `forget_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def forget_peak() -> None:
    """Let the peak count from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def voxels(scan):
    """The voxels of a scan as MRzeroCore has them."""
    import MRzeroCore
    import torch

    tensor = lambda name: torch.as_tensor(scan[name], dtype=torch.float32)  # noqa: E731
    n = len(scan["t1"])
    return MRzeroCore.SimData(
        PD=tensor("pd"), T1=tensor("t1"), T2=tensor("t2"), T2dash=torch.full((n,), NEVER), D=torch.zeros(n),
        B0=tensor("b0"), B1=torch.ones(1, n), coil_sens=torch.ones(1, n), size=torch.ones(3), affine=torch.eye(4),
        voxel_pos=tensor("pos"), nyquist=tensor("nyquist"),
        dephasing_func=MRzeroCore.phantom.voxel_grid_phantom.sigmoid,
    )  # fmt: skip


class MRzero:
    """A scan as MRzeroCore has it."""

    def prepare(self, path: str) -> dict:
        import MRzeroCore
        import torch

        torch.set_num_threads(THREADS)
        self.mrzero, self.torch = MRzeroCore, torch
        with np.load(path) as file:
            scan = {name: file[name] for name in file.files}
        self.target = torch.as_tensor(scan["target"]).to(torch.complex64)
        tensor = lambda name: torch.as_tensor(scan[name], dtype=torch.float32)  # noqa: E731
        self.leaves = {name: tensor(name) for name in ("angle", "gradm", "pd", "t1", "t2", "b0")}
        ends = [*scan["rep_start"][1:], len(scan["dt"])]
        self.spans = [slice(start, end) for start, end in zip(scan["rep_start"], ends, strict=True)]
        self.sequence = MRzeroCore.Sequence(normalized_grads=False)
        for i, span in enumerate(self.spans):
            repetition = self.sequence.new_rep(span.stop - span.start)
            repetition.pulse.phase = tensor("phase")[i]
            repetition.event_time[:] = tensor("dt")[span]
            repetition.adc_phase[:] = tensor("adc_phase")[span]
            repetition.adc_usage[:] = torch.as_tensor(scan["adc"])[span]
        self._set(self.leaves["angle"], self.leaves["gradm"])
        self.data = voxels(scan)
        self.graph, self.last, self.threshold = None, {}, None
        return {"versions": {name: version(name) for name in ("mrzerocore", "torch")}}

    def plan(self, states: int, magnitude: float, threshold: float, probes: int) -> dict:
        tissues = self._probes(probes) if probes else None
        self.graph = self.mrzero.compute_graph(self.sequence, self.data, states, magnitude, tissues)
        self.threshold = threshold
        return {"states": sum(len(repetition) for repetition in self.graph[1:])}

    def _probes(self, n: int) -> dict[str, dict[str, float]]:
        """Tissues from the shortest to the longest T2, beside the mean that its pre-pass takes."""
        order = self.torch.argsort(self.data.T2)
        chosen = order[np.linspace(0, len(order) - 1, n).astype(int)].tolist()
        times = {"T1": self.data.T1, "T2": self.data.T2, "T2dash": self.data.T2dash, "D": self.data.D}
        return {str(i): {name: float(values[i]) for name, values in times.items()} for i in chosen}

    def threads(self, n: int) -> None:
        self.torch.set_num_threads(n)

    def result(self, path: str) -> None:
        np.savez(path, **self.last)

    def _signal(self):
        limits = {"min_emitted_signal": self.threshold, "min_latent_signal": self.threshold}
        return self.mrzero.execute_graph(self.graph, self.sequence, self.data, print_progress=False, **limits)

    def forward(self) -> None:
        with self.torch.no_grad():
            self.last = {"signal": self._signal()[:, 0].numpy()}

    def gradient(self) -> None:
        leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in self.leaves.items()}
        data = self.data
        before = data.PD, data.T1, data.T2, data.B0
        data.PD, data.T1, data.T2, data.B0 = (leaves[name] for name in ("pd", "t1", "t2", "b0"))
        self._set(leaves["angle"], leaves["gradm"])
        try:
            loss = (self._signal()[:, 0] - self.target).abs().square().sum()
            loss.backward()
        finally:
            data.PD, data.T1, data.T2, data.B0 = before
            self._set(self.leaves["angle"], self.leaves["gradm"])
        self.last = {name: leaf.grad.numpy() for name, leaf in leaves.items()} | {"loss": loss.detach().numpy()}

    def _set(self, angle, gradm) -> None:
        for i, (repetition, span) in enumerate(zip(self.sequence, self.spans, strict=True)):
            repetition.pulse.angle, repetition.gradm = angle[i], gradm[span]


def serve(scan) -> None:
    """Answer requests for the methods of `scan` until there are no more, each with the seconds it took."""
    # What a peer prints is no answer, be it by Python or by compiled code.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        start = time.perf_counter()
        try:
            if do == "memory":
                answer = {"now": resident(), "peak": resident(peak=True)}
                forget_peak()
            else:
                answer = getattr(scan, do)(**request) or {}
            answer["seconds"] = time.perf_counter() - start
        except ImportError as error:
            answer = {"error": f"not installed ({error.name or error})"}
        except Exception as error:
            answer = {"error": f"failed ({type(error).__name__}: {error})"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(MRzero())
