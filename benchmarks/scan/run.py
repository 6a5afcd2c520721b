"""Runs `python -m benchmarks scan`."""

import argparse

import jax

from benchmarks.cases import Case
from benchmarks.contender import compile_call
from benchmarks.device import cores, device_name, find_device, refuse_busy
from benchmarks.errors import UsageError
from benchmarks.progress import Progress, minutes
from benchmarks.rows import Row, append, begin
from benchmarks.scan.cases import AGAIN, BLOCKS, PLAIN, cases
from benchmarks.scan.measure import exact, measure
from benchmarks.timing import FEWEST, TURNS_S


def run(options: argparse.Namespace) -> int:
    """Returns in how many cases `jaxseq.scan` was not right."""
    for *_, H in options.shapes:
        if H % BLOCKS:
            raise UsageError(f"--shapes: H has to be a multiple of {BLOCKS}, got {H}")
    device = find_device(options.device)
    if options.rounds:
        refuse_busy(cores() / 2 if options.max_load is None else options.max_load)
    path = options.results / f"{device_name(device)}.jsonl"
    stamp, done = begin(path, device, options.resume)
    every = cases(options.bodies, options.shapes, options.modes)
    left = [case for case in every if case not in done]
    guesses = [seconds(case, options.rounds) for case in left]
    print(f"{len(left)} cases to {path}, about {minutes(sum(guesses))}", flush=True)
    # a cached program would have no compile time
    jax.config.update("jax_enable_compilation_cache", False)
    compile_call(jax.numpy.tanh, (1.0,))  # the compiler starts at nobody's cost
    progress, wrong, checked = Progress(guesses), 0, {}
    for i, case in enumerate(left):
        time = minutes(progress.left(i))
        print(f"[{i + 1}/{len(left)}, {time} left] {case}", flush=True)
        if case.op not in checked:
            checked[case.op] = exact(case.op)
            if checked[case.op]:
                print(f"    {checked[case.op]}")
        rows = measure(case, device, options.rounds, checked[case.op])
        append(path, rows, **stamp)
        show(rows)
        wrong += any(row["reason"] for row in rows)
    print(f"{minutes(progress.spent())} in all")
    return wrong


def seconds(case: Case, rounds: int) -> float:
    """A rough guess: three contenders compiled, checked, and timed in turns."""
    more = 3 if case.mode == "gradient" else 1
    call = more * 8 * case.B * case.T * (case.D + case.H) * case.H / 1e11
    call *= 2 if case.op == "two LSTM layers" else 1
    turn = 3 * (0.05 + call + max(0.05, call))
    turns = min(rounds * turn, max(TURNS_S, FEWEST * turn))
    return 4 * more + 6 * call + turns


def show(rows: list[Row]) -> None:
    base = next((r["median_ms"] for r in rows if r["contender"] == PLAIN), None)
    for row in rows:
        name, ms = row["contender"], row["median_ms"]
        if row["reason"]:
            print(f"    {name:14} not timed: {row['reason']}")
        elif ms is None:
            print(f"    {name:14} right, off by {row['max_err']:.1e} at most")
        else:
            times = f"{ms:9.3f} ms ± {row['iqr_ms']:.3f}, lax.scan over it"
            compiled = "" if name == AGAIN else f", compiled in {row['compile_ms']:.0f}"
            print(f"    {name:14} {times} {base / ms:.2f}{compiled}")
    if rows[0]["same"]:
        print("    both scans are the same program")
