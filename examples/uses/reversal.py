"""Reverses strings with a recurrent encoder-decoder, and searches with a beam."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxseq
import jaxseq.nn

LETTERS = "abcdefgh"
END, IGNORED = 0, -100  # END starts a string too


def batch(rng: np.random.Generator, count: int = 64) -> tuple[Any, ...]:
    """Strings of 3 to 8 letters, their lengths, and labels: reversed, then END."""
    lengths = rng.integers(3, 9, count)
    source = rng.integers(1, len(LETTERS) + 1, (count, 8))
    labels = np.full((count, 9), IGNORED)
    for row, n, label in zip(source, lengths, labels, strict=True):
        label[: n + 1] = [*row[:n][::-1], END]
    return source, lengths, labels


def loss(model, source, lengths, labels):
    before = jnp.where(labels == IGNORED, END, labels)[:, :-1]
    inputs = jnp.pad(before, ((0, 0), (1, 0)), constant_values=END)
    logits = model(source, inputs, source_lengths=lengths)
    how: Any = {"ignore": IGNORED, "label_smoothing": 0.1}
    losses = jaxseq.cross_entropy(logits, labels, **how)
    return losses.sum() / (labels != IGNORED).sum()


@nnx.jit
def update(model, optimizer, *data):
    value, grads = nnx.value_and_grad(loss)(model, *data)
    optimizer.update(model, grads)
    return value


@nnx.jit
def search(model, source, lengths):
    state = model.encode(source, source_lengths=lengths)
    start = jnp.full(len(source), END)
    how: Any = {"max_length": 10, "end": END, "beam": 4}
    return jaxseq.beam_search(model.decode_step, state, start, **how)


def text(tokens: np.ndarray) -> str:
    return "".join(LETTERS[t - 1] for t in tokens)


def main(steps: int = 300) -> tuple[list[tuple[str, str]], list[float]]:
    """Pairs of a string and what was found for it, and the loss of each step."""
    rng = np.random.default_rng(0)
    sizes: Any = {"source_vocab": 9, "embed_features": 32, "hidden_features": 64}
    model = jaxseq.nn.Seq2Seq(**sizes, cell=jaxseq.GRU, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(5e-3), wrt=nnx.Param)
    losses = [float(update(model, optimizer, *batch(rng))) for _ in range(steps)]
    source, lengths, _ = batch(rng, 200)
    found = search(model, source, lengths)
    rows = zip(source, lengths, found.tokens[:, 0], found.lengths[:, 0], strict=True)
    return [(text(s[:n]), text(t[: m - 1])) for s, n, t, m in rows], losses


if __name__ == "__main__":
    pairs, losses = main()
    print(*(f"{given} -> {found}" for given, found in pairs[:5]), sep="\n")
    right = np.mean([given[::-1] == found for given, found in pairs])
    print(f"{right:.1%} are right")
