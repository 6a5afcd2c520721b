"""What is to be measured in a case: who, and how each is checked."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.contender import Contender, compile_call, temp_mb
from benchmarks.right import TOLERANCE
from benchmarks.rows import Row
from benchmarks.scan.measure import verdict

SWITCH = "JAXSEQ_NATIVE"

Make = Callable[[int], Contender]  # from how many compilations are timed


class Task(NamedTuple):
    """The contenders by their names, and what is wrong with one that is ready."""

    contenders: dict[str, Make]
    check: Callable[[str, Contender], Row]
    # what else a row has of one that was timed
    after: Callable[[str, Contender], Row] = lambda name, contender: {}


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
        return verdict(contender.results(), want[0], TOLERANCE["float32"])

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
