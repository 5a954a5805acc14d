"""Few sub-slices in place of many: positions and weights learnt so that their signals add up to the slice's.

A pulse acts on the states of each sub-slice as a linear recurrence; only the sum over the slice is wanted. Which few
positions, with which weights, is learnt from the same random signals as the recurrent network: chosen among
candidates by exchange, weights by least squares, so that signals and derivatives of all families err alike.
"""

import importlib.resources
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core import batch
from jaxmr.core.checks import cast
from jaxmr.core.types import Array, Float
from jaxmr.models.epg import EPGBloch, SliceNodes
from jaxmr.models.model import prepare
from jaxmr.mrf.surrogate import examples
from jaxmr.mrf.surrogate.examples import Inputs
from jaxmr.objects.tissue import Tissue
from jaxmr.physics.rf import SLICE_RANGE
from jaxmr.sequences.trains import KINDS

CANDIDATES = 45
"""Midpoints of half a slice to choose from; all of them together are the slice."""
ORDERS = 40
"""Enough to see how signals differ along the slice."""
TOGETHER = 20
"""Signals of one call: their profiles and derivatives take 2 MB each."""


def trained_nodes(n: int = 6) -> SliceNodes:
    """`n` positions of half a slice (3, 4, 5, 6 or 8) for `mr.EPGBloch(nodes=...)`, each at the cost of two midpoints.

    Learnt for the Gaussian pulse with time-bandwidth 3, flips up to 144 degrees; `trained_nodes_card` tells the errors.
    """
    known = trained_nodes_card()["nodes"]
    if str(n) not in known:
        raise ValueError(f"n must be one of {', '.join(known)}, got {n!r}; train others with train_nodes")
    return SliceNodes(*(jnp.asarray(known[str(n)][name], float) for name in ("position", "weight")))


def trained_nodes_card() -> dict[str, Any]:
    """How the nodes were learnt, and how exact they are."""
    path = Path(str(importlib.resources.files("jaxmr.mrf.surrogate"))) / "weights" / "nodes.json"
    return json.loads(path.read_text())


def train_nodes(products: Float[np.ndarray, "tables m m"], n: int, seed: int = 0, starts: int = 6) -> SliceNodes:
    """The `n` candidates, and their weights, with the smallest mean square of relative errors.

    products: of `candidate_products`. Exchanges one position at a time for the best other until none is better, from
    several random choices.
    """
    slice_ = _whole()
    gram = np.sum([product / (slice_ @ product @ slice_) for product in products], axis=0)
    rng = np.random.default_rng(seed)
    found = [_exchanged(gram, sorted(rng.choice(CANDIDATES, n, replace=False).tolist())) for _ in range(starts)]
    chosen = min(found, key=lambda positions: _error(gram, positions))
    return SliceNodes(jnp.asarray(_candidates()[chosen]), jnp.asarray(_weights(gram, chosen)))


def candidate_products(inputs: Inputs, *, progress: bool = False) -> Float[np.ndarray, "tables m m"]:
    """Inner products between the signals of all candidates: of each family, for signals and for derivatives."""
    products = np.zeros((len(KINDS), 2, CANDIDATES, CANDIDATES))
    model = EPGBloch(pulse=examples.pulse(), n_z=2 * CANDIDATES, orders=ORDERS)
    sequence, tissue = examples.extremes(inputs)
    model = cast(model, tissue.t1.dtype)
    shared = eqx.filter_jit(prepare)(sequence, tissue, model)
    devices = tuple(jax.local_devices())
    order = np.argsort(inputs.kind, kind="stable")
    for rows in batch.host_chunks(len(order), TOGETHER, "profiles", progress):
        of = order[rows]
        part = Inputs(*(leaf[np.resize(of, TOGETHER)] for leaf in inputs))
        profiles = np.asarray(_profiles(model, shared, part, devices), float)
        for kind, (signal, *slopes) in zip(inputs.kind[of], profiles, strict=False):
            products[kind, 0] += signal @ signal.T
            products[kind, 1] += sum(slope @ slope.T for slope in slopes)
    return products.reshape(-1, CANDIDATES, CANDIDATES)


@eqx.filter_jit
def _profiles(model: EPGBloch, shared: Any, inputs: Inputs, devices: tuple) -> Float[Array, "n 3 m n_pulses"]:
    """Signal, and derivatives by log T1 and log T2, of each candidate and its mirror image."""

    def one(shared, example):
        sequence = examples.sequence(example.flip, example.tr, example.te, example.mz)

        def signal(log_t1, log_t2):
            tissue = Tissue(t1=jnp.exp(log_t1)[None], t2=jnp.exp(log_t2)[None])
            apart = model.profiles(shared, sequence, tissue)[:, 0].imag
            return apart[CANDIDATES:] + apart[CANDIDATES - 1 :: -1]

        at = jnp.log(example.t1), jnp.log(example.t2)
        zero, unit = jnp.zeros_like(at[0]), jnp.ones_like(at[0])
        value, by_t1 = jax.jvp(signal, at, (unit, zero))
        return jnp.stack([value, by_t1, jax.jvp(signal, at, (zero, unit))[1]])

    return batch.over_groups(one, shared, inputs, devices)


def _candidates() -> Float[np.ndarray, "m"]:
    """In thicknesses."""
    return (np.arange(CANDIDATES) + 0.5) / CANDIDATES * SLICE_RANGE / 2


def _whole() -> Float[np.ndarray, "m"]:
    """Weights of the candidates as midpoints."""
    return np.full(CANDIDATES, SLICE_RANGE / (2 * CANDIDATES))


def _weights(gram: Float[np.ndarray, "m m"], chosen: list[int]) -> Float[np.ndarray, "n"]:
    return np.linalg.solve(gram[np.ix_(chosen, chosen)], gram[chosen] @ _whole())


def _error(gram: Float[np.ndarray, "m m"], chosen: list[int]) -> float:
    """What the chosen leave of the slice."""
    left = -_whole()
    left[chosen] += _weights(gram, chosen)
    return float(left @ gram @ left)


def _exchanged(gram: Float[np.ndarray, "m m"], chosen: list[int]) -> list[int]:
    """The chosen, exchanged one by one as long as it helps."""
    best, before = _error(gram, chosen), np.inf
    while best < before:
        before = best
        for i in range(len(chosen)):
            others = [[*chosen[:i], new, *chosen[i + 1 :]] for new in range(CANDIDATES) if new not in chosen]
            errors = [_error(gram, other) for other in others]
            if min(errors) < best:
                best, chosen = min(errors), others[int(np.argmin(errors))]
    return sorted(chosen)
