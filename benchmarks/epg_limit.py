"""Claim: plain EPG in JAX comes within a small factor of hand-written C, in real and in complex arithmetic.

K = 20 orders, 1000 atoms x 1000 pulses, inversion, float32, all cores; both in one run, signals compared. The C
kernel is no part of the project: give the folder that holds `epg_limit.c`.

    uv run benchmarks/epg_limit.py --limits ../shared/limits
"""

import argparse
import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import jaxmr as mr
from reporting import save, timed

N_ATOMS, N_PULSES, ORDERS = 1000, 1000, 20
TR, TE, TI = 10e-3, 5e-3, 20e-3


def limit_library(folder: Path) -> ctypes.CDLL:
    """The C kernels, compiled for this machine."""
    library = Path(tempfile.mkdtemp()) / "limit.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    subprocess.check_call(["gcc", *flags, folder / "epg_limit.c", "-o", library, "-lm"])
    return ctypes.CDLL(str(library))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=Path, required=True, help="folder with epg_limit.c")
    library = limit_library(parser.parse_args().limits)
    mr.use_cores()
    import jax

    rng = np.random.default_rng(0)
    t1 = np.exp(rng.uniform(np.log(0.1), np.log(5), N_ATOMS))
    t2 = np.minimum(t1, np.exp(rng.uniform(np.log(0.01), np.log(2), N_ATOMS)))
    i = np.arange(N_PULSES)
    peaks = np.array([65.0, 35.0, 50.0, 25.0, 45.0])[(i // 200) % 5]
    flips = np.deg2rad(5 + peaks * np.sin(np.pi * ((i % 200) + 0.5) / 200) ** 2)
    phases = np.mod(np.deg2rad(117) * i * (i + 1) / 2, 2 * np.pi)
    ones, cores = np.ones(1), os.cpu_count()
    signal = np.empty((N_ATOMS, N_PULSES), np.complex64)
    pointer = lambda array: array.ctypes.data_as(ctypes.c_void_p)  # noqa: E731
    times = [ctypes.c_double(value) for value in (TR, TE, TI)]

    def real():
        library.fisp_real(
            N_ATOMS, pointer(t1), pointer(t2), N_PULSES, pointer(flips), *times, ORDERS, 1, pointer(ones),
            pointer(signal), cores,
        )  # fmt: skip

    def rotating():
        library.fisp_complex(
            N_ATOMS, pointer(t1), pointer(t2), N_PULSES, pointer(flips), pointer(phases), *times, ORDERS, None,
            ctypes.c_double(-1.0), pointer(signal), cores,
        )  # fmt: skip

    tissue = mr.Tissue(t1=np.float32(t1), t2=np.float32(t2))
    rows = []
    print(f"{'train':24}{'C ms':>8}{'jaxmr ms':>10}{'compile s':>11}{'ratio':>7}{'difference':>12}")
    for name, call, phase in (("constant phase, real", real, None), ("quadratic phase, complex", rotating, phases)):
        sequence = mr.sequences.fisp(np.float32(flips), TR, TE, TI, phase=None if phase is None else np.float32(phase))
        run = jax.jit(lambda t, s=sequence: mr.simulate(s, t, mr.EPG(orders=ORDERS), devices=jax.devices()))
        ours, limit = timed(lambda run=run: run(tissue).block_until_ready()), timed(call)
        # The C kernel leaves the receiver at rest, ours follows the pulses.
        expected = signal if phase is None else signal * np.exp(-1j * phase)
        difference = float(np.linalg.norm(np.asarray(run(tissue)) - expected) / np.linalg.norm(expected))
        ratio = ours["median"] / limit["median"]
        rows.append({"train": name, "c": limit, "jaxmr": ours, "ratio": ratio, "difference": difference})
        print(
            f"{name:24}{1e3 * limit['median']:8.2f}{1e3 * ours['median']:10.2f}"
            f"{ours['first']:11.2f}{ratio:7.2f}{difference:12.1e}"
        )
    print(f"-> {save('epg_limit', rows)}")


if __name__ == "__main__":
    main()
