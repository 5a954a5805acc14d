"""PyPulseq's modules by `import`: `from jaxmr.pulseq.make_adc import make_adc`."""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any, final

HERE = "jaxmr.pulseq."
OWN = frozenset(path.stem for path in Path(__file__).parent.iterdir())


@final
class Submodules(MetaPathFinder, Loader):
    """Finds `jaxmr.pulseq.<name>` where PyPulseq has a module of that name and this package has none.

    It must stand before the finder of files, which would run PyPulseq's own a second time under that name.
    """

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not fullname.startswith(HERE) or fullname.removeprefix(HERE).partition(".")[0] in OWN:
            return None
        try:
            self.create_module(ModuleSpec(fullname, self))
        except ModuleNotFoundError as missing:
            if missing.name == f"pypulseq.{fullname.removeprefix(HERE)}":
                return None
            raise
        return spec_from_loader(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules["jaxmr.pulseq"].facade(spec.name.removeprefix(HERE))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do: PyPulseq ran its own module."""
