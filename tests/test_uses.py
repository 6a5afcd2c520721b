"""The models of `examples/uses` learn, and agree with what is not the library."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples.uses import (
    characters,
    finetune,
    recurrent_policy,
    reversal,
    sentiment,
    speech,
)
from tests import reference

README = Path(__file__).parent.parent / "examples" / "README.md"


@pytest.fixture(autouse=True)
def as_a_user_has_it():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def test_sentiment():
    model, accuracy = sentiment.main()
    assert accuracy > 0.95
    rows, _ = sentiment.reviews(np.random.default_rng(5), 6)
    assert not rows.all()  # some are padded
    embed, pair = np.array(model.embed.embedding), model.lstm.params[0]
    for row, got in zip(rows, model(jnp.asarray(rows)), strict=True):
        x, zeros = embed[row[row != 0]], (np.zeros(16), np.zeros(16))
        (forward, _), _ = reference.lstm(pair[0], zeros, x)
        (backward, _), _ = reference.lstm(pair[1], zeros, x[::-1])
        h = np.concatenate([forward, backward])
        want = h @ np.array(model.head.kernel) + np.array(model.head.bias)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def test_characters():
    """The lines are equally probable, so a page cannot be told in much less."""
    nats, lines, page = characters.main()
    least = np.log(len(characters.LINES)) / (np.mean([*map(len, characters.LINES)]) + 1)
    assert 0.97 * least < nats < 1.2 * least
    right = lambda lines: np.mean([line in characters.LINES for line in lines])
    assert right(lines) > 0.8 and right(page[:-1]) > 0.8  # the last one is cut
    assert (
        {line[-1] for line in lines} == {line[-1] for line in page[:-1]} == set(".!?")
    )
    assert len(set(lines)) > 8 and len(set(page)) > 8
    assert len("\n".join(page)) == 1000 > 15 * 64


def test_finetune():
    first, tuned, key = finetune.main()
    before, after = ([*map(float, finetune.accuracies(p, key))] for p in (first, tuned))
    assert before[0] > 0.85 and before[1] < 0.1  # by chance 0.25
    assert after[1] > 0.8
    for name in first:
        pairs = zip(*map(jax.tree.leaves, (first[name], tuned[name])), strict=True)
        same = [bool((a == b).all()) for a, b in pairs]
        assert all(same) if name in ("embed", "lower") else not any(same)


def test_tasks_of_finetune():
    symbols, lengths, counts = finetune.draw(jax.random.key(5), 30)
    for row, n, got in zip(symbols, lengths, counts, strict=True):
        want = np.bincount(row[:n], minlength=4)
        np.testing.assert_array_equal(got, want)
        assert finetune.most(got) == want.argmax()
        assert finetune.least(got) == want.argmin()


def test_recurrent_policy():
    rewards, apart = recurrent_policy.main()
    assert abs(rewards[0]) < 0.3 and rewards[-1] > 0.95
    assert apart < 1e-5


def test_reversal():
    pairs, losses = reversal.main()
    assert losses[-1] < 0.5 * losses[0]
    assert np.mean([given[::-1] == found for given, found in pairs]) > 0.9
    assert {len(given) for given, _ in pairs} == set(range(3, 9))


def test_loss_of_reversal():
    source, lengths, labels = reversal.batch(np.random.default_rng(5), 4)
    logits = np.random.default_rng(6).standard_normal((4, 9, 9)).astype(np.float32)

    def model(given, inputs, *, source_lengths):
        assert source_lengths is lengths
        for row, n, read in zip(given, lengths, inputs, strict=True):
            assert read[: n + 1].tolist() == [reversal.END, *row[:n][::-1]]
        return logits

    targets = optax.smooth_labels(jax.nn.one_hot(labels, 9), 0.1)
    losses = optax.softmax_cross_entropy(logits, targets)
    want = np.mean(np.asarray(losses)[labels != -100])
    got = reversal.loss(model, source, lengths, jnp.asarray(labels))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_speech():
    result = speech.main()
    assert speech.right(result) > 0.8
    found = result.found
    scores = found.scores
    said = result.batch._replace(labels=found.tokens, label_lengths=found.lengths)
    losses = jax.jit(speech.ctc_loss)(result.logits, said)
    assert (scores <= -losses + 1e-3).all()  # no path is counted twice
    np.testing.assert_allclose(jnp.exp(scores), jnp.exp(-losses), rtol=0, atol=0.02)


def test_what_ctc_cannot_align():
    """optax gives these a loss of about 1e5, as it has no infinity."""
    batch = speech.draw(np.random.default_rng(5), 200)
    logits = jnp.zeros((*batch.x.shape[:2], speech.V))
    possible = jax.jit(speech.ctc_loss)(logits, batch) < 1e4
    kept = speech.alignable(batch)
    assert 0 < len(kept.x) == int(possible.sum()) < 200
    np.testing.assert_array_equal(kept.x, batch.x[np.asarray(possible)])


def test_readme_names_each_use():
    named = re.findall(r"\]\(uses/(\w+)\.py\)", README.read_text())
    files = (README.parent / "uses").glob("[a-z]*.py")
    assert sorted(named) == sorted(f.stem for f in files)
