"""Measures what recurrent layers cost, beside a Transformer's layer."""

import sys
from pathlib import Path

from experiments.cost.settings import Settings
from experiments.frame.cli import CommandLine
from experiments.frame.options import add_settings


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("cost", __doc__)
    measure = line.add("measure", "measure and report")
    line.add_out(measure, "cost", "folder of the rows and the page; its rows are kept")
    add_settings(measure, "the layers", Settings())
    report = line.add("report", "the page of rows that are there")
    report.add_argument(
        "--results", dest="results_file", type=Path, required=True, help="results.jsonl"
    )
    line.add_out(report, "cost-report")
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
