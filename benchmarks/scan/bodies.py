"""Every body by its name, and a scan of one as functions to be compiled."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

import jaxseq
from benchmarks.cases import Case
from benchmarks.scan.body import Body, Random
from benchmarks.scan.cases import OURS, PLAIN
from benchmarks.scan.libraries import LIBRARIES
from benchmarks.scan.written import WRITTEN

MAKERS = LIBRARIES | WRITTEN


class Problem(NamedTuple):
    """What every contender is given, and what each of them runs."""

    contenders: dict[str, Callable[..., Any]]  # (*arguments) -> results, by name
    arguments: tuple[Any, ...]


def problem_of(case: Case) -> Problem:
    """A scan of the body `case.op`, or that and its gradients, in `case.dtype`."""
    generator = np.random.default_rng(0)
    random = Random(generator, np.dtype(case.dtype))
    body = MAKERS[case.op]((case.B, case.T, case.D, case.H), random)
    x = random.normal(case.T, case.B, case.D)
    resets = generator.random((case.T, case.B)) < 0.05 if body.resets else None
    arguments = body.weights, body.state, x, resets
    runs = runs_of(body)
    if case.mode == "gradient":
        runs = {name: gradient_of(run) for name, run in runs.items()}
        like = jax.tree.map(lambda a: random.normal(*a.shape), body.state)
        arguments += ((like, random.normal(case.T, case.B, case.H)),)
    return Problem(runs, arguments)


def runs_of(body: Body) -> dict[str, Callable[..., Any]]:
    def by(scan: Any) -> Callable[..., Any]:
        def run(weights: Any, state: Any, x: Any, resets: Any) -> Any:
            xs = x if resets is None else (x, resets)
            return scan(body.make(weights), state, xs)

        return run

    runs = {PLAIN: by(lax.scan), OURS: by(jaxseq.scan)}
    if body.own is not None:
        name, own = body.own
        runs[name] = lambda w, state, x, resets: own(
            w, state, x if resets is None else (x, resets)
        )
    return runs


def gradient_of(run: Callable[..., Any]) -> Callable[..., Any]:
    """Results, and gradients by weights, first state and inputs, given theirs."""

    def gradient(weights: Any, state: Any, x: Any, resets: Any, given: Any) -> Any:
        f = lambda weights, state, x: run(weights, state, x, resets)
        results, pullback = jax.vjp(f, weights, state, x)
        return results, pullback(given)

    return gradient
