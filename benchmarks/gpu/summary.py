"""`python -m benchmarks.gpu.summary FOLDER`: what was found, to read."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown, number

Row = dict[str, Any]
NAMES = ("jaxseq", "jaxseq scan", "flax", "jax cudnn", "torch", "torch float16")
SHAPE = ("B", "T", "D", "H")


def read(folder: Path, file: str) -> list[Row]:
    path = folder / f"{file}.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def table(rows: list[Row]) -> str:
    """Microseconds a step; `wrong` computed other numbers, – did not run."""
    groups: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        if "contender" in row:
            shape = ",".join(str(row[n]) for n in SHAPE)
            key = row["op"], row["mode"], shape, row["dtype"]
            groups.setdefault(key, {})[row["contender"]] = row
    lines = []
    for key, group in groups.items():
        first = next(iter(group.values()))
        cells = [number(first[f"{n}_floor_us"]) for n in ("product", "bytes")]
        for name in NAMES:
            row = group.get(name, {})
            wrong = "wrong" if row.get("max_err") is not None else "–"
            cells.append(number(row["us_step"]) if "us_step" in row else wrong)
        lines.append([*key, *cells])
    left = ["op", "mode", ",".join(SHAPE), "dtype"]
    return markdown(left, ["products", "bytes", *NAMES], lines)


def summary(folder: Path) -> str:
    parts = []
    for row in read(folder, "device"):
        shown = {k: v for k, v in row.items() if k not in ("stage", "versions")}
        parts.append(json.dumps(shown))
    exact = read(folder, "exact")
    wrong = [row for row in exact if not row.get("right")]
    if exact:
        parts.append(f"exact: {len(exact) - len(wrong)} of {len(exact)} right")
    parts += [json.dumps(row) for row in wrong[:5]]
    if rows := read(folder, "table"):
        parts.append(table(rows))
    for row in read(folder, "variants"):
        if "variant" in row:
            name = f"{row['mode']}, {row['variant']} {row['flags']}".strip()
            parts.append(f"{name}: {row.get('us_step', row.get('error'))} us a step")
    parts += [json.dumps(row) for row in read(folder, "tests")[-1:]]
    for row in read(folder, "sync") + read(folder, "sketches"):
        row.pop("tail", None)
        parts.append(json.dumps(row)[:300])
    return "\n".join(parts)


if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
