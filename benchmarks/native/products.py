"""A layer without its functions: its products, and the same arrays, and little else.

The equations are those of the layer with the identity in place of each function, so
that its update is a few additions and multiplications; an RNN has the square, since
the gradient of the identity would read nothing of what is saved. The engine then
computes the same products, saves the same arrays and reads them again. What it takes
is what the layer would take if its functions cost nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxseq
from benchmarks.cases import flops
from benchmarks.contender import (
    Contender,
    Layer,
    Values,
    call_of,
    compile_call,
    values,
)
from benchmarks.contenders import jaxseq as ours
from benchmarks.contenders import torch
from benchmarks.measure import verdict
from benchmarks.native.cases import NATIVE, PRODUCTS
from benchmarks.native.parts import parts_of
from benchmarks.native.task import Task
from benchmarks.native.traffic import traffic
from benchmarks.problem import Problem, draw
from benchmarks.right import FLOAT64_TOLERANCE, expected, pick, relative_error
from benchmarks.rows import Row
from tests import reference_variants


def identity(a: Any) -> Any:
    return a


def square(a: Any) -> Any:
    return a * a


OF_LSTM: dict[str, Any] = dict.fromkeys(("gate", "candidate", "output"), identity)
OF_GRU: dict[str, Any] = dict.fromkeys(("gate", "candidate"), identity)
OF_RNN: dict[str, Any] = {"activation": square}
# each beside the same equations in NumPy
CELLS = {
    "lstm": (jaxseq.lstm_cell(**OF_LSTM), reference_variants.lstm, OF_LSTM),
    "gru": (jaxseq.gru_cell(**OF_GRU), reference_variants.gru, OF_GRU),
    "rnn": (jaxseq.rnn_cell(**OF_RNN), reference_variants.rnn, OF_RNN),
}
LONG = 1e9  # operations
SMALLER = 0.5  # weights, with which no state grows without bound


def products(case: Any, device: Any) -> Task:
    problem = draw(case)
    bare = problem._replace(weights=(smaller(problem),))
    want, bare_want = expected(problem, device), expected_of_products(bare, device)
    texts: dict[str, str] = {}

    def ready(name: str, layer: Layer, own: Problem) -> Callable[[int], Contender]:
        def make(repeats: int) -> Contender:
            f, args = call_of(layer, own, device)
            compiled, _ = compile_call(f, args)
            texts[name] = compiled.as_text()
            launch = lambda: compiled(*args)
            return Contender(launch, lambda: values(layer, own, launch()))

        return make

    contenders: dict[str, Any] = {
        NATIVE: ready(NATIVE, ours.layer(problem, "native"), problem),
        PRODUCTS: ready(PRODUCTS, layer(bare, "native"), bare),
    }
    if case.op == "lstm":  # PyTorch has a fused kernel for this one alone
        # one thread is never faster than all of them where calls are long
        tries = 1 if flops(case) > LONG else 3
        contenders["torch"] = lambda repeats: torch.prepare(
            problem, device, min(repeats, tries)
        )

    def check(name: str, contender: Contender) -> Row:
        if name == PRODUCTS:
            row = verdict(contender, bare_want, bare)
        else:
            row = verdict(contender, want, problem)
        return row | traffic(texts[name]) if name in texts else row

    def after(name: str, contender: Contender) -> Row:
        is_gradient = case.mode == "gradient" and name in texts
        return {"parts": parts_of(contender)} if is_gradient else {}

    return Task(contenders, check, after)


def smaller(problem: Problem) -> Any:
    (weights,) = problem.weights
    return weights._replace(
        **{name: (SMALLER * w).astype(w.dtype) for name, w in weights._asdict().items()}
    )


def layer(problem: Problem, implementation: str) -> Layer:
    op, H, (weights,) = problem.case.op, problem.case.H, problem.weights
    cell = CELLS[op][0]
    b_hn = np.zeros(H, problem.x.dtype) if op == "gru" else None

    def apply(params: Any, x: Any, lengths: Any, resets: Any) -> Any:
        width: Any = H
        zeros = jaxseq.LSTMState(width, width) if op == "lstm" else width
        how: Any = {"zeros": zeros, "implementation": implementation}
        return jaxseq.cell(cell.update, params, x, **how)[1]

    params = jaxseq.CellParams(*weights, b_hn)
    return Layer(apply, params, ours.by_name)


def expected_of_products(problem: Problem, device: Any) -> Values:
    """As `right.expected`: some rows by NumPy, and gradients by a scan in float64."""
    case, wide = problem.case, jax.tree.map(widened, problem._replace(case=None))
    wide = wide._replace(case=case)
    y = some_rows(wide)
    if case.mode == "forward":
        return {"y": y}
    plain = layer(wide, "scan")
    with jax.enable_x64(True):
        f, args = call_of(plain, wide, device)
        found = values(plain, wide, jax.jit(f)(*args))
    found = {name: np.asarray(a) for name, a in found.items()}
    found["y"] = pick(found["y"])
    error = relative_error(found["y"], y)
    if not error <= FLOAT64_TOLERANCE:
        raise ArithmeticError(f"{case.op} without functions is off by {error:.1e}")
    return found


def widened(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64)


def some_rows(problem: Problem) -> np.ndarray:
    op, H, (weights,) = problem.case.op, problem.case.H, problem.weights
    _, step, functions = CELLS[op]
    params = *weights, np.zeros(H) if op != "lstm" else None
    zeros = np.zeros(H)
    found = []
    for x in pick(problem.x):
        state: Any = (zeros, zeros) if op == "lstm" else zeros
        y = []
        for x_t in x:
            state = step(params, state, x_t, **functions)
            y.append(state[0] if op == "lstm" else state)
        found.append(y)
    return np.array(found)
