"""Trains translation models on pairs of sentences, and translates with them."""

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
from experiments.translation.settings import (
    MODELS,
    MULTI30K_TESTS,
    PRESETS,
    Settings,
)

RUN = Path("runs/translation")
REPORT = Path("runs/translation-report")
SETTINGS = {
    "data": (str, f"{', '.join(PRESETS)}, a table of two columns (.tsv, .csv), or the "
             "sources' file, with --target"),
    "target": (str, "file of the targets, line by line those of --data"),
    "joined": (WHOLE, "most sentences joined to one"),
    "pieces": (number(int, 0), "subwords in each vocabulary; 0 for characters"),
    "longest": (WHOLE, "tokens of the longest sentence taken, its end counted"),
    "model": (str, "the model"),
    "cell": (str, "of a recurrent model"),
    "layers": (WHOLE, "layers, of the encoder and of the decoder"),
    "hidden": (WHOLE, "width of the states, or of the Transformer"),
    "embedding": (WHOLE, "width of a token's vector, in a recurrent model"),
    "score": (str, "of the attention; the paper's concat is additive (default: "
              "additive with bahdanau, general with luong)"),
    "heads": (WHOLE, "heads of the Transformer, or of multi_head"),
    "dropout": (number(float, 0, 0.95), "probability"),
    "label-smoothing": (number(float, 0, 0.95), "probability spread over all tokens"),
    "tokens": (WHOLE, "tokens of a batch, padding counted"),
    **TRAINING,
    "warmup": (number(int, 0), "steps in which the learning rate rises, at most a "
               "tenth of all"),
    "held-out": (number(float, 0, 0.3, above=True), "share held out of own data, "
                 "and as much to test"),
    "seed": (SEED, "of weights, order and dropout"),
    "lower": (bool, "in lower case"),
    "feed": (bool, "input feeding (luong)"),
    "header": (bool, "the first line of a table names its columns"),
}  # fmt: skip
CHOICES = {
    "model": MODELS,
    "cell": ("rnn", "lstm", "gru"),
    "score": ("additive", "general", "multi_head"),
}
SEARCH = {
    "beam": (WHOLE, 5, "sequences kept at each step"),
    "length-penalty": (number(float, 0), 1.0, "of Wu and others, 2016"),
}


def parser() -> Parser:
    main = Parser(prog="translation", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    add = lambda name, text: commands.add_parser(name, help=text)
    train = add("train", "train, evaluate on the test pairs and report")
    evaluate = add("evaluate", "BLEU and perplexity of a checkpoint")
    translate = add("translate", "translate a file, or what is typed")
    report = add("report", "several evaluated runs side by side")

    for command in (train, evaluate, translate):
        group = command.add_argument_group("the search")
        for name, (kind, default, text) in SEARCH.items():
            text = shown(text, default)
            group.add_argument(f"--{name}", type=kind, default=default, help=text)
    for command in (train, evaluate):
        add_data_dir(command)
    for command in (evaluate, translate):
        command.add_argument("--run", type=Path, default=RUN, help=f"(default: {RUN})")
    text = "another test set of multi30k"
    evaluate.add_argument("--test", choices=MULTI30K_TESTS, help=text)
    text = "join two to this many sentences (default: as in training)"
    evaluate.add_argument("--joined", type=WHOLE, help=text)
    text = "a file, a sentence a line; else what is typed"
    translate.add_argument("--input", type=Path, help=text)
    text = shown("translations of each sentence, with scores", 1)
    translate.add_argument("--n-best", type=WHOLE, default=1, help=text)
    text = "folders of runs that were evaluated; the maps are theirs"
    report.add_argument("--runs", type=Path, nargs="+", default=[], help=text)
    text = "rows of other runs, as this command writes them into results.jsonl"
    report.add_argument("--results", type=Path, help=text)
    report.add_argument("--out", type=Path, default=REPORT, help=f"(default: {REPORT})")

    add_run(train, RUN, 60.0)
    title = "the data, the model and its training (defaults are those for dates; "
    title += "other data have their own, which training shows at its start)"
    add_settings(train, title, SETTINGS, Settings, CHOICES)
    return main


def run(options: dict[str, Any]) -> int:
    # here, so that --help and a bad option answer at once
    from experiments.errors import InputError
    from experiments.translation import run
    from experiments.translation.translate import Search

    command = options.pop("command")
    take = lambda *names: {name: options.pop(name) for name in names}
    if command == "report":
        if not options["runs"] and options["results"] is None:
            raise InputError("report: --runs or --results, or both, are needed")
        return run.report_runs(**options)
    n_best = options.pop("n_best", 1)
    if n_best > options["beam"]:
        raise InputError(f"--n-best {n_best}: more than --beam {options['beam']}")
    how = Search(n_best=n_best, **take("beam", "length_penalty"))
    if command == "train":
        own = take("out", "data_dir", "resume", "save_seconds")
        return run.train(options, how=how, **own)
    if command == "evaluate":
        return run.evaluate_run(**options, how=how)
    return run.translate(options["run"], options["input"], how)


def main(argv: list[str] | None = None) -> int:
    options: dict[str, Any] = vars(parser().parse_args(argv))
    for name in ("data", "target"):  # the same file from any folder
        if name in options and Path(options[name]).is_file():
            options[name] = str(Path(options[name]).resolve())
    return answer("translation", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
