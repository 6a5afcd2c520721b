"""Options of the command line, each named once: a field of the settings of a run.

    @dataclass(frozen=True)
    class Settings:
        hidden: int = option(96, "width of the state")
        dropout: float = option(0.1, "probability", high=0.95, fixed=False)

is `--hidden` and `--dropout`, in a checkpoint as in `Settings`. A checkpoint cannot go
on with another value of an option that is `fixed`.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

INF = float("inf")


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


WHOLE = number(int, 1)
SEED = number(int, 0, 2**31 - 1)


def file_or_name(text: str) -> str:
    """An argparse type: a file as one path from any folder, or what is none."""
    return str(Path(text).resolve()) if Path(text).is_file() else text


def option(
    default: Any, text: str, *, kind: Callable | None = None, fixed: bool = True,
    choices: Sequence[str] | None = None, **limits: Any,
) -> Any:  # fmt: skip
    """A field of settings that is an option.

    Without `kind`, which parses it, the type of the field decides: whole numbers are
    at least 1 and others at least 0, or within the `limits` of `number`.
    """
    about = {"text": text, "kind": kind, "fixed": fixed, "choices": choices}
    return field(default=default, metadata={**about, "limits": limits})


def steps(default: int) -> Any:
    return option(default, "updates of the weights", fixed=False)


def learning_rate(default: float, more: str = "") -> Any:
    return option(default, f"its peak, after the warm-up{more}", fixed=False)


def weight_decay(default: float) -> Any:
    return option(default, "of AdamW", fixed=False)


# of a table of the user's, whose columns have the two roles


def columns(one: str, other: str) -> Any:
    text = f"what the columns of a table of one's own are, such as {other},{one},_ "
    return option(None, f"{text}(default: {one},{other}, or as its header says)")


def header(one: str, other: str) -> Any:
    text = f"its first row is a header (default: if it names {one} and {other})"
    return option(None, text)


def separator() -> Any:
    text = "of its columns (default: comma in .csv, else tab)"
    return option(None, text, choices=("tab", "comma", "semicolon"))


def seed(text: str) -> Any:
    return option(0, text, kind=SEED)


def fixed(settings: Any) -> list[str]:
    """The options that a checkpoint cannot go on with if they are changed."""
    return [own.name for own in fields(settings) if own.metadata["fixed"]]


def shown(text: str, default: object) -> str:
    return f"{text} (default: {default!r})"


def argument(own: Field, default: Any) -> dict[str, Any]:
    """What argparse needs of a field. Absent unless given: a checkpoint may know it."""
    about, kind = own.metadata, own.type
    many = get_origin(kind) is tuple
    if many or isinstance(kind, UnionType):  # without None
        kind = get_args(kind)[0]
    text = about["text"] if default is None else shown(about["text"], default)
    found: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
    found |= {"nargs": "+"} if many else {}
    if kind is bool:
        return found | {"action": argparse.BooleanOptionalAction}
    parse = about["kind"] or kind
    if parse in (int, float):
        parse = number(parse, **{"low": int(parse is int), **about["limits"]})
    return found | {"type": parse, "choices": about["choices"]}


def add_settings(
    command: Any, title: str, defaults: Any, leave_out: Sequence[str] = ()
) -> None:
    """Options for the fields of settings, whose defaults the help shows."""
    group = command.add_argument_group(title)
    for own in fields(defaults):
        if own.name not in leave_out:
            name = f"--{own.name.replace('_', '-')}"
            group.add_argument(name, **argument(own, getattr(defaults, own.name)))
