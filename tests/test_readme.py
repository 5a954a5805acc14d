"""The README runs: its example, its commands, its names."""

import re
from pathlib import Path

import pytest

import jaxmr as mr

README = (Path(__file__).parents[1] / "README.md").read_text()


EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def printed_by(example: str, capsys) -> str:
    exec(compile(example, "README.md", "exec"), {})
    return capsys.readouterr().out


@pytest.mark.filterwarnings("error")
def test_the_first_example_finds_the_tissue(capsys):
    found = re.match(r"T1 ([\d.]+) s, T2 ([\d.]+) ms", printed_by(EXAMPLES[0], capsys))
    assert found is not None
    assert abs(float(found[1]) - 0.84) < 0.005
    assert abs(float(found[2]) - 70) < 0.5


@pytest.mark.filterwarnings("error")
def test_the_second_example_scans_a_head(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = re.match(r"(\d+) of 1024 pixels are head", printed_by(EXAMPLES[1], capsys))
    assert found is not None
    assert 300 < int(found[1]) < 600
    assert mr.io.read_raw("raw.h5").kspace.shape == (1, 1024)
    assert Path("scan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
def test_the_last_example_maps_a_head(capsys):
    found = re.match(r"median T1 (\d+) ms, misfit ([\d.e-]+)", printed_by(EXAMPLES[3], capsys))
    assert found is not None
    assert 500 < int(found[1]) < 2500
    assert float(found[2]) < 0.02


def test_the_two_commands_stand_at_the_top():
    top = README[: README.index("## ")]
    assert "pip install uv && uv run --extra brain jaxmr fingerprint --out out/" in top
    assert "pip install uv && uv run pytest" in top


def test_every_name_in_the_table_exists():
    names = set(re.findall(r"mr\.([a-zA-Z_.0-9]+)", README))
    assert len(names) >= 20
    for name in names:
        value = mr
        for part in name.rstrip(".").split("."):
            value = getattr(value, part)
