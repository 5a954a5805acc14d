"""Judging and designing sequences."""

from jaxmr.design.fisher import crlb, fisher_information

__all__ = ["crlb", "fisher_information"]
