"""The experiment: how well digits are heard, and `transcribe`."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from experiments.frame import files
from experiments.frame.errors import refuse
from experiments.frame.experiment import Evaluation, Experiment, Result, Run, load
from experiments.speech import data, model, page
from experiments.speech.audio import read_wav, wav
from experiments.speech.data import Example
from experiments.speech.model import scores, transcribed
from experiments.speech.settings import Settings, preset


def check(settings: Settings, given: dict[str, Any]) -> None:
    if settings.data == "morse":
        refuse(given, ["speaker", "data_dir"], "with the data morse")


def evaluate(run: Run) -> Evaluation:
    tests, title = run.data.tests, data.title(run.settings)
    both = [example for part in tests.values() for example in part]
    every = iter(transcribed(run.model, both, run.settings))  # compiled once
    heard, results = [], []
    for name, examples in tests.items():
        heard.append([*islice(every, len(examples))])
        found, own = scores(heard[-1]), f"{title}: {name}"
        digest, file = run.data.digests[name], name.replace(" ", "-")
        results.append(Result(own, digest, found, file))
        print(
            f"{own}: word error rate {found['WER']:.2f}%, by beam search "
            f"{found['WER, beam']:.2f}%; without error {found['right']:.2f}% and "
            f"{found['right, beam']:.2f}% of {len(examples):,}."
        )
    for i, example in enumerate(tests["strings"][:3], 1):
        files.write(run.out / f"example-{i}.wav", wav(example.sound))
    singles, strings = (result.scores["WER"] for result in results)
    headline = (
        f"Word error rate **{singles:.2f}%** on single digits, **{strings:.2f}%** on "
        "strings, greedily decoded."
    )
    return Evaluation(results, headline, heard)


DIGITS = {name: 2 for name in ("WER", "WER, beam", "right", "right, beam")}
EXPERIMENT = Experiment("Speech", preset, data, model, page, evaluate, check, DIGITS)


def transcribe(run: Path, files: list[Path], beam: int | None) -> int:
    """Writes the name of each file and the digits heard in it."""
    examples = [Example(read_wav(path), []) for path in files]
    found = load(EXPERIMENT, run)
    settings = replace(found.settings, batch=1, beam=beam or found.settings.beam)
    said = transcribed(found.model, examples, settings)
    for path, heard in zip(files, said, strict=True):
        print(f"{path}\t{heard.beam}")
    return 0
