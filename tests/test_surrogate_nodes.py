"""A few trained sub-slices: the same rules as midpoints, and as exact as their card says."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import relative, sine_train
from jaxmr.models.epg import SliceNodes
from jaxmr.mrf import surrogate
from jaxmr.mrf.surrogate import examples, nodes
from jaxmr.units import ms

N = 50
FLIPS = jnp.asarray(sine_train(N))
SEQUENCE = mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, 20 * ms)
PHASED = mr.sequences.fisp(FLIPS, 12 * ms, 5 * ms, 20 * ms, phase=0.2 * jnp.arange(N) ** 2)
TISSUE = mr.Tissue(t1=[0.5, 1.0, 2.0], t2=[0.05, 0.1, 0.2], b1=[1.0, 0.9, 1.1])
MIDPOINTS = SliceNodes((jnp.arange(8) + 0.5) / 8 * 1.5, jnp.full(8, 3 / 16))


@pytest.mark.parametrize("sequence", [SEQUENCE, PHASED], ids=["one axis", "phases"])
def test_midpoints_as_nodes_are_midpoints(sequence):
    exact = mr.EPGBloch(pulse=examples.pulse(), n_z=16, orders=20)
    given = mr.EPGBloch(pulse=examples.pulse(), nodes=MIDPOINTS, orders=20)
    names = ("t1", "t2", "b1")
    expected, expected_rows = mr.simulate_with_jacobian(sequence, TISSUE, exact, names)
    found, rows = mr.simulate_with_jacobian(sequence, TISSUE, given, names)
    assert relative(found, expected) < 1e-12
    assert relative(rows, expected_rows) < 1e-12
    tabulated = given.tabulated(sequence, TISSUE)
    assert relative(mr.simulate(sequence, TISSUE, tabulated), expected) < 1e-12


def test_positions_and_weights_count_as_stated():
    """Two nodes of unequal weight are the weighted sum of two slices of one node."""
    position, weight = jnp.array([0.1, 0.7]), jnp.array([0.9, 0.4])
    model = lambda chosen: mr.EPGBloch(  # noqa: E731
        pulse=examples.pulse(), nodes=SliceNodes(position[chosen], weight[chosen]), orders=20
    )
    both = mr.simulate(PHASED, TISSUE, model(slice(None)))
    apart = [mr.simulate(PHASED, TISSUE, model(slice(i, i + 1))) for i in range(2)]
    assert relative(apart[0] + apart[1], both) < 1e-12
    assert relative(apart[0], both) > 0.05


def test_a_plan_chooses_orders_only():
    model = mr.plan(SEQUENCE, TISSUE, mr.EPGBloch(pulse=examples.pulse(), nodes=MIDPOINTS, tolerance=1e-3))
    assert model.n_z is None
    assert model.nodes is MIDPOINTS
    assert 4 <= model.orders < N
    with pytest.raises(ValueError, match="give n_z or nodes, not both"):
        mr.EPGBloch(pulse=examples.pulse(), nodes=MIDPOINTS, n_z=16)


def test_dictionaries_take_nodes():
    model = mr.EPGBloch(pulse=examples.pulse(), nodes=mr.mrf.trained_nodes(4), orders=20)
    made = mr.mrf.dictionary(SEQUENCE, t1=[0.5, 1.0], t2=[0.05, 0.1], b1=[0.9, 1.1], model=model, progress=False)
    expected = mr.simulate(SEQUENCE, mr.Tissue(**made.parameters), model)
    assert relative(made.atoms, expected) < 1e-6


@pytest.mark.parametrize("n", [3, 4, 5, 6, 8])
def test_trained_nodes_are_as_exact_as_their_card_says(n):
    """On other trains than they learnt from, against many midpoints."""
    card = surrogate.trained_nodes_card()["nodes"][str(n)]["errors"]
    inputs = examples.draw(10, 5, augmented=False)
    few, many = (
        mr.EPGBloch(pulse=examples.pulse(), **how, orders=24)
        for how in ({"nodes": mr.mrf.trained_nodes(n)}, {"n_z": 90})
    )
    for kind, expected in zip(range(4), card.values(), strict=False):
        i = 2 * kind
        sequence = examples.sequence(*(jnp.asarray(part[i]) for part in (inputs.flip, inputs.tr, inputs.te, inputs.mz)))
        tissue = mr.Tissue(t1=inputs.t1[i], t2=inputs.t2[i])
        assert relative(mr.simulate(sequence, tissue, few), mr.simulate(sequence, tissue, many)) < 3 * expected[0]


def test_unknown_sizes_are_refused():
    with pytest.raises(ValueError, match="n must be one of 3, 4, 5, 6, 8, got 7"):
        mr.mrf.trained_nodes(7)


def test_exchange_finds_the_best_pair():
    inputs = examples.draw(10, 3, n_pulses=110, augmented=True)
    products = nodes.candidate_products(inputs)
    found = nodes.train_nodes(products, 2)
    whole = nodes._whole()
    gram = np.sum([product / (whole @ product @ whole) for product in products], axis=0)
    best = min(itertools.combinations(range(nodes.CANDIDATES), 2), key=lambda pair: nodes._error(gram, list(pair)))
    np.testing.assert_allclose(found.position, nodes._candidates()[list(best)])


def test_products_are_those_of_signals_simulated_apart():
    inputs = examples.draw(5, 3, n_pulses=110, augmented=True)
    products = nodes.candidate_products(inputs).reshape(5, 2, nodes.CANDIDATES, nodes.CANDIDATES)
    weights = nodes._whole()
    model = mr.EPGBloch(pulse=examples.pulse(), n_z=2 * nodes.CANDIDATES, orders=nodes.ORDERS)
    for kind in (0, 4):
        at = int(np.flatnonzero(inputs.kind == kind)[0])
        sequence = examples.sequence(*(jnp.asarray(p[at]) for p in (inputs.flip, inputs.tr, inputs.te, inputs.mz)))
        tissue = mr.Tissue(t1=inputs.t1[at], t2=inputs.t2[at])
        signal, rows = mr.simulate_with_jacobian(sequence, tissue, model)
        logarithmic = np.asarray(rows) * np.array([[inputs.t1[at]], [inputs.t2[at]]])
        assert weights @ products[kind, 0] @ weights == pytest.approx(float(np.sum(np.abs(signal) ** 2)), rel=1e-4)
        slopes = float(np.sum(np.abs(logarithmic) ** 2))
        assert weights @ products[kind, 1] @ weights == pytest.approx(slopes, rel=1e-4)
