"""What `python -m benchmarks real` can be told."""

import argparse
from pathlib import Path

from benchmarks.options import DEVICES, choices, measuring, positive, reporting
from benchmarks.real.cases import MODELS, SIZES


def add(parser: argparse.ArgumentParser, folder: Path) -> None:
    choices(parser, "models", MODELS)
    parser.add_argument("--size", choices=[*SIZES], default="default")
    text = "training steps whose losses are compared"
    parser.add_argument("--steps", type=positive, default=200, help=text)
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    measuring(parser, folder / "results" / "real", rounds=15)
    reporting(parser, folder / "scan.md")
