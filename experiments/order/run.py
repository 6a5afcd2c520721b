"""The commands: train the models of a task, and set them side by side."""

from pathlib import Path
from typing import Any

from experiments import results
from experiments.checkpoint import refuse_runs
from experiments.classification import run as classification
from experiments.classification.report import NAMES, label
from experiments.classification.settings import FEED_FORWARD, OF_RECURRENT
from experiments.errors import InputError
from experiments.order import tasks
from experiments.order.figure import accuracies
from experiments.order.settings import BINARY, MODELS, defaults
from experiments.page import save_figure


def train(
    task: str, models: list[str], given: dict[str, Any], out: Path, **how: Any
) -> int:
    """Trains the models one after the other, each in a folder; then the page."""
    if task not in BINARY and not Path(task).is_file():
        known = ", ".join(BINARY)
        raise InputError(f"--task {task}: neither a file nor one of {known}")
    folder = Path(task).stem + "-shuffled" * given.get("shuffled", False)
    runs = {model: out / folder / model for model in dict.fromkeys(models)}
    refuse_runs(runs.values(), how["resume"])
    for model, run in runs.items():
        print(f"\nModel: {NAMES[model]}.")
        blind = model in FEED_FORWARD and not all(m in FEED_FORWARD for m in models)
        own = {k: v for k, v in given.items() if not (blind and k in OF_RECURRENT)}
        options = {**own, "data": task, "model": model}
        how |= {"load": tasks.load, "preset": defaults(task)}
        if code := classification.run(options, run, **how):
            return code
    # with what was trained there before
    tasks_there = sorted(path for path in out.glob("*/") if path.is_dir())
    paths = [path / model for path in tasks_there for model in MODELS]
    tested = [path for path in paths if (path / "result-test.json").exists()]
    return report(tested, None, out)


def report(runs: list[Path], results_file: Path | None, out: Path) -> int:
    draw = lambda out, rows: save_figure(accuracies(rows), out / "accuracy.png")
    title = "Order matters"
    return results.report(title, runs, results_file, out, label, figures=draw)
