"""The drop-in's `Sequence`: PyPulseq's own, which also remembers the live side of what it plays.

PyPulseq gets the concrete float64 numbers and does with them what it always does, so files are the same to the byte.
Blocks in which something is live are kept beside it as `Block`; all others are read back from PyPulseq.
"""

import inspect
from copy import copy
from types import SimpleNamespace
from typing import Any, final

import numpy as np

from jaxmr.pulseq.blocks import AXES, Block
from jaxmr.pulseq.conversion.segments import draft
from jaxmr.pulseq.dropin.live_modules import live_builtins
from jaxmr.pulseq.dropin.originals import has_live, lifted, original, stack_of_caller
from jaxmr.pulseq.live import Live, array, is_live, node_of, stack, value
from jaxmr.pulseq.live.evaluation import evaluate

PulseqSequence: Any = original("Sequence.sequence").Sequence


@final
class Sequence(PulseqSequence):
    """PyPulseq's `Sequence`, whose events may carry live numbers; `to_jaxmr` gives what the models play."""

    def __init__(self, system: Any = None, use_block_cache: bool = True):
        self._live: dict[int, Block] = {}
        PulseqSequence.__init__(self, system, use_block_cache)

    def add_block(self, *args: Any) -> None:
        for arg in args:
            if isinstance(arg, Live):
                raise ValueError(f"add_block takes events, not the number {arg}; use pp.make_delay({arg}) for delays")
        index = self.next_free_block_ID
        PulseqSequence.add_block(self, *concrete_events(args))
        self._remember(index, args)

    def set_block(self, block_index: int, *args: Any) -> None:
        PulseqSequence.set_block(self, block_index, *concrete_events(args))
        self._remember(block_index, args)

    def _remember(self, index: int, args: tuple) -> None:
        self._live.pop(index, None)
        events = original("block_to_events").block_to_events(*args)
        if has_live(events):
            self._live[index] = live_block(events, self.block_durations[index], self.grad_raster_time)
        if original("utils.tracing").trace_enabled():
            self.block_trace[index].block = stack_of_caller()

    def blocks(self) -> list[Block]:
        """What is played, block after block; live where the events were."""
        known: dict[tuple, Block] = {}
        found = []
        for index, ids in self.block_events.items():
            key = (*ids.tolist(), self.block_durations[index])
            if index not in self._live and key not in known:
                known[key] = plain_block(self.get_block(index), self.block_durations[index])
            found.append(self._live[index] if index in self._live else known[key])
        return found

    def to_jaxmr(self, b0: float | None = None) -> Any:
        """The `jaxmr` Sequence that all models play, differentiable in every live number.

        b0: field in T, for offsets in ppm; None takes that of the system limits.
        """
        made = draft(self.blocks(), b0 if b0 is not None else self.system.B0)
        return made.assemble(evaluate(made.leaves, {}))

    def duration(self) -> tuple:
        total, n_blocks, n_events = PulseqSequence.duration(self)
        if any(is_live(block.duration) for block in self._live.values()):
            total = Live(total, node_of(np.sum(stack([block.duration for block in self.blocks()]))))
        return total, n_blocks, n_events

    def mod_grad_axis(self, axis: str, modifier: Any) -> None:
        modifier = array(modifier)
        before = dict(zip(self.block_events, self.blocks(), strict=True)) if is_live(modifier) else dict(self._live)
        PulseqSequence.mod_grad_axis(self, axis, value(modifier))
        for index, block in before.items():
            gradient = getattr(block, f"g{axis}")
            if gradient is not None:
                self._live[index] = block._replace(**{f"g{axis}": scaled_gradient(gradient, modifier)})

    def apply_soft_delay(self, **kwargs: Any) -> None:
        live = {hint: array(delay) for hint, delay in kwargs.items() if has_live(delay)}
        PulseqSequence.apply_soft_delay(self, **{hint: value(array(delay)) for hint, delay in kwargs.items()})
        raster = self.system.block_duration_raster
        for index, block in zip(list(self.block_events), self.blocks(), strict=True):
            for event in block.extras:
                if event.type == "soft_delay" and event.hint in kwargs:
                    if event.hint in live:
                        duration = round((live[event.hint] / event.factor + event.offset) / raster) * raster
                        self._live[index] = block._replace(duration=duration)
                    elif index in self._live:
                        self._live[index] = block._replace(duration=self.block_durations[index])

    def register_adc_event(self, event: Any) -> Any:
        return PulseqSequence.register_adc_event(self, concrete_event(event))

    def register_grad_event(self, event: Any) -> Any:
        return PulseqSequence.register_grad_event(self, concrete_event(event))

    def register_rf_event(self, event: Any) -> Any:
        return PulseqSequence.register_rf_event(self, concrete_event(event))

    def set_definition(self, key: str, value: Any) -> None:  # PyPulseq's argument is called so
        plain = array(value)
        PulseqSequence.set_definition(self, key, plain.value if isinstance(plain, Live) else value)

    def read(self, *args: Any, **kwargs: Any) -> None:
        self._live = {}
        PulseqSequence.read(self, *args, **kwargs)

    def remove_duplicates(self, in_place: bool = False) -> Any:
        live, self._live = self._live, {}
        try:
            merged = PulseqSequence.remove_duplicates(self, in_place)
        finally:
            self._live = live
        merged._live = dict(live)
        return merged


for _name, _method in list(vars(Sequence).items()):
    if hasattr(PulseqSequence, _name) and inspect.isfunction(_method):
        _method.__signature__ = inspect.signature(getattr(PulseqSequence, _name))  # type: ignore[attr-defined]
        _method.__doc__ = getattr(PulseqSequence, _name).__doc__


def concrete_events(events: tuple) -> list:
    return [concrete_event(event) for event in events]


def concrete_event(event: Any) -> Any:
    """The event with plain numbers; the event itself if it has no others."""
    if not has_live(event):
        return event
    if isinstance(event, dict):
        return {name: concrete_event(part) for name, part in event.items()}
    if isinstance(event, SimpleNamespace):
        return SimpleNamespace(**{name: concrete_event(part) for name, part in vars(event).items()})
    found = array(event)
    return np.array(found.value) if np.ndim(value(found)) else value(found)


def snapshot(event: Any) -> Any:
    """The event as it is now: scripts change their events and add them again."""
    kept = lifted(copy(event))
    for name, part in vars(kept).items():
        if isinstance(part, Live | np.ndarray):
            setattr(kept, name, part.copy())
    return kept


def live_block(events: Any, duration: float, raster: float) -> Block:
    """The block of these events. duration: s, the concrete one. raster: of the gradients, s."""
    fields: dict[str, Any] = {}
    extras, ends = [], []
    for event in events:
        if not isinstance(event, SimpleNamespace):
            ends.append(array(event))
            continue
        event = snapshot(event)
        if event.type == "rf":
            fields["rf"] = event
            ends.append(event.shape_dur + event.delay + event.ringdown_time)
        elif event.type == "grad":
            fields[f"g{event.channel}"] = event
            steps = event.tt[-1] / raster - 1e-10
            ends.append(event.delay + np.ceil(steps) * raster)
        elif event.type == "trap":
            fields[f"g{event.channel}"] = event
            ends.append(event.delay + event.rise_time + event.flat_time + event.fall_time)
        elif event.type == "adc":
            ends.append(event.delay + event.num_samples * event.dwell + event.dead_time)
            event.delay = live_builtins()["max"](event.delay, event.dead_time)
            fields["adc"] = event
        elif event.type == "delay":
            ends.append(event.delay)
        else:
            extras.append(event)
            ends.append(getattr(event, "default_duration", 0.0))
            if hasattr(event, "duration"):
                ends.append(event.delay + event.duration)
    longest = live_builtins()["max"]([0.0, *ends])
    return Block(Live(duration, node_of(longest)) if is_live(longest) else duration, **fields, extras=tuple(extras))


def plain_block(found: Any, duration: float) -> Block:
    """The block that PyPulseq's `get_block` gave. duration: s; PyPulseq's cache keeps that before soft delays."""
    adc = copy(found.adc)
    if adc is not None and np.size(adc.phase_modulation) == 0:
        adc.phase_modulation = None
    extras = [*(found.label or {}).values(), *getattr(found, "trigger", {}).values()]
    if found.soft_delay is not None:
        extras.append(found.soft_delay)
    gradients = {axis: getattr(found, axis) for axis in AXES}
    return Block(duration, rf=found.rf, **gradients, adc=adc, extras=tuple(extras))


def scaled_gradient(gradient: Any, factor: Any) -> Any:
    """The gradient times `factor`, its times kept."""
    scaled = copy(gradient)
    for name in ("amplitude", "area", "flat_area", "waveform", "first", "last"):
        if hasattr(scaled, name):
            setattr(scaled, name, getattr(scaled, name) * factor)
    return scaled
