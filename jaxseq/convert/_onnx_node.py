"""What a node RNN, LSTM or GRU of ONNX has to be told of a layer."""

from typing import Any

import jaxseq
from jaxseq import Cell, LSTMExtra, Projected, ResetBefore
from jaxseq._base.check import check
from jaxseq.convert._onnx_kinds import KINDS, attributes, blocks

UPDATES = {
    "RNN": type(jaxseq.RNN.update),
    "LSTM": type(jaxseq.LSTM.update),
    "GRU": type(jaxseq.GRU.update),
}
FUNCTIONS = {
    "RNN": ("activation",),
    "LSTM": ("gate", "candidate", "output"),
    "GRU": ("gate", "candidate"),
}


def kind_of(cells: tuple[Cell, ...]) -> str:
    """The operator that is these cells, one for each direction."""
    found = [k for k, own in UPDATES.items() if type(cells[0].update) is own]
    expected = "a cell that ONNX has: RNN, LSTM, GRU, or of rnn_cell, lstm_cell, ..."
    check(bool(found), "network.cell", expected, cells[0].update)
    heads = getattr(cells[0].update, "heads", 1)
    check(heads == 1, "network.cell", "1 head, for ONNX has no more", heads)
    same = {_common(cell) for cell in cells}
    expected = "cells that differ in activations alone, for ONNX has one node for both"
    check(len(same) == 1, "network.cell", expected, same)
    return found[0]


def _common(cell: Cell) -> tuple[Any, ...]:
    """What the cells of a node share."""
    own = cell.update
    return type(own), *(getattr(own, key, None) for key in ("clip", "coupled", "heads"))


def told(
    kind: str, cells: tuple[Cell, ...], both: tuple[Any, ...], name: str
) -> dict[str, Any]:
    """The attributes of a node, but for its direction."""
    each = [getattr(own.update, key) for own in cells for key in FUNCTIONS[kind]]
    update: Any = cells[0].update
    found = attributes(kind, each)
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


def arrays(kind: str, both: tuple[Any, ...], dtype: Any, name: str) -> dict[str, Any]:
    """The weights of a node, by the names of its inputs."""
    import numpy as np

    each = [_of_direction(kind, params, dtype, name) for params in both]
    keys = [k for k in ("W", "R", "B", "P") if any(k in own for own in each)]
    for key in keys:
        same = len({own[key].shape if key in own else None for own in each}) == 1
        expected = f"the same widths, and {key} in both directions or in none"
        check(same, name, expected, "others")
    return {key: np.stack([own[key] for own in each]) for key in keys}


def _of_direction(kind: str, params: Any, dtype: Any, name: str) -> dict[str, Any]:
    import numpy as np

    w_x, w_h, b, b_h = params
    found: dict[str, Any] = {}
    check(
        not isinstance(w_h, Projected), name, "no projection, for ONNX has none", "one"
    )
    if isinstance(b_h, LSTMExtra):
        expected = "no layer normalization, for ONNX has none"
        check(b_h.norms is None, name, expected, "one")
        if b_h.peepholes is not None:
            p = b_h.peepholes
            own = [as_array(a, name, dtype, 1) for a in (p.i, p.o, p.f)]
            found["P"] = np.concatenate(own)
        b_h = b_h.b_h
    if isinstance(w_h, ResetBefore):
        pair = [as_array(a, name, dtype, 2) for a in w_h]
        w_h = np.concatenate(pair, axis=1)
    w_x, w_h = (as_array(a, name, dtype, 2) for a in (w_x, w_h))
    H, order = w_h.shape[0], KINDS[kind].theirs
    Z = len(order) * H
    for a in (w_x, w_h):
        check(a.shape[1] == Z, name, f"matrices of shape (*, {Z})", a.shape)
    if b is not None or b_h is not None:
        zeros = np.zeros(Z, dtype)
        b, b_h = (zeros if a is None else as_array(a, name, dtype, 1) for a in (b, b_h))
        if kind == "GRU" and b_h.shape == (H,):  # of the candidate alone
            b_h = np.concatenate([zeros[: 2 * H], b_h])
        for a in (b, b_h):
            check(a.shape == (Z,), name, f"biases of shape ({Z},)", a.shape)
        found["B"] = np.concatenate([blocks(a, order) for a in (b, b_h)])
    return {"W": blocks(w_x.T, order), "R": blocks(w_h.T, order)} | found


def as_array(a: Any, name: str, dtype: Any, rank: int) -> Any:
    """A NumPy array of this dtype and rank."""
    import numpy as np

    a = np.asarray(a)
    check(a.dtype == dtype, name, f"dtype {dtype}", a.dtype)
    check(a.ndim == rank, name, f"{rank} axes", f"shape {a.shape}")
    return a
