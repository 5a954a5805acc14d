"""Shapes of a .seq file: run-length coded differences.

The stored numbers are differences of the samples (the first is the first sample itself); two equal numbers in a row
are followed by how often the number comes again. A shape that would not get shorter is stored as it is; since version
1.4 its length, equal to the number of samples, says so.
Reference: the specification of the Pulseq file format, section "Shapes".
"""

import numpy as np

from jaxmr.core.types import Float


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
