"""Cells of Flax, Haiku and Equinox, stepped in the body of a scan."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

import jaxseq
from benchmarks.cases import Shape
from benchmarks.scan.body import Body, Random


def nnx_lstm(shape: Shape, random: Random) -> Body:
    body = of_nnx(nnx.OptimizedLSTMCell, 2)(shape, random)

    def own(weights: Any, state: Any, x: Any) -> Any:
        i, h = weights["dense_i"], weights["dense_h"]
        params = jaxseq.LSTMParams(i["kernel"][...], h["kernel"][...], h["bias"][...])
        c, h = state
        state, y = over_time(jaxseq.lstm)(params, x, jaxseq.LSTMState(h, c))
        return (state.c, state.h), y

    return body._replace(own=("jaxseq.lstm", own))


def nnx_gru(shape: Shape, random: Random) -> Body:
    body = of_nnx(nnx.GRUCell, 1)(shape, random)

    def own(weights: Any, state: Any, x: Any) -> Any:
        i, h = weights["dense_i"], weights["dense_h"]
        w_x, w_h, b = i["kernel"][...], h["kernel"][...], i["bias"][...]
        params = jaxseq.GRUParams(w_x, w_h, b, None)
        return over_time(jaxseq.gru)(params, x, state)

    return body._replace(own=("jaxseq.gru", own))


def over_time(function: Any) -> Callable[..., Any]:
    """A layer of jaxseq on an input with time first."""

    def run(params: Any, x: Any, state: Any, resets: Any = None) -> Any:
        row = lambda x, state, resets: function(params, x, state, resets=resets)
        axes = (1, 0, None if resets is None else 1)
        return jax.vmap(row, axes, (0, 1))(x, state, resets)

    return run


def of_nnx(cell: Any, parts: int) -> Callable[[Shape, Random], Body]:
    def make(shape: Shape, random: Random) -> Body:
        B, _, D, H = shape
        dtypes = {"dtype": random.dtype, "param_dtype": random.dtype}
        graph, weights = nnx.split(cell(D, H, **dtypes, rngs=nnx.Rngs(0)))
        step = lambda w: lambda carry, x: nnx.merge(graph, w)(carry, x)
        return Body(step, random.like(weights, H), states(random, B, H, parts))

    return make


def states(random: Random, B: int, H: int, parts: int) -> Any:
    found = tuple(random.normal(B, H) for _ in range(parts))
    return found if parts > 1 else found[0]


def two_layers(shape: Shape, random: Random) -> Body:
    """Two LSTM layers of nnx, one over the other in one body."""
    B, T, _, H = shape
    one = of_nnx(nnx.OptimizedLSTMCell, 2)
    low, high = one(shape, random), one((B, T, H, H), random)

    def make(weights: Any) -> Any:
        first, second = low.make(weights[0]), high.make(weights[1])

        def body(carry: Any, x: Any) -> Any:
            below, y = first(carry[0], x)
            above, y = second(carry[1], y)
            return (below, above), y

        return body

    return Body(make, (low.weights, high.weights), (low.state, high.state))


def of_linen(cell: Any, parts: int) -> Callable[[Shape, Random], Body]:
    def make(shape: Shape, random: Random) -> Body:
        B, _, D, H = shape
        module = cell(H, dtype=random.dtype, param_dtype=random.dtype)
        state = states(random, B, H, parts)
        x = jnp.zeros((B, D), random.dtype)
        weights = module.init(jax.random.key(0), state, x)
        step = lambda w: lambda carry, x: module.apply(w, carry, x)
        return Body(step, random.like(weights, H), state)

    return make


def scanned_rnn(shape: Shape, random: Random) -> Body:
    """A recurrent policy: the carry is zeroed where an episode has ended."""
    gru = of_linen(nn.GRUCell, 1)(shape, random)

    def make(weights: Any) -> Any:
        step = gru.make(weights)

        def body(carry: Any, inputs: Any) -> Any:
            x, resets = inputs
            carry = jnp.where(resets[:, None], jnp.zeros_like(carry), carry)
            return step(carry, x)

        return body

    def own(weights: Any, state: Any, xs: Any) -> Any:
        w = weights["params"]
        beside = lambda side, name: jnp.concatenate([w[side + g][name] for g in "rzn"])
        join = lambda side: jnp.concatenate([w[side + g]["kernel"] for g in "rzn"], -1)
        b = beside("i", "bias")
        params = jaxseq.GRUParams(join("i"), join("h"), b, w["hn"]["bias"])
        return over_time(jaxseq.gru)(params, xs[0], state, xs[1])

    return gru._replace(make=make, own=("jaxseq.gru", own), resets=True)


def of_haiku(core: Any, lstm: bool) -> Callable[[Shape, Random], Body]:
    def make(shape: Shape, random: Random) -> Body:
        B, _, D, H = shape
        once = hk.without_apply_rng(hk.transform(lambda x, state: core(H)(x, state)))
        state = states(random, B, H, 1 + lstm)
        state = hk.LSTMState(*state) if lstm else state
        weights = once.init(jax.random.key(0), jnp.zeros((B, D), random.dtype), state)

        def step(w: Any) -> Any:
            def body(carry: Any, x: Any) -> Any:
                y, carry = once.apply(w, x, carry)
                return carry, y

            return body

        return Body(step, random.like(weights, H), state)

    return make


def of_equinox(cell: Any, lstm: bool) -> Callable[[Shape, Random], Body]:
    def make(shape: Shape, random: Random) -> Body:
        B, _, D, H = shape
        whole = cell(D, H, key=jax.random.key(0), dtype=random.dtype)
        weights, rest = eqx.partition(whole, eqx.is_array)

        def step(w: Any) -> Any:
            rows = jax.vmap(eqx.combine(w, rest))

            def body(carry: Any, x: Any) -> Any:
                carry = rows(x, carry)
                return carry, carry[0] if lstm else carry

            return body

        state = states(random, B, H, 1 + lstm)
        return Body(step, random.like(weights, H), state)

    return make


LIBRARIES: dict[str, Callable[[Shape, Random], Body]] = {
    "nnx OptimizedLSTMCell": nnx_lstm,
    "nnx GRUCell": nnx_gru,
    "linen OptimizedLSTMCell": of_linen(nn.OptimizedLSTMCell, 2),
    "linen GRUCell": of_linen(nn.GRUCell, 1),
    "Haiku LSTM": of_haiku(hk.LSTM, True),
    "Haiku GRU": of_haiku(hk.GRU, False),
    "Equinox LSTMCell": of_equinox(eqx.nn.LSTMCell, True),
    "Equinox GRUCell": of_equinox(eqx.nn.GRUCell, False),
    "ScannedRNN": scanned_rnn,
    "two LSTM layers": two_layers,
}
