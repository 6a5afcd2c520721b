"""Trains translation models on pairs of sentences, and translates with them."""

import sys
from pathlib import Path

from experiments.frame.cli import CommandLine, add_data_dir
from experiments.frame.options import WHOLE, number, shown
from experiments.translation.settings import MULTI30K_TESTS, Settings

SEARCH = {
    "beam": (WHOLE, 5, "sequences kept at each step"),
    "length-penalty": (number(float, 0), 1.0, "of Wu and others, 2016"),
}


def main(argv: list[str] | None = None) -> int:
    line = CommandLine("translation", __doc__)
    title = "the data, the model and its training (defaults are those for dates; "
    title += "other data have their own, which training shows at its start)"
    train = line.add_train(title, Settings(), data_dir=True, save_seconds=60.0)
    evaluate = line.add("evaluate", "BLEU and perplexity of a checkpoint", run=True)
    translate = line.add("translate", "translate a file, or what is typed", run=True)
    for command in (train, evaluate, translate):
        group = command.add_argument_group("the search")
        for name, (kind, default, text) in SEARCH.items():
            text = shown(text, default)
            group.add_argument(f"--{name}", type=kind, default=default, help=text)
    add_data_dir(evaluate)
    text = "another test set of multi30k"
    evaluate.add_argument("--test", choices=MULTI30K_TESTS, help=text)
    text = "join two to this many sentences (default: as in training)"
    evaluate.add_argument("--joined", type=WHOLE, help=text)
    text = "a file, a sentence a line; else what is typed"
    translate.add_argument("--input", type=Path, help=text)
    text = shown("translations of each sentence, with scores", 1)
    translate.add_argument("--n-best", type=WHOLE, default=1, help=text)
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main())
