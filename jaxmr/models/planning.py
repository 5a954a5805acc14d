"""Choosing how many orders and sub-slices a simulation needs, by trying them on a few pilot voxels.

The pilots are the worst cases of the batch: the longest T2 (with its own and the longest T1) at the
extremes of B1. Their signals with K orders are compared to those with 2K on the actual sequence. Host side:
needs concrete values.
"""

import math
import warnings
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import is_concrete
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence, order_bounds, repetition_time

WARN_ABOVE = 1e-2
"""Relative error of a pilot's signal above which too few orders are reported."""
LADDER = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
"""Orders that are tried: steps of about 1.4, so that few shapes are ever compiled."""


class AccuracyWarning(UserWarning):
    """A simulation is less accurate than its user would expect."""


def plan(sequence: Sequence, tissue: Tissue, model: Any) -> Any:
    """`model` with its open choices made for this sequence and tissue, and its `error` estimated.

    The result is static: it may be used under jit, grad and vmap. Plan again when the sequence or the range of
    the tissue changes much. error: largest relative error (2-norm over the echoes) among the pilot voxels.
    """
    if not is_concrete((sequence, tissue, model)):
        raise ValueError("plan looks at values, and these are being traced; call it outside of jit and grad")
    return model.planned(sequence, tissue)


def pilots(tissue: Tissue) -> Tissue:
    """Four worst-case voxels."""
    flat = tissue.reshape(-1)
    t1, t2 = np.asarray(flat.t1), np.asarray(flat.t2)
    worst = int(np.argmax(t2))
    b1 = None if flat.b1 is None else np.asarray(flat.b1)
    ends = (1.0, 1.0) if b1 is None else (b1.min(), b1.max())
    pick = lambda leaf: None if leaf is None else jnp.full(4, leaf[worst])  # noqa: E731
    dtype = flat.t1.dtype
    return Tissue(
        t1=jnp.asarray([t1[worst], t1.max()] * 2, dtype),
        t2=jnp.full(4, t2[worst], dtype),
        b1=None if b1 is None else jnp.asarray(np.repeat(ends, 2), dtype),
        b0=None if flat.b0 is None else jnp.full(4, jnp.max(jnp.abs(flat.b0)), dtype),
        diffusivity=pick(flat.diffusivity),
        t2_prime=pick(flat.t2_prime),
    )


def _difference(sequence: Sequence, tissue: Tissue, model: Any, better: Any) -> float:
    """Largest relative difference of the pilots' signals between two settings of a model."""
    from jaxmr.models.model import _compiled

    signal = np.asarray(_compiled(sequence, tissue, model, None))
    reference = np.asarray(_compiled(sequence, tissue, better, None))
    norm = np.linalg.norm(reference, axis=-1)
    error = np.linalg.norm(signal - reference, axis=-1) / np.where(norm > 0, norm, 1)
    return float(error.max())


def choose_orders(model: Any, sequence: Sequence, tissue: Tissue) -> Any:
    """Orders for `model.tolerance`, or a check of `model.orders`; exact models pass unchanged."""
    if model.error is not None or (model.orders is None and model.tolerance is None):
        return model
    most = max(int(bound.max()) for bound in order_bounds(sequence))
    few = pilots(tissue)
    if model.tolerance is None:
        if model.orders >= most:
            return model
        error = _difference(sequence, few, model, _with(model, min(2 * model.orders, most)))
        if error > WARN_ABOVE:
            warnings.warn(
                f"orders={model.orders} is too few for t2 = {float(few.t2[0]):.3g} s: expect errors of "
                f"{100 * error:.1f} % of the signal; use more orders, orders=None (exact), or tolerance=",
                AccuracyWarning,
                stacklevel=4,
            )
        return _with(model, model.orders, error)
    start = _first_guess(sequence, few, model.tolerance)
    for orders in (k for k in LADDER if k >= start):
        if orders >= most:
            break
        error = _difference(sequence, few, _with(model, orders), _with(model, min(2 * orders, most)))
        if error <= model.tolerance:
            return _with(model, orders, error)
    return _with(model, None, 0.0)


def choose_slices(model: Any, sequence: Sequence, tissue: Tissue) -> Any:
    """Double the sub-slices until the pilots change by less than `model.tolerance`; without one, unchanged."""
    if model.tolerance is None or model.n_z < 2:
        return model
    few = pilots(tissue)
    while True:
        finer = eqx.tree_at(lambda m: m.error, model, model.error)
        finer = _replace(model, n_z=2 * model.n_z)
        error = _difference(sequence, few, model, finer)
        if error <= model.tolerance or model.n_z >= 512:
            return _with(model, model.orders, float(model.error) + error)
        model = finer


def _first_guess(sequence: Sequence, few: Tissue, tolerance: float) -> int:
    """Orders at which a path's weight has decayed to `tolerance` by T2 (measured on a FISP train)."""
    longest = max(sequence.segments, key=lambda segment: segment.repetitions)
    ratio = float(jnp.max(repetition_time(longest))) / float(few.t2[0])
    return max(int(math.log(max(0.07 / tolerance, 1.5)) / (2 * ratio + 0.03)) // 2, 4)


def _with(model: Any, orders: int | None, error: float | None = None) -> Any:
    """`model` with these orders and, once known, this error."""
    return _replace(model, orders=orders, tolerance=None, error=None if error is None else jnp.asarray(error))


def _replace(model: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(model, **changes)
