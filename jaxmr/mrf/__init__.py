"""MR fingerprinting: dictionaries, their subspaces, matching."""

from jaxmr.mrf import store
from jaxmr.mrf.atoms import dictionary
from jaxmr.mrf.container import Dictionary
from jaxmr.mrf.matching import Match
from jaxmr.mrf.store import Store
from jaxmr.mrf.streaming import match
from jaxmr.mrf.subspace import compress, project, svd_basis

__all__ = ["Dictionary", "Match", "Store", "compress", "dictionary", "match", "project", "store", "svd_basis"]
