"""A language model of characters on Flax's `nnx.RNN`, with text made by code.

`nnx.RNN` takes no scan, so it is its call that differs: `jaxseq.nn.over_time` stands in
its place.
"""

import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxseq.nn
from benchmarks.real.training import Sizes, Training

OPTIMIZER = optax.adam(3e-3)


class Model(nnx.Module):
    def __init__(
        self, sizes: Sizes, characters: int, over_time: Any, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        kind = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.embed = nnx.Embed(characters, sizes.D, **kind)
        self.cell = nnx.OptimizedLSTMCell(sizes.D, sizes.H, **kind)
        self.out = nnx.Linear(sizes.H, characters, **kind)
        self.over_time = over_time

    def __call__(self, tokens: Any) -> Any:
        y = self.over_time(self.cell, self.embed(tokens))  # the line that differs
        return self.out(y)


def by_rnn(cell: Any, x: Any) -> Any:
    rnn: Any = nnx.RNN(cell)
    return rnn(x, rngs=nnx.Rngs(0))


def by_jaxseq(cell: Any, x: Any) -> Any:
    return jaxseq.nn.over_time(cell, x)[1]


def training(sizes: Sizes, scan: Any, dtype: Any = jnp.float32) -> Training:
    text = written(200_000)
    names = sorted(set(text))
    tokens = jnp.asarray(np.array([names.index(c) for c in text], np.int32))
    over_time = by_rnn if scan is jax.lax.scan else by_jaxseq
    model = Model(sizes, len(names), over_time, dtype, nnx.Rngs(0))
    graph, weights = nnx.split(model, nnx.Param)

    def loss_of(weights: Any, rows: Any) -> Any:
        logits = nnx.merge(graph, weights)(rows[:, :-1])
        each = optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:])
        return each.mean()

    def step(state: Any, key: Any) -> tuple[Any, Any]:
        weights, moments = state
        places = jax.random.randint(key, (sizes.B, 1), 0, len(tokens) - sizes.T)
        rows = tokens[places + jnp.arange(sizes.T + 1)]
        loss, gradients = jax.value_and_grad(loss_of)(weights, rows)
        updates, moments = OPTIMIZER.update(gradients, moments, weights)
        return (optax.apply_updates(weights, updates), moments), loss

    return Training(step, (weights, OPTIMIZER.init(weights)))


def written(length: int) -> str:
    """Sentences about sums, of at least this many characters."""
    draw = random.Random(0)
    words = {"+": ("plus", "and"), "-": ("minus", "less"), "*": ("times",)}
    sentences, n = [], 0
    while n < length:
        a, b, sign = draw.randint(2, 30), draw.randint(2, 30), draw.choice("+-*")
        result = {"+": a + b, "-": a - b, "*": a * b}[sign]
        how = draw.choice([f"{a} {draw.choice(words[sign])} {b}", f"{a} {sign} {b}"])
        sentences.append(
            draw.choice([f"{how} is {result}. ", f"So {how} = {result}; "])
        )
        n += len(sentences[-1])
    return "".join(sentences)
