"""Claim: k-space of isochromats takes a third of the time of NumPy vectorised over spins, or less.

51,312 spins follow a Cartesian gradient echo and a turbo spin echo, 64 x 64, float32, one process. NumPy does the same
jumps and samples as plain expressions, 8192 spins at a time; in a second column it computes the factor between
two samples once per event. Errors (jaxmr, NumPy) against jaxmr in float64.

    uv run benchmarks/isochromats.py
    uv run benchmarks/isochromats.py --only gre
"""

import argparse

import numpy as np

import jaxmr as mr
from jaxmr.models.isochromats import Isochromats
from jaxmr.models.spins import points
from jaxmr.sequences.sequence import Event, Pulse, Segment, Sequence
from reporting import in_turns, save
from workloads import relative

MATRIX, FOV, PER_VOXEL = 64, 0.2, 16
READ = np.array([2 * np.pi / FOV * MATRIX, 0, 0])
CRUSH = np.array([0, 0, 2 * np.pi / 3.125e-3])
"""Moments of the readout and of a spoiler, one turn over a pixel, rad/m."""
CHUNK = 8192


def phantom(dtype=np.float32) -> mr.Phantom:
    """A disc of 3207 voxels with smooth maps."""
    y, x = (np.mgrid[:MATRIX, :MATRIX] - MATRIX // 2) / (MATRIX / 2)
    maps = {"t1": 0.5 + (1 + x) / 2, "t2": 0.05 + 0.1 * (1 + y) ** 2, "m0": 1 + 0.2 * x * y}
    maps |= {"b0": 20 * np.sin(3 * x), "b1": 1 - 0.2 * y}
    mask = x**2 + y**2 <= 1
    return mr.objects.from_maps(
        **{name: value.astype(dtype) for name, value in maps.items()}, mask=mask, fov=FOV, voxel_shape="box"
    )


def lines() -> np.ndarray:
    """Moments (n, 3) of the phase encoding, rad/m."""
    steps = 2 * np.pi / FOV * (np.arange(MATRIX) - MATRIX // 2)
    return np.stack([0 * steps, steps, 0 * steps], axis=-1)


def gre(dtype=np.float32) -> Sequence:
    """RF- and gradient-spoiled gradient echo, a line per repetition."""
    import jax.numpy as jnp

    n = np.arange(MATRIX)
    number = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    phase, flip = number(np.deg2rad(117 * n * (n + 1) / 2 % 360)), number(np.full(MATRIX, np.deg2rad(15)))
    events = (
        Event(number(2e-3), number(lines() - READ / 2)),
        Event(number(4e-3), number(READ), phase, samples=MATRIX),
        Event(number(2e-3), number(CRUSH - lines() - READ / 2)),
    )
    return Sequence((Segment(Pulse(flip, phase), events, MATRIX),))


def tse(dtype=np.float32) -> Sequence:
    """Turbo spin echo in one shot, equal crushers around each refocusing pulse."""
    import jax.numpy as jnp

    number = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    excite = Segment(Pulse(number(np.pi / 2)), (Event(number(4e-3), number(READ / 2 + CRUSH)),))
    events = (
        Event(number(2e-3), number(lines() - READ / 2 + CRUSH)),
        Event(number(4e-3), number(READ), samples=MATRIX),
        Event(number(2e-3), number(CRUSH - lines())),
    )
    flip, phase = number(np.full(MATRIX, np.deg2rad(150))), number(np.full(MATRIX, np.pi / 2))
    return Sequence((excite, Segment(Pulse(flip, phase, use="refocusing"), events, MATRIX)))


def steps_of(sequence: Sequence):
    """The sequence as NumPy numbers: (flip, phase) of a pulse, then (time, moment, samples, receiver phase) each."""
    for segment in sequence.segments:
        for i in range(segment.repetitions):
            of = lambda leaf, rank=0, i=i: np.asarray(leaf)[i] if np.ndim(leaf) > rank else np.asarray(leaf)  # noqa: E731
            phase = 0.0 if segment.pulse.phase is None else of(segment.pulse.phase)
            yield (
                (of(segment.pulse.flip), phase),
                [
                    (
                        of(e.duration),
                        of(e.moment, 1),
                        e.samples,
                        0.0 if e.receiver_phase is None else of(e.receiver_phase),
                    )
                    for e in segment.events
                ],
            )


def numpy_kspace(sequence: Sequence, voxels: mr.Phantom, reuse: bool) -> np.ndarray:
    """The same spins, steps and samples in NumPy; `reuse` computes the step between samples once per event."""
    tissue = voxels.tissue
    size = np.asarray(voxels.voxel_size)
    where = (points(PER_VOXEL, "regular")[:, :3] - 0.5).astype(np.float32) * size
    place = (np.asarray(voxels.position)[:, None] + where[None]).reshape(-1, 3)
    maps = [np.repeat(np.asarray(leaf), PER_VOXEL) for leaf in (tissue.t1, tissue.t2, tissue.m0, tissue.b1, tissue.b0)]
    played, total = list(steps_of(sequence)), np.zeros(sequence.n_echoes, complex)
    for start in range(0, len(place), CHUNK):
        part = slice(start, start + CHUNK)
        r = place[part]
        t1, t2, m0, b1, b0 = (leaf[part] for leaf in maps)
        plus, z = np.zeros(len(r), np.complex64), np.ones(len(r), np.float32)
        taken = []

        def factor(time, moment, r=r, b0=b0, t2=t2):
            return np.exp(1j * (r @ moment + np.float32(2 * np.pi) * b0 * time) - time / t2)

        for (flip, phase), events in played:
            turn = np.complex64(np.exp(1j * phase))
            c, s = np.cos(b1 * flip), np.sin(b1 * flip)
            plus = plus * turn.conj()
            plus, z = turn * (plus.real + 1j * (c * plus.imag - s * z)), s * plus.imag + c * z
            for time, moment, samples, receiver in events:
                n = max(samples, 1)
                e1 = np.exp(-time / n / t1)
                step = factor(time / n, moment / n)
                for j in range(n):
                    if not reuse and j:
                        step = factor(time / n, moment / n)
                    plus, z = plus * step, 1 + (z - 1) * e1
                    if samples:
                        taken.append((m0 @ plus) * np.exp(-1j * receiver))
        total += taken
    return total / PER_VOXEL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    families = {"gre": gre, "tse": tse}
    parser.add_argument("--only", nargs="+", choices=families, default=list(families))
    chosen = parser.parse_args().only
    import jax

    rows = []
    columns = f"{'NumPy':>12}{'reused step':>14}{'jaxmr ms':>10}{'ratio':>8}{'target':>8}{'ns/step':>9}{'errors':>18}"
    print(f"{'work':6}{columns}")
    for name in chosen:
        voxels, sequence, model = phantom(), families[name](), Isochromats(PER_VOXEL)
        ours = jax.jit(lambda s, p, m=model: mr.simulate(s, p, m))
        plain, reused, times = in_turns(
            lambda s=sequence, p=voxels: numpy_kspace(s, p, reuse=False),
            lambda s=sequence, p=voxels: numpy_kspace(s, p, reuse=True),
            lambda s=sequence, p=voxels, f=ours: f(s, p).block_until_ready(),
            runs=3,
        )
        with jax.enable_x64(True):
            exact = np.asarray(mr.simulate(families[name](np.float64), phantom(np.float64), model))[0]
        errors = [relative(ours(sequence, voxels)[0], exact), relative(numpy_kspace(sequence, voxels, True), exact)]
        n_steps = sum(max(samples, 1) for _, events in steps_of(sequence) for _, _, samples, _ in events)
        spins = PER_VOXEL * voxels.tissue.shape[0]
        ratio, nanoseconds = plain["median"] / times["median"], 1e9 * times["median"] / spins / n_steps
        row = {"work": name, "spins": spins, "steps": n_steps, "numpy": plain, "numpy_reused": reused, "jaxmr": times}
        rows.append({**row, "ratio": ratio, "target": 3, "ns_per_spin_and_step": nanoseconds, "errors": errors})
        print(
            f"{name:6}{1e3 * plain['median']:12.0f}{1e3 * reused['median']:14.0f}{1e3 * times['median']:10.1f}"
            f"{ratio:8.1f}{3:8}{nanoseconds:9.2f}{errors[0]:9.1e}{errors[1]:9.1e}",
            flush=True,
        )
    if len(chosen) == len(families):
        print(f"-> {save('isochromats', rows)}")


if __name__ == "__main__":
    main()
