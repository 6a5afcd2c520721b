"""What `python -m benchmarks scan` can be told."""

import argparse
from pathlib import Path

from benchmarks.cases import BOTH
from benchmarks.options import shape, some_of, whole
from benchmarks.scan.cases import BODIES, SHAPES


def add(parser: argparse.ArgumentParser, folder: Path) -> None:
    for name, names in (("bodies", [*BODIES]), ("modes", BOTH)):
        text = f"some of {', '.join(names)}"
        how = {"default": [*names], "metavar": "A,B", "help": text}
        parser.add_argument(f"--{name}", type=some_of(names), **how)
    text = "of any sizes, H divisible by 8"
    how = {"default": SHAPES, "metavar": "B,T,D,H", "help": text}
    parser.add_argument("--shapes", type=shape, nargs="+", **how)
    text = "timed rounds, fewer where a call takes long; 0 only checks the results"
    parser.add_argument("--rounds", type=whole, default=7, help=text)
    parser.add_argument("--device", choices=("cpu", "gpu", "tpu"), default="cpu")
    text = "go on with the newest run, leaving out the cases that it has"
    parser.add_argument("--resume", action="store_true", help=text)
    text = "load above which nothing is measured (default: half of the cores)"
    parser.add_argument("--max-load", type=float, metavar="N", help=text)
    results = folder / "results" / "scan"
    parser.add_argument("--results", type=Path, default=results, metavar="FOLDER")
    text = "measure nothing, and write the tables of a page from the newest rows"
    parser.add_argument("--report", action="store_true", help=text)
    parser.add_argument("--page", type=Path, default=folder / "scan.md")
