"""`jaxmr info`: versions and devices, for reports of problems and for results."""

import importlib.metadata
import platform
from collections import Counter
from typing import Any

import jaxmr as mr
from jaxmr.cli.options import SUFFIXES, UNITS, read_dictionary, span, use_cores

PACKAGES = ("jax", "jaxlib", "equinox", "numpy")


def run(options: Any) -> None:
    if options.dictionary is not None:
        for name, told in contents(options.dictionary).items():
            print(f"{name:10} {told}")
        return
    use_cores()
    for name, version in versions().items():
        print(f"{name:8} {version}")
    print(f"{'devices':8} {devices()}")


def contents(path: str) -> dict[str, Any]:
    """Of a dictionary: its size, its subspace, the ranges of its parameters, and what was said of it."""
    found, about = read_dictionary(path)
    n_atoms, basis = len(found.parameters["t1"]), found.basis
    told = {"atoms": n_atoms, "echoes": found.atoms.shape[1] if basis is None else basis.shape[0]}
    if basis is not None and found.energy is not None:
        told["subspace"] = f"rank {basis.shape[1]}, {100 * found.energy:.4f} % of the energy"
    for name, values in found.parameters.items():
        told[name.upper()] = f"{span(values / UNITS.get(name, 1))}{SUFFIXES.get(name, '')}"
    return told | {name: value for name, value in about.items() if name in ("scan", "model", "jaxmr")}


def versions() -> dict[str, str]:
    """Of jaxmr, Python and the packages that compute."""
    found = {"jaxmr": mr.__version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def devices() -> str:
    """`2 x cpu`, or `1 x NVIDIA H200`."""
    import jax

    return ", ".join(f"{count} x {kind}" for kind, count in Counter(d.device_kind for d in jax.devices()).items())
