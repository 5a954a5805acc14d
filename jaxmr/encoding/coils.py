r"""Receive coils: how strongly each sees the magnetisation at a place.

By reciprocity a coil that makes the transverse field $B_x + i B_y$ with unit current receives
$\mathrm{Re}[(B_x - i B_y) M_+]$, so its sensitivity is $B_1^- = B_x - i B_y$, which multiplies $M_+$ in every encoding
operator. Fields are static (wavelength and tissue are left out), in tesla per ampere; lengths in metres. The main field
points along +z. Positions are `(n, 3)`, sensitivities `(coils, n)`; `grid_position` gives the positions of an image.
Reference: Hoult, "The principle of reciprocity in signal strength calculations", Concepts Magn. Reson. 12:173 (2000).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmr.core.checks import as_float, require_values
from jaxmr.core.types import Array, Complex, Float, RealScalar

Positions = Float[Array | np.ndarray, "n 3"]
Frames = Float[Array | np.ndarray, "coils 3"]


def birdcage(position: Positions, n_coils: int, radius: RealScalar) -> Complex[Array, "coils n"]:
    r"""Sensitivities of straight wires along z, equally spaced around a circle about the z axis.

    Wire j at azimuth $\varphi_j = 2\pi j / n$ has the field of an infinite line current, with the current phase
    that makes every sensitivity 1 on the axis: $c_j = 1 / (1 - (x + iy) e^{-i\varphi_j} / R)$. It does not depend on z.
    radius: m; positions belong inside it. Raises `ValueError` for a position on or outside the circle.
    """
    position = _positions(position)
    radius = as_float("radius", radius)
    _require_count("n_coils", n_coils)
    require_values("radius", radius, "it is in metres", positive=True)
    inside = radius - jnp.hypot(position[:, 0], position[:, 1])
    require_values("radius minus distance from the axis", inside, "enlarge radius beyond the object", positive=True)
    azimuth = 2 * jnp.pi * jnp.arange(n_coils) / n_coils
    turned = (position[None, :, 0] + 1j * position[None, :, 1]) * jnp.exp(-1j * azimuth)[:, None] / radius
    return 1 / (1 - turned)


def loops(
    position: Positions,
    centre: Frames,
    normal: Frames,
    radius: RealScalar,
    *,
    n_points: int = 64,
) -> Complex[Array, "coils n"]:
    """Sensitivities Bx - i By of circular loops, T/A. Arguments and accuracy as for `loop_field`."""
    field = loop_field(position, centre, normal, radius, n_points=n_points)
    return field[..., 0] - 1j * field[..., 1]


def loop_field(
    position: Positions,
    centre: Frames,
    normal: Frames,
    radius: RealScalar,
    *,
    n_points: int = 64,
) -> Float[Array, "coils n 3"]:
    r"""Field of circular loops with unit current, T/A, by the law of Biot and Savart.

    $B(r) = \frac{\mu_0}{4\pi} \oint \mathrm{d}l \times (r - s) / |r - s|^3$; the current turns right-handed about
    `normal` (of any length). radius: m. The integrand is smooth and periodic, so the sum over `n_points` equal steps
    of the angle converges as exp(-n_points d / radius), d the distance from the wire: 64 points give 1e-6 for
    d = radius / 4. Differentiable in everything, on the axis too; infinite on the wire.
    """
    position = _positions(position)
    centre, normal = as_float("centre", centre), as_float("normal", normal)
    radius = as_float("radius", radius)
    _require_count("n_points", n_points)
    if centre.ndim != 2 or centre.shape[-1] != 3 or normal.shape != centre.shape:
        raise ValueError(f"centre and normal must have one shape (coils, 3), got {centre.shape} and {normal.shape}")
    require_values("radius", radius, "it is in metres", positive=True)
    require_values("length of normal", jnp.linalg.norm(normal, axis=-1), "it is a direction", positive=True)
    first, second = _plane(normal)
    step = 2 * jnp.pi / n_points

    def add(field, angle):
        outward = jnp.cos(angle) * first + jnp.sin(angle) * second
        along = jnp.cos(angle) * second - jnp.sin(angle) * first
        arm = position[None] - (centre + radius * outward)[:, None, :]
        distance = jnp.sqrt(jnp.sum(arm**2, -1, keepdims=True))
        return field + jnp.cross(radius * step * along[:, None, :], arm) / distance**3, None

    nothing = jnp.zeros((centre.shape[0], *position.shape), jnp.result_type(position, centre, radius))
    total, _ = jax.lax.scan(add, nothing, step * jnp.arange(n_points))
    return 1e-7 * total


def around_cylinder(
    n_coils: int, radius: RealScalar, n_rings: int = 1, spacing: RealScalar = 0.0
) -> tuple[Float[Array, "coils 3"], Float[Array, "coils 3"]]:
    """Centres and inward normals of loops on a cylinder about the z axis, as a head array has them.

    Each of `n_rings` rings, `spacing` m apart and centred on z = 0, holds `n_coils` loops; every other ring is turned
    by half a step, so that its loops cover the gaps. Ring by ring, `(n_rings * n_coils, 3)`. radius: cylinder's, m.
    """
    _require_count("n_coils", n_coils)
    _require_count("n_rings", n_rings)
    radius, spacing = as_float("radius", radius), as_float("spacing", spacing)
    require_values("radius", radius, "it is in metres", positive=True)
    ring, coil = jnp.divmod(jnp.arange(n_rings * n_coils), n_coils)
    azimuth = 2 * jnp.pi * (coil + 0.5 * (ring % 2)) / n_coils
    outward = jnp.stack([jnp.cos(azimuth), jnp.sin(azimuth), jnp.zeros_like(azimuth)], -1)
    height = (ring - (n_rings - 1) / 2) * spacing
    return radius * outward + height[:, None] * jnp.array([[0.0, 0.0, 1.0]]), -outward


def normalise(maps: Complex[Array, "coils *matrix"]) -> Complex[Array, "coils *matrix"]:
    """Sensitivities over their root sum of squares, so that the combined image is the magnetisation; 0 stays 0."""
    power = jnp.sum(jnp.abs(maps) ** 2, 0, keepdims=True)
    return maps * jnp.where(power > 0, jax.lax.rsqrt(jnp.where(power > 0, power, 1.0)), 0.0)


def _plane(normal):
    """Two unit vectors that make a right-handed frame with each normal, `(coils, 3)`."""
    axis = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
    # Any direction far from the normal; which one only turns the start of the loop.
    away = jnp.where(jnp.abs(axis[:, 2:]) < 0.7, jnp.array([[0.0, 0.0, 1.0]]), jnp.array([[1.0, 0.0, 0.0]]))
    first = jnp.cross(away, axis)
    first = first / jnp.linalg.norm(first, axis=-1, keepdims=True)
    return first, jnp.cross(axis, first)


def _positions(position):
    position = as_float("position", position)
    if position.ndim != 2 or position.shape[1] != 3:
        raise ValueError(f"position must have shape (n, 3), columns x y z in metres, got {position.shape}")
    return position


def _require_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
