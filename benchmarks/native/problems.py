"""Who is measured in a case, each as a function that makes it ready to run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

import jaxseq
from benchmarks.cases import Case
from benchmarks.contender import Layer, prepare_layer
from benchmarks.contenders import flax, jaxseq_vmap, linen, torch
from benchmarks.contenders import jaxseq as ours
from benchmarks.measure import verdict
from benchmarks.native.cases import CHUNKS, FLOAT32, NATIVE, PRODUCTS, STEP, Asked
from benchmarks.native.ensemble import ensemble
from benchmarks.native.products import products
from benchmarks.native.task import Make, Run, Task, compare
from benchmarks.problem import Problem, draw
from benchmarks.right import expected
from benchmarks.scan.bodies import problem_of
from benchmarks.scan.cases import OURS, PLAIN
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU

CELLS = {
    "peephole LSTM": PEEPHOLE_LSTM,
    "projected LSTM": PROJECTED_LSTM,
    "reset-before GRU": RESET_BEFORE_GRU,
}
HOW = {NATIVE: "native", CHUNKS: "loop", "scan": "scan"}


def task(asked: Asked, device: Any) -> Task:
    part, case = asked
    make: Any = {"cells": cells, "bodies": bodies, "step": step}.get(part)
    if make is not None:
        return compare(make(case), device)
    if part == "ensemble":
        return ensemble(case, layers(), device)
    if part == PRODUCTS:
        return products(case, device)
    problem = draw(case)
    want, given = expected(problem, device), dict[str, Problem]()
    made: dict[str, Callable[..., Layer]] = {"resets": resets, "half": half}.get(
        part, layers
    )()
    if FLOAT32 in made:
        given[FLOAT32] = in_float32(problem)
    contenders: dict[str, Make] = {
        name: ready_layer(layer, given.get(name, problem), device)
        for name, layer in made.items()
    }
    if part != "resets" and case.dtype != "float16":  # which takes it seconds on a CPU
        contenders["torch"] = lambda repeats: torch.prepare(problem, device, repeats)
    check = lambda name, contender: verdict(contender, want, given.get(name, problem))
    return Task(contenders, check)


def ready_layer(layer: Callable[..., Layer], problem: Problem, device: Any) -> Make:
    return lambda repeats: prepare_layer(layer(problem), problem, device, repeats)


def by(name: str, layer: Callable[..., Layer] = ours.layer) -> Callable[..., Layer]:
    return partial(layer, implementation=HOW[name])


def layers() -> dict[str, Callable[..., Layer]]:
    return {**{name: by(name) for name in HOW}, "flax": flax.layer}


def half() -> dict[str, Callable[..., Layer]]:
    """In the dtype of the case, but for one that is given float32."""
    return {NATIVE: by(NATIVE), FLOAT32: by(NATIVE), CHUNKS: by(CHUNKS)}


def in_float32(problem: Problem) -> Problem:
    """The same numbers."""
    case, cast = problem.case, lambda a: a.astype(np.float32)
    wide = jax.tree.map(cast, problem._replace(case=None))
    return wide._replace(case=case._replace(dtype="float32"))


def resets() -> dict[str, Callable[..., Layer]]:
    """With the batch first, and under `vmap` over rollouts with time first."""
    found: dict[str, Callable[..., Layer]] = {}
    for name in (NATIVE, CHUNKS):
        mapped = by(name, jaxseq_vmap.layer)
        found |= {name: by(name), f"{name} vmap": mapped}
    return {**found, "linen": linen.layer}


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
    return {**found, STEP: Run(layer.step, args, donated=True)}
