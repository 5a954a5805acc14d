"""What ran, how long, how accurate: one screen of text, and the same as JSON."""

import datetime
import json
import os
from pathlib import Path
from typing import Any

from jaxmr.cli.info import devices, versions
from jaxmr.core.files import whole

UNITS = {"t1": (1e3, "ms"), "t2": (1e3, "ms"), "b0": (1.0, "Hz")}
"""Factor and unit in which a parameter is told."""


def report(command: str, **facts: Any) -> dict[str, Any]:
    """`facts` beside command, date, versions and devices."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"command": command, "date": now, "versions": versions(), "devices": devices(), **facts}


def write(path: str | os.PathLike, report: dict[str, Any]) -> None:
    """Write a report as JSON."""
    with whole(path) as partial:
        Path(partial).write_text(json.dumps(report, indent=1) + "\n")


def text(report: dict[str, Any]) -> str:
    """A report for the terminal: what `ran`, `seconds`, then `accuracy` or `precision` and `notes` if there are."""
    lines = [f"jaxmr {report['versions']['jaxmr']} {report['command']} on {report['devices']}"]
    lines += [f"  {name:11} {told}" for name, told in report["ran"].items()]
    lines += [f"  {'time':11} {_times(report['seconds'])}"]
    if "precision" in report:
        lines += _precision(report["precision"])
    if "accuracy" in report:
        lines += _accuracy(report["accuracy"])
    return "\n".join([*lines, *(f"note: {note}" for note in report.get("notes", ()))])


def _times(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {duration:.1f} s" for name, duration in seconds.items()) + " (compilation included)"


def _accuracy(scores: dict[str, dict[str, float]]) -> list[str]:
    lines = ["", "without noise, in voxels of one tissue    median |error|    within half a grid step"]
    for name, score in scores.items():
        inside = f"{100 * score['within_half_step']:.1f} %" if "within_half_step" in score else ""
        lines.append(f"  {name.upper():40}{_error(name, score['median_error']):>14}{inside:>27}".rstrip())
    return lines


def _precision(scores: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    lines = ["", "with noise, in voxels of purity > 0.99  true    median |error|      spread (std)    Cramér-Rao bound"]
    for tissue, parameters in scores.items():
        for name, score in parameters.items():
            factor, unit = UNITS.get(name, (1.0, ""))
            true, spread, bound = (f"{factor * score[key]:.4g} {unit}".strip() for key in ("true", "spread", "bound"))
            label = f"{tissue:24} {name.upper():4}"
            lines.append(f"  {label}{true:>13}{_error(name, score['median_error']):>18}{spread:>18}{bound:>20}")
    return lines


def _error(name: str, error: float) -> str:
    return f"{error:.2g} Hz" if name == "b0" else f"{100 * error:.2g} %"
