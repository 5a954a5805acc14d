"""The atoms and trains that the benchmarks share; NumPy, float64, SI units, angles in radians."""

import numpy as np

TR, TE, TI = 10e-3, 5e-3, 20e-3


def atoms(n: int) -> tuple[np.ndarray, np.ndarray]:
    """T1 of 0.1 ... 5 s and T2 of 0.01 ... 2 s, at random on a logarithmic scale, T2 at most T1."""
    rng = np.random.default_rng(0)
    t1 = np.exp(rng.uniform(np.log(0.1), np.log(5), n))
    return t1, np.minimum(t1, np.exp(rng.uniform(np.log(0.01), np.log(2), n)))


def lobes(n: int = 1000) -> np.ndarray:
    """Five lobes of 5 to 70 degrees, stretched over `n` pulses."""
    lobe, place = np.divmod(5 * (np.arange(n) + 0.5) / n, 1)
    peaks = np.array([65.0, 35.0, 50.0, 25.0, 45.0])[lobe.astype(int)]
    return np.deg2rad(5 + peaks * np.sin(np.pi * place) ** 2)


def quadratic_phase(n: int) -> np.ndarray:
    """RF phases of spoiling by increments of 117 degrees, 0 ... 2 pi."""
    i = np.arange(n)
    return np.mod(np.deg2rad(117) * (i * (i + 1) / 2), 2 * np.pi)


def relative(value, reference) -> float:
    """Norm of the difference over the norm of the reference."""
    return float(np.linalg.norm(np.asarray(value) - reference) / np.linalg.norm(reference))
