r"""How well a sequence determines a tissue: Fisher information and the Cramér-Rao bound.

With complex Gaussian noise of standard deviation `noise_std` in each of the real and the imaginary part, the
Fisher information of real parameters is Re(J^H J) / noise_std^2, J the derivatives of the signal; no unbiased
estimator has a smaller variance than the diagonal of its inverse. Zhao et al., IEEE TMI 38:844 (2019).
"""

from collections.abc import Sequence as Names

import jax.numpy as jnp

from jaxmr.core.information import smallest_variances
from jaxmr.core.types import Array, Float
from jaxmr.models import Model, simulate_with_jacobian
from jaxmr.objects.tissue import Tissue
from jaxmr.sequences.sequence import Sequence


def fisher_information(
    sequence: Sequence, tissue: Tissue, wrt: Names[str], model: Model, noise_std: float | Float[Array, ""] = 1.0
) -> Float[Array, "*batch p p"]:
    """Information on the tissue's parameters `wrt`, in inverse SI units squared."""
    _, jacobian = simulate_with_jacobian(sequence, tissue, model, wrt)
    parts = jnp.concatenate([jacobian.real, jacobian.imag], axis=-1)
    return jnp.einsum("...pn,...qn->...pq", parts, parts, precision="highest") / noise_std**2


def crlb(
    sequence: Sequence, tissue: Tissue, wrt: Names[str], model: Model, noise_std: float | Float[Array, ""] = 1.0
) -> Float[Array, "*batch p"]:
    """Smallest variance of each parameter of `wrt` when all of them are unknown, `m0` being real.

    In SI units squared; inf where the signal does not determine a parameter. noise_std: of each of the real and
    the imaginary part of a sample, in units of the signal.
    """
    return smallest_variances(fisher_information(sequence, tissue, wrt, model, noise_std))
