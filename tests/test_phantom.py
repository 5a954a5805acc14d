"""Phantoms: where voxels are, how compartments add, and what the generated brains look like."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmr.objects import (
    Phantom,
    Tissue,
    brain,
    from_fractions,
    from_maps,
    literature,
    procedural,
    to_image,
    truth,
)
from jaxmr.objects.brains import TISSUES

PAIR = Tissue(t1=np.array([1.0, 2.0]), t2=np.array([0.1, 0.2]))
PLACES = np.zeros((2, 3))


def two_tissues():
    return Tissue(t1=np.array([0.8, 4.0]), t2=np.array([0.07, 2.0]), m0=np.array([0.7, 1.0]))


# ---- the container -------------------------------------------------------------------------------


def test_the_call_of_the_design():
    coils = np.ones((3, 2))
    phantom = Phantom(tissue=PAIR, position=PLACES, voxel_size=(1e-3, 2e-3, 3e-3), voxel_shape="sinc", coils=coils)
    assert phantom.coils is not None
    assert jnp.iscomplexobj(phantom.coils)
    assert phantom.pixel is None
    assert phantom.matrix == ()
    changed = jax.tree.map(lambda leaf: 2 * leaf, phantom)
    assert changed.voxel_shape == "sinc"
    np.testing.assert_array_equal(changed.tissue.t1, 2 * PAIR.t1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxel_shape": "gauss"}, "voxel_shape must be one of sinc, box, point, got 'gauss'"),
        ({"position": np.zeros((3, 3))}, r"position must have shape \(2, 3\).*got \(3, 3\)"),
        ({"position": np.full((2, 3), np.nan)}, "position must be finite"),
        ({"voxel_size": (1e-3, 1e-3)}, r"voxel_size must be \(dx, dy, dz\), got shape \(2,\)"),
        ({"voxel_size": (1e-3, 0, 1e-3)}, "voxel_size must be positive"),
        ({"coils": np.ones((2, 5))}, r"coils must have shape \(coils, 2\), got \(2, 5\)"),
        ({"tissue": PAIR.reshape(2, 1)}, r"shape \(n,\), got \(2, 1\); reshape it or use from_maps"),
        ({"pixel": np.array([0, 1])}, "pixel and matrix belong together"),
        ({"pixel": np.array([0, 4]), "matrix": (2, 2)}, r"flat indices into an image of shape \(2, 2\)"),
        ({"pixel": np.array([0.0, 1.0]), "matrix": (2, 2)}, "pixel must be integers"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    arguments = {"tissue": PAIR, "position": PLACES, "voxel_size": (1e-3, 1e-3, 1e-3)} | change
    with pytest.raises(ValueError, match=message):
        Phantom(**arguments)


# ---- images to phantoms --------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [(6, 5), (4, 6, 5)])
def test_voxels_sit_where_the_fourier_transform_has_them(matrix):
    steps = (2e-3, 3e-3, 4e-3)
    phantom = from_maps(np.ones(matrix), 0.1 * np.ones(matrix), voxel_size=steps)
    assert phantom.pixel is not None
    index = np.unravel_index(np.asarray(phantom.pixel), matrix)[::-1]
    for axis, (i, n) in enumerate(zip(index, matrix[::-1], strict=True)):
        expected = steps[axis] * n * np.fft.fftshift(np.fft.fftfreq(n))[i]
        np.testing.assert_allclose(phantom.position[:, axis], expected, atol=1e-12)
    if len(matrix) == 2:
        assert not phantom.position[:, 2].any()


def test_maps_come_back_and_empty_voxels_are_dropped():
    rng = np.random.default_rng(0)
    t1, t2, b0 = rng.uniform(0.5, 2, (4, 5)), rng.uniform(0.05, 0.1, (4, 5)), rng.normal(0, 10, (4, 5))
    m0 = rng.uniform(0.5, 1, (4, 5)) * np.exp(1j)
    t1[0, 1], t2[1, 2], m0[2, 3], t2[3, 4] = 0, np.nan, 0, -1
    phantom = from_maps(t1, t2, m0, b0=b0, fov=0.1)
    assert phantom.tissue.shape == (16,)
    assert phantom.tissue.b1 is None
    np.testing.assert_allclose(phantom.voxel_size, [0.02, 0.025, 0.02])
    found = truth(phantom)
    inside = found["m0"] != 0
    for name, image in (("t1", t1), ("t2", t2), ("b0", b0), ("m0", m0)):
        np.testing.assert_allclose(found[name][inside], image[inside])
    assert inside.sum() == 16
    for name in ("t1", "t2", "b0", "b1", "purity"):
        assert np.isnan(found[name][~inside]).all()
    assert (found["b1"][inside] == 1).all()
    assert (found["purity"][inside] == 1).all()


def test_fov_of_three_numbers_is_x_y_z():
    phantom = from_maps(np.ones((4, 5)), np.ones((4, 5)), fov=(0.1, 0.2, 0.005))
    np.testing.assert_allclose(phantom.voxel_size, [0.02, 0.05, 0.005])
    phantom = from_maps(np.ones((2, 4, 5)), np.ones((2, 4, 5)), fov=(0.1, 0.2, 0.02))
    np.testing.assert_allclose(phantom.voxel_size, [0.02, 0.05, 0.01])


def test_a_given_mask_vouches_for_the_maps():
    t1, t2, mask = np.ones((3, 4)), 0.1 * np.ones((3, 4)), np.zeros((3, 4), bool)
    mask[1, 2] = mask[2, 3] = True
    t1[0, 0] = np.nan
    assert from_maps(t1, t2, mask=mask, voxel_size=1e-3).tissue.shape == (2,)
    t2[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"map t2 must be positive, got nan at index \(2, 3\)"):
        from_maps(t1, t2, mask=mask, voxel_size=1e-3)
    t2[2, 3], m0 = 0.1, np.ones((3, 4))
    m0[1, 2] = -0.5
    with pytest.raises(ValueError, match=r"map m0 must be at least 0, got -0\.5 at index \(1, 2\)"):
        from_maps(t1, t2, m0, mask=mask, voxel_size=1e-3)


def test_a_field_that_is_not_known_everywhere_is_named():
    b1 = np.ones((3, 4))
    b1[0, 2] = np.nan
    with pytest.raises(ValueError, match=r"map b1 must be at least 0, got nan at index \(0, 2\)"):
        from_maps(np.ones((3, 4)), np.ones((3, 4)), b1=b1, voxel_size=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t2": np.ones((4, 3))}, r"map t2 has shape \(4, 3\), t1 has \(3, 4\)"),
        ({"mask": np.ones((4, 3))}, r"mask has shape \(4, 3\)"),
        ({"mask": np.zeros((3, 4))}, "no voxel holds tissue"),
        ({"voxel_size": None}, "give the voxel_size or the fov"),
        ({"fov": 0.2}, "and not both"),
        ({"voxel_size": (1e-3, 1e-3)}, "one positive number or three"),
        ({"t1": np.ones(3), "t2": np.ones(3)}, r"images \(y, x\) or \(z, y, x\), got t1 of shape \(3,\)"),
    ],
)
def test_maps_that_do_not_fit_are_named(change, message):
    arguments = {"t1": np.ones((3, 4)), "t2": np.ones((3, 4)), "voxel_size": 1e-3} | change
    with pytest.raises(ValueError, match=message):
        from_maps(**arguments)


# ---- partial volume ------------------------------------------------------------------------------


def test_fractions_become_compartments_that_add_up():
    fractions = np.zeros((2, 2, 3))
    fractions[:, 0, 0] = 0.25, 0.75
    fractions[:, 0, 1] = 1.0, 0.0
    fractions[:, 1, 2] = 0.99, 0.01  # the second is dropped, the first takes its place
    fractions[:, 1, 0] = 0.3, 0.1  # at the rim: 60 % are air
    fractions[:, 1, 1] = 0.01, 0.0  # as good as air
    phantom = from_fractions(fractions, two_tissues(), voxel_size=1e-3)
    assert phantom.tissue.shape == (6,)
    found = truth(phantom)
    expected_m0 = np.array([[0.25 * 0.7 + 0.75, 0.7, 0], [0.3 * 0.7 + 0.1, 0, 0.7]])
    np.testing.assert_allclose(found["m0"], expected_m0)
    np.testing.assert_allclose(found["m0"], to_image(phantom, phantom.tissue.m0))
    weight = np.array([0.25 * 0.7, 0.75])
    assert found["t1"][0, 0] == pytest.approx(np.exp(weight @ np.log([0.8, 4.0]) / weight.sum()))
    assert found["purity"][0, 0] == pytest.approx(0.75 / weight.sum())
    assert found["purity"][1, 2] == 1


def test_fields_belong_to_voxels_not_tissues():
    fractions = np.full((2, 2, 3), 0.5)
    b0 = np.arange(6.0).reshape(2, 3)
    phantom = from_fractions(fractions, two_tissues(), b0=b0, voxel_size=1e-3)
    np.testing.assert_array_equal(truth(phantom)["b0"], b0)
    np.testing.assert_array_equal(phantom.tissue.b0, np.repeat(b0.ravel(), 2))


def test_fractions_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="sum to at most 1"):
        from_fractions(np.full((2, 2, 3), 0.6), two_tissues(), voxel_size=1e-3)
    with pytest.raises(ValueError, match=r"tissue shape \(k,\), got \(3, 2, 3\) and \(2,\)"):
        from_fractions(np.zeros((3, 2, 3)), two_tissues(), voxel_size=1e-3)
    with pytest.raises(ValueError, match=r"map b1 has shape \(3, 2\), the fractions have \(2, 3\)"):
        from_fractions(np.full((2, 2, 3), 0.5), two_tissues(), b1=np.ones((3, 2)), voxel_size=1e-3)


def test_to_image_sums_signals_of_a_voxel_and_is_differentiable():
    phantom = from_fractions(np.full((2, 2, 3), 0.5), two_tissues(), voxel_size=1e-3)
    rng = np.random.default_rng(1)
    signals = rng.normal(size=(12, 4)) + 1j * rng.normal(size=(12, 4))
    image = to_image(phantom, signals)
    np.testing.assert_allclose(image, (signals[::2] + signals[1::2]).reshape(2, 3, 4))
    gradient = jax.grad(lambda v: to_image(phantom, v)[1, 2].sum())(jnp.ones(12))
    np.testing.assert_array_equal(gradient, np.r_[np.zeros(10), 1, 1])
    with pytest.raises(ValueError, match=r"values must have shape \(12, ...\)"):
        to_image(phantom, np.ones(5))


def test_without_pixels_there_is_no_image():
    phantom = Phantom(PAIR, PLACES, (1e-3, 1e-3, 1e-3))
    for call in (lambda: to_image(phantom, np.ones(2)), lambda: truth(phantom)):
        with pytest.raises(ValueError, match="this phantom has no pixels: give pixel= and matrix="):
            call()


# ---- brains --------------------------------------------------------------------------------------


def tissue_weights(phantom):
    """The volume fraction of each of `TISSUES`, images."""
    assert phantom.pixel is not None
    images = []
    for name in TISSUES:
        kind = literature(name)
        mine = np.isclose(phantom.tissue.t1, kind.t1)
        assert kind.m0 is not None
        images.append(to_image(phantom, np.where(mine, phantom.tissue.m0 / kind.m0, 0)))
    return np.stack(images)


@pytest.mark.parametrize("generate", [brain, procedural])
def test_a_brain_is_made_of_what_brains_are_made_of(generate):
    phantom = generate()
    fractions, found = tissue_weights(phantom), truth(phantom)
    inside = found["m0"] > 0
    assert 5000 < inside.sum() < 6500
    white, grey, fluid = fractions.sum((1, 2)) / fractions.sum()
    assert 0.35 < white < 0.50
    assert 0.35 < grey < 0.50
    assert 0.10 < fluid < 0.25
    for fraction in fractions:
        assert ((fraction > 0.95) & inside).sum() > 300
    assert fractions.sum(0).max() == pytest.approx(1)
    assert 0.75 < np.nanmin(found["b1"]) < 0.9 < 1.1 < np.nanmax(found["b1"]) < 1.25
    assert 30 < np.nanmax(found["b0"]) < 100
    for name, largest in (("b1", 0.02), ("b0", 12)):
        for axis in (0, 1):
            assert np.nanmax(np.abs(np.diff(found[name], axis=axis))) < largest


@pytest.mark.parametrize("generate", [brain, procedural])
def test_a_brain_lies_as_radiologists_expect(generate):
    phantom = generate()
    found, fluid = truth(phantom), tissue_weights(phantom)[2]
    rows = np.flatnonzero((found["m0"] > 0).any(1))
    columns = np.flatnonzero((found["m0"] > 0).any(0))
    assert np.ptp(rows) > 1.15 * np.ptp(columns)  # heads are longer than wide
    # The air that disturbs B0 is in front, row 0 is on top, and -y is the front.
    row, _ = np.unravel_index(np.nanargmax(found["b0"]), phantom.matrix)
    assert row < 25
    brightest = np.argmax(phantom.tissue.b0)
    assert phantom.position[brightest, 1] < -0.05
    # The lateral ventricles: fluid in the middle, narrower than a third of the brain, either side alike.
    middle = fluid[40:70, 40:72]
    assert (middle > 0.95).sum() > 60
    assert abs(middle[:, :16].sum() - middle[:, 17:].sum()) < 0.1 * middle.sum()
    # Their horns spread towards the back.
    width = [np.ptp(np.flatnonzero(fluid[r, 38:75] > 0.5)) for r in (45, 66)]
    assert width[1] > 1.5 * width[0]


def test_resolution_changes_neither_place_nor_volume():
    coarse, fine = brain(56), brain(112)
    volumes = [tissue_weights(p).sum((1, 2)) * float(p.voxel_size[0]) ** 2 for p in (coarse, fine)]
    np.testing.assert_allclose(volumes[0], volumes[1], rtol=0.02)
    centres = [np.average(p.position, axis=0, weights=p.tissue.m0) for p in (coarse, fine)]
    np.testing.assert_allclose(centres[0], centres[1], atol=3e-4)


def test_field_and_seed():
    assert set(np.unique(brain(56, field=7.0).tissue.t1)) == {1.126, 1.939, 4.3}
    first, same, other = procedural(56), procedural(56), procedural(56, seed=1)
    np.testing.assert_array_equal(first.tissue.m0, same.tissue.m0)
    assert other.tissue.shape != first.tissue.shape
    assert not np.array_equal(truth(brain(56))["b1"], truth(brain(56, seed=1))["b1"], equal_nan=True)
    np.testing.assert_array_equal(brain(56).tissue.m0, brain(56, seed=1).tissue.m0)


def test_slices_that_are_not_there():
    with pytest.raises(ValueError, match=r"position 0\.2 m is outside of the template's brain"):
        brain(position=0.2)
    with pytest.raises(ValueError, match="matrix must be at least 1, got 0"):
        brain(matrix=0)
    with pytest.raises(ValueError, match=r"no white matter at 9\.4 T"):
        procedural(field=9.4)


def test_without_nilearn_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"nilearn.*uv sync --extra brain"):
        brain()
    assert procedural(28).tissue.shape[0] > 100


def test_importing_objects_imports_no_edge():
    code = "import sys, jaxmr.objects; print({'nibabel', 'nilearn', 'h5py', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
