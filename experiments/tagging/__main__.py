"""Trains taggers of sequences, and tags words or Python source with them."""

import sys
from pathlib import Path

from experiments.frame.cli import CommandLine
from experiments.tagging.settings import Settings


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("tagging", __doc__)
    title = "the data, the model and its training (defaults are those for python)"
    line.add_train(title, Settings(), data_dir=True)
    command = line.add("tag", "tag sentences, or colour Python source", run=True)
    text = "a file, a sentence a line, words between spaces, or source; else typed"
    command.add_argument("--input", type=Path, help=text)
    text = "file to write; else sentences are printed, source is RUN/tagged.html"
    command.add_argument("--out", type=Path, help=text)
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
