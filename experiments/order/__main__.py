"""Trains networks that are blind to order, and recurrent ones, on the same task."""

import sys

from experiments.frame.cli import CommandLine
from experiments.frame.options import file_or_name, shown
from experiments.order.settings import BINARY, FIRST, MODELS


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("order", __doc__)
    title = "the models and their training (defaults are those for first)"
    text, leave_out = "train, test and report", ("data", "model")
    train = line.add_training(
        "train", text, title, FIRST, leave_out=leave_out, data_dir=True
    )
    text = f"{', '.join(BINARY)}, or a table of texts and labels (.tsv, .csv)"
    train.add_argument("--task", type=file_or_name, default="first",
                       help=shown(text, "first"))  # fmt: skip
    text = "which, each in a run of its own (default: all five)"
    train.add_argument("--models", metavar="MODEL", choices=MODELS, nargs="+",
                       default=[*MODELS], help=text)  # fmt: skip
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
