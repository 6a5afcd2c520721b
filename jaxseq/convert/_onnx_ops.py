"""The recurrent operators of ONNX: their gates, their activations, and their weights.

https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

import jaxseq
from jaxseq import Activation, Cell, LSTMExtra, Projected, ResetBefore
from jaxseq._base.check import check
from jaxseq._base.functions import FUNCTIONS, name_of
from jaxseq.convert._gates import (
    Weights,
    check_gates,
    reordered,
    side_by_side,
    two_biases,
)
from jaxseq.convert._names import check_shape
from jaxseq.convert._network import called, shown

Function = Callable[..., Any]


class Kind(NamedTuple):
    """One of the operators.

    Fields:
        cell: what it is if it is not told otherwise.
        make: makes its variants.
        functions: what `make` calls the activations, in the order of ONNX.
        ours: of each gate in the order of jaxseq, where ONNX has it.
        theirs: of each gate in the order of ONNX, where jaxseq has it.
    """

    cell: Cell
    make: Callable[..., Cell]
    functions: tuple[str, ...]
    ours: tuple[int, ...]
    theirs: tuple[int, ...]


FLOW = "gate", "candidate", "output"
KINDS = {
    "RNN": Kind(jaxseq.RNN, jaxseq.rnn_cell, ("activation",), (0,), (0,)),
    "LSTM": Kind(jaxseq.LSTM, jaxseq.lstm_cell, FLOW, (0, 2, 3, 1), (0, 3, 1, 2)),
    "GRU": Kind(jaxseq.GRU, jaxseq.gru_cell, FLOW[:2], (1, 0, 2), (1, 0, 2)),
}
# by the names of `jaxseq.activation`, how many of α and β each one has
NUMBERS = {
    "affine": 2,
    "elu": 1,
    "hard_sigmoid": 2,
    "leaky_relu": 1,
    "relu": 0,
    "scaled_tanh": 2,
    "sigmoid": 0,
    "softplus": 0,
    "softsign": 0,
    "tanh": 0,
    "thresholded_relu": 1,
}
OURS = {name.replace("_", ""): name for name in NUMBERS}
THEIRS = {name: name.title().replace("_", "") for name in NUMBERS}


def functions(
    names: Sequence[str], alpha: Sequence[float], beta: Sequence[float], key: str
) -> list[Function]:
    """The functions of a node's attributes, those of all directions in one list.

    Each takes the next α and β if it has such.
    """
    left, found = (iter(alpha), iter(beta)), []
    for name in names:
        own = OURS.get(name.lower(), "")
        check(own in NUMBERS, key, f"names among {[*THEIRS.values()]}", repr(name))
        taken = [next(numbers, None) for numbers in left[: NUMBERS[own]]]
        numbers = dict(zip(("alpha", "beta"), taken, strict=False))
        found.append(jaxseq.activation(own, **numbers) if numbers else FUNCTIONS[own])
    return found


def functions_of(kind: str, cells: Sequence[Cell]) -> list[Function]:
    """The activations of cells, one after the other."""
    return [getattr(own.update, key) for own in cells for key in KINDS[kind].functions]


def _attributes(kind: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """The attributes that name activations, or none if these need no saying."""
    each = functions_of(kind, cells)
    if each == functions_of(kind, [KINDS[kind].cell] * len(cells)):
        return {}
    own = [_named(f) for f in each]
    found = {"activations": [THEIRS[f.name] for f in own]}
    for k, key in enumerate(("alpha", "beta")):
        numbers = [getattr(f, key) for f in own if NUMBERS[f.name] > k]
        if kind == "RNN" and len(numbers) == 1:  # older runtimes read by place
            numbers *= len(own)
        found |= {f"activation_{key}": numbers} if numbers else {}
    return found


def _named(f: Any) -> Activation:
    if isinstance(f, Activation):
        return f
    name = name_of(f) or ""
    ok = NUMBERS.get(name, 2) < 2  # the hard sigmoid of JAX has other numbers
    expected = "functions that ONNX has, such as those of jaxseq.activation"
    check(ok, "network.cell", expected, called(f))
    return jaxseq.activation(name)


def kind_of(cells: tuple[Cell, ...]) -> str:
    """The operator that is these cells, one for each direction."""
    update: Any = cells[0].update
    found = [k for k, own in KINDS.items() if type(own.cell.update) is type(update)]
    expected = "a cell that ONNX has: RNN, LSTM, GRU, or of rnn_cell, lstm_cell, ..."
    check(bool(found), "network.cell", expected, shown(cells[0]))
    heads = getattr(update, "heads", 1)
    check(heads == 1, "network.cell", "1 head, for ONNX has no more", heads)
    expected = "cells that differ in activations alone, for ONNX has one node for both"
    got = " and ".join(map(shown, cells))
    check(len({_common(cell) for cell in cells}) == 1, "network.cell", expected, got)
    return found[0]


def _common(cell: Cell) -> tuple[Any, ...]:
    """What the cells of a node share."""
    own = cell.update
    return type(own), *(getattr(own, key, None) for key in ("clip", "coupled", "heads"))


def told(
    kind: str, cells: tuple[Cell, ...], both: tuple[Any, ...], name: str
) -> dict[str, Any]:
    """The attributes of a node, but for its direction."""
    update: Any = cells[0].update
    found = _attributes(kind, cells)
    if update.clip is not None:
        found["clip"] = float(update.clip)
    if kind == "LSTM" and update.coupled:
        found["input_forget"] = 1
    if kind == "GRU":
        after = {not isinstance(params.w_h, ResetBefore) for params in both}
        expected = "reset gates of both directions on the same side of the product"
        check(len(after) == 1, name, expected, "both")
        found["linear_before_reset"] = int(after.pop())
    return found


def arrays(kind: str, both: tuple[Any, ...], name: str) -> dict[str, Any]:
    """The weights of a node, by the names of its inputs."""
    import numpy as np

    each = [_of_direction(kind, params, name) for params in both]
    keys = [k for k in ("W", "R", "B", "P") if any(k in own for own in each)]
    for key in keys:
        shapes = [own[key].shape if key in own else None for own in each]
        expected = f"the same widths, and {key} in both directions or in none"
        got = " and ".join("none" if s is None else f"shape {s}" for s in shapes)
        check(len(set(shapes)) == 1, name, expected, got)
    return {key: np.stack([own[key] for own in each]) for key in keys}


def _of_direction(kind: str, params: Any, name: str) -> dict[str, Any]:
    import numpy as np

    w_x, w_h, b, b_h = jax.tree.map(np.asarray, params)
    none = "no {}, for ONNX has none"
    check(not isinstance(w_h, Projected), name, none.format("projection"), "one")
    peepholes = None
    if isinstance(b_h, LSTMExtra):
        check(b_h.norms is None, name, none.format("layer normalization"), "one")
        b_h, peepholes, _ = b_h
    if isinstance(w_h, ResetBefore):
        w_h = side_by_side([w_h.gates, w_h.candidate])
    own, order = Weights(w_x, w_h, b, b_h), KINDS[kind].theirs
    check_gates(name, len(order), own)
    w_x, w_h, b, b_h = (reordered(a, order) for a in (w_x, w_h, *two_biases(own)))
    found = {"W": w_x.T, "R": w_h.T}
    if own.b is not None or own.b_h is not None:
        found["B"] = np.concatenate([b, b_h])
    if peepholes is not None:
        rows, H = (peepholes.i, peepholes.o, peepholes.f), own.w_h.shape[0]
        for a in rows:
            check_shape(name, a.shape, (H,))
        found["P"] = np.concatenate(rows)
    return found
