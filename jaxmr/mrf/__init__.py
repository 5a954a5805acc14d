"""MR fingerprinting: dictionaries, their subspaces, matching."""

from jaxmr.mrf.atoms import dictionary
from jaxmr.mrf.container import Dictionary
from jaxmr.mrf.matching import Match, match
from jaxmr.mrf.subspace import compress, project, svd_basis

__all__ = ["Dictionary", "Match", "compress", "dictionary", "match", "project", "svd_basis"]
