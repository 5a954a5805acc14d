"""Question: how long does the 312,480-atom EPG-Bloch dictionary of 1120 pulses and 32 sub-slices take on one GPU?

K = 20 orders, float32. The kernel is timed alone (its signals stay on the device), and the whole as a user calls it
(planned, every signal on the host); likewise plain EPG of 500 pulses. The literature's times for such a dictionary
are 71 h, and 10 s by a neural network. Without a GPU nothing is measured, and that is what is recorded.

    uv run benchmarks/gpu_dictionary.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxmr as mr
from jaxmr.models.model import prepare
from jaxmr.models.pallas import BLOCK, HardPulses, Levels, SelectivePulses, play_in_registers, supported
from jaxmr.models.repetition import Slices
from jaxmr.physics.rf import SLICE_RANGE
from jaxmr.units import mm, ms
from reporting import save, timed
from workloads import TE, TI, TR, atoms, lobes, relative

AXES = {"t1": np.geomspace(0.1, 5, 100), "t2": np.geomspace(0.01, 2, 100), "b1": np.linspace(0.8, 1.2, 40)}
N_PULSES, N_Z, ORDERS = 1120, 32, 20
PLAIN_ATOMS, PLAIN_PULSES = 200_000, 500
RUNS = 5


def row(work: str, n_atoms: int, times: dict[str, float], error: float) -> dict:
    """One line of the table, printed."""
    print(
        f"{work:42} {n_atoms:7} atoms {1e3 * times['median']:9.1f} ms "
        f"({1e3 * times['fastest']:.1f} ... {1e3 * times['slowest']:.1f}; first call {times['first']:.1f} s) "
        f"{n_atoms / times['median']:.3g} atoms/s, error {error:.1e}",
        flush=True,
    )
    return {"work": work, "atoms": n_atoms, "atoms_per_second": n_atoms / times["median"], "error": error, **times}


def exact(sequence: mr.sequences.Sequence, tissue: mr.Tissue, model: mr.Model) -> np.ndarray:
    """Signals in float64, with the same orders and sub-slices."""
    with jax.enable_x64(True):
        double = {name: np.asarray(leaf, float) for name, leaf in vars(tissue).items() if leaf is not None}
        return np.asarray(mr.simulate(sequence, mr.Tissue(**double), model))


def bloch() -> list[dict]:
    """The slice-selective dictionary: the kernel, then `mr.mrf.dictionary`."""
    sequence = mr.sequences.fisp(lobes(N_PULSES), tr=12 * ms, te=3 * ms, inversion_time=20 * ms)
    pulse = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=5 * mm)
    model = mr.EPGBloch(pulse=pulse, n_z=N_Z, orders=ORDERS)
    t1, t2 = (grid.ravel() for grid in np.meshgrid(AXES["t1"], AXES["t2"], indexing="ij"))
    t1, t2 = t1[t2 <= t1], t2[t2 <= t1]
    n_levels, n_pairs = len(AXES["b1"]), len(t1)
    # Every level of B1 fills whole blocks, the last atom repeated.
    n_blocks = -(-n_pairs // BLOCK)
    padded = np.minimum(np.arange(n_blocks * BLOCK), n_pairs - 1)
    tissue = mr.Tissue(t1=jnp.asarray(np.tile(t1[padded], n_levels)), t2=jnp.asarray(np.tile(t2[padded], n_levels)))
    levels = Levels(jnp.asarray(AXES["b1"], jnp.float32), jnp.asarray(np.repeat(np.arange(n_levels), n_blocks)))
    slices = Slices(N_Z // 2, 2 * SLICE_RANGE / N_Z, imaginary=True)
    extremes = mr.Tissue(t1=[0.1, 5.0], t2=[0.01, 2.0], b1=[AXES["b1"].min(), AXES["b1"].max()])
    pulses = SelectivePulses(prepare(sequence, extremes, model))
    assert supported(sequence, tissue, pulses, ORDERS, False, levels)
    kernel = jax.jit(lambda *args: play_in_registers(*args[:3], slices, ORDERS, False, args[3]))
    played = kernel(sequence, tissue, pulses, levels)
    chosen = np.linspace(0, tissue.shape[0] - 1, 24).astype(int)
    b1 = np.repeat(AXES["b1"], n_blocks * BLOCK)[chosen]
    reference = exact(sequence, mr.Tissue(t1=tissue.t1[chosen], t2=tissue.t2[chosen], b1=b1), model)
    error = relative(played[chosen], reference)
    del played
    times = timed(lambda: kernel(sequence, tissue, pulses, levels).block_until_ready(), RUNS)
    rows = [row("EPG-Bloch, kernel alone", n_levels * n_pairs, times, error)]
    made = []

    def whole():
        made[:] = [mr.mrf.dictionary(sequence, model=model, **AXES)]

    times = timed(whole, RUNS)
    chosen = np.linspace(0, len(made[0].t1) - 1, 24).astype(int)
    parameters = {name: getattr(made[0], name)[chosen] for name in AXES}
    error = relative(made[0].atoms[chosen], exact(sequence, mr.Tissue(**parameters), model))
    return [*rows, row("EPG-Bloch, mr.mrf.dictionary", len(made[0].t1), times, error)]


def plain() -> list[dict]:
    """Plain EPG in real arithmetic: the kernel, then `mr.simulate`."""
    sequence = mr.sequences.fisp(lobes(PLAIN_PULSES), tr=TR, te=TE, inversion_time=TI)
    tissue = mr.Tissue(*(jnp.asarray(values, jnp.float32) for values in atoms(PLAIN_ATOMS)))
    model = mr.EPG(orders=ORDERS)
    assert supported(sequence, tissue, HardPulses(), ORDERS, True)
    kernel = jax.jit(lambda *args: play_in_registers(*args, HardPulses(), Slices(), ORDERS, True))
    reference = exact(sequence, tissue[:24], model)
    rows = []
    for work, call in (("plain EPG, kernel alone", kernel), ("plain EPG, mr.simulate", None)):
        run = (lambda call=call: call(sequence, tissue)) if call else (lambda: mr.simulate(sequence, tissue, model))
        error = relative(run()[:24], reference)
        rows.append(row(work, PLAIN_ATOMS, timed(lambda run=run: run().block_until_ready(), RUNS), error))
    return rows


def main() -> None:
    if jax.default_backend() != "gpu":
        print("no GPU: not measured")
        path = save("gpu_dictionary", [{"work": "all", "measured": False, "why": "no GPU: not measured"}])
    else:
        path = save("gpu_dictionary", plain() + bloch())
    print(f"-> {path}")


if __name__ == "__main__":
    main()
