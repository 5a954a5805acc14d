"""Signals of a group of voxels, and how they are differentiated.

A voxel's signal depends on its own few parameters only, so its derivatives by them (the Jacobian) say all that
forward and reverse mode need, at three to five times the price of the signal and without a record of the states.
Derivatives by the sequence or the pulse shape are JAX's own, through the scan.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core.types import Array, Complex
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence


@eqx.filter_custom_jvp
def signals(shared: Any, sequence: Sequence, tissue: Tissue, model: Any) -> Complex[Array, "voxels n_echoes"]:
    """Signals of voxels without m0; differentiable in everything, any number of times."""
    return model.fastest(shared, sequence, tissue)


@signals.def_jvp
def _along(primals, tangents):
    """The derivative along one direction: from the Jacobian where only the tissue changes."""
    shared, sequence, tissue, model = primals
    changes = {name: change for name, change in vars(tangents[2]).items() if change is not None}
    others = jax.tree.leaves((tangents[0], tangents[1], tangents[3]))
    found = None if others else model.derivatives(shared, sequence, tissue, tuple(changes))
    if found is None:
        return eqx.filter_jvp(lambda *parts: parts[3].signals(*parts[:3]), primals, tangents)
    signal, rows = found
    return signal, sum(row * change[:, None] for row, change in zip(rows, changes.values(), strict=True))


def signals_with_jacobian(
    shared: Any, sequence: Sequence, tissue: Tissue, model: Any, names: tuple[str, ...]
) -> tuple[Complex[Array, "voxels n_echoes"], Complex[Array, "voxels n_names n_echoes"]]:
    """Signals of voxels and their derivatives by the parameters `names`; m0 counts."""
    m0, plain = tissue.m0, dataclasses.replace(tissue, m0=None)
    inner = tuple(name for name in names if name != "m0")
    found = model.derivatives(shared, sequence, plain, inner)
    signal, rows = _forward(shared, sequence, plain, model, inner) if found is None else found
    scale = 1 if m0 is None else m0[:, None].astype(signal.dtype)
    changed = iter(rows)
    columns = [signal if name == "m0" else scale * next(changed) for name in names]
    return scale * signal, jnp.stack(columns, axis=1)


def _forward(shared, sequence, tissue, model, names):
    """Automatic forward mode: a voxel's derivatives are its own, so one direction of ones gives all of them."""
    values = tuple(getattr(tissue, name) for name in names)

    def of(*values):
        return model.signals(shared, sequence, dataclasses.replace(tissue, **dict(zip(names, values, strict=True))))

    def along(selected):
        return jax.jvp(of, values, tuple(jnp.full_like(v, s) for v, s in zip(values, selected, strict=True)))

    return jax.vmap(along, out_axes=(None, 0))(jnp.eye(len(names), dtype=tissue.t1.dtype))
