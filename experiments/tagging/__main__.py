"""Trains taggers of sequences, and tags words or Python source with them."""

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
)
from experiments.tagging.settings import ENTITIES, PARTS_OF_SPEECH, Settings

RUN = Path("runs/tagging")
REPORT = Path("runs/tagging-report")
SETTINGS = {
    "data": (str, f"python (the source of its library), {', '.join(PARTS_OF_SPEECH)}, "
             f"{', '.join(ENTITIES)}, or a CoNLL file: first column the word, last "
             "the tag (.conllu: FORM and UPOS)"),
    "dev": (str, "such a file to validate on; else a tenth of --data"),
    "test": (str, "such a file to test on; else a tenth of --data"),
    "letters": (bool, "read the letters of each word by a BiLSTM of their own"),
    "jamo": (bool, "read the parts of each letter too, such as jamo"),
    "crf": (bool, "score whole sequences by a CRF, not each tag by a softmax"),
    "layers": (WHOLE, "recurrent layers over the words"),
    "hidden": (WHOLE, "width of their state, of each direction"),
    "embedding": (WHOLE, "width of a word's vector"),
    "letter-hidden": (WHOLE, "width of the state over letters, of each direction"),
    "letter-embedding": (WHOLE, "width of a letter's vector"),
    "least": (WHOLE, "times that a word of the vocabulary is met"),
    "longest": (number(int, 8), "words that are read at a time"),
    "longest-word": (number(int, 2), "letters of a word that are read"),
    "dropout": (number(float, 0, 0.95), "probability"),
    "word-dropout": (number(float, 0, 0.95), "probability that a word is unknown"),
    "batch": (WHOLE, "words of a batch, padding included"),
    **TRAINING,
    "seed": (SEED, "of weights, order and dropout"),
}  # fmt: skip


def parser() -> Parser:
    main = Parser(prog="tagging", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, test and report")
    add_run(train, RUN)
    add_data_dir(train)
    title = "the data, the model and its training (defaults are those for python)"
    add_settings(train, title, SETTINGS, Settings)
    tag = commands.add_parser("tag", help="tag sentences, or colour Python source")
    tag.add_argument("--run", type=Path, default=RUN, help=f"(default: {RUN})")
    text = "a file, a sentence a line, words between spaces, or source; else typed"
    tag.add_argument("--input", type=Path, help=text)
    text = "file to write; else sentences are printed, source is RUN/tagged.html"
    tag.add_argument("--out", type=Path, help=text)
    add_report(commands, REPORT)
    return main


def run(options: dict[str, Any]) -> int:
    # here, so that --help and a bad option answer at once
    from experiments.tagging import run

    command = options.pop("command")
    if command == "tag":
        return run.tag(options["run"], options["input"], options["out"])
    if command == "report":
        return run.report(options["runs"], options["results"], options["out"])
    own = ("out", "data_dir", "resume", "save_seconds")
    return run.run(**{name: options.pop(name) for name in own}, given=options)


def main(argv: list[str] | None = None) -> int:
    options: dict[str, Any] = vars(parser().parse_args(argv))
    if options["command"] == "train":
        for name in ("data", "dev", "test"):
            if name in options and Path(options[name]).is_file():
                options[name] = str(Path(options[name]).resolve())
    return answer("tagging", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
