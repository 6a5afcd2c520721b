"""Who is measured in a case, each as a function that makes it ready to run."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxseq
from benchmarks.cases import Case
from benchmarks.contender import Contender, Layer, compile_call, prepare_layer, temp_mb
from benchmarks.contenders import flax, jaxseq_vmap, linen, torch
from benchmarks.contenders import jaxseq as ours
from benchmarks.measure import verdict
from benchmarks.native.cases import CHUNKS, NATIVE
from benchmarks.problem import Problem, draw
from benchmarks.right import TOLERANCE, expected
from benchmarks.rows import Row
from benchmarks.scan.bodies import problem_of
from benchmarks.scan.cases import OURS, PLAIN
from benchmarks.scan.measure import verdict as compared
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU

CELLS = {
    "peephole LSTM": PEEPHOLE_LSTM,
    "projected LSTM": PROJECTED_LSTM,
    "reset-before GRU": RESET_BEFORE_GRU,
}
SWITCH = "JAXSEQ_NATIVE"
HOW = {NATIVE: "native", CHUNKS: "loop", "scan": "scan"}

Make = Callable[[int], Contender]  # from how many compilations are timed


class Task(NamedTuple):
    """The contenders by their names, and what is wrong with one that is ready."""

    contenders: dict[str, Make]
    check: Callable[[str, Contender], Row]


def task(part: str, case: Case, device: Any) -> Task:
    make: Any = {"cells": cells, "bodies": bodies, "step": step}.get(part)
    if make is not None:
        return compare(make(case), device)
    problem = draw(case)
    want = expected(problem, device)
    found = resets(problem) if part == "resets" else layers(problem)
    made = {name: ready_layer(make, problem, device) for name, make in found.items()}
    if part == "layers":
        made["torch"] = lambda repeats: torch.prepare(problem, device, repeats)
    return Task(made, lambda _, contender: verdict(contender, want, problem))


def ready_layer(layer: Callable[..., Layer], problem: Problem, device: Any) -> Make:
    return lambda repeats: prepare_layer(layer(problem), problem, device, repeats)


def layers(problem: Problem) -> dict[str, Callable[..., Layer]]:
    by = {n: partial(ours.layer, implementation=how) for n, how in HOW.items()}
    return {**by, "flax": flax.layer}


def resets(problem: Problem) -> dict[str, Callable[..., Layer]]:
    """With the batch first, and under `vmap` over rollouts with time first."""
    found = {}
    for name in (NATIVE, CHUNKS):
        own = partial(ours.layer, implementation=HOW[name])
        mapped = partial(jaxseq_vmap.layer, implementation=HOW[name])
        found |= {name: own, f"{name} vmap": mapped}
    return {**found, "linen": linen.layer}


class Run(NamedTuple):
    """A function, its arguments, and whether it is to run by the engine by default."""

    f: Callable[..., Any]
    args: tuple[Any, ...]
    native: bool | None = None  # False: by turning the engine off; None: either
    donated: bool = False  # its second argument, which is the first of its results


def compare(runs: dict[str, Run], device: Any) -> Task:
    """Held to the last of them, which is the plainest."""
    made = {name: partial(ready, run, device) for name, run in runs.items()}
    last, want = [*made][-1], []

    def check(name: str, contender: Contender) -> Row:
        if not want:
            want.append(made[last](1).results())
        return compared(contender.results(), want[0], TOLERANCE["float32"])

    return Task(made, check)


@contextmanager
def turned_off() -> Iterator[None]:
    """Within it functions are lowered anew, and without the native engine."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    jax.clear_caches()
    try:
        yield
    finally:
        jax.clear_caches()
        if before is None:
            os.environ.pop(SWITCH)
        else:
            os.environ[SWITCH] = before


def ready(run: Run, device: Any, repeats: int) -> Contender:
    args = jax.device_put(run.args, device)
    with turned_off() if run.native is False else nullcontext():
        if run.donated:
            return stepping(run.f, *args)
        compiled, ms = compile_call(run.f, args, repeats)
    if run.native and "jaxseq_native" not in compiled.as_text():
        raise ValueError("the rule does not choose the native engine")
    launch = lambda: compiled(*args)
    results: Any = lambda: jax.tree.map(np.asarray, launch())
    return Contender(launch, results, compile_ms=ms, temp_mb=temp_mb(compiled))


def stepping(f: Any, weights: Any, state: Any, x: Any) -> Contender:
    """One call a step, which is given the state of the one before to overwrite."""
    compiled = jax.jit(f, donate_argnums=1).lower(weights, state, x).compile()
    fresh = lambda: jax.tree.map(lambda a: a.copy(), state)
    held = [fresh()]

    def launch() -> Any:
        held[0], y = compiled(weights, held[0], x)
        return y

    results: Any = lambda: jax.tree.map(np.asarray, compiled(weights, fresh(), x))
    return Contender(launch, results)


def cells(case: Case) -> dict[str, Run]:
    """A published cell by each implementation, and its gradients if asked for."""
    cell, random = CELLS[case.op], np.random.default_rng(0)
    params = cell.init(jax.random.key(0), case.D, case.H)
    normal = lambda *shape: random.standard_normal(shape, np.float32)
    x = normal(case.B, case.T, case.D)
    state = cell.zeros(params, (case.B,))
    args = params, x
    if case.mode == "gradient":
        args = *args, normal(case.B, case.T, jax.tree.leaves(state)[0].shape[-1])

    def by(how: str) -> Callable[..., Any]:
        def run(params: Any, x: Any) -> Any:
            return jaxseq.cell(cell.update, params, x, state, implementation=how)[1]

        return run if case.mode == "forward" else gradient_of(run)

    return {name: Run(by(how), args) for name, how in HOW.items()}


def gradient_of(run: Callable[..., Any]) -> Callable[..., Any]:
    def gradient(params: Any, x: Any, dy: Any) -> Any:
        y, pullback = jax.vjp(run, params, x)
        return y, pullback(dy)

    return gradient


def bodies(case: Case) -> dict[str, Run]:
    problem = problem_of(case)
    runs, args = problem.contenders, problem.arguments
    return {
        NATIVE: Run(runs[OURS], args, native=True),
        CHUNKS: Run(runs[OURS], args, native=False),
        "scan": Run(runs[PLAIN], args),
    }


def step(case: Case) -> dict[str, Run]:
    """One step of a stream, by a sequence of one step and by the step itself."""
    problem = draw(case)
    layer = ours.layer(problem)
    assert layer.step is not None
    x = problem.x[:, 0]
    f = ours.OPS[case.op][1]

    def sequence(how: str) -> Callable[..., Any]:
        def run(weights: Any, state: Any, x: Any) -> Any:
            state, y = f(weights[0], x[:, None], state, implementation=how)
            return state, y[:, 0]

        return run

    args = layer.weights, layer.zeros, x
    found = {n: Run(sequence(HOW[n]), args, donated=True) for n in (NATIVE, CHUNKS)}
    return {**found, f"{case.op}_step": Run(layer.step, args, donated=True)}
