"""`jaxmr design` as its users start it: a schedule that the other commands read, a figure, a summary, and going on."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxmr.__main__ import main
from jaxmr.cli.parser import command_line
from jaxmr.sequences import trains
from jaxmr.units import deg

SMALL = ("--tissues", "900/85", "500/65", "--model", "epg", "--tolerance", "1e-2", "--starts", "2")
OWN = ("--pulses", "40", "--tr", "8.7", "--te", "4.9", "--inversion-time", "0", "--points", "5")


def designed(folder: Path, *arguments: str) -> tuple[dict, trains.Schedule]:
    assert main(["design", *arguments, "--out", str(folder)]) == 0
    assert (folder / "design.png").stat().st_size > 10_000
    return json.loads((folder / "summary.json").read_text()), trains.read(folder / "train.csv")


def test_a_design_is_a_schedule(tmp_path, capsys):
    told, schedule = designed(tmp_path, *SMALL, *OWN, "--steps", "25")
    assert "T1/T2 900/85 ms, T1/T2 500/65 ms" in capsys.readouterr().out
    found = told["found"]
    assert found["objective"] < 0.5 * found["objective_before"]
    flips = np.asarray(schedule.flip)
    assert flips.shape == (40,)
    assert flips.min() >= 0
    assert flips.max() <= 90 * deg * (1 + 1e-6)
    assert np.isclose(flips.max() / deg, found["largest_flip_deg"], atol=1e-3)
    assert np.allclose(schedule.tr, 8.7e-3)
    assert np.allclose(schedule.te, 4.9e-3)
    assert len(told["relative_std"]["after"]) == 4
    signals = tmp_path / "signals.csv"
    simulate = ["simulate", "--schedule", str(tmp_path / "train.csv"), "--inversion-time", "0"]
    assert main([*simulate, "--t1", "900", "--t2", "85", "--model", "epg", "--out", str(signals)]) == 0
    assert np.loadtxt(signals, delimiter=",", skiprows=1).shape == (40, 3)


def test_it_goes_on_where_it_stopped(tmp_path):
    through, _ = designed(tmp_path / "through", *SMALL, *OWN, "--steps", "14")
    first, _ = designed(tmp_path / "twice", *SMALL, *OWN, "--steps", "6")
    resumed, schedule = designed(tmp_path / "twice", *SMALL, *OWN, "--steps", "14")
    assert len(first["loss"]) == 6
    assert resumed["loss"] == through["loss"]
    assert np.array_equal(schedule.flip, trains.read(tmp_path / "through" / "train.csv").flip)


def test_another_problem_does_not_go_on(tmp_path, capsys):
    designed(tmp_path, *SMALL, *OWN, "--steps", "2")
    assert main(["design", *SMALL, *OWN, "--steps", "2", "--max-flip", "60", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "is of another search" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("train", ["b-spline", "free"])
def test_limits_hold(tmp_path, train):
    """A schedule to improve, its times kept; worst case over transmit fields; flips and their power limited."""
    given = tmp_path / "given.csv"
    rows = np.column_stack([np.linspace(5, 40, 30), np.linspace(9, 11, 30), np.full(30, 4.0)])
    np.savetxt(given, rows, delimiter=",", header="flip,tr,te", comments="")
    told, schedule = designed(
        tmp_path / "out", *SMALL, "--schedule", str(given), "--train", train, "--points", "6", "--b1", "0.9:1.1:2",
        "--objective", "worst", "--max-flip", "50", "--rms-flip", "25", "--smoothness", "0.1", "--steps", "12",
        "--weights", "t1=1", "t2=2",
    )  # fmt: skip
    flips = np.asarray(schedule.flip) / deg
    assert flips.max() <= 50 * (1 + 1e-6)
    assert np.sqrt(np.mean(flips**2)) <= 25 * (1 + 1e-6)
    assert np.allclose(schedule.tr, rows[:, 1] * 1e-3)
    assert told["found"]["objective"] < told["found"]["objective_before"]


def test_evolution(tmp_path):
    options = ("--solver", "differential-evolution", "--members", "3", "--steps", "4")
    told, _ = designed(tmp_path, *SMALL, *OWN, *options)
    assert len(told["loss"]) == 5
    assert told["loss"][-1] <= told["loss"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tissues", "85/900", *OWN), "argument --tissues: invalid tissue value: '85/900'"),
        (("--tissues", "900/85", "--pulses", "9"), "design needs --pulses, --tr and --te, or a --schedule"),
        (("--tissues", "900/85", *OWN, "--max-flip", "-1"), "--max-flip must be a positive angle"),
        (("--tissues", "900/85", *OWN[:-1], "99"), "--points must be 2"),
    ],
)
def test_an_error_is_one_line(tmp_path, capsys, arguments, message):
    assert main(["design", *arguments, "--model", "epg", "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        command_line().parse_args(["design", "--help"])
    assert "jaxmr simulate --schedule design/train.csv" in capsys.readouterr().out
