"""The house keeps its order: each room imports only from rooms above it, files stay short, imports stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxmr

ROOT = Path(jaxmr.__file__).parent
ROOMS = (
    "core", "units", "objects", "physics", "encoding", "sequences", "pulseq", "models", "learning", "mrf", "recon",
    "networks", "design", "io", "plot", "cli",
)  # fmt: skip
PULSEQ = ("blocks", "live", "seqfile", "conversion", "synthesis", "template", "files", "dropin")
FILES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imported_modules(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "jaxmr":
                names = [f"jaxmr.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("jaxmr."):
                yield name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_up_the_list(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    assert room in ROOMS
    for other in {name.split(".")[1] for name in imported_modules(path)}:
        assert ROOMS.index(other) <= ROOMS.index(room), f"{room} must not import from {other}"


@pytest.mark.parametrize("path", sorted((ROOT / "pulseq").glob("*/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_folders_of_pulseq_import_from_those_before_them(path):
    folder = path.parent.name
    assert folder in PULSEQ
    for name in imported_modules(path):
        if name.startswith("jaxmr.pulseq."):
            other = name.split(".")[2]
            assert PULSEQ.index(other) <= PULSEQ.index(folder), f"{folder} must not import from {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_no_module_shares_its_name_with_a_function_in_it():
    for path in FILES:
        names = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert path.stem not in names, path


def test_import_is_light_and_silent_and_sets_no_flag():
    code = (
        "import sys, jax; before = dict(jax.config.values); import jaxmr as mr\n"
        "assert dict(jax.config.values) == before\n"
        "heavy = {'scipy', 'matplotlib', 'h5py', 'nibabel', 'nilearn', 'tqdm', 'pypulseq'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "for name in mr.__all__: getattr(mr, name)\n"
        "import jax._src.xla_bridge as bridge\n"
        "assert not bridge._backends, 'JAX has started'\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"has no attribute 'simulat'; it has .*simulate"):
        _ = jaxmr.simulat
