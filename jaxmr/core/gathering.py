"""Rows gathered by index, whose transpose gathers too.

JAX transposes a gather to a scatter, which is slow on a CPU. Where each old row goes to one new row at most, the
transpose is a gather by the other index, and known when the first is. Forward, reverse and higher derivatives and
`vmap` hold.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Int

from jaxmr.core.types import Array, Float


def gather(
    values: Float[Array, "rows *rest"], sources: Int[Array, "depth rows"], target: Int[Array, "rows"]
) -> Float[Array, "rows *rest"]:
    """New rows, each the sum of `depth` old ones, row numbers `sources`; an index of `rows` is none.

    target: the new row that each old one is added to, which must agree with `sources`.
    """
    return _gather_p.bind(values, sources, target[None])


def taken(values: Array, index: Int[Array, "n"]) -> Array:
    """Rows of `values`, zeros for an index beyond them."""
    return jnp.take(values, index, axis=0, mode="fill", fill_value=0)


def _evaluate(values, sources, target):
    return sum(taken(values, source) for source in sources)


def _differentiate(primals, tangents):
    _, sources, target = primals
    value = _gather_p.bind(*primals)
    return value, _gather_p.bind(tangents[0], sources, target)


def _transpose(cotangent, values, sources, target):
    if type(cotangent) is ad.Zero:
        return [ad.Zero(values.aval), None, None]
    return [_gather_p.bind(cotangent, target, sources), None, None]


def _map(arguments, dims):
    values, sources, target = arguments
    if dims[1] is None and dims[2] is None:
        # The new axis goes last, where rows are only carried along.
        return _gather_p.bind(jnp.moveaxis(values, dims[0], -1), sources, target), values.ndim - 1
    return jax.vmap(_evaluate, in_axes=dims)(values, sources, target), 0


_gather_p = Primitive("gather_rows")
_gather_p.def_impl(partial(jax.jit(_evaluate)))
_gather_p.def_abstract_eval(lambda values, sources, target: values)
mlir.register_lowering(_gather_p, mlir.lower_fun(_evaluate, multiple_results=False))
ad.primitive_jvps[_gather_p] = _differentiate
ad.primitive_transposes[_gather_p] = _transpose
batching.primitive_batchers[_gather_p] = _map
