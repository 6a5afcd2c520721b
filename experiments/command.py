"""What the commands of all experiments share: numbers, errors, exit codes."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from experiments.errors import InputError

INF = float("inf")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def number(kind: type, low: float, high: float = INF, *, above=False) -> Callable:
    """An argparse type: a number from `low`, or only `above` it, to `high`."""

    def parse(string: str) -> float:
        expected = "a whole number" if kind is int else "a number"
        expected += f" above {low:g}" if above else f" of at least {low:g}"
        expected += f" and at most {high:g}" if high < INF else ""
        try:
            value = kind(string)
        except ValueError:
            value = INF
        if not low <= value <= high or value == INF or (above and value == low):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {string}")
        return value

    return parse


SEED = number(int, 0, 2**31 - 1)


def shown(text: str, default: object) -> str:
    return f"{text} (default: {default!r})"


def answer(name: str, run: Callable[[], int]) -> int:
    """The exit code of `run`; what the user can mend is said in one line."""
    try:
        return run()
    except InputError as e:
        message, code = f"error: {e}", 2
    except BrokenPipeError:  # the reader has all it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        message, code = f"error: {e.filename or 'writing'}: {e.strerror or e}", 2
    except (RuntimeError, MemoryError) as e:  # XLA's when it cannot allocate
        if isinstance(e, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(e):
            raise
        message, code = "error: out of memory: try a smaller model or batch", 2
    except KeyboardInterrupt:
        message, code = "interrupted; what was saved is kept", 130
    print(f"{name}: {message}", file=sys.stderr)
    return code
