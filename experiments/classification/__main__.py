"""Trains classifiers of sequences, and classifies texts with them."""

import sys
from pathlib import Path
from typing import Any

from experiments.classification.settings import (
    IMAGES,
    MODELS,
    POOLINGS,
    TEXTS,
    Settings,
)
from experiments.command import (
    SEED,
    TRAINING,
    WHOLE,
    Parser,
    add_data_dir,
    add_report,
    add_run,
    add_settings,
    answer,
    number,
)

RUN = Path("runs/classification")
REPORT = Path("runs/classification-report")
SETTINGS = {
    "data": (str, f"{', '.join((*IMAGES, *TEXTS))}, or a table of texts and labels "
             "(.tsv)"),
    "model": (str, "each and bag are feed-forward"),
    "pooling": (str, "over time, of a recurrent model"),
    "layers": (WHOLE, "recurrent layers"),
    "hidden": (WHOLE, "width of the state, of each direction"),
    "embedding": (WHOLE, "width of a token's vector"),
    "units": (str, "what a token is"),
    "least": (WHOLE, "times that a token of the vocabulary is met"),
    "longest": (WHOLE, "tokens of a text that are read"),
    "shuffled": (bool, "put the words of each text in an order of chance"),
    "dropout": (number(float, 0, 0.95), "probability"),
    "word-dropout": (number(float, 0, 0.95), "probability that a token is unknown"),
    "batch": (WHOLE, "examples of a batch"),
    **TRAINING,
    "seed": (SEED, "of weights, order and dropout"),
}  # fmt: skip
CHOICES = {"model": MODELS, "pooling": POOLINGS, "units": ("words", "characters")}


def parser() -> Parser:
    main = Parser(prog="classification", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, test and report")
    add_run(train, RUN)
    add_data_dir(train)
    title = "the data, the model and its training (defaults are those for digits)"
    add_settings(train, title, SETTINGS, Settings, CHOICES)
    classify = commands.add_parser("classify", help="label lines of text")
    classify.add_argument("--run", type=Path, default=RUN, help=f"(default: {RUN})")
    text = "a file, a text a line; else what is typed"
    classify.add_argument("--input", type=Path, help=text)
    add_report(commands, REPORT)
    return main


def run(options: dict[str, Any]) -> int:
    # here, so that --help and a bad option answer at once
    from experiments.classification import run

    command = options.pop("command")
    if command == "classify":
        return run.classify(options["run"], options["input"])
    if command == "report":
        return run.report(options["runs"], options["results"], options["out"])
    own = ("out", "data_dir", "resume", "save_seconds")
    return run.run(**{name: options.pop(name) for name in own}, given=options)


def main(argv: list[str] | None = None) -> int:
    options: dict[str, Any] = vars(parser().parse_args(argv))
    if "data" in options and Path(options["data"]).is_file():
        options["data"] = str(Path(options["data"]).resolve())
    return answer("classification", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
