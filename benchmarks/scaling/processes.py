"""The same model for processes that share the cores of one machine, and its fit.

More processes do not compute faster together: one uses all cores already. What is added
is the sum over the processes, and the turns that they wait for a core.
"""

from collections import defaultdict
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.rows import Row
from benchmarks.scaling.model import Net, operations


class Run(NamedTuple):
    """What was measured, in seconds."""

    processes: int
    batch: int
    net: Net
    step: float
    sum: float  # of as many numbers as the net has weights
    one: float  # of one number


class Machine(NamedTuple):
    rate: float  # operations by the second, of all cores together
    start: float  # of a step, whatever its size
    message: float
    link: float  # bytes by the second
    turn: float  # for a core, of each process


class Share(NamedTuple):
    compute: float
    sum: float
    turns: float


def step(net: Net, machine: Machine, batch: int, n: int) -> Share:
    return Share(
        machine.start + operations(net, batch) / machine.rate,
        all_reduce(4 * net.weights, machine, n),
        machine.turn * n if n > 1 else 0.0,
    )


def all_reduce(n_bytes: float, machine: Machine, n: int) -> float:
    """In a ring: each process sends 2 (n - 1) messages of 1/n of all bytes."""
    return 2 * (n - 1) * (machine.message + n_bytes / n / machine.link)


def runs(rows: list[Row]) -> list[Run]:
    """Of each size and number of processes one, the median of its rounds."""
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        sizes = row["hidden"], row["layers"], row["embedding"]
        net = Net(*sizes, window=row["window"])
        found[row["processes"], row["batch"], net].append(row)
    middle = lambda rows, name: median(row[name]["median"] for row in rows) / 1000
    return [
        Run(
            *key,
            *(middle(rows, f"{name}_ms") for name in ("step", "sum", "sum_of_one")),
        )
        for key, rows in sorted(found.items())
    ]


def fit(measured: list[Run]) -> Machine:
    """Computing is fitted to one process, turns to two, the sum to all."""
    one = [run for run in measured if run.processes == 1]
    many = [run for run in measured if run.processes > 1]
    per_operation, start = least_squares(
        [[operations(run.net, run.batch), 1.0] for run in one],
        [run.step for run in one],
    )
    rounds = lambda run: 2 * (run.processes - 1)
    message = median(run.one / rounds(run) for run in many)
    sent = lambda run: rounds(run) / run.processes * 4 * run.net.weights
    per_byte = median((run.sum - run.one) / sent(run) for run in many)
    machine = Machine(1 / per_operation, start, message, 1 / per_byte, 0.0)
    two = [run for run in many if run.processes == 2]
    waits = [run.step - sum(step(run.net, machine, run.batch, 2)) for run in two]
    return machine._replace(turn=median(waits) / 2)


def least_squares(of: list[list[float]], values: list[float]) -> list[float]:
    """With errors relative to the values."""
    a, b = np.array(of), np.array(values)
    scale = a.max(0)
    found = np.linalg.lstsq(a / b[:, None] / scale, np.ones(len(b)), rcond=None)[0]
    return (found / scale).tolist()
