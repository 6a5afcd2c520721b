"""A character model with tied weights goes on with prompts of different lengths.

Lines of a small grammar end with ".", "!" or "?", as their first word asks. Output
weights are the embeddings transposed: Press and Wolf, "Using the Output Embedding to
Improve Language Models", 2017, https://arxiv.org/abs/1608.05859.
"""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxseq

STARTS = {"the ": " sleeps.", "is the ": " asleep?", "what a ": "!"}
LINES = [
    start + " ".join(words) + STARTS[start]
    for start in STARTS
    for words in itertools.product(["big", "old", "red"], ["cat", "dog", "fox", "owl"])
]
CHARS = "\n" + "".join(sorted(set("".join(LINES))))  # "\n" starts a line
ENDS = [CHARS.index(c) for c in ".!?"]


def encode(lines: list[str]) -> tuple[Any, Any]:
    """Tokens, padded with 0 on the right, and how many there are in each line."""
    lengths = np.array([len(line) for line in lines])
    padded = [line.ljust(lengths.max(), "\n") for line in lines]
    return np.array([[CHARS.index(c) for c in line] for line in padded]), lengths


def init(key: jax.Array, H: int = 64):
    keys = jax.random.split(key)
    embed = jax.random.normal(keys[0], (len(CHARS), H)) / H**0.5
    return {"embed": embed, "gru": jaxseq.gru_init(keys[1], H, H)}


def step(params, state: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
    state, y = jaxseq.gru_step(params["gru"], state, params["embed"][token])
    return state, y @ params["embed"].T


def nats(params, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """Cross-entropy of each line."""
    before = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))
    _, y = jaxseq.gru(params["gru"], params["embed"][before], lengths=lengths)
    logits = y @ params["embed"].T
    return jaxseq.cross_entropy(logits, tokens, lengths=lengths).sum(-1)


@partial(jax.jit, static_argnames="temperature")
def write(params, prompts, lengths, key, temperature):
    state = jaxseq.gru_zeros(params["gru"], len(prompts))
    go = partial(step, params)
    state, token = jaxseq.prefill(go, state, prompts, lengths=lengths)
    how = {"max_length": 30, "end": ENDS, "temperature": temperature}
    return jaxseq.sample(go, state, token, key, **how)


def main(steps: int = 300) -> tuple[float, list[str]]:
    """Nats for each line, at best log(len(LINES)), and lines that it wrote."""
    tokens, lengths = encode(LINES)
    params = init(jax.random.key(0))
    optimizer = optax.adam(3e-3)

    @jax.jit
    def update(params, state):
        loss, grads = jax.value_and_grad(lambda p: nats(p, tokens, lengths).mean())(
            params
        )
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    state, loss = optimizer.init(params), jnp.inf
    for _ in range(steps):
        params, state, loss = update(params, state)
    prompts = ["\n", "\nis", "\nwhat a b", "\nthe old o"] * 8
    found = write(params, *encode(prompts), jax.random.key(1), 0.5)
    written = zip(prompts, found.tokens, found.lengths, strict=True)
    texts = [
        p.strip("\n") + "".join(CHARS[t] for t in row[:n]) for p, row, n in written
    ]
    return float(loss), texts


if __name__ == "__main__":
    loss, texts = main()
    print(f"{loss:.3f} nats for each line, {np.log(len(LINES)):.3f} at best")
    print(*texts, sep="\n")
