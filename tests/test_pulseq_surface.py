"""The drop-in offers what PyPulseq offers, with the same signatures, and is PyPulseq for plain numbers."""

import importlib
import inspect
import subprocess
import sys
from types import FunctionType, ModuleType

import pypulseq
import pytest

import jaxmr.pulseq as pp

PUBLIC = [name for name in dir(pypulseq) if not name.startswith("_")]
FUNCTIONS = [name for name in PUBLIC if isinstance(getattr(pypulseq, name), FunctionType)]


def run(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_offered(name):
    theirs, ours = getattr(pypulseq, name), getattr(pp, name)
    if isinstance(theirs, ModuleType):
        assert ours.__name__ == theirs.__name__
    elif callable(theirs):
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert ours.__doc__ == theirs.__doc__ or name == "Sequence"
    else:
        assert ours == theirs


def test_there_are_functions_to_compare():
    assert len(FUNCTIONS) > 30
    assert "make_trapezoid" in FUNCTIONS


def test_sequence_is_a_pypulseq_sequence_with_the_same_methods():
    assert issubclass(pp.Sequence, pypulseq.Sequence)
    for name, method in inspect.getmembers(pypulseq.Sequence, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(pp.Sequence, name)) == inspect.signature(method), name


def test_submodules_are_reached_by_attribute():
    assert pp.opts.Opts is pypulseq.Opts is pp.Opts
    assert pp.event_lib.EventLibrary is pypulseq.event_lib.EventLibrary
    assert pp.eps == pypulseq.eps


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="make_trapezium"):
        _ = pp.make_trapezium


def test_importing_jaxmr_does_not_import_pypulseq_and_its_absence_names_the_remedy():
    run(
        "import sys, jaxmr, jaxmr.pulseq\n"
        "assert 'pypulseq' not in sys.modules\n"
        "sys.modules['pypulseq'] = None\n"
        "try:\n    jaxmr.pulseq.make_delay\n"
        "except ImportError as error:\n    assert 'pip install jaxmr[pulseq]' in str(error), error\n"
        "else:\n    raise AssertionError\n"
    )


def test_submodules_are_imported_by_name_and_hide_no_function():
    run(
        "from jaxmr.pulseq.Sequence.sequence import Sequence\n"
        "from jaxmr.pulseq.make_delay import make_delay\n"
        "import jaxmr.pulseq.utils.tracing\n"
        "import sys, jaxmr.pulseq as pp, pypulseq\n"
        "assert Sequence is pp.Sequence and issubclass(pp.Sequence, pypulseq.Sequence)\n"
        "assert make_delay is pp.make_delay\n"
        "copies = [name for name in sys.modules if name.startswith('jaxmr.pulseq.')]\n"
        "assert not any(sys.modules[name].__dict__.get('make_delay') for name in copies)\n"
    )


@pytest.mark.parametrize("name", ["make_trapezium", "Sequence.sequins", "tracings"])
def test_an_unknown_submodule_is_an_import_error(name):
    with pytest.raises(ModuleNotFoundError, match=f"'jaxmr.pulseq.{name}'"):
        importlib.import_module(f"jaxmr.pulseq.{name}")


def test_everything_is_imported_by_a_star():
    names = {}
    exec("from jaxmr.pulseq import *", names)
    assert set(PUBLIC) <= set(names)
    assert names["make_delay"] is pp.make_delay
    assert "read" not in names
