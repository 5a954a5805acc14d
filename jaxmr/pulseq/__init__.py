"""Pulseq: .seq files in and out, and PyPulseq scripts as differentiable programs.

    import jaxmr.pulseq as pp

in place of `import pypulseq as pp` changes nothing for plain numbers; JAX numbers stay differentiable through every
event, and `seq.to_jaxmr()` gives the `Sequence` that all models play. `pp.trace(script, **example)` runs a script
once and returns a pure function of its parameters; `read` and `write` turn files into a `Sequence` and back. PyPulseq
is imported when it is first used.
"""

import importlib
import sys
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, final

from jaxmr.pulseq.importing import Submodules

_HOMES = {
    "BrokenGuardWarning": "dropin.tracing",
    "GradientCutWarning": "live",
    "Limits": "synthesis.limits",
    "Sequence": "dropin.sequence",
    "constraints": "dropin.constraint_quantities",
    "evaluate": "live.evaluation",
    "is_live": "live",
    "lift": "live",
    "read": "files",
    "trace": "dropin.tracing",
    "value": "live",
    "write": "files",
}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return [public for public in dir(facade("")) if not public.startswith("_")]
    if name in _HOMES:
        return getattr(importlib.import_module(f"jaxmr.pulseq.{_HOMES[name]}"), name)
    if name.startswith("__"):
        raise AttributeError(f"module 'jaxmr.pulseq' has no attribute {name!r}")
    return getattr(facade(""), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *dir(facade(""))})


@final
class Facade(ModuleType):
    """A module of PyPulseq, its functions able to take live numbers."""

    def __init__(self, module: ModuleType):
        ModuleType.__init__(self, module.__name__, module.__doc__)
        self.__dict__["_module"] = module
        if hasattr(module, "__path__"):
            self.__path__ = module.__path__

    def __getattr__(self, name: str) -> Any:
        if self._module.__name__ == "pypulseq" and name in _HOMES:
            return getattr(sys.modules["jaxmr.pulseq"], name)
        return stand_in(getattr(self._module, name))

    def __dir__(self) -> list[str]:
        return dir(self._module)


@cache
def facade(name: str) -> Facade:
    """PyPulseq's submodule `name` (all of it: "") as this package offers it."""
    from jaxmr.pulseq.dropin.originals import original

    return Facade(original(name))


def stand_in(member: Any) -> Any:
    """A member of PyPulseq as this package offers it."""
    from jaxmr.pulseq.dropin.originals import offered, original

    if isinstance(member, ModuleType) and member.__name__.startswith("pypulseq."):
        return facade(member.__name__.partition(".")[2])
    if isinstance(member, FunctionType) and member.__module__.startswith("pypulseq"):
        return offered(member)
    if member is original().Sequence:
        return __getattr__("Sequence")
    return member


@final
class Front(ModuleType):
    """This module: importing one of PyPulseq's submodules does not put it in place of the function of its name."""

    def __setattr__(self, name: str, new: Any) -> None:
        if not isinstance(new, Facade):
            ModuleType.__setattr__(self, name, new)


sys.modules[__name__].__class__ = Front
if not any(isinstance(finder, Submodules) for finder in sys.meta_path):
    sys.meta_path.insert(0, Submodules())
