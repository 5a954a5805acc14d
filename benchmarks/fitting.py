"""Claim: a T1 map of 36,864 voxels takes a fraction of 80 ms on two cores, and with its gradient not much more.

Inversion recovery, 5 delays, complex m0, by `mr.recon.fit`: noiseless, and with noise of 2 % of the mean m0. Errors are
of T1 against a float64 fit of the same numbers, so that what rounding the data costs is not counted; noiseless in
float64 against the truth. The gradient is that of a scalar of T1 and m0 in all data. SciPy's `curve_fit` (with the
analytic Jacobian, from a start as good) fits some of the voxels one by one, in float64; its time is scaled to all.

    uv run benchmarks/fitting.py
    uv run benchmarks/fitting.py --voxels 10000 --peer 0
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxmr as mr
from reporting import save, timed

TI = np.array([0.1, 0.4, 0.9, 1.8, 4.0])
N_VOXELS, NOISE, BAR, BAR_GRADIENT, ACCURACY = 36_864, 0.02, 80.0, 160.0, 1e-6


def voxels(n: int, noise: float):
    """T1, m0, and their data."""
    rng = np.random.default_rng(0)
    t1, m0 = rng.uniform(0.3, 3, n), rng.uniform(0.3, 1.7, n) * np.exp(2j * np.pi * rng.random(n))
    data = m0[:, None] * (1 - 2 * np.exp(-TI / t1[:, None]))
    return t1, m0, data + noise * (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape))


def compiled(model, t1, dtype):
    """The fit, and the gradient of a loss of it, of data of one precision."""
    target = jnp.asarray(t1, np.finfo(dtype).dtype)

    def loss(data):
        found = mr.recon.fit(model, data)
        return jnp.sum((found.t1 - target) ** 2) + jnp.sum(jnp.abs(found.m0 - 1) ** 2)

    return jax.jit(lambda data: mr.recon.fit(model, data)), jax.jit(jax.value_and_grad(loss))


def scipy_fits(data, t1):
    """Seconds per voxel of `curve_fit`, and its T1."""
    from scipy.optimize import curve_fit

    def both(_, t1, re, im):
        shape = 1 - 2 * np.exp(-TI / t1)
        return np.concatenate([re * shape, im * shape])

    def jacobian(_, t1, re, im):
        e = np.exp(-TI / t1)
        slope, shape, none = -2 * e * TI / t1**2, 1 - 2 * e, np.zeros_like(TI)
        return np.stack([np.r_[re * slope, im * slope], np.r_[shape, none], np.r_[none, shape]], axis=1)

    started, found = time.perf_counter(), []
    for y, near in zip(data, t1, strict=True):
        start = (near * 1.1, y[-1].real, y[-1].imag)
        found.append(curve_fit(both, TI, np.r_[y.real, y.imag], start, jac=jacobian, xtol=1e-10)[0][0])
    return (time.perf_counter() - started) / len(found), np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=N_VOXELS, help="other numbers print, but are not saved")
    parser.add_argument("--peer", type=int, default=300, help="voxels that SciPy fits; 0 for none, not saved")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    print(
        f"{'data':22}{'fit ms':>9}{'gradient ms':>13}{'compile s':>11}{'worst T1':>11}{'99.9 %':>10}{'median':>10}"
        f"{'gradient':>11}{'converged':>11}{'SciPy s':>9}"
    )
    for noise in (0.0, NOISE):
        t1, _, data = voxels(options.voxels, noise)
        for dtype in (np.complex64, np.complex128):
            model = mr.recon.inversion_recovery(TI.astype(np.finfo(dtype).dtype))
            rounded = jnp.asarray(data.astype(dtype))
            fit, gradient = compiled(model, t1, dtype)
            forward = timed(lambda f=fit, d=rounded: jax.block_until_ready(f(d)))
            both = timed(lambda f=gradient, d=rounded: jax.block_until_ready(f(d)))
            found = fit(rounded)
            # The delays in single precision are the model's, too.
            wide = mr.recon.inversion_recovery(TI.astype(np.finfo(dtype).dtype).astype(float))
            _, exact_gradient = compiled(wide, t1, np.complex128)
            exact = mr.recon.fit(wide, rounded.astype(complex), tolerance=1e-10)
            truth = t1 if noise == 0 and dtype == np.complex128 else np.asarray(exact.t1)
            error = np.abs(np.asarray(found.t1, float) / truth - 1)
            slopes = [np.asarray(g(d)[1]) for g, d in ((gradient, rounded), (exact_gradient, rounded.astype(complex)))]
            off = float(np.linalg.norm(slopes[0] - slopes[1]) / np.linalg.norm(slopes[1]))
            row = {
                "data": f"{'noisy' if noise else 'noiseless'}, {np.dtype(dtype).name}",
                "fit": forward,
                "with_gradient": both,
                "worst_t1": float(error.max()),
                "t1_of_99.9_percent": float(np.quantile(error, 0.999)),
                "median_t1": float(np.median(error)),
                "within_1e-6": float(np.mean(error <= ACCURACY)),
                "gradient_error": off,
                "converged": float(np.mean(found.converged)),
            }
            if options.peer and dtype == np.complex128:
                seconds, peer = scipy_fits(data[: options.peer], t1[: options.peer])
                row["scipy_seconds"] = seconds * options.voxels
                row["scipy_difference"] = float(np.median(np.abs(peer / truth[: options.peer] - 1)))
            rows.append(row)
            print(
                f"{row['data']:22}{1e3 * forward['median']:9.1f}{1e3 * both['median']:13.1f}{forward['first']:11.1f}"
                f"{row['worst_t1']:11.1e}{row['t1_of_99.9_percent']:10.1e}{row['median_t1']:10.1e}{off:11.1e}"
                f"{100 * row['converged']:10.2f}%{row.get('scipy_seconds', float('nan')):9.1f}",
                flush=True,
            )
    print(f"bars: {BAR:.0f} ms, with gradient {BAR_GRADIENT:.0f} ms, at {ACCURACY:g} of T1")
    if options.voxels == N_VOXELS and options.peer:
        print(f"-> {save('fitting', rows)}")


if __name__ == "__main__":
    main()
