"""Surrogates of EPG-Bloch that learn from its signals: a recurrent network, and few trained sub-slices."""

from jaxmr.mrf.surrogate.nodes import trained_nodes, trained_nodes_card
from jaxmr.mrf.surrogate.rnn import RNN, card, load

__all__ = ["RNN", "card", "load", "trained_nodes", "trained_nodes_card"]
