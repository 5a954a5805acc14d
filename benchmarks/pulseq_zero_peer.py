"""Pulseq-zero at the script of `pulseq_zero.py`, in an environment of its own; nothing here imports jaxmr.

The protocol is that of `imaging_peers.py`. The script runs with `import pulseqzero as pp`, `to_mr0` turns it into
MRzeroCore's sequence, `compute_graph` and `execute_graph` simulate it, torch differentiates.
"""

from importlib.metadata import version

import numpy as np

from imaging_peers import THREADS, serve, voxels
from tse_script import tse

WEIGHT = 1.0
"""Of the sum of squared flips (rad2) in the loss."""


class PulseqZero:
    """One iteration: script, simulation, loss, gradient."""

    def prepare(self, path: str) -> dict:
        import MRzeroCore
        import pulseqzero
        import torch

        torch.set_num_threads(THREADS)
        self.mrzero, self.pulseqzero, self.torch = MRzeroCore, pulseqzero, torch
        with np.load(path) as file:
            scan = {name: file[name] for name in file.files}
        self.data, self.now = voxels(scan), torch.as_tensor(scan["now"], dtype=torch.float32)
        self.target = torch.as_tensor(scan["target"])
        self.graph, self.last = None, {}
        return {"versions": {name: version(name) for name in ("pulseqzero", "mrzerocore", "torch")}}

    def level(self, states: int, magnitude: float, threshold: float, probes: int, **_) -> dict:
        order = self.torch.argsort(self.data.T2)
        chosen = order[np.linspace(0, len(order) - 1, probes).astype(int)].tolist()
        times = {"T1": self.data.T1, "T2": self.data.T2, "T2dash": self.data.T2dash, "D": self.data.D}
        tissues = {str(i): {name: float(values[i]) for name, values in times.items()} for i in chosen}
        self.plan = lambda sequence: self.mrzero.compute_graph(sequence, self.data, states, magnitude, tissues)
        self.threshold = threshold
        self.graph = self.plan(tse(self.pulseqzero, self.now).to_mr0())
        return {"states": sum(len(repetition) for repetition in self.graph[1:])}

    def planned(self) -> None:
        self._iterate(None)

    def kept(self) -> None:
        self._iterate(self.graph)

    def _iterate(self, graph) -> None:
        flips = self.now.clone().requires_grad_()
        sequence = tse(self.pulseqzero, flips).to_mr0()
        graph = self.plan(sequence) if graph is None else graph
        limits = {"min_emitted_signal": self.threshold, "min_latent_signal": self.threshold}
        # Its receiver has a phase of a quarter turn when the script says none.
        signal = -1j * self.mrzero.execute_graph(graph, sequence, self.data, print_progress=False, **limits)[:, 0]
        loss = (signal - self.target).abs().square().sum() + WEIGHT * flips.square().sum()
        loss.backward()
        self.last = {"loss": loss.detach().numpy(), "signal": signal.detach().numpy(), "gradient": flips.grad.numpy()}

    def result(self, path: str) -> None:
        np.savez(path, **self.last)


if __name__ == "__main__":
    serve(PulseqZero())
