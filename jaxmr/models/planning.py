"""Choosing how many orders and sub-slices a simulation needs, by trying them on a few pilot voxels.

The pilots are the worst cases of a batch: its longest T2, with its own and with the longest T1, at the extremes
of B1. All candidates run side by side on the actual sequence, each voxel keeping its own number of orders, so
that a plan compiles once. Host side: needs concrete values.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence as Several
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import cast, is_concrete
from jaxmr.core.digests import digest
from jaxmr.models import slicing
from jaxmr.models.model import prepare
from jaxmr.objects.phantom import Phantom
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence, order_bounds, repetition_time

WARN_ABOVE = 1e-2
"""Relative error of a pilot's signal above which too few orders are reported."""
LADDER = (
    *(6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 144, 160, 176, 192),
    *(224, 256, 320, 384, 512, 768, 1024, 1536, 2048),
)
"""Orders that are tried."""
PILOT_SLICES = 8
"""Sub-slices of a pilot: enough to see flip angles from 0 to the largest."""
MEMORY = 64
"""Plans that are remembered."""
_REMEMBERED: dict[str, list["Answer"]] = {}


OURS = (str(Path(__file__).parents[1]), str(Path(str(eqx.__file__)).parent))
"""Folders whose frames are not the user's: a warning names the line that called."""


class AccuracyWarning(UserWarning):
    """A simulation is less accurate than its user would expect."""


def plan(sequence: Sequence, tissue: Tissue | Phantom, model: Any) -> Any:
    """`model` with its open choices made for this sequence and tissue (or phantom), and its `error` estimated.

    The result is static: it may be used under jit, grad and vmap. Plan again when the sequence or the range of
    the tissue changes much. `error` is the largest relative error (2-norm over the echoes) that the truncation
    of orders and the sub-slices cause in a pilot voxel. A model with fixed orders is checked, and warns if they
    are too few. Plans are remembered: the same question again costs nothing.
    """
    if isinstance(tissue, Phantom):
        return model.planned(sequence, tissue)
    return plan_groups(sequence, [tissue], model)[0]


def plan_groups(sequence: Sequence, tissues: Several[Tissue], model: Any) -> list[Any]:
    """A `plan` for each of several tissues, found together."""
    if not is_concrete((sequence, tissues, model)):
        raise ValueError("plan looks at values, and these are being traced; call it outside of jit and grad")
    if model.error is not None or (model.orders is None and model.tolerance is None):
        return [model] * len(tissues)
    few = [pilots(tissue) for tissue in tissues]
    question = digest((sequence, few, model))
    if question not in _REMEMBERED:
        while len(_REMEMBERED) >= MEMORY:
            _REMEMBERED.pop(next(iter(_REMEMBERED)))
        most = max(int(bound.max()) for bound in order_bounds(sequence))
        choose = _checked if model.tolerance is None else _chosen
        _REMEMBERED[question] = choose(model, sequence, few, most)
    answers = _REMEMBERED[question]
    if model.tolerance is None and answers[0].error > WARN_ABOVE:
        _warn(answers[0].orders, float(few[0].t2[0]), answers[0].error)
    return [
        dataclasses.replace(
            model, orders=answer.orders, n_z=answer.n_z, tolerance=None, error=jnp.asarray(answer.error)
        )
        for answer in answers
    ]


class Answer(NamedTuple):
    """Orders and sub-slices of a plan (None: all, and the model's own), and the relative error they cause."""

    orders: int | None
    n_z: int | None
    error: float


def _chosen(model: Any, sequence: Sequence, few: list[Tissue], most: int) -> list[Answer]:
    """The fewest orders, and if they are open the fewest sub-slices, that keep the tolerance."""
    sliced = _is_sliced(model) and model.n_z is None
    # Two errors that have nothing to do with each other add up as squares.
    tolerance = model.tolerance / math.sqrt(2) if sliced else model.tolerance
    found = _orders(model, sequence, few, most, tolerance)
    if not sliced:
        return [Answer(orders, model.n_z, error) for orders, error in found]
    kept = max((orders or most for orders, _ in found), default=most)
    fine = _with(model, min(kept, slicing.ORDERS), slicing.N_FINE)
    # Off-resonance is a phase, or shifts the slice: the same sub-slices.
    pilot = dataclasses.replace(_joined(few), b0=None)
    errors = np.split(slicing.slice_errors(fine, sequence, pilot), _ends(few))
    answers = []
    for (orders, error), part in zip(found, errors, strict=True):
        worst = part.max(axis=0)
        good = worst <= tolerance
        i = int(np.argmax(good)) if good.any() else len(worst) - 1
        n_z = slicing.LADDER[i] if good.any() else slicing.MOST
        answers.append(Answer(orders, n_z, math.hypot(error, float(worst[i]))))
    return answers


def _is_sliced(model: Any) -> bool:
    """Whether the model adds up sub-slices of which it may choose the number."""
    return getattr(model, "profile", True) is not None and getattr(model, "nodes", None) is None


def _orders(
    model: Any, sequence: Sequence, few: list[Tissue], most: int, tolerance: float
) -> list[tuple[int | None, float]]:
    """Of each group, the orders that keep the tolerance (None: all of them) and their error."""
    largest = min(most, _first_guess(sequence, few, tolerance))
    while True:
        # A truncated reference must be far better than what it judges; an exact one need not.
        candidates = [k for k in LADDER if k < (most if largest == most else largest / 2)]
        errors = _errors(model, sequence, few, candidates, largest)
        good = errors <= tolerance
        if largest == most or good.any(axis=1).all():
            break
        largest = min(most, 2 * largest)
    chosen = [int(np.argmax(row)) if row.any() else None for row in good]
    return [(None, 0.0) if i is None else (candidates[i], float(row[i])) for i, row in zip(chosen, errors, strict=True)]


def pilots(tissue: Tissue) -> Tissue:
    """Four worst-case voxels of a batch, two if it has no B1."""
    flat = jax.tree.map(np.asarray, tissue.reshape(-1))
    worst = int(np.argmax(flat.t2))
    b1 = [None] if flat.b1 is None else [flat.b1.min(), flat.b1.max()]
    t1 = [flat.t1[worst], flat.t1.max()]
    n, dtype = len(t1) * len(b1), flat.t1.dtype
    full = lambda value: None if value is None else np.full(n, value, dtype)  # noqa: E731
    return Tissue(
        t1=np.tile(np.asarray(t1, dtype), len(b1)),
        t2=full(flat.t2[worst]),
        b1=None if flat.b1 is None else np.repeat(np.asarray(b1, dtype), len(t1)),
        b0=full(None if flat.b0 is None else np.abs(flat.b0).max()),
        diffusivity=full(None if flat.diffusivity is None else flat.diffusivity[worst]),
    )


def _errors(model: Any, sequence: Sequence, few: list[Tissue], candidates: list[int], largest: int) -> np.ndarray:
    """Relative error `(groups, candidates)` of the signal with so many orders against `largest` of them."""
    if not candidates:
        return np.ones((len(few), 0))
    kept = [*candidates, largest]
    together = _joined(few)
    n = together.shape[0]
    tissue = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(kept)), together)
    keep = jnp.tile(jnp.asarray(kept, tissue.t1.dtype), n)
    coarse = _with(model, largest, PILOT_SLICES if model.n_z is None else min(model.n_z, PILOT_SLICES))
    signal = np.asarray(_truncated(sequence, tissue, coarse, keep)).reshape(n, len(kept), -1)
    reference = signal[:, -1:]
    norm = np.linalg.norm(reference, axis=-1)
    error = np.linalg.norm(signal[:, :-1] - reference, axis=-1) / np.where(norm > 0, norm, 1)
    return np.stack([part.max(axis=0) for part in np.split(error, _ends(few))])


def _joined(few: list[Tissue]) -> Tissue:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *few)


def _ends(few: list[Tissue]) -> np.ndarray:
    return np.cumsum([len(pilot.t1) for pilot in few])[:-1]


@eqx.filter_jit
def _truncated(sequence, tissue, model, keep):
    shared = prepare(sequence, tissue, model)
    sequence, model = cast((sequence, model), tissue.t1.dtype)
    return model.signals(shared, sequence, tissue, keep)


def _checked(model: Any, sequence: Sequence, few: list[Tissue], most: int) -> list[Answer]:
    """The error that a model's fixed orders cause."""
    if model.orders >= most:
        return [Answer(model.orders, model.n_z, 0.0)] * len(few)
    errors = _errors(model, sequence, few, [model.orders], min(2 * model.orders, most))[:, 0]
    return [Answer(model.orders, model.n_z, float(error)) for error in errors]


def _warn(orders: int | None, t2: float, error: float) -> None:
    warnings.warn(
        f"orders={orders} is too few for t2 = {t2:.3g} s: expect errors of "
        f"{100 * error:.1f} % of the signal; use more orders, orders=None (exact), or tolerance=",
        AccuracyWarning,
        skip_file_prefixes=OURS,
    )


def _first_guess(sequence: Sequence, few: list[Tissue], tolerance: float) -> int:
    """Four times the orders at which a path's weight decays to `tolerance` by T2 (measured on a FISP train)."""
    longest = max(sequence.segments, key=lambda segment: segment.repetitions)
    t2 = max(float(jnp.max(pilot.t2)) for pilot in few)
    ratio = float(jnp.max(repetition_time(longest))) / t2
    return max(4 * int(math.log(max(0.07 / tolerance, 1.5)) / (2 * ratio + 0.03)), 32)


def _with(model: Any, orders: int, n_z: int) -> Any:
    """`model` with these orders, and these sub-slices unless they are given nodes."""
    return dataclasses.replace(
        model, orders=orders, n_z=None if getattr(model, "nodes", None) is not None else n_z, tolerance=None
    )
