"""The conftest of PyPulseq's own tests: there, `pypulseq` is `jaxmr.pulseq`. Notes every numeric `make_*` call.

It is copied beside them by test_pulseq_own_tests.py. RECORD names the file that gets the calls.
"""

import functools
import importlib
import os
import pickle
import pkgutil
import sys
from pathlib import Path

import numpy as np
import pypulseq

import jaxmr.pulseq as dropin
from jaxmr.pulseq.dropin import originals, sequence  # noqa: F401  they must see the real one

calls = {}


def is_number(x):
    return isinstance(x, float) or (isinstance(x, np.ndarray) and x.dtype.kind in "fc")


def recorded(function):
    offered = plain_offered(function)
    if not function.__name__.startswith("make_"):
        return offered

    @functools.wraps(function)
    def call(*args, **kwargs):
        result = offered(*args, **kwargs)
        if any(is_number(x) for x in (*args, *kwargs.values())):
            pickled = pickle.dumps((function.__name__, args, kwargs))
            calls[pickled] = None
        return result

    return call


plain_offered = originals.offered
originals.offered = functools.cache(recorded)


def pytest_sessionfinish():
    Path(os.environ["RECORD"]).write_bytes(pickle.dumps(list(calls)))


for module in pkgutil.walk_packages(pypulseq.__path__, "pypulseq."):
    try:
        importlib.import_module(module.name)
    except ImportError:
        continue
real = [name for name in sys.modules if name.split(".")[0] == "pypulseq"]
sys.modules.update({name: dropin.facade(name.partition(".")[2]) for name in real})
