"""Tags words that are cut into pieces: a bidirectional LSTM under a CRF.

A given name is B, the begin of a name, only if a family name follows, and family names
are I, inside of a name, only behind it. Everything else is O. Words have one to
three pieces; the LSTM reads them all, and the CRF sees the first piece of each word.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxseq.nn

O, B, I = range(3)
GIVEN, FAMILY, OTHER, REST = 0, 3, 6, 10  # where each kind of piece begins, of 12


class Tagger(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(12, 16, rngs=rngs)
        self.lstm = jaxseq.nn.LSTM(16, 16, bidirectional=True, rngs=rngs)
        self.scores = nnx.Linear(32, 3, rngs=rngs)
        self.crf = jaxseq.nn.CRF(3, rngs=rngs)
        transitions = self.crf.weights.transitions
        transitions[...] = transitions[...].at[O, I].set(-jnp.inf)
        self.crf.weights.start[...] = self.crf.weights.start[...].at[I].set(-jnp.inf)

    def __call__(self, pieces, lengths):
        _, y = self.lstm(self.embed(pieces), lengths=lengths)
        return self.scores(y)


def draw(rng, batch=32, T=24):
    """Pieces and tags `(batch, T)`, lengths, and where a word begins."""
    begins = rng.random((batch, T)) < 0.5
    begins[:, 0] = True
    begins[:, 3:] |= ~(begins[:, 1:-2] | begins[:, 2:-1] | begins[:, :-3])
    pieces = np.where(begins, rng.integers(0, REST, (batch, T)), REST)
    pieces += ~begins * rng.integers(0, 2, (batch, T))
    lengths, tags = rng.integers(T // 2, T + 1, batch), np.zeros((batch, T), int)
    for row in range(batch):
        (places,) = np.nonzero(begins[row, : lengths[row]])
        family = (pieces[row] >= FAMILY) & (pieces[row] < OTHER)
        for before, place in itertools.pairwise(places):
            if family[place] and (pieces[row, before] < FAMILY or tags[row, before]):
                tags[row, before] = tags[row, before] or B
                tags[row, place] = I
    return pieces, tags, lengths, begins


def loss(model, pieces, tags, lengths, begins):
    scores = model(pieces, lengths)
    return model.crf.loss(scores, tags, lengths=lengths, mask=begins).mean()


@nnx.jit
def update(model, optimizer, *batch):
    value, grads = nnx.value_and_grad(loss)(model, *batch)
    optimizer.update(model, grads)
    return value


def main(steps=150):
    rng = np.random.default_rng(0)
    model = Tagger(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(2e-2), wrt=nnx.Param)
    losses = [float(update(model, optimizer, *draw(rng))) for _ in range(steps)]
    pieces, tags, lengths, begins = draw(rng, 200)  # never seen
    found, _ = model.crf.decode(model(pieces, lengths), lengths=lengths, mask=begins)
    words = begins & (np.arange(24) < lengths[:, None])
    right = (found == tags)[words].mean()
    print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}, {right:.1%} of words are right")
    return model, float(right)


if __name__ == "__main__":
    main()
