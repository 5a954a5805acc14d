"""A few sub-slices whose positions and weights are learnt stand for many: five beat the paper's table in every entry.

uv run python benchmarks/trained_nodes.py            # 500 signals to learn from, 500 others to test: a minute
uv run python benchmarks/trained_nodes.py --ship     # and write the numbers that come with jaxmr
"""

import argparse
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import jaxmr as mr
from reporting import save

mr.use_cores()

from jaxmr.models.epg import SliceNodes  # noqa: E402
from jaxmr.mrf.surrogate import examples, nodes  # noqa: E402
from jaxmr.sequences.trains import KINDS  # noqa: E402

SIZES = (3, 4, 5, 6, 8)
PAPER = np.array([[0.418, 0.801], [0.574, 1.008], [0.780, 1.694], [1.285, 2.037], [5.155, 3.913]])
"""Of its RNN: signal and derivatives, per cent."""


def table_of(found: SliceNodes, products: np.ndarray) -> np.ndarray:
    """Relative errors (families, signal and derivatives) of nodes that are candidates."""
    left = -nodes._whole()
    for position, weight in zip(np.asarray(found.position), np.asarray(found.weight), strict=True):
        left[np.argmin(np.abs(nodes._candidates() - position))] += weight
    whole = nodes._whole()
    return np.array([np.sqrt(left @ p @ left / (whole @ p @ whole)) for p in products]).reshape(-1, 2)


def midpoints(n: int) -> SliceNodes:
    """`n` midpoints of half a slice, which are candidates if n divides their number by something odd."""
    between = nodes.CANDIDATES // n
    return SliceNodes(jnp.asarray(nodes._candidates()[between // 2 :: between]), jnp.full(n, 3 / (2 * n)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=500)
    parser.add_argument("--ship", action="store_true", help="write jaxmr/mrf/surrogate/weights/nodes.json")
    options = parser.parse_args()
    learnt = nodes.candidate_products(examples.draw(options.signals, 21, augmented=True), progress=True)
    tested = nodes.candidate_products(examples.draw(options.signals, 22, augmented=False), progress=True)
    print("signal / derivatives, per cent".ljust(24), *(f"{kind:>16}" for kind in KINDS))
    tell = lambda name, table: print(name.ljust(24), *(f"{a:8.2f}/{b:7.2f}" for a, b in table))  # noqa: E731
    tell("paper, RNN", PAPER)
    rows = [{"nodes": "paper, RNN", "table": PAPER.tolist()}]
    for n in (3, 5, 9, 15):
        table = 100 * table_of(midpoints(n), tested)
        tell(f"{n} midpoints", table)
        rows.append({"nodes": f"{n} midpoints of half a slice", "table": table.round(4).tolist()})
    card = {}
    for n in SIZES:
        found = nodes.train_nodes(learnt, n)
        table = table_of(found, tested)
        tell(f"{n} trained nodes", 100 * table)
        rows.append({"nodes": f"{n} trained nodes of half a slice", "table": (100 * table).round(4).tolist()})
        card[str(n)] = {
            "position": np.asarray(found.position, float).round(6).tolist(),
            "weight": np.asarray(found.weight, float).round(6).tolist(),
            "errors": {kind: [float(f"{e:.4g}") for e in row] for kind, row in zip(KINDS, table, strict=True)},
        }
    about = {
        "of": "errors against 90 midpoints: norm of the error over norm of the reference; signal, and derivatives by "
        "log T1 and log T2",
        "trained_on": f"{options.signals} signals, seed 21, augmented; tested on {options.signals} others, seed 22",
        "pulse": "Gaussian, time-bandwidth 3, flips up to 144 degrees; positions in thicknesses",
        "nodes": card,
    }
    if options.ship:
        Path(nodes.__file__).with_name("weights").joinpath("nodes.json").write_text(json.dumps(about, indent=1) + "\n")
    save("trained_nodes", rows)


if __name__ == "__main__":
    main()
