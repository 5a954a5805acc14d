"""Claim: matching runs at most of the machine's float32 GEMM rate, and rank 12 finds the same atoms in a fiftieth.

10,000 voxels x 5000 atoms x 1000 points, complex, with `mr.mrf.match`. The rate is that of NumPy's (OpenBLAS) real
matrix products with as many multiplications: the inner products of complex signals with complex atoms are two real
products of (voxels, 2 points) by (2 points, atoms); those of atoms that are real up to a phase are half of that.

    uv run benchmarks/matching.py
"""

import argparse

import numpy as np

import jaxmr as mr
from reporting import save, timed
from workloads import TE, TI, TR, lobes, quadratic_phase

N_VOXELS, N_ATOMS, N_PULSES, RANK, NOISE = 10_000, 5000, 1000, 12, 0.02


def grid(n: int):
    """T1 and T2 of the first n atoms, T2 at most T1, spread evenly over a grid."""
    t1, t2 = np.meshgrid(np.geomspace(0.1, 5, 90), np.geomspace(0.01, 2, 90), indexing="ij")
    kept = np.flatnonzero(t2 <= t1)
    kept = kept[np.linspace(0, len(kept) - 1, n).astype(int)]
    return t1.ravel()[kept], t2.ravel()[kept]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    mr.use_cores()
    rng = np.random.default_rng(0)
    t1, t2 = grid(N_ATOMS)
    tissue = mr.Tissue(t1=np.float32(t1), t2=np.float32(t2))
    rows = []
    print(f"{'dictionary':34}{'match ms':>10}{'GEMM ms':>10}{'share of rate':>15}{'same atoms':>12}")
    for name, phase in (("real up to a phase", None), ("complex", np.float32(quadratic_phase(N_PULSES)))):
        sequence = mr.sequences.fisp(np.float32(lobes(N_PULSES)), TR, TE, TI, phase=phase)
        if phase is not None:
            # A receiver at rest, so that the atoms are truly complex.
            sequence = still(sequence)
        model = mr.EPG(tolerance=1e-2)
        full = mr.mrf.dictionary(sequence, tissue=tissue, model=model)
        low = mr.mrf.dictionary(sequence, tissue=tissue, model=model, rank=RANK)
        chosen = rng.integers(N_ATOMS, size=N_VOXELS)
        signals = full.atoms[chosen] * np.exp(2j * np.pi * rng.random((N_VOXELS, 1)))
        level = NOISE * np.abs(full.atoms).max()
        noise = rng.normal(size=(*signals.shape, 2)).view(complex)[..., 0]
        signals = (signals + level * noise).astype(np.complex64)
        projected = (signals @ np.asarray(low.basis).conj()).astype(np.complex64)
        truth = mr.mrf.match(full, signals).index
        for label, dictionary, points in ((f"{name}, full", full, signals), (f"{name}, rank {RANK}", low, projected)):
            own = timed(lambda d=dictionary, p=points: mr.mrf.match(d, p), runs=3 if points is signals else 9)
            inner = points.shape[1] if phase is None else 2 * points.shape[1]
            left = rng.normal(size=(N_VOXELS, inner)).astype(np.float32)
            right = rng.normal(size=(inner, N_ATOMS)).astype(np.float32)
            out = np.empty((N_VOXELS, N_ATOMS), np.float32)
            gemm = timed(lambda a=left, b=right, c=out: np.matmul(a, b, out=c), runs=3 if points is signals else 9)
            products = 2 * gemm["median"]
            same = float(np.mean(mr.mrf.match(dictionary, points).index == truth))
            share = products / own["median"]
            rate = 2 * N_VOXELS * N_ATOMS * inner / gemm["median"]
            rows.append(
                {
                    "dictionary": label,
                    "match": own,
                    "one_gemm": gemm,
                    "gemm_flops": rate,
                    "share_of_rate": share,
                    "same_atoms": same,
                    "right_atom": float(np.mean(mr.mrf.match(dictionary, points).index == chosen)),
                }
            )
            print(
                f"{label:34}{1e3 * own['median']:10.0f}{1e3 * products:10.0f}{100 * share:13.0f} %{100 * same:10.2f} %",
                flush=True,
            )
    print(f"-> {save('matching', rows)}")


def still(sequence):
    """The sequence with a receiver that does not follow the phases of its pulses."""
    import equinox as eqx

    last = len(sequence.segments) - 1
    where = lambda s: s.segments[last].events[0].receiver_phase  # noqa: E731
    return eqx.tree_at(where, sequence, np.zeros(N_PULSES, np.float32))


if __name__ == "__main__":
    main()
