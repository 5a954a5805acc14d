r"""The sum behind every non-uniform Fourier transform, as one JAX primitive.

    to_samples:  s_j = sum_n x_n exp(sign i n.w_j)        to_image:  x_n = sum_j s_j exp(sign i n.w_j)

n counts voxels from the centre, -(N // 2) ... along each axis; w is in radians per voxel. The two are each other's
transposes, and a derivative in w is the same sum over n x_n: the rules below state this once for every method of
evaluating it, so that forward, reverse and higher derivatives and `vmap` hold whatever the method is. (A custom
rule of a function will not do: it cannot be mapped and transposed both; jax-finufft's own `vmap` fails.)
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxmr.encoding import exact, gridding

METHODS = ("finufft", "gridding", "exact")


def to_samples(image, w, *, sign: int, method: str, tolerance: float):
    """Images `(batch, *matrix)` at points w `(n, n_axes)`, one column per image axis, as samples `(batch, n)`."""
    return _to_samples_p.bind(image, w, matrix=image.shape[1:], sign=sign, method=method, tolerance=tolerance)


def to_image(samples, w, matrix: tuple[int, ...], *, sign: int, method: str, tolerance: float):
    """Samples `(batch, n)` at points w `(n, n_axes)` summed into images `(batch, *matrix)`."""
    return _to_image_p.bind(samples, w, matrix=tuple(matrix), sign=sign, method=method, tolerance=tolerance)


def voxel_numbers(size: int) -> np.ndarray:
    """Integers n of the voxels of an axis, 0 at the centre."""
    return np.arange(size) - size // 2


def _finufft(values, w, *, matrix, sign, tolerance, to_samples):
    # Imported here, because pydantic and the library take a second to load.
    from jax_finufft import nufft1, nufft2

    # Less than this it cannot reach, and warns.
    tolerance = max(tolerance, 4e-7 if values.dtype == jnp.complex64 else 1e-14)
    points = tuple(w.T)
    if to_samples:
        return nufft2(values, *points, iflag=sign, eps=tolerance)
    return nufft1(matrix, values, *points, iflag=sign, eps=tolerance)


def _evaluate(values, w, *, matrix, sign, method, tolerance, to_samples):
    if w.shape[0] == 0 or 0 in values.shape or 0 in matrix:
        shape = (w.shape[0],) if to_samples else matrix
        return jnp.zeros((values.shape[0], *shape), values.dtype)
    if method == "finufft":
        return _finufft(values, w, matrix=matrix, sign=sign, tolerance=tolerance, to_samples=to_samples)
    if method == "gridding":
        function = gridding.to_samples if to_samples else gridding.to_image
        return function(values, w, matrix, sign, tolerance)
    function = exact.to_samples if to_samples else exact.to_image
    return function(values, w, matrix, sign)


def _shape_of_samples(image, w, *, matrix, **_):
    return image.update(shape=(image.shape[0], w.shape[0]))


def _shape_of_image(samples, w, *, matrix, **_):
    return samples.update(shape=(samples.shape[0], *matrix))


def _numbers_along(axis, matrix, dtype):
    """n along one axis of `(batch, *matrix)`, ready to multiply."""
    shape = [1] * (1 + len(matrix))
    shape[1 + axis] = -1
    return jnp.asarray(voxel_numbers(matrix[axis]), dtype).reshape(shape)


def _differentiate(primitive, primals, tangents, *, matrix, sign, **params):
    values, w = primals
    d_values, d_w = tangents
    bind = partial(primitive.bind, matrix=matrix, sign=sign, **params)
    out = bind(values, w)
    terms = []
    if type(d_values) is not ad.Zero:
        terms.append(bind(d_values, w))
    if type(d_w) is not ad.Zero:
        batch, axes = values.shape[0], range(len(matrix))
        numbers = [1j * sign * _numbers_along(axis, matrix, w.dtype) for axis in axes]
        # All axes in one call: sorting the points is the greater part of the work.
        if primitive is _to_samples_p:
            moments = bind(jnp.concatenate([number * values for number in numbers]), w)
            terms += [d_w[None, :, a] * moments[a * batch : (a + 1) * batch] for a in axes]
        else:
            moments = bind(jnp.concatenate([d_w[None, :, a] * values for a in axes]), w)
            terms += [numbers[a] * moments[a * batch : (a + 1) * batch] for a in axes]
    return out, sum(terms[1:], terms[0])


def _transpose(other, cotangent, values, w, **params):
    assert not ad.is_undefined_primal(w)
    if type(cotangent) is ad.Zero:
        return [ad.Zero(values.aval), None]
    return [other.bind(cotangent, w, **params), None]


def _map(primitive, args, dims, **params):
    values, w = args
    values_dim, w_dim = (dim if isinstance(dim, int) else None for dim in dims)
    if values_dim is not None:
        values = jnp.moveaxis(values, values_dim, 0)
    if w_dim is None:
        n, batch = values.shape[:2]
        out = primitive.bind(values.reshape(n * batch, *values.shape[2:]), w, **params)
        return out.reshape(n, batch, *out.shape[1:]), 0
    w = jnp.moveaxis(w, w_dim, 0)
    if values_dim is None:
        return jax.lax.map(lambda w: primitive.bind(values, w, **params), w), 0
    return jax.lax.map(lambda both: primitive.bind(*both, **params), (values, w)), 0


def _primitive(name, shape, to_samples):
    primitive = Primitive(name)
    evaluate = partial(_evaluate, to_samples=to_samples)
    primitive.def_impl(jax.jit(evaluate, static_argnames=("matrix", "sign", "method", "tolerance")))
    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(evaluate, multiple_results=False))
    ad.primitive_jvps[primitive] = partial(_differentiate, primitive)
    batching.primitive_batchers[primitive] = partial(_map, primitive)
    return primitive


_to_samples_p = _primitive("nonuniform_to_samples", _shape_of_samples, to_samples=True)
_to_image_p = _primitive("nonuniform_to_image", _shape_of_image, to_samples=False)
ad.primitive_transposes[_to_samples_p] = partial(_transpose, _to_image_p)
ad.primitive_transposes[_to_image_p] = partial(_transpose, _to_samples_p)
