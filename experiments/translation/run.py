"""The commands: train, evaluate, translate, report."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments import data, training
from experiments.checkpoint import make_folder
from experiments.errors import InputError
from experiments.translation import compare, corpus, evaluate, report
from experiments.translation.corpus import Corpus
from experiments.translation.settings import Settings, defaults
from experiments.translation.train import Trainer
from experiments.translation.translate import (
    VOCABULARIES,
    Search,
    Translator,
    load,
    read_vocabularies,
)

# what a checkpoint cannot go on with if it is changed
FIXED = ("data", "target", "lower", "joined", "pieces", "longest", "model", "cell",
         "layers", "hidden", "embedding", "heads", "score", "feed", "tokens",
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
    known = None if facts is None else read_vocabularies(out, facts["vocabularies"])
    loaded = corpus.load(settings, data_dir, known)
    digest = digest_of(loaded)
    if facts is not None and facts["digest"] != digest:
        raise InputError(
            f"--data {settings.data}: not the pairs that the checkpoint in {out} was "
            "trained on"
        )
    if not loaded.train:
        raise InputError(f"--data {settings.data}: no pair to train on")
    sizes = " and ".join(f"{len(v):,}" for v in loaded.vocabularies)
    print(
        f"{settings.data}: {len(loaded.train):,} pairs to train on, "
        f"{len(loaded.validation):,} held out, {len(loaded.test):,} to test; "
        f"vocabularies of {sizes}."
    )
    make_folder(out)
    if facts is None:
        for name, made in zip(VOCABULARIES, loaded.vocabularies, strict=True):
            (out / name).write_bytes(made.model)
    trainer = Trainer(settings, loaded)
    digests = [v.digest for v in loaded.vocabularies]
    new = {"vocabularies": digests, "digest": digest}
    options: Any = {"resume": resume, "save_seconds": save_seconds}
    facts = training.train(trainer, facts, new, checkpoints, out, **options)
    if facts is None:
        return 130
    translator = Translator(settings, trainer.state.weights, loaded.vocabularies)
    result = tested(out, translator, loaded.test, how, "test", settings.joined)
    for row in result["rows"][:3]:
        print(f"\n  {row['source']}\n> {row['hypothesis']}\n= {row['reference']}")
    print(f"\n{evaluate.summary(result)}")
    print(f"{facts['seconds'] / 60:.1f} minutes of training.")
    print(f"Report: {report.write_report(out, facts, result, translator)}")
    return 0


def check(settings: Settings) -> None:
    many = settings.model == "transformer" or settings.score == "multi_head"
    if many and settings.hidden % settings.heads:
        raise InputError(
            f"--heads {settings.heads}: not a divisor of --hidden {settings.hidden}"
        )
    if settings.feed and settings.model != "luong":
        raise InputError("--feed: input feeding belongs to --model luong")
    if settings.score is not None and settings.model not in ("bahdanau", "luong"):
        raise InputError("--score: belongs to --model bahdanau or luong")


def digest_of(loaded: Corpus) -> str:
    text = json.dumps([loaded.train, loaded.validation])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tested(
    run: Path, translator: Translator, pairs: list, how: Search, name: str, joined: int
) -> dict[str, Any]:
    """Evaluates and writes the result into the folder of the run."""
    model = translator.settings.model
    title = f"{translator.settings.data}, {name}"
    if joined > 1:
        name, title = f"{name}-joined", f"{title}, 2 to {joined} sentences joined"
    result = {"title": title, "model": model}
    result |= evaluate.evaluate(translator, pairs, how)
    evaluate.write(run / f"evaluation-{name}.json", result)
    return result


def evaluate_run(
    run: Path, data_dir: Path | None, test: str | None, joined: int | None, how: Search
) -> int:
    translator, _ = load(run)
    settings = translator.settings
    if test is not None and settings.data != "multi30k":
        raise InputError("--test: other test sets are those of multi30k")
    if joined is not None:
        settings = replace(settings, joined=joined)
    pairs = corpus.load_pairs(settings, data_dir, test)[2]
    pairs = corpus.prepared(pairs, settings, seed=2, least=2)
    result = tested(run, translator, pairs, how, test or "test", settings.joined)
    for part in result["by_length"]:
        high = f"{part['low']}-{part['high']}"
        print(f"{high:>8} words: {part['n']:5} sentences, BLEU {part['bleu']:.1f}")
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
        for found in translator.translate(texts, how):
            show(found)
        return 0
    asked = sys.stdin.isatty()
    if asked:
        print("One sentence a line; an empty line or Ctrl-D ends.", file=sys.stderr)
    for i, line in enumerate(sys.stdin, 1):
        text = line.strip()
        if not text and asked:
            break
        try:
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


def show(found: list) -> None:
    if len(found) == 1:
        print(found[0].text, flush=True)
    else:
        for translation in found:
            print(f"{translation.score:8.3f}  {translation.text}", flush=True)


def report_runs(runs: list[Path], results: Path | None, out: Path) -> int:
    """The page of several runs, and of the rows of `results`, side by side."""
    rows = [] if results is None else compare.read_rows(results)
    loaded = []
    for run in runs:
        translator, facts = load(run)
        paths = sorted(run.glob("evaluation-*.json"))
        if not paths:
            raise InputError(f"--runs {run}: not evaluated yet")
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        rows += [compare.row_of(facts, result) for result in found]
        loaded.append((run, found[0]["rows"], translator))
    # a run that is among the results too counts once
    same = lambda row: json.dumps([row["title"], row["settings"], row["search"]])
    rows = list({same(row): row for row in rows}.values())
    make_folder(out)
    page = compare.write_comparison(out, rows, loaded)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "results.jsonl").write_text(text, encoding="utf-8")
    print(f"Report: {page}")
    return 0
