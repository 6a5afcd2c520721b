"""Trains recognisers of spoken or keyed digits by CTC, and transcribes with them."""

import sys
from pathlib import Path

from experiments.frame.cli import CommandLine
from experiments.frame.options import WHOLE
from experiments.speech.settings import Settings


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("speech", __doc__)
    title = "the data, the model and its training (defaults are those for morse)"
    line.add_train(title, Settings(), data_dir=True)
    command = line.add("transcribe", "write what is heard in files", run=True)
    text = "sound files (.wav)"
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help=text)
    text = "labellings kept in the search (default: that of the run)"
    command.add_argument("--beam", type=WHOLE, help=text)
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
