"""Programs of `examples/uses`: each learns, or agrees with something else."""

import itertools

import jax
import numpy as np
import pytest

from examples.uses import ensemble, mesh, stream, tagger


@pytest.fixture(autouse=True)
def as_a_user_has_it():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def viterbi(params, scores):
    """The best tags of one sequence `(T, K)`, step by step."""
    best, back = params.start + scores[0], []
    for score in scores[1:]:
        paths = best[:, None] + params.transitions
        back.append(paths.argmax(0))
        best = paths.max(0) + score
    tags = [int((best + params.end).argmax())]
    for pointers in reversed(back):
        tags.append(int(pointers[tags[-1]]))
    return tags[::-1]


def test_tagger():
    model, right = tagger.main(steps=60)
    assert right > 0.95
    # other scores than those it has learned, so that the transitions matter
    rng = np.random.default_rng(1)
    pieces, _, lengths, begins = tagger.draw(rng, 20)
    scores = rng.standard_normal((*pieces.shape, 3)).astype(np.float32)
    found, _ = model.crf.decode(scores, lengths=lengths, mask=begins)
    params = jax.tree.map(np.asarray, model.crf.params)
    words = begins & (np.arange(pieces.shape[1]) < lengths[:, None])
    for row in range(20):
        want = viterbi(params, scores[row, words[row]])
        assert found[row, words[row]].tolist() == want
        pairs = list(itertools.pairwise(want))
        assert tagger.I not in want[:1] and (tagger.O, tagger.I) not in pairs
    assert not found[~words].any()


def test_ensemble():
    losses, errors, mean = ensemble.main()
    assert (losses[:, -1] < 0.3 * losses[:, 0]).all() and mean < errors.min()
    # the third member trained alone
    keys = jax.random.split(jax.random.key(0), (2, ensemble.MEMBERS))
    data = ensemble.draw(jax.random.key(1), batch=24)
    _, alone = ensemble.train(ensemble.init(keys[0, 2]), *data, keys[1, 2], steps=10)
    np.testing.assert_allclose(losses[2, :10], alone, rtol=1e-4)


def test_mesh():
    alone, together, losses = mesh.main(steps=200)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        assert len(b.sharding.device_set) == 2
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert np.mean(losses[-5:]) < 0.15  # 0.167 by a constant guess


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def surprises(params, bits):
    """What the carry holds at the end, from the equations of an LSTM in NumPy."""
    (w_x, w_h, b, _), head = jax.tree.map(np.asarray, (params["lstm"], params["head"]))
    h = c = np.zeros((stream.ROWS, stream.H))
    surprise = np.full(stream.ROWS, np.log(2))
    for bit, after in itertools.pairwise(bits):
        z = np.stack([bit, surprise], -1) @ w_x + h @ w_h + b
        i, f, g, o = np.split(z, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        loss = np.logaddexp(0, (1 - 2 * after) * (h @ head))
        surprise = 0.9 * surprise + 0.1 * loss
    return surprise


def test_stream():
    params, carry, known, random = stream.main()
    assert known < 0.1 and random > 0.6  # nobody can do better than log 2
    bits = stream.stream(np.random.default_rng(2), 10)
    half = stream.read(params, stream.start(params), bits[:16])[1][0]
    after = stream.read(params, half, bits[15:])[1][0]
    np.testing.assert_allclose(after[1], surprises(params, bits), rtol=1e-3)
    state = stream.optimizer.init(params)
    stream.update(params, state, carry, bits[: stream.PIECE + 1])
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((params, carry)))
