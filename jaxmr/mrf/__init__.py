"""MR fingerprinting: dictionaries, their subspaces, matching, and the scan of a phantom."""

from jaxmr.mrf import store, surrogate
from jaxmr.mrf.acquisition import acquire, add_noise, sample_series
from jaxmr.mrf.atoms import dictionary
from jaxmr.mrf.container import Dictionary
from jaxmr.mrf.matching import Match
from jaxmr.mrf.store import Store
from jaxmr.mrf.streaming import match
from jaxmr.mrf.subspace import compress, project, svd_basis
from jaxmr.mrf.surrogate import trained_nodes

__all__ = [
    "Dictionary",
    "Match",
    "Store",
    "acquire",
    "add_noise",
    "compress",
    "dictionary",
    "match",
    "project",
    "sample_series",
    "store",
    "surrogate",
    "svd_basis",
    "trained_nodes",
]
