"""The commands: train, caption, report."""

from pathlib import Path
from typing import Any

from experiments import fit, results
from experiments.captions import train
from experiments.captions.names import LANGUAGES
from experiments.captions.report import label, write_report
from experiments.captions.settings import Settings
from experiments.checkpoint import make_folder
from experiments.errors import InputError

# what a checkpoint cannot go on with if it is changed
FIXED = ("encoder", "hidden", "embedding", "batch", "beam", "seed")
TITLE = "digits in ten languages, test"


def run(given: dict[str, Any], out: Path, **how: Any) -> int:
    """Trains, tests and reports; returns the exit code."""
    parts = train.load()
    test = parts[2]

    def make(settings: Settings) -> tuple[fit.Fit, dict[str, Any]]:
        make_folder(out.parent)
        n, k = len(parts[0].images), len(LANGUAGES)
        print(f"{n:,} images to train on, {len(test.images):,} to test; {k} languages.")
        return train.make(settings, parts)

    done = fit.run(given, Settings(), FIXED, make, out, **how)
    if done is None:
        return 130
    trained, facts = done
    settings, model = trained.settings, trained.model
    greedy = train.captions(model, test.images, 1)
    beam = train.captions(model, test.images, settings.beam)
    found = train.scores(greedy, beam, test)
    result = fit.write_result(out, facts, TITLE, train.digest(test), found)
    print(
        f"{TITLE}: {found['all']:.2f}% of the names right, by beam search "
        f"{found['all, beam']:.2f}%; {found['agree']:.2f}% of the images named alike "
        f"in all; {facts['seconds'] / 60:.1f} minutes of training."
    )
    print(f"Report: {write_report(out, facts, result, test, greedy)}")
    return 0


def caption(
    run: Path, numbers: list[int], languages: list[str] | None, beam: int | None
) -> int:
    """Writes the number of each image of the test, its digit, and its names."""
    test = train.load()[2]
    for number in numbers:
        if number >= len(test.images):
            last = len(test.images) - 1
            raise InputError(f"--images {number}: the test has images 0 to {last}")
    for name in languages or ():
        if name not in LANGUAGES:
            known = ", ".join(LANGUAGES)
            raise InputError(f"--languages {name}: not one of {known}")
    model, settings, _ = fit.load(run, Settings, train.make_model)
    said = train.captions(model, test.images[numbers], beam or settings.beam)
    chosen = [LANGUAGES.index(name) for name in languages or LANGUAGES]
    for number, row in zip(numbers, said, strict=True):
        fields = [number, test.digits[number], *(row[k] for k in chosen)]
        print("\t".join(map(str, fields)))
    return 0


def report(runs: list[Path], results_file: Path | None, out: Path) -> int:
    return results.report("Captions", runs, results_file, out, label)
