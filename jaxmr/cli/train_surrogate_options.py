"""The options of `jaxmr train-surrogate`; light, as the parser."""

import argparse


def add_train_surrogate(command: argparse.ArgumentParser) -> None:
    """Add them; defaults are those of the last training of the network that comes with jaxmr, from earlier weights."""
    data = command.add_argument_group("signals", "Random trains, timings and tissues of Liu et al., simulated exactly.")
    data.add_argument("--signals", metavar="N", type=int, default=20_000, help="to train on (default 20000)")
    data.add_argument("--test", metavar="N", type=int, default=10_000, help="to test on (default 10000)")
    data.add_argument("--pulses", metavar="N", type=int, default=1120, help="of each signal (default 1120)")
    course = command.add_argument_group("training")
    course.add_argument("--epochs", metavar="N", type=int, default=230, help="times through all signals (default 230)")
    course.add_argument("--together", metavar="N", type=int, default=256, help="signals of a step (default 256)")
    course.add_argument(
        "--crop", metavar="N", type=int, default=140, help="pulses of a step, of which --pulses is a multiple (140)"
    )
    course.add_argument("--rate", type=float, default=0.0015, help="learning rate after the warm-up (default 0.0015)")
    course.add_argument("--warm-up", metavar="STEPS", type=int, default=300, help="of the rate (default 300)")
    course.add_argument("--seed", type=int, default=0, help="of the network, the order of signals, and the signals")
    course.add_argument(
        "--start", metavar="FILE", help="weights to begin with, such as rnn.eqx of an earlier training, or `shipped`"
    )
