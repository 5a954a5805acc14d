"""Scans of k-space: where their samples lie, that images come out upright, and that they encode what operators say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmr as mr
from checks import relative
from jaxmr.encoding import forward_nufft, to_grid, trajectory
from jaxmr.units import deg, mm, ms, us

MATRIX, FOV = (12, 16), (64 * mm, 48 * mm)
VOXEL = (4 * mm, 4 * mm)


def l_shape() -> np.ndarray:
    """An L as one writes it, rows from the top."""
    image = np.zeros(MATRIX)
    image[2:10, 4] = 1.0
    image[9, 4:11] = 2.0
    return image


def phantom(image: np.ndarray, t1=1e3) -> mr.Phantom:
    shape = image.shape
    return mr.objects.from_maps(np.full(shape, t1), np.full(shape, 1e3), m0=image, voxel_size=(4 * mm,) * 3)


def cartesian(rows=None):
    return mr.sequences.readouts.cartesian(MATRIX, FOV, rows, dwell=10 * us)


def scans():
    grid = {"matrix": MATRIX, "fov": FOV, "dwell": 10 * us}
    centric = trajectory.centric_order(12)
    return {
        "gre": mr.sequences.gre(5 * deg, 10 * ms, 4 * ms, rows=centric, n_dummies=2, **grid),
        "tse": mr.sequences.rare(np.full(6, np.pi), 8 * ms, 5.0, **grid),
        "epi": mr.sequences.epi(90 * deg, 20 * ms, **grid),
        "bssfp": mr.sequences.bssfp(jnp.full(12, 0.3), 5 * ms, readout=cartesian()),
    }


@pytest.mark.parametrize("name", ["gre", "tse", "epi", "bssfp"])
def test_every_row_is_taken_once(name):
    k = np.asarray(mr.sequences.trajectory(scans()[name]))
    expected = trajectory.cartesian(MATRIX, VOXEL).reshape(-1, 2)
    order = lambda points: points[np.lexsort(np.round(points / 10).T)]  # noqa: E731
    assert np.abs(order(k[:, :2]) - order(expected)).max() < 1e-6 * np.abs(expected).max()
    assert np.abs(k[:, 2]).max() < 1e-6


@pytest.mark.parametrize("name", ["tse", "epi", "gre"])
def test_an_l_comes_out_upright(name):
    sequence, image = scans()[name], l_shape()
    kspace = mr.simulate(sequence, phantom(image, t1=0.8), mr.PDG(tolerance=1e-4))
    k = mr.sequences.trajectory(sequence)[:, :2]
    found = mr.encoding.centred_ifft(to_grid(kspace, k, MATRIX, VOXEL))[0]
    share = np.abs(found) / np.abs(found[9, 10])
    assert np.abs(share - image / 2).max() < 0.06
    assert relative(np.abs(found) / np.linalg.norm(found), image / np.linalg.norm(image)) < 0.06


def test_one_echo_encodes_as_the_operator_does():
    """An EPI of magnetisation that does not relax is the Fourier sum at its trajectory."""
    sequence, image = scans()["epi"], l_shape()
    kspace = mr.simulate(sequence, phantom(image), mr.PDG(tolerance=1e-6))
    k = mr.sequences.trajectory(sequence)
    expected = -1j * forward_nufft(jnp.asarray(image, complex), k[:, :2], VOXEL, method="exact")
    assert relative(kspace[0], expected) < 1e-4


@pytest.mark.parametrize("name", ["radial", "spiral"])
def test_other_readouts_follow_their_trajectory(name):
    if name == "radial":
        wanted = trajectory.radial(7, 16, 4 * mm)
        lines = mr.sequences.readouts.radial(7, 16, 4 * mm, dwell=10 * us)
    else:
        generator = np.random.default_rng(0)
        wanted = np.cumsum(generator.normal(size=(7, 16, 2)), axis=1) * 20
        lines = mr.sequences.readouts.along_path(wanted, 10 * us)
    # Two pulses prepare, with phases and times of their own.
    times, phase = np.linspace(9, 11, 9) * ms, np.linspace(0, 1, 9)
    sequence = mr.sequences.fisp(np.full(9, 0.1), times, 4 * ms, phase=phase, readout=lines)
    k = np.asarray(mr.sequences.trajectory(sequence)).reshape(7, 16, 3)
    assert relative(k[..., :2], wanted) < 1e-12
    image = l_shape()
    kspace = np.asarray(mr.simulate(sequence, phantom(image), mr.PDG(tolerance=1e-5)))[0].reshape(7, 16)
    expected = np.asarray(forward_nufft(jnp.asarray(image, complex), wanted, VOXEL, method="exact"))
    inside = np.abs(wanted).max(-1) < 0.99 * np.pi / (4 * mm)
    for line, theirs, used in zip(kspace, expected, inside, strict=True):
        gain = np.vdot(theirs[used], line[used]) / np.vdot(theirs[used], theirs[used])
        assert relative(line[used], gain * theirs[used]) < 1e-3


def test_the_centre_is_sampled_at_te():
    for name, te in (("gre", 4 * ms), ("epi", 20 * ms)):
        sequence = scans()[name]
        k, times = mr.sequences.trajectory(sequence), np.asarray(mr.sequences.sample_times(sequence))
        centre = int(np.argmin(np.linalg.norm(k, axis=1)))
        start = 2 * 10 * ms if name == "gre" else 0.0
        assert abs(times[centre] - start - te) < 1e-9


def test_mprage_inverts_every_row():
    """Grey matter at its null, white matter bright."""
    sequence = mr.sequences.mprage(
        8 * deg, 8 * ms, 3 * ms, 0.65, 2.5, matrix=(4, 3, 8), fov=(32 * mm, 12 * mm, 16 * mm), dwell=10 * us
    )
    assert sequence.n_echoes == 4 * 3 * 8
    assert len(sequence.segments) == 3 * 3
    k = np.asarray(mr.sequences.trajectory(sequence)).reshape(3, 4, 8, 3)
    step = 2 * np.pi / np.array([32, 12, 16]) / mm
    assert np.allclose(k[:, :, 4, 0], 0, atol=1e-6)
    assert np.allclose(k[..., 1] / step[1], (np.arange(3) - 1)[:, None, None])
    assert np.allclose(k[..., 2] / step[2], (np.arange(4) - 2)[None, :, None])
    assert np.allclose(k[..., 0] / step[0], (np.arange(8) - 4)[None, None])


def test_the_trajectory_is_differentiable():
    def centre(time):
        return jnp.sum(mr.sequences.sample_times(mr.sequences.epi(1.0, time, matrix=MATRIX, fov=FOV)))

    assert abs(jax.grad(centre)(0.03) - 12 * 16) < 1e-6


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="does not fit te and tr"):
        mr.sequences.gre(0.1, 5 * ms, 0.1 * ms, matrix=MATRIX, fov=FOV)
    with pytest.raises(ValueError, match="no whole number of shots"):
        mr.sequences.rare(np.full(5, np.pi), 8 * ms, 1.0, matrix=MATRIX, fov=FOV)
    with pytest.raises(ValueError, match="shorter than the way to the centre"):
        mr.sequences.epi(1.0, 1 * ms, matrix=MATRIX, fov=FOV)
    with pytest.raises(ValueError, match="rows must be row numbers"):
        mr.sequences.readouts.cartesian(MATRIX, FOV, rows=[12])
    with pytest.raises(ValueError, match="12 lines, but the train only 3 pulses"):
        mr.sequences.fisp(np.full(3, 0.1), 10 * ms, 4 * ms, readout=cartesian())
