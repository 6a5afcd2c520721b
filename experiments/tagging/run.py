"""The commands: train, tag, report."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments import data, files, fit, results
from experiments.checkpoint import make_folder
from experiments.errors import refuse
from experiments.page import write_page
from experiments.tagging import corpus, train
from experiments.tagging.corpus import Sentence, Vocabulary
from experiments.tagging.report import coloured, label, legend, write_report
from experiments.tagging.settings import OF_LETTERS, Settings, defaults

# what a checkpoint cannot go on with if it is changed
FIXED = ("data", "dev", "test", "letters", "jamo", "crf", "layers", "hidden",
         "embedding", "letter_hidden", "letter_embedding", "least", "longest",
         "longest_word", "batch", "seed")  # fmt: skip


def run(given: dict[str, Any], out: Path, *, data_dir: Path | None, **how: Any) -> int:
    """Trains, tests and reports; returns the exit code."""
    loaded: Any = None

    def make(settings: Settings) -> tuple[fit.Fit, dict[str, Any]]:
        nonlocal loaded
        if settings.data not in corpus.FILES:
            where = f"with the data {settings.data}"
            refuse({"data_dir": data_dir}, ["data_dir"], where)
        if not settings.letters:
            refuse(given, OF_LETTERS, "without --letters")
        loaded = corpus.load(settings, data_dir)
        made, facts = train.make(settings, loaded)
        make_folder(out.parent)
        sizes = (len(part) for part in loaded[:3])
        numbers = "{:,} texts to train on, {:,} held out, {:,} to test".format(*sizes)
        own = loaded.vocabulary
        print(
            f"{train.title(settings)}: {numbers}; {len(own.tags)} tags, "
            f"{len(own.words):,} words, {len(own.letters):,} letters."
        )
        return made, facts

    preset = defaults(given.get("data", Settings.data))
    if not given.get("letters", True):
        preset = replace(preset, jamo=False)
    done = fit.run(given, preset, FIXED, make, out, **how)
    if done is None:
        return 130
    trained, facts = done
    settings = trained.settings
    said = train.Answers(trained.model, settings, loaded.vocabulary)(loaded.test)
    found = train.scores(said, loaded)
    name, digest = f"{train.title(settings)}, test", loaded.digests[1]
    result = fit.write_result(out, facts, name, digest, found)
    shown = ", ".join(f"{score} {value:.2f}%" for score, value in found.items())
    print(f"{name}: {shown}; {facts['seconds'] / 60:.1f} minutes of training.")
    print(f"Report: {write_report(out, facts, result, trained.model, loaded, said)}")
    return 0


def tag(run: Path, path: Path | None, out: Path | None) -> int:
    """Words with their tags, a sentence a line; or a page of coloured source."""
    model, settings, facts = fit.load(run, Settings, train.make_model)
    answers = train.Answers(model, settings, Vocabulary(**facts["vocabulary"]))
    if settings.data == "python":
        text = sys.stdin.read() if path is None else data.read(path)
        name = "source" if path is None else path.name
        made = f"{legend()}\n{coloured(text, answers([Sentence(text, [])])[0])}"
        page = write_page(out or run / "tagged.html", name, made)
        print(f"Coloured: {page}")
        return 0
    # what is typed is answered line by line, a file as a whole
    pieces = ([line] for line in sys.stdin) if path is None else [data.lines(path)]
    written = []
    for lines in pieces:
        sentences = [Sentence(line.split(), []) for line in lines]
        there = [s for s in sentences if s.words]
        tags = iter(answers(there) if there else [])
        for words, _ in sentences:
            pairs = zip(words, next(tags) if words else [], strict=True)
            row = " ".join(f"{word}/{tag}" for word, tag in pairs)
            written.append(row)
            if out is None:
                print(row, flush=True)
    if out is not None:
        files.write(out, "".join(f"{row}\n" for row in written))
    return 0


def report(runs: list[Path], results_file: Path | None, out: Path) -> int:
    return results.report("Tagging", runs, results_file, out, label,
                          digits={"accuracy": 2})  # fmt: skip
