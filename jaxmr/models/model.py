"""The front door: `simulate` and `simulate_with_jacobian` for any sequence, tissue and model.

A model is a value that says which physics to use. Everything here is pure and may be jitted, vmapped and
differentiated; the batch axes of the tissue are the fast path.
"""

import abc
from collections.abc import Sequence as Names
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from jaxmr.core import batch
from jaxmr.core.checks import cast, is_concrete
from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Complex, Float, Jacobian, Signal
from jaxmr.models import derivatives, imaging
from jaxmr.models.imaging import ImagingModel
from jaxmr.objects.phantom import Phantom
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence


class Model(eqx.Module):
    """A way to compute the signal of voxels. Concrete models are final."""

    @abc.abstractmethod
    def prepare(self, sequence: Sequence, tissue: Tissue) -> Any:
        """What all voxels share (e.g. tables of pulse operators), computed once per call.

        The signal must not depend on the tissue through it: no derivative by the tissue is taken here.
        """

    @abc.abstractmethod
    def signals(
        self, shared: Any, sequence: Sequence, tissue: Tissue, keep: Float[Array, "voxels"] | None = None
    ) -> Complex[Array, "voxels n_echoes"]:
        """Signal for m0 = 1 of the voxels of a flat tissue; `keep` limits the orders of each voxel (for plans)."""

    @abc.abstractmethod
    def fastest(self, shared: Any, sequence: Sequence, tissue: Tissue) -> Complex[Array, "voxels n_echoes"]:
        """`signals` by the fastest means there is, which need not be differentiable."""

    @abc.abstractmethod
    def derivatives(
        self, shared: Any, sequence: Sequence, tissue: Tissue, names: tuple[str, ...]
    ) -> tuple[Complex[Array, "voxels n_echoes"], Complex[Array, "n_names voxels n_echoes"]] | None:
        """`signals` and its derivatives by parameters of the tissue, each voxel's by its own.

        None where the model has no rule cheaper than automatic differentiation.
        """

    @abc.abstractmethod
    def state_shape(self, sequence: Sequence, tissue: Tissue) -> tuple[int, int]:
        """Numbers in one voxel's state, and lanes that they lie on: decides how many voxels go together."""

    @abc.abstractmethod
    def planned(self, sequence: Sequence, tissue: Tissue) -> "Model":
        """The model with every choice made (orders, sub-slices), from concrete input; warns if they are too few."""

    @abc.abstractmethod
    def is_static(self) -> bool:
        """Whether every choice is already made, so that traced input needs no plan."""


def simulate(
    sequence: Sequence, tissue: Tissue | Phantom, model: Model | ImagingModel, *, devices: list | None = None
) -> Signal:
    """Signal of every voxel of `tissue` at every echo of `sequence`, complex `(*batch, n_echoes)`.

    Of a `Phantom`, by a model that plays gradients (`PDG`, `Isochromats`): its k-space, complex `(coils, samples)`,
    coils = 1 without coils.

    On concrete input the model's open choices are made here, and too few orders warn; on traced input
    they must have been made (`mr.plan`). `devices` shares the voxels between devices; without it, none
    is chosen. Differentiable in all leaves of sequence, tissue and model.
    """
    made = _ready(sequence, tissue, model)
    of: Any = imaging.kspace if isinstance(made, ImagingModel) else _compiled
    return of(sequence, tissue, made, _key(devices))


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


def _ready(sequence, tissue: Any, model) -> Any:
    if not isinstance(sequence, Sequence):
        raise ValueError(f"simulate takes a Sequence first, got {type(sequence).__name__}; see mr.sequences")
    wanted = Phantom if isinstance(model, ImagingModel) else Tissue
    if not isinstance(tissue, wanted):
        raise ValueError(
            f"{type(model).__name__} simulates a {wanted.__name__}, got {type(tissue).__name__}; EPG and EPGBloch give "
            "signals of a Tissue (phantom.tissue), PDG and Isochromats k-space of a Phantom"
        )
    if is_concrete((sequence, tissue, model)):
        planned: Any = model.planned
        return planned(sequence, tissue)
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
    """Signals of a flat tissue, group by group on each device, from what `prepare` made for it or a wider one."""
    groups = _groups(sequence, tissue, model, devices)
    signals = run_grouped(shared, sequence, groups, model, devices)
    return signals.reshape(-1, signals.shape[-1])[: tissue.shape[0]]


def run_grouped(
    shared: Any,
    sequence: Sequence,
    groups: Tissue,
    model: Model,
    devices: tuple | None,
    basis: Complex[Array, "n_echoes rank"] | None = None,
) -> Complex[Array, "n_groups lanes n_points"]:
    """Signals of voxels in groups, or their components in a `basis`, `signals @ conj(basis)`.

    groups: leaves `(n_groups, lanes)`, as many lanes as a device computes together; `b1` `(n_groups, 1)` where
    all voxels of a group share it, which saves looking up their pulses one by one. A projection is part of each
    group's turn: its signals never leave the cache.
    """
    sequence, model = cast((sequence, model), groups.t1.dtype)

    def components(everything, group):
        prepared, played, columns = everything
        flat = eqx.tree_at(lambda t: t.m0, group, None, is_leaf=lambda x: x is None)  # b1 keeps its one value
        found = derivatives.signals(prepared, played, flat, model)
        if columns is not None:
            found = matmul(found, columns.conj().astype(found.dtype))
        return found if group.m0 is None else group.m0[:, None].astype(found.dtype) * found

    return batch.over_groups(components, (shared, sequence, basis), groups, devices)


def run_with_jacobian(
    sequence: Sequence, tissue: Tissue, model: Model, names: tuple[str, ...], devices: tuple | None = None
) -> tuple[Signal, Jacobian]:
    """`simulate_with_jacobian` of a model whose choices are made; every name must be a leaf of the tissue."""
    shape, flat = tissue.shape, tissue.reshape(-1)
    shared = prepare(sequence, flat, model)
    sequence, model = cast((sequence, model), flat.t1.dtype)
    groups = _groups(sequence, flat, model, devices, 1 + len(names))

    def both(everything, group):
        prepared, played = everything
        return derivatives.signals_with_jacobian(prepared, played, group, model, names)

    found = batch.over_groups(both, (shared, sequence), groups, devices)
    signal, rows = (part.reshape(-1, *part.shape[2:])[: flat.shape[0]] for part in found)
    return signal.reshape(*shape, -1), rows.reshape(*shape, *rows.shape[1:])


def _groups(sequence: Sequence, tissue: Tissue, model: Model, devices: tuple | None, n_families: int = 1) -> Tissue:
    """A flat tissue in groups whose states, and derivatives of them, a core's cache can hold."""
    numbers, lanes = model.state_shape(sequence, tissue)
    together = batch.voxels_per_chunk(n_families * numbers * tissue.t1.dtype.itemsize, lanes)
    return batch.in_groups(tissue, together, 1 if devices is None else len(devices))


@eqx.filter_jit
def _compiled(sequence, tissue, model, devices):
    return run(sequence, tissue, model, devices)


@eqx.filter_jit
def _compiled_jacobian(sequence, tissue, model, names, devices):
    return run_with_jacobian(sequence, tissue, model, names, devices)
