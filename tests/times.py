"""A pytest plugin: where the time of each test goes. Use it as `make times`.

Tracing, lowering, compiling and the rest, in CPU seconds of the test's process and all
its threads, so that a busy machine does not matter; `wall` is the clock's, `children`
the CPU seconds of the commands that a test ran. An event inside another, such as a
constant that is compiled while a function is traced, is taken off the outer one.
`--times FILE` writes a line of JSON for each test.
"""

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KINDS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
COLUMNS = ("wall", "cpu", *KINDS.values(), "rest", "children", "programs", "cached")
PROPERTY = "times"  # of a test's report, by which a worker of xdist tells the others

spent: Counter[str] = Counter()  # by the test that runs now
rows: list[dict[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=Path, help="a file for the times of each test")


def pytest_configure() -> None:
    import jax  # not earlier: tests/conftest.py sets its variables first
    from jax._src import dispatch

    # JAX's listeners hear of wall times alone, and not of the beginning
    timer = dispatch.LogElapsedTimeContextManager
    enter, leave = timer.__enter__, timer.__exit__
    open_events: list[list[Any]] = []

    def entered(self: Any) -> Any:
        open_events.append([KINDS.get(self.event), time.process_time(), 0.0])
        return enter(self)

    def left(self: Any, *error: Any) -> Any:
        kind, start, inner = open_events.pop()
        took = time.process_time() - start
        if open_events:
            open_events[-1][2] += took
        if kind:
            spent[kind] += took - inner
            spent["programs"] += kind == "compile"
        return leave(self, *error)

    timer.__enter__, timer.__exit__ = entered, left

    def heard(event: str, **_: Any) -> None:
        spent["cached"] += event == "/jax/compilation_cache/cache_hits"

    jax.monitoring.register_event_listener(heard)


def clocks() -> tuple[float, float, float]:
    children = os.times()
    return (
        time.perf_counter(),
        time.process_time(),
        children.children_user + children.children_system,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Counts what belongs to the test, its fixtures included."""
    spent.clear()
    item.stash[START] = clocks()
    return (yield)


START = pytest.StashKey[tuple[float, float, float]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo
) -> Iterator[Any]:
    report = yield
    if call.when == "teardown":
        wall, cpu, children = (
            now - start for now, start in zip(clocks(), item.stash[START], strict=True)
        )
        row = {"wall": wall, "cpu": cpu, "children": children, **spent}
        row["rest"] = cpu - sum(row.get(kind, 0) for kind in KINDS.values())
        report.user_properties.append((PROPERTY, row))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name, row in report.user_properties:
        if name == PROPERTY and report.when == "teardown":
            rows.append({"test": report.nodeid, **row})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Tables by file and, of the most expensive, by test function."""
    if path := config.getoption("times"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write = terminalreporter.write_line
    for title, key, most in (
        ("file", lambda test: test.split("::")[0], None),
        ("function", lambda test: test.split("[")[0], 25),
    ):
        write("")
        write("".join(f"{name:>9}" for name in COLUMNS) + f"  seconds by {title}")
        for name, total in summed(key)[:most]:
            write("".join(f"{total[c]:9.1f}" for c in COLUMNS) + f"  {name}")


def summed(key: Callable[[str], str]) -> list[tuple[str, Counter[str]]]:
    """The sums of the rows with one key, the greatest first."""
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        numbers = {name: row.get(name, 0) for name in COLUMNS}
        totals[key(row["test"])].update(numbers)
        totals["all"].update(numbers)
    cost = lambda pair: -(pair[1]["cpu"] + pair[1]["children"])
    return sorted(totals.items(), key=cost)
