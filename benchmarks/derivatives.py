"""Claim: derivatives cost a few signals: forward ones for bounds, reverse ones for designs and for networks.

Ratios of times in turns, compiled, K = 20, 1000 pulses, all cores for batches. error: against central differences
in float64. For the reverse mode of a batch also what XLA keeps beside its inputs and outputs, by train length.

    uv run benchmarks/derivatives.py
    uv run benchmarks/derivatives.py --only jacobian crlb
"""

import argparse
import warnings

import numpy as np

import jaxmr as mr
from jaxmr.units import mm, ms
from reporting import in_turns, save
from workloads import TE, TI, TR, atoms, lobes, relative

N_PULSES, ORDERS, N_Z = 1000, 20, 32
N_ATOMS, N_BLOCH, N_TISSUES, N_CHECKED = 1000, 100, 8, 8
LENGTHS = (500, 1000, 2000)


def models() -> dict:
    """Name: (model, atoms of its Jacobian, targets of (t1, t2), (t1, t2, b1), CRLB gradient)."""
    pulse = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=5 * mm)
    return {
        "EPG": (mr.EPG(orders=ORDERS), N_ATOMS, (4.5, 6.0, 4.0)),
        "EPG-Bloch": (mr.EPGBloch(pulse=pulse, n_z=N_Z, orders=ORDERS), N_BLOCH, (4.5, 6.0, 12.0)),
    }


def fisp(flips):
    return mr.sequences.fisp(flips, TR, TE, TI)


def report(rows: list, name: str, base: dict, ours: dict, target: float, error: float | None, **more) -> None:
    ratio = ours["median"] / base["median"]
    rows.append(
        {"work": name, "base": base, "derivative": ours, "ratio": ratio, "target": target, "error": error, **more}
    )
    print(
        f"{name:42}{1e3 * base['median']:9.1f}{1e3 * ours['median']:11.1f}{ours['first']:9.1f}{ratio:8.2f}{target:8}"
        f"{'' if error is None else f'{error:.1e}':>10}",
        flush=True,
    )


def differences(tissue: dict, name: str, model) -> np.ndarray:
    """Derivative of the signal by one parameter, central differences in float64."""
    import jax

    with jax.enable_x64(True):
        sides = []
        for sign in (1, -1):
            moved = {**tissue, name: tissue[name] * (1 + sign * 1e-4)}
            sides.append(np.asarray(mr.simulate(fisp(lobes(N_PULSES)), mr.Tissue(**moved), model)))
        return (sides[0] - sides[1]) / (2e-4 * tissue[name][:, None])


def jacobians(rows: list) -> None:
    """Signal and derivatives by tissue over the signal alone."""
    import jax

    sequence = fisp(np.float32(lobes(N_PULSES)))
    for label, (model, n, targets) in models().items():
        t1, t2 = atoms(n)
        b1 = np.linspace(0.8, 1.2, n)
        for names, target in ((("t1", "t2"), targets[0]), (("t1", "t2", "b1"), targets[1])):
            values = dict(zip(("t1", "t2", "b1")[: len(names)], (t1, t2, b1)[: len(names)], strict=True))
            tissue = mr.Tissue(**{name: np.float32(value) for name, value in values.items()})
            devices = jax.devices()
            signal = jax.jit(lambda t, m=model, d=devices: mr.simulate(sequence, t, m, devices=d))
            jacobian = jax.jit(
                lambda t, m=model, w=names, d=devices: mr.simulate_with_jacobian(sequence, t, m, w, devices=d)
            )
            base, ours = in_turns(
                lambda f=signal, t=tissue: jax.block_until_ready(f(t)),
                lambda f=jacobian, t=tissue: jax.block_until_ready(f(t)),
            )
            found = np.asarray(jacobian(tissue)[1])[:N_CHECKED]
            few = {name: value[:N_CHECKED] for name, value in values.items()}
            with jax.enable_x64(True):
                wide = models()[label][0]
            error = max(relative(found[:, i], differences(few, name, wide)) for i, name in enumerate(names))
            report(rows, f"{label}, {n} atoms, d by {', '.join(names)}", base, ours, target, error)


def bounds(rows: list) -> None:
    """Gradient of a Cramér-Rao loss by all flip angles over the loss."""
    import jax
    import jax.numpy as jnp

    t1, t2 = np.geomspace(0.3, 2.0, N_TISSUES), np.geomspace(0.03, 0.2, N_TISSUES)
    direction = np.random.default_rng(0).normal(size=N_PULSES)

    def loss_of(model, tissue):
        def loss(flips):
            bound = mr.design.crlb(fisp(flips), tissue, wrt=("m0", "t1", "t2"), model=model)
            return jnp.sum(jnp.sqrt(bound[:, 1]) / tissue.t1 + jnp.sqrt(bound[:, 2]) / tissue.t2)

        return loss

    for label, (model, _, targets) in models().items():
        loss = loss_of(model, mr.Tissue(t1=np.float32(t1), t2=np.float32(t2)))
        flips = jnp.asarray(lobes(N_PULSES), jnp.float32)
        value, gradient = jax.jit(loss), jax.jit(jax.value_and_grad(loss))
        base, ours = in_turns(
            lambda f=value, x=flips: f(x).block_until_ready(),
            lambda f=gradient, x=flips: jax.block_until_ready(f(x)),
            runs=5,
        )
        with jax.enable_x64(True):
            wide = jax.jit(loss_of(models()[label][0], mr.Tissue(t1=t1, t2=t2)))
            step = 1e-6
            ends = [float(wide(jnp.asarray(lobes(N_PULSES) + sign * step * direction))) for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / (2 * step)
        error = abs(float(np.asarray(gradient(flips)[1], float) @ direction) / expected - 1)
        title = f"{label}, CRLB of {N_TISSUES} tissues, d by {N_PULSES} flips"
        memory = gradient.lower(flips).compile().memory_analysis().temp_size_in_bytes
        report(rows, title, base, ours, targets[2], error, temporary_bytes=memory)


def pullback(rows: list) -> None:
    """Reverse mode of a batch by T1 and T2 over the signal, and its memory."""
    import jax
    import jax.numpy as jnp

    t1, t2 = (jnp.asarray(value, jnp.float32) for value in atoms(N_ATOMS))
    for n in LENGTHS:
        sequence, model = fisp(np.float32(lobes(n))), mr.EPG(orders=ORDERS)

        def signal_of(t1, t2, s=sequence, m=model):
            return mr.simulate(s, mr.Tissue(t1=t1, t2=t2), m, devices=jax.devices())

        def pulled(t1, t2, weight, f=signal_of):
            return jax.vjp(f, t1, t2)[1](weight)

        shape = (N_ATOMS, n)
        weight = jnp.asarray(np.random.default_rng(0).normal(size=(*shape, 2)).view(complex)[..., 0], jnp.complex64)
        signal, reverse = jax.jit(signal_of), jax.jit(pulled)
        base, ours = in_turns(
            lambda f=signal: f(t1, t2).block_until_ready(),
            lambda f=reverse, w=weight: jax.block_until_ready(f(t1, t2, w)),
            runs=5,
        )
        memory = reverse.lower(t1, t2, weight).compile().memory_analysis().temp_size_in_bytes
        # Forward mode is checked against differences above; the two modes must agree.
        jacobian = np.asarray(mr.simulate_with_jacobian(sequence, mr.Tissue(t1=t1, t2=t2), mr.EPG(orders=ORDERS))[1])
        expected = np.einsum("apn,an->pa", jacobian, np.asarray(weight)).real
        error = max(relative(a, b) for a, b in zip(reverse(t1, t2, weight), expected, strict=True))
        title = f"EPG, vjp of {N_ATOMS} atoms x {n} pulses"
        report(rows, title, base, ours, 5.0, error, temporary_bytes=memory)
        print(f"{'':42}{memory / 2**20:9.0f} MiB beside inputs and outputs", flush=True)


def main() -> None:
    parts = {"jacobian": jacobians, "crlb": bounds, "vjp": pullback}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    chosen = parser.parse_args().only
    warnings.simplefilter("ignore", mr.AccuracyWarning)  # 20 orders are what is compared
    mr.use_cores()
    rows: list[dict] = []
    print(f"{'work':42}{'base ms':>9}{'with d ms':>11}{'first s':>9}{'ratio':>8}{'target':>8}{'error':>10}")
    for name in chosen:
        parts[name](rows)
    if len(chosen) == len(parts):
        print(f"-> {save('derivatives', rows)}")


if __name__ == "__main__":
    main()
