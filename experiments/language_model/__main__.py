"""Trains a character model on text, and writes text with it."""

import sys

from experiments.frame.cli import CommandLine
from experiments.frame.options import SEED, WHOLE, number, shown
from experiments.language_model.settings import Settings

SAMPLING = {
    "prompt": (str, "", "text to go on from"),
    "length": (WHOLE, 500, "characters to write"),
    "temperature": (number(float, 0), 0.8, "0 always takes the likeliest"),
    "top-p": (number(float, 0, 1, above=True), 0.95, "share of probability drawn from"),
}


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("language_model", __doc__)
    title = "the text, the model and its training"
    train = line.add_train(title, Settings(), data_dir=True)
    generate = line.add("generate", "write text from a checkpoint", run=True)
    for command in (train, generate):
        group = command.add_argument_group("the sample")
        for name, (kind, default, text) in SAMPLING.items():
            text = shown(text, default)
            group.add_argument(f"--{name}", type=kind, default=default, help=text)
    generate.add_argument("--seed", type=SEED, default=0, help="of the draws")
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
