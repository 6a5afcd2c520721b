"""Reads labels from noisy frames with CTC: nobody says which frames are which label.

Graves, Fernández, Gomez and Schmidhuber, "Connectionist Temporal Classification",
2006, https://doi.org/10.1145/1143844.1143891.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxseq
import jaxseq.nn

D, V = 8, 4  # width of a frame; three sounds, and 0 for the blank
L, T = 5, 10  # most labels and frames
SOUNDS = np.random.default_rng(0).normal(size=(V, D))


class Batch(NamedTuple):
    x: Any  # (B, T, D)
    lengths: Any  # (B,)
    labels: Any  # (B, L)
    label_lengths: Any  # (B,)


def draw(rng: np.random.Generator, count: int) -> Batch:
    """Sounds of 1 or 2 frames each, so that "aa" may come in 2, too few for CTC."""
    x = rng.normal(size=(count, T, D)).astype(np.float32)
    labels, label_lengths = (
        rng.integers(1, V, (count, L)),
        rng.integers(1, L + 1, count),
    )
    lengths = np.zeros(count, int)
    for row, (said, n) in enumerate(zip(labels, label_lengths, strict=True)):
        frames = np.repeat(said[:n], rng.integers(1, 3, n))
        lengths[row] = len(frames)
        x[row, : len(frames)] = SOUNDS[frames] + 0.3 * x[row, : len(frames)]
    return Batch(x, lengths, labels, label_lengths)


def alignable(batch: Batch) -> Batch:
    """Those rows that CTC can align: the loss of any other is without meaning."""
    steps = jaxseq.ctc_steps(batch.labels, lengths=batch.label_lengths)
    return Batch(*(a[np.asarray(steps) <= batch.lengths] for a in batch))


class Recogniser(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.gru = jaxseq.nn.GRU(D, 32, bidirectional=True, rngs=rngs)
        self.head = nnx.Linear(64, V, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        return self.head(self.gru(x, lengths=lengths)[1])


def ctc_loss(logits: jax.Array, batch: Batch) -> jax.Array:
    def padding(size, lengths):
        return (jnp.arange(size) >= lengths[:, None]).astype(jnp.float32)

    of_x = padding(batch.x.shape[1], batch.lengths)
    of_labels = padding(batch.labels.shape[1], batch.label_lengths)
    return optax.ctc_loss(logits, of_x, batch.labels, of_labels)


@nnx.jit
def update(model, optimizer, batch):
    loss = lambda model: ctc_loss(model(batch.x, batch.lengths), batch).mean()
    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


class Result(NamedTuple):
    batch: Batch
    logits: jax.Array
    found: jaxseq.Decoded  # the best labelling of each row
    left_out: int  # rows of the training set


def main(epochs: int = 10) -> Result:
    rng = np.random.default_rng(1)
    everything = draw(rng, 1400)
    data = alignable(everything)
    model = Recogniser(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    for _ in range(epochs):
        order = rng.permutation(len(data.x))
        for rows in order[: len(order) // 64 * 64].reshape(-1, 64):
            update(model, optimizer, Batch(*(a[rows] for a in data)))
    test = alignable(draw(rng, 300))
    logits = model(test.x, test.lengths)
    found = jaxseq.ctc_beam_search(logits, lengths=test.lengths, beam=8)
    left_out = len(everything.x) - len(data.x)
    return Result(test, logits, jax.tree.map(lambda a: a[:, 0], found), left_out)


def right(result: Result) -> float:
    """How many rows are read without a mistake."""
    b, found = result.batch, result.found
    rows = zip(b.labels, b.label_lengths, found.tokens, found.lengths, strict=True)
    return float(np.mean([list(a[:n]) == t[:m].tolist() for a, n, t, m in rows]))


if __name__ == "__main__":
    result = main()
    print(f"{result.left_out} of 1400 left out; {right(result):.1%} are right")
