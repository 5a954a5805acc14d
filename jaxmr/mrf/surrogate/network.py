"""The recurrent network of Liu et al. (NMR Biomed 2021): three stacked GRUs that learn how a pulse changes the signal.

Pulse by pulse it takes the tissue (log T1, log T2) and what is played (TR, TE, flip), and gives the transverse
signal with its derivatives by log T1 and log T2. Voxels lie on the last axis, as in the states of the exact models.
"""

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from jaxmr.core.products import matmul
from jaxmr.core.types import Array, Float, Leaf

N_HIDDEN, N_LAYERS = 32, 3
"""As in the paper."""
LONGEST_MEMORY = 200.0
"""Pulses over which the slowest units remember at first: about T1 = 2 s at the shortest repetition times."""


@final
class GRU(eqx.Module):
    r"""A gated recurrent unit with two biases a gate, rows in the order reset, update, candidate.

    $r = \\sigma(a_r + b_r)$, $z = \\sigma(a_z + b_z)$, $n = \\tanh(a_n + r b_n)$, $h' = n + z (h - n)$, of the input
    $a = W x + c$ and the memory $b = U h + d$. Cho et al., EMNLP 2014; reset after the product, as in cuDNN.
    """

    inputs: Float[Array, "gates n_inputs"]
    input_bias: Float[Array, "gates"]
    recurrent: Float[Array, "gates hidden"]
    recurrent_bias: Float[Array, "gates"]

    def drive(self, x: Float[Array, "n_inputs voxels"]) -> Float[Array, "gates voxels"]:
        """What the input asks of the gates, $a$."""
        return matmul(self.inputs, x) + self.input_bias[:, None]

    def update(
        self, hidden: Float[Array, "hidden voxels"], drive: Float[Array, "gates voxels"]
    ) -> Float[Array, "hidden voxels"]:
        """The hidden states after one pulse."""
        memory = matmul(self.recurrent, hidden) + self.recurrent_bias[:, None]
        n = hidden.shape[0]
        reset, update = jax.nn.sigmoid(drive[:n] + memory[:n]), jax.nn.sigmoid(drive[n : 2 * n] + memory[n : 2 * n])
        candidate = jnp.tanh(drive[2 * n :] + reset * memory[2 * n :])
        return candidate + update * (hidden - candidate)


Hidden = tuple[Float[Array, "hidden voxels"], ...]


@final
class Network(eqx.Module):
    """Stacked GRUs after one linear layer from the initial magnetisation, before a linear read-out."""

    layers: tuple[GRU, ...]
    initial: Float[Array, "hidden 3"]
    initial_bias: Float[Array, "hidden"]
    readout: Float[Array, "3 hidden"]
    readout_bias: Float[Array, "3"]

    def start(self, magnetisation: Float[Array, "3 voxels"]) -> Hidden:
        """Hidden states of all layers before the first pulse."""
        return (matmul(self.initial, magnetisation) + self.initial_bias[:, None],) * len(self.layers)

    def run(
        self, hidden: Hidden, tissue: Float[Array, "2 voxels"], played: Float[Array, "n 3 #voxels"]
    ) -> tuple[Hidden, Float[Array, "n 3 voxels"]]:
        """Hidden states after n pulses, and at each of them the signal and its two derivatives.

        tissue, played: scaled as `scaled_tissue` and `scaled_pulses` do. Reverse mode computes the gates again: it
        keeps the hidden states only, and takes three quarters of the time.
        """
        first, *others = self.layers
        constant = matmul(first.inputs[:, :2], tissue) + first.input_bias[:, None]

        def pulse(hidden, played):
            after = [first.update(hidden[0], constant + matmul(first.inputs[:, 2:], played))]
            for layer, states in zip(others, hidden[1:], strict=True):
                after.append(layer.update(states, layer.drive(after[-1])))
            return tuple(after), after[-1]

        hidden, last = jax.lax.scan(jax.checkpoint(pulse, prevent_cse=False), hidden, played)
        signals = jnp.einsum("oh,nhv->nov", self.readout, last, precision="highest")
        return hidden, signals + self.readout_bias[None, :, None]


def scaled_tissue(t1: Float[Leaf, "voxels"], t2: Float[Leaf, "voxels"]) -> Float[Array, "2 voxels"]:
    """log T1 and log T2, the trained range of each as about -1 ... 1. Times in s."""
    return jnp.stack([(jnp.log(t1) + 0.347) / 1.956, (jnp.log(t2) + 1.956) / 2.649])


def scaled_pulses(
    tr: Float[Leaf, "n #voxels"], te: Float[Leaf, "n #voxels"], flip: Float[Leaf, "n #voxels"]
) -> Float[Array, "n 3 #voxels"]:
    """Repetition and echo times (s) and flips (rad), each about -1 ... 1."""
    parts = jnp.broadcast_arrays((tr - 12.5e-3) / 7.5e-3, (te - 6.25e-3) / 4.75e-3, flip / 1.2566 - 1)
    return jnp.stack(parts, axis=1)


def untrained(key: PRNGKeyArray) -> Network:
    """A network to begin with: uniform inputs, orthogonal memory, and units that remember from 1 to 200 pulses.

    Tallec & Ollivier, "Can recurrent neural networks warp time?", ICLR 2018.
    """
    single = jnp.float32
    keys = iter(jax.random.split(key, 4 * N_LAYERS + 2))
    uniform = jax.nn.initializers.glorot_uniform(in_axis=-1, out_axis=-2)
    orthogonal = jax.nn.initializers.orthogonal()
    layers, n_inputs = [], 5
    for _ in range(N_LAYERS):
        inputs = uniform(next(keys), (3 * N_HIDDEN, n_inputs), single)
        parts = jax.random.split(next(keys), 3)
        recurrent = jnp.concatenate([orthogonal(part, (N_HIDDEN, N_HIDDEN), single) for part in parts])
        spans = jax.random.uniform(next(keys), (N_HIDDEN,), single, minval=1.0, maxval=LONGEST_MEMORY - 1)
        bias = jnp.zeros(3 * N_HIDDEN, single).at[N_HIDDEN : 2 * N_HIDDEN].set(jnp.log(spans))
        layers.append(GRU(inputs, bias, recurrent, jnp.zeros(3 * N_HIDDEN, single)))
        n_inputs = N_HIDDEN
    return Network(
        tuple(layers),
        uniform(next(keys), (N_HIDDEN, 3), single),
        jnp.zeros(N_HIDDEN, single),
        uniform(next(keys), (3, N_HIDDEN), single),
        jnp.zeros(3, single),
    )
