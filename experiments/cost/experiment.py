"""The commands `measure` and `report`."""

from pathlib import Path
from typing import Any

from experiments.cost.measure import KEYS, measure_all
from experiments.cost.page import write_report
from experiments.cost.settings import HEADS, Settings
from experiments.frame import results
from experiments.frame.errors import InputError
from experiments.frame.files import make_folder


def measure(out: Path, **given: Any) -> int:
    """Measures what the rows in the folder lack, and writes the page."""
    several = {k: tuple(v) for k, v in given.items() if isinstance(v, list)}
    settings = Settings(**{**given, **several})
    if settings.hidden % HEADS:
        raise InputError(f"--hidden {settings.hidden}: not a multiple of {HEADS}")
    make_folder(out)
    rows = measure_all(settings, out / "results.jsonl")
    print(f"\nReport: {write_report(out, rows)}")
    return 0


def report(results_file: Path, out: Path) -> int:
    rows = results.read_rows(results_file, KEYS)
    if not rows:
        raise InputError(f"--results {results_file}: no rows")
    make_folder(out)
    print(f"\nReport: {write_report(out, rows)}")
    return 0
