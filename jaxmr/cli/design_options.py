"""The options of `jaxmr design`; light, as the parser."""

import argparse

from jaxmr.cli.timing_options import TE, TR, add_inversion_time
from jaxmr.cli.words import steps, tissue, weight


def add_design(command: argparse.ArgumentParser) -> None:
    """Add them."""
    command.add_argument(
        "--tissues", metavar="T1/T2", type=tissue, nargs="+", required=True, help="ms, one or several: 900/85 500/65"
    )
    command.add_argument(
        "--b1", metavar="LOW:HIGH:COUNT", type=steps, help="transmit fields that count alike, relative: 0.8:1.2:3"
    )
    scan = command.add_argument_group("scan", "Gradient-spoiled FISP, of its own or a --schedule to improve.")
    scan.add_argument("--pulses", metavar="N", type=int, help="number of pulses")
    scan.add_argument("--tr", metavar="MS", type=float, help=f"repetition time, such as {TR:g}")
    scan.add_argument("--te", metavar="MS", type=float, help=f"echo time, such as {TE:g}")
    scan.add_argument("--schedule", metavar="FILE", help="as for jaxmr dictionary; its TR and TE are kept")
    add_inversion_time(scan)
    limits = command.add_argument_group("train and limits")
    limits.add_argument(
        "--train",
        choices=("spline", "b-spline", "free"),
        default="spline",
        help="spline (default): cubic, through (0, 0) and --points; b-spline: without overshoot; free: each flip",
    )
    limits.add_argument("--points", metavar="N", type=int, default=11, help="of a spline (default 11)")
    limits.add_argument(
        "--max-flip", metavar="DEGREES", type=float, default=90.0, help="flips are 0 ... this (default 90)"
    )
    limits.add_argument(
        "--rms-flip", metavar="DEGREES", type=float, help="limit of the root mean square of all flips, for SAR"
    )
    limits.add_argument(
        "--smoothness",
        metavar="WEIGHT",
        type=float,
        default=0.0,
        help="of the squared second differences of the flips (rad^2) in the loss (default 0)",
    )
    search = command.add_argument_group("search")
    search.add_argument(
        "--objective",
        choices=("mean", "worst"),
        default="mean",
        help="mean (default) or largest over tissues and transmit fields of the weighted bounds, each relative to the "
        "squared parameter, M0 unknown",
    )
    search.add_argument(
        "--weights", metavar="NAME=WEIGHT", type=weight, nargs="+", help="of t1, t2, b1, m0 (default t1=1 t2=1)"
    )
    search.add_argument(
        "--solver",
        choices=("gradient", "differential-evolution"),
        default="gradient",
        help="gradient (default): descent from --starts side by side; differential-evolution: of --members",
    )
    search.add_argument(
        "--starts",
        metavar="N",
        type=int,
        default=6,
        help="the first train and others (default 6); half go on after 16 steps",
    )
    search.add_argument("--members", metavar="N", type=int, default=10, help="for each number sought (default 10)")
    search.add_argument("--steps", metavar="N", type=int, help="at most (default 200, of evolution 1000)")
    search.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
