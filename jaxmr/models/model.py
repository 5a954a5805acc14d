"""The front door: `simulate` and `simulate_with_jacobian` for any sequence, tissue and model.

A model is a value that says which physics to use. Everything here is pure and may be jitted, vmapped and
differentiated; the batch axes of the tissue are the fast path.
"""

import abc
from collections.abc import Sequence as Names
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core import batch
from jaxmr.core.checks import cast, is_concrete
from jaxmr.core.types import Array, Complex, Float, Jacobian, Signal
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence


class Model(eqx.Module):
    """A way to compute the signal of voxels. Concrete models are final."""

    @abc.abstractmethod
    def prepare(self, sequence: Sequence, tissue: Tissue) -> Any:
        """What all voxels share (e.g. tables of pulse operators), computed once per call."""

    @abc.abstractmethod
    def signals(
        self, shared: Any, sequence: Sequence, tissue: Tissue, keep: Float[Array, "voxels"] | None = None
    ) -> Complex[Array, "voxels n_echoes"]:
        """Signal for m0 = 1 of the voxels of a flat tissue; `keep` limits the orders of each voxel (for plans)."""

    @abc.abstractmethod
    def state_shape(self, sequence: Sequence, tissue: Tissue) -> tuple[int, int]:
        """Numbers in one voxel's state, and lanes that they lie on: decides how many voxels go together."""

    @abc.abstractmethod
    def planned(self, sequence: Sequence, tissue: Tissue) -> "Model":
        """The model with every choice made (orders, sub-slices), from concrete input; warns if they are too few."""

    @abc.abstractmethod
    def is_static(self) -> bool:
        """Whether every choice is already made, so that traced input needs no plan."""


def simulate(sequence: Sequence, tissue: Tissue, model: Model, *, devices: list | None = None) -> Signal:
    """Signal of every voxel of `tissue` at every echo of `sequence`, complex `(*batch, n_echoes)`.

    On concrete input the model's open choices are made here, and too few orders warn; on traced input
    they must have been made (`mr.plan`). `devices` shares the voxels between devices; without it, none
    is chosen. Differentiable in all leaves of sequence, tissue and model.
    """
    return _compiled(sequence, tissue, _ready(sequence, tissue, model), _key(devices))


def simulate_with_jacobian(
    sequence: Sequence,
    tissue: Tissue,
    model: Model,
    wrt: Names[str] = ("t1", "t2"),
    *,
    devices: list | None = None,
) -> tuple[Signal, Jacobian]:
    """Signal, and its derivatives by the tissue's parameters `wrt`, complex `(*batch, n_parameters, n_echoes)`.

    Derivatives are exact (forward mode), per SI unit. A parameter that `tissue` leaves out is taken at its default.
    """
    names = tuple(wrt)
    tissue = with_defaults(tissue, names)
    return _compiled_jacobian(sequence, tissue, _ready(sequence, tissue, model), names, _key(devices))


def with_defaults(tissue: Tissue, names: tuple[str, ...]) -> Tissue:
    """`tissue` with the defaults of `names` written out, so that they can be differentiated."""
    defaults = {"m0": 1.0, "b1": 1.0, "b0": 0.0, "diffusivity": 0.0}
    for name in names:
        if name not in ("t1", "t2", "t2_prime", *defaults):
            known = ", ".join(("t1", "t2", "m0", "b1", "b0", "t2_prime", "diffusivity"))
            raise ValueError(f"wrt names an unknown parameter {name!r}; the tissue has {known}")
        if getattr(tissue, name) is None:
            if name not in defaults:
                raise ValueError(f"wrt names {name!r}, which this tissue does not have; give the tissue a {name}")
            value = jnp.full_like(tissue.t1, defaults[name])
            tissue = eqx.tree_at(lambda t, name=name: getattr(t, name), tissue, value, is_leaf=lambda x: x is None)
    return tissue


def _key(devices):
    return None if devices is None else tuple(devices)


def _ready(sequence, tissue, model) -> Model:
    if not isinstance(sequence, Sequence):
        raise ValueError(f"simulate takes a Sequence first, got {type(sequence).__name__}; see mr.sequences")
    if not isinstance(tissue, Tissue):
        raise ValueError(f"simulate takes a Tissue second, got {type(tissue).__name__}; see mr.Tissue")
    if is_concrete((sequence, tissue, model)):
        return model.planned(sequence, tissue)
    if not model.is_static():
        raise ValueError(
            "tolerance= makes choices from values, and these are being traced; call "
            "model = mr.plan(sequence, tissue, model) outside of jit and grad, and pass the result"
        )
    return model


def run(sequence: Sequence, tissue: Tissue, model: Model, devices: tuple | None = None) -> Signal:
    """`simulate` of a model whose choices are made, without compilation of its own."""
    shape = tissue.shape
    flat = tissue.reshape(-1)
    signal = run_flat(prepare(sequence, flat, model), sequence, flat, model, devices)
    return signal.reshape(*shape, signal.shape[-1])


def prepare(sequence: Sequence, tissue: Tissue, model: Model) -> Any:
    """What all voxels of a flat tissue share, in the tissue's precision."""
    dtype = tissue.t1.dtype
    sequence, model = cast((sequence, model), dtype)
    return cast(model.prepare(sequence, tissue), dtype)


def run_flat(shared: Any, sequence: Sequence, tissue: Tissue, model: Model, devices: tuple | None) -> Signal:
    """Signals of a flat tissue, chunk by chunk on each device, from what `prepare` made for it or a wider one."""
    sequence, model = cast((sequence, model), tissue.t1.dtype)
    m0 = tissue.m0
    flat = eqx.tree_at(lambda t: t.m0, tissue, None, is_leaf=lambda x: x is None)
    numbers, lanes = model.state_shape(sequence, flat)
    chunk = batch.voxels_per_chunk(numbers * tissue.t1.dtype.itemsize, lanes)

    def share(shared, voxels):
        prepared, played = shared
        return batch.in_chunks(lambda part: model.signals(prepared, played, part), voxels, chunk)

    if devices is None or len(devices) == 1:
        signal = share((shared, sequence), flat)
    else:
        signal = batch.over_devices(share, (shared, sequence), flat, list(devices))
    if m0 is not None:
        signal = m0[:, None].astype(signal.dtype) * signal
    return signal


def run_with_jacobian(
    sequence: Sequence, tissue: Tissue, model: Model, names: tuple[str, ...], devices: tuple | None = None
) -> tuple[Signal, Jacobian]:
    """`simulate_with_jacobian` of a model whose choices are made; every name must be a leaf of the tissue."""

    def signal_of(*parameters):
        changed = eqx.tree_at(lambda t: [getattr(t, name) for name in names], tissue, list(parameters))
        return run(sequence, changed, model, devices)

    values = tuple(getattr(tissue, name) for name in names)

    # A voxel depends on its own parameters only: one direction of ones per parameter gives all derivatives.
    def along(selected):
        directions = tuple(
            jnp.full_like(value, 1) * s.astype(value.dtype) for value, s in zip(values, selected, strict=True)
        )
        return jax.jvp(signal_of, values, directions)

    signal, rows = jax.vmap(along, out_axes=(None, 0))(jnp.eye(len(names)))
    return signal, jnp.moveaxis(rows, 0, -2)


@eqx.filter_jit
def _compiled(sequence, tissue, model, devices):
    return run(sequence, tissue, model, devices)


@eqx.filter_jit
def _compiled_jacobian(sequence, tissue, model, names, devices):
    return run_with_jacobian(sequence, tissue, model, names, devices)
