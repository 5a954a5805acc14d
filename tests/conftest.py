"""float64, no silent rank promotion, two CPU devices; JAX must not have started before."""

import os
from pathlib import Path

import jax
import jaxtyping
import pytest

# Shapes and types in the signatures are run, not only read.
jaxtyping.install_import_hook("jaxmr", "typechecking.checked")

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of other people's results. Absent: skip, but fail in CI, where it must be there."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"reference data is missing: {SHARED}")
        pytest.skip("no reference data beside the checkout")
    return SHARED
