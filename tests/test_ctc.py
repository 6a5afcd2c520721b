"""CTC decoding against the sum over every path, in NumPy, and optax's loss."""

import itertools
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxseq
from tests.cells import assert_close

BATCH, T, V = (2, 2), 5, 3
LENGTHS = np.array([[5, 0], [1, 4]])
LOGITS = 2 * np.random.default_rng(3).standard_normal((*BATCH, T, V))
# Compiled once for all tests of the same options. What is eager names jaxseq.
ctc_greedy = jax.jit(jaxseq.ctc_greedy, static_argnames="blank")
ctc_beam_search = jax.jit(
    jaxseq.ctc_beam_search, static_argnames=("blank", "beam", "n_best")
)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def labelling(path, blank):
    """By the definition: equal neighbours are one, then blanks are left out."""
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def every(logits, n, blank):
    """The probability of every labelling of n steps, and the best path."""
    log_p, sums = log_softmax(logits[:n]), defaultdict(float)
    paths = {}
    for path in itertools.product(range(logits.shape[-1]), repeat=n):
        paths[path] = sum(log_p[t, k] for t, k in enumerate(path))
        sums[labelling(path, blank)] += np.exp(paths[path])
    best = max(paths, key=paths.__getitem__)
    return sums, labelling(best, blank), paths[best]


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_greedy_is_the_best_path(blank, lengths):
    tokens, n, scores = ctc_greedy(LOGITS, lengths=lengths, blank=blank)
    for i in np.ndindex(BATCH):
        valid = T if lengths is None else lengths[i]
        _, best, score = every(LOGITS[i], valid, blank)
        assert tuple(tokens[i][: n[i]].tolist()) == best
        assert (tokens[i][n[i] :] == blank).all()
        assert_close(scores[i], score)


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_wide_beam_is_exhaustive(blank, lengths):
    how = {"blank": blank, "beam": 80, "n_best": 80}
    tokens, n, scores = ctc_beam_search(LOGITS, lengths=lengths, **how)
    for i in np.ndindex(BATCH):
        valid = T if lengths is None else lengths[i]
        sums, _, _ = every(LOGITS[i], valid, blank)
        expected = sorted(sums.items(), key=lambda item: -item[1])
        many = len(expected)
        found = [tuple(tokens[i][k][: n[i][k]].tolist()) for k in range(many)]
        assert found == [labels for labels, _ in expected]
        assert_close(scores[i][:many], np.log([p for _, p in expected]))
        assert (scores[i][many:] == -np.inf).all() and not n[i][many:].any()
        assert (tokens[i][many:] == blank).all()


def test_a_narrow_beam_has_less_than_all_paths():
    """Never more than the probability of a labelling, and it is one of several."""
    logits = np.random.default_rng(1).standard_normal((60, 6, 4))
    tokens, n, scores = ctc_beam_search(logits, beam=3, n_best=3)
    better = 0
    for i in range(len(logits)):
        sums, greedy, _ = every(logits[i], 6, 0)
        found = [tuple(tokens[i][k][: n[i][k]].tolist()) for k in range(3)]
        assert len(set(found)) == 3
        for labels, score in zip(found, scores[i], strict=True):
            assert score <= np.log(sums[labels]) + 1e-12
        better += sums[found[0]] > sums[greedy]
    assert better > 6  # where the best path is not of the best labelling


def test_the_loss_of_optax_is_the_score():
    tokens, n, scores = ctc_beam_search(LOGITS, beam=80)
    flat = lambda a: jnp.asarray(a).reshape(-1, *a.shape[2:])
    labels, many = flat(tokens)[:, 0], flat(n)[:, 0]
    padding = (np.arange(T) >= np.asarray(many)[:, None]).astype(float)
    zeros = jnp.zeros((4, T))
    with jax.numpy_dtype_promotion("standard"):  # optax's need
        losses = optax.ctc_loss(flat(LOGITS), zeros, labels, padding)
    np.testing.assert_allclose(losses, -flat(scores)[:, 0], rtol=1e-6)


def test_steps_that_a_labelling_needs():
    """The least length of a path that stands for it, among all paths."""
    least = {}
    for n in range(6):
        for path in itertools.product(range(3), repeat=n):
            least.setdefault(labelling(path, 0), n)
    known = [labels for labels in least if len(labels) <= 3]  # 5 steps are enough
    assert len(known) == 1 + 2 + 4 + 8
    labels = np.array([[*k, *[1] * (3 - len(k))] for k in known])
    lengths = np.array([len(k) for k in known])
    found = jax.jit(jaxseq.ctc_steps)(labels, lengths=lengths)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, [least[k] for k in known])
    whole = lengths == 3
    np.testing.assert_array_equal(jaxseq.ctc_steps(labels[whole]), found[whole])
    padded = np.where(np.arange(3) < lengths[:, None], labels, -9)
    np.testing.assert_array_equal(jaxseq.ctc_steps(padded, lengths=lengths), found)


@pytest.mark.parametrize("run", [jaxseq.ctc_greedy, jaxseq.ctc_beam_search])
def test_padding_reaches_nothing(run):
    inside = np.arange(T) < LENGTHS[..., None]
    spoilt = np.where(inside[..., None], LOGITS, np.nan)
    found, expected = (run(x, lengths=LENGTHS) for x in (spoilt, LOGITS))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("run", [ctc_greedy, ctc_beam_search])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(run, dtype):
    logits = jnp.asarray(LOGITS, dtype)
    found, expected = run(logits), run(np.asarray(logits, float))
    assert found.scores.dtype == jnp.float32
    assert found.tokens.dtype == found.lengths.dtype == jnp.int32
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


@pytest.mark.parametrize("run", [jaxseq.ctc_greedy, jaxseq.ctc_beam_search])
def test_no_step(run):
    tokens, n, scores = run(LOGITS[..., :0, :])
    assert tokens.size == 0 and not n.any() and not scores.any()


def test_bad_arguments():
    for run in (jaxseq.ctc_greedy, jaxseq.ctc_beam_search):
        with pytest.raises(ValueError, match="logits: expected a dtype among"):
            run(np.zeros((2, 3), int))
        with pytest.raises(ValueError, match=r"logits: expected shape \(..., T, V\)"):
            run(LOGITS[0, 0, 0])
        for bad in (3, -1, True, 1.0, None, "1", [1]):
            with pytest.raises(ValueError, match="blank: expected a token from 0 to 2"):
                run(LOGITS, blank=bad)
        with pytest.raises(ValueError, match="blank: expected a token from 0 to 2"):
            jax.jit(lambda blank, run=run: run(LOGITS, blank=blank))(1)
        for bad in ([None, 1], "abc", iter([1])):
            with pytest.raises(ValueError, match="lengths: expected an array"):
                run(LOGITS, lengths=bad)
        with pytest.raises(ValueError, match="lengths: expected values from 0 to 5"):
            run(LOGITS, lengths=LENGTHS + 1)
    labels = np.ones((2, 3), int)
    for bad in (None, "abc", iter([1])):
        with pytest.raises(ValueError, match="labels: expected an array"):
            jaxseq.ctc_steps(bad)
    with pytest.raises(ValueError, match="labels: expected an integer dtype"):
        jaxseq.ctc_steps(labels * 1.0)
    with pytest.raises(ValueError, match=r"labels: expected shape \(..., L\)"):
        jaxseq.ctc_steps(1)
    with pytest.raises(ValueError, match="lengths: expected values from 0 to 3"):
        jaxseq.ctc_steps(labels, lengths=[4, 1])
    with pytest.raises(ValueError, match="beam: expected a size of at least 1"):
        jaxseq.ctc_beam_search(LOGITS, beam=0)
    with pytest.raises(ValueError, match="n_best: expected at most beam = 2, got 3"):
        jaxseq.ctc_beam_search(LOGITS, beam=2, n_best=3)
