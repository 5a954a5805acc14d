"""Coils: fields against closed forms and a line current, and what is done to their data against plain NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import central_difference, relative
from jaxmr.encoding.coil_data import compress, prewhiten, walsh
from jaxmr.encoding.coils import around_cylinder, birdcage, loop_field, loops, normalise
from jaxmr.objects.phantom import grid_position

MU0 = 4e-7 * np.pi


def inside(n: int = 40, reach: float = 0.08) -> np.ndarray:
    return np.random.default_rng(0).uniform(-reach, reach, (n, 3))


def complex_normal(seed: int, *shape: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(size=shape) + 1j * draw.normal(size=shape)


def segment_field(corners, position):
    """Field of straight segments between corners (points, 3) at positions (n, 3): the slow, obvious sum."""
    field = np.zeros_like(position)
    for start, end in itertools.pairwise(corners):
        arm = position - (start + end) / 2
        field += 1e-7 * np.cross(end - start, arm) / np.linalg.norm(arm, axis=1)[:, None] ** 3
    return field


def head(matrix=(24, 20), n_coils=6):
    """Coil images of an ellipse with a phase of its own, and the sensitivities they were made with."""
    position = grid_position(matrix, (0.01, 0.01, 0.01))
    maps = np.asarray(birdcage(position, n_coils, 0.2)).reshape(n_coils, *matrix)
    x, y = position[:, 0].reshape(matrix), position[:, 1].reshape(matrix)
    image = ((x / 0.08) ** 2 + (y / 0.1) ** 2 < 1) * (1 + 3 * x) * np.exp(1j * (5 * x + 20 * x * y))
    return maps, image


def test_a_loop_has_the_field_of_the_closed_form_on_its_axis():
    a, z = 0.05, np.linspace(-0.1, 0.15, 11)
    normal = np.array([[2.0, -1.0, 0.5]])  # of any length
    axis = normal[0] / np.linalg.norm(normal)
    centre = np.array([[0.01, 0.02, -0.03]])
    field = loop_field(centre + z[:, None] * axis, centre, normal, a)[0]
    expected = MU0 * a**2 / (2 * (a**2 + z**2) ** 1.5)
    np.testing.assert_allclose(field, expected[:, None] * axis, rtol=1e-12, atol=1e-20)


def test_a_loop_is_its_line_segments_off_axis():
    centre, normal = around_cylinder(3, 0.14, 2, 0.1)
    angle = np.linspace(0, 2 * np.pi, 4001)
    field = loop_field(inside(), centre, normal, 0.05)
    for middle, axis, found in zip(np.asarray(centre), np.asarray(normal), field, strict=True):
        first = np.cross([0.0, 0.0, 1.0], axis)
        corners = middle + 0.05 * (np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * np.cross(axis, first))
        assert relative(found, segment_field(corners, inside())) < 1e-5


def test_a_far_loop_is_a_dipole_in_every_component():
    position = 2.0 * np.array([[0.6, 0.0, 0.8], [0.1, -0.7, 0.3]])
    moment = np.pi * 0.01**2 * np.array([0.0, 1.0, 0.0])
    r = np.linalg.norm(position, axis=1)[:, None]
    dipole = 1e-7 * (3 * position * (position @ moment)[:, None] / r**5 - moment / r**3)
    field = loop_field(position, np.zeros((1, 3)), np.array([[0.0, 1.0, 0.0]]), 0.01)[0]
    assert relative(field, dipole) < 1e-4


def test_receive_sensitivity_is_bx_minus_i_by():
    place = (np.array([[0.1, 0.0, 0.0], [0.0, 0.1, 0.0]]), np.array([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]))
    seen = loops(np.zeros((1, 3)), *place, 0.04)[:, 0]
    strength = MU0 * 0.04**2 / (2 * (0.04**2 + 0.1**2) ** 1.5)
    np.testing.assert_allclose(seen, [-strength, 1j * strength], atol=1e-18)


def test_the_accuracy_promised_near_the_wire():
    position = np.array([[0.05 * 0.75, 0.0, 0.0], [0.05, 0.0, 0.0125]])
    loop = (np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]), 0.05)
    assert relative(loop_field(position, *loop), loop_field(position, *loop, n_points=4096)) < 1e-6


def test_birdcage_wires_have_the_field_of_a_line_current():
    position = inside()
    wires = birdcage(position, 5, 0.2)
    height = np.linspace(-400, 400, 800_001)[:, None]
    for j in (0, 2):
        x, y = 0.2 * np.cos(2 * np.pi * j / 5), 0.2 * np.sin(2 * np.pi * j / 5)
        corners = np.concatenate([np.full_like(height, x), np.full_like(height, y), height], 1)
        arm = position[:4, None] - (corners[1:] + corners[:-1]) / 2
        field = 1e-7 * np.cross(np.diff(corners, axis=0), arm) / np.linalg.norm(arm, axis=-1, keepdims=True) ** 3
        received = field.sum(1)[:, 0] - 1j * field.sum(1)[:, 1]
        ratio = np.asarray(wires[j, :4]) / received
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    np.testing.assert_allclose(birdcage(np.array([[0.0, 0.0, 0.3]]), 5, 0.2), np.ones((5, 1)), rtol=1e-12)


def test_a_coil_sees_its_own_side_best():
    position = 0.1 * np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    for maps in (birdcage(position, 4, 0.2), loops(position, *around_cylinder(4, 0.2), 0.06)):
        assert np.argmax(np.abs(maps), axis=1).tolist() == [0, 1, 2, 3]
    centre, normal = around_cylinder(4, 0.2, 3, 0.07)
    np.testing.assert_allclose(centre[::4, 2], [-0.07, 0, 0.07], atol=1e-12)
    np.testing.assert_allclose(jnp.hypot(centre[:, 0], centre[:, 1]), 0.2)
    np.testing.assert_allclose(jnp.sum(normal * centre, 1), -0.2)
    azimuth = np.rad2deg(np.arctan2(centre[:, 1], centre[:, 0])) % 360
    np.testing.assert_allclose(azimuth, [0, 90, 180, 270, 45, 135, 225, 315, 0, 90, 180, 270], atol=1e-9)


def test_normalised_maps_combine_to_the_magnetisation():
    maps = np.array(birdcage(inside(), 5, 0.2))
    maps[:, 3] = 0
    unit = normalise(jnp.asarray(maps))
    power = np.ones(40)
    power[3] = 0
    np.testing.assert_allclose(np.sum(np.abs(unit) ** 2, 0), power, atol=1e-12)
    gradient = jax.grad(lambda m: jnp.abs(normalise(m).sum()))(jnp.asarray(maps))
    assert np.isfinite(gradient).all()


def test_fields_can_be_differentiated_where_the_loop_is_symmetric():
    def strength(shift):
        centre = jnp.array([[0.0, 0.0, 0.1]]) + shift * jnp.array([[1.0, 0.5, -0.3]])
        field = loops(jnp.array([[0.0, 0.0, 0.0], [0.02, 0.01, 0.0]]), centre, jnp.array([[0.0, 0.0, -1.0]]), 0.05)
        return 1e6 * jnp.sum(field.real + 3 * field.imag)

    expected = central_difference(strength, 0.0, 1e-4)
    np.testing.assert_allclose(jax.grad(strength)(0.0), expected, rtol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(strength)(0.0), expected, rtol=1e-8)


def test_walsh_finds_the_maps_up_to_a_smooth_phase():
    maps, image = head()
    found = walsh(jnp.asarray(maps * image))
    expected = np.asarray(normalise(jnp.asarray(maps)))
    tissue = image != 0
    agreement = np.abs(np.sum(found.conj() * expected, 0))[tissue]
    assert agreement.min() > 0.995
    reference = np.sum(found, 0)  # every wire of the birdcage has phase 0 in the middle
    assert np.abs(np.angle(reference[tissue])).max() < 0.6
    steps = np.angle(found[:, :, 1:] * np.conj(found[:, :, :-1]))[:, tissue[:, 1:] & tissue[:, :-1]]
    assert np.abs(steps).max() < 0.3
    combined = np.abs(np.sum(np.conj(found) * maps * image, 0))
    assert relative(combined, np.sqrt(np.sum(np.abs(maps * image) ** 2, 0))) < 5e-3


def test_walsh_in_a_box_of_one_pixel_is_the_normalised_image():
    maps, image = head()
    found = walsh(jnp.asarray(maps * image), width=1)
    expected = np.abs(np.asarray(normalise(jnp.asarray(maps * image))))
    np.testing.assert_allclose(np.abs(found), expected, atol=1e-9)
    assert np.abs(found[:, image == 0]).max() == 0


def test_walsh_is_the_leading_eigenvector_of_the_local_covariance():
    noisy = jnp.asarray(head()[0] * head()[1] + 0.05 * complex_normal(3, 6, 24, 20))
    found = walsh(noisy, width=5)
    around = np.asarray(noisy)[:, 8:13, 10:15].reshape(6, -1)
    leading = np.linalg.eigh(around @ around.conj().T)[1][:, -1]
    assert abs(np.vdot(leading, found[:, 10, 12])) > 1 - 1e-9


def test_walsh_takes_volumes_and_has_finite_derivatives():
    images = jnp.asarray(head(matrix=(4, 6, 5), n_coils=3)[0])
    assert walsh(images, 3).shape == (3, 4, 6, 5)
    gradient = jax.grad(lambda scale: jnp.abs(walsh(images * scale, 3).sum()))(jnp.zeros((1, 4, 6, 5)))
    assert np.isfinite(gradient).all()


def test_compression_keeps_what_the_singular_values_keep():
    kspace = complex_normal(0, 4, 300)
    kspace = complex_normal(1, 8, 4) @ kspace + 0.01 * complex_normal(2, 8, 300)
    values = np.linalg.svd(kspace, compute_uv=False)
    for n in (1, 3, 8):
        data, matrix = compress(jnp.asarray(kspace), n)
        assert data.shape == (n, 300)
        np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(n), atol=1e-12)
        np.testing.assert_allclose(matrix @ kspace, data, atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(data, axis=1), values[:n], rtol=1e-6)
    lost = kspace - np.asarray(matrix[:4]).conj().T @ np.asarray(data[:4])
    np.testing.assert_allclose(np.linalg.norm(lost), np.linalg.norm(values[4:]), rtol=1e-6)


def test_whitened_noise_has_unit_variance_per_part_and_no_correlation():
    mixing = complex_normal(0, 4, 4)
    noise = mixing @ complex_normal(1, 4, 2000)
    signal = complex_normal(2, 4, 7)
    kspace, matrix = prewhiten(jnp.asarray(signal), jnp.asarray(noise))
    white = np.asarray(matrix) @ noise
    np.testing.assert_allclose(white @ white.conj().T / 2000, 2 * np.eye(4), atol=1e-10)
    np.testing.assert_allclose(kspace, np.asarray(matrix) @ signal)
    fresh = np.asarray(matrix) @ mixing @ complex_normal(9, 4, 50_000)
    np.testing.assert_allclose(fresh.real.var(1), 1, rtol=0.1)
    np.testing.assert_allclose(fresh.imag.var(1), 1, rtol=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: birdcage(inside(), 0, 0.2), "n_coils must be at least 1"),
        (lambda: birdcage(inside(), 4, 0.05), "enlarge radius"),
        (lambda: loops(inside(), np.zeros((2, 3)), np.ones((2, 3)), -1.0), "radius must be positive"),
        (lambda: loops(inside(), np.zeros((2, 3)), np.zeros((2, 3)), 1.0), "length of normal must be positive"),
        (lambda: walsh(jnp.ones((2, 4, 4), complex), 4), "width must be odd"),
        (lambda: compress(jnp.ones((2, 4), complex), 3), "n_virtual must be 1 ... 2"),
        (lambda: prewhiten(jnp.ones((2, 4), complex), jnp.ones((2, 1), complex)), r"noise must have shape \(2, n\)"),
        (lambda: prewhiten(jnp.ones((2, 4), complex), jnp.ones((2, 9), complex)), "covariance is singular"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
