"""What `python -m benchmarks real` can be told."""

import argparse
from pathlib import Path

from benchmarks.options import positive, some_of, whole
from benchmarks.real.cases import MODELS, SIZES


def add(parser: argparse.ArgumentParser, folder: Path) -> None:
    text = f"some of {', '.join(MODELS)}"
    how = {"default": [*MODELS], "metavar": "A,B", "help": text}
    parser.add_argument("--models", type=some_of(MODELS), **how)
    parser.add_argument("--size", choices=[*SIZES], default="default")
    text = "training steps whose losses are compared"
    parser.add_argument("--steps", type=positive, default=200, help=text)
    text = "timed rounds, fewer where a step takes long; 0 times nothing"
    parser.add_argument("--rounds", type=whole, default=15, help=text)
    parser.add_argument("--device", choices=("cpu", "gpu", "tpu"), default="cpu")
    text = "go on with the newest run, leaving out the models that it has"
    parser.add_argument("--resume", action="store_true", help=text)
    text = "load above which nothing is measured (default: half of the cores)"
    parser.add_argument("--max-load", type=float, metavar="N", help=text)
    results = folder / "results" / "real"
    parser.add_argument("--results", type=Path, default=results, metavar="FOLDER")
    text = "measure nothing, and write the table of a page from the newest rows"
    parser.add_argument("--report", action="store_true", help=text)
    parser.add_argument("--page", type=Path, default=folder / "scan.md")
