"""Types of command-line arguments; what is wrong with one is said in one line."""

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from benchmarks.errors import UsageError


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


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
