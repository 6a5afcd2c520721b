"""The experiment: how well a model translates, and `evaluate` and `translate`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments import datasets
from experiments.frame.errors import InputError, refuse
from experiments.frame.experiment import (
    Evaluation,
    Experiment,
    Result,
    Run,
    load,
    write_result,
)
from experiments.frame.results import Row
from experiments.tables import Pair
from experiments.translation import data, model, page
from experiments.translation.scores import bleu_of, by_length
from experiments.translation.settings import OF_TABLES, PRESETS, Settings, preset
from experiments.translation.translate import Search, Translator
from experiments.translation.vocabulary import of_facts

PIECE = 512  # sentences of a file translated at a time
sums = nnx.jit(model.loss)


def check(settings: Settings, given: dict[str, Any]) -> None:
    """That the options belong to the data and the model."""
    if settings.data in PRESETS:
        refuse(given, ["target", *OF_TABLES], f"with the data {settings.data}")
    if settings.target is not None:
        refuse(given, OF_TABLES, "with --target")
    many = settings.model == "transformer" or settings.score == "multi_head"
    if many and settings.hidden % settings.heads:
        raise InputError(
            f"--heads {settings.heads}: not a divisor of --hidden {settings.hidden}"
        )
    if settings.feed and settings.model != "luong":
        raise InputError("--feed: input feeding belongs to --model luong")
    if settings.score is not None and settings.model not in ("bahdanau", "luong"):
        raise InputError("--score: belongs to --model bahdanau or luong")


def title_and_name(settings: Settings, test: str, how: Search) -> tuple[str, str]:
    """Of a result: what was tested, and the name of its file."""
    title, name = f"{Path(settings.data).name}, {test}", test
    if (most := settings.joined) > 1:
        number = "2" if most == 2 else f"2 to {most}"
        title, name = f"{title}, {number} sentences joined", f"{name}-joined-{most}"
    if how != Search():
        name += f"-beam-{how.beam}-{how.length_penalty:g}"
    return title, name


def result_of(run: Run, pairs: list[Pair], test: str, how: Search) -> Result:
    """What there is to know of a model on these pairs."""
    settings = run.settings
    examples = data.encoded(pairs, of_facts(run.facts), settings.longest)
    batches = data.once(examples, settings.tokens)
    parts = [sums(run.model, batch)[1:3] for batch, _ in batches]
    n, nats = np.sum(jax.device_get(parts), 0, float)
    texts = [pair.source for pair in pairs]
    found = Translator(run).translate(texts, how, progress=True)
    sentences = [
        {
            "source": pair.source,
            "reference": pair.target,
            "hypothesis": best[0].text,
            "tokens": best[0].tokens,
            "score": best[0].score,
        }
        for pair, best in zip(pairs, found, strict=True)
    ]
    bleu, signature = bleu_of(sentences, settings.lower)
    exact = np.mean([row["hypothesis"] == row["reference"] for row in sentences])
    scores = {"BLEU": bleu, "perplexity": float(np.exp(nats / n))}
    scores["exact match"] = 100 * float(exact)
    more = {
        "pairs": len(pairs),
        "signature": signature,
        "search": {"beam": how.beam, "length_penalty": how.length_penalty},
        "by_length": by_length(sentences, settings.lower),
        "sentences": sentences,
    }
    title, name = title_and_name(settings, test, how)
    return Result(title, data.digest_of_pairs(pairs), scores, name, more)


def headline(result: Result) -> str:
    bleu, perplexity, exact = result.scores.values()
    return (
        f"{result.title}: BLEU **{bleu:.2f}**, perplexity of a token "
        f"**{perplexity:.2f}**, exact match **{exact:.1f}%** of "
        f"{result.more['pairs']:,} sentences."
    )


def evaluation(run: Run) -> Evaluation:
    result = result_of(run, run.data.tests["test"], "test", Search(**run.asked))
    for row in result.more["sentences"][:3]:
        print(f"\n  {row['source']}\n> {row['hypothesis']}\n= {row['reference']}")
    print(f"\n{result.more['signature']}")
    return Evaluation([result], headline(result))


def figures(out: Path, rows: list[Row], runs: Sequence[Path]) -> str:
    """With the maps of all runs, of the first test of each by its title."""
    found = []
    for path in dict.fromkeys(p for run in runs for p in run.glob("**/checkpoints")):
        results = map(datasets.read, path.parent.glob("result-*.json"))
        first = min(
            map(json.loads, results), key=lambda made: made["title"], default={}
        )
        if first:
            translator = Translator(load(EXPERIMENT, path.parent))
            found.append((first["sentences"], translator))
    return page.figures(out, rows, found)


DIGITS = {"perplexity": 2}
EXPERIMENT = Experiment(
    "Translation", preset, data, model, page, evaluation, check, DIGITS, figures
)


def evaluate(
    run: Path,
    data_dir: Path | None,
    test: str | None,
    joined: int | None,
    **search: Any,
) -> int:
    """Tests a run again, perhaps on other sentences, or by another search."""
    found = load(EXPERIMENT, run)
    settings = found.settings
    if test is not None and settings.data != "multi30k":
        raise InputError("--test: other test sets are those of multi30k")
    parts = data.read(settings, data_dir)
    # so that no pair is tested that it was trained on
    if data.digest_of(parts, found.facts) != found.facts["digest"]:
        raise InputError(f"{run}: the checkpoint there was trained on other data")
    pairs = parts[2] if test is None else data.read(settings, data_dir, test)[2]
    settings = replace(settings, joined=joined or settings.joined)
    pairs = data.prepared(pairs, settings, seed=2, least=2)
    if message := data.unknown(pairs, of_facts(found.facts)):
        print(message, file=sys.stderr)
    found = found._replace(settings=settings)
    result = result_of(found, pairs, test or "test", Search(**search))
    write_result(found, result)
    for part in result.more["by_length"]:
        words = page.span(part)
        print(f"{words:>11} words: {part['n']:5} sentences, BLEU {part['bleu']:.1f}")
    print(f"{headline(result).replace('**', '')}\n{result.more['signature']}")
    return 0


def translate(run: Path, input: Path | None, n_best: int, **search: Any) -> int:
    """Translates a file, or what is typed line by line."""
    how = Search(**search, n_best=n_best)
    if n_best > how.beam:
        raise InputError(f"--n-best {n_best}: more than --beam {how.beam}")
    translator = Translator(load(EXPERIMENT, run))
    if input is not None:
        texts = datasets.lines(input)
        for i, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"{input}, line {i}: an empty sentence")
            translator.check(text, f"{input}, line {i}")
            if message := translator.unknown(text):
                print(f"{input}, line {i}: {message}", file=sys.stderr)
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


def show(found: list) -> None:
    if len(found) == 1:
        print(found[0].text, flush=True)
    else:
        for translation in found:
            print(f"{translation.score:8.3f}  {translation.text}", flush=True)
