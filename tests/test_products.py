"""No product is left to the precision of a GPU's choice, which keeps ten bits: phases of a hundred turns need them all.

Read off the source and off traced programs, so that a machine without a GPU can tell.
"""

import ast
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from jaxmr.core.products import matmul
from jaxmr.encoding import coil_data
from jaxmr.models.epg import SliceNodes
from jaxmr.mrf.subspace import project
from jaxmr.physics import bloch
from jaxmr.sequences import imaging
from jaxmr.units import mm, ms, us

PULSE = mr.rf.gaussian(duration=1 * ms, time_bandwidth=3.0, thickness=3 * mm)
FISP = mr.sequences.fisp(np.full(4, 0.5), 12 * ms, 5 * ms, 20 * ms)
TISSUE = mr.Tissue(t1=[0.5, 1.0], t2=[0.05, 0.1], b1=[0.9, 1.1])
NODES = mr.EPGBloch(pulse=PULSE, nodes=SliceNodes(jnp.array([0.1, 0.7]), jnp.array([0.9, 0.4])), orders=3)
PHANTOM = mr.Phantom(
    mr.Tissue(t1=[0.5, 1.0], t2=[0.05, 0.1], b0=[3.0, 5.0], diffusivity=[1e-9, 2e-9], t2_prime=[0.03, 0.04]),
    np.array([[1.0, 2.0, 0.0], [3.0, -1.0, 0.0]]) * mm,
    (mm, mm, mm),
)
FULL = jax.lax.Precision.HIGHEST
COILS = jnp.ones((3, 4, 4), complex) * jnp.arange(1.0, 4.0)[:, None, None]


def products(jaxpr):
    """Precision of every matrix product in a program and in those that it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            if hasattr(value, "eqns"):
                yield from products(value)
            elif hasattr(value, "jaxpr"):
                yield from products(value.jaxpr)


SCANS = {"PDG": (mr.PDG(), PHANTOM), "Isochromats": (mr.Isochromats(), dataclasses.replace(PHANTOM, tissue=TISSUE))}


def waveforms(position):
    return bloch.play(bloch.equilibrium(), jnp.ones(5) + 0j, jnp.ones((5, 3)), 1 * ms, position, 1.0, 0.1)


PROGRAMS = {
    "nodes": (lambda tissue: mr.simulate(FISP, tissue, NODES), TISSUE),
    "derivatives": (lambda tissue: mr.simulate_with_jacobian(FISP, tissue, NODES), TISSUE),
    "network": (lambda tissue: mr.simulate(FISP, tissue, mr.RNN.pretrained()), TISSUE),
    "small tip": (lambda tissue: mr.simulate(FISP, tissue, mr.EPG(profile=mr.rf.small_tip(PULSE), n_z=4)), TISSUE),
    "bloch": (waveforms, jnp.ones(3)),
    "pulse": (lambda m: bloch.rotate(bloch.turn(m, m), 0.3, 0.1), jnp.ones(3)),
    "spline": (lambda c: mr.design.parametrisations.b_spline(20)(c), jnp.ones(5)),
    "coils": (lambda images: coil_data.walsh(images, 3), COILS),
    "virtual coils": (lambda k: coil_data.compress(k, 2), COILS.reshape(3, 16)),
    "subspace": (lambda signals: project(signals, jnp.ones((4, 2)) + 0j), jnp.ones((3, 4)) + 0j),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_product_is_in_full_precision(name):
    program, argument = PROGRAMS[name]
    found = list(products(jax.make_jaxpr(program)(argument).jaxpr))
    assert found
    assert all(precision == (FULL, FULL) for precision in found), found


@pytest.mark.parametrize("name", SCANS)
def test_every_product_of_a_scan_is_in_full_precision(name):
    sequence = imaging.gre(0.3, 8 * ms, 4 * ms, fov=(0.1, 0.1), matrix=(4, 4), dwell=100 * us)
    model, phantom = SCANS[name]
    planned = mr.plan(sequence, phantom, model)

    def play(position):
        return mr.simulate(sequence, dataclasses.replace(phantom, position=position), planned)

    found = list(products(jax.make_jaxpr(play)(phantom.position).jaxpr))
    assert found
    assert all(precision == (FULL, FULL) for precision in found), found


ROOT = Path(mr.__file__).parent
OF_NUMPY = {"encoding/gridding.py": 1, "mrf/surrogate/nodes.py": 7, "recon/refining.py": 1}
"""Products of NumPy arrays, in double precision, in modules that use JAX beside it."""


def unguarded(text):
    """Products in a module of JAX that do not name their precision."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_jax = ast.unparse(node.func).startswith("jnp.")
            products = {"dot", "vdot", "inner", "matmul", "tensordot", "einsum", "convolve"}
            if of_jax and node.func.attr in products and all(key.arg != "precision" for key in node.keywords):
                yield ast.unparse(node)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_product_names_its_precision(path):
    text = path.read_text()
    found = list(unguarded(text)) if "jax.numpy" in text else []
    assert len(found) == OF_NUMPY.get(str(path.relative_to(ROOT)), 0), found


def test_a_product_left_alone_is_seen():
    assert len(list(unguarded("a @ b + jnp.vdot(a, b)\njnp.einsum('a,a', a, b, precision='highest')"))) == 2
    assert list(products(jax.make_jaxpr(jax.jit(lambda a: a @ a))(jnp.ones((2, 2))).jaxpr)) == [None]
    a = np.arange(4.0).reshape(2, 2)
    assert np.array_equal(matmul(a, a), a @ a)
