r"""Sampled waveforms: RF and gradients that are linear between nodes, played on many isochromats at once.

Over an interval h the rotation is that of the Magnus series to fourth order: about the mean of omega, corrected by
$-h^2/12\; \bar\omega \times \Delta\omega$; relaxation is split around it (Strang, second order, exact without RF).
Units: s, m, Hz; RF in rad/s, gradients as gamma G in rad/(s m). Reference: Blanes et al., Phys. Rep. 470:151 (2009).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import is_concrete
from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Complex, Float
from jaxmr.objects.phantom import Phantom
from jaxmr.physics import ensembles
from jaxmr.physics.ensembles import Ensemble


class Waveforms(eqx.Module):
    """What a scanner plays. times: nodes, s, increasing. rf: rad/s. gradient: gamma G, rad/(s m). Linear between."""

    times: Float[Array, "n"]
    rf: Complex[Array, "n"]
    gradient: Float[Array, "n 3"]


def refined(waveforms: Waveforms, times) -> tuple[Waveforms, np.ndarray]:
    """The same waveforms with nodes at `times` too, and the indices of these; times as close as 1e-12 s are one.

    The times must be concrete. Raises `ValueError` for times outside of the waveforms.
    """
    if not is_concrete((waveforms.times, times)):
        raise ValueError("the times of nodes and samples must be concrete, got traced ones; close over them")
    nodes, times = np.asarray(waveforms.times, float), np.asarray(times, float)
    if times.min() < nodes[0] - 1e-12 or times.max() > nodes[-1] + 1e-12:
        raise ValueError(
            f"times must lie within the waveforms, {nodes[0]:g} ... {nodes[-1]:g} s, got {times.min():g} ... "
            f"{times.max():g} s; append a node at rest"
        )
    right = np.clip(np.searchsorted(nodes, times), 1, len(nodes) - 1)
    nearest = np.where(times - nodes[right - 1] < nodes[right] - times, right - 1, right)
    known = np.abs(nodes[nearest] - times) <= 1e-12
    merged = np.union1d(nodes, times[~known])
    at = jnp.asarray(merged)
    interpolate = lambda values: jnp.interp(at, waveforms.times, values)  # noqa: E731
    rf = jax.lax.complex(interpolate(waveforms.rf.real), interpolate(waveforms.rf.imag))
    gradient = jnp.stack([interpolate(waveforms.gradient[:, axis]) for axis in range(3)], axis=-1)
    return Waveforms(at, rf, gradient), np.searchsorted(merged, np.where(known, nodes[nearest], times))


def receive(
    waveforms: Waveforms, phantom: Phantom, times, initial: Float[Array, "3"] | None = None
) -> Complex[Array, "coils samples"]:
    """Signal at `times` (s, concrete), summed over the voxels, each a spin at its centre: m0 coil M+.

    initial: magnetisation at the first node in units of the equilibrium; None is (0, 0, 1). Differentiable in RF,
    gradients and phantom. Raises `ValueError` as `refined`, and for tissue with T2' or diffusion.
    """
    tissue = phantom.tissue
    if tissue.t2_prime is not None or tissue.diffusivity is not None:
        raise ValueError("waveforms are played on single spins, without t2_prime and diffusivity; leave them out")
    fine, index = refined(waveforms, times)
    x, y, z = phantom.position.T
    b0 = 0.0 if tissue.b0 is None else 2 * jnp.pi * tissue.b0
    b1 = 1.0 if tissue.b1 is None else tissue.b1
    weight = jnp.ones_like(tissue.t1, shape=(1, *tissue.shape)) if phantom.coils is None else phantom.coils
    weight = (weight if tissue.m0 is None else weight * tissue.m0[None]) + 0j

    def received(spins: Ensemble):
        return matmul(weight, jax.lax.complex(spins.x, spins.y))

    def step(spins: Ensemble, interval):
        time, rf, change, gradient, slope = interval
        e1, e2 = jnp.exp(-time / 2 / tissue.t1), jnp.exp(-time / 2 / tissue.t2)
        axial = gradient[0] * x + gradient[1] * y + gradient[2] * z + b0
        steeper = slope[0] * x + slope[1] * y + slope[2] * z
        mean, rise = (b1 * rf.real, b1 * rf.imag, axial), (b1 * change.real, b1 * change.imag, steeper)
        corrected = (m - time / 12 * c for m, c in zip(mean, _cross(mean, rise), strict=True))
        spins = ensembles.turn(ensembles.relax(spins, e1, e2), *(time * component for component in corrected))
        spins = ensembles.relax(spins, e1, e2)
        return spins, received(spins)

    start = (0.0, 0.0, 1.0) if initial is None else initial
    spins = Ensemble(*(component * jnp.ones_like(tissue.t1) for component in start))
    before, after = (jax.tree.map(lambda leaf, part=part: leaf[part], fine) for part in (slice(-1), slice(1, None)))
    rows = (
        after.times - before.times,
        (after.rf + before.rf) / 2,
        after.rf - before.rf,
        (after.gradient + before.gradient) / 2,
        after.gradient - before.gradient,
    )
    at_start = received(spins)
    _, signal = jax.lax.scan(step, spins, rows)
    return jnp.concatenate([at_start[None], signal]).T[:, index]


def _cross(a: tuple, b: tuple) -> tuple:
    """Vector product of two triples of arrays."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
