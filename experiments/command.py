"""What the commands of all experiments share: numbers, errors, exit codes."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

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
WHOLE = number(int, 1)
# settings of every training; what a batch holds and a seed draws differs
TRAINING: Mapping[str, tuple[Any, str]] = {
    "steps": (WHOLE, "updates of the weights"),
    "learning-rate": (number(float, 0), "its peak, after the warm-up"),
    "weight-decay": (number(float, 0), "of AdamW"),
}


def shown(text: str, default: object) -> str:
    return f"{text} (default: {default!r})"


def add_run(command: Any, out: Path, save_seconds: float = 30.0) -> None:
    """The options of a training that is saved: --out, --resume, --save-seconds."""
    group = command.add_argument_group("the run")
    group.add_argument("--out", type=Path, default=out, help=f"(default: {out})")
    text = "go on from the newest checkpoint in --out, if there is one"
    group.add_argument("--resume", action="store_true", help=text)
    text = shown("time between checkpoints", save_seconds)
    kind = number(float, 0)
    group.add_argument("--save-seconds", type=kind, default=save_seconds, help=text)


def add_data_dir(command: Any) -> None:
    text = "folder with the files of a data set; else they are downloaded"
    command.add_argument("--data-dir", type=Path, help=text)


def add_settings(
    command: Any,
    title: str,
    settings: Mapping[str, tuple[Any, str]],
    defaults: Any,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Options for fields of `defaults`, by name their kind, or bool, and their text.

    Absent unless given, so that the rest can come from a checkpoint.
    """
    group = command.add_argument_group(title)
    for name, (kind, text) in settings.items():
        default = getattr(defaults, name.replace("-", "_"))
        text = text if default is None else shown(text, default)
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": kind, "choices": (choices or {}).get(name)}
        group.add_argument(f"--{name}", **options)


def add_report(commands: Any, out: Path) -> None:
    """The command `report`: several runs side by side."""
    report = commands.add_parser("report", help="several runs side by side")
    text = "folders of finished runs"
    report.add_argument("--runs", type=Path, nargs="+", default=[], help=text)
    text = "rows of other runs, as this command writes them into results.jsonl"
    report.add_argument("--results", type=Path, help=text)
    report.add_argument("--out", type=Path, default=out, help=f"(default: {out})")


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
