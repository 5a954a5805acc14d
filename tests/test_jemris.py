"""Signals of JEMRIS from its own waveforms; it is left-handed: RF and ADC phases negated, the signal conjugated."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
import jemris
from checks import central_difference, relative
from jaxmr.physics import bloch, ode, waveforms
from jaxmr.physics.waveforms import Waveforms


def played(folder, name: str):
    """Waveforms, sample times, ADC phases, and JEMRIS's signal."""
    with h5py.File(folder / f"{name}.h5") as file:
        node = {key: file[f"seqdiag/{key}"][()] for key in ("T", "TXM", "TXP", "GX", "GY", "GZ", "RXP")}
    with h5py.File(folder / f"{name}_signal.h5") as file:
        expected = file["signal/channels/00"][()] @ [1, 1j, 0]
    gradient = 1e6 * np.stack([node[f"G{axis}"] for axis in "XYZ"], axis=-1)
    rf = 1e3 * node["TXM"] * np.exp(-1j * node["TXP"])
    adc = node["RXP"] >= 0
    shape = Waveforms(jnp.asarray(1e-3 * node["T"]), jnp.asarray(rf), jnp.asarray(gradient))
    return shape, 1e-3 * node["T"][adc], node["RXP"][adc], expected


@pytest.mark.parametrize(("name", "bar"), [("trapezoid", 1e-4), ("gre", 5e-4), ("radial", 5e-4), ("var_dur", 2e-3)])
def test_signals_of_jemris(shared, name, bar):
    folder = shared / "jemris_approved"
    phantom = jemris.sample(folder / "sample.h5")
    shape, times, phase, expected = played(folder, name)
    signal = waveforms.receive(shape, phantom, times)[0] / phantom.tissue.shape[0]
    found = np.conj(signal) * np.exp(-1j * phase)
    assert relative(found, expected) < bar


def ramps():
    """RF with a sweep and a gradient that turns, 1 ms on 9 nodes; two spins that feel all of it."""
    rng = np.random.default_rng(1)
    rf = 2e3 * (rng.normal(size=9) + 1j * rng.normal(size=9))
    shape = Waveforms(jnp.linspace(0, 1e-3, 9), jnp.asarray(rf), 2e5 * jnp.asarray(rng.normal(size=(9, 3))))
    tissue = mr.Tissue(t1=[0.9, 0.5], t2=[0.08, 0.05], m0=[1.0, 2.0], b1=[0.9, 1.1], b0=[100.0, -50.0])
    coils = np.array([[1.0, 1j], [0.5, 0.2]])
    return shape, mr.Phantom(tissue, 3e-3 * rng.normal(size=(2, 3)), (1e-3,) * 3, coils)


def test_piecewise_linear_waveforms_obey_the_bloch_equations():
    """The judge is the adaptive solver; the error of the rotation alone is of fourth order in the spacing."""
    shape, phantom = ramps()
    times = np.array([0.3e-3, 0.5e-3, 1e-3])
    rf = lambda t: jax.lax.complex(*(jnp.interp(t, shape.times, part) for part in (shape.rf.real, shape.rf.imag)))  # noqa: E731
    gradient = lambda t: jnp.stack([jnp.interp(t, shape.times, g) for g in shape.gradient.T])  # noqa: E731

    @jax.jit
    def judged(t1, t2):
        tissue = phantom.tissue
        total = 0.0
        for i in range(2):
            m = ode.solve(
                bloch.equilibrium(tissue.m0[i]), rf, gradient, jnp.append(jnp.zeros(1), times), phantom.position[i],
                t1, t2, tissue.b0[i], tissue.b1[i], tissue.m0[i], rtol=1e-10, atol=1e-12, breaks=shape.times,
            )  # fmt: skip
            total = total + phantom.coils[:, i, None] * (m[1:, 0] + 1j * m[1:, 1])[None]
        return total

    def error(n, t1, t2):
        tissue = mr.Tissue(t1=[t1] * 2, t2=[t2] * 2, **{k: getattr(phantom.tissue, k) for k in ("m0", "b1", "b0")})
        spins = mr.Phantom(tissue, phantom.position, phantom.voxel_size, phantom.coils)
        fine, _ = waveforms.refined(shape, np.linspace(0, 1e-3, n + 1))
        return relative(waveforms.receive(fine, spins, times), judged(t1, t2))

    assert error(160, 0.9, 0.08) < 2e-5
    assert error(40, 1e9, 1e9) / error(80, 1e9, 1e9) == pytest.approx(16, rel=0.1)


def test_derivatives_in_waveforms():
    shape, phantom = ramps()
    direction = jnp.asarray(np.random.default_rng(2).normal(size=9))

    @jax.jit
    def loss(step):
        changed = Waveforms(
            shape.times, shape.rf + 1e3 * step * direction, shape.gradient + 1e5 * step * direction[:, None]
        )
        return jnp.abs(waveforms.receive(changed, phantom, np.array([0.7e-3]))[1, 0])

    assert jax.grad(loss)(0.0) == pytest.approx(float(central_difference(loss, 0.0, 1e-4)), rel=1e-6)


def test_times_outside_and_tissue_beyond_are_refused():
    shape, phantom = ramps()
    with pytest.raises(ValueError, match=r"times must lie within the waveforms, 0 \.\.\. 0.001 s"):
        waveforms.receive(shape, phantom, np.array([2e-3]))
    with pytest.raises(ValueError, match="must be concrete"):
        jax.jit(lambda t: waveforms.receive(shape, phantom, t))(jnp.array([1e-4]))
    tissue = mr.Tissue(t1=[1.0], t2=[0.1], t2_prime=[0.1])
    with pytest.raises(ValueError, match="leave them out"):
        waveforms.receive(shape, mr.Phantom(tissue, np.zeros((1, 3)), (1, 1, 1)), np.array([1e-4]))
