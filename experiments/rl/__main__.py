"""Trains policies with and without a memory on tasks that ask for one, by PPO."""

import sys

from experiments.frame.cli import CommandLine
from experiments.frame.options import shown
from experiments.rl.settings import NETWORKS, Settings


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("rl", __doc__)
    title = "the task, the policies and their training (defaults are those for tmaze)"
    train = line.add_training(
        "train", "train, test and report", title, Settings(), leave_out=("network",)
    )
    default = ["gru", "mlp"]
    text = shown("which, each in a run of its own", " ".join(default))
    train.add_argument("--network", dest="networks", metavar="NETWORK", nargs="+",
                       choices=NETWORKS, default=default, help=text)  # fmt: skip
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
