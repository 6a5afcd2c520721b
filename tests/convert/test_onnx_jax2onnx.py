"""Cells that ONNX has no operator for, as graphs that jax2onnx makes of their steps."""

from functools import partial

import jax
import numpy as np
import pytest

import jaxseq
from tests.convert.onnx_nodes import close, run

pytest.importorskip("onnxruntime")
APART = "jax2onnx is not there: make .venv/jax2onnx fetches it"
jax2onnx = pytest.importorskip("jax2onnx", reason=APART)

from examples.serving import onnx_models  # noqa: E402

B, T, D, H = 2, 6, 3, 4
CELLS = {
    "layer norm": (jaxseq.lstm_cell(layer_norm=True), jaxseq.LSTMState(H, H)),
    "projection": (jaxseq.lstm_cell(cells=7), jaxseq.LSTMState(H, 7)),
    "heads": (jaxseq.gru_cell(heads=2), H),
}
X = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)


@pytest.fixture(autouse=True)
def as_jax_comes():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def shapes(args):
    return [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in args]


def outputs(model, *args):
    """What ONNX Runtime makes of a model, in the order of leaves."""
    names = [own.name for own in model.graph.input]
    return run(model, dict(zip(names, args, strict=True)))


def leaves(tree):
    return [np.asarray(a) for a in jax.tree.leaves(tree)]


@pytest.mark.skipif(
    jax.__version_info__ >= (0, 12),
    reason="jax2onnx 0.17 converts no call under jit, and so no loop of JAX 0.12: it "
    "looks for jax._src.core.ClosedJaxpr, which is not there any more",
)
@pytest.mark.parametrize("name", CELLS)
def test_sequences(name):
    cell, zeros = CELLS[name]
    params = cell.init(jax.random.key(0), D, H)
    run_all = partial(jaxseq.cell, cell.update, params, zeros=zeros)
    f = lambda x, lengths: run_all(x, lengths=lengths, implementation="scan")
    lengths = np.array([6, 2], np.int32)
    want = leaves(f(X, lengths))  # before, for jax2onnx replaces functions of JAX
    model = jax2onnx.to_onnx(f, shapes([X, lengths]), model_name="model")
    close(outputs(model, X, lengths), want)


@pytest.mark.parametrize("name", CELLS)
def test_steps(name):
    cell, _ = CELLS[name]
    params = cell.init(jax.random.key(0), D, H)
    state = cell.zeros(params, B)
    tree = jax.tree.structure(state)
    step = partial(jaxseq.cell_step, cell.update, params)
    # y is a part of the new state
    f = lambda x, *parts: jax.tree.leaves(step(tree.unflatten(parts), x)[0])
    args = X[:, 0], *leaves(state)
    inputs = {f"in {i}": a for i, a in enumerate(shapes(args))}
    names = [f"out {i}" for i in range(len(args) - 1)]
    # converted before it runs, for an update that has run keeps its calls under jit
    model = onnx_models.converted(f, inputs, names)
    close(outputs(model, *args), leaves(f(*args)))
