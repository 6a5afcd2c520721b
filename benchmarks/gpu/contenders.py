"""Who is measured on a GPU, each as something to launch and to wait for."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders.jaxseq import layer as jaxseq_layer
from benchmarks.errors import NoSuchCell
from benchmarks.gpu.kinds import Kind, precision
from benchmarks.gpu.right import pick
from benchmarks.prepare import Layer
from benchmarks.problem import Problem


class Contender(NamedTuple):
    """Ready to run for one problem and mode."""

    launch: Callable[[], Any]  # starts a call and returns its results to be
    wait: Callable[[Any], Any]
    # y and, for the gradient, those of x and the weights; some sequences of y and x
    results: Callable[[], dict[str, np.ndarray]]
    temp_mb: float | None = None


def flax_layer(problem: Problem, kind: Kind) -> Layer:
    """`nnx.RNN`; in 16 bits the weights stay float32, as Flax's documents have it."""
    from flax import nnx

    cells: Any = {
        "rnn": nnx.SimpleCell,
        "lstm": nnx.OptimizedLSTMCell,
        "gru": nnx.GRUCell,
    }
    _, _, D, H = problem.shape
    cell = cells[problem.op](D, H, dtype=kind.dtype, rngs=nnx.Rngs(0))
    biased = "dense_h" if problem.op == "lstm" else "dense_i"
    param = lambda a: nnx.Param(jnp.asarray(a.astype(np.float32)))
    cell.dense_i.kernel = param(problem.w_x)
    cell.dense_h.kernel = param(problem.w_h)
    getattr(cell, biased).bias = param(problem.b)
    graph, weights = nnx.split(nnx.RNN(cell, rngs=False))

    def apply(weights: Any, x: Any) -> Any:
        y: Any = nnx.merge(graph, weights)(x, rngs=nnx.Rngs(0))
        return y.astype(kind.dtype)

    def restore(gradients: Any) -> dict[str, Any]:
        g = nnx.to_pure_dict(gradients)["cell"]
        w_x, w_h = g["dense_i"]["kernel"], g["dense_h"]["kernel"]
        return {"w_x": w_x, "w_h": w_h, "b": g[biased]["bias"]}

    return Layer(apply, weights, restore)


def cudnn_layer(problem: Problem, kind: Kind, lstm: Any = None) -> Layer:
    """`jax.experimental.rnn`: one flat vector of weights and a second bias."""
    from jax.experimental import rnn

    if problem.op != "lstm" or np.dtype(kind.dtype) != np.float32:
        raise NoSuchCell("jax.experimental.rnn is an LSTM in float32")
    lstm = lstm or rnn.lstm
    B, T, D, H = problem.shape
    zeros = np.zeros((1, B, H), np.float32)
    lengths = np.full(B, T, np.int32)
    arrays = (problem.w_x.T, problem.w_h.T, problem.b, np.zeros_like(problem.b))
    flat = np.concatenate([a.ravel() for a in arrays])

    def apply(weights: Any, x: Any) -> Any:
        return lstm(x, zeros, zeros, weights, lengths, D, H, 1, 0.0, False)[0]

    def restore(gradients: Any) -> dict[str, Any]:
        w_x, w_h, b, _ = rnn.unpack_lstm_weights(jnp.asarray(gradients), D, H, 1, False)
        return {"w_x": w_x[0].T, "w_h": w_h[0].T, "b": b[0]}

    return Layer(apply, flat, restore)


LAYERS: dict[str, Callable[[Problem, Kind], Layer]] = {
    "jaxseq": lambda problem, kind: jaxseq_layer(problem),
    "jaxseq scan": lambda problem, kind: jaxseq_layer(problem, "scan"),
    "flax": flax_layer,
    "jax cudnn": cudnn_layer,
}


def lower(
    layer: Layer, x: Any, dy: Any, mode: str, kind: Kind
) -> Callable[[], Contender]:
    """Traces a layer; what is returned compiles it and may run in a thread."""

    def gradient(weights: Any, x: Any, dy: Any) -> Any:
        y, pullback = jax.vjp(layer.apply, weights, x)
        return y, *pullback(dy)

    f: Callable[..., Any] = layer.apply if mode == "forward" else gradient
    (device,) = x.devices()
    weights = jax.device_put(layer.weights, device)
    args = (weights, x) if mode == "forward" else (weights, x, dy)
    with precision(kind):
        lowered = jax.jit(f).lower(*args)
    return partial(compile_jax, lowered, layer, args)


def compile_jax(lowered: Any, layer: Layer, args: Any) -> Contender:
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    temp_mb = None if memory is None else memory.temp_size_in_bytes / 1e6

    def results() -> dict[str, np.ndarray]:
        out = compiled(*args)
        if len(args) == 2:
            return {"y": np.asarray(pick(out))}
        y, weights, x = out
        named = layer.restore(jax.tree.map(np.asarray, weights))
        return {"y": np.asarray(pick(y)), "x": np.asarray(pick(x)), **named}

    return Contender(lambda: compiled(*args), jax.block_until_ready, results, temp_mb)
