"""The commands: train, transcribe, report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments import files, fit, results
from experiments.checkpoint import make_folder
from experiments.speech import corpus, train
from experiments.speech.audio import read_wav, wav
from experiments.speech.corpus import Example
from experiments.speech.report import label, write_report
from experiments.speech.settings import Settings, defaults
from experiments.speech.train import Heard

# what a checkpoint cannot go on with if it is changed
FIXED = ("data", "speaker", "digits", "strings", "stack", "center", "layers",
         "hidden", "augment", "batch", "beam", "seed")  # fmt: skip


def run(given: dict[str, Any], out: Path, *, data_dir: Path | None, **how: Any) -> int:
    """Trains, tests and reports; returns the exit code."""
    loaded: Any = None

    def make(settings: Settings) -> tuple[fit.Fit, dict[str, Any]]:
        nonlocal loaded
        loaded = corpus.load(settings, data_dir)
        make_folder(out.parent)
        tests = (f"{len(part):,} {name}" for name, part in loaded.tests.items())
        print(
            f"{train.title(settings)}: strings of 1 to {settings.digits} digits, "
            f"{loaded.size} to train on, to test {' and '.join(tests)}."
        )
        return train.make(settings, loaded)

    preset = defaults(given.get("data", Settings.data))
    done = fit.run(given, preset, FIXED, make, out, **how)
    if done is None:
        return 130
    trained, facts = done
    settings, model = trained.settings, trained.model
    both = [example for part in loaded.tests.values() for example in part]
    said = train.transcribed(model, both, settings)  # at once: it is compiled once
    heard, found, at = {}, [], 0
    for name, examples in loaded.tests.items():
        part = slice(at, at := at + len(examples))
        heard[name] = Heard(said.greedy[part], said.beam[part])
        scores = train.scores(heard[name], examples)
        title, digest = f"{train.title(settings)}: {name}", loaded.digests[name]
        file = name.replace(" ", "-")
        found.append(fit.write_result(out, facts, title, digest, scores, file))
        print(
            f"{title}: word error rate {scores['WER']:.2f}%, by beam search "
            f"{scores['WER, beam']:.2f}%; without error {scores['right']:.2f}% and "
            f"{scores['right, beam']:.2f}% of {len(examples):,}."
        )
    print(f"{facts['seconds'] / 60:.1f} minutes of training.")
    for i, example in enumerate(loaded.tests["strings"][:3], 1):
        files.write(out / f"example-{i}.wav", wav(example.sound))
    page = write_report(out, facts, found, model, loaded, heard)
    print(f"Report: {page}")
    return 0


def transcribe(run: Path, paths: list[Path], beam: int | None) -> int:
    """Writes the name of each file and the digits heard in it."""
    sounds = [read_wav(path) for path in paths]
    model, settings, _ = fit.load(run, Settings, train.make_model)
    settings = replace(settings, batch=1, beam=beam or settings.beam)
    examples = [Example(sound, []) for sound in sounds]
    said = train.transcribed(model, examples, settings).beam
    for path, digits in zip(paths, said, strict=True):
        print(f"{path}\t{digits}")
    return 0


def report(runs: list[Path], results_file: Path | None, out: Path) -> int:
    digits = {score: 2 for score in ("WER", "WER, beam", "right", "right, beam")}
    return results.report("Speech", runs, results_file, out, label, digits=digits)
