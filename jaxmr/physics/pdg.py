"""Phase distribution graph: what one repetition does to the dephased states of many voxels, and what is read of them.

States have shape (S, voxels): F and Z of each dephasing (k, tau), as `kernels.ComplexStates` keeps the orders of an
EPG. Off-resonance and position are not in them: a state's phase is exp(i (k.r + 2 pi b0 tau)), taken when it is read.
Endres, Weinmüller, Dang and Zaiss, MRM 92:1189 (2024).
"""

import math
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmr.core.gathering import gather, taken
from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Float
from jaxmr.physics import kernels
from jaxmr.physics.ensembles import Factor, factor, scaled, times
from jaxmr.physics.kernels import ComplexStates, Operator

Rows = Float[Array, "rows voxels"]


class Link(NamedTuple):
    """Which states become which; S means none.

    sources (depth, S): the old states that add up to each new one. target (S,): the new state each old one adds to.
    """

    sources: Any
    target: Any


class Moves(NamedTuple):
    """Where each of the S states of the next repetition comes from.

    straight, crossed: old states whose F(k), F(-k) become F(k). mirrored, flipped: whose F(-k), F(k) become F(-k).
    stored: whose Z.
    """

    straight: Link
    crossed: Link
    mirrored: Link
    flipped: Link
    stored: Link


def rotation(angle, phase) -> Operator:
    """Right-handed rotation by `angle` about the transverse axis at `phase`."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    x, y = jnp.cos(phase), jnp.sin(phase)
    mixed = x * y * (1 - c)
    return Operator(((x * x + y * y * c, mixed, y * s), (mixed, y * y + x * x * c, -x * s), (-y * s, x * s, c)))


def move(states: ComplexStates, moves: Moves) -> ComplexStates:
    """Dephase: states go to where the graph says."""
    pr, pi, mr, mi = states.circular()
    plus_re = gather(pr, *moves.straight) + gather(mr, *moves.crossed)
    plus_im = gather(pi, *moves.straight) - gather(mi, *moves.crossed)
    minus_re = gather(mr, *moves.mirrored) + gather(pr, *moves.flipped)
    minus_im = gather(mi, *moves.mirrored) - gather(pi, *moves.flipped)
    z_re, z_im = (gather(z, *moves.stored) for z in (states.z_re, states.z_im))
    return kernels.cartesian(plus_re, plus_im, minus_re, minus_im, z_re, z_im)


def read(states: ComplexStates, row, sign: Float[Array, "R"], pulse: Operator) -> Factor:
    """F(k) (`sign` 1) or F(-k) (-1) after a pulse of the states `row`."""
    after = ComplexStates(*(taken(part, row) for part in states)).mix(pulse.rows)
    if pulse.offset is not None:
        x, y, _ = (jnp.where((row == 0)[:, None], part, 0) for part in pulse.offset)
        after = after._replace(x_re=after.x_re + x, y_re=after.y_re + y)
    pr, pi, mr, mi = after.circular()
    forward = (sign > 0)[:, None]
    return Factor(jnp.where(forward, pr, mr), jnp.where(forward, pi, -mi))


def shape_factor(k, voxel_size, voxel_shape: str, xp: ModuleType) -> Any:
    """What a voxel's shape leaves of magnetisation wound by `k` (..., 3), by NumPy or jax.numpy."""
    cycles = k * xp.broadcast_to(voxel_size, k.shape) / (2 * xp.pi)
    if voxel_shape == "point":
        return xp.ones(k.shape[:-1])
    if voxel_shape == "box":
        return xp.prod(xp.sinc(cycles), axis=-1)
    return xp.all(xp.abs(cycles) <= 0.5 + 1e-6, axis=-1) * 1.0


def diffusion(k, time, first, second) -> tuple[Any, Any, Any]:
    """b-values (s/m2) of F(k), F(-k) and Z of states k (S, 3) over `time`, by NumPy or jax.numpy.

    first, second: integrals of the moment, and of its square, that winds meanwhile.
    """
    at_rest, linear = time * (k**2).sum(axis=1), 2 * (k * first[None]).sum(axis=1)
    return at_rest + linear + second, at_rest - linear + second, at_rest


def exponentials(rate_re, rate_im, samples: int) -> tuple[Factor, Factor]:
    """exp(rate j) for j = 1 ... samples as products of two tables, coarse (A, voxels) and fine (B, voxels)."""
    fine = math.ceil(math.sqrt(samples))
    coarse = -(-samples // fine)

    def table(n):
        return exponential(n[:, None] * rate_re[None], n[:, None] * rate_im[None])

    return table(1 + fine * jnp.arange(coarse)), table(jnp.arange(fine))


def exponential(re, im) -> Factor:
    """exp(re + i im)."""
    return scaled(factor(im), jnp.exp(re))


def weighted(signal: Factor, weight: Factor) -> Factor:
    """Each row (rows, voxels) times each of the weights (coils, voxels), (coils rows, voxels)."""
    both = times(Factor(*(part[None] for part in signal)), Factor(*(part[:, None] for part in weight)))
    return Factor(*(part.reshape(-1, part.shape[-1]) for part in both))


def summed(signal: Factor, wave: Factor, damping, weight: Factor) -> Factor:
    """Sum over voxels of signal (rows, voxels), wave (samples, voxels), damping and weights: (coils rows, samples)."""
    moving = times(Factor(*(part[:, None] for part in signal)), Factor(*(part[None] for part in wave)))
    moving = moving if damping is None else scaled(moving, damping)
    rows, samples, voxels = moving.re.shape
    left = jnp.concatenate([part.reshape(-1, voxels) for part in moving])
    real, imag = (matmul(part, left.T).reshape(-1, 2, rows, samples) for part in weight)
    re, im = real[:, 0] - imag[:, 1], real[:, 1] + imag[:, 0]
    return Factor(re.reshape(-1, samples), im.reshape(-1, samples))


def product(signal: Factor, wave: Factor) -> Factor:
    """Sum over voxels of `signal` (rows, voxels) times `wave` (columns, voxels), (rows, columns)."""
    left, right = jnp.concatenate(signal), jnp.concatenate(wave)
    both = matmul(left, right.T).reshape(2, signal.re.shape[0], 2, -1)
    return Factor(both[0, :, 0] - both[1, :, 1], both[0, :, 1] + both[1, :, 0])


def projected(signal: Factor, coarse: Factor, fine: Factor, samples: int) -> Factor:
    """Sum over voxels of `signal` (rows, voxels) times exp(rate j), (rows, samples), as one real matrix product."""
    n = signal.re.shape[0]
    moving = times(Factor(*(part[:, None] for part in signal)), Factor(*(part[None] for part in coarse)))
    left = jnp.concatenate(moving).reshape(-1, moving.re.shape[-1])
    product = matmul(left, jnp.concatenate(fine).T)
    product = product.reshape(2, n, coarse.re.shape[0], 2, fine.re.shape[0])
    re, im = product[0, :, :, 0] - product[1, :, :, 1], product[0, :, :, 1] + product[1, :, :, 0]
    return Factor(re.reshape(n, -1)[:, :samples], im.reshape(n, -1)[:, :samples])
