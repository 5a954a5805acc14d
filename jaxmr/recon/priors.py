r"""What images are expected to be: penalties g with a proximal map, argmin_x |x - z|^2 / 2 + t g(x).

Both depend on a grid of blocks or of wavelets, which is shifted from step to step, so that its seams do not show.
"""

from abc import abstractmethod
from typing import final

import equinox as eqx
import jax.numpy as jnp

from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Complex, Float, Shaped
from jaxmr.recon import wavelets


class Prior(eqx.Module):
    """A penalty on images `(*batch, *matrix)`, the last `n_axes` axes those of space."""

    @abstractmethod
    def penalty(self, image: Complex[Array, "*shape"], n_axes: int) -> Float[Array, ""]:
        """g(x), on the grid that is not shifted."""

    @abstractmethod
    def proximal(
        self, image: Complex[Array, "*shape"], threshold: Float[Array, ""], shift: Shaped[Array, "n_axes"]
    ) -> Complex[Array, "*shape"]:
        """The proximal map of `threshold` g, on a grid that is shifted by whole voxels along each axis of space."""

    @property
    @abstractmethod
    def period(self) -> int:
        """The shift after which the grid is the same again."""


@final
class LocallyLowRank(Prior):
    """Sum of the singular values of every block of `block` voxels a side, as a matrix (coefficients, voxels).

    For series of images or coefficient images `(R, *matrix)`. Reference: Zhang, Pauly and Levesque, MRM 73:655 (2015).
    """

    block: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        if self.block < 1:
            raise ValueError(f"block is a number of voxels, at least 1, got {self.block}")

    def penalty(self, image, n_axes):
        values, _ = _singular(_blocks(_series(image, n_axes), self.block, n_axes))
        return values.sum()

    @property
    def period(self):
        return self.block

    def proximal(self, image, threshold, shift):
        n_axes = len(shift)
        series, axes = _series(image, n_axes), tuple(range(-n_axes, 0))
        blocks = _blocks(jnp.roll(series, shift, axes), self.block, n_axes)
        values, vectors = _singular(blocks)
        shrunk = matmul(vectors, _kept(values, threshold)[..., None] * matmul(vectors.conj().mT, blocks))
        whole = _from_blocks(shrunk, series.shape, self.block, n_axes)
        return jnp.roll(whole, -shift, axes).reshape(image.shape)


@final
class Wavelet(Prior):
    """Sum of the magnitudes of the wavelet details of each image, over `levels` scales.

    References: Lustig, Donoho and Pauly, MRM 58:1182 (2007); Figueiredo and Nowak, IEEE TIP 12:906 (2003).
    """

    levels: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        if self.levels < 1:
            raise ValueError(f"levels is a number of scales, at least 1, got {self.levels}")

    def penalty(self, image, n_axes):
        details, _ = self._details(image, n_axes)
        return jnp.abs(details).sum()

    @property
    def period(self):
        return 2**self.levels

    def proximal(self, image, threshold, shift):
        n_axes = len(shift)
        axes = tuple(range(-n_axes, 0))
        details, average = self._details(jnp.roll(image, shift, axes), n_axes)
        shrunk = _kept(jnp.abs(details), threshold) * details
        return jnp.roll(wavelets.inverse(average + shrunk, n_axes, self.levels), -shift, axes)

    def _details(self, image, n_axes):
        coefficients = wavelets.forward(image, n_axes, self.levels)
        corner = wavelets.averages(image.shape[-n_axes:], self.levels)
        average = jnp.zeros_like(coefficients)
        index = (..., *(slice(n) for n in corner))
        average = average.at[index].set(coefficients[index])
        return coefficients - average, average


def _kept(size, threshold):
    """The share of it that is left of a size that shrinks by `threshold`."""
    return jnp.maximum(1 - threshold / jnp.where(size > 0, size, jnp.inf), 0)


def _series(image, n_axes):
    """One axis of coefficients in front of space."""
    if image.ndim <= n_axes:
        raise ValueError(
            f"a locally low-rank prior needs a series (R, *matrix), got one image of shape {image.shape}; "
            "take Wavelet, or reconstruct several images together"
        )
    return image.reshape(-1, *image.shape[image.ndim - n_axes :])


def _blocks(series, block, n_axes):
    """(R, *matrix) as matrices (blocks, R, voxels of a block), filled up with zeros at the far edges."""
    rank, matrix = series.shape[0], series.shape[1:]
    padded = jnp.pad(series, [(0, 0), *((0, -n % block) for n in matrix)])
    split = padded.reshape(rank, *(size for n in padded.shape[1:] for size in (n // block, block)))
    outer, inner = range(1, 2 * n_axes, 2), range(2, 2 * n_axes + 1, 2)
    return split.transpose(*outer, 0, *inner).reshape(-1, rank, block**n_axes)


def _from_blocks(blocks, shape, block, n_axes):
    counts = [-(-n // block) for n in shape[1:]]
    split = blocks.reshape(*counts, shape[0], *[block] * n_axes)
    order = [n_axes, *(axis for i in range(n_axes) for axis in (i, n_axes + 1 + i))]
    whole = split.transpose(*order).reshape(shape[0], *(n * block for n in counts))
    return whole[(slice(None), *(slice(n) for n in shape[1:]))]


def _singular(blocks):
    """Singular values (blocks, R) and left vectors (blocks, R, R): of the Gram matrix, which is small."""
    squared, vectors = jnp.linalg.eigh(matmul(blocks, blocks.conj().mT))
    return jnp.sqrt(jnp.maximum(squared, 0)), vectors
