"""Derivatives by the tissue: the rule against automatic differentiation and differences, in every mode."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxmr as mr
from checks import central_difference, relative, sine_train
from jaxmr.models import derivatives, epg, playing
from jaxmr.models.model import prepare
from jaxmr.models.playing import Lattice, _lattices, is_real
from jaxmr.units import mm, ms

GAUSS = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)
N = 40
QUADRATIC = np.deg2rad(117) * np.arange(N) ** 2 / 2
TISSUE = mr.Tissue(t1=[0.9, 1.3, 0.4], t2=[0.08, 0.3, 0.05], b1=[0.9, 1.0, 1.1])
TRAINS = {
    "fisp": mr.sequences.fisp(sine_train(N), 12 * ms, 3 * ms, 20 * ms),
    "quadratic": mr.sequences.fisp(sine_train(N), 12 * ms, 3 * ms, 20 * ms, phase=QUADRATIC),
    "varying": mr.sequences.fisp(sine_train(N), np.linspace(10, 14, N) * ms, 3 * ms),
    "cpmg": mr.sequences.cpmg(n_echoes=N, esp=10 * ms),
}
MODELS = {
    "exact": mr.EPG(),
    "truncated": mr.EPG(orders=6),
    "profile": mr.EPG(profile=mr.rf.small_tip(GAUSS), n_z=6),
    "bloch": mr.EPGBloch(pulse=GAUSS, n_z=4, orders=10),
    "whole slice": mr.EPGBloch(pulse=GAUSS, n_z=3, orders=10),
}


@pytest.mark.parametrize("train", TRAINS)
@pytest.mark.parametrize("model", MODELS)
def test_the_rule_is_what_automatic_differentiation_gives(train, model):
    sequence, model = TRAINS[train], MODELS[model]
    names = ("t2", "b1", "t1")
    shared = prepare(sequence, TISSUE, model)
    signal, rows = jax.jit(lambda t: model.derivatives(shared, sequence, t, names))(TISSUE)
    expected = jax.jit(lambda t: derivatives._forward(shared, sequence, t, model, names))(TISSUE)
    assert relative(signal, expected[0]) < 1e-14
    for ours, theirs in zip(rows, expected[1], strict=True):
        assert relative(ours, theirs) < 1e-12


def test_parameters_of_the_received_signal():
    tissue = dataclasses.replace(TISSUE, b0=[10.0, -20.0, 5.0], t2_prime=[0.05, 0.1, 0.2], m0=[1.0, 2j, 3.0])
    names = ("t2_prime", "m0", "b0", "t1")
    signal, jacobian = mr.simulate_with_jacobian(TRAINS["fisp"], tissue, mr.EPG(), wrt=names)
    assert relative(signal, mr.simulate(TRAINS["fisp"], tissue, mr.EPG())) < 1e-14
    for i, (name, step) in enumerate(zip(names, (1e-5, 1e-5, 1e-3, 1e-5), strict=True)):
        up, down = (dataclasses.replace(tissue, **{name: getattr(tissue, name) + s}) for s in (step, -step))
        difference = (mr.simulate(TRAINS["fisp"], up, mr.EPG()) - mr.simulate(TRAINS["fisp"], down, mr.EPG())) / 2
        assert relative(jacobian[:, i], difference / step) < 1e-7


@pytest.mark.parametrize(("train", "model"), [("fisp", "exact"), ("varying", "exact"), ("fisp", "bloch")])
def test_reverse_mode_and_second_derivatives(train, model):
    """Gradient and Hessian of a fit, against differences; reverse over forward equals forward over reverse."""
    sequence, model = TRAINS[train], MODELS[model]
    data = mr.simulate(sequence, mr.Tissue(t1=1.0, t2=0.1, b1=1.0), model)

    def loss(x):
        signal = mr.simulate(sequence, mr.Tissue(t1=x[0], t2=x[1], b1=x[2], m0=x[3]), model)
        return jnp.sum(jnp.abs(signal - data) ** 2)

    x = jnp.array([1.1, 0.09, 0.95, 1.2])
    gradient = jax.jit(jax.grad(loss))
    value, h = jax.jit(loss), 1e-5 * np.eye(4)
    assert relative(gradient(x), np.stack([(value(x + d) - value(x - d)) / 2e-5 for d in h])) < 1e-6
    hessian = jax.jit(jax.jacfwd(jax.grad(loss)))(x)
    assert relative(hessian, jax.jit(jax.jacrev(jax.jacfwd(loss)))(x)) < 1e-10
    differences = [(gradient(x + d) - gradient(x - d)) / 2e-5 for d in h]
    assert relative(hessian, np.stack(differences)) < 1e-5


@pytest.mark.parametrize("model", ["exact", "bloch"])
def test_gradient_of_a_bound_by_the_flips(model):
    def loss(flip):
        sequence = mr.sequences.fisp(flip, 12 * ms, 3 * ms, 20 * ms)
        bound = mr.design.crlb(sequence, TISSUE, ("m0", "t1", "t2"), model=MODELS[model])
        return jnp.sum(bound[:, 1] / TISSUE.t1**2 + bound[:, 2] / TISSUE.t2**2)

    flip = jnp.asarray(sine_train(N)) + 0.05
    gradient = jax.jit(jax.grad(loss))(flip)
    direction = np.random.default_rng(0).normal(size=N)
    along = central_difference(jax.jit(lambda s: loss(flip + s * direction)), 0.0, 1e-5)
    assert relative(gradient @ direction, along) < 1e-6


def test_reverse_mode_by_the_tissue_keeps_no_states():
    """Memory of a vjp: a few times the signal, however many orders and pulses."""
    tissue = mr.Tissue(t1=np.linspace(0.5, 2, 256), t2=np.linspace(0.05, 0.2, 256))

    def pull(t1, t2, weights, flip):
        sequence = mr.sequences.fisp(flip, 12 * ms, 3 * ms)
        _, back = jax.vjp(lambda a, b: mr.simulate(sequence, mr.Tissue(t1=a, t2=b), mr.EPG(orders=20)), t1, t2)
        return back(weights)

    for n in (200, 400):
        weights = jnp.ones((256, n), complex)
        compiled = jax.jit(pull).lower(tissue.t1, tissue.t2, weights, sine_train(n)).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 6 * weights.nbytes + 2e6


def test_a_quasi_newton_fit_through_the_table_converges():
    """The table of slice-selective pulses is smooth enough for L-BFGS to find T1, T2 and B1 to seven digits."""
    truth = np.array([1.0, 0.1, 0.95])
    model = mr.EPGBloch(pulse=GAUSS, n_z=8, orders=10)
    tissue_of = lambda x: mr.Tissue(t1=x[0], t2=0.1 * x[1], b1=x[2])  # noqa: E731
    scale = np.array([1, 10, 1])
    data = mr.simulate(TRAINS["fisp"], tissue_of(truth * scale), model)

    @jax.jit
    @jax.value_and_grad
    def loss(x):
        return 1e4 * jnp.sum(jnp.abs(mr.simulate(TRAINS["fisp"], tissue_of(x), model) - data) ** 2)

    found = scipy.optimize.minimize(
        lambda x: tuple(np.asarray(part, float) for part in loss(x)),
        np.array([0.8, 1.3, 1.05]),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 0, "gtol": 1e-10, "maxiter": 200},
    )
    assert np.abs(found.x / scale / truth - 1).max() < 1e-7


def test_cpmg_keeps_odd_orders_only():
    assert _lattices(TRAINS["cpmg"], TISSUE)[-1] == Lattice(2, 1)
    assert _lattices(TRAINS["fisp"], TISSUE)[-1] == Lattice()
    assert _lattices(TRAINS["cpmg"], dataclasses.replace(TISSUE, diffusivity=1e-9))[-1] == Lattice()


def test_real_arithmetic_is_chosen_only_where_it_is_right():
    cpmg, fisp = TRAINS["cpmg"], TRAINS["fisp"]
    excite, train = cpmg.segments
    for sequence, tissue in ((fisp, TISSUE), (cpmg, TISSUE), (cpmg, dataclasses.replace(TISSUE, b0=20.0))):
        assert is_real(sequence, tissue)
    assert not is_real(TRAINS["quadratic"], TISSUE)
    assert not is_real(cpmg, dataclasses.replace(TISSUE, diffusivity=1e-9))
    numbered = mr.sequences.tse(np.full(N, 2.0), 10 * ms, refocusing_phase=np.pi / 2)
    twice = dataclasses.replace(cpmg, segments=(excite, excite, train))
    prepared = dataclasses.replace(cpmg, initial=jnp.array([0.0, 1.0, 0.0]))
    returning = dataclasses.replace(cpmg, segments=(excite, train, excite))
    uncrushed = dataclasses.replace(train, events=tuple(dataclasses.replace(e, order=0) for e in train.events))
    balanced = dataclasses.replace(cpmg, segments=(excite, uncrushed))
    for sequence in (numbered, twice, prepared, returning, balanced):
        assert not is_real(sequence, TISSUE)
        named = _with_numbers(sequence)
        assert relative(mr.simulate(sequence, TISSUE, mr.EPG()), mr.simulate(named, TISSUE, mr.EPG())) < 1e-14


def _with_numbers(sequence):
    """Pulses in quadrature by a phase of pi/2."""

    def numbered(segment):
        if not segment.pulse.quadrature:
            return segment
        pulse = dataclasses.replace(segment.pulse, phase=jnp.asarray(np.pi / 2), quadrature=False)
        return dataclasses.replace(segment, pulse=pulse)

    return dataclasses.replace(sequence, segments=tuple(map(numbered, sequence.segments)))


@pytest.mark.parametrize("model", ["exact", "bloch"])
@pytest.mark.parametrize("both", [True, False])
def test_orders_that_are_left_out_reach_no_sample(monkeypatch, model, both):
    """Crushers on both sides (odd orders), and two orders after the echo (even ones): as with all orders."""
    sequence = mr.sequences.tse(np.linspace(2.8, 1.2, 9), 10 * ms, refocusing_phase=0.4)
    if not both:
        before, after = sequence.segments[1].events
        quiet = dataclasses.replace(before, order=0), dataclasses.replace(after, order=2)
        segments = (sequence.segments[0], dataclasses.replace(sequence.segments[1], events=quiet))
        sequence = dataclasses.replace(sequence, segments=segments, spin_echo=False)
    fewer = mr.simulate(sequence, TISSUE, MODELS[model])
    monkeypatch.setattr(playing, "_lattices", lambda sequence, tissue: [Lattice()] * len(sequence.segments))
    jax.clear_caches()
    every = mr.simulate(sequence, TISSUE, MODELS[model])
    assert relative(fewer, every) < 1e-13


def test_a_gpu_plays_in_registers_and_differentiates_the_scan(monkeypatch):
    """What would be compiled there: this machine needs no GPU to see it."""
    monkeypatch.setattr(epg, "_on_gpu", lambda: True)
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (TRAINS["fisp"], TISSUE))
    play = lambda t2: epg_signal(single, t2)  # noqa: E731
    assert "pallas_call" in str(jax.make_jaxpr(play)(single[1].t2))
    assert "pallas_call" not in str(jax.make_jaxpr(jax.grad(lambda t2: jnp.sum(jnp.abs(play(t2)))))(single[1].t2))


def epg_signal(single, t2):
    sequence, tissue = single
    return derivatives.signals(None, sequence, dataclasses.replace(tissue, t2=t2, b1=None), mr.EPG(orders=6))
