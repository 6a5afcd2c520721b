"""What a contender hands over: something to call, and what it computes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.device import Device
from benchmarks.problem import Problem


class Prepared(NamedTuple):
    """A contender, compiled for one problem and mode."""

    run: Callable[[], Any]  # one call; returns when the results are ready
    # the results of one call as y, x, w_x, w_h, b and, if there is one, b_hn: y is
    # the output, the others are gradients, in jaxseq's layout; forward has only y
    results: Callable[[], dict[str, np.ndarray]]
    compile_ms: float | None = None
    temp_mb: float | None = None


class Layer(NamedTuple):
    """A layer of a JAX library as a pure function of its weights and input."""

    apply: Callable[[Any, Any], Any]  # (weights, x) -> y
    weights: Any  # in the layout of the library
    restore: Callable[[Any], dict[str, Any]]  # gradients in jaxseq's layout, by name
    time_major: bool = False


def compile_layer(
    layer: Layer, problem: Problem, mode: str, device: Device
) -> Prepared:
    def forward(weights: Any, x: Any) -> Any:
        return layer.apply(weights, x)

    def gradient(weights: Any, x: Any, dy: Any) -> Any:
        y, pullback = jax.vjp(layer.apply, weights, x)
        return y, *pullback(dy)

    def turn(a: Any) -> Any:
        return np.swapaxes(np.asarray(a), 0, 1) if layer.time_major else np.asarray(a)

    f: Callable[..., Any] = forward if mode == "forward" else gradient
    args = (layer.weights, turn(problem.x), turn(problem.dy))
    args = jax.device_put(args[:2] if mode == "forward" else args, device)
    start = time.perf_counter()
    compiled = jax.jit(f).lower(*args).compile()
    compile_ms = 1e3 * (time.perf_counter() - start)
    memory = compiled.memory_analysis()
    temp_mb = None if memory is None else memory.temp_size_in_bytes / 1e6

    def run() -> Any:
        return jax.block_until_ready(compiled(*args))

    def results() -> dict[str, np.ndarray]:
        if mode == "forward":
            return {"y": turn(run())}
        y, weights, x = run()
        return {"y": turn(y), "x": turn(x), **layer.restore(weights)}

    return Prepared(run, results, compile_ms, temp_mb)
