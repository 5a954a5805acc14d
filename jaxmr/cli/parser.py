"""The command line: commands, their options and their help.

Times on the command line are in milliseconds, lengths in millimetres, angles in files in degrees. Nothing heavy
is imported here, so that help comes at once.
"""

import argparse
import sys
from typing import NamedTuple

from jaxmr.cli.design_options import add_design
from jaxmr.cli.reconstruct_options import add_reconstruct
from jaxmr.cli.timing_options import TE, TR, add_inversion_time
from jaxmr.cli.train_surrogate_options import add_train_surrogate
from jaxmr.cli.words import numbers, size, sizes, slices_or_auto

DEFAULT_GRID = ("t1=300:5500:38", "t2=30:2500:40", "b1=0.76:1.24:17")
"""ms and relative: from cartilage and fat to CSF, T2 <= T1, and the transmit field of a head at 3 T."""
PULSE = 1e-3, 3.0, 5e-3
"""The Gaussian pulse of EPG-Bloch: duration (s), time-bandwidth product, thickness (m)."""


class Usual(NamedTuple):
    """What a sequence of `scan` takes unless told otherwise, degrees and ms; None: it has no such number."""

    matrix: tuple[int, ...]
    flip: float
    tr: float | None
    te: float
    dummies: int
    inversion_time: float | None = None


PROTOCOLS = {
    "gre": Usual((96, 96), 60, 100, 5, 80),
    "bssfp": Usual((64, 64), 40, 5, 2.5, 60),
    "tse": Usual((96, 96), 150, 4000, 90, 1),
    "epi": Usual((64, 64), 90, None, 35, 0),
    "mprage": Usual((16, 64, 64), 9, 2000, 3, 1, 900),
    "radial": Usual((96, 96), 60, 100, 5, 80),
    "spiral": Usual((96, 96), 60, 100, 2, 80),
}
"""The scans of a brain at 3 T."""

_COMMANDS = {
    "fingerprint": (
        "simulate a fingerprinting scan of a brain, generate its dictionary, match, and report the accuracy",
        "jaxmr fingerprint --out out/\n  jaxmr fingerprint --out out/ --schedule scan.csv --phantom maps/ --snr 50",
    ),
    "dictionary": (
        "simulate the signals of a grid of tissues",
        "jaxmr dictionary --schedule scan.csv --grid t1=300:3000:40 t2=20:300:40 b1=1 --out dictionary.h5\n"
        "  jaxmr dictionary --grid t1=100:5000:200 t2=10:2000:200 --rank 12 --memory 2GB --out large.zarr",
    ),
    "match": (
        "find the tissue of every voxel of a reconstruction in a dictionary",
        "jaxmr match dictionary.h5 images.nii.gz --mask mask.nii.gz --refine --out maps/",
    ),
    "reconstruct": (
        "reconstruct parameter maps from the raw data of a fingerprinting scan",
        "jaxmr reconstruct raw.h5 dictionary.h5 --out maps/\n"
        "  jaxmr reconstruct raw.npz dictionary.zarr --method locally-low-rank --refine --out maps/",
    ),
    "simulate": (
        "simulate the signals of tissues or of a phantom",
        "jaxmr simulate --t1 838,1607 --t2 71,76 --out signals.csv\n  jaxmr simulate --phantom maps/ --out signals.npz",
    ),
    "scan": (
        "scan a brain: raw data and an image of a gradient echo, spin echo, EPI, MPRAGE, radial or spiral sequence, "
        "or of a Pulseq file",
        "jaxmr scan --out out/\n"
        "  jaxmr scan --sequence tse --matrix 128 --te 100 --coils 8 --snr 30 --out out/\n"
        "  jaxmr scan --sequence epi --phantom maps/ --model isochromats --out out/\n"
        "  jaxmr scan --sequence scan.seq --pulses finite --out out/",
    ),
    "optimise": (
        "optimise a Pulseq sequence: the inversion time of an EPI for fluid suppression, or the flips of a TSE for SAR",
        "jaxmr optimise fluid-suppression --out flair/\n  jaxmr optimise tse-sar --phantom procedural --out sar/",
    ),
    "design": (
        "design the flips of a fingerprinting scan: those that determine given tissues best (least Cramér-Rao bounds)",
        "jaxmr design --tissues 900/85 500/65 --pulses 336 --tr 8.7 --te 4.9 --inversion-time 0 --out design/\n"
        "  jaxmr design --tissues 900/85 --schedule scan.csv --b1 0.8:1.2:3 --train b-spline --out design/\n"
        "  jaxmr simulate --schedule design/train.csv --t1 900 --t2 85 --out signals.csv",
    ),
    "train-surrogate": (
        "train the recurrent network that stands in for EPG-Bloch, on signals simulated for it",
        "jaxmr train-surrogate --out surrogate/\n"
        "  jaxmr train-surrogate --start shipped --rate 0.005 --epochs 50 --out more/",
    ),
    "info": ("print versions and devices, or what a dictionary holds", "jaxmr info\n  jaxmr info dictionary.h5"),
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `ValueError`s, reported like all others."""

    def error(self, message: str):
        raise ValueError(f"{message}; see {self.prog} --help")


def command_line() -> Parser:
    """The parser of all commands; the parsed `command` names a module of `jaxmr.cli`."""
    main = Parser("jaxmr", description="MRI physics: from the pulse sequence to the parameter map.")
    main.epilog = "jaxmr COMMAND --help explains a command. example: jaxmr fingerprint --out out/"
    commands = main.add_subparsers(dest="command", metavar="COMMAND", required=True)
    found = {}
    for name, (summary, example) in _COMMANDS.items():
        found[name] = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    _fingerprint(found["fingerprint"])
    _dictionary(found["dictionary"])
    _match(found["match"])
    _reconstruct(found["reconstruct"])
    _simulate(found["simulate"])
    _imaging(found["scan"])
    _optimise(found["optimise"])
    _design(found["design"])
    _out(found["train-surrogate"], "FOLDER", "folder for signals, checkpoint, weights; an interrupted training goes on")
    add_train_surrogate(found["train-surrogate"])
    _progress(found["train-surrogate"])
    _info(found["info"])
    return main


def _fingerprint(command: Parser) -> None:
    _out(command, "FOLDER", "folder for maps (NIfTI), dictionary, figures and summary")
    _scan(command)
    _model(command)
    _grid(command)
    command.add_argument(
        "--phantom",
        metavar="WHAT",
        help="brain (default; the extra `brain` provides it), procedural, or a file or folder of maps: NIfTI folder, "
        ".npz, MRzero, KomaMRI, JEMRIS, BrainWeb",
    )
    command.add_argument(
        "--snr",
        type=float,
        help="add noise: the root mean square of the signal over brain and train, divided by the standard deviation "
        "of the noise of each of the real and the imaginary part",
    )
    command.add_argument("--seed", type=int, default=0, help="of the noise and of the procedural phantom (default 0)")
    _progress(command)


def _dictionary(command: Parser) -> None:
    _out(
        command,
        "FILE",
        "file to write: HDF5 (.h5), or a zarr folder (.zarr) for more atoms than memory holds; started again with the "
        "same options after a crash, a folder goes on where it stopped",
    )
    _scan(command)
    _model(command)
    _grid(command)
    command.add_argument("--rank", type=int, help="compress to a subspace of this dimension (default: no)")
    command.add_argument(
        "--memory", metavar="SIZE", type=size, help="of a zarr folder: for the signals at work, 500MB or 2GB (default)"
    )
    _progress(command)


def _info(command: Parser) -> None:
    command.add_argument("dictionary", metavar="DICTIONARY", nargs="?", help="file or folder of `jaxmr dictionary`")


def _match(command: Parser) -> None:
    command.add_argument("dictionary", metavar="DICTIONARY", help="of `jaxmr dictionary` or `jaxmr fingerprint`")
    command.add_argument(
        "signals",
        metavar="SIGNALS",
        help=".npy or .npz (array `signals`), complex, (y, x, echoes) or (z, y, x, echoes), or a list "
        "(voxels, echoes); or complex NIfTI with time as its fourth axis",
    )
    _out(command, "FOLDER", "folder for maps (NIfTI), figure and summary")
    command.add_argument("--mask", metavar="FILE", help="NIfTI, .npy or .npz (`mask`); default: signals not zero")
    command.add_argument("--refine", action="store_true", help="go on between the points of the grid")
    command.add_argument(
        "--voxel-size", metavar="MM", type=numbers, help="where the file tells none: one number, or dx,dy,dz"
    )
    _progress(command)


def _reconstruct(command: Parser) -> None:
    add_reconstruct(command)
    _out(command, "FOLDER", "folder for maps (NIfTI), coefficient images, figure and summary")
    _progress(command)


def _simulate(command: Parser) -> None:
    _out(command, "FILE", "signals.npz (complex, for `jaxmr match`), .csv or .png")
    _scan(command)
    _model(command)
    for name, unit in {"t1": "MS", "t2": "MS", "b1": "RELATIVE", "b0": "HZ"}.items():
        command.add_argument(f"--{name}", metavar=unit, type=numbers, help="of one tissue, or of several: 838,1607")
    command.add_argument(
        "--phantom", metavar="WHAT", help="brain, procedural, or a file or folder: signals of all its voxels (.npz)"
    )
    _progress(command)


def _imaging(command: Parser) -> None:
    _out(command, "FOLDER", "folder for raw data (ISMRMRD), image (NIfTI), figure and summary")
    command.add_argument(
        "--sequence", metavar="NAME|FILE.seq", type=sequence, default="gre",
        help=f"{', '.join(PROTOCOLS)} (default gre), or a Pulseq file; its image is as large as its k-space, unless "
        "--matrix and --fov say so",
    )  # fmt: skip
    command.add_argument(
        "--phantom",
        metavar="WHAT",
        help="brain (default, as fine as the image; the extra `brain` provides it), procedural, or a file or folder "
        "of maps, as for jaxmr fingerprint; of a volume the middle slice, all of it for mprage",
    )
    group = command.add_argument_group(
        "protocol", "Left out: " + "; ".join(f"{name} {_told(usual)}" for name, usual in PROTOCOLS.items()) + "."
    )
    group.add_argument(
        "--matrix", metavar="N", type=sizes, help="voxels of the image: 64, or rows x columns 64x80, mprage 16x64x64"
    )
    group.add_argument(
        "--fov", metavar="MM", type=numbers, help="field of view: one number, or x,y or x,y,z (default the phantom)"
    )
    group.add_argument("--flip", metavar="DEGREES", type=float, help="flip angle; of tse, of the refocusing pulses")
    group.add_argument("--tr", metavar="MS", type=float, help="repetition time; of tse and mprage from shot to shot")
    group.add_argument("--te", metavar="MS", type=float, help="echo time; of tse and epi at the centre of k-space")
    group.add_argument(
        "--inversion-time", metavar="MS", type=float, help="of mprage, to the line at the centre of k-space"
    )
    group.add_argument("--dummies", metavar="N", type=int, help="repetitions or shots before the first line")
    group.add_argument(
        "--coils", metavar="N", type=int, default=1, help="receive loops around the head; 1 (default) is uniform"
    )
    group.add_argument(
        "--snr", type=float, help="add noise: the image's root mean square over the tissue, divided by the standard "
        "deviation of the noise of each of the real and the imaginary part (of each coil)",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0, help="of the noise and of the procedural phantom (default 0)")
    model = command.add_argument_group("model")
    model.add_argument(
        "--model",
        choices=("pdg", "isochromats"),
        default="pdg",
        help="pdg (default): phase distribution graph, exact up to the tolerance; isochromats: spin by spin",
    )
    model.add_argument(
        "--tolerance", type=float, default=1e-3, help="of pdg: error of k-space, relative to its norm (default 1e-3)"
    )
    model.add_argument(
        "--pulses", choices=("instantaneous", "finite"), default="instantaneous",
        help="of pdg: instantaneous (default), or finite: with the shapes, slice gradients and off-resonance of a file",
    )  # fmt: skip
    model.add_argument("--isochromats", metavar="N", type=int, default=64, help="in each voxel (default 64)")
    model.add_argument(
        "--field", metavar="TESLA", type=float, default=3.0, help="that a file's offsets in ppm refer to (default 3)"
    )
    _progress(command)


def _optimise(command: Parser) -> None:
    command.add_argument(
        "recipe",
        choices=("fluid-suppression", "tse-sar"),
        help="fluid-suppression: EPI, the inversion time; tse-sar: TSE, all flips, from 90 and 180 degrees; "
        "both need the extra `pulseq`",
    )
    _out(command, "FOLDER", "folder for the Pulseq file, figure and summary")
    command.add_argument("--phantom", metavar="WHAT", help="of one slice, as for jaxmr fingerprint (default brain)")
    command.add_argument(
        "--voxels", metavar="N", type=int, default=96, help="of a row of a built-in phantom (default 96)"
    )
    command.add_argument("--seed", type=int, default=0, help="of the procedural phantom (default 0)")
    command.add_argument("--steps", metavar="N", type=int, help="at most (default 40, of tse-sar 60)")
    command.add_argument(
        "--start",
        metavar="MS",
        type=float,
        default=1000.0,
        help="of fluid-suppression: first inversion time (default 1000)",
    )
    command.add_argument(
        "--weight",
        type=float,
        default=0.03,
        help="of tse-sar: of SAR, relative to the start, in the loss (default 0.03)",
    )
    _progress(command)


def _design(command: Parser) -> None:
    _out(command, "FOLDER", "folder for train.csv (for --schedule), figure, summary, and search.npz to go on from")
    add_design(command)
    _model(command)
    _progress(command)


def _told(usual: Usual) -> str:
    """`96x96, flip 25, TR 20, TE 5, 50 dummies`."""
    times = {"TR": usual.tr, "TE": usual.te, "TI": usual.inversion_time}
    told = [f"{name} {time:g}" for name, time in times.items() if time is not None]
    dummies = [f"{usual.dummies} dummies"] if usual.dummies > 1 else []
    return ", ".join(["x".join(map(str, usual.matrix)), f"flip {usual.flip:g}", *told, *dummies])


def _out(command: Parser, metavar: str, text: str) -> None:
    command.add_argument("--out", metavar=metavar, required=True, help=text)


def _scan(command: Parser) -> None:
    group = command.add_argument_group(
        "scan",
        f"Gradient-spoiled FISP. Without --schedule: 1000 pulses of at most 70 degrees, TR {TR:g} ms, TE {TE:g} ms.",
    )
    group.add_argument(
        "--schedule",
        metavar="FILE",
        help="text or CSV, a line per pulse: flip (degrees), then TR and TE (ms) if they are not given as options, "
        "or any columns named flip, tr, te in a first line; or MATLAB (degrees, seconds)",
    )
    group.add_argument("--tr", metavar="MS", type=float, help="repetition time that the file lacks")
    group.add_argument("--te", metavar="MS", type=float, help="echo time that the file lacks")
    add_inversion_time(group)


def _model(command: Parser) -> None:
    group = command.add_argument_group("model")
    duration, bandwidth, thickness = PULSE
    group.add_argument(
        "--model",
        choices=("epg-bloch", "epg"),
        default="epg-bloch",
        help=f"epg-bloch (default): slice profile of a Gaussian pulse of {1e3 * duration:g} ms, time-bandwidth "
        f"{bandwidth:g}, {1e3 * thickness:g} mm; epg: instantaneous pulses",
    )
    group.add_argument(
        "--tolerance", type=float, default=1e-3, help="error of a signal, relative to its norm (default 1e-3)"
    )
    group.add_argument(
        "--slices",
        type=slices_or_auto,
        default=32,
        metavar="N",
        help="sub-slices of epg-bloch (default 32, as published), or auto: as many as the tolerance needs, "
        "up to 192 for T2 of seconds",
    )


def _grid(command: Parser) -> None:
    command.add_argument(
        "--grid",
        metavar="AXIS",
        nargs="+",
        action="extend",
        default=[],
        help="t1=START:STOP:COUNT (ms, spaced by equal factors), t2 likewise, b1 (relative, equal steps), b0 (Hz, "
        f"likewise), or values: b1=0.9,1,1.1. Axes left out are {' '.join(DEFAULT_GRID)}. Atoms with t2 > t1 are "
        "dropped",
    )


def _progress(command: Parser) -> None:
    command.add_argument(
        "--no-progress",
        dest="progress",
        action="store_false",
        default=sys.stderr.isatty(),
        help="no progress bars (shown only on a terminal anyway)",
    )


def sequence(text: str) -> str:
    """The name of a sequence of `scan`, or a Pulseq file."""
    if text not in PROTOCOLS and not text.endswith(".seq"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(PROTOCOLS)}, nor a .seq file")
    return text
