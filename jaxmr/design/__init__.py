"""Judging and designing sequences."""

from jaxmr.design import losses
from jaxmr.design.fisher import crlb, fisher_information
from jaxmr.design.search import History, Optimum, optimise

__all__ = ["History", "Optimum", "crlb", "fisher_information", "losses", "optimise"]
