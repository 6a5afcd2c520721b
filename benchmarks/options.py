"""Arguments of the commands; what is wrong with one is said in one line."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks.errors import UsageError

DEVICES = ("cpu", "gpu", "tpu")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def choices(
    parser: argparse.ArgumentParser, name: str, known: Sequence[str], all: bool = True
) -> None:
    """An option that takes some of the names; by default `all` of them, or None."""
    how = {"type": some_of(known), "default": [*known] if all else None}
    text = f"some of {', '.join(known)}"
    parser.add_argument(f"--{name}", metavar="A,B", help=text, **how)


def measuring(
    parser: argparse.ArgumentParser,
    results: Path,
    rounds: int | None,
    text: str = "timed rounds, fewer for slow calls; 0 only checks the results",
) -> None:
    """What every command that measures can be told."""
    parser.add_argument("--rounds", type=whole, default=rounds, help=text)
    text = "leave out what has been measured with the library as it is now"
    parser.add_argument("--resume", action="store_true", help=text)
    text = "load above which nothing is measured (default: half of the cores)"
    parser.add_argument("--max-load", type=float, metavar="N", help=text)
    parser.add_argument("--results", type=Path, default=results, metavar="FOLDER")


def reporting(parser: argparse.ArgumentParser, page: Path) -> None:
    text = "measure nothing, and write what a page shows from the newest rows"
    parser.add_argument("--report", action="store_true", help=text)
    parser.add_argument("--page", type=Path, default=page)


def some_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        for name in text.split(","):
            if name not in names:
                known = ", ".join(names)
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {known}")
        return [n for n in names if n in text.split(",")]

    return parse


def whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    if not whole(text):
        raise argparse.ArgumentTypeError(f"1 or more, got {text!r}")
    return int(text)


def shape(text: str) -> tuple[int, int, int, int]:
    """`B,T,D,H`, of any sizes."""
    sizes = text.split(",")
    if len(sizes) != 4:
        raise argparse.ArgumentTypeError(f"B,T,D,H, got {text!r}")
    B, T, D, H = map(positive, sizes)
    return B, T, D, H
