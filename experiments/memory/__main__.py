"""Measures what recurrent networks forget: gradients, lengths, gates."""

import sys
from pathlib import Path

from experiments.frame.cli import CommandLine, add_data_dir
from experiments.frame.options import WHOLE, number, shown
from experiments.memory.settings import BEGINNINGS, OF_A_CELL, SMALL, Settings


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("memory", __doc__)
    title = "the problem, the model and its training (defaults are those for adding)"
    line.add_train(title, Settings())

    text, leave_out = "several models at several lengths", ("length", *OF_A_CELL)
    how = {"out": "memory-sweep", "leave_out": leave_out}
    sweep = line.add_training("sweep", text, title, Settings(), **how)
    cells, lengths = ["rnn", "irnn", "lstm", "lstm-chrono", "gru"], [50, 100, 200]
    text = shown("chrono begins with the length as --span", " ".join(cells))
    sweep.add_argument(
        "--cells", nargs="+", choices=[*BEGINNINGS], default=cells, help=text
    )
    text = shown("of the problem", " ".join(map(str, lengths)))
    sweep.add_argument("--lengths", nargs="+", type=WHOLE, default=lengths, help=text)

    text, small = "what is left of a gradient", Settings(**SMALL)
    how = {"out": "memory-gradients", "leave_out": OF_A_CELL}
    gradients = line.add_training("gradients", text, title, small, **how)
    text = shown("sequences to take the mean of", 20)
    gradients.add_argument("--sequences", type=WHOLE, default=20, help=text)

    gates = line.add("gates", "a text coloured by units of an LSTM")
    run = Path("runs/language_model")
    text = f"a run of experiments.language_model (default: {run})"
    gates.add_argument("--run", type=Path, default=run, help=text)
    text = "a text of one's own; else what was held out"
    gates.add_argument("--input", type=Path, help=text)
    add_data_dir(gates)
    gates.add_argument("--layer", type=WHOLE, help="from 1; else the last")
    text = "units to show, from 0; else those that tell most of what a reader sees"
    kind = number(int, 0)
    gates.add_argument("--unit", type=kind, nargs="+", default=[], help=text)
    text = shown("characters to show", 1200)
    gates.add_argument("--length", type=WHOLE, default=1200, help=text)
    line.add_out(gates, "memory-gates")

    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
