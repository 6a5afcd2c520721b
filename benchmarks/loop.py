"""The run of a benchmark: the cases that are left, one after the other."""

import argparse
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from benchmarks.contender import compile_call
from benchmarks.device import cores, device_name, refuse_busy
from benchmarks.progress import Progress, minutes
from benchmarks.rows import Row, append, begin, case_of


def measure_all(
    options: argparse.Namespace,
    device: Any,
    cases: Sequence[Any],
    measure: Callable[[Any], list[Row]],
    *,
    seconds: Callable[[Any], float],
    base: str,
    key: Callable[[Row], Hashable] = case_of,
    ours: str = "",
    fresh: bool = True,
) -> int:
    """Appends the rows of each case, and returns how many of them had wrong results.

    `seconds` guesses how long a case takes; `base` is the contender whose time the
    others are shown beside; `key` makes a case of its row. Only contenders whose names
    begin with `ours` count as wrong. With `fresh`, nothing is taken from JAX's
    compilation cache.
    """
    if options.rounds:
        refuse_busy(cores() / 2 if options.max_load is None else options.max_load)
    path = options.results / f"{device_name(device)}.jsonl"
    stamp, done = begin(path, device, options.resume, key, timed=options.rounds > 0)
    left = [case for case in cases if case not in done]
    if options.resume:
        print(f"{len(cases) - len(left)} cases have been measured with this code")
    progress, wrong = Progress([seconds(case) for case in left]), 0
    time = minutes(progress.left(0))
    print(f"{len(left)} cases to {path}, about {time}", flush=True)
    if fresh:  # a cached program would have no compile time
        jax.config.update("jax_enable_compilation_cache", False)
    compile_call(jax.numpy.tanh, (1.0,))  # the compiler starts at nobody's cost
    for i, case in enumerate(left):
        time = minutes(progress.left(i))
        print(f"[{i + 1}/{len(left)}, {time} left] {case}", flush=True)
        rows = measure(case)
        append(path, rows, **stamp)
        show(rows, base)
        checked = [row for row in rows if row["contender"].startswith(ours)]
        wrong += any(row["reason"] for row in checked)
    print(f"{minutes(progress.spent())} in all")
    return wrong


def show(rows: list[Row], base: str) -> None:
    of = next((r["median_ms"] for r in rows if r["contender"] == base), None)
    for row in rows:
        name, ms = row["contender"], row["median_ms"]
        if row["reason"]:
            print(f"    {name:14} not timed: {row['reason']}")
        elif ms is None:
            off = row.get("max_err")
            text = "" if off is None else f", off by {off:.1e} at most"
            print(f"    {name:14} right{text}")
        else:
            beside = f"  {ms / of:5.2f} of {base}" if of else ""
            print(f"    {name:14} {ms:9.3f} ms ± {row['iqr_ms']:.3f}{beside}")
