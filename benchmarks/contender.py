"""What is compared: a library's layer made ready to run, and compiling it."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.errors import Unsupported
from benchmarks.problem import Problem, Weights

Values = dict[str, np.ndarray]


class Contender(NamedTuple):
    """Ready to run for one case."""

    launch: Callable[[], Any]  # starts a call and returns what its results will be
    # y and, for the gradient, those of x and of each weight, in jaxseq's layout and
    # by its names; the tokens alone, for `decode`
    results: Callable[[], Values]
    wait: Callable[[Any], Any] = jax.block_until_ready
    compile_ms: float | None = None
    temp_mb: float | None = None
    first_ms: float | None = None  # of an eager call, and of the one after it
    second_ms: float | None = None
    threads: int | None = None  # None: as many as there are cores
    pause: float = 0.05  # seconds until its threads have gone to sleep


class Layer(NamedTuple):
    """A layer of a JAX library as pure functions of its weights."""

    apply: Callable[..., Any]  # (weights, x, lengths, resets) -> y
    weights: Any  # in the layout of the library
    restore: Callable[[Any], dict[str, Any]]  # gradients in jaxseq's layout, by name
    step: Callable[..., Any] | None = None  # (weights, state, x_t) -> (state, y_t)
    zeros: Any = None
    time_major: bool = False
    eager: Callable[[Any], Any] | None = None  # apply(weights, ·), if it has another
    greedy: Callable[..., Any] | None = None  # (step, state, token, T) -> tokens


def compose(one: Callable[[Problem, Weights], Layer], problem: Problem) -> Layer:
    """Layers one over the other, each in both directions if the case asks for it."""
    layers = [one(problem, weights) for weights in problem.weights]
    if len(layers) == 1:
        return layers[0]
    axis = 0 if layers[0].time_major else 1

    def apply(weights: Any, x: Any, lengths: Any, resets: Any) -> Any:
        parts = [layer.apply for layer in layers]
        if not problem.case.bidirectional:
            for part, w in zip(parts, weights, strict=True):
                x = part(w, x, lengths, resets)
            return x
        for i in range(0, len(parts), 2):
            forward = parts[i](weights[i], x, lengths, resets)
            backward = parts[i + 1](weights[i + 1], jnp.flip(x, axis), lengths, resets)
            x = jnp.concatenate([forward, jnp.flip(backward, axis)], -1)
        return x

    def restore(gradients: Any) -> dict[str, Any]:
        pairs = zip(layers, gradients, strict=True)
        return numbered([layer.restore(g) for layer, g in pairs])

    weights = [layer.weights for layer in layers]
    return Layer(apply, weights, restore, time_major=layers[0].time_major)


def numbered(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Gradients of several layers by the name and the place of each."""
    if len(found) == 1:
        return found[0]
    return {
        f"{name} {i}": g for i, each in enumerate(found) for name, g in each.items()
    }


def compile_call(f: Callable, args: tuple, repeats: int = 1) -> tuple[Any, float]:
    """`f` compiled for `args`, and the milliseconds it took, the median of several.

    Each time it is traced, lowered and compiled anew, with nothing left of before.
    """
    times, compiled = [], None
    for _ in range(repeats):
        if repeats > 1:
            jax.clear_caches()
        start = time.perf_counter()
        compiled = jax.jit(lambda *args: f(*args)).lower(*args).compile()
        times.append(1e3 * (time.perf_counter() - start))
    return compiled, statistics.median(times)


def temp_mb(compiled: Any) -> float | None:
    memory = compiled.memory_analysis()
    return None if memory is None else memory.temp_size_in_bytes / 1e6


def prepare_layer(
    layer: Layer, problem: Problem, device: Any, repeats: int
) -> Contender:
    """A JAX library's layer, compiled as the mode of the case asks for."""
    how = {
        "eager": eager,
        "eager gradient": eager,
        "stream": stream,
        "eager stream": stream,
        "decode": decode,
    }.get(problem.case.mode, whole)
    return how(layer, problem, device, repeats)


def turn(layer: Layer, a: Any) -> Any:
    return np.swapaxes(np.asarray(a), 0, 1) if layer.time_major else np.asarray(a)


def masks_of(layer: Layer, problem: Problem) -> tuple[Any, Any]:
    resets = problem.resets
    return problem.lengths, None if resets is None else turn(layer, resets)


def gradient_of(apply: Callable) -> Callable:
    """`y` and the gradients of weights and x, given that of y."""

    def gradient(weights: Any, x: Any, dy: Any, *masks: Any) -> Any:
        y, pullback = jax.vjp(lambda w, x: apply(w, x, *masks), weights, x)
        return y, *pullback(dy)

    return gradient


def whole(layer: Layer, problem: Problem, device: Any, repeats: int) -> Contender:
    f, args = call_of(layer, problem, device)
    compiled, ms = compile_call(f, args, repeats)
    launch = lambda: compiled(*args)
    results = lambda: values(layer, problem, launch())
    return Contender(launch, results, compile_ms=ms, temp_mb=temp_mb(compiled))


def call_of(layer: Layer, problem: Problem, device: Any) -> tuple[Callable, tuple]:
    """What the mode of the case calls, and its arguments on the device."""
    args = layer.weights, turn(layer, problem.x)
    f = layer.apply
    if problem.case.mode.endswith("gradient"):
        args, f = (*args, turn(layer, problem.dy)), gradient_of(f)
    return f, jax.device_put((*args, *masks_of(layer, problem)), device)


def values(layer: Layer, problem: Problem, out: Any) -> Values:
    if not problem.case.mode.endswith("gradient"):
        return {"y": turn(layer, out)}
    y, weights, x = out
    return {"y": turn(layer, y), "x": turn(layer, x), **layer.restore(weights)}


def eager(layer: Layer, problem: Problem, device: Any, repeats: int) -> Contender:
    """The layer called with no `jax.jit`: the first time, the second, and then."""
    f, args = call_of(layer, problem, device)
    own = layer.eager if problem.case.mode == "eager" else None
    launch = lambda: f(*args) if own is None else own(args[1])
    firsts, seconds = [], []
    for _ in range(repeats):
        jax.clear_caches()
        for times in (firsts, seconds):
            start = time.perf_counter()
            jax.block_until_ready(launch())
            times.append(1e3 * (time.perf_counter() - start))
    return Contender(
        launch,
        lambda: values(layer, problem, launch()),
        first_ms=statistics.median(firsts),
        second_ms=statistics.median(seconds),
    )


def step_of(layer: Layer) -> Callable:
    if layer.step is None:
        raise Unsupported("no single step")
    return layer.step


def stream(layer: Layer, problem: Problem, device: Any, repeats: int) -> Contender:
    """One call for each step, whose output is awaited before the next."""
    step, ms = step_of(layer), None
    weights, zeros = jax.device_put((layer.weights, layer.zeros), device)
    inputs = [jax.device_put(x, device) for x in np.moveaxis(problem.x, 1, 0)]
    if problem.case.mode == "stream":
        _, ms = compile_call(step, (weights, zeros, inputs[0]), repeats)
        step = jax.jit(step)

    def launch() -> Any:
        state, outputs = zeros, []
        for x in inputs:
            state, y = step(weights, state, x)
            outputs.append(jax.block_until_ready(y))
        return outputs

    return Contender(
        launch, lambda: {"y": np.stack(launch(), 1).astype(np.float32)}, compile_ms=ms
    )


def decode(layer: Layer, problem: Problem, device: Any, repeats: int) -> Contender:
    """Greedy decoding: `jaxseq.greedy`, or a step and `argmax` in a `lax.scan`."""
    step, T = step_of(layer), problem.case.T
    greedy = layer.greedy or scan_greedy
    token = np.zeros(problem.case.B, np.int32)
    args = layer.weights, problem.embed, problem.out, layer.zeros, token
    args = jax.device_put(args, device)

    def run(weights: Any, embed: Any, out: Any, state: Any, token: Any) -> Any:
        def next_logits(state: Any, token: Any) -> Any:
            state, y = step(weights, state, embed[token])
            return state, y @ out

        return greedy(next_logits, state, token, T)

    compiled, ms = compile_call(run, args, repeats)
    return Contender(
        lambda: compiled(*args),
        lambda: {"tokens": np.asarray(compiled(*args))},
        compile_ms=ms,
        temp_mb=temp_mb(compiled),
    )


def scan_greedy(step: Callable, state: Any, token: Any, T: int) -> Any:
    def body(carry: Any, _: None) -> Any:
        state, logits = step(*carry)
        token = jnp.argmax(logits, -1).astype(jnp.int32)
        return (state, token), token

    return lax.scan(body, (state, token), None, length=T)[1].T
