"""Runs `python -m benchmarks real`."""

import argparse

import jax

from benchmarks.contender import compile_call
from benchmarks.device import cores, device_name, find_device, refuse_busy
from benchmarks.progress import Progress, minutes
from benchmarks.real.cases import cases
from benchmarks.real.measure import measure
from benchmarks.rows import append, begin
from benchmarks.scan.cases import PLAIN


def run(options: argparse.Namespace) -> int:
    """Returns for how many models `jaxseq.scan` was not right."""
    device = find_device(options.device)
    if options.rounds:
        refuse_busy(cores() / 2 if options.max_load is None else options.max_load)
    path = options.results / f"{device_name(device)}.jsonl"
    stamp, done = begin(path, device, options.resume)
    left = [c for c in cases(options.models, options.size) if c not in done]
    jax.config.update("jax_enable_compilation_cache", False)
    compile_call(jax.numpy.tanh, (1.0,))  # the compiler starts at nobody's cost
    progress, wrong = Progress([1.0] * len(left)), 0

    def tell(line: str) -> None:
        print(f"    {minutes(progress.spent())}: {line}", flush=True)

    for i, case in enumerate(left):
        print(f"[{i + 1}/{len(left)}] {case}, {options.steps} steps", flush=True)
        rows = measure(case, device, options.steps, options.rounds, tell)
        append(path, rows, **stamp)
        base = rows[0]["median_ms"]
        for row in rows:
            name, ms = row["contender"], row["median_ms"]
            if row["reason"]:
                print(f"    {name:14} not timed: {row['reason']}")
            elif ms is not None:
                over = f"{PLAIN} over it {base / ms:.2f}"
                print(
                    f"    {name:14} {ms:9.3f} ms a step ± {row['iqr_ms']:.3f}, {over}"
                )
        wrong += rows[0]["reason"] is not None
    print(f"{minutes(progress.spent())} in all")
    return wrong
