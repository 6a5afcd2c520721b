"""Runs networks that others trained and published, with their weights converted."""

import sys
from pathlib import Path

from experiments.frame.cli import CommandLine

FIGURE = Path("runs/pretrained/speech.png")


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("pretrained", __doc__)
    command = line.add("pronounce", "how English words are said, made-up ones too")
    command.add_argument("text", nargs="+", help="words; case and signs do not matter")
    command = line.add("speech", "where in a recording somebody speaks")
    command.add_argument("file", type=Path, help="a sound file (.wav)")
    text = f"the figure, a .png (default: {FIGURE})"
    command.add_argument("--out", type=Path, default=FIGURE, help=text)
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
