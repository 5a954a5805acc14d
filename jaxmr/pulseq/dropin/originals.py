"""PyPulseq itself, and its functions as `jaxmr.pulseq` offers them.

Called with plain numbers, a function is PyPulseq's own. Called with a live or JAX number, also inside events and
lists, a rebound copy of it runs, so that what it returns is live.
"""

import functools
import importlib
import traceback
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from jaxmr.pulseq.dropin.live_modules import contains_live
from jaxmr.pulseq.dropin.rebinding import rebind
from jaxmr.pulseq.live import Live, array, is_jax, is_live, value
from jaxmr.pulseq.live.guards import HERE, frame_outside

REMEDY = "PyPulseq is not installed; install it with: pip install jaxmr[pulseq]"
# Their algorithms decide the number of points or search by rules that have no derivative; sigpy is not ours to trace.
CONCRETE = ("sigpy_n_seq", "make_slr", "make_sms", "add_ramps", "calc_ramp", "calc_SAR")


@functools.cache
def original(name: str = "") -> ModuleType:
    """The module `pypulseq` or its submodule `name`; an `ImportError` naming the remedy where it is not installed."""
    try:
        return importlib.import_module(f"pypulseq.{name}" if name else "pypulseq")
    except ModuleNotFoundError as missing:
        if missing.name == "pypulseq":
            raise ImportError(REMEDY) from None
        raise


@functools.cache
def offered(function: FunctionType) -> Any:
    """`function` of PyPulseq as the drop-in offers it: same signature, live where its arguments are."""
    if function.__code__.co_filename == __file__:
        return function  # a script that imported it by name holds it as it is offered
    tracing = original("utils.tracing")

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not (has_live(args) or has_live(kwargs)):
            return rebind(function)(*args, **kwargs) if tracing.trace_enabled() else function(*args, **kwargs)
        if function.__name__ in CONCRETE:
            raise ValueError(
                f"{function.__name__} cannot be differentiated: its gradient would be lost; give it plain numbers "
                "(jaxmr.pulseq.value(x) of a live one) and differentiate another parameter"
            )
        args, kwargs = lifted(args), lifted(kwargs)
        return settled(rebind(function)(*args, **kwargs))

    return call


def has_live(x: Any) -> bool:
    """Whether a live or JAX number is in the arguments, also as an attribute of an event."""
    if isinstance(x, SimpleNamespace):
        return any(has_live(part) for part in vars(x).values())
    if isinstance(x, list | tuple):
        return any(has_live(part) for part in x)
    if isinstance(x, dict):
        return any(has_live(part) for part in x.values())
    return contains_live(x)


def lifted(x: Any) -> Any:
    """JAX values as live ones; live numbers that depend on nothing as plain ones. Events are changed in place."""
    if isinstance(x, SimpleNamespace):
        for name, part in vars(x).items():
            if is_jax(part):
                setattr(x, name, array(part))
        return x
    if isinstance(x, list | tuple):
        return type(x)(lifted(part) for part in x)
    if isinstance(x, dict):
        return {name: lifted(part) for name, part in x.items()}
    return array(x) if is_jax(x) else x


def settled(x: Any) -> Any:
    """What a rebound function returned, without live numbers that depend on no input."""
    if isinstance(x, SimpleNamespace):
        for name, part in vars(x).items():
            setattr(x, name, settled(part))
        return x
    if isinstance(x, list | tuple) and type(x) in (list, tuple):
        return type(x)(settled(part) for part in x)
    return value(x) if isinstance(x, Live) and not is_live(x) else x


def stack_of_caller() -> traceback.StackSummary:
    """PyPulseq's note of where an event was made, without our frames."""
    frame = frame_outside((HERE, *original().__path__))
    return traceback.extract_stack(frame, limit=original("utils.tracing")._trace_limit)
