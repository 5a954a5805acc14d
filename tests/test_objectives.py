"""Objectives of Cramér-Rao bounds: against a plain float64 computation, and what each of them is meant to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import central_difference, relative, sine_train
from jaxmr.design import distributions, objectives
from jaxmr.design.distributions import Lognormal, Uniform
from jaxmr.units import mm, ms

N, TR, TE, TI = 30, 12 * ms, 3 * ms, 20 * ms
FLIPS = sine_train(N)
SEQUENCE = mr.sequences.fisp(FLIPS, TR, TE, TI)
T1, T2, B1 = np.array([0.9, 0.5]), np.array([0.085, 0.045]), np.array([1.0, 0.9])
TISSUE = mr.Tissue(t1=T1, t2=T2, b1=B1)


def plain_signal(t1, t2, b1, m0) -> np.ndarray:
    """F(0) of one voxel at every echo, in NumPy: rows F(k), conj(F(-k)), Z(k)."""
    states = np.zeros((3, N + 2), complex)
    states[2, 0] = -1

    def relax(time):
        states[:] *= np.exp(-time / np.array([t2, t2, t1]))[:, None]
        states[2, 0] += 1 - np.exp(-time / t1)

    relax(TI)
    echoes = []
    for angle in FLIPS * b1:
        c, s = np.cos(angle / 2), np.sin(angle / 2)
        states = (
            np.array([[c**2, s**2, -2j * c * s], [s**2, c**2, 2j * c * s], [-1j * c * s, 1j * c * s, c**2 - s**2]])
            @ states
        )
        relax(TE)
        echoes.append(m0 * states[0, 0])
        relax(TR - TE)
        plus = np.append(states[1, 1].conj(), states[0, :-1])
        states[1] = np.append(states[1, 1:], 0)
        states[0] = plus
    return np.array(echoes)


def plain_costs(weights: dict, unknown: tuple, noise: float) -> np.ndarray:
    """The weighted trace of each tissue: one voxel in NumPy, differences of fourth order, NumPy's inverse."""
    names = tuple(dict.fromkeys((*unknown, *weights)))
    found = []
    for t1, t2, b1 in zip(T1, T2, B1, strict=True):
        values = {"t1": t1, "t2": t2, "b1": b1, "m0": 1.0}

        rows = [
            central_difference(lambda x, n=n, v=values: plain_signal(**{**v, n: x}), values[n], 1e-3 * values[n])
            for n in names
        ]
        information = np.real(np.conj(rows) @ np.array(rows).T) / noise**2
        variance = np.diag(np.linalg.inv(information))
        found.append(sum(w * variance[names.index(n)] / values[n] ** 2 for n, w in weights.items()))
    return np.array(found)


CASES = [
    ({"t1": 1.0, "t2": 1.0}, ("m0",), 1.0),
    ({"t1": 1.0, "t2": 4.0, "b1": 0.5}, ("m0",), 0.01),
    ({"t2": 1.0}, ("m0", "b1"), 0.1),
    ({"m0": 1.0, "t1": 2.0}, (), 1.0),
]


@pytest.mark.parametrize(("weights", "unknown", "noise"), CASES)
def test_costs_are_those_of_a_plain_computation(weights, unknown, noise):
    expected = plain_costs(weights, unknown, noise)
    options = {"weights": weights, "unknown": unknown, "noise_std": noise}
    found = objectives.costs(SEQUENCE, TISSUE, mr.EPG(), **options)
    assert np.allclose(found, expected, rtol=1e-6)
    mean = objectives.weighted_trace(SEQUENCE, TISSUE, mr.EPG(), **options)
    assert np.isclose(mean, expected.mean(), rtol=1e-6)
    weighted = objectives.weighted_trace(SEQUENCE, TISSUE, mr.EPG(), tissue_weights=[3.0, 1.0], **options)
    assert np.isclose(weighted, (3 * expected[0] + expected[1]) / 4, rtol=1e-6)
    assert np.isclose(
        objectives.worst_case(SEQUENCE, TISSUE, mr.EPG(), sharpness=None, **options), expected.max(), rtol=1e-6
    )
    smooth = objectives.worst_case(SEQUENCE, TISSUE, mr.EPG(), sharpness=8.0, **options)
    assert np.isclose(smooth, (expected**8).sum() ** (1 / 8), rtol=1e-6)


def test_unlike_tissues_have_unlike_costs():
    """So that the mean, the weights and the maximum above are not all the same."""
    found = plain_costs({"t1": 1.0, "t2": 1.0}, ("m0",), 1.0)
    assert abs(found[0] / found[1] - 1) > 0.05


def test_what_no_sample_tells_is_infinite():
    silent = mr.sequences.fisp(np.zeros(5), TR, TE)
    for objective in (objectives.weighted_trace, objectives.worst_case):
        assert np.isinf(objective(silent, TISSUE, mr.EPG()))
    ones = objectives.weighted_trace(silent, TISSUE, mr.EPG(), tissue_weights=[0.0, 1.0])
    assert np.isinf(ones)


def test_a_tissue_without_weight_does_not_count():
    """Not even one that the sequence says nothing about."""
    dark = mr.Tissue(t1=T1, t2=T2, b1=[0.0, 1.0])
    only = objectives.weighted_trace(SEQUENCE, mr.Tissue(t1=T1[1], t2=T2[1], b1=1.0), mr.EPG())
    weighted = lambda flips: objectives.weighted_trace(  # noqa: E731
        mr.sequences.fisp(flips, TR, TE, TI), dark, mr.EPG(), tissue_weights=[0.0, 1.0]
    )
    assert np.isclose(weighted(jnp.asarray(FLIPS)), only, rtol=1e-10)
    assert np.isfinite(jax.grad(weighted)(jnp.asarray(FLIPS))).all()


def test_expectation_is_a_weighted_mean():
    prior = distributions.quadrature(2, t1=Lognormal(0.9, 0.2), t2=0.085, b1=Uniform(0.8, 1.2))
    assert prior.tissue.shape == (4,)
    each = [float(objectives.costs(SEQUENCE, prior.tissue[i], mr.EPG())) for i in range(4)]
    assert np.isclose(objectives.expected(SEQUENCE, prior, mr.EPG()), np.dot(prior.weights, each), rtol=1e-10)


def test_quadrature_agrees_with_many_samples():
    """Of a smooth function of all three: the closed form, Gauss, and 100,000 draws."""
    parameters = {"t1": Lognormal(0.9, 0.2), "t2": Lognormal(0.08, 0.3), "b1": Uniform(0.8, 1.2)}
    mean = lambda d: float(jnp.sum(d.weights * d.tissue.t1 * d.tissue.t2 * d.tissue.b1**2))  # noqa: E731
    expected = 0.9 * np.exp(0.02) * 0.08 * np.exp(0.045) * (1.2**3 - 0.8**3) / (3 * 0.4)
    assert np.isclose(mean(distributions.quadrature(4, **parameters)), expected, rtol=1e-6)
    assert np.isclose(mean(distributions.sampled(100_000, 1, **parameters)), expected, rtol=5e-3)
    again = distributions.sampled(5, 3, **parameters), distributions.sampled(5, 3, **parameters)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, again), strict=True))


def test_tissues_with_t2_above_t1_are_left_out():
    prior = distributions.sampled(1000, t1=Lognormal(0.2, 0.5), t2=Lognormal(0.1, 0.5))
    assert 500 < prior.tissue.shape[0] < 1000
    assert (prior.tissue.t2 <= prior.tissue.t1).all()
    assert np.isclose(prior.weights.sum(), 1)


def test_a_range_of_transmit_fields():
    spread = distributions.over_b1(mr.Tissue(t1=T1, t2=T2, m0=[1.0, 2.0]), 0.8, 1.2, 3)
    assert spread.shape == (2, 3)
    assert np.allclose(spread.b1[0], [0.8, 1.0, 1.2])
    assert np.allclose(spread.m0[:, 1], [1.0, 2.0])
    one = objectives.costs(SEQUENCE, mr.Tissue(t1=T1[1], t2=T2[1], m0=2.0, b1=0.8), mr.EPG())
    assert np.isclose(objectives.costs(SEQUENCE, spread, mr.EPG())[1, 0], one)


def test_a_scale_stands_for_a_parameter_that_is_zero():
    still = mr.Tissue(t1=T1, t2=T2, b0=0.0)
    varying = mr.sequences.fisp(FLIPS, np.linspace(10, 14, N) * ms, TE, TI)
    found = objectives.costs(varying, still, mr.EPG(), weights={"b0": 1.0}, scales={"b0": 10.0})
    assert np.allclose(found, mr.design.crlb(varying, still, ("m0", "b0"), mr.EPG())[:, 1] / 100)


@pytest.mark.parametrize("selective", [False, True])
def test_tables_made_once_serve_a_search(selective):
    """EPG-Bloch with given tables: the loss of the model that makes its own, for flips below theirs; its slope."""
    pulse = mr.rf.gaussian(1 * ms, 3.0, 3 * mm)
    shapes = {"pulse": pulse} if selective else {}
    build = lambda flips: mr.sequences.fisp(flips, TR, TE, TI, **shapes)  # noqa: E731
    own = mr.EPGBloch(pulse=None if selective else pulse, n_z=6, orders=16)
    tables = own.tabulated(build(np.full(N, np.pi / 2)), TISSUE)
    signal = lambda flips, model: mr.simulate(build(flips), TISSUE, model)  # noqa: E731
    found = [jax.jvp(lambda x, m=m: signal(x, m), (jnp.asarray(FLIPS),), (jnp.asarray(FLIPS),)) for m in (own, tables)]
    assert relative(found[1][0], found[0][0]) < 1e-6
    assert relative(found[1][1], found[0][1]) < 1e-5


def test_bad_input_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="weights must be numbers of at least 0 by the name"):
        objectives.costs(SEQUENCE, TISSUE, mr.EPG(), weights={"t1": -1.0})
    with pytest.raises(ValueError, match="unknown parameter 't3'"):
        objectives.costs(SEQUENCE, TISSUE, mr.EPG(), weights={"t3": 1.0})
    with pytest.raises(ValueError, match=r"b0 is 0 in some tissue.* give scales="):
        objectives.costs(SEQUENCE, TISSUE, mr.EPG(), weights={"b0": 1.0})
    with pytest.raises(ValueError, match=r"tissue_weights must have the shape \(2,\)"):
        objectives.weighted_trace(SEQUENCE, TISSUE, mr.EPG(), tissue_weights=[1.0])
    with pytest.raises(ValueError, match="needs t2="):
        distributions.quadrature(t1=1.0)
    with pytest.raises(ValueError, match="t1 must have a median > 0"):
        distributions.quadrature(t1=Lognormal(-1.0, 0.1), t2=0.1)
    with pytest.raises(ValueError, match="b1 must have low <= high"):
        distributions.sampled(4, t1=1.0, t2=0.1, b1=Uniform(1.2, 0.8))
    with pytest.raises(ValueError, match="no point has t2 <= t1"):
        distributions.quadrature(t1=0.1, t2=1.0)
    with pytest.raises(ValueError, match="b1 must run from low > 0"):
        distributions.over_b1(TISSUE, 0.0, 1.0)
    model = mr.EPGBloch(pulse=mr.rf.gaussian(1 * ms, 3.0, 3 * mm), n_z=8, orders=12).tabulated(SEQUENCE, TISSUE)
    phased = mr.sequences.fisp(FLIPS, TR, TE, TI, phase=np.linspace(0, 1, N))
    with pytest.raises(ValueError, match="call tabulated with a sequence built like it"):
        mr.simulate(phased, TISSUE, model)
    with pytest.raises(ValueError, match="call it outside of jit and grad"):
        jax.jit(lambda flips: model.tabulated(mr.sequences.fisp(flips, TR, TE), TISSUE))(FLIPS)
