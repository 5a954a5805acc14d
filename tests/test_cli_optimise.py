"""`jaxmr optimise` as its users start it: a Pulseq file, a figure and a summary."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import jaxmr as mr
from jaxmr.__main__ import main
from jaxmr.cli.parser import command_line
from jaxmr.pulseq.conversion.segments import to_sequence
from jaxmr.pulseq.seqfile.reading import load
from jaxmr.sequences import Pulse, duration


def optimised(folder: Path, *arguments: str) -> tuple[dict, mr.sequences.Sequence]:
    """The summary, and the Pulseq file as it is read back."""
    assert main(["optimise", *arguments, "--phantom", "procedural", "--out", str(folder)]) == 0
    assert (folder / "optimise.png").stat().st_size > 10_000
    return json.loads((folder / "summary.json").read_text()), to_sequence(load(folder / "optimised.seq").blocks)


def test_fluid_suppression(tmp_path, capsys):
    told, scan = optimised(tmp_path, "fluid-suppression", "--voxels", "16", "--start", "2500", "--steps", "4")
    assert "fluid-suppression, 64 x 64 pixels on 212.8 mm" in capsys.readouterr().out
    found = told["found"]
    assert found["t1_ln2"] == pytest.approx(4.3 * math.log(2))
    assert found["inversion_time"] == pytest.approx(found["t1_ln2"], rel=0.1)
    assert told["parameters"]["inversion_time"] == found["inversion_time"]
    assert told["loss"][0] > 2 * min(told["loss"])
    # The file holds that inversion time: from the centre of the first pulse to the centre of the second.
    first = scan.segments[0]
    assert sum(float(event.duration) for event in first.events) == pytest.approx(found["inversion_time"], abs=1e-5)
    assert scan.n_echoes == 64**2
    assert float(duration(scan)) > found["inversion_time"]


@pytest.mark.slow
def test_tse_sar(tmp_path):
    told, scan = optimised(tmp_path, "tse-sar", "--voxels", "16", "--steps", "3", "--weight", "0.1")
    assert len(told["loss"]) == 3
    assert 0.8 < told["found"]["sar"] < 1
    flips = np.concatenate([np.ravel(part.pulse.flip) for part in scan.segments if isinstance(part.pulse, Pulse)])
    wanted = np.concatenate([np.ravel(leaf) for leaf in told["parameters"].values()])
    assert np.sum(flips**2) == pytest.approx(np.sum(wanted**2), rel=1e-4)


def test_an_error_is_one_line(tmp_path, capsys):
    np.savez(tmp_path / "volume.npz", t1=np.ones((2, 3, 3)), t2=np.ones((2, 3, 3)) / 9, voxel_size=np.full(3, 4e-3))
    status = main(["optimise", "tse-sar", "--phantom", str(tmp_path / "volume.npz"), "--out", str(tmp_path / "o")])
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        command_line().parse_args(["optimise", "--help"])
    assert "jaxmr optimise fluid-suppression --out flair/" in capsys.readouterr().out
