"""Files: what is read equals what was written, and nothing broken or foreign is taken for whole."""

import subprocess
import sys

import h5py
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from jaxmr.core.files import whole
from jaxmr.io.hdf5 import load_dictionary, read_about, save_dictionary
from jaxmr.io.nifti import read_map, write_maps
from jaxmr.io.signals import read_mask
from jaxmr.mrf.container import Dictionary
from jaxmr.mrf.subspace import compress


def dictionary(n: int = 50) -> Dictionary:
    draw = np.random.default_rng(0)
    atoms = (draw.normal(size=(n, 30)) + 1j * draw.normal(size=(n, 30))).astype(np.complex64)
    return Dictionary(atoms, {"t2": np.linspace(0.02, 0.2, n), "b0": jnp.linspace(-5, 5, n, dtype=jnp.float32)})


@pytest.mark.parametrize("rank", [None, 7])
def test_dictionary_round_trip(tmp_path, rank):
    written = compress(dictionary(), rank) if rank else dictionary()
    save_dictionary(tmp_path / "d.h5", written, about={"sequence": "FISP", "n_pulses": 30})
    read = load_dictionary(tmp_path / "d.h5")
    for name in ("atoms", "t2", "b0", "basis", "energy"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert read.atoms.dtype == np.complex64
    assert read.t2.dtype == np.float64
    assert read_about(tmp_path / "d.h5") == {"sequence": "FISP", "n_pulses": 30}
    assert [path.name for path in tmp_path.iterdir()] == ["d.h5"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "d.h5"
    save_dictionary(path, dictionary())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_dictionary(path, dictionary(), about={"sequence": object()})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["d.h5"]


def test_a_killed_write_leaves_nothing_that_looks_whole(tmp_path):
    program = f"""
import os, signal, h5py, numpy as np
from jaxmr.io.hdf5 import save_dictionary
from jaxmr.mrf.container import Dictionary

real = h5py.Group.create_dataset
def dies_at_the_second(self, name, **options):
    if name != "atoms":
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, name, **options)
h5py.Group.create_dataset = dies_at_the_second
save_dictionary({str(tmp_path / "d.h5")!r}, Dictionary(np.ones((4, 3), complex), {{"t1": np.ones(4)}}))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert not (tmp_path / "d.h5").exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".d.h5.")
    with pytest.raises(ValueError, match="truncated, damaged or no HDF5"):
        load_dictionary(left)


def test_truncated_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "d.h5"
    save_dictionary(path, dictionary())
    whole = path.read_bytes()
    for cut in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"d\.h5 cannot be read as a jaxmr dictionary: it is truncated"):
            load_dictionary(path)
    atoms = whole.index(np.asarray(dictionary().atoms).tobytes()[:64])
    path.write_bytes(whole[: atoms + 10] + bytes([whole[atoms + 10] ^ 1]) + whole[atoms + 11 :])
    with pytest.raises(ValueError, match="damaged"):
        load_dictionary(path)
    path.write_text("t1 t2")
    with pytest.raises(ValueError, match="no HDF5 file"):
        load_dictionary(path)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"no jaxmr dictionary .*attribute is None"):
        load_dictionary(path)


def test_another_version_and_missing_parts_are_named(tmp_path):
    path = tmp_path / "d.h5"
    save_dictionary(path, dictionary())
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 2
    with pytest.raises(ValueError, match="version 2, this jaxmr reads version 1; read it with the jaxmr that"):
        read_about(path)
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 1
        del file["atoms"]
    with pytest.raises(ValueError, match="atoms"):
        load_dictionary(path)
    with pytest.raises(FileNotFoundError):
        load_dictionary(tmp_path / "absent.h5")


def test_maps_round_trip_with_complex_m0_and_mask(tmp_path):
    draw = np.random.default_rng(1)
    t1 = draw.uniform(0.3, 2, (4, 5, 6)).astype(np.float32)
    m0 = t1 * np.exp(1j * draw.uniform(-3, 3, t1.shape))
    paths = write_maps(tmp_path / "new", {"t1": t1, "m0": m0, "mask": t1 > 1}, (1e-3, 2e-3, 5e-3))
    assert [path.name for path in paths] == ["t1.nii.gz", "m0.nii.gz", "m0_phase.nii.gz", "mask.nii.gz"]
    back = {path.name.removesuffix(".nii.gz"): read_map(path) for path in paths}
    np.testing.assert_array_equal(back["t1"], t1)
    np.testing.assert_allclose(back["m0"] * np.exp(1j * back["m0_phase"]), m0)
    np.testing.assert_array_equal(back["mask"], t1 > 1)
    header = nib.load(paths[0]).header
    assert header.get_zooms() == pytest.approx((1, 2, 5))
    assert header.get_xyzt_units()[0] == "mm"
    assert bytes(header["descrip"].tobytes()).startswith(b"jaxmr t1 s")


def test_images_lie_as_the_radiologist_sees_them(tmp_path):
    """Row 0 is anterior, column 0 the patient's right, slice 0 inferior."""
    image = np.zeros((3, 4, 5))
    image[2, 0, 0] = 1  # superior, anterior, right
    (path,) = write_maps(tmp_path, {"t1": image}, (2e-3, 2e-3, 2e-3))
    nifti = nib.load(path)
    assert nib.aff2axcodes(nifti.affine) == ("L", "P", "S")
    world = nifti.affine @ [*np.argwhere(nifti.get_fdata())[0], 1]
    np.testing.assert_allclose(world[:3], [4, 3, 2])  # right, anterior, superior of the centre, mm
    canonical = nib.as_closest_canonical(nifti)
    assert nib.aff2axcodes(canonical.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(np.argwhere(canonical.get_fdata()), [[4, 3, 2]])
    nib.save(canonical, tmp_path / "canonical.nii")  # another program's order of axes
    np.testing.assert_array_equal(read_map(tmp_path / "canonical.nii"), image)


def test_one_slice_comes_back_as_one(tmp_path):
    (path,) = write_maps(tmp_path, {"t2": np.arange(6).reshape(2, 3)}, (1e-3, 1e-3, 3e-3))
    np.testing.assert_array_equal(read_map(path), np.arange(6).reshape(2, 3))


def test_map_errors_name_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="images of one shape"):
        write_maps(tmp_path, {"t1": np.ones((2, 2)), "t2": np.ones((2, 3))}, (1e-3, 1e-3, 1e-3))
    with pytest.raises(ValueError, match="images of one shape"):
        write_maps(tmp_path, {"t1": np.ones(2)}, (1e-3, 1e-3, 1e-3))
    with pytest.raises(ValueError, match="in metres"):
        write_maps(tmp_path, {"t1": np.ones((2, 2))}, (1, 1, 5))
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 3), np.float32), np.eye(4)), tmp_path / "series.nii")
    with pytest.raises(ValueError, match="two or three axes"):
        read_map(tmp_path / "series.nii")


def test_whole_files_replace_old_ones_or_leave_them(tmp_path):
    path = tmp_path / "new" / "maps.tar.gz"
    with whole(path) as partial:
        partial.write_text("old")
        assert partial.name.endswith(".tar.gz")
    with pytest.raises(TypeError), whole(path) as partial, partial.open("w") as file:
        file.writelines(["half", None])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_masks_come_from_every_format(tmp_path):
    mask = np.arange(12).reshape(3, 4) % 3 == 0
    np.save(tmp_path / "m.npy", mask)
    np.savez(tmp_path / "m.npz", mask=mask.astype(int))
    (path,) = write_maps(tmp_path, {"m": mask}, (1e-3, 1e-3, 1e-3))
    for file in (path, tmp_path / "m.npy", tmp_path / "m.npz"):
        np.testing.assert_array_equal(read_mask(file), mask)


def test_import_is_light():
    program = """
import sys, jaxmr, jaxmr.mrf.matching, jaxmr.io.hdf5, jaxmr.io.nifti, jaxmr.plot.maps, jaxmr.plot.sequence
heavy = {"scipy", "matplotlib", "h5py", "nibabel", "cmcrameri"} & {name.split(".")[0] for name in sys.modules}
sys.exit(str(heavy) if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
