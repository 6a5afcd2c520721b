"""Measures what recurrent layers cost, beside a Transformer's layer."""

import argparse
import sys
from pathlib import Path
from typing import Any

from experiments.command import WHOLE, Parser, answer, shown
from experiments.cost.settings import HEADS, Settings

RUN = Path("runs/cost")
REPORT = Path("runs/cost-report")
OPTIONS = {
    "lengths": (WHOLE, "steps T"),
    "batches": (WHOLE, "sequences B side by side, of the middle length"),
    "long": (WHOLE, "steps T for memory, with and without remat"),
    "hidden": (WHOLE, f"width, a multiple of {HEADS}"),
    "batch": (WHOLE, "sequences where not B is varied"),
    "rounds": (WHOLE, "times that each is timed"),
    "most-mb": (WHOLE, "temporary memory above which a layer is not run"),
}


def parser() -> Parser:
    main = Parser(prog="cost", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="measure and report")
    text = f"folder of the rows and the page; rows there are kept (default: {RUN})"
    measure.add_argument("--out", type=Path, default=RUN, help=text)
    for name, (kind, text) in OPTIONS.items():
        default = getattr(Settings, name.replace("-", "_"))
        many = {"nargs": "+"} if isinstance(default, tuple) else {}
        options: Any = {"type": kind, "help": shown(text, default), **many}
        measure.add_argument(f"--{name}", default=argparse.SUPPRESS, **options)
    report = commands.add_parser("report", help="the page of rows that are there")
    report.add_argument("--results", type=Path, required=True, help="results.jsonl")
    report.add_argument("--out", type=Path, default=REPORT, help=f"(default: {REPORT})")
    return main


def run(options: dict[str, Any]) -> int:
    # here, so that --help and a bad option answer at once
    from experiments import results
    from experiments.checkpoint import make_folder
    from experiments.cost import measure
    from experiments.cost.report import write_report
    from experiments.errors import InputError

    command, out = options.pop("command"), options.pop("out")
    if command == "report":
        rows = results.read_rows(options["results"], measure.KEYS)
        if not rows:
            raise InputError(f"{options['results']}: no rows")
        make_folder(out)
    else:
        several = {k: tuple(v) for k, v in options.items() if isinstance(v, list)}
        options.update(several)
        settings = Settings(**options)
        if settings.hidden % HEADS:
            raise InputError(f"--hidden {settings.hidden}: not a multiple of {HEADS}")
        make_folder(out)
        rows = measure.measure_all(settings, out / "results.jsonl")
    print(f"\nReport: {write_report(out, rows)}")
    return 0


def main(argv: list[str] | None = None) -> int:
    options: dict[str, Any] = vars(parser().parse_args(argv))
    return answer("cost", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
