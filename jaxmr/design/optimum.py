"""What a search returns, whatever the solver."""

from typing import Any, NamedTuple

import numpy as np

from jaxmr.sequences.sequence import Sequence


class History(NamedTuple):
    """loss: of each step, (n,). parameters: those it belongs to, their leaves (n, ...)."""

    loss: np.ndarray
    parameters: Any


class Found(NamedTuple):
    """Of a solver with a population: the best numbers in 0 ... 1, their loss, the best of each step, why it ended."""

    numbers: np.ndarray
    loss: float
    history: History
    reason: str


class Optimum(NamedTuple):
    """The best that was found.

    parameters: like those given. sequence: what they build. loss: theirs, under a plan made for them. reason: why the
    search ended, "converged" (no more improvement), "steps" (all were taken) or "interrupted" (by Ctrl-C).
    """

    parameters: Any
    sequence: Sequence
    loss: float
    history: History
    reason: str
