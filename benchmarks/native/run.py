"""Runs `python -m benchmarks native`."""

import argparse

import jax

import jaxseq
from benchmarks.cases import Case
from benchmarks.contender import compile_call
from benchmarks.device import cores, device_name, find_device, refuse_busy
from benchmarks.errors import UsageError
from benchmarks.native.cases import AGAIN, NATIVE, cases
from benchmarks.native.measure import gflop, measure
from benchmarks.native.peak import peaks
from benchmarks.progress import Progress, minutes
from benchmarks.rows import Row, append, begin, case_of, newest_run
from benchmarks.timing import FEWEST, TURNS_S


def run(options: argparse.Namespace) -> int:
    """Returns in how many cases the engine was not right."""
    if not jaxseq.native_available():
        raise UsageError("no native engine: python -m jaxseq.native says why")
    device = find_device("cpu")
    if options.rounds:
        refuse_busy(cores() / 2 if options.max_load is None else options.max_load)
    path = options.results / f"{device_name(device)}.jsonl"
    stamp, _ = begin(path, device, options.resume)
    rows = newest_run(path) if options.resume else []
    done = {(row["part"], case_of(row)) for row in rows}
    every = cases(options.parts, options.shapes, options.modes)
    left = [pair for pair in every if pair not in done]
    guesses = [seconds(pair, options.rounds) for pair in left]
    print(f"{len(left)} cases to {path}, about {minutes(sum(guesses))}", flush=True)
    best = peaks(sorted({1, cores()})) if options.rounds else {}
    for threads, rate in best.items():
        print(f"peak of {threads} threads: {rate:.0f} GFLOP/s in float32", flush=True)
    # a cached program would have no compile time
    jax.config.update("jax_enable_compilation_cache", False)
    compile_call(jax.numpy.tanh, (1.0,))  # the compiler starts at nobody's cost
    progress, wrong = Progress(guesses), 0
    for i, (part, case) in enumerate(left):
        time = minutes(progress.left(i))
        print(f"[{i + 1}/{len(left)}, {time} left] {part}: {case}", flush=True)
        rows = measure(part, case, device, options.rounds, best)
        append(path, rows, **stamp)
        show(rows)
        native = [row for row in rows if row["contender"].startswith(NATIVE)]
        wrong += any(row["reason"] for row in native)
    print(f"{minutes(progress.spent())} in all")
    return wrong


def seconds(pair: tuple[str, Case], rounds: int) -> float:
    """A rough guess: five contenders compiled, checked, and timed in turns."""
    call = (gflop(pair[1]) or 0.1) / 100
    turn = 5 * (0.05 + call + max(0.05, call))
    turns = min(rounds * turn, max(TURNS_S, FEWEST * turn))
    return 6 + 10 * call + turns


def show(rows: list[Row]) -> None:
    base = next((r["median_ms"] for r in rows if r["contender"] == NATIVE), None)
    for row in rows:
        name, ms = row["contender"], row["median_ms"]
        if row["reason"]:
            print(f"    {name:14} not timed: {row['reason']}")
        elif ms is None:
            print(f"    {name:14} right, off by {row['max_err']:.1e} at most")
        else:
            over = f", {ms / base:.2f} of native" if base and name != AGAIN else ""
            print(f"    {name:14} {ms:9.3f} ms ± {row['iqr_ms']:.3f}{over}")
