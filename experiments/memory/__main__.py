"""Measures what recurrent networks forget: gradients, lengths, gates."""

import sys
from pathlib import Path
from typing import Any

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
    shown,
)
from experiments.memory.settings import BEGINNINGS, CELLS, SMALL, TASKS, Settings

RUN = Path("runs/memory")
SWEEP = Path("runs/memory-sweep")
GRADIENTS = Path("runs/memory-gradients")
GATES = Path("runs/memory-gates")
REPORT = Path("runs/memory-report")
LANGUAGE_MODEL = Path("runs/language_model")
COMMON = {
    "task": (str, "the problem"),
    "hidden": (WHOLE, "width of the state"),
    "batch": (WHOLE, "sequences of a batch"),
    **TRAINING,
    "learning-rate": (number(float, 0), "its peak, after the warm-up; 0.001 for cells "
                      "without gates"),
    "seed": (SEED, "of weights and sequences"),
}  # fmt: skip
LENGTH = {"length": (WHOLE, "steps to add over, or between the symbols and their copy")}
ONE = {
    **LENGTH,
    "cell": (str, "irnn is relu that begins with the identity"),
    "forget-bias": (number(float, -100), "of an LSTM"),
    "span": (number(int, 2), "chrono: gates of an LSTM or a GRU that stay open for up "
             "to so many steps"),
}  # fmt: skip
CHOICES = {"task": TASKS, "cell": CELLS}


def parser() -> Parser:
    main = Parser(prog="memory", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    title = "the problem, the model and its training (defaults are those for adding)"

    train = commands.add_parser("train", help="train and test one model")
    add_run(train, RUN)
    add_settings(train, title, COMMON | ONE, Settings(), CHOICES)

    sweep = commands.add_parser("sweep", help="several models at several lengths")
    add_run(sweep, SWEEP)
    cells = ["rnn", "irnn", "lstm", "lstm-chrono", "gru"]
    text = shown("chrono begins with the length as --span", " ".join(cells))
    sweep.add_argument(
        "--cells", nargs="+", choices=[*BEGINNINGS], default=cells, help=text
    )
    text = shown("of the problem", "50 100 200")
    sweep.add_argument(
        "--lengths", nargs="+", type=WHOLE, default=[50, 100, 200], help=text
    )
    add_settings(sweep, title, COMMON, Settings(), CHOICES)

    gradients = commands.add_parser("gradients", help="what is left of a gradient")
    add_run(gradients, GRADIENTS)
    text = shown("sequences to take the mean of", 20)
    gradients.add_argument("--sequences", type=WHOLE, default=20, help=text)
    small = Settings(**SMALL)
    add_settings(gradients, title, COMMON | LENGTH, small, CHOICES)

    gates = commands.add_parser("gates", help="a text coloured by units of an LSTM")
    text = f"a run of experiments.language_model (default: {LANGUAGE_MODEL})"
    gates.add_argument("--run", type=Path, default=LANGUAGE_MODEL, help=text)
    text = "a text of one's own; else what was held out"
    gates.add_argument("--input", type=Path, help=text)
    add_data_dir(gates)
    gates.add_argument("--layer", type=WHOLE, help="from 1; else the last")
    text = "units to show, from 0; else those that tell most of what a reader sees"
    kind = number(int, 0)
    gates.add_argument("--unit", type=kind, nargs="+", default=[], help=text)
    text = shown("characters to show", 1200)
    gates.add_argument("--length", type=WHOLE, default=1200, help=text)
    gates.add_argument("--out", type=Path, default=GATES, help=f"(default: {GATES})")

    add_report(commands, REPORT)
    return main


def run(options: dict[str, Any]) -> int:
    # here, so that --help and a bad option answer at once
    from experiments.memory import run

    command = options.pop("command")
    take = lambda *names: {name: options.pop(name) for name in names}
    if command == "report":
        return run.report(options["runs"], options["results"], options["out"])
    if command == "gates":
        path, units = options.pop("input"), options.pop("unit")
        return run.show_gates(path=path, units=units, **options)
    own = take("out", "resume", "save_seconds")
    if command == "sweep":
        return run.sweep(cells=options.pop("cells"), lengths=options.pop("lengths"),
                         given=options, **own)  # fmt: skip
    if command == "gradients":
        return run.gradient(sequences=options.pop("sequences"), given=options, **own)
    return run.run(options, **own)


def main(argv: list[str] | None = None) -> int:
    options: dict[str, Any] = vars(parser().parse_args(argv))
    return answer("memory", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
