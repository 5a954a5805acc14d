"""EPG models: instantaneous pulses (with a small-tip slice profile if wanted), and EPG-Bloch."""

import dataclasses
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmr.core.checks import is_concrete
from jaxmr.core.types import Array, Complex, Float, Leaf
from jaxmr.models import pallas, planning
from jaxmr.models.model import Model, prepare
from jaxmr.models.playing import is_real, needs_precession, one_axis, play, play_with_derivatives
from jaxmr.models.repetition import PulseRule, Slices, Voxels
from jaxmr.objects.tissue import Tissue
from jaxmr.physics import kernels, selective
from jaxmr.physics.rf import SLICE_RANGE, SmallTip, Waveform, slice_positions
from jaxmr.sequences.sequence import Pulse, Sequence, order_bounds

N_Z = 32
"""Sub-slices where neither the user nor a plan says how many."""


def _orders(sequence: Sequence, orders: int | None) -> int:
    most = max(int(bound.max()) for bound in order_bounds(sequence))
    return most if orders is None else min(most, orders)


def _half(symmetric: bool, n_z: int, sequence: Sequence, tissue: Tissue) -> bool:
    """Whether one half of the slice tells the other: a real symmetric pulse, one axis, no precession of the states."""
    return symmetric and n_z % 2 == 0 and one_axis(sequence) and not needs_precession(sequence, tissue)


def _positions(thickness, n_z: int, half: bool) -> Float[Array, "n"]:
    positions = slice_positions(thickness, n_z)
    return positions[n_z // 2 :] if half else positions


def _check(orders: int | None, tolerance: float | None, n_z: int | None) -> None:
    if orders is not None and (not isinstance(orders, int) or orders < 2):
        raise ValueError(f"orders must be an integer of at least 2 (orders 0 and 1), got {orders!r}; None is exact")
    if orders is not None and tolerance is not None:
        raise ValueError(f"give orders or tolerance, not both, got orders={orders} and tolerance={tolerance}")
    if tolerance is not None and not 0 < tolerance < 1:
        raise ValueError(f"tolerance is a relative error between 0 and 1, got {tolerance}")
    if n_z is not None and (not isinstance(n_z, int) or n_z < 1):
        raise ValueError(f"n_z must be a positive number of sub-slices, got {n_z!r}; None is {N_Z} or as planned")


@final
class EPG(Model):
    """Extended phase graph with instantaneous pulses; `EPG()` keeps every order that can reach a sample.

    orders: keep orders 0 ... orders-1; None is exact. profile: slice profile that scales the flip angle over
    `n_z` sub-slices (32), e.g. `rf.small_tip(pulse)`; None is a uniform voxel. tolerance: let `plan` choose the
    orders, and `n_z` if it is None. error: largest relative error that a plan expects, None before planning.
    Weigel, JMRI 41:266 (2015); profile: Liu et al., NMR Biomed 2021, eq. 2.
    """

    orders: int | None = eqx.field(static=True, default=None)
    profile: SmallTip | None = None
    n_z: int | None = eqx.field(static=True, default=None)
    tolerance: float | None = eqx.field(static=True, default=None)
    error: Float[Array, ""] | None = None

    def __check_init__(self):
        _check(self.orders, self.tolerance, self.n_z)

    @property
    def _n_z(self) -> int:
        return N_Z if self.n_z is None else self.n_z

    def prepare(self, sequence: Sequence, tissue: Tissue) -> Any:
        if self.profile is None:
            return None
        half = self._half(sequence, tissue)
        profile = self.profile(_positions(self.profile.waveform.thickness, self._n_z, half))
        # A real profile is a signed flip; a complex one turns about an axis of its own at each position.
        scale = profile if jnp.isrealobj(profile) else jnp.abs(profile)
        phase = None if jnp.isrealobj(profile) else jnp.angle(profile)
        return scale, phase

    def signals(
        self, shared: Any, sequence: Sequence, tissue: Tissue, keep: Float[Array, "voxels"] | None = None
    ) -> Complex[Array, "voxels n_echoes"]:
        return play(sequence, tissue, *self._how(shared, sequence, tissue), keep)

    def fastest(self, shared: Any, sequence: Sequence, tissue: Tissue) -> Complex[Array, "voxels n_echoes"]:
        pulses = pallas.HardPulses(None if shared is None else shared[0])
        return _fastest(sequence, tissue, self._how(shared, sequence, tissue), pulses)

    def derivatives(
        self, shared: Any, sequence: Sequence, tissue: Tissue, names: tuple[str, ...]
    ) -> tuple[Complex[Array, "voxels n_echoes"], Complex[Array, "n_names voxels n_echoes"]] | None:
        return play_with_derivatives(sequence, tissue, *self._how(shared, sequence, tissue), names)

    def _how(self, shared: Any, sequence: Sequence, tissue: Tissue) -> tuple[PulseRule, Slices, int | None, bool]:
        """Pulses, sub-slices, orders and arithmetic (real or not) of this simulation."""
        real = is_real(sequence, tissue)
        if shared is None:
            return PulseRule(_hard, relaxing=False), Slices(), self.orders, real
        scale, phase = shared
        weight = SLICE_RANGE / self._n_z * (2 if self._half(sequence, tissue) else 1)

        def act(pulse: Pulse, flip, voxels: Voxels) -> kernels.Operator:
            return _hard(pulse, flip * scale[:, None], voxels)

        return PulseRule(act, relaxing=False), Slices(scale.shape[0], weight, phase=phase), self.orders, real

    def profiles(self, shared: Any, sequence: Sequence, tissue: Tissue) -> Complex[Array, "n voxels n_echoes"]:
        rule, slices, orders, real = self._how(shared, sequence, tissue)
        apart = play(sequence, tissue, rule, slices._replace(apart=True), orders, real, None)
        return apart.reshape(slices.n, -1, apart.shape[-1])

    def state_shape(self, sequence: Sequence, tissue: Tissue) -> tuple[int, int]:
        parts = 3 if is_real(sequence, tissue) else 6
        slices = 1 if self.profile is None else self._n_z // (2 if self._half(sequence, tissue) else 1)
        return _orders(sequence, self.orders) * parts * slices, slices

    def planned(self, sequence: Sequence, tissue: Tissue) -> "EPG":
        return planning.plan(sequence, tissue, self)

    def is_static(self) -> bool:
        return self.tolerance is None or self.error is not None

    def _half(self, sequence: Sequence, tissue: Tissue) -> bool:
        return self.profile is not None and _half(self.profile.waveform.symmetric, self._n_z, sequence, tissue)


def _fastest(
    sequence: Sequence, tissue: Tissue, how: tuple[PulseRule, Slices, int | None, bool], pulses: pallas.Pulses
) -> Complex[Array, "voxels n_echoes"]:
    """The kernel that keeps the states in registers where there is a GPU and it knows the train, else the scan."""
    _, slices, orders, real = how

    def scan(sequence, tissue, pulses):
        return play(sequence, tissue, *how, None)

    def kernel(sequence, tissue, pulses):
        return pallas.play_in_registers(sequence, tissue, pulses, slices, orders, real)

    if not _on_gpu() or not pallas.supported(sequence, tissue, pulses, orders, real):
        return scan(sequence, tissue, pulses)
    return jax.lax.platform_dependent(sequence, tissue, pulses, cuda=kernel, default=scan)


def _on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def _hard(pulse: Pulse, flip, voxels: Voxels) -> kernels.Operator:
    """Instantaneous rotation by `flip` times the transmit field."""
    return kernels.hard_pulse(_turned(flip, voxels))


def _turned(flip, voxels: Voxels):
    """`flip` times the transmit field: one number where the voxels share it, else one per voxel."""
    if voxels.b1 is None:
        return flip
    return flip * (voxels.b1[0, 0] if voxels.b1.size == 1 else voxels.b1)


@final
class SliceNodes(eqx.Module):
    """A quadrature of the slice: positions (n,) of its upper half in thicknesses, and their weights (n,).

    The lower half mirrors it. Midpoints would all weigh 3 / n_z.
    """

    position: Float[Leaf, "n"]
    weight: Float[Leaf, "n"]


@final
class EPGBloch(Model):
    """EPG whose pulses follow the Bloch equation over their shape, at `n_z` (32) positions across three thicknesses.

    pulse: shape of all pulses, for sequences without shapes of their own. The signal is the integral of F(0)
    over the slice, divided by the nominal thickness. n_z, orders, tolerance, error as in `EPG`; `error` then leaves
    out that of `nodes`. tables: of the pulses' operators, as `tabulated` makes them; None makes them for each
    simulation. nodes: positions in place of `n_z` midpoints, such as `mr.mrf.trained_nodes()`.
    Liu et al., NMR Biomed 2021, eqs. 3 and 4.
    """

    pulse: Waveform | None = None
    n_z: int | None = eqx.field(static=True, default=None)
    orders: int | None = eqx.field(static=True, default=None)
    tolerance: float | None = eqx.field(static=True, default=None)
    error: Float[Array, ""] | None = None
    tables: tuple[selective.OperatorTable, ...] | None = None
    nodes: SliceNodes | None = None

    def __check_init__(self):
        _check(self.orders, self.tolerance, self.n_z)
        if self.nodes is not None and self.n_z is not None:
            raise ValueError(
                f"give n_z or nodes, not both, got n_z={self.n_z} and {self.nodes.position.shape[0]} nodes"
            )

    @property
    def _n_z(self) -> int:
        if self.nodes is not None:
            return 2 * self.nodes.position.shape[0]
        return N_Z if self.n_z is None else self.n_z

    def _slice(self, thickness, half: bool) -> Float[Array, "n"]:
        """Positions that are simulated, m."""
        if self.nodes is None:
            return _positions(thickness, self._n_z, half)
        upper = thickness * self.nodes.position
        return upper if half else jnp.concatenate([-upper[::-1], upper])

    def _weight(self, half: bool) -> float | Float[Array, "n"]:
        """What each of them counts."""
        if self.nodes is None:
            return SLICE_RANGE / self._n_z * (2 if half else 1)
        upper = self.nodes.weight
        return 2 * upper if half else jnp.concatenate([upper[::-1], upper])

    def tabulated(self, sequence: Sequence, tissue: Tissue) -> "EPGBloch":
        """The model, planned, with the tables of its pulses made once, for many sequences built like this one.

        They serve flips up to the largest of `sequence` times the largest b1 of `tissue`, and its relaxation; beyond
        these they extrapolate. A search over flips, whose every simulation would tabulate again, saves most of its
        time. No derivative by the shape of the pulse remains. Raises `ValueError` for traced input.
        """
        if not is_concrete((sequence, tissue, self)):
            raise ValueError("tabulated looks at values, and these are being traced; call it outside of jit and grad")
        made: Any = dataclasses.replace(self, tables=None).planned(sequence, tissue)
        return dataclasses.replace(made, tables=eqx.filter_jit(prepare)(sequence, tissue.reshape(-1), made))

    def prepare(self, sequence: Sequence, tissue: Tissue) -> tuple[selective.OperatorTable, ...]:
        shapes = self._shapes(sequence)
        if self.tables is not None:
            kept = {table.coefficients.shape[-1] for table in self.tables}
            needed = self._n_z // (2 if self._half(sequence, tissue) else 1)
            if len(self.tables) != len(shapes) or kept != {needed}:
                raise ValueError(
                    f"tables hold {len(self.tables)} pulses at {kept} positions, this sequence needs {len(shapes)} at "
                    f"{needed}; call tabulated with a sequence built like it"
                )
            return self.tables
        flips = [
            jnp.max(jnp.abs(segment.pulse.flip)) for segment in sequence.segments if isinstance(segment.pulse, Pulse)
        ]
        largest = jnp.max(jnp.stack(flips)) * (1 if tissue.b1 is None else jnp.max(tissue.b1))
        delta = jnp.max(1 / tissue.t2 - 1 / tissue.t1)
        half = self._half(sequence, tissue)
        return tuple(selective.tabulate(shape, self._slice(shape.thickness, half), largest, delta) for shape in shapes)

    def signals(
        self, shared: Any, sequence: Sequence, tissue: Tissue, keep: Float[Array, "voxels"] | None = None
    ) -> Complex[Array, "voxels n_echoes"]:
        return play(sequence, tissue, *self._how(shared, sequence, tissue), keep)

    def fastest(self, shared: Any, sequence: Sequence, tissue: Tissue) -> Complex[Array, "voxels n_echoes"]:
        pulses = pallas.SelectivePulses(shared)
        return _fastest(sequence, tissue, self._how(shared, sequence, tissue), pulses)

    def derivatives(
        self, shared: Any, sequence: Sequence, tissue: Tissue, names: tuple[str, ...]
    ) -> tuple[Complex[Array, "voxels n_echoes"], Complex[Array, "n_names voxels n_echoes"]] | None:
        return play_with_derivatives(sequence, tissue, *self._how(shared, sequence, tissue), names)

    def _how(self, shared: Any, sequence: Sequence, tissue: Tissue) -> tuple[PulseRule, Slices, int | None, bool]:
        """Pulses, sub-slices, orders and arithmetic (real or not) of this simulation."""
        half = self._half(sequence, tissue)

        def act(pulse: Pulse, flip, voxels: Voxels) -> kernels.Operator:
            return _selective(shared[pulse.shape or 0], flip, voxels)

        slices = Slices(self._n_z // (2 if half else 1), self._weight(half), imaginary=half)
        return PulseRule(act, relaxing=True), slices, self.orders, False

    def profiles(self, shared: Any, sequence: Sequence, tissue: Tissue) -> Complex[Array, "n voxels n_echoes"]:
        rule, slices, orders, real = self._how(shared, sequence, tissue)
        apart = play(sequence, tissue, rule, slices._replace(apart=True), orders, real, None)
        return apart.reshape(slices.n, -1, apart.shape[-1])

    def state_shape(self, sequence: Sequence, tissue: Tissue) -> tuple[int, int]:
        slices = self._n_z // (2 if self._half(sequence, tissue) else 1)
        return _orders(sequence, self.orders) * 6 * slices, slices

    def planned(self, sequence: Sequence, tissue: Tissue) -> "EPGBloch":
        return planning.plan(sequence, tissue, self)

    def is_static(self) -> bool:
        return self.tolerance is None or self.error is not None

    def _half(self, sequence: Sequence, tissue: Tissue) -> bool:
        symmetric = all(shape.symmetric for shape in self._shapes(sequence))
        return _half(symmetric, self._n_z, sequence, tissue)

    def _shapes(self, sequence: Sequence) -> tuple[Waveform, ...]:
        if self.pulse is not None and sequence.shapes:
            raise ValueError("both the sequence and EPGBloch have a pulse shape; leave pulse= out")
        shapes = sequence.shapes if self.pulse is None else (self.pulse,)
        if not shapes:
            raise ValueError("EPGBloch needs a pulse shape: give pulse=mr.rf.gaussian(...), or a sequence with shapes")
        return shapes


def _selective(table: selective.OperatorTable, flip, voxels: Voxels) -> kernels.Operator:
    """The slice-selective operator of every voxel and sub-slice, from the table."""
    delta = ((voxels.r2 - voxels.r1) / table.delta_scale)[None]
    beta = _turned(flip, voxels)
    if beta.ndim == 0:
        constant, linear, square = jax.lax.optimization_barrier(selective.look_up(table, beta))[..., None]
        entries = (square * delta + linear) * delta + constant
    else:
        # One gather per voxel, and the voxels last again once the polynomial has shrunk it.
        powers = jax.lax.optimization_barrier(selective.look_up(table, beta[0]))
        constant, linear, square = jnp.moveaxis(powers, 1, 0)
        delta = delta.reshape(-1, 1, 1)
        entries = jnp.moveaxis((square * delta + linear) * delta + constant, 0, -1)
    rows = tuple(tuple(entries[3 * i : 3 * i + 3]) for i in range(3))
    column = tuple(row[2] for row in rows)
    offset = selective.source_offset(column, tuple(entries[9:]), voxels.r1, table.duration, table.centre)
    return kernels.Operator(rows, offset)
