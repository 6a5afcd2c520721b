"""JSON lines, each on the disk as soon as it is known."""

import json
import traceback
from pathlib import Path
from typing import Any


def error_text(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if not text and (frames := traceback.extract_tb(error.__traceback__)):
        text = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
    return f"{type(error).__name__}: {text}"[:500]


def rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


class Lines:
    """Appends to a file; `shared` fields stand in every line."""

    def __init__(self, path: Path, **shared: Any) -> None:
        self.path, self.shared = path, shared

    def write(self, **fields: Any) -> None:
        values = {k: rounded(v) for k, v in {**self.shared, **fields}.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
        print(json.dumps(values), flush=True)
