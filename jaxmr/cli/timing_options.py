"""The timing of fingerprinting scans on the command line; light, as the parser."""

from typing import Any

from jaxmr.cli.words import milliseconds_or_none

TR, TE, INVERSION_TIME = 12.0, 3.0, 20.0
"""Of the built-in scan, ms."""


def add_inversion_time(group: Any) -> None:
    """The option `--inversion-time` of a group."""
    group.add_argument(
        "--inversion-time",
        metavar="MS|none",
        type=milliseconds_or_none,
        default=INVERSION_TIME,
        help=f"from an ideal inversion to the first pulse, or none (default {INVERSION_TIME:g})",
    )
