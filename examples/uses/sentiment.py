"""Classifies reviews of different lengths, padded on the left, by their mood.

"not" turns the one word that matters round, several words before or after it, so a
bag of words is right on half of the reviews.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxseq.nn

GOOD, BAD = "good great lovely fine".split(), "bad awful dull poor".split()
REST = "the a film plot actor was and with some long quiet it i saw".split()
WORDS = ["<pad>", "not", *GOOD, *BAD, *REST]


def review(rng: np.random.Generator) -> tuple[list[int], int]:
    good, turned = rng.integers(0, 2, 2)
    words = list(rng.choice(REST, rng.integers(2, 13)))
    matters = [rng.choice(GOOD if good else BAD)] + ["not"] * turned
    for word in matters:
        words.insert(rng.integers(0, len(words) + 1), word)
    return [WORDS.index(word) for word in words], int(good ^ turned)


def reviews(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    rows, moods = zip(*(review(rng) for _ in range(count)), strict=True)
    T = max(map(len, rows))
    padded = [[0] * (T - len(row)) + row for row in rows]
    return np.array(padded), np.array(moods)


class Classifier(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(len(WORDS), 16, rngs=rngs)
        self.lstm = jaxseq.nn.LSTM(16, 16, bidirectional=True, rngs=rngs)
        self.head = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        ((forward, backward),), _ = self.lstm(self.embed(tokens), mask=tokens != 0)
        return self.head(jnp.concatenate([forward.h, backward.h], axis=-1))


@nnx.jit
def update(model, optimizer, tokens, moods):
    def loss(model):
        logits = model(tokens)
        return optax.softmax_cross_entropy_with_integer_labels(logits, moods).mean()

    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


def main(epochs: int = 6) -> tuple[Classifier, float]:
    """The trained model, and its accuracy on reviews it has not seen."""
    rng = np.random.default_rng(0)
    tokens, moods = reviews(rng, 2048)
    model = Classifier(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    for _ in range(epochs):
        for rows in rng.permutation(len(tokens)).reshape(-1, 64):
            update(model, optimizer, tokens[rows], moods[rows])
    tokens, moods = reviews(rng, 512)
    return model, float((model(tokens).argmax(-1) == moods).mean())


if __name__ == "__main__":
    print(f"{main()[1]:.1%} are right")
