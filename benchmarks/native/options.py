"""What `python -m benchmarks native` can be told."""

import argparse
from pathlib import Path

from benchmarks.cases import BOTH
from benchmarks.native.cases import PARTS
from benchmarks.options import choices, measuring, reporting, shape


def add(parser: argparse.ArgumentParser, folder: Path) -> None:
    choices(parser, "parts", [*PARTS])
    choices(parser, "modes", BOTH)
    text = "of any sizes, instead of those of each part"
    parser.add_argument("--shapes", type=shape, nargs="+", metavar="B,T,D,H", help=text)
    measuring(parser, folder / "results" / "native", rounds=5)
    reporting(parser, folder / "native.md")
