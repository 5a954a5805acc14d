"""Judging and designing sequences."""

from jaxmr.design import constraints, distributions, losses, objectives, parametrisations
from jaxmr.design.evolution import DifferentialEvolution
from jaxmr.design.fisher import crlb, fisher_information
from jaxmr.design.multistart import MultiStart
from jaxmr.design.optimum import History, Optimum
from jaxmr.design.search import optimise

__all__ = [
    "DifferentialEvolution",
    "History",
    "MultiStart",
    "Optimum",
    "constraints",
    "crlb",
    "distributions",
    "fisher_information",
    "losses",
    "objectives",
    "optimise",
    "parametrisations",
]
