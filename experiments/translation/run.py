"""The commands: train, evaluate, translate, report."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from experiments import data, files, training
from experiments.checkpoint import make_folder, refuse_run
from experiments.errors import InputError
from experiments.results import distinct, write_rows
from experiments.translation import compare, corpus, evaluate, report
from experiments.translation.settings import PRESETS, Settings, defaults
from experiments.translation.train import Trainer
from experiments.translation.translate import (
    VOCABULARIES,
    Search,
    Translator,
    load,
    read_vocabularies,
)

# what a checkpoint cannot go on with if it is changed
FIXED = ("data", "target", "header", "lower", "joined", "pieces", "longest", "model",
         "cell", "layers", "hidden", "embedding", "heads", "score", "feed", "tokens",
         "held_out", "seed")  # fmt: skip


def train(
    given: dict[str, Any],
    out: Path,
    *,
    data_dir: Path | None,
    resume: bool,
    save_seconds: float,
    how: Search,
) -> int:
    """Trains, evaluates on the test pairs and reports; returns the exit code."""
    checkpoints, facts = training.open_run(out, resume)
    named = (given.get(name, getattr(Settings, name)) for name in ("data", "model"))
    settings = training.settle(defaults(*named), given, facts, out, FIXED)
    check(settings)
    make_folder(out.parent)  # before minutes of work
    known = None if facts is None else read_vocabularies(out, facts["vocabularies"])
    loaded = corpus.load(settings, data_dir, known)
    if facts is not None:
        check_pairs(settings, loaded.digests, facts, out)
    if not loaded.train:
        raise InputError(f"--data {settings.data}: no pair to train on")
    sizes = " and ".join(f"{len(v):,}" for v in loaded.vocabularies)
    print(
        f"{settings.data}: {len(loaded.train):,} pairs to train on, "
        f"{len(loaded.validation):,} held out, {len(loaded.test):,} to test; "
        f"vocabularies of {sizes}."
    )
    if message := corpus.unknown(loaded.test, loaded.vocabularies):
        print(message, file=sys.stderr)
    plain, own = asdict(Settings()), asdict(settings)
    changed = ", ".join(f"{k} {v}" for k, v in own.items() if plain[k] != v)
    print(f"Other than the defaults: {changed or 'nothing'}.")
    make_folder(out)
    if facts is None:
        for name, made in zip(VOCABULARIES, loaded.vocabularies, strict=True):
            files.write(out / name, made.model)
    trainer = Trainer(settings, loaded)
    print(f"{trainer.shapes} shapes of batches, each compiled when it first comes.")
    digests = [v.digest for v in loaded.vocabularies]
    new = {"vocabularies": digests, "digests": loaded.digests}
    options: Any = {"resume": resume, "save_seconds": save_seconds}
    facts = training.train(trainer, facts, new, checkpoints, out, **options)
    if facts is None:
        return 130
    translator = Translator(settings, trainer.state.weights, loaded.vocabularies)
    step = facts["step"]
    result = tested(out, translator, step, loaded.test, how, "test", settings.joined)
    for row in result["rows"][:3]:
        print(f"\n  {row['source']}\n> {row['hypothesis']}\n= {row['reference']}")
    print(f"\n{evaluate.summary(result)}")
    print(f"{facts['seconds'] / 60:.1f} minutes of training.")
    print(f"Report: {report.write_report(out, facts, result, translator)}")
    return 0


def check(settings: Settings) -> None:
    if settings.data in PRESETS and (settings.target is not None or settings.header):
        raise InputError("--target, --header: belong to files of one's own in --data")
    many = settings.model == "transformer" or settings.score == "multi_head"
    if many and settings.hidden % settings.heads:
        raise InputError(
            f"--heads {settings.heads}: not a divisor of --hidden {settings.hidden}"
        )
    if settings.feed and settings.model != "luong":
        raise InputError("--feed: input feeding belongs to --model luong")
    if settings.score is not None and settings.model not in ("bahdanau", "luong"):
        raise InputError("--score: belongs to --model bahdanau or luong")


def check_pairs(
    settings: Settings, digests: list[str], facts: dict[str, Any], run: Path
) -> None:
    """That these are the pairs of the checkpoint, so that none is tested on them."""
    if facts.get("digests") != digests:
        raise InputError(
            f"--data {settings.data}: not the pairs that the checkpoint in {run} was "
            "trained on"
        )


def tested(
    run: Path,
    translator: Translator,
    step: int,
    pairs: list,
    how: Search,
    name: str,
    joined: int,
) -> dict[str, Any]:
    """Evaluates and writes the result into the folder of the run."""
    model = translator.settings.model
    title = f"{Path(translator.settings.data).name}, {name}"
    if joined > 1:
        number = "2" if joined == 2 else f"2 to {joined}"
        name, title = f"{name}-joined-{joined}", f"{title}, {number} sentences joined"
    if (how.beam, how.length_penalty) != (Search().beam, Search().length_penalty):
        name += f"-beam-{how.beam}-{how.length_penalty:g}"
    result = {"title": title, "model": model, "step": step}
    result |= {"pairs_digest": corpus.digest(pairs)}
    result |= evaluate.evaluate(translator, pairs, how)
    files.write(run / f"evaluation-{name}.json", json.dumps(result, ensure_ascii=False))
    return result


def evaluate_run(
    run: Path, data_dir: Path | None, test: str | None, joined: int | None, how: Search
) -> int:
    translator, facts = load(run)
    settings = translator.settings
    if test is not None and settings.data != "multi30k":
        raise InputError("--test: other test sets are those of multi30k")
    parts = corpus.load_pairs(settings, data_dir)
    check_pairs(settings, [*map(corpus.digest, parts)], facts, run)
    pairs = parts[2]
    if test is not None:
        pairs = corpus.load_pairs(settings, data_dir, test)[2]
    if joined is not None:
        settings = replace(settings, joined=joined)
    pairs = corpus.prepared(pairs, settings, seed=2, least=2)
    if message := corpus.unknown(pairs, (translator.source, translator.target)):
        print(message, file=sys.stderr)
    name = test or "test"
    result = tested(run, translator, facts["step"], pairs, how, name, settings.joined)
    for part in result["by_length"]:
        words = compare.span(part)
        print(f"{words:>11} words: {part['n']:5} sentences, BLEU {part['bleu']:.1f}")
    print(evaluate.summary(result))
    return 0


def translate(run: Path, path: Path | None, how: Search) -> int:
    """Translates a file, or what is typed line by line."""
    translator, _ = load(run)
    if path is not None:
        texts = data.lines(path)
        for i, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"{path}, line {i}: an empty sentence")
            translator.check(text, f"{path}, line {i}")
            if message := translator.unknown(text):
                print(f"{path}, line {i}: {message}", file=sys.stderr)
        for start in range(0, len(texts), PIECE):  # what is done is shown
            piece = texts[start : start + PIECE]
            progress = len(texts) > PIECE
            for found in translator.translate(piece, how, progress=progress):
                show(found)
        return 0
    asked = sys.stdin.isatty()
    if asked:
        print("One sentence a line; an empty line or Ctrl-D ends.", file=sys.stderr)
    for i, line in enumerate(sys.stdin.buffer, 1):
        try:
            try:
                text = line.decode().strip()
            except UnicodeDecodeError as e:
                raise InputError(f"line {i}: not utf-8 text") from e
            if not text and asked:
                break
            if not text:
                raise InputError(f"line {i}: an empty sentence")
            translator.check(text, f"line {i}")
        except InputError as e:  # the others are translated
            print(e, file=sys.stderr)
            print(flush=True)
            continue
        if message := translator.unknown(text):
            print(f"line {i}: {message}", file=sys.stderr)
        show(translator.translate([text], how)[0])
    return 0


PIECE = 512  # sentences of a file translated at a time


def show(found: list) -> None:
    if len(found) == 1:
        print(found[0].text, flush=True)
    else:
        for translation in found:
            print(f"{translation.score:8.3f}  {translation.text}", flush=True)


def report_runs(runs: list[Path], results: Path | None, out: Path) -> int:
    """The page of several runs, and of the rows of `results`, side by side."""
    refuse_run(out)
    rows = [] if results is None else compare.read_rows(results)
    loaded = []
    for run in runs:
        translator, facts = load(run)
        found = [compare.read_result(path) for path in run.glob("evaluation-*.json")]
        if not found:
            raise InputError(f"--runs {run}: not evaluated yet")
        if any(result["step"] != facts["step"] for result in found):
            raise InputError(
                f"--runs {run}: trained further since it was evaluated; evaluate it "
                "again, or remove what is out of date"
            )
        found.sort(key=lambda result: result["title"])
        rows += [compare.row_of(facts, result) for result in found]
        loaded.append((run, found[0]["rows"], translator))
    rows = distinct(rows)
    make_folder(out)
    page = compare.write_comparison(out, rows, loaded)
    write_rows(out / "results.jsonl", rows)
    print(f"Report: {page}")
    return 0
