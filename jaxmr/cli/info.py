"""`jaxmr info`: versions and devices, for reports of problems and for results."""

import importlib.metadata
import platform
from collections import Counter
from typing import Any

import jaxmr as mr
from jaxmr.cli.options import use_cores

PACKAGES = ("jax", "jaxlib", "equinox", "numpy")


def run(options: Any) -> None:
    use_cores()
    for name, version in versions().items():
        print(f"{name:8} {version}")
    print(f"{'devices':8} {devices()}")


def versions() -> dict[str, str]:
    """Of jaxmr, Python and the packages that compute."""
    found = {"jaxmr": mr.__version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def devices() -> str:
    """`2 x cpu`, or `1 x NVIDIA H200`."""
    import jax

    return ", ".join(f"{count} x {kind}" for kind, count in Counter(d.device_kind for d in jax.devices()).items())
