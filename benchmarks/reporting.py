"""What every benchmark shares: timing of warm calls, a table, and a JSON file with versions and date."""

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def timed(call: Callable[[], object], runs: int = 9) -> dict[str, float]:
    """Seconds of the first call (it compiles), and median and spread of the following ones."""
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {"first": first, "median": statistics.median(times), "fastest": min(times), "slowest": max(times)}


def in_turns(*calls: Callable[[], object], runs: int = 9) -> list[dict[str, float]]:
    """`timed` of several calls that take turns, so that all see the same machine."""
    firsts, times = [], [[] for _ in calls]
    for call in calls:
        start = time.perf_counter()
        call()
        firsts.append(time.perf_counter() - start)
    for _ in range(runs):
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return [
        {"first": first, "median": statistics.median(found), "fastest": min(found), "slowest": max(found)}
        for first, found in zip(firsts, times, strict=True)
    ]


def compilation_clock() -> Callable[[], float]:
    """A clock of the seconds that XLA has spent on compiling since now."""
    import jax

    spent = []

    def listen(event: str, duration_secs: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            spent.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return lambda: sum(spent)


def device_name() -> str:
    """Short name of the device that computes, for file names."""
    import jax

    kind = jax.devices()[0].device_kind.replace(" ", "-").lower()
    return f"{kind}-{jax.device_count()}" if kind == "cpu" else kind


def save(name: str, rows: list[dict]) -> Path:
    """Write `results/NAME-DEVICE.json`, whole or not at all."""
    import jax

    about = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "device": f"{jax.devices()[0].device_kind}, {jax.device_count()} devices",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "versions": {package: version(package) for package in ("jaxmr", "jax", "jaxlib", "numpy")},
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{device_name()}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(about, indent=1) + "\n")
    partial.replace(path)
    return path


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
