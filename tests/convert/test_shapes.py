"""Weights of wrong shapes, which no format is written with."""

import jax
import numpy as np
import pytest

import jaxseq
from jaxseq import ResetBefore, convert
from jaxseq.convert import Network

D, H = 3, 5
BEFORE = jaxseq.gru_cell(reset_after=False)
NARROW = jaxseq.lstm_cell(cells=7)
GATES, CANDIDATE = np.ones((H, 2 * H), "f"), np.ones((H, H), "f")


def of(cell, **changes):
    params = cell.init(jax.random.key(0), D, H)
    return Network((params._replace(**changes),), cell)


def ones(*shape):
    return np.ones(shape, "f")


WRITERS = ["torch", "keras", "nnx", "linen", "haiku", "equinox", "cudnn", "dynet"]
WRONG = {
    "a bias": ({"b": ones(7)}, r"\(20,\), got \(7,\)"),
    "a second bias": ({"b_h": ones(H)}, r"\(20,\), got \(5,\)"),
    "a matrix": ({"w_h": ones(H, 7)}, r"\(5, 20\), got \(5, 7\)"),
    "transposed": ({"w_h": ones(4 * H, H)}, r"\(5, 20\), got \(20, 5\)"),
    "of three gates": ({"w_x": ones(D, 3 * H)}, r"\(\*, 12\), got \(3, 15\)"),
}


@pytest.mark.parametrize("name", [*WRITERS, "onnx"])
@pytest.mark.parametrize("changes, message", WRONG.values(), ids=WRONG)
def test_an_lstm(name, changes, message):
    if name == "onnx":
        pytest.importorskip("onnx")
    write = getattr(convert, f"to_{name}")
    with pytest.raises(ValueError, match=rf"^network\.layers\[0\]: .* shape {message}"):
        write(of(jaxseq.LSTM, **changes))


OTHERS = {
    "b_hn": ("torch", jaxseq.GRU, {"b_hn": ones(7)}, r"\(15,\), got \(7,\)"),
    "gates": (
        "keras",
        BEFORE,
        {"w_h": ResetBefore(GATES.T, CANDIDATE)},
        r"\(5, 10\), got \(10, 5\)",
    ),
    "candidate": (
        "haiku",
        BEFORE,
        {"w_h": ResetBefore(GATES, GATES)},
        r"\(5, 5\), got \(5, 10\)",
    ),
    "projection": (
        "torch",
        NARROW,
        {"w_h": jaxseq.Projected(ones(H, 28), ones(6, H))},
        r"\(7, 5\), got \(6, 5\)",
    ),
    "projected": (
        "torch",
        NARROW,
        {"w_h": jaxseq.Projected(ones(6, 28), ones(7, H))},
        r"\(5, 28\), got \(6, 28\)",
    ),
}


@pytest.mark.parametrize("name, cell, changes, message", OTHERS.values(), ids=OTHERS)
def test_others(name, cell, changes, message):
    write = getattr(convert, f"to_{name}")
    with pytest.raises(ValueError, match=rf"layers\[0\]: expected shape {message}"):
        write(of(cell, **changes))
