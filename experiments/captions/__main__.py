"""Trains a speller of what an image shows, in ten languages, from one vector."""

import sys
from pathlib import Path
from typing import Any

from experiments.captions.settings import ENCODERS, Settings
from experiments.command import (
    SEED,
    TRAINING,
    WHOLE,
    Parser,
    add_report,
    add_run,
    add_settings,
    answer,
    number,
)

RUN = Path("runs/captions")
REPORT = Path("runs/captions-report")
SETTINGS = {
    "encoder": (str, "an LSTM that reads the rows, or one layer over all pixels"),
    "hidden": (WHOLE, "width of the vector and of the states"),
    "embedding": (WHOLE, "width of a letter's vector"),
    "dropout": (number(float, 0, 0.95), "probability"),
    "beam": (WHOLE, "names kept in the search, when tested"),
    "batch": (WHOLE, "images of a batch, each with one language"),
    **TRAINING,
    "seed": (SEED, "of weights, order and dropout"),
}  # fmt: skip


def parser() -> Parser:
    main = Parser(prog="captions", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, test and report")
    add_run(train, RUN)
    title = "the model and its training"
    add_settings(train, title, SETTINGS, Settings, {"encoder": ENCODERS})
    caption = commands.add_parser("caption", help="name images of the test")
    caption.add_argument("--run", type=Path, default=RUN, help=f"(default: {RUN})")
    text = "their numbers (default: 0 to 9)"
    whole = number(int, 0)
    caption.add_argument("--images", type=whole, nargs="+", default=[*range(10)],
                         help=text)  # fmt: skip
    text = "their names in English (default: all)"
    caption.add_argument("--languages", nargs="+", help=text)
    text = "names kept in the search, 1 for greedy (default: that of the run)"
    caption.add_argument("--beam", type=WHOLE, help=text)
    add_report(commands, REPORT)
    return main


def run(options: dict[str, Any]) -> int:
    # here, so that --help and a bad option answer at once
    from experiments.captions import run

    command = options.pop("command")
    if command == "caption":
        names = ("run", "images", "languages", "beam")
        return run.caption(*(options[name] for name in names))
    if command == "report":
        return run.report(options["runs"], options["results"], options["out"])
    own = ("out", "resume", "save_seconds")
    return run.run(**{name: options.pop(name) for name in own}, given=options)


def main(argv: list[str] | None = None) -> int:
    options: dict[str, Any] = vars(parser().parse_args(argv))
    return answer("captions", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
