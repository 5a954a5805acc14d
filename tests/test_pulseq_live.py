"""Live numbers: bit for bit NumPy's on the concrete side, the same function in JAX on the other, few steps."""

import copy
import math
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmr.pulseq.dropin.rebinding import rebind
from jaxmr.pulseq.live import GradientCutWarning, Live, factored, is_live, lift, stack, value
from jaxmr.pulseq.live.evaluation import Program, evaluate
from jaxmr.pulseq.live.graph import named_input
from jaxmr.pulseq.live.guards import Guards, recorder

X, Y = 0.7312, np.array([0.3, -1.2, 2.5, 0.9])


def arithmetic(x, y):
    return [x + y, 2 - x, x * y, y / x, x / 3, x**2, 2.0**x, y**3, -y, abs(y), x % 0.4, divmod(x, 0.25)[1], +x, y @ y]


def ufuncs(x, y):
    wave = [np.sin(y), np.exp(x), np.sqrt(x), np.hypot(x, y), np.arctan2(y, x), np.maximum(y, x), np.square(y)]
    return [*wave, np.sinc(y), np.exp(1j * y), np.abs(np.exp(1j * y) * y), np.conj(x * np.exp(1j * y)), np.log1p(x)]


def arrays(x, y):
    padded = np.concatenate(([0.0], y, [x]))
    swapped = np.where(y > 0, y, x)
    inside = [np.sum(y), np.cumsum(y), np.diff(padded), np.max(y), np.mean(y), np.prod(y), y.sum(), np.ptp(y)]
    moved = [y[1:3], y[::-1], np.stack([y, y * x]), swapped, np.tile(y, 2), np.reshape(y, (2, 2)).T, y[[2, 0]]]
    more = [np.interp([0.5, 1.5], [0, 1, 2], y[:3]), np.clip(y, -x, x), np.sort(y), np.linspace(0, x, 5)]
    return [padded, *inside, *moved, *more, np.pad(y, 1), np.dot(y, y), np.outer(y, y), np.append(y, x)]


def python(x, y):
    total = sum([x, 1.0, x * x])
    written = np.zeros(6)
    written[1:5] = y
    written[0] += x
    listed = np.array([x, 2 * x, 0.0])
    most = max(x, 0.1, *y)
    root = math.sqrt(x) + math.log(x, 2) + math.pow(x, 2) + math.hypot(x, 3.0)
    return [total, written, listed, most, min(x, 5), root, float(x) * 2, complex(0, x), np.array(y) * float(x)]


def rounding(x, y):
    steps = [math.ceil(x / 0.01) * 0.01, np.ceil(y / 0.1) * 0.1, round(x * 100) / 100, round(x, 2), x // 0.1]
    return [*steps, np.round(y, 1), math.floor(x * 7), np.floor(y)]


FUNCTIONS = [arithmetic, ufuncs, arrays, python]


def live_pair():
    return Live(X, named_input("x", X)), Live(Y.copy(), named_input("y", Y))


@pytest.mark.parametrize("function", [*FUNCTIONS, rounding])
def test_the_concrete_side_is_numpys_to_the_bit_and_jax_computes_the_same(function):
    made = rebind(function)(*live_pair())
    expected = function(X, Y.copy())
    found = evaluate(made, {"x": X, "y": Y})
    for i, (live, plain, jax_side) in enumerate(zip(made, expected, found, strict=True)):
        assert is_live(live), i
        np.testing.assert_array_equal(value(live), plain, err_msg=str(i))
        np.testing.assert_allclose(jax_side, plain, rtol=1e-12, atol=1e-15, err_msg=str(i))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivatives_are_those_of_finite_differences(function):
    made = rebind(function)(*live_pair())
    found = jax.jacfwd(lambda x: evaluate(made, {"x": x, "y": Y}))(X)
    step = 1e-6
    up, down = function(X + step, Y.copy()), function(X - step, Y.copy())
    for i, (derivative, one, other) in enumerate(zip(found, up, down, strict=True)):
        np.testing.assert_allclose(derivative, (one - np.asarray(other)) / (2 * step), rtol=1e-7, atol=1e-8, err_msg=i)


def test_rounding_moves_like_the_identity():
    made = rebind(rounding)(*live_pair())
    x, y = (jax.jacrev(lambda v, n=n: evaluate(made, {"x": X, "y": Y, n: v}))(v) for n, v in (("x", X), ("y", Y)))
    np.testing.assert_allclose([x[0], x[2], x[3], x[4], x[6]], [1.0, 1.0, 1.0, 10.0, 7.0], rtol=1e-12)
    for i in (1, 5, 7):
        np.testing.assert_allclose(y[i], np.eye(4), rtol=1e-12, atol=1e-15)


def test_rounding_keeps_the_examples_result_where_the_last_bit_could_decide():
    x = Live(0.07, named_input("x", 0.07))
    made = math.ceil(x / 1e-5)  # 7000.000000000001 in float64
    for near in (0.07, np.nextafter(0.07, 0), np.nextafter(0.07, 1)):
        assert evaluate(made, {"x": near}) == math.ceil(0.07 / 1e-5)
    assert evaluate(made, {"x": 0.0712345}) == math.ceil(0.0712345 / 1e-5)


def test_all_transformations_work_and_second_derivatives_are_right():
    x, y = live_pair()
    made = np.sum(x**3 * np.sin(y * x))
    run = lambda x: evaluate(made, {"x": x, "y": Y})  # noqa: E731
    reference = lambda x: jnp.sum(x**3 * jnp.sin(Y * x))  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.hessian(run))(X), jax.hessian(reference)(X), rtol=1e-12)
    several = jnp.array([0.1, X, 1.4])
    np.testing.assert_allclose(jax.vmap(jax.grad(run))(several), jax.vmap(jax.grad(reference))(several), rtol=1e-12)


def test_gradients_at_zero_are_finite():
    x = Live(0.0, named_input("x", 0.0))
    made = [np.sqrt(x), x**2, abs(x), np.hypot(x, 1.0), np.sinc(x)]
    assert np.all(np.isfinite(jax.jacfwd(lambda x: jnp.stack(evaluate(made, {"x": x})))(0.0)))


def test_lift_needs_a_known_value_and_says_the_remedy():
    def loss(x):
        live = lift(x)
        assert live.value == 2.0
        return evaluate(live * live * 3, {})

    assert jax.grad(loss)(2.0) == 12.0
    np.testing.assert_allclose(jax.hessian(loss)(2.0), 6.0)
    with pytest.raises(ValueError, match=r"pp\.trace"):
        jax.jit(loss)(2.0)
    with pytest.raises(ValueError, match=r"pp\.trace"):
        jax.vmap(loss)(jnp.ones(2))


def test_a_profile_times_a_live_number_stays_one_profile():
    flip = Live(1.2, named_input("flip", 1.2))
    profile = np.hanning(9)
    pulse = -(profile * flip / 2.0) * 3
    pulse[np.where(pulse == -0.0)] = 0
    kept, scale = factored(pulse)
    np.testing.assert_array_equal(kept, profile)
    np.testing.assert_allclose(evaluate(scale, {"flip": 2.0}), -3.0)
    np.testing.assert_allclose(factored(copy.copy(pulse)[2:5])[0], profile[2:5])
    np.testing.assert_allclose(evaluate(pulse, {"flip": 2.0}), -3.0 * profile, rtol=1e-15)
    assert factored(pulse + 1.0) is None
    pulse[0] = 1.0
    assert factored(pulse) is None
    assert pulse.value[0] == 1.0 == evaluate(pulse, {"flip": 2.0})[0]


def test_copies_do_not_share_what_is_written():
    _, y = live_pair()
    for twin in (copy.copy(y), copy.deepcopy(y), y.copy(), y[:]):
        twin[0] = 9.0
        assert y.value[0] == Y[0]
        assert evaluate(y, {"y": Y})[0] == Y[0]


def test_stack_is_plain_without_live_numbers():
    assert not is_live(stack([1, 2.0]))
    assert stack([1, 2]).dtype == float
    x, _ = live_pair()
    np.testing.assert_array_equal(evaluate(stack([1, x, 3]), {"x": 5.0}), [1, 5, 3])


def test_float_outside_a_rebound_function_warns_where_and_that_the_gradient_is_cut():
    x, y = live_pair()
    for cut in (lambda: float(x), lambda: math.sqrt(x), lambda: np.asarray(y)):
        with pytest.warns(GradientCutWarning, match=r"test_pulseq_live\.py:\d+.*cut"):
            cut()


def test_formatting_is_the_numbers_own():
    x, y = live_pair()
    assert f"{x:.3f} {x} {y[0]!r}" == f"{X:.3f} {X} {Y[0]!r}"
    assert str(y) == str(Y)


def test_decisions_are_guards():
    guards = Guards()
    token = recorder.set(guards)
    x, y = live_pair()
    assert x > 0.5
    assert int(x * 10) == 7
    assert np.argmin(y) == 1
    assert bool(x)
    recorder.reset(token)
    assert {name for name, *_ in guards.taken.values()} == {"greater", "truncates_to", "less_equal", "not_equal"}
    assert all("test_pulseq_live.py" in where for *_, where in guards.taken.values())


def many_blocks(n):
    """Steps and equations that n blocks need, each with a few numbers of its own and a sum over all before it."""
    flips = np.linspace(0.1, 1.0, n)
    live = Live(flips, named_input("flips", flips))
    made, phase, increment = [], 0.0, Live(117.0, named_input("increment", 117.0))
    for i in range(n):
        phase = (phase + increment * i) % 360.0
        made += [math.ceil(live[i] * 1e3) * 1e-3, np.hanning(5) * live[i] / 2 + 1, phase, (i - n / 2) * live[0]]
    program = Program(made)
    inputs = {"flips": flips, "increment": 117.0}
    equations = jax.make_jaxpr(lambda inputs: jnp.concatenate([jnp.ravel(x) for x in program(inputs)[:3]]))(inputs)
    return program.n_steps, len(equations.eqns), made, program(inputs)


def test_compilation_does_not_grow_with_the_script():
    few, many = many_blocks(50), many_blocks(1000)
    assert few[0] == many[0] <= 12
    outputs = 3 * (1000 - 50)  # only handing out the results may grow
    assert many[1] - few[1] <= 4 * outputs
    for live, found in zip(many[2], many[3], strict=True):
        np.testing.assert_allclose(found, value(live), rtol=1e-9, atol=1e-9)


def test_long_sums_are_short_programs():
    steps = np.linspace(1.0, 2.0, 3000)
    live, total = Live(steps, named_input("steps", steps)), 0.0
    for i in range(3000):
        total = total + live[i] * 0.5
    program = Program([total])
    assert program.n_steps <= 50
    np.testing.assert_allclose(program({"steps": steps})[0], 2250.0, rtol=1e-12)


FLOAT32 = """
import jax, numpy as np, math
import test_pulseq_live as here
from jaxmr.pulseq.live.evaluation import evaluate
assert not jax.config.jax_enable_x64
x, y = np.float32(here.X), here.Y.astype(np.float32)
for function in [*here.FUNCTIONS, here.rounding]:
    made = here.rebind(function)(*here.live_pair())
    run = lambda x: evaluate(made, {"x": x, "y": y})
    ours, slopes = jax.jit(lambda x: jax.jvp(run, (x,), (np.float32(1),)))(x)
    with jax.enable_x64(True):
        wide = lambda x: evaluate(made, {"x": x, "y": here.Y})
        theirs, expected = jax.jvp(wide, (here.X,), (1.0,))
    for a, b, da, db in zip(ours, theirs, slopes, expected, strict=True):
        assert a.dtype in (np.float32, np.complex64), a.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(da, db, rtol=2e-6, atol=2e-6)
loss = lambda x: evaluate(here.rebind(here.arithmetic)(*here.live_pair()), {"x": x, "y": y})[6]
np.testing.assert_allclose(jax.hessian(loss)(x), 2.0**here.X * math.log(2) ** 2, rtol=1e-5)
np.testing.assert_allclose(jax.vmap(jax.grad(loss))(x[None]), 2.0**here.X * math.log(2), rtol=1e-5)
time = here.Live(0.12, here.named_input("t", 0.12))
assert evaluate(math.ceil((time - 0.1) / 1e-5), {"t": np.float32(0.12)}) == math.ceil((0.12 - 0.1) / 1e-5)
"""


def test_float32_programs_get_float64_numbers():
    code = "import sys; sys.path.insert(0, sys.argv[1])\n" + FLOAT32
    folder = __file__.rsplit("/", 1)[0]
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_of_numpy_or_math_is_patched():
    before = {name: getattr(math, name) for name in dir(math)}, {name: getattr(np, name) for name in dir(np)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rebind(python)(*live_pair())
    assert all(getattr(math, name) is member for name, member in before[0].items())
    assert all(getattr(np, name) is member for name, member in before[1].items())
    assert type(float(1)) is float
