"""A character model writes a page longer than all it was trained on.

Its lines, of a small grammar, end with ".", "!" or "?", as their first word asks. Each
character attends to the last ones alone, whose keys and values are all that is kept:
Beltagy and others, "Longformer: The Long-Document Transformer", 2020,
https://arxiv.org/abs/2004.05150. Output weights are the embeddings transposed: Press
and Wolf, "Using the Output Embedding to Improve Language Models", 2017,
https://arxiv.org/abs/1608.05859.
"""

import itertools
from functools import partial
from typing import Any

import jax
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
WINDOW = 12  # shorter than a line; two layers see twice as far


def encode(texts: list[str]) -> tuple[Any, Any]:
    """Tokens, padded with 0 on the right, and how many there are in each text."""
    lengths = np.array([len(text) for text in texts])
    padded = [text.ljust(lengths.max(), "\n") for text in texts]
    return np.array([[CHARS.index(c) for c in text] for text in padded]), lengths


def decode(tokens: Any) -> str:
    return "".join(CHARS[t] for t in tokens)


def pages(rng: np.random.Generator, count: int = 16, T: int = 64) -> Any:
    lines = rng.choice(LINES, (count, T // 10))
    return encode([("\n" + "\n".join(page))[: T + 1] for page in lines])[0]


def init(key: jax.Array) -> jaxseq.TransformerParams:
    sizes: Any = {"features": 32, "num_heads": 4, "ff_features": 64}
    sizes |= {"target_vocab": len(CHARS), "num_decoder_layers": 2}
    return jaxseq.transformer_init(key, **sizes, positions="rotary", tied=True)


def loss(params, tokens: jax.Array) -> jax.Array:
    """Nats for each character."""
    before = tokens[:, :-1]
    _, logits, _ = jaxseq.transformer_decode(params, None, before, window=WINDOW)
    return jaxseq.cross_entropy(logits, tokens[:, 1:]).mean()


@partial(jax.jit, static_argnames="max_length")
def write(params, prompts, lengths, key, **how: Any) -> jaxseq.Decoded:
    step = partial(jaxseq.transformer_decode_step, params)
    state = jaxseq.transformer_zeros(params, batch=len(prompts), window=WINDOW)
    state, token = jaxseq.prefill(step, state, prompts, lengths=lengths)
    return jaxseq.sample(step, state, token, key, **how)


def main(steps: int = 300) -> tuple[float, list[str], list[str]]:
    """Nats for each character of new pages, lines it ended, and a page of lines."""
    rng, params = np.random.default_rng(0), jax.jit(init)(jax.random.key(0))
    optimizer = optax.adam(3e-3)

    @jax.jit
    def update(params, state, tokens):
        grads = jax.grad(loss)(params, tokens)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = update(params, state, pages(rng))
    prompts = ["\n", "\nis", "\nwhat a b", "\nthe old o"] * 8
    how: Any = {"temperature": 0.5, "max_length": 30, "end": ENDS}
    found = write(params, *encode(prompts), jax.random.key(1), **how)
    rows = zip(prompts, found.tokens, found.lengths, strict=True)
    lines = [prompt.strip("\n") + decode(row[:n]) for prompt, row, n in rows]
    how |= {"max_length": 1000, "end": None}
    page = write(params, *encode(["\n"]), jax.random.key(2), **how).tokens[0]
    nats = jax.jit(loss)(params, pages(rng, 500))
    return float(nats), lines, decode(page).split("\n")


if __name__ == "__main__":
    nats, lines, page = main()
    print(f"{nats:.3f} nats for each character")
    print(*lines[:8], "", *page, sep="\n")
