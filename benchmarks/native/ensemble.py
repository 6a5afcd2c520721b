"""Layers of one shape, each with weights of its own, as one function under `vmap`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Case
from benchmarks.contender import (
    Contender,
    Layer,
    compile_call,
    gradient_of,
    temp_mb,
    values,
)
from benchmarks.measure import verdict
from benchmarks.native.cases import MEMBERS
from benchmarks.native.task import Task
from benchmarks.problem import Problem, draw
from benchmarks.right import expected, gradient64
from benchmarks.rows import Row


def ensemble(
    case: Case, layers: Mapping[str, Callable[[Problem], Layer]], device: Any
) -> Task:
    """All members read the same x; the result of each is held to its own equations."""
    problems = [draw(case, seed) for seed in range(MEMBERS)]
    problems = [problem._replace(x=problems[0].x) for problem in problems]
    gradient = gradient64(problems[0])
    want = [expected(problem, device, gradient) for problem in problems]

    def check(_: str, contender: Contender) -> Row:
        found, rows = contender.results(), []
        for k, problem in enumerate(problems):
            own = {name: a[k] for name, a in found.items()}
            one = contender._replace(results=lambda own=own: own)
            rows.append(verdict(one, want[k], problem))
        wrong = (row for row in rows if row["reason"])
        return next(wrong, None) or max(rows, key=lambda row: row["max_err"])

    made = {n: partial(ready, layer, problems, device) for n, layer in layers.items()}
    return Task(made, check)


def ready(
    layer: Callable[[Problem], Layer],
    problems: list[Problem],
    device: Any,
    repeats: int,
) -> Contender:
    stack = lambda *members: np.stack([np.asarray(a) for a in members])
    members = [layer(problem) for problem in problems]
    first, problem = members[0], problems[0]
    weights = jax.tree.map(stack, *(member.weights for member in members))
    f: Callable[..., Any] = lambda weights, x: first.apply(weights, x, None, None)
    args, axes = (weights, problem.x), (0, None)
    if problem.case.mode == "gradient":
        f, axes = gradient_of(first.apply), (0, None, 0, None, None)
        args += stack(*(p.dy for p in problems)), None, None
    args = jax.device_put(args, device)
    compiled, ms = compile_call(jax.vmap(f, axes), args, repeats)
    launch = lambda: compiled(*args)

    def results() -> dict[str, Any]:
        found = values(first, problem, launch())
        return {name: np.asarray(a) for name, a in found.items()}

    return Contender(launch, results, compile_ms=ms, temp_mb=temp_mb(compiled))
