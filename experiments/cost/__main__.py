"""Measures what recurrent layers cost, beside a Transformer's layer."""

import argparse
import sys
from pathlib import Path
from typing import Any

from experiments.cost.settings import HEADS, Settings
from experiments.frame.cli import CommandLine
from experiments.frame.options import WHOLE, shown

OPTIONS = {
    "lengths": "steps T",
    "batches": "sequences B side by side, of the middle length",
    "long": "steps T for memory, with and without remat",
    "hidden": f"width, a multiple of {HEADS}",
    "batch": "sequences where not B is varied",
    "rounds": "times that each is timed",
    "most-mb": "temporary memory above which a layer is not run",
}


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("cost", __doc__)
    measure = line.add("measure", "measure and report")
    line.add_out(measure, "cost", "folder of the rows and the page; its rows are kept")
    for name, text in OPTIONS.items():
        default = getattr(Settings, name.replace("-", "_"))
        many: Any = {"nargs": "+"} if isinstance(default, tuple) else {}
        measure.add_argument(
            f"--{name}", type=WHOLE, default=argparse.SUPPRESS,
            help=shown(text, default), **many,
        )  # fmt: skip
    report = line.add("report", "the page of rows that are there")
    report.add_argument(
        "--results", dest="results_file", type=Path, required=True, help="results.jsonl"
    )
    line.add_out(report, "cost-report")
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
