"""What `python -m benchmarks scan` can be told."""

import argparse
from pathlib import Path

from benchmarks.cases import BOTH
from benchmarks.options import DEVICES, choices, measuring, reporting, shape
from benchmarks.scan.cases import BODIES, SHAPES


def add(parser: argparse.ArgumentParser, folder: Path) -> None:
    choices(parser, "bodies", [*BODIES])
    choices(parser, "modes", BOTH)
    how = {"default": SHAPES, "metavar": "B,T,D,H", "help": "any, H divisible by 8"}
    parser.add_argument("--shapes", type=shape, nargs="+", **how)
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    measuring(parser, folder / "results" / "scan", rounds=7)
    reporting(parser, folder / "scan.md")
