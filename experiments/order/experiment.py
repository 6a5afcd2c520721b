"""The experiment: classifiers of several kinds on one task, and `train` for all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.classification.experiment import EXPERIMENT as CLASSIFICATION
from experiments.classification.page import NAMES
from experiments.classification.settings import FEED_FORWARD, OF_RECURRENT
from experiments.frame import distributed
from experiments.frame.checkpoint import refuse_runs
from experiments.frame.errors import InputError
from experiments.frame.experiment import fit
from experiments.frame.report import report
from experiments.order import data, page
from experiments.order.settings import BINARY, MODELS, preset

EXPERIMENT = replace(
    CLASSIFICATION,
    title="Order matters", preset=preset, data=data, figures=page.figures,
)  # fmt: skip


def train(
    task: str, models: list[str], given: dict[str, Any], out: Path, **how: Any
) -> int:
    """Trains the models one after the other, each in a folder; then the page."""
    if task not in BINARY and not Path(task).is_file():
        known = ", ".join(BINARY)
        raise InputError(f"--task {task}: neither a file nor one of {known}")
    folder = Path(task).stem + "-shuffled" * given.get("shuffled", False)
    runs = {model: out / folder / model for model in dict.fromkeys(models)}
    distributed.agree(lambda: refuse_runs(runs.values(), how["resume"]))
    for model, run in runs.items():
        print(f"\nModel: {NAMES[model]}.")
        blind = model in FEED_FORWARD and not all(m in FEED_FORWARD for m in models)
        own = {k: v for k, v in given.items() if not (blind and k in OF_RECURRENT)}
        options = {**own, "data": task, "model": model}
        if fit(EXPERIMENT, options, run, **how) is None:
            return 130
    return distributed.agree(lambda: compare(out))


def compare(out: Path) -> int:
    """The page of all models there, with those that were trained before."""
    tasks_there = sorted(path for path in out.glob("*/") if path.is_dir())
    paths = [path / model for path in tasks_there for model in MODELS]
    tested = [path for path in paths if (path / "result-test.json").exists()]
    return report(EXPERIMENT, tested, None, out)
