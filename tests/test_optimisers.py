"""SOAP against its formulas in NumPy, against Adam, and on weights whose rows and columns were turned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from checks import relative
from jaxmr.learning import optimisers as module
from jaxmr.learning.optimisers import soap

RNG = np.random.default_rng(5)
SHAPE = 7, 6


def run(weights, slope, n, rate=1e-2):
    optimiser = soap(optax.constant_schedule(rate))

    @jax.jit
    def step(weights, memory):
        change, memory = optimiser.update(slope(weights), memory, weights)
        return optax.apply_updates(weights, change), memory

    memory, course = optimiser.init(weights), []
    for _ in range(n):
        weights, memory = step(weights, memory)
        course.append(weights)
    return course


def test_steps_are_those_of_the_formulas(monkeypatch):
    monkeypatch.setattr(module, "EVERY", 3)
    start, curve = RNG.normal(size=SHAPE), RNG.uniform(0.1, 2, SHAPE)
    found = run(jnp.asarray(start), lambda weights: curve * weights**3, 8)
    weights, mean, square = start, np.zeros(SHAPE), np.zeros(SHAPE)
    shared, u, v = [np.zeros((7, 7)), np.zeros((6, 6))], np.eye(7), np.eye(6)
    for n in range(1, 9):
        g = curve * weights**3
        mean, square = 0.95 * mean + 0.05 * g, 0.99 * square + 0.01 * (u.T @ g @ v) ** 2
        scaled = (u.T @ mean @ v) / (1 - 0.95**n) / np.sqrt(square / (1 - 0.99**n))
        weights = weights - 0.01 * u @ scaled @ v.T
        shared = [0.98 * shared[0] + 0.02 * g @ g.T, 0.98 * shared[1] + 0.02 * g.T @ g]
        if n % 3 == 1:
            u, v = (np.linalg.eigh(one)[1] for one in shared)
        assert relative(found[n - 1], weights) < 1e-5


def test_vectors_and_narrow_matrices_meet_adam():
    weights = {"bias": jnp.asarray(RNG.normal(size=6)), "narrow": jnp.asarray(RNG.normal(size=(9, 3)))}
    slope = lambda weights: jax.tree.map(lambda leaf: leaf**3 - 0.2, weights)  # noqa: E731
    ours = run(weights, slope, 40)[-1]
    adam = optax.adam(1e-2, b1=0.95, b2=0.99)
    memory = adam.init(weights)
    for _ in range(40):
        change, memory = adam.update(slope(weights), memory)
        weights = optax.apply_updates(weights, change)
    for name, leaf in weights.items():
        assert relative(ours[name], leaf) < 1e-6


def test_it_descends_sooner_than_adam_where_rows_and_columns_correlate():
    turned = [np.linalg.qr(RNG.normal(size=(n, n)))[0] for n in SHAPE]
    left, right = ((q * np.geomspace(1, 1e-2, len(q))) @ q.T for q in turned)
    goal = jnp.asarray(RNG.normal(size=SHAPE))
    loss = lambda weights: jnp.sum((left @ (weights - goal) @ right) ** 2)  # noqa: E731
    slope, start = jax.grad(loss), jnp.zeros(SHAPE)
    adam, weights = optax.adam(1e-2, b1=0.95, b2=0.99), start
    memory = adam.init(weights)
    step = jax.jit(lambda weights, memory: adam.update(slope(weights), memory))
    for _ in range(400):
        change, memory = step(weights, memory)
        weights = optax.apply_updates(weights, change)
    assert loss(run(start, slope, 400)[-1]) < 0.2 * loss(weights)
