"""Claim: EPG in JAX comes within a small factor of hand-written C: real, complex, slice-selective, with derivatives.

K = 20 orders (unless exact), 1000 atoms x 1000 pulses, inversion, float32, all cores; both in turns in one run,
signals compared. The slice-selective kernel takes coefficients: it is given jaxmr's own table, looked up, and sampled
where it samples, just before the next pulse's centre. The C kernels are no part of the project: give their folder.

    uv run benchmarks/epg_limit.py --limits ../shared/limits
    uv run benchmarks/epg_limit.py --limits ../shared/limits --only real complex
"""

import argparse
import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import jaxmr as mr
from jaxmr.units import mm, ms
from reporting import in_turns, save
from workloads import TE, TI, TR, atoms, lobes, quadratic_phase, relative

N_ATOMS, N_PULSES, ORDERS, N_Z, SLICE_ATOMS = 1000, 1000, 20, 32, 512
N_ECHOES, ESP, REFOCUSING, CPMG_ATOMS = 64, 10e-3, np.deg2rad(150), 10_000
TARGETS = {"real": 5, "complex": 6, "slice": 8}
"""Largest ratios to C that are aimed at."""


def libraries(folder: Path) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The C and C++ kernels, compiled for this machine."""
    # Their idle threads would otherwise spin on the cores while jaxmr computes.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    made = Path(tempfile.mkdtemp())
    for compiler, source in (("gcc", "epg_limit.c"), ("g++", "epg_slice_limit.cpp")):
        subprocess.check_call([compiler, *flags, folder / source, "-o", made / f"{source}.so", "-lm"])
    return ctypes.CDLL(str(made / "epg_limit.c.so")), ctypes.CDLL(str(made / "epg_slice_limit.cpp.so"))


def address(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros in float32 that begin where a vector of 64 bytes may."""
    n = int(np.prod(shape))
    buffer = np.zeros(n + 16, np.float32)
    start = -buffer.ctypes.data % 64 // 4
    return buffer[start : start + n].reshape(shape)


class Comparison:
    """One row: a call of the C kernel, where it writes, and the same by jaxmr as sequence, tissue and model."""

    def __init__(self, limit: Callable, signal: np.ndarray, sequence, tissue, model, jacobian=None, receiver=1.0):
        self.limit, self.signal, self.sequence, self.tissue, self.model = limit, signal, sequence, tissue, model
        self.jacobian, self.receiver = jacobian, receiver


def doubles(*values: float) -> list[ctypes.c_double]:
    return [ctypes.c_double(value) for value in values]


def plain(c: ctypes.CDLL, name: str) -> Comparison:
    """Plain EPG: constant phase, quadratic phase, all orders, or signal and derivatives."""
    (t1, t2), flips, phases, ones = atoms(N_ATOMS), lobes(N_PULSES), quadratic_phase(N_PULSES), np.ones(1)
    orders = N_PULSES if name == "exact" else ORDERS
    out, d1, d2 = np.empty((3, N_ATOMS, N_PULSES), np.complex64)
    times, cores = doubles(TR, TE, TI), os.cpu_count()
    head = (N_ATOMS, address(t1), address(t2), N_PULSES, address(flips))
    if name == "complex":
        tail = (address(phases), *times, orders, None, *doubles(-1), address(out), cores)
        call = functools.partial(c.fisp_complex, *head, *tail)
    elif name == "jacobian":
        call = functools.partial(c.fisp_real_jac, *head, *times, orders, address(out), address(d1), address(d2), cores)
    else:
        call = functools.partial(c.fisp_real, *head, *times, orders, 1, address(ones), address(out), cores)
    call.held = (t1, t2, flips, phases, ones)
    phase = np.float32(phases) if name == "complex" else None
    sequence = mr.sequences.fisp(np.float32(flips), TR, TE, TI, phase=phase)
    tissue = mr.Tissue(t1=np.float32(t1), t2=np.float32(t2))
    model = mr.EPG(orders=None if name == "exact" else ORDERS)
    # The C kernel leaves the receiver at rest, ours follows the pulses.
    receiver = np.exp(-1j * phases) if name == "complex" else 1.0
    return Comparison(call, out, sequence, tissue, model, (d1, d2) if name == "jacobian" else None, receiver)


def cpmg(c: ctypes.CDLL) -> Comparison:
    """CPMG echoes, all orders that can reach one."""
    t1, t2 = atoms(CPMG_ATOMS)
    out = np.empty((CPMG_ATOMS, N_ECHOES), np.complex64)
    angles = doubles(REFOCUSING, ESP)
    call = functools.partial(
        c.cpmg_real, CPMG_ATOMS, address(t1), address(t2), N_ECHOES, *angles, address(out), os.cpu_count()
    )
    call.held = (t1, t2)
    sequence = mr.sequences.tse(np.full(N_ECHOES, np.float32(REFOCUSING)), ESP)
    return Comparison(call, out, sequence, mr.Tissue(t1=np.float32(t1), t2=np.float32(t2)), mr.EPG(), receiver=-1j)


def selective(cpp: ctypes.CDLL) -> Comparison:
    """EPG-Bloch on half a symmetric slice, from one table of operators."""
    import jax

    from jaxmr.physics import selective as operators

    (t1, t2), flips = atoms(SLICE_ATOMS), np.float32(lobes(N_PULSES))
    pulse = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=5 * mm)
    positions = mr.rf.slice_positions(5 * mm, N_Z)[N_Z // 2 :]
    largest = float(np.max(1 / t2 - 1 / t1))
    table = jax.jit(operators.tabulate)(pulse, positions, float(flips.max()), largest)
    powers = np.asarray(operators.look_up(table, flips), float)  # (pulses, 3, 12, n_z)
    # Ours acts at the RF centre, the kernel's from start to end: what free relaxation takes from the transverse part.
    nodes = np.array([0.0, 0.5 - 0.5**1.5, 0.5 + 0.5**1.5])
    vander = np.vander(nodes, increasing=True)
    decay = np.exp(-nodes * float(table.delta_scale) * float(pulse.duration) / 2)
    factor = np.ones((3, 3, 4))
    factor[:, :2] *= decay[:, None, None]
    factor[:, :, :2] *= decay[:, None, None]
    factor = np.concatenate([factor[..., :3].reshape(3, 9), factor[..., 3]], axis=1)
    values = np.einsum("dp,npqz->ndqz", vander, powers) * factor[None, ..., None]
    found = np.einsum("pd,ndqz->nzpq", np.linalg.inv(vander), values)
    coefficients = np.ascontiguousarray(found.reshape(N_PULSES, N_Z // 2, 36), np.float32)
    weights = np.full(N_Z // 2, 2 * mr.rf.SLICE_RANGE / N_Z, np.float32)
    out = aligned((SLICE_ATOMS // 16, N_PULSES, 16))
    t1, t2 = np.float32(t1), np.float32(t2)
    duration = float(pulse.duration)
    floats = [ctypes.c_float(value) for value in (TR, TE, duration, TI - duration / 2, float(table.delta_scale))]
    call = functools.partial(
        cpp.epg_slice, address(coefficients), N_PULSES, N_Z // 2, address(weights), address(t1), address(t2),
        address(out), ctypes.c_long(SLICE_ATOMS), ORDERS, *floats, os.cpu_count(),
    )  # fmt: skip
    call.held = (coefficients, weights, t1, t2)
    sequence = mr.sequences.fisp(flips, TR, TE, TI)
    model = mr.EPGBloch(pulse=pulse, n_z=N_Z, orders=ORDERS)
    return Comparison(call, out, sequence, mr.Tissue(t1=t1, t2=t2), model)


def compare(name: str, made: Comparison) -> dict:
    """Times of both, and the difference of what they computed."""
    import jax

    def simulate(tissue):
        if made.jacobian is None:
            return mr.simulate(made.sequence, tissue, made.model, devices=jax.devices())
        return mr.simulate_with_jacobian(made.sequence, tissue, made.model, devices=jax.devices())

    run = jax.jit(simulate)
    limit, ours = in_turns(made.limit, lambda: jax.block_until_ready(run(made.tissue)))
    found, expected = run(made.tissue), made.signal
    if name == "slice":
        # Sixteen atoms side by side; the imaginary part, all there is of half a symmetric slice.
        expected = 1j * np.moveaxis(expected, 1, 2).reshape(SLICE_ATOMS, N_PULSES)
    if made.jacobian is not None:
        found, expected = np.asarray(found[1]), np.stack(made.jacobian, 1)
    difference = relative(found, made.receiver * expected)
    ratio = ours["median"] / limit["median"]
    target = TARGETS.get(name)
    print(
        f"{name:10}{1e3 * limit['median']:8.2f}{1e3 * ours['median']:10.2f}{ours['first']:11.2f}{ratio:7.2f}"
        f"{target or '':>8}{difference:12.1e}",
        flush=True,
    )
    return {"work": name, "c": limit, "jaxmr": ours, "ratio": ratio, "target": target, "difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=Path, required=True, help="folder with epg_limit.c and epg_slice_limit.cpp")
    names = ("real", "complex", "exact", "jacobian", "cpmg", "slice")
    parser.add_argument("--only", nargs="+", choices=names, help="rows by name", default=names)
    arguments = parser.parse_args()
    c, cpp = libraries(arguments.limits)
    mr.use_cores()
    print(f"{'work':10}{'C ms':>8}{'jaxmr ms':>10}{'compile s':>11}{'ratio':>7}{'target':>8}{'difference':>12}")
    rows = []
    for name in arguments.only:
        special = {"cpmg": lambda: cpmg(c), "slice": lambda: selective(cpp)}
        rows.append(compare(name, special.get(name, functools.partial(plain, c, name))()))
    if len(rows) == len(names):
        print(f"-> {save('epg_limit', rows)}")


if __name__ == "__main__":
    main()
