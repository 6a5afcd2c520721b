"""What `python -m benchmarks compile-slice` can be told."""

import argparse
from pathlib import Path
from typing import NamedTuple

from benchmarks.options import positive

TOPOLOGIES = "v5e:16x16", "v6e:16x16", "v4:8x8x4"
QUICK = "v5e:2x4"


class Sizes(NamedTuple):
    hidden: int = 1024
    layers: int = 2
    embedding: int = 256
    rows: int = 16
    window: int = 256


SMALL = Sizes(hidden=128, embedding=128, window=32)
MEANING = "of a layer; layers; of a token; rows of a chip; steps of a row".split("; ")


def add(parser: argparse.ArgumentParser) -> None:
    text = f"such as {', '.join(TOPOLOGIES)}, the default"
    how = {"nargs": "*", "default": TOPOLOGIES, "metavar": "NAME:AxBxC", "help": text}
    parser.add_argument("topologies", **how)
    for (name, default), text in zip(Sizes()._asdict().items(), MEANING, strict=True):
        how = {"default": default, "metavar": "N", "help": f"{text}; {default}"}
        parser.add_argument(f"--{name}", type=positive, **how)
    text = f"{QUICK}, a small model"
    parser.add_argument("--quick", action="store_true", help=text)
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines")
