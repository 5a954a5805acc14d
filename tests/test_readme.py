"""The README runs: its example, its commands, its names."""

import re
from pathlib import Path

import pytest

import jaxmr as mr

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.filterwarnings("error")
def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    found = re.match(r"T1 ([\d.]+) s, T2 ([\d.]+) ms", capsys.readouterr().out)
    assert found is not None
    assert abs(float(found[1]) - 0.84) < 0.005
    assert abs(float(found[2]) - 70) < 0.5


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
