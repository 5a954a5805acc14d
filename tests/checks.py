"""Oracles shared by the tests: the slow, obvious versions of what the package does fast."""

import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from jaxmr.physics import epg


def relative(value, reference) -> float:
    """Norm of the difference over the norm of the reference."""
    value, reference = np.asarray(value), np.asarray(reference)
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def gradient_spoiled(
    flip, tr, te, t1, t2, *, inversion_time=None, phase=0.0, receiver=None, b0=0.0, b1=1.0, orders=None, diffusion=None
):
    """Signal of a FISP train, verb by verb, one voxel, in complex arithmetic.

    `diffusion` is (diffusivity, moment per order); the receiver follows the pulse unless given.
    """
    n = len(flip)
    tr, te, phase = (np.broadcast_to(value, n) for value in (tr, te, phase))
    receiver = phase if receiver is None else np.broadcast_to(receiver, n)
    states = epg.initial(n + 2 if orders is None else orders)
    if inversion_time is not None:
        states = epg.relax(epg.invert(states), inversion_time, t1, t2)
    echoes = []
    for i in range(n):
        states = epg.rf(states, flip[i] * b1, phase[i])
        if diffusion is not None:
            states = epg.diffuse(states, te[i], *diffusion)
        states = epg.relax(states, te[i], t1, t2, b0)
        echoes.append(epg.signal(states) * np.exp(-1j * receiver[i]))
        if diffusion is not None:
            states = epg.diffuse(states, tr[i] - te[i], *diffusion, wound=1)
        states = epg.dephase(epg.relax(states, tr[i] - te[i], t1, t2, b0))
    return np.array(echoes)


def spin_ensemble(flip, phase, times, t1, t2, *, b0=0.0, n_spins=64, magnetisation=(0.0, 0.0, 1.0)):
    """Mean transverse magnetisation before each spoiler of a train of pulses, by isochromats in NumPy and SciPy.

    Each spoiler winds one turn over the voxel: `n_spins` equally spaced spins hold orders up to n_spins / 2.
    Sampled `times` after each pulse, then spoiled.
    """
    turns = (np.arange(n_spins) + 0.5) / n_spins
    spins = np.tile(np.asarray(magnetisation, float), (n_spins, 1))
    echoes = []
    for angle, axis, time in zip(flip, phase, times, strict=True):
        spins = Rotation.from_rotvec(angle * np.array([np.cos(axis), np.sin(axis), 0])).apply(spins)
        spins = Rotation.from_rotvec([0, 0, 2 * np.pi * b0 * time]).apply(spins)
        spins *= np.exp(-time / np.array([t2, t2, t1]))
        spins[:, 2] += 1 - np.exp(-time / t1)
        echoes.append((spins[:, 0] + 1j * spins[:, 1]).mean())
        spins = Rotation.from_rotvec(2 * np.pi * turns[:, None] * np.array([0, 0, 1.0])).apply(spins)
    return np.array(echoes)


def selective_train(
    flip, waveform, tr, te, t1, t2, *, inversion_time=None, n_z=32, b1=1.0, b0=0.0, phase=0.0, orders=60
):
    """EPG-Bloch signal of a FISP train as Liu et al. write it: every sub-step of every pulse on every order.

    Float64 NumPy; Strang steps; each pulse between a pre- and a rephaser that balance its gradient about the RF
    centre. Times count between RF centres.
    """
    samples, tau = np.asarray(waveform.samples), float(waveform.duration)
    dwell, gradient, centre = tau / len(samples), float(waveform.gradient), float(waveform.centre)
    thickness = float(waveform.thickness)
    positions = (np.arange(n_z) + 0.5) / n_z * 3 * thickness - 1.5 * thickness
    n = len(flip)
    tr, te, phase = (np.broadcast_to(value, n) for value in (tr, te, phase))
    total = np.zeros(n, complex)

    def relax(states, time):
        states = states * np.exp(-time / np.array([t2, t2, t1]))[:, None]
        states[2, 0] += 1 - np.exp(-time / t1)
        return states

    def turn(states, vector):
        return Rotation.from_rotvec(vector).as_matrix() @ states

    for z in positions:
        states = np.zeros((3, orders), complex)  # X, Y, Z of each order
        states[2, 0] = 1
        before = centre
        if inversion_time is not None:
            states = relax(-states, inversion_time - before)
        for i in range(n):
            states = turn(states, [0, 0, -gradient * z * before - 2 * np.pi * 0])
            for sample in samples * np.exp(1j * phase[i]) * flip[i] * b1:
                states = relax(states, dwell / 2)
                states = turn(states, np.array([sample.real, sample.imag, gradient * z + 2 * np.pi * b0]) * dwell)
                states = relax(states, dwell / 2)
            after = tau - centre
            states = turn(states, [0, 0, -gradient * z * after])
            states = turn(relax(states, te[i] - after), [0, 0, 2 * np.pi * b0 * (te[i] - after)])
            total[i] += (states[0, 0] + 1j * states[1, 0]) * np.exp(-1j * phase[i])
            rest = tr[i] - te[i] - before
            states = turn(relax(states, rest), [0, 0, 2 * np.pi * b0 * rest])
            plus, minus = states[0] + 1j * states[1], states[0] - 1j * states[1]
            minus = np.append(minus[1:], 0)
            plus = np.append(minus[0].conj(), plus[:-1])
            states = np.stack([(plus + minus) / 2, (plus - minus) / 2j, states[2]])
    return total * 3 / n_z


def central_difference(function, value, step):
    """Derivative of `function` at `value` by differences of fourth order, for smooth functions in float64."""
    f = lambda k: np.asarray(function(value + k * step))  # noqa: E731
    return (8 * (f(1) - f(-1)) - (f(2) - f(-2))) / (12 * step)


def sine_train(n: int, largest: float = 70.0):
    """Lobes of a FISP train, rad."""
    i = np.arange(n)
    peaks = largest * np.array([1.0, 0.5, 0.75, 0.4, 0.65])[(5 * i // n) % 5]
    return np.deg2rad(5 + (peaks - 5) * np.sin(np.pi * ((5 * i / n) % 1)) ** 2)


def adjoint_error(forward, adjoint, image, samples) -> float:
    """How far <samples, forward(image)> and <adjoint(samples), image> are apart, over the product of the norms."""
    there, back = np.asarray(forward(image)), np.asarray(adjoint(samples))
    assert there.shape == samples.shape
    assert back.shape == image.shape
    return float(abs(np.vdot(samples, there) - np.vdot(back, image)) / np.linalg.norm(samples) / np.linalg.norm(there))


def as_float32(tree):
    """Every float64 leaf as float32."""
    from jaxmr.core.checks import cast

    return cast(tree, jnp.float32)
