"""What `python -m benchmarks native` can be told."""

import argparse
from pathlib import Path

from benchmarks.cases import BOTH
from benchmarks.native.cases import PARTS
from benchmarks.options import shape, some_of, whole


def add(parser: argparse.ArgumentParser, folder: Path) -> None:
    for name, names in (("parts", [*PARTS]), ("modes", BOTH)):
        text = f"some of {', '.join(names)}"
        how = {"default": [*names], "metavar": "A,B", "help": text}
        parser.add_argument(f"--{name}", type=some_of(names), **how)
    text = "of any sizes, instead of those of each part"
    parser.add_argument("--shapes", type=shape, nargs="+", metavar="B,T,D,H", help=text)
    text = "timed rounds, fewer where a call takes long; 0 only checks the results"
    parser.add_argument("--rounds", type=whole, default=7, help=text)
    text = "go on with the newest run, leaving out the cases that it has"
    parser.add_argument("--resume", action="store_true", help=text)
    text = "load above which nothing is measured (default: half of the cores)"
    parser.add_argument("--max-load", type=float, metavar="N", help=text)
    results = folder / "results" / "native"
    parser.add_argument("--results", type=Path, default=results, metavar="FOLDER")
    text = "measure nothing, and write the tables and the figure from the newest rows"
    parser.add_argument("--report", action="store_true", help=text)
    parser.add_argument("--page", type=Path, default=folder / "native.md")
