"""Shapes of a .seq file: run-length coded differences.

The stored numbers are differences of the samples (the first is the first sample itself); two equal numbers in a row
are followed by how often the number comes again. A shape that would not get shorter is stored as it is; since version
1.4 its length, equal to the number of samples, says so.
Reference: the specification of the Pulseq file format, section "Shapes".
"""

import numpy as np

from jaxmr.core.types import Float

STEP = 1e-9
"""Samples are rounded to multiples of this before their differences are taken, so that equal slopes are equal."""


def decompressed(stored: Float[np.ndarray, " m"], n_samples: int) -> Float[np.ndarray, " n"]:
    """The samples of a compressed shape; a `ValueError` unless it holds `n_samples` of them."""
    repeats = np.ones(len(stored), np.int64)
    position = 0
    for pair in np.flatnonzero(stored[1:] == stored[:-1]).tolist():
        if pair < position:  # its first number belongs to the run before
            continue
        count = float(stored[pair + 2]) if pair + 2 < len(stored) else -1.0
        if not (0 <= count <= n_samples and count.is_integer()):
            raise ValueError("the compressed shape has a pair of equal numbers that no number of repetitions follows")
        repeats[pair : pair + 3] = int(count) + 2, 0, 0
        position = pair + 3
    found = int(repeats.sum())
    if found != n_samples:
        raise ValueError(f"the shape should have {n_samples} samples, but its compressed numbers make {found}")
    return np.cumsum(np.repeat(stored, repeats))


def compressed(samples: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """The numbers to store: run-length coded differences, or the samples, rounded to 1e-12, where those are fewer."""
    quanta = np.rint(samples / STEP)
    steps = np.diff(quanta, prepend=0.0)
    starts = np.flatnonzero(np.diff(steps, prepend=np.nan) != 0)
    lengths = np.diff(starts, append=len(steps))
    runs = lengths > 1
    stored = np.repeat(steps[starts] * STEP, 1 + 2 * runs)
    stored[np.cumsum(1 + 2 * runs)[runs] - 1] = lengths[runs] - 2
    # short shapes and those whose steps need more than 15 digits stay as they are
    pays = len(samples) > 4 and len(stored) < len(samples) and bool(np.abs(quanta).max() < 1e15)
    return stored if pays else np.round(samples, 12)
