"""Writes rows, reads them back, and puts each contender beside jaxseq."""

import json
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import device as devices
from benchmarks.cases import BOTH, MODES, OPS, Case
from benchmarks.contenders import CONTENDERS
from benchmarks.errors import UsageError

Row = dict[str, Any]
Group = dict[str, Row]  # the rows of one case, by contender
AGAIN = "jaxseq again"  # the same program in turns of its own: the noise of a ratio


def append(path: Path, rows: Iterable[Row], **stamp: Any) -> None:
    """Adds lines to a file, each with what made it and when."""
    stamp = {**stamp, "time": f"{datetime.now(UTC):%FT%TZ}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps({**row, **stamp}) + "\n" for row in rows)


def read(path: Path) -> list[Row]:
    rows = []
    for i, line in enumerate(path.read_text().splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}, line {i}: not a row") from error
    return rows


def newest_run(path: Path) -> list[Row]:
    """The rows of the newest run; none if there is no file."""
    rows = read(path) if path.exists() else []
    newest = max((row["run"] for row in rows), default=None)
    return [row for row in rows if row["run"] == newest]


def case_of(row: Row) -> Case:
    """The case of a row; older rows do not name what all of them had."""
    return Case(**{name: row[name] for name in Case._fields if name in row})


def begin(
    path: Path,
    device: Any,
    resume: bool,
    key: Callable[[Row], Hashable] = case_of,
    timed: bool = False,
) -> tuple[dict[str, Any], set[Hashable]]:
    """What is written into every row of a run, and the cases that need no new rows.

    Those are the ones whose newest rows are of the library as it is now; with `timed`,
    rows of a run that only checked the results do not count.
    """
    stamp = {"device": devices.device_name(device), "commit": devices.commit()}
    stamp["code"] = devices.code()
    stamp["run"] = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if not resume or not path.exists():
        return stamp, set()
    rows = newest(path, key)
    last = max(rows, key=run_of, default={})
    if last.get("code") == stamp["code"]:
        stamp["run"] = last["run"]
    same = [row for row in rows if row.get("code") == stamp["code"]]
    return stamp, {key(row) for row in same if row["rounds"] or not timed}


def newest(
    path: Path, key: Callable[[Row], Hashable] = case_of, timed: bool = False
) -> list[Row]:
    """Of each case the rows of its newest run, or of the newest that was timed."""
    rows = [row for row in read(path) if row.get("rounds", 1) or not timed]
    runs: dict[Hashable, str] = {}
    for row in rows:
        runs[key(row)] = max(run_of(row), runs.get(key(row), ""))
    return [row for row in rows if run_of(row) == runs[key(row)]]


def run_of(row: Row) -> str:
    return row.get("run", "")  # which the oldest profiles lack


def contenders_of(rows: list[Row]) -> list[str]:
    return [n for n in CONTENDERS if any(row["contender"] == n for row in rows)]


def groups(rows: list[Row]) -> list[Group]:
    """The cases in order of what they are of, then as measured."""
    found: dict[Case, Group] = {}
    for row in rows:
        found.setdefault(case_of(row), {})[row["contender"]] = row
    place = lambda case: (MODES.index(case.mode), case.variant, OPS.index(case.op))
    return [found[case] for case in sorted(found, key=place)]


def plain(rows: list[Row]) -> list[Row]:
    """Those of one layer over whole sequences in float32, forward and gradient."""
    kind = lambda case: case.mode in BOTH and not case.variant
    return [row for row in rows if kind(case_of(row))]


def ratio(group: Group, name: str, key: str = "median_ms") -> float | None:
    """A contender's value over jaxseq's in the same rounds, if both were timed."""
    rows = group.get(name), group.get("jaxseq")
    if any(row is None or row.get("median_ms") is None for row in rows):
        return None
    value, base = (row.get(key) for row in rows if row is not None)
    return value / base if base and value is not None else None


def ratios(rows: list[Row], name: str, key: str = "median_ms") -> list[float]:
    found = (ratio(group, name, key) for group in groups(rows))
    return [r for r in found if r is not None]


def title(rows: list[Row]) -> str:
    """The device and the versions of the libraries that were timed."""
    library = {"jaxseq scan": "jaxseq", "jaxseq vmap": "jaxseq", "linen": "flax"}
    of_rows = (row["versions"].items() for row in rows)
    versions = {library.get(n, n): v for found in of_rows for n, v in found}
    return f"{rows[0]['device']}: " + ", ".join(f"{n} {v}" for n, v in versions.items())


def not_timed(rows: list[Row]) -> list[str]:
    """A line for each contender and reason, with the cases that it is of."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.get("reason"):
            case = case_of(row)
            # how far off it is differs from case to case
            reason = row["reason"].split(" is off by ")[0]
            kind = " ".join(filter(None, (case.op, case.mode, case.variant)))
            kinds = reasons.setdefault((row["contender"], reason), [])
            kinds += [kind] * (kind not in kinds)
    return [f"{n}: {why} ({'; '.join(ks)})" for (n, why), ks in reasons.items()]
