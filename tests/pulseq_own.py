"""Fetch PyPulseq's source distribution, run its own tests with the import redirected, keep what was called."""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

# PyPulseq's tests need an older pytest than ours.
OLD_PYTEST = "pytest<9"


def run(*command, **environment):
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=900
    )


def fetch(cache: Path) -> Path:
    """The folder of its tests; skips, or fails in CI, where the distribution cannot be fetched."""
    version = importlib.metadata.version("pypulseq")
    source = cache / f"pypulseq-{version}"
    if not (source / "tests").is_dir():
        options = ("--no-deps", "--no-binary", ":all:", "--dest", str(cache), f"pypulseq=={version}")
        done = run(sys.executable, "-m", "pip", "download", *options)
        if done.returncode:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no source of PyPulseq: {done.stderr}")
        with tarfile.open(cache / f"pypulseq-{version}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    if not (cache / "pytest").is_dir():
        done = run(sys.executable, "-m", "pip", "install", "--target", str(cache / "pytest"), OLD_PYTEST)
        assert done.returncode == 0, done.stderr
    return source / "tests"


def run_redirected(cache: Path, folder: Path, expected: Path) -> tuple[str, Path]:
    """What pytest printed, and the file with the calls."""
    tests = fetch(cache)
    folder = folder / "tests"
    folder.mkdir(parents=True)
    for file in tests.glob("*.py"):
        (folder / file.name).write_text(file.read_text())
    redirect = Path(__file__).with_name("pulseq_redirect.py")
    (folder / "conftest.py").write_text(redirect.read_text())
    (folder / "expected_output").symlink_to(expected)
    options = ("-q", "-rA", "--tb=no", "--continue-on-collection-errors", "-p", "no:cacheprovider", "-k", "not plot")
    path = os.pathsep.join([str(cache / "pytest"), str(Path(__file__).parents[1])])
    record = folder / "calls"
    done = run(
        sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), str(folder),
        PYTHONPATH=path, RECORD=str(record), MPLBACKEND="Agg",
    )  # fmt: skip
    return done.stdout + done.stderr, record
