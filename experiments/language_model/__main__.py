"""Trains a character model on text, and writes text with it."""

import sys
from pathlib import Path
from typing import Any

from experiments.command import (
    SEED,
    TRAINING,
    WHOLE,
    Parser,
    add_data_dir,
    add_run,
    add_settings,
    answer,
    number,
    shown,
)
from experiments.language_model.settings import Settings

RUN = Path("runs/language_model")

SAMPLING = {
    "prompt": (str, "", "text to go on from"),
    "length": (WHOLE, 500, "characters to write"),
    "temperature": (number(float, 0), 0.8, "0 always takes the likeliest"),
    "top-p": (number(float, 0, 1, above=True), 0.95, "share of probability drawn from"),
}
SETTINGS = {
    "data": (
        str,
        "UTF-8 text file, tinyshakespeare or warpeace; without it, Python's "
        "own documentation",
    ),
    "held-out": (number(float, 0, 0.9, above=True), "share of the text, at its end"),
    "cell": (str, "rnn, lstm or gru"),
    "layers": (WHOLE, "layers, one over the other"),
    "hidden": (WHOLE, "width of the state"),
    "embedding": (WHOLE, "width of a character's vector"),
    "dropout": (number(float, 0, 0.95), "probability, between layers and at the head"),
    "batch": (WHOLE, "streams of text read side by side"),
    "window": (WHOLE, "steps of truncated backpropagation"),
    **TRAINING,
    "seed": (SEED, "of weights, text offsets, dropout and sample"),
}


def parser() -> Parser:
    main = Parser(prog="language_model", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, evaluate, sample and report")
    generate = commands.add_parser("generate", help="write text from a checkpoint")

    for command in (train, generate):
        group = command.add_argument_group("the sample")
        for name, (kind, default, text) in SAMPLING.items():
            text = shown(text, default)
            group.add_argument(f"--{name}", type=kind, default=default, help=text)
    generate.add_argument("--seed", type=SEED, default=0, help="of the draws")
    generate.add_argument("--run", type=Path, default=RUN, help=f"(default: {RUN})")

    add_run(train, RUN)
    add_data_dir(train)
    title = "the text, the model and its training"
    choices = {"cell": ("rnn", "lstm", "gru")}
    add_settings(train, title, SETTINGS, Settings, choices)
    return main


def run(options: dict[str, Any]) -> int:
    # here, so that --help and a bad option answer at once
    from experiments.language_model import run, sample

    command = options.pop("command")
    take = lambda *names: {name: options.pop(name) for name in names}
    asked = take("prompt", "length", "temperature", "top_p")
    sampling = sample.Sampling(**asked, seed=options.get("seed", Settings.seed))
    if command == "train":
        own = take("out", "data_dir", "resume", "save_seconds")
        return run.train(options, sampling=sampling, **own)
    model, vocabulary = sample.load(options["run"])
    sampling.check_prompt(vocabulary)
    print(sample.sample(model, vocabulary, sampling))
    return 0


def main(argv: list[str] | None = None) -> int:
    options: dict[str, Any] = vars(parser().parse_args(argv))
    return answer("language_model", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
