"""How accurate a match is: matched maps against the tissue that was simulated.

Scored are voxels of one tissue, which gives more than 95 % of their M0, against `objects.truth` (of what is mixed,
the geometric means of T1 and T2). Values are arrays over the voxels of the brain, in SI units.
"""

from typing import NamedTuple

import numpy as np

import jaxmr as mr
from jaxmr.models import Model
from jaxmr.mrf import Match
from jaxmr.objects import Phantom, Tissue
from jaxmr.objects.literature_values import TABLE
from jaxmr.sequences import Sequence

PURITY = 0.95
"""Least share of one tissue in a voxel of one tissue."""
WHOLE = 0.99
"""The same where errors are compared with a bound that knows of one tissue only."""
PILOTS = 16
"""Voxels of a tissue whose Cramér-Rao bounds are computed."""
TISSUES = 6
"""More of them are no tissues but maps, which are cut into three ranges of T1."""


class Group(NamedTuple):
    """Voxels of one tissue, and what to call it."""

    name: str
    voxels: np.ndarray


def _weight(phantom: Phantom) -> np.ndarray:
    m0 = phantom.tissue.m0
    return np.ones(phantom.tissue.shape) if m0 is None else np.abs(np.asarray(m0))


def groups(phantom: Phantom, truth: dict[str, np.ndarray], mask: np.ndarray) -> list[Group]:
    """The tissues of the voxels that are wholly of one, the largest first; of maps of many, three ranges of T1.

    truth: over the voxels of the `mask`.
    """
    pure = np.flatnonzero(truth["purity"] > WHOLE)
    # Assignment in ascending order of weight leaves the largest compartment in place.
    order = np.argsort(_weight(phantom), kind="stable")
    largest = np.zeros(mask.size, int)
    largest[np.asarray(phantom.pixel)[order]] = order
    largest = largest.reshape(mask.shape)[mask][pure]
    t1, t2 = (np.asarray(leaf)[largest] for leaf in (phantom.tissue.t1, phantom.tissue.t2))
    kinds, kind = np.unique(np.stack([t1, t2]), axis=1, return_inverse=True)
    if kinds.shape[1] <= TISSUES:
        found = [Group(_name(*times), pure[kind == i]) for i, times in enumerate(kinds.T)]
    else:
        found = [Group(_range(t1[part]), pure[part]) for part in np.array_split(np.argsort(t1, kind="stable"), 3)]
    return sorted(found, key=lambda group: -group.voxels.size)


def _name(t1: float, t2: float) -> str:
    known = (entry.name for entry in TABLE if np.allclose((entry.t1, entry.t2), (t1, t2), rtol=1e-4))
    return next(known, f"T1 {1e3 * t1:.0f}, T2 {1e3 * t2:.0f} ms")


def _range(t1: np.ndarray) -> str:
    return f"T1 {1e3 * t1.min():.0f} ... {1e3 * t1.max():.0f} ms"


def estimates(match: Match) -> dict[str, np.ndarray]:
    """What was estimated: the parameters that differ between the atoms, and the magnitude of m0."""
    names = [name for name in ("t1", "t2", "b1", "b0") if np.ptp(match.parameters.get(name, 0)) > 0]
    return {**{name: match.parameters[name] for name in names}, "m0": np.abs(match.m0)}


def without_noise(
    found: dict[str, np.ndarray], truth: dict[str, np.ndarray], axes: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Of each estimate, in voxels of one tissue: median error (of b0 in Hz), share within half a grid step."""
    pure = truth["purity"] > PURITY
    scores = {}
    for name, values in found.items() if pure.any() else ():
        scores[name] = {"median_error": _median_error(name, values[pure], truth[name][pure])}
        if name in axes:
            steps = _steps(axes[name], values[pure]) - _steps(axes[name], truth[name][pure])
            scores[name]["within_half_step"] = float((np.abs(steps) <= 0.5).mean())
    return scores


def with_noise(
    found: dict[str, np.ndarray],
    truth: dict[str, np.ndarray],
    groups: list[Group],
    sequence: Sequence,
    model: Model,
    noise_std: float,
) -> dict[str, dict[str, dict[str, float]]]:
    """Of each tissue and estimate: median error, spread of the errors, and the Cramér-Rao bound beside it.

    Spread and bound are standard deviations; the spread is 1.4826 times the median absolute deviation, the bound
    is for all estimates unknown, the median over some of the tissue's voxels.
    """
    if not groups:
        return {}
    names = tuple(found)
    chosen = [group.voxels[np.linspace(0, group.voxels.size - 1, PILOTS).astype(int)] for group in groups]
    tissue = Tissue(**{name: truth[name][np.concatenate(chosen)] for name in {"t1", "t2", *names}})
    found_bounds = bounds(sequence, tissue, names, model, noise_std).reshape(len(groups), PILOTS, -1)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for group, bound_of in zip(groups, np.median(found_bounds, axis=1), strict=True):
        scores[group.name] = {}
        for name, bound in zip(names, bound_of, strict=True):
            values, true = found[name][group.voxels], truth[name][group.voxels]
            error = values - true
            scores[group.name][name] = {
                "true": float(np.median(true)),
                "median_error": _median_error(name, values, true),
                "spread": float(1.4826 * np.median(np.abs(error - np.median(error)))),
                "bound": float(bound),
            }
    return scores


def bounds(sequence: Sequence, tissue: Tissue, names: tuple[str, ...], model: Model, noise_std: float) -> np.ndarray:
    """Cramér-Rao bounds of `names`, `(*batch, len(names))`, standard deviations.

    Unlike in `design.crlb` the phase of m0 is unknown too, as in matching: it competes with b0.
    """
    signal, jacobian = mr.simulate_with_jacobian(sequence, tissue, model, names)
    rows = np.concatenate([jacobian, 1j * np.asarray(signal)[..., None, :]], axis=-2).astype(complex)
    information = np.real(rows.conj() @ rows.swapaxes(-1, -2)) / noise_std**2
    # To a unit diagonal before inversion: seconds and M0 differ by orders of magnitude.
    scale = 1 / np.sqrt(np.diagonal(information, axis1=-2, axis2=-1))
    inverse = np.linalg.inv(information * scale[..., :, None] * scale[..., None, :])
    return (np.sqrt(np.diagonal(inverse, axis1=-2, axis2=-1)) * scale)[..., :-1]


def _median_error(name: str, found: np.ndarray, true: np.ndarray) -> float:
    """Relative, but of b0, which passes through zero, in Hz."""
    error = np.abs(found - true)
    return float(np.median(error if name == "b0" else error / true))


def _steps(axis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Places on an axis in steps, by the logarithm where it is positive; NaN beyond its ends."""
    scale = np.log if axis[0] > 0 else np.asarray
    return np.interp(scale(values), scale(axis), np.arange(axis.size), left=np.nan, right=np.nan)
