"""Trains a speller of what an image shows, in ten languages, from one vector."""

import sys

from experiments.captions.settings import Settings
from experiments.frame.cli import CommandLine
from experiments.frame.options import WHOLE, number


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("captions", __doc__)
    line.add_train("the model and its training", Settings())
    command = line.add("caption", "name images of the test", run=True)
    text = "their numbers (default: 0 to 9)"
    command.add_argument(
        "--images", type=number(int, 0), nargs="+", default=[*range(10)], help=text
    )
    text = "their names in English (default: all)"
    command.add_argument("--languages", nargs="+", help=text)
    text = "names kept in the search, 1 for greedy (default: that of the run)"
    command.add_argument("--beam", type=WHOLE, help=text)
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
