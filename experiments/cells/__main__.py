"""Ranks recurrent cells on memory, tagging and language: one budget for all."""

import sys

from experiments.cells.settings import CELLS, TASKS, Settings
from experiments.frame.cli import CommandLine
from experiments.frame.options import WHOLE, number, shown


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("cells", __doc__)
    title = "the task, the cell and its training (defaults are those for adding)"
    text = "one cell on one task"
    line.add_training("train", text, title, Settings(), data_dir=True)

    leave_out = ("task", "cell", "learning_rate", "seed")
    how = {"out": "cells-ranking", "leave_out": leave_out, "data_dir": True}
    text = "every cell on every task, seeds and a table"
    rank = line.add_training("rank", text, title, Settings(), **how)
    tasks, rates = ["adding", "source", "documentation"], [8e-3, 2e-2, 5e-2]
    text = shown(f"of {', '.join(TASKS)}", " ".join(tasks))
    rank.add_argument("--tasks", nargs="+", choices=TASKS, default=tasks,
                      metavar="TASK", help=text)  # fmt: skip
    text = f"of {', '.join(CELLS)} (default: all)"
    rank.add_argument("--cells", nargs="+", choices=CELLS, default=[*CELLS],
                      metavar="CELL", help=text)  # fmt: skip
    text = "learning rates, of which what is held out chooses, and others beyond "
    text = shown(text + "them while the best of several is the first or last", rates)
    rank.add_argument("--rates", nargs="+", type=number(float, 0, above=True),
                      default=rates, help=text)  # fmt: skip
    rank.add_argument("--seeds", type=WHOLE, default=3, help=shown("how many", 3))
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
