r"""Signals that have a closed form: what `jaxmr.recon.fit` fits voxel by voxel.

    inversion recovery    1 - (1 + efficiency) exp(-ti / t1)
    saturation recovery   1 - efficiency exp(-ti / t1)
    spoiled gradient echo sin(b1 a) (1 - E) / (1 - E cos(b1 a)),    E = exp(-tr / t1), a the flip angle
    transverse decay      exp(-te / t2)

each times m0, in seconds and radians. A new one is a function of one voxel and the bounds of its unknowns.
References: Haacke et al., Magnetic Resonance Imaging (1999), chapters 8, 18; Deoni et al., MRM 49:515 (2003).
"""

from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp

from jaxmr.core.checks import as_float, require_values
from jaxmr.core.types import Array, Float, Shaped

T1 = (0.01, 20.0)
T2 = (5e-4, 10.0)
"""Seconds between which tissue and test objects lie; where the unknowns are sought unless others are given."""


@final
class SignalModel(eqx.Module):
    """A voxel's signal as a function of its unknowns; its m0 is a factor.

    shape: gives the signal `(n_times,)` of m0 = 1 from the unknowns and other maps, all by name. Arrays that all
    voxels share belong into it as leaves (`eqx.Partial`), so that new numbers compile nothing. bounds: of each
    unknown, `t1=(0.01, 20.0)`; one whose bounds are positive is sought in its logarithm.

        SignalModel(eqx.Partial(lambda te, r2: jnp.exp(-te * r2), te), r2=(0.1, 1000.0))
    """

    shape: Callable[..., Shaped[Array, "n_times"]]
    bounds: tuple[tuple[str, float, float], ...] = eqx.field(static=True)

    def __init__(self, shape: Callable, **bounds: tuple[float, float]):
        if not bounds:
            raise ValueError("a SignalModel needs the bounds of at least one unknown, such as t1=(0.01, 20.0)")
        if "m0" in bounds:
            raise ValueError("bounds names m0, which is a factor of every model and has none; leave it out")
        for name, (low, high) in bounds.items():
            if not low < high:
                raise ValueError(f"bounds of {name} must be (low, high) with low < high, got ({low}, {high})")
        self.shape = shape
        self.bounds = tuple((name, float(low), float(high)) for name, (low, high) in bounds.items())

    @property
    def unknowns(self) -> tuple[str, ...]:
        """Names of what is fitted beside m0."""
        return tuple(name for name, _, _ in self.bounds)

    def __call__(self, m0: Any = 1.0, **maps: Any) -> Shaped[Array, "n_times"]:
        """Signal of one voxel; `jax.vmap` for many."""
        return m0 * self.shape(**maps)


def inversion_recovery(times, **bounds: tuple[float, float]) -> SignalModel:
    """Signal `times` (n_times,) after an inversion, s, everything recovered before it; unknown t1.

    An `efficiency` other than 1 is a known map, or an unknown if it has bounds: `efficiency=(0.5, 1.0)`.
    """
    return SignalModel(eqx.Partial(_inversion_recovery, _times("times", times)), **{"t1": T1, **bounds})


def saturation_recovery(times, **bounds: tuple[float, float]) -> SignalModel:
    """Signal `times` (n_times,) after a saturation, s; unknown t1. `efficiency` as in `inversion_recovery`."""
    return SignalModel(eqx.Partial(_saturation_recovery, _times("times", times)), **{"t1": T1, **bounds})


def variable_flip_angle(flips, tr, **bounds: tuple[float, float]) -> SignalModel:
    """Steady state of a spoiled gradient echo at each of `flips` (n_times,), rad; unknown t1.

    tr: s, one or one per flip. `b1` (relative to nominal) is a known map, 1 where there is none. m0 includes the
    decay until the echo.
    """
    flips, tr = as_float("flips", flips), _times("tr", tr)
    require_values("flips", flips, "flip angles are in radians")
    if flips.ndim != 1 or tr.shape not in ((), flips.shape):
        raise ValueError(f"flips must have shape (n,) and tr () or (n,), got {flips.shape} and {tr.shape}")
    return SignalModel(eqx.Partial(_spoiled_gradient_echo, flips, tr), **{"t1": T1, **bounds})


def t2_decay(times, **bounds: tuple[float, float]) -> SignalModel:
    """Signal at echo times `times` (n_times,), s, after one excitation; unknown t2."""
    return SignalModel(eqx.Partial(_decay, _times("times", times)), **{"t2": T2, **bounds})


def magnitude(model: SignalModel) -> SignalModel:
    """The model of the magnitude of `model`'s signal, m0 being its magnitude, too.

    For data whose signs are lost. Noise is taken as Gaussian, which it is not (Rician) where the signal passes 0:
    fit complex data where there are any.
    """
    return SignalModel(eqx.Partial(_magnitude, model.shape), **{name: (low, high) for name, low, high in model.bounds})


def _inversion_recovery(times, t1, efficiency=1.0):
    return 1 - (1 + efficiency) * jnp.exp(-times / t1)


def _saturation_recovery(times, t1, efficiency=1.0):
    return 1 - efficiency * jnp.exp(-times / t1)


def _spoiled_gradient_echo(flips, tr, t1, b1=1.0):
    # 1 - E cos a, as a sum of what is lost: with E and cos a near 1 single precision would lose most of it.
    lost = -jnp.expm1(-tr / t1)
    tipped = 2 * jnp.exp(-tr / t1) * jnp.sin(b1 * flips / 2) ** 2
    return jnp.sin(b1 * flips) * lost / (lost + tipped)


def _decay(times, t2):
    return jnp.exp(-times / t2)


def _magnitude(shape, **maps):
    return jnp.abs(shape(**maps))


def _times(name: str, times) -> Float[Array, "*n"]:
    times = as_float(name, times)
    require_values(name, times, "times are in seconds", minimum=0)
    if name == "times" and times.ndim != 1:
        raise ValueError(f"times must have shape (n_times,), got {times.shape}")
    return times
