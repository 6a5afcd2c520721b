"""The CRF against sums and maxima over every way to tag, in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq import CRFParams
from tests.cells import assert_close, to_jax
from tests.models import assert_second_derivatives

BATCH, T, K = (2, 3), 4, 3
LENGTHS = np.array([[4, 0, 1], [3, 4, 2]])
RNG = np.random.default_rng(0)
PARAMS = CRFParams(*(RNG.standard_normal(s) for s in ((K, K), (K,), (K,))))
SCORES = 2 * RNG.standard_normal((*BATCH, T, K))
TAGS = RNG.integers(0, K, (*BATCH, T))
WHOLE = np.full(BATCH, T)


def score(params, scores, tags):
    """Of one sequence, by the definition."""
    transitions, start, end = params
    if len(tags) == 0:
        return 0.0
    total = start[tags[0]] + end[tags[-1]]
    for t, tag in enumerate(tags):
        total += scores[t, tag] + (transitions[tags[t - 1], tag] if t > 0 else 0)
    return total


def every(params, scores, n):
    """All ways to tag n steps and their scores."""
    ways = list(itertools.product(range(K), repeat=n))
    return ways, np.array([score(params, scores, way) for way in ways])


def of_each(function, lengths):
    return np.array(
        [function(i, lengths[i]) for i in np.ndindex(BATCH)], dtype=float
    ).reshape(BATCH)


def log_partition(i, n):
    return np.log(np.exp(every(PARAMS, SCORES[i], n)[1]).sum())


# Compiled once for all tests of the same shapes. What is eager names jaxseq.
crf_log_partition = jax.jit(jaxseq.crf_log_partition)
crf_score = jax.jit(jaxseq.crf_score)
crf_decode = jax.jit(jaxseq.crf_decode)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_log_partition(lengths):
    found = crf_log_partition(PARAMS, SCORES, lengths=lengths)
    assert_close(found, of_each(log_partition, WHOLE if lengths is None else lengths))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_score(lengths):
    by_definition = lambda i, n: score(PARAMS, SCORES[i], TAGS[i][:n])
    found = crf_score(PARAMS, SCORES, TAGS, lengths=lengths)
    assert_close(found, of_each(by_definition, WHOLE if lengths is None else lengths))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_decode(lengths):
    tags, scores = crf_decode(PARAMS, SCORES, lengths=lengths)
    assert tags.dtype == jnp.int32 and tags.shape == (*BATCH, T)
    for i in np.ndindex(BATCH):
        n = T if lengths is None else lengths[i]
        ways, all_scores = every(PARAMS, SCORES[i], n)
        assert tuple(tags[i][:n].tolist()) == ways[all_scores.argmax()]
        assert not tags[i][n:].any()
        assert_close(scores[i], all_scores.max())


def test_gradient_is_the_probability_of_each_tag():
    """The derivative of the log-partition by a score is that tag's marginal."""
    run = lambda scores: jaxseq.crf_log_partition(PARAMS, scores, lengths=LENGTHS)
    grads = jax.jit(jax.grad(lambda scores: run(scores).sum()))(SCORES)
    for i in np.ndindex(BATCH):
        n = LENGTHS[i]
        ways, scores = every(PARAMS, SCORES[i], n)
        p = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        marginal = np.zeros((T, K))
        for way, share in zip(ways, p, strict=True):
            marginal[np.arange(n), list(way)] += share
        assert_close(grads[i], marginal)


def test_gradients_of_weights_by_finite_differences():
    def loss(params, scores):
        how = {"lengths": LENGTHS}
        given = jaxseq.crf_score(params, scores, TAGS, **how)
        return (jaxseq.crf_log_partition(params, scores, **how) - given).sum()

    assert_second_derivatives(loss, (PARAMS, SCORES))


def test_padding_reaches_nothing():
    inside = np.arange(T) < LENGTHS[..., None]
    scores = np.where(inside[..., None], SCORES, np.nan)
    tags = np.where(inside, TAGS, 99)

    def loss(params, scores, tags):
        given = crf_score(params, scores, tags, lengths=LENGTHS)
        return (crf_log_partition(params, scores, lengths=LENGTHS) - given).sum()

    grads = jax.jit(jax.grad(loss, (0, 1)))
    for a, b in zip(
        jax.tree.leaves(grads(PARAMS, scores, tags)),
        jax.tree.leaves(grads(PARAMS, SCORES, TAGS)),
        strict=True,
    ):
        assert_close(a, b)
    found = crf_decode(PARAMS, scores, lengths=LENGTHS)
    expected = crf_decode(PARAMS, SCORES, lengths=LENGTHS)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_forbidden_transitions():
    transitions = PARAMS.transitions.copy()
    transitions[0, 1] = -np.inf
    params = PARAMS._replace(transitions=transitions)
    tags, _ = crf_decode(params, SCORES)
    moves = np.stack([tags[..., :-1], tags[..., 1:]], -1).reshape(-1, 2).tolist()
    assert [0, 1] not in moves
    found = crf_log_partition(params, SCORES)
    expected = of_each(
        lambda i, n: np.log(np.exp(every(params, SCORES[i], n)[1]).sum()), WHOLE
    )
    assert_close(found, expected)
    loss = lambda params: crf_log_partition(params, SCORES).sum()
    grads = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(g).all() for g in grads) and grads.transitions[0, 1] == 0


def test_tags_that_nothing_leads_to():
    """A chain from the first tag to the last: most ways are forbidden."""
    K = len(PARAMS.start)
    first, last = np.arange(K) == 0, np.arange(K) == K - 1
    onward = np.eye(K, dtype=bool) | np.eye(K, k=1, dtype=bool)
    params = jaxseq.CRFParams(*(
        np.where(allowed, weights, -np.inf)
        for weights, allowed in zip(PARAMS, (onward, first, last), strict=True)
    ))  # fmt: skip
    loss = lambda params, scores: crf_log_partition(params, scores).sum()
    some = np.asarray(crf_log_partition(params, SCORES))
    expected = of_each(
        lambda i, n: np.log(np.exp(every(params, SCORES[i], n)[1]).sum()), WHOLE
    )
    assert_close(some, expected)
    grads = jax.jit(jax.grad(loss, (0, 1)))(params, SCORES)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    # of each step the probabilities of its tags
    np.testing.assert_allclose(grads[1].sum(-1), 1, rtol=1e-12)
    assert (np.asarray(grads[1])[..., 0, 1:] == 0).all()
    assert (np.asarray(grads[0].transitions)[~onward] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(dtype):
    params, scores = to_jax((PARAMS, SCORES), dtype)
    wide = jax.tree.map(lambda a: np.asarray(a, float), (params, scores))
    decoded = lambda *a: crf_decode(*a)[1]
    given = lambda *a: crf_score(*a, TAGS)
    for run in (crf_log_partition, decoded, given):
        found = run(params, scores)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, run(*wide), rtol=1e-5)


def test_one_step():
    scores = SCORES[..., :1, :]
    total = PARAMS.start + PARAMS.end + scores[..., 0, :]
    found = jaxseq.crf_log_partition(PARAMS, scores)
    assert_close(found, np.log(np.exp(total).sum(-1)))
    np.testing.assert_array_equal(
        jaxseq.crf_decode(PARAMS, scores)[0][..., 0], total.argmax(-1)
    )


def test_init():
    params = jaxseq.crf_init(jax.random.key(0), 5, dtype=jnp.float32)
    assert [w.shape for w in params] == [(5, 5), (5,), (5,)]
    assert all(w.dtype == jnp.float32 and abs(w).max() <= 0.1 for w in params)
    assert len({float(w.ravel()[0]) for w in params}) == 3


def test_bad_arguments():
    with pytest.raises(ValueError, match="K: expected a size of at least 1, got 0"):
        jaxseq.crf_init(jax.random.key(0), 0)
    with pytest.raises(ValueError, match="dtype: expected a dtype among"):
        jaxseq.crf_init(jax.random.key(0), 2, dtype=int)
    runs = {
        "log_partition": jaxseq.crf_log_partition,
        "decode": jaxseq.crf_decode,
        "score": lambda *a, **k: jaxseq.crf_score(*a, TAGS, **k),
    }
    for run in runs.values():
        with pytest.raises(ValueError, match="params: expected CRFParams, got tuple"):
            run(tuple(PARAMS), SCORES)
        with pytest.raises(ValueError, match=r"scores: expected shape \(..., T, 3\)"):
            run(PARAMS, SCORES[..., :2])
        with pytest.raises(ValueError, match="T of at least 1"):
            run(PARAMS, SCORES[..., :0, :])
        with pytest.raises(ValueError, match=r"params.end: expected shape \(3,\)"):
            run(PARAMS._replace(end=np.zeros(2)), SCORES)
        with pytest.raises(ValueError, match=r"params\.start: expected dtype float64"):
            run(PARAMS._replace(start=np.zeros(3, np.float32)), SCORES)
        with pytest.raises(ValueError, match="lengths: expected values from 0 to 4"):
            run(PARAMS, SCORES, lengths=LENGTHS + 1)
    with pytest.raises(ValueError, match=r"tags: expected shape \(2, 3, 4\)"):
        jaxseq.crf_score(PARAMS, SCORES, TAGS[..., :2])
    with pytest.raises(ValueError, match="tags: expected tokens from 0 to 2"):
        jaxseq.crf_score(PARAMS, SCORES, TAGS + 1)
