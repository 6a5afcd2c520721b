"""Trains networks that are blind to order, and recurrent ones, on the same task."""

import sys
from pathlib import Path
from typing import Any

from experiments.classification import __main__ as classification
from experiments.command import (
    Parser,
    add_data_dir,
    add_report,
    add_run,
    add_settings,
    answer,
    shown,
)
from experiments.order.settings import BINARY, MODELS, defaults

RUN = Path("runs/order")
REPORT = Path("runs/order-report")
FIRST = defaults("first")
SETTINGS = {
    name: row
    for name, row in classification.SETTINGS.items()
    if name not in ("data", "model")
}


def parser() -> Parser:
    main = Parser(prog="order", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, test and report")
    text = f"{', '.join(BINARY)}, or a table of texts and labels (.tsv)"
    train.add_argument("--task", default=FIRST.data, help=shown(text, FIRST.data))
    text = "which, each in a run of its own (default: all five)"
    options: Any = {"choices": MODELS, "nargs": "+", "default": [*MODELS]}
    train.add_argument("--models", metavar="MODEL", help=text, **options)
    add_run(train, RUN)
    add_data_dir(train)
    title = "the models and their training (defaults are those for first)"
    add_settings(train, title, SETTINGS, FIRST, classification.CHOICES)
    add_report(commands, REPORT)
    return main


def run(options: dict[str, Any]) -> int:
    # here, so that --help and a bad option answer at once
    from experiments.order import run

    command = options.pop("command")
    if command == "report":
        return run.report(options["runs"], options["results"], options["out"])
    own = ("task", "models", "out", "data_dir", "resume", "save_seconds")
    return run.train(**{name: options.pop(name) for name in own}, given=options)


def main(argv: list[str] | None = None) -> int:
    options: dict[str, Any] = vars(parser().parse_args(argv))
    if "task" in options and Path(options["task"]).is_file():
        options["task"] = str(Path(options["task"]).resolve())
    return answer("order", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
