"""Fine-tunes a stack of two LSTMs for another task, with all below its top frozen.

The first task asks for the symbol that a sequence has most often, the second for that
which it has least often. Of the frozen weights optax keeps no moments.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxseq

V, D, H = 4, 8, 32
FROZEN = "embed", "lower"
most, least = partial(jnp.argmax, axis=-1), partial(jnp.argmin, axis=-1)  # of counts


def init(key: jax.Array) -> dict[str, Any]:
    keys = jax.random.split(key, 4)
    return {
        "embed": jax.random.normal(keys[0], (V, D)),
        "lower": jaxseq.lstm_init(keys[1], D, H),
        "upper": jaxseq.lstm_init(keys[2], H, H),
        "head": jax.random.normal(keys[3], (H, V)) / H**0.5,
    }


def logits(params, symbols: jax.Array, lengths: jax.Array) -> jax.Array:
    layers = [partial(jaxseq.lstm, params[name]) for name in ("lower", "upper")]
    (_, top), _ = jaxseq.stack(layers, params["embed"][symbols], lengths=lengths)
    return top.h @ params["head"]


def draw(key: jax.Array, B: int = 64, T: int = 12) -> tuple[jax.Array, ...]:
    """Symbols `(B, T)`, lengths, and how often each symbol is there, `(B, V)`."""
    keys = jax.random.split(key)
    symbols = jax.random.randint(keys[0], (B, T), 0, V)
    lengths = jax.random.randint(keys[1], (B,), T // 2, T + 1)
    inside = (jnp.arange(T) < lengths[:, None])[..., None]
    return symbols, lengths, (inside & (symbols[..., None] == jnp.arange(V))).sum(1)


@partial(jax.jit, static_argnames=("task", "optimizer", "steps"))
def train(params, key, task, optimizer, steps):
    def loss(params, symbols, lengths, counts):
        losses = jaxseq.cross_entropy(logits(params, symbols, lengths), task(counts))
        return losses.mean()

    def step(carry, key):
        params, state = carry
        grads = jax.grad(loss)(params, *draw(key))
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    carry = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(step, carry, jax.random.split(key, steps))
    return params


@jax.jit
def accuracies(params, key) -> tuple[jax.Array, ...]:
    """Shares that are right, by both tasks."""
    symbols, lengths, counts = draw(key, 1000)
    found = logits(params, symbols, lengths).argmax(-1)
    return tuple((found == task(counts)).mean() for task in (most, least))


def labels(params: dict[str, Any]) -> dict[str, str]:
    """Which optimizer each part of the weights has."""
    return {name: "frozen" if name in FROZEN else "learned" for name in params}


def main(steps: int = 150) -> tuple[Any, Any, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    learn = optax.adam(1e-2)
    first = train(jax.jit(init)(keys[0]), keys[1], most, learn, steps)
    parts: Any = {"learned": learn, "frozen": optax.set_to_zero()}
    tuned = train(first, keys[2], least, optax.multi_transform(parts, labels), steps)
    return first, tuned, keys[3]


if __name__ == "__main__":
    first, tuned, key = main()
    for name, params in {"the first": first, "both tasks": tuned}.items():
        by_most, by_least = accuracies(params, key)
        print(f"after {name}: {by_most:.1%} and {by_least:.1%} are right")
