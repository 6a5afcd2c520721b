"""Checks and times the contenders of one case: a row for each."""

import os
from typing import Any

import jax

from benchmarks.cases import GATES, flops
from benchmarks.contender import Contender
from benchmarks.contenders import version
from benchmarks.device import cores
from benchmarks.errors import Unsupported
from benchmarks.measure import error_text
from benchmarks.native.cases import (
    AGAIN,
    COMPILES,
    FEWER_COMPILES,
    LIKE,
    MEMBERS,
    MOST_ROUNDS,
    NATIVE,
    PRODUCTS,
    Asked,
)
from benchmarks.native.problems import Task, task
from benchmarks.right import precision
from benchmarks.rows import Row
from benchmarks.timing import fitting, median_iqr, product_gflops, take_turns

PACKAGES = "jax", "jaxseq", "flax", "torch"
EMPTY = ("median_ms", "iqr_ms", "compile_ms", "temp_mb", "max_err", "threads")


def measure(
    asked: Asked, device: Any, rounds: int, peaks: dict[str, float]
) -> list[Row]:
    """Rows of all contenders; one whose results are not right has no times."""
    part, case = asked
    shared: Row = {"load": os.getloadavg()[0], "cores": cores(), "peaks": peaks}
    with precision(case.dtype), jax.default_device(device):
        wanted = task(asked, device)
        compiles = FEWER_COMPILES.get(part, COMPILES) if rounds else 1
        rows, ready = prepare(wanted, compiles)
        right = {n: c for n, c in ready.items() if rows[n]["reason"] is None}
        if rounds and right:
            # the noise of a ratio, and the rate of XLA's product: `layers` has them too
            more = part != PRODUCTS
            if NATIVE in right and more:  # in turns of its own
                right[AGAIN], rows[AGAIN] = right[NATIVE], rows[NATIVE]
            calls, rounds = fitting(right, min(rounds, MOST_ROUNDS.get(part, rounds)))
            large = [product_gflops(device, "float32")] if more else []
            times = take_turns(right, rounds, calls=calls)
            if more:
                large.append(product_gflops(device, "float32"))
                shared["matmul_gflops"] = max(large)
            for name, found in times.items():
                ms, iqr = median_iqr(found)
                rows[name] = rows[name] | {"median_ms": ms, "iqr_ms": iqr}
                if name != AGAIN:
                    rows[name] |= wanted.after(name, right[name])
    shared |= {"rounds": rounds, "part": part, "gflop": gflop(asked)}
    shared["versions"] = {name: version(name) for name in PACKAGES}
    empty = dict.fromkeys(EMPTY)
    return [
        {"contender": name, **case._asdict(), **empty, **row, **shared}
        for name, row in rows.items()
    ]


def gflop(asked: Asked) -> float | None:
    """Of the products, where it is known which the operation has."""
    op = LIKE.get(asked.case.op, asked.case.op)
    if op not in GATES:
        return None
    members = MEMBERS if asked.part == "ensemble" else 1
    return members * flops(asked.case._replace(op=op)) / 1e9


def prepare(wanted: Task, repeats: int) -> tuple[dict[str, Row], dict[str, Contender]]:
    """Rows, and the contenders that could be compiled."""
    rows: dict[str, Row] = {}
    ready: dict[str, Contender] = {}
    for name, make in wanted.contenders.items():
        try:
            contender = make(repeats)
            rows[name] = wanted.check(name, contender)
        except Unsupported as error:
            rows[name] = {"reason": str(error)}
            continue
        except Exception as error:  # of a library, which must not end the run
            rows[name] = {"reason": error_text(error)}
            continue
        ready[name] = contender
        more = ("compile_ms", "temp_mb", "threads")
        rows[name] |= {key: getattr(contender, key) for key in more}
    return rows, ready
