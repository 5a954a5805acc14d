"""What the tests of the searches share: a train of a few numbers, its loss, and a Ctrl-C in the midst."""

import jax.numpy as jnp
import numpy as np

import jaxmr as mr
from jaxmr.units import ms

START = {"flip": np.array([0.5, 0.2, 0.4]), "tr": 0.3}


def train(parameters):
    """Three flips and the time between them."""
    return mr.sequences.fisp(parameters["flip"], parameters["tr"], 1 * ms)


def quadratic(sequence, parameters):
    """Least at flips of 1, 0 and 0.3 rad and a time of 0.4 s."""
    return jnp.sum((sequence.segments[0].pulse.flip - jnp.array([1.0, 0.0, 0.3])) ** 2) + (parameters["tr"] - 0.4) ** 2


class InterruptedBar:
    """A progress bar whose update number `last` is a Ctrl-C."""

    def __init__(self, last: int):
        self.left = last

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def set_postfix_str(self, *_, **__):
        pass

    def update(self, *_):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
