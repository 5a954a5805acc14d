"""Phantoms from files: other people's, and small ones made here whose orientation is known."""

import gzip

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io

from jaxmr.objects import load, truth


def label_at(phantom, row, column):
    return float(truth(phantom)["t1"][row, column])


# ---- files made here -----------------------------------------------------------------------------


def marked_volume():
    """T1 `(x, y, z)`, x to the right, y to the front: 2 s in front on the right, 3 s at the back, on top."""
    t1 = np.ones((5, 6, 4))
    t1[4, 5, 1] = 2.0
    t1[2, 0, 3] = 3.0
    return t1


def save(folder, name, values, affine):
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), folder / name)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SRA", "AIL"])
def test_nifti_maps_come_out_upright_whatever_the_order_in_the_file(tmp_path, axes):
    sizes = np.diag([2.0, 3.0, 4.0, 1.0])
    turned = nibabel.orientations.axcodes2ornt(axes)
    turn = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), turned)
    t1 = nibabel.orientations.apply_orientation(marked_volume(), turn)
    affine = sizes @ nibabel.orientations.inv_ornt_aff(turn, marked_volume().shape)
    save(tmp_path, "T1.nii.gz", t1, affine)
    save(tmp_path, "t2.nii", 0.1 * t1, affine)
    save(tmp_path, "pd.nii.gz", np.full(t1.shape, 0.5), affine)
    phantom = load(tmp_path, slice=None)
    assert phantom.matrix == (4, 6, 5)
    np.testing.assert_allclose(phantom.voxel_size, [2e-3, 3e-3, 4e-3])
    found = truth(phantom)
    # (z, y, x): in front is row 0, the patient's right is column 0, the head end is the last slice.
    assert np.argwhere(found["t1"] == 2.0).tolist() == [[1, 0, 0]]
    assert np.argwhere(found["t1"] == 3.0).tolist() == [[3, 5, 2]]
    assert (found["m0"] == 0.5).all()


def test_slices_of_a_volume(tmp_path):
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    t1 = marked_volume()
    save(tmp_path, "t1.nii.gz", t1, affine)
    save(tmp_path, "t2.nii.gz", 0.1 * t1, affine)
    assert load(tmp_path).matrix == (6, 5)
    assert label_at(load(tmp_path, slice=1), 0, 0) == 2.0
    assert label_at(load(tmp_path, slice=-1), 5, 2) == 3.0
    with pytest.raises(ValueError, match="slice must be 'middle', None or an index below 4, got 4"):
        load(tmp_path, slice=4)
    save(tmp_path, "t1.nii.gz", t1[..., 0], affine)
    save(tmp_path, "t2.nii.gz", 0.1 * t1[..., 0], affine)
    assert load(tmp_path).matrix == (6, 5)
    with pytest.raises(ValueError, match="it is a single slice; leave out slice=2"):
        load(tmp_path, slice=2)


def test_lengths_of_nifti_are_what_the_header_says(tmp_path):
    for name in ("t1", "t2"):
        image = nibabel.Nifti1Image(np.ones((4, 4, 1)), np.diag([2e-3, 2e-3, 5e-3, 1]))
        image.header.set_xyzt_units("meter")
        nibabel.save(image, tmp_path / f"{name}.nii")
    np.testing.assert_allclose(load(tmp_path).voxel_size, [2e-3, 2e-3, 5e-3], rtol=1e-6)


def test_nifti_folders_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match=rf"cannot read {tmp_path}: expected a folder.*t1 and t2 missing"):
        load(tmp_path)
    save(tmp_path, "t1.nii.gz", np.ones((4, 4, 1)), np.eye(4))
    with pytest.raises(ValueError, match="t2 missing, there are t1"):
        load(tmp_path)
    save(tmp_path, "t2.nii.gz", np.ones((4, 5, 1)), np.eye(4))
    with pytest.raises(ValueError, match=r"map t2 has shape \(5, 4\), t1 has \(4, 4\)"):
        load(tmp_path)
    save(tmp_path, "t2.nii.gz", np.ones((4, 4, 1)), np.diag([1, 1, 2, 1]))
    with pytest.raises(ValueError, match="the maps differ in voxel size"):
        load(tmp_path)
    content = (tmp_path / "t1.nii.gz").read_bytes()
    (tmp_path / "t2.nii.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"cannot read {tmp_path}: expected a folder"):
        load(tmp_path)


def test_our_own_archive(tmp_path):
    rng = np.random.default_rng(0)
    maps = {name: rng.uniform(0.5, 1, (3, 4, 5)) for name in ("t1", "t2", "b1", "b0", "t2_prime")}
    maps |= {"pd": np.full((3, 4, 5), 0.8), "voxel_size": np.array([1e-3, 2e-3, 3e-3])}
    np.savez(tmp_path / "a.npz", allow_pickle=False, **maps)
    phantom = load(tmp_path / "a.npz")
    assert phantom.matrix == (4, 5)
    np.testing.assert_allclose(phantom.voxel_size, [1e-3, 2e-3, 3e-3])
    found = truth(phantom)
    for name in ("t1", "t2", "b1", "b0"):
        np.testing.assert_allclose(found[name], maps[name][1])
    assert phantom.tissue.t2_prime is not None
    np.testing.assert_array_equal(phantom.tissue.t2_prime, maps["t2_prime"][1].ravel())
    assert (found["m0"] == 0.8).all()


ONES = np.ones((4, 4))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"t1": ONES, "voxel_size": 1e-3}, "t2 missing, there are t1, voxel_size"),
        ({"t1": ONES, "t2": ONES}, "voxel_size missing, there are t1, t2"),
        ({"t1": ONES, "t2": ONES[1:], "voxel_size": 1e-3}, "map t2 has shape"),
        ({"t1": ONES[0], "t2": ONES[0], "voxel_size": 1e-3}, r"must be \(y, x\) or \(z, y, x\), got shape"),
        (
            {"t1": 900 * ONES, "t2": 80 * ONES, "voxel_size": 1e-3},
            "t1 has a median of 900: times must be in s",
        ),
        ({"t1": ONES, "t2": np.array([{}]), "voxel_size": 1e-3}, "Object arrays cannot be loaded"),
        ({"T1_map": ONES}, "PD_map and T2_map and FOV missing, there are T1_map"),
    ],
)
def test_archives_that_do_not_fit(tmp_path, arrays, message):
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"(?s)cannot read {path}: expected.*({message})"):
        load(path)


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "a.h5", "a.nii.gz", "a.rawb", "a.rawb.gz", "a.mnc"])
def test_files_of_another_kind_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no phantom, it is a sentence")
    with pytest.raises(ValueError, match=f"cannot read {tmp_path / name}: expected"):
        load(tmp_path / name)


def test_files_that_are_not_there_or_unknown(tmp_path):
    with pytest.raises(ValueError, match="there is no such file or folder"):
        load(tmp_path / "nothing.npz")
    (tmp_path / "a.txt").write_text("t1")
    with pytest.raises(ValueError, match=r"no folder and none of .npz, .mat"):
        load(tmp_path / "a.txt")


def test_matlab_files_with_other_arrays(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"image": ONES})
    with pytest.raises(ValueError, match=r"expected MRzero's cropped_brain.*; there are image"):
        load(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "b.mat", {"axial": np.full((3, 3), 24)})
    with pytest.raises(ValueError, match=r"labels \[24\] are none of the classes \[0, 23, 46"):
        load(tmp_path / "b.mat")
    scipy.io.savemat(tmp_path / "c.mat", {"cropped_brain": np.ones((3, 3, 4))})
    with pytest.raises(ValueError, match=r"must have shape \(x, y, 5\), got \(3, 3, 4\)"):
        load(tmp_path / "c.mat")


def brainweb_volume():
    """Labels `(z, y, x)` as BrainWeb stores them: x to the right and y to the front."""
    labels = np.zeros((181, 217, 181), np.uint8)
    labels[80:101, 60:161, 60:121] = 3
    labels[90, 150, 110] = 1  # CSF, in front on the right
    labels[90, 70, 110] = 4  # fat, at the back on the right
    labels[90, 70, 65] = 7  # skull, at the back on the left
    return labels


@pytest.mark.parametrize("zipped", [False, True])
def test_brainweb_raw_bytes(tmp_path, zipped):
    content = brainweb_volume().tobytes()
    path = tmp_path / ("phantom.rawb.gz" if zipped else "phantom.rawb")
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    phantom = load(path)
    assert phantom.matrix == (217, 181)
    assert phantom.tissue.shape == (101 * 61 - 1,)
    np.testing.assert_allclose(phantom.voxel_size, 1e-3)
    assert label_at(phantom, 216 - 150, 180 - 110) == 2.569
    assert label_at(phantom, 216 - 70, 180 - 110) == 0.350
    assert np.isnan(label_at(phantom, 216 - 70, 180 - 65))
    assert not (truth(load(path, slice=85))["t1"] == 2.569).any()


def test_brainweb_of_another_size(tmp_path):
    (tmp_path / "short.rawb").write_bytes(brainweb_volume().tobytes()[:-5])
    with pytest.raises(ValueError, match=r"181 x 217 x 181 = 7109137 bytes, got 7109132"):
        load(tmp_path / "short.rawb")


def test_brainweb_as_nifti(tmp_path):
    labels = brainweb_volume()[85:95:3].T
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([1.0, 1, 3, 1])), tmp_path / "crisp.nii.gz")
    phantom = load(tmp_path / "crisp.nii.gz", slice=None)
    assert phantom.matrix == (4, 217, 181)
    np.testing.assert_allclose(phantom.voxel_size, [1e-3, 1e-3, 3e-3])
    save(tmp_path, "fuzzy.nii.gz", np.full((4, 4, 4), 0.5), np.eye(4))
    with pytest.raises(ValueError, match="its values are no labels"):
        load(tmp_path / "fuzzy.nii.gz")


def test_brainweb_as_minc(tmp_path):
    labels = brainweb_volume()[90:91, 60:160, 60:120]
    with scipy.io.netcdf_file(tmp_path / "crisp.mnc", "w") as file:
        for name, n in zip(("zspace", "yspace", "xspace"), labels.shape, strict=True):
            file.createDimension(name, n)
            axis = file.createVariable(name, "i", ())
            axis.start, axis.step, axis.spacing = 0.0, 1.0, b"regular__"
        image = file.createVariable("image", "b", ("zspace", "yspace", "xspace"))
        image[:] = labels.astype(np.int8)
        image.signtype, image.valid_range = b"unsigned", np.array([0.0, 255.0])
        for name, value in (("image-min", 0.0), ("image-max", 255.0)):
            file.createVariable(name, "d", ()).data[...] = value
    phantom = load(tmp_path / "crisp.mnc")
    assert phantom.matrix == (100, 60)
    assert label_at(phantom, 159 - 150, 119 - 110) == 2.569


def test_a_jemris_sample_of_three_dimensions(tmp_path):
    data = np.zeros((2, 3, 4, 5))
    data[...] = 1, 1e-3, 1e-2, 1.5e-2, 2 * np.pi * 30
    data[1, 2, 3, 0] = 0
    with h5py.File(tmp_path / "sample.h5", "w") as file:
        file["sample/data"], file["sample/resolution"], file["sample/offset"] = (
            data,
            [1.0, 2, 3],
            [10.0, 0, 0],
        )
    phantom = load(tmp_path / "sample.h5", slice=None)
    assert phantom.tissue.shape == (23,)
    np.testing.assert_allclose(phantom.position[0], [8.5e-3, -2e-3, -1.5e-3])
    assert phantom.tissue.b0 is not None
    assert phantom.tissue.t2_prime is not None
    np.testing.assert_allclose(phantom.tissue.b0, 30)
    np.testing.assert_allclose(phantom.tissue.t2_prime, 0.2)
    top = load(tmp_path / "sample.h5", slice=1)
    assert top.matrix == (3, 4)
    assert top.tissue.shape == (11,)
    np.testing.assert_allclose(top.position[:, 2], 1.5e-3)
    with h5py.File(tmp_path / "wrong.h5", "w") as file:
        file["sample/data"], file["sample/resolution"], file["sample/offset"] = data[..., :4], [1.0], [0.0]
    with pytest.raises(ValueError, match=r"sample/data must have shape \(\[z,\] y, x, 5\), got \(2, 3, 4, 4\)"):
        load(tmp_path / "wrong.h5")


# ---- files of others -----------------------------------------------------------------------------


def test_the_brain_of_koma(shared):
    labels = scipy.io.loadmat(shared / "koma_phantoms" / "brain2D.mat")["axial"]
    phantom = load(shared / "koma_phantoms" / "brain2D.mat")
    found = truth(phantom)
    assert phantom.matrix == (434, 362)
    assert phantom.tissue.shape == (11434 + 35568 + 32632 + 1273 + 3179 + 13974 + 1174 + 654 + 4076,)
    # The file has the back of the head on top; half a turn, no mirror.
    for label, t1, t2, m0, b0 in (
        (23, 2.569, 0.329, 1, 0),
        (46, 0.833, 0.083, 0.86, 0),
        (93, 0.35, 0.07, 1, -220),
    ):
        for row, column in np.argwhere(labels == label)[:: 1 + (labels == label).sum() // 7]:
            place = (433 - row, 361 - column)
            values = [found[name][place] for name in ("t1", "t2", "m0", "b0")]
            np.testing.assert_allclose(values, [t1, t2, m0, b0])


def test_the_pelvis_of_koma(shared):
    phantom = load(shared / "koma_phantoms" / "pelvis2D.mat")
    assert phantom.tissue.shape == (17992 + 36001 + 494 + 1240,)
    assert set(np.unique(phantom.tissue.t1)) == {0.366, 1.2, 0.381, 0.1}
    # The table the patient lies on is in the lowest quarter.
    assert (truth(phantom)["m0"][400:] > 0).any()
    assert not (truth(phantom)["m0"][:150] > 0).any()


def test_the_measured_brain_of_mrzero(shared):
    with np.load(shared / "mrzero" / "quantified_brain.npz") as arrays:
        t1, b0, diffusivity = (arrays[f"{name}_map"][..., 0] for name in ("T1", "B0", "D"))
    phantom = load(shared / "mrzero" / "quantified_brain.npz")
    assert phantom.matrix == (96, 96)
    assert phantom.tissue.shape == (5159,)  # 5176 with PD, one without T2, 16 without T2'
    np.testing.assert_allclose(phantom.voxel_size, [0.2 / 96, 0.2 / 96, 0.008])
    found = truth(phantom)
    for row, column in ((30, 50), (60, 40), (48, 48)):
        x, y = 95 - column, 95 - row
        assert found["t1"][row, column] == pytest.approx(t1[x, y])
        assert found["b0"][row, column] == pytest.approx(b0[x, y])
    assert phantom.pixel is not None
    assert phantom.tissue.diffusivity is not None
    entry = int(np.flatnonzero(np.asarray(phantom.pixel) == 48 * 96 + 48)[0])
    assert float(phantom.tissue.diffusivity[entry]) == pytest.approx(1e-9 * diffusivity[47, 47])


def test_the_numerical_brain_of_mrzero(shared):
    columns = scipy.io.loadmat(shared / "mrzero" / "numerical_brain_cropped.mat")["cropped_brain"]
    phantom = load(shared / "mrzero" / "numerical_brain_cropped.mat")
    assert phantom.matrix == (161, 141)
    assert phantom.tissue.shape == (13954,)
    found = truth(phantom)
    inside = columns[..., 0] > 0
    for k, name in enumerate(("m0", "t1", "t2", "b0")):
        np.testing.assert_allclose(found[name][::-1, ::-1].T[inside], columns[..., k][inside], rtol=1e-6)
    # The frontal sinus disturbs B0: in front is on top.
    assert np.nanmax(np.abs(found["b0"][:40])) > 2 * np.nanmax(np.abs(found["b0"][80:]))


def test_the_brains_of_jemris_agree(shared):
    volume = load(shared / "jemris_mni" / "MNIbrain.mat", slice=89)
    slice_of_it = load(shared / "koma_jemris" / "brain.h5")
    assert volume.matrix == slice_of_it.matrix == (216, 180)
    assert slice_of_it.tissue.shape == (25841,)
    # The sample keeps JEMRIS' coordinates: half a turn apart.
    same = np.isclose(truth(volume)["t1"], truth(slice_of_it)["t1"][::-1, ::-1], rtol=1e-3, equal_nan=True)
    assert same.mean() > 0.95
    mirrored = np.isclose(truth(volume)["t1"], truth(slice_of_it)["t1"][::-1], rtol=1e-3, equal_nan=True)
    assert mirrored.mean() < 0.85


def test_the_approved_sample_of_jemris(shared):
    phantom = load(shared / "jemris_approved" / "sample.h5")
    assert phantom.tissue.shape == (25,)
    np.testing.assert_allclose(phantom.tissue.t1, 1.0)
    np.testing.assert_allclose(phantom.tissue.t2, 0.1)
    assert phantom.tissue.t2_prime is None
    np.testing.assert_allclose(np.unique(phantom.position[:, 0]), [-2.5e-3, -1.5e-3, -0.5e-3, 0.5e-3, 1.5e-3])
