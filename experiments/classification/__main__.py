"""Trains classifiers of sequences, and classifies texts with them."""

import sys
from pathlib import Path

from experiments.classification.settings import Settings
from experiments.frame.cli import CommandLine


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("classification", __doc__)
    title = "the data, the model and its training (defaults are those for digits)"
    line.add_train(title, Settings(), data_dir=True)
    command = line.add("classify", "label lines of text", run=True)
    text = "a file, a text a line; else what is typed"
    command.add_argument("--input", type=Path, help=text)
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
