"""Scripts written for PyPulseq: the same file with either import, and traced to pure functions of their numbers."""

import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pypulseq
import pytest

import jaxmr.pulseq as pp
from jaxmr.pulseq.live import is_live, value
from jaxmr.pulseq.live.evaluation import Program

SCRIPTS = sorted(path.stem for path in Path(__file__).with_name("pulseq_scripts").glob("[a-z]*.py"))


def script(name):
    return importlib.import_module(f"pulseq_scripts.{name}").build


def written(sequence, folder):
    sequence.write(str(folder / "out.seq"))
    return (folder / "out.seq").read_bytes()


def numbers(build):
    """The numbers among the defaults of a script."""
    defaults = {name: p.default for name, p in inspect.signature(build).parameters.items()}
    return {name: x for name, x in defaults.items() if isinstance(x, float | tuple)}


def live_numbers(blocks):
    leaves = jax.tree.leaves([[vars(part) if hasattr(part, "type") else part for part in block] for block in blocks])
    return [leaf for leaf in leaves if is_live(leaf)]


def test_there_are_ten_scripts():
    assert len(SCRIPTS) == 10


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_imports_write_the_same_file(name, tmp_path):
    build = script(name)
    theirs = build(pypulseq)
    assert theirs.check_timing()[0], theirs.check_timing()[1]
    ours = build(pp)
    assert isinstance(ours, pypulseq.Sequence)
    assert written(ours, tmp_path) == written(theirs, tmp_path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_traced_script_writes_the_same_file_and_evaluates_to_its_numbers(name, tmp_path):
    build = script(name)

    def traced_script(**parameters):
        return build(pp, **parameters)

    example = numbers(build)
    traced = pp.trace(traced_script, **example)
    expected = written(build(pypulseq), tmp_path)
    assert written(traced.sequence, tmp_path) == expected
    assert written(traced.pulseq(**example), tmp_path) == expected
    assert traced.guards_hold(**example)
    live = live_numbers(traced.blocks)
    assert len(live) >= 10
    for number, found in zip(live, jax.jit(Program(live))(traced.inputs(example)), strict=True):
        scale = np.max(np.abs(value(number)), initial=0.0)
        np.testing.assert_allclose(found, value(number), rtol=1e-11, atol=1e-11 * scale + 1e-12)


MOVED = {
    "gre": {"flip": 0.35, "te": 6.503e-3, "spoil": 3.3, "rf_increment": 84.0},
    "tse": {"excitation": 1.4, "flips": (2.9, 2.2, 2.0, 1.7), "esp": 15.503e-3},
    "epi": {"ti": 0.153003, "flip": 1.1, "blip_factor": 0.9},
}


@pytest.mark.parametrize("name", MOVED)
def test_a_traced_script_moves_as_the_script_does(name):
    """Other numbers, same decisions: what JAX computes is what the script computes when it is run with them."""
    build, moved = script(name), MOVED[name]

    def traced_script(**parameters):
        return build(pp, **parameters)

    traced = pp.trace(traced_script, **{key: numbers(build)[key] for key in moved})
    assert jax.jit(lambda p: traced.guards_hold(**p))(moved)
    run = build(pp, **moved).blocks()
    live = [(block, plain) for block, plain in zip(traced.blocks, run, strict=True)]
    checked = 0
    for block, plain in live:
        for field in ("rf", "gx", "gy", "gz", "adc"):
            event = getattr(block, field)
            for key, number in vars(event).items() if event is not None else ():
                if is_live(number) and hasattr(getattr(plain, field), key):
                    expected = getattr(getattr(plain, field), key)
                    found = Program([number])(traced.inputs(moved))[0]
                    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.max(np.abs(expected)) + 1e-12)
                    checked += 1
        if is_live(block.duration):
            np.testing.assert_allclose(Program([block.duration])(traced.inputs(moved))[0], plain.duration, rtol=1e-12)
        if checked > 60:
            break
    assert checked >= 10


@pytest.mark.parametrize("name", MOVED)
def test_the_sequence_of_a_traced_script_has_the_right_derivatives(name):
    """Leaves of the jaxmr sequence by every parameter against central differences, rounding on its raster aside."""
    build = script(name)

    def traced_script(**parameters):
        return build(pp, **parameters)

    example = {key: numbers(build)[key] for key in MOVED[name]}
    traced = pp.trace(traced_script, **example)
    smooth = {key: x for key, x in example.items() if key in ("flip", "excitation", "flips", "blip_factor")}

    def weight(leaf):
        return np.cos(np.arange(np.size(leaf))).reshape(np.shape(leaf)) / (
            1e-9 + np.max(np.abs(leaf), initial=0.0) ** 2
        )

    weights = jax.tree.map(weight, traced(**example))

    @jax.jit
    def loss(moving):
        parts = jax.tree.map(
            lambda w, leaf: (w * leaf * jnp.conj(leaf)).real.sum(), weights, traced(**example | moving)
        )
        return sum(jax.tree.leaves(parts))

    found = jax.grad(loss)(smooth)
    leaves, tree = jax.tree.flatten(smooth)
    for i, (slope, x) in enumerate(zip(jax.tree.leaves(found), leaves, strict=True)):
        step = 1e-5 * x
        up, down = (loss(tree.unflatten([*leaves[:i], x + s, *leaves[i + 1 :]])) for s in (step, -step))
        np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-5)
