r"""What a sequence should be good at, as functions of the sequence: least is best, for `optimise`.

All are made of the Cramér-Rao bounds of the parameters that are sought, each relative to the squared parameter: the
variance that remains, in units of the parameter, at a noise of `noise_std` times the signal's unit. What is unknown
but not sought (the proton density m0) widens the bounds and has no weight. Zhao et al., IEEE TMI 38:844 (2019);
Liu et al., NMR Biomed 2021, section 3.3.2.

Arguments that they share. tissue: any batch, b1 among its leaves where a range of transmit fields counts
(`distributions.over_b1`). weights: of the parameters that are sought by name, 1 each of t1 and t2 if left out. unknown:
what must be estimated beside them, `("m0",)`. scales: in place of the parameter itself, SI units, for those that may
be zero: `{"b0": 10.0}`. noise_std: of each of the real and the imaginary part of a sample.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Names
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import is_concrete
from jaxmr.core.types import Array, Float
from jaxmr.design.distributions import Distribution
from jaxmr.design.fisher import crlb
from jaxmr.design.losses import smooth_maximum
from jaxmr.models import Model
from jaxmr.models.model import with_defaults
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence

SOUGHT = {"t1": 1.0, "t2": 1.0}


def costs(
    sequence: Sequence,
    tissue: Tissue,
    model: Model,
    *,
    weights: Mapping[str, Any] | None = None,
    unknown: Names[str] = ("m0",),
    scales: Mapping[str, float] | None = None,
    noise_std: float = 1.0,
) -> Float[Array, "*batch"]:
    r"""Of each tissue the weighted trace $\sum_p w_p\, \mathrm{CRLB}_p / \theta_p^2$; inf where a bound is.

    Raises `ValueError` for a weight that is negative, or a parameter that is zero and has no scale.
    """
    chosen = SOUGHT if weights is None else weights
    if not chosen or (is_concrete(dict(chosen)) and min(float(w) for w in chosen.values()) < 0):
        raise ValueError(f"weights must be numbers of at least 0 by the name of a parameter, got {dict(chosen)}")
    names = tuple(dict.fromkeys((*unknown, *chosen)))
    bounds = crlb(sequence, tissue, names, model, noise_std)
    full = with_defaults(tissue, names)
    total = jnp.zeros(tissue.shape, bounds.dtype)
    for name, weight in chosen.items():
        scale: Any = (scales or {}).get(name, getattr(full, name))
        if is_concrete(scale) and np.any(np.asarray(scale) == 0):
            raise ValueError(f"{name} is 0 in some tissue, and its bound relative to it infinite; give scales= for it")
        total = total + weight * bounds[..., names.index(name)] / scale**2
    return total


def weighted_trace(
    sequence: Sequence, tissue: Tissue, model: Model, *, tissue_weights: Any = None, **options: Any
) -> Float[Array, ""]:
    """Mean of the `costs` of all tissues, weighted by `tissue_weights` (like the batch) if given.

    The paper's objective, without its factor of the number of tissues. options: of `costs`.
    """
    found = costs(sequence, tissue, model, **options)
    if tissue_weights is None:
        return jnp.mean(found)
    weights = jnp.asarray(tissue_weights, found.dtype)
    if weights.shape != found.shape:
        raise ValueError(f"tissue_weights must have the shape {found.shape} of the tissues, got {weights.shape}")
    # A tissue without weight does not count, even where its bounds are infinite.
    return jnp.sum(weights * jnp.where(weights > 0, found, 0)) / jnp.sum(weights)


def worst_case(
    sequence: Sequence, tissue: Tissue, model: Model, *, sharpness: float | None = 32.0, **options: Any
) -> Float[Array, ""]:
    """Largest of the `costs` of all tissues, smooth so that descent sees all that are nearly as bad.

    sharpness: of `losses.smooth_maximum`, which is at most n^(1/sharpness) times too large for n tissues; None is the
    exact maximum, whose gradient is that of the worst tissue alone. options: of `costs`.
    """
    found = costs(sequence, tissue, model, **options).reshape(-1)
    if sharpness is None:
        return jnp.max(found)
    bounded = jnp.isfinite(found).all()
    return jnp.where(bounded, smooth_maximum(jnp.where(bounded, found, 1), sharpness=sharpness), jnp.inf)


def expected(sequence: Sequence, prior: Distribution, model: Model, **options: Any) -> Float[Array, ""]:
    """Mean of the `costs` over a distribution of tissues and transmit fields: the Bayesian design. options: of `costs`.

    Chaloner and Verdinelli, Stat. Sci. 10:273 (1995).
    """
    return weighted_trace(sequence, prior.tissue, model, tissue_weights=prior.weights, **options)
