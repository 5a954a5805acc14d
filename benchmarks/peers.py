"""Other simulators behind one small protocol, run by `field.py` in an environment of their own.

Requests are JSON lines on stdin, answers JSON lines on stdout. `prepare` reads a workload from an .npz file,
`run` plays it once and answers the seconds it took, `renew` plays it with other flip angles, `result` writes the
signal (and the Jacobian). Nothing here imports jaxmr; each peer is used as its own documentation says.

A workload: kind (fisp or cpmg), t1, t2 (s), flip (rad); phase (rad), ti, tr (s) or esp (s); orders (0: exact);
scale (n_z), flips relative to nominal at each sub-slice, and weight, of each of their signals; jacobian.
"""

import contextlib
import functools
import json
import multiprocessing
import sys
import time
from importlib.metadata import version

import numpy as np

THREADS = 2
MS = 1e3


class NotOfferedError(Exception):
    """The peer has no such feature, or would take a minute or more."""


def blochsim(work):
    """FISP by its MRFSimulator, echo trains by its FSESimulator, shaped pulses by its slice table."""
    import torch
    from blochsim.simulators import FSESimulator, MRFSimulator

    torch.set_num_threads(THREADS)
    tensor = functools.partial(torch.as_tensor, dtype=torch.float32)
    # Exact: what lies higher than half the train cannot come back. Its own default truncates (CPMG: 6e-3 off).
    states = int(work["orders"]) or len(work["flip"]) // 2 + 1
    flip, n = tensor(np.rad2deg(work["flip"])), len(work["t1"])
    if work["kind"] == "cpmg":
        options = {"ESP": MS * float(work["esp"]), "repetitions": 1, "exc_phase": 90.0, "phases": 0.0}
        simulator = FSESimulator(flip=flip, states=states, **options)
    else:
        options = {"TR": MS * float(work["tr"]), "TI": MS * float(work["ti"])}
        if "phase" in work:
            options["phases"] = tensor(np.rad2deg(work["phase"]))
        if "waveform" in work:
            options |= _blochsim_pulse(work)
        simulator = MRFSimulator(flip=flip, states=states, **options)
    tissue = {"T1": tensor(MS * work["t1"]), "T2": tensor(MS * work["t2"])}
    if work["jacobian"]:

        def run(**changed):
            signal, jacobian = simulator.jacobian(("T1", "T2"), **tissue, **changed)
            return signal, MS * jacobian

    elif "scale" in work:
        n_z = len(work["scale"])
        wide = {name: value.repeat_interleave(n_z) for name, value in tissue.items()}
        wide["B1"] = tensor(np.tile(work["scale"], n))

        def run(**changed):
            signal = simulator.simulate(**wide, **changed)
            return float(work["weight"]) * signal.reshape(n, n_z, -1).sum(1), None

    else:

        def run(**changed):
            # The slice table averages its positions.
            return float(work.get("weight", 1)) * simulator.simulate(**tissue, **changed), None

    def renew(flips):
        return run(flip=tensor(np.rad2deg(flips)))

    return run, renew


def _blochsim_pulse(work):
    import torch
    from blochsim.sequence import RfDefinition, exact_slice_profile
    from blochsim.sequence._description import RfShape

    # Scaled so that an amplitude of 1 is a flip of 1 rad; sample times in units of its raster, a microsecond.
    n = len(work["waveform"])
    shape = RfShape(n, np.float32(work["waveform"] / (2 * np.pi)))
    times = RfShape(n, np.float32((np.arange(n) + 0.5) * 1e6 * float(work["duration"]) / n))
    bandwidth = float(work["bandwidth"])
    pulse = RfDefinition(0, bandwidth, 1, (0.0,), bandwidth, 0.0, shape, time=times)
    return {"pulse": pulse, "across_slice": exact_slice_profile(torch.as_tensor(work["positions"]))}


def mrpro(work):
    """Its EPG blocks; derivatives by torch.func.jvp."""
    import torch
    from mrpro.operators.models import EPG

    torch.set_num_threads(THREADS)
    if "waveform" in work:
        raise NotOfferedError("instantaneous pulses only")
    if not int(work["orders"]) and work["kind"] == "fisp":
        raise NotOfferedError("minutes with all orders")
    if work["jacobian"] and len(work["t1"]) > 100:
        raise NotOfferedError("a minute with so many atoms")
    tensor = functools.partial(torch.as_tensor, dtype=torch.float32)
    n_z = len(work["scale"]) if "scale" in work else 1
    b1 = tensor(np.tile(work["scale"], len(work["t1"]))) if "scale" in work else None
    phase = tensor(work["phase"] if "phase" in work else np.zeros(len(work["flip"])))
    states = int(work["orders"]) or len(work["flip"]) + 1

    def sequence(flips):
        if work["kind"] == "cpmg":
            return EPG.EPGSequence([EPG.TseBlock(tensor(flips), phase, float(work["esp"]))])
        inversion = EPG.InversionBlock(float(work["ti"]))
        return EPG.EPGSequence([inversion, EPG.FispBlock(tensor(flips), phase, 0.0, float(work["tr"]))])

    tissue = [tensor(work[name]).repeat_interleave(n_z) for name in ("t1", "t2")]

    def signal_of(blocks, t1, t2):
        with contextlib.nullcontext() if work["jacobian"] else torch.no_grad():
            _, samples = blocks(EPG.Parameters(torch.ones_like(t1), t1, t2, b1), states)
        signal = torch.stack(samples, -1) * torch.exp(-1j * phase)
        return float(work["weight"]) * signal.reshape(-1, n_z, signal.shape[-1]).sum(1) if n_z > 1 else signal

    def play(blocks):
        if not work["jacobian"]:
            return signal_of(blocks, *tissue), None
        one, zero = torch.ones_like(tissue[0]), torch.zeros_like(tissue[0])
        along = [
            torch.func.jvp(functools.partial(signal_of, blocks), tuple(tissue), direction)
            for direction in ((one, zero), (zero, one))
        ]
        return along[0][0], torch.stack([column for _, column in along], 1)

    blocks = sequence(work["flip"])
    return lambda: play(blocks), lambda flips: play(sequence(flips))


_SHARED = {}
"""What sycomore's processes inherit when they are forked."""


def sycomore(work):
    """Its regular EPG, one atom after the other, all orders, double precision, a process per core."""
    import sycomore  # noqa: F401

    if "waveform" in work or "scale" in work or work["jacobian"] or int(work["orders"]):
        raise NotOfferedError("one species at a time, all orders")
    if "pool" in _SHARED:
        _SHARED["pool"].terminate()
    _SHARED["work"] = work
    pool = _SHARED["pool"] = multiprocessing.get_context("fork").Pool(THREADS)

    def run():
        indices = np.array_split(np.arange(len(work["t1"])), 8 * THREADS)
        return np.concatenate(pool.map(_sycomore_atoms, indices)), None

    return run, None


def _sycomore_atoms(indices):
    import sycomore
    from sycomore.units import rad, s

    work = _SHARED["work"]
    flips = [float(flip) * rad for flip in work["flip"]]
    zero, right = 0 * rad, np.pi / 2 * rad
    signals = np.empty((len(indices), len(flips)), complex)
    for row, i in enumerate(indices):
        epg = sycomore.epg.Regular(sycomore.Species(float(work["t1"][i]) * s, float(work["t2"][i]) * s))
        if work["kind"] == "cpmg":
            half = float(work["esp"]) / 2 * s
            epg.apply_pulse(right, right)
            for n, flip in enumerate(flips):
                epg.relaxation(half)
                epg.shift()
                epg.apply_pulse(flip, zero)
                epg.relaxation(half)
                epg.shift()
                signals[row, n] = epg.echo
            continue
        tr = float(work["tr"]) * s
        epg.apply_pulse(np.pi * rad, zero)
        epg.relaxation(float(work["ti"]) * s)
        for n, flip in enumerate(flips):
            epg.apply_pulse(flip, float(work["phase"][n]) * rad if "phase" in work else zero)
            signals[row, n] = epg.echo * (np.exp(-1j * work["phase"][n]) if "phase" in work else 1)
            epg.relaxation(tr)
            epg.shift()
    return signals


def numpy_epg(work):
    """A vectorised NumPy loop over the pulses, complex64, all atoms at once, as in epgpy."""
    if "waveform" in work or work["jacobian"]:
        raise NotOfferedError("instantaneous pulses, signals only")
    if not int(work["orders"]) and work["kind"] == "fisp":
        raise NotOfferedError("minutes with all orders")
    scale = np.asarray(work["scale"], np.float32) if "scale" in work else np.ones(1, np.float32)
    t1, t2 = (np.repeat(work[name], len(scale)).astype(np.float32) for name in ("t1", "t2"))
    b1 = np.tile(scale, len(work["t1"])) if len(scale) > 1 else scale
    weight = np.float32(work["weight"]) if "scale" in work else 1
    phases = work["phase"] if "phase" in work else np.zeros(len(work["flip"]))
    orders = int(work["orders"]) or len(work["flip"]) + 1

    def rf(states, flip, phase):
        plus, minus, z = states
        c, s = np.cos(flip * b1 / 2), np.sin(flip * b1 / 2)
        turn = np.complex64(np.exp(1j * phase))
        return (
            c * c * plus + turn**2 * (s * s) * minus - 2j * turn * (c * s) * z,
            turn.conj() ** 2 * (s * s) * plus + c * c * minus + 2j * turn.conj() * (c * s) * z,
            -1j * turn.conj() * (c * s) * plus + 1j * turn * (c * s) * minus + (c * c - s * s) * z,
        )

    def relax(states, e1, e2):
        plus, minus, z = (e * state for e, state in zip((e2, e2, e1), states, strict=True))
        z[0] += 1 - e1
        return plus, minus, z

    def dephase(states):
        plus, minus, z = states
        zero = np.zeros_like(plus[:1])
        return np.concatenate([minus[1:2].conj(), plus[:-1]]), np.concatenate([minus[1:], zero]), z

    def decays(interval):
        return np.exp(-np.float32(interval) / t1), np.exp(-np.float32(interval) / t2)

    def play(flips):
        states = tuple(np.zeros((orders, len(t1)), np.complex64) for _ in range(3))
        states[2][0] = 1
        signals = np.empty((len(flips), len(work["t1"])), np.complex64)
        if work["kind"] == "cpmg":
            half = decays(float(work["esp"]) / 2)
            states = rf(states, np.float32(np.pi / 2), np.pi / 2)
            for n, flip in enumerate(flips):
                states = dephase(rf(dephase(relax(states, *half)), np.float32(flip), phases[n]))
                states = relax(states, *half)
                signals[n] = states[0][0]
            return signals.T, None
        recovery = decays(float(work["tr"]))
        states[2][0] = -1
        states = relax(states, *decays(float(work["ti"])))
        for n, flip in enumerate(flips):
            states = rf(states, np.float32(flip), phases[n])
            sample = weight * states[0][0].reshape(-1, len(scale)).sum(1)
            signals[n] = sample * np.complex64(np.exp(-1j * phases[n]))
            states = dephase(relax(states, *recovery))
        return signals.T, None

    return lambda: play(work["flip"]), play


PEERS = {"blochsim": blochsim, "MRpro": mrpro, "sycomore": sycomore, "NumPy": numpy_epg}


def prepare(name, path):
    """Callables of a peer for the workload in a file, with the seconds of its construction and first call."""
    with np.load(path) as file:
        work = {key: file[key] for key in file.files}
    start = time.perf_counter()
    run, renew = PEERS[name](work)
    run()
    return run, renew, time.perf_counter() - start


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a peer prints is no answer
    run = renew = last = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                run = renew = last = None
                run, renew, first = prepare(request["peer"], request["work"])
                found = "numpy" if request["peer"] == "NumPy" else request["peer"].lower()
                answer = {"first": first, "version": version(found), "renews": renew is not None}
            elif request["do"] == "result":
                arrays = {"signal": last[0]} if last[1] is None else {"signal": last[0], "jacobian": last[1]}
                np.savez(request["path"], **{name: np.asarray(value) for name, value in arrays.items()})
                answer = {}
            else:
                flips = np.load(request["flip"]) if request["do"] == "renew" else None
                start = time.perf_counter()
                last = run() if flips is None else renew(flips)
                answer = {"seconds": time.perf_counter() - start}
        except ImportError as error:
            answer = {"error": f"not installed ({error.name or error})"}
        except NotOfferedError as error:
            answer = {"error": f"not offered ({error})"}
        except Exception as error:
            answer = {"error": f"failed ({type(error).__name__}: {error})"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
