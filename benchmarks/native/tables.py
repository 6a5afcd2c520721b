"""The tables of a page: each contender's time, compile time and memory over ours."""

from collections.abc import Iterable
from statistics import median

from benchmarks.cases import BOTH
from benchmarks.native.cases import AGAIN, CHUNKS, FLOAT32, NATIVE, PRODUCTS, STEP
from benchmarks.native.kinds import asked_of, kind_of, kinds_of
from benchmarks.report import markdown, number, select
from benchmarks.rows import Group, Row, case_of

ORDER = (NATIVE, AGAIN, f"{NATIVE} vmap", FLOAT32, CHUNKS, f"{CHUNKS} vmap")
ORDER += ("scan", STEP, PRODUCTS, "flax", "linen", "torch")
COMPILED = (CHUNKS, "scan", "flax", "linen")
SHAPE = "B,T,D,H"


def groups(rows: Iterable[Row]) -> list[Group]:
    """The rows of each case by contender, as measured."""
    found: dict[object, Group] = {}
    for row in rows:
        found.setdefault(asked_of(row), {})[row["contender"]] = row
    return [*found.values()]


def names_of(rows: list[Row]) -> list[str]:
    found = {row["contender"] for row in rows}
    return [name for name in ORDER if name in found]


def ratio(group: Group, name: str, key: str = "median_ms") -> float | None:
    base, row = group.get(NATIVE, {}).get(key), group.get(name, {}).get(key)
    return row / base if base and row is not None else None


def share(row: Row, key: str | None = None) -> float | None:
    """The rate of a case's products over the peak of all threads, or over `key`."""
    most = row["peaks"].get(str(row["cores"])) if key is None else row.get(key)
    ms, work = row["median_ms"], row["gflop"]
    if not (ms and work and most) or row["dtype"] != "float32":
        return None
    return 1e3 * work / ms / most


def percent(found: float | None) -> str:
    return "–" if found is None else f"{100 * found:.0f}%"


def extremes(groups: list[Group], name: str, key: str = "median_ms") -> list[str]:
    """The median over the shapes, the lowest with its shape, and the highest."""
    found = []
    for group in groups:
        r = ratio(group, name, key)
        if r is not None:
            found.append((r, case_of(group[name]).shape))
    if not found:
        return ["–"] * 4
    middle, (low, at), (high, _) = median(r for r, _ in found), min(found), max(found)
    return [f"{middle:.2f}", f"{low:.2f}", at, f"{high:.2f}"]


def shares(rows: list[Row]) -> str:
    """Median, lowest and highest of the peak."""
    found = [s for row in rows if (s := share(row)) is not None]
    if not found:
        return "–"
    if len(found) == 1:
        return percent(found[0])
    low, high = (f"{100 * s:.0f}" for s in (min(found), max(found)))
    return f"{percent(median(found))} ({low} to {high})"


def lines_of(rows: list[Row]) -> list[tuple[list[str], list[Row]]]:
    """Of each operation and mode how its lines begin, and its rows."""
    found = []
    for kind in kinds_of(rows):
        for mode in (*BOTH, "step"):
            own = [r for r in rows if kind_of(r) == kind and r["mode"] == mode]
            if own:
                found.append(([str(kind), mode], own))
    return found


def summary(rows: list[Row]) -> str:
    """Of one part, over the shapes."""
    lines = []
    for start, own in lines_of(rows):
        for name in names_of(own):
            timed = [r for r in select(own, contender=name) if r["median_ms"]]
            if timed:
                ratios = extremes(groups(own), name)
                ratios = ["1", "–", "–", "–"] if name == NATIVE else ratios
                lines.append([*start, name, *ratios, shares(timed)])
    head = ["median", "lowest", f"at {SHAPE}", "highest", "of peak"]
    return markdown(["", "mode", "contender"], head, lines)


def roofline(rows: list[Row]) -> str:
    """Of `lstm` forward, at each shape."""
    lines = []
    for group in groups(rows):
        row, torch = group.get(NATIVE), group.get("torch")
        if row is None or not row["median_ms"]:
            continue
        rate = number(1e3 * row["gflop"] / row["median_ms"])
        found = [share(row), share(row, "matmul_gflops")]
        found += [None if torch is None else share(torch)]
        lines.append([case_of(row).shape, rate, *map(percent, found)])
    head = ["GFLOP/s", "of peak", "of a large product", "torch, of peak"]
    return markdown([SHAPE], head, lines)


def details(rows: list[Row]) -> str:
    """Milliseconds, the share of the peak, and each contender's time over it."""
    names, lines = [n for n in names_of(rows) if n != NATIVE], []
    for group in groups(rows):
        first = next(iter(group.values()))
        row, case = group.get(NATIVE, first | {"median_ms": None}), case_of(first)
        cells = [str(kind_of(first)), case.mode, case.shape]
        cells += [number(row["median_ms"]), percent(share(row))]
        found = [ratio(group, name) for name in names]
        lines.append(cells + ["–" if r is None else f"{r:.2f}" for r in found])
    return markdown(["", "mode", SHAPE], ["native ms", "of peak", *names], lines)


def costs(rows: list[Row]) -> str:
    """Compile time and memory, of all parts in which both are measured."""
    lines = []
    for start, own in lines_of(rows):
        for name in (n for n in names_of(own) if n in COMPILED):
            compiled, memory = (
                extremes(groups(own), name, key) for key in ("compile_ms", "temp_mb")
            )
            if compiled[0] != "–":
                lines.append([*start, name, *compiled[:3], *memory[:3]])
    head = ["compile time", "lowest", f"at {SHAPE}", "memory", "lowest", f"at {SHAPE}"]
    return markdown(["", "mode", "contender"], head, lines)
