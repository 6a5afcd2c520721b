"""g2pM: which reading a Chinese character has, told by a bidirectional LSTM."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseq.convert import from_torch
from tests.networks.published import imported, path, quietly

SENTENCES = """他长大了，可是头发还没有长长。
今天的天气真好，我们去银行取钱，然后长时间地行走。
他长得很高，音乐使他快乐，重要的是重新开始。
这个地方的人都还没有还钱，着急也没用，睡着了。
我觉得你应该睡觉，不得不说得对。"""


@pytest.fixture(scope="module")
def theirs():
    module = imported("g2pM.g2pM")
    with quietly():
        return module.G2pM()


def inputs(theirs, sentence):
    """The numbers of its characters, with those of start and end around them."""
    known, unknown = theirs.char2idx, theirs.char2idx["<UNK>"]
    characters = [known.get(c, unknown) for c in sentence]
    return [known["시"], *characters, known["끝"]]


def sentences(n, rng, theirs):
    """Some that are sentences, and some of characters drawn by chance."""
    several = [
        c for c, prons in theirs.cedict.items() if len(prons) > 1 and len(c) == 1
    ]
    drawn = ["".join(rng.choice(several, rng.integers(1, 40))) for _ in range(n)]
    return [*SENTENCES.split("\n"), *drawn]


@jax.jit
def logits(weights, network, tokens, lengths):
    _, h = network(weights["embedding.weight"][tokens], lengths=lengths)
    for name in ("logit_layer.0", "logit_layer.2"):
        h = h if name == "logit_layer.0" else jax.nn.relu(h)
        h = h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return h


def test_the_readings_are_its_own(theirs):
    with open(path("g2pM/np_ckpt.pkl"), "rb") as file:
        weights = jax.tree.map(jnp.asarray, pickle.load(file))
    network = from_torch(weights, prefix="lstm")
    texts = sentences(120, np.random.default_rng(0), theirs)
    rows = [inputs(theirs, text) for text in texts]
    lengths = np.array([*map(len, rows)])
    tokens = np.zeros((len(rows), lengths.max()), np.int32)
    for to, row in zip(tokens, rows, strict=True):
        to[: len(row)] = row
    found = np.asarray(logits(weights, network, tokens, lengths).argmax(-1))
    compared = 0
    for text, row, ours in zip(texts, rows, found, strict=True):
        at = [k for k, c in enumerate(text, 1) if len(theirs.cedict.get(c, "")) > 1]
        want = theirs.predict(np.array([row], np.int32), at)
        np.testing.assert_array_equal(ours[at], want)
        compared += len(at)
    assert compared > 2_000
    # what it says of a whole sentence
    said = theirs(texts[0], char_split=True)
    at = [k for k, c in enumerate(texts[0]) if len(theirs.cedict.get(c, "")) > 1]
    assert [said[k] for k in at] == [theirs.idx2class[found[0, k + 1]] for k in at]
