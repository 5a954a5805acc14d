"""The options of `jaxmr reconstruct`; light, as the parser."""

import argparse

from jaxmr.cli.words import numbers, sizes


def add_reconstruct(command: argparse.ArgumentParser) -> None:
    """Add them."""
    command.add_argument(
        "raw",
        metavar="RAW",
        help="ISMRMRD (.h5), one line per pulse; or .npz with `samples` (coils, pulses, n) and, if there, `k` "
        "(pulses, n, axes) in rad/m, `matrix`, `voxel_size` in m, `coils` (coils, *matrix)",
    )
    command.add_argument("dictionary", metavar="DICTIONARY", help="of `jaxmr dictionary`")
    data = command.add_argument_group("data", "What the raw data do not tell.")
    data.add_argument("--trajectory", metavar="FILE", help=".npy or .npz (`k`): (pulses, n, axes), rad/m")
    data.add_argument("--matrix", metavar="N", type=sizes, help="voxels: 112, or rows x columns 112x128")
    data.add_argument("--voxel-size", metavar="MM", type=numbers, help="one number, or dx,dy[,dz]")
    data.add_argument(
        "--coils", metavar="FILE", help=".npy or .npz (`coils`): maps; of several coils without any they are estimated"
    )
    data.add_argument(
        "--mask",
        metavar="FILE",
        help="NIfTI, .npy or .npz (`mask`); default: |M0| above a tenth of its largest, without specks",
    )
    method = command.add_argument_group("method")
    method.add_argument(
        "--method",
        choices=("lr-admm", "subspace", "locally-low-rank", "wavelet"),
        default="lr-admm",
        help="lr-admm (default): images held to multiples of atoms; subspace: least squares; locally-low-rank, "
        "wavelet: least squares with a prior",
    )
    method.add_argument("--rank", type=int, default=12, help="of a dictionary that is not compressed (default 12)")
    method.add_argument("--mu", type=float, default=0.015, help="of lr-admm: penalty (default 0.015)")
    method.add_argument("--iterations", metavar="N", type=int, help="outer ones (default 20; with a prior 60)")
    method.add_argument("--cg", metavar="N", type=int, default=10, help="inner iterations of lr-admm (default 10)")
    method.add_argument(
        "--strength", type=float, default=0.01, help="of a prior, relative to the adjoint image (default 0.01)"
    )
    method.add_argument("--refine", action="store_true", help="go on between the points of the grid")
