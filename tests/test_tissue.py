"""Tissue: broadcasting, what is left out, and the messages of bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr


def test_leaves_share_one_batch_shape_and_absent_ones_stay_none():
    tissue = mr.Tissue(t1=[0.9, 1.2], t2=0.085, b1=[[1.0], [0.9], [1.1]])
    assert tissue.shape == (3, 2)
    assert tissue.t2.shape == (3, 2)
    assert tissue.b0 is None
    assert tissue[1].shape == (2,)
    assert tissue.reshape(-1).shape == (6,)
    assert jax.tree.leaves(mr.Tissue(t1=1, t2=1))[0].dtype == float


def test_precision_is_the_users():
    assert mr.Tissue(t1=np.float32(1.0), t2=np.float32(0.1)).t1.dtype == np.float32
    assert mr.Tissue(t1=1.0, t2=0.1).t1.dtype == np.float64


def test_grid_is_the_outer_product():
    tissue = mr.grid(t1=[0.5, 1.0, 2.0], t2=[0.05, 0.1], b1=[0.9, 1.1])
    assert tissue.shape == (3, 2, 2)
    assert tissue.t1[2, 0, 0] == 2.0
    assert tissue.b1[0, 1, 1] == 1.1


def test_a_tissue_may_be_built_from_tracers():
    assert jax.jit(lambda t2: mr.Tissue(t1=1.0, t2=t2).t2 * 2)(0.1) == 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t1": 0.0, "t2": 0.1}, "t1 must be positive, got 0; times are in seconds; mask empty voxels out"),
        ({"t1": [1.0, np.nan], "t2": 0.1}, r"t1 must be positive, got nan at index \(1,\)"),
        ({"t1": 1.0, "t2": 0.1, "diffusivity": -1e-9}, "diffusivity must be at least 0, got -1e-09; it is in m2/s"),
        ({"t1": 1.0, "t2": 0.1, "b0": np.inf}, "b0 must be finite, got inf"),
        ({"t1": [1.0, 2.0], "t2": [0.1, 0.1, 0.2]}, r"broadcast to one batch shape, got t1 \(2,\), t2 \(3,\)"),
        ({"t1": "long", "t2": 0.1}, "t1 must be a number or an array of numbers, got 'long'"),
        ({"t1": 1j, "t2": 0.1}, "t1 must be real, got dtype complex128"),
    ],
)
def test_bad_tissue_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mr.Tissue(**arguments)


def test_a_grid_axis_is_one_dimensional():
    with pytest.raises(ValueError, match=r"axis t2 of a grid must be one-dimensional, got shape \(1, 2\)"):
        mr.grid(t1=[1.0], t2=jnp.ones((1, 2)))
