"""Claim: an echo-planar train of isochromats compiles in the same time whatever its length, and runs no slower.

1000 voxels of 16 spins follow one shot of 64 or 400 events, blips and readouts of 64 samples in turn, float32, one
process. The shorter one is also compiled event by event, the longer one with `--unrolled` too (minutes). Then the
trajectories of the same sequences, on numbers. The error is against event by event.

    uv run benchmarks/event_runs.py
    uv run benchmarks/event_runs.py --unrolled
"""

import argparse
import time

import numpy as np

import jaxmr as mr
from jaxmr.models.isochromats import Isochromats
from jaxmr.sequences import timeline
from jaxmr.sequences.sequence import Event, Pulse, Segment, Sequence
from reporting import save, timed
from workloads import relative

SAMPLES, FOV, N_VOXELS, PER_VOXEL = 64, 0.2, 1000, 16
EVENTS = (64, 400)
STEP = 2 * np.pi / FOV


def shot(n_events: int) -> Sequence:
    """A pulse, then blips and lines to and fro."""
    import jax.numpy as jnp

    number = lambda value: jnp.asarray(value, np.float32)  # noqa: E731
    events = []
    for i in range(n_events // 2):
        line = number([(-1) ** i * SAMPLES * STEP, 0, 0])
        events += [
            Event(number(2e-4), number([0, STEP, 0]), order=None),
            Event(number(5e-4), line, number(0.1), order=None, samples=SAMPLES),
        ]
    return Sequence((Segment(Pulse(number(np.pi / 2)), tuple(events)),))


def phantom() -> mr.Phantom:
    """Voxels at random places."""
    rng = np.random.default_rng(0)
    number = lambda low, high: rng.uniform(low, high, N_VOXELS).astype(np.float32)  # noqa: E731
    tissue = mr.Tissue(number(0.5, 1.5), number(0.05, 0.1), number(0.5, 1), number(0.9, 1.1), number(-20, 20))
    position = rng.uniform(-FOV / 2, FOV / 2, (N_VOXELS, 3)).astype(np.float32)
    return mr.Phantom(tissue, position, (3e-3,) * 3, voxel_shape="box")


def compiled(sequence: Sequence, voxels: mr.Phantom, fewest: int):
    """The simulation with events scanned from `fewest` on, and the seconds it took to make."""
    import jax

    timeline.MANY = fewest
    jax.clear_caches()
    start = time.perf_counter()
    program = jax.jit(lambda s, p: mr.simulate(s, p, Isochromats(PER_VOXEL))).lower(sequence, voxels).compile()
    return program, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unrolled", action="store_true", help="compile 400 events one by one as well")
    longest = EVENTS[-1] if parser.parse_args().unrolled else EVENTS[0]
    voxels, scanned, rows = phantom(), timeline.MANY, []
    print(f"{'events':>6} {'':10}{'compile s':>10}{'run ms':>10}{'error':>10}{'trajectory ms':>15}")
    for n in EVENTS:
        sequence, found = shot(n), {}
        for name, fewest in (("one by one", n + 1), ("scanned", scanned)):
            if name == "one by one" and n > longest:
                continue
            program, seconds = compiled(sequence, voxels, fewest)
            times = timed(lambda f=program, s=sequence: f(s, voxels).block_until_ready(), runs=5)
            places = timed(lambda s=sequence: mr.sequences.trajectory(s).block_until_ready(), runs=5)
            found[name] = np.asarray(program(sequence, voxels))
            error = relative(found[name], found["one by one"]) if len(found) > 1 else None
            row = {"events": n, "how": name, "compile": seconds, "run": times, "trajectory": places, "error": error}
            rows.append(row)
            shown = "" if error is None else f"{error:.1e}"
            print(
                f"{n:6} {name:10}{seconds:10.2f}{1e3 * times['median']:10.1f}{shown:>10}{1e3 * places['median']:15.1f}",
                flush=True,
            )
    print(f"-> {save('event_runs', rows)}")


if __name__ == "__main__":
    main()
