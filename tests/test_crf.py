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
# holes, padding before and behind, and a sequence without a step
MASK = np.array(
    [
        [[1, 0, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]],
        [[0, 1, 0, 1], [1, 0, 1, 1], [0, 0, 0, 0]],
    ],
    bool,
)
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


def counts(way):
    """How often a way to tag reads each of the weights."""
    found = CRFParams(np.zeros((K, K)), np.zeros(K), np.zeros(K))
    if len(way):
        np.add.at(found.transitions, (way[:-1], way[1:]), 1)
        found.start[way[0]] += 1
        found.end[way[-1]] += 1
    return found


def gradients(params, scores, steps, tags):
    """Those of the loss of one sequence, of which only these steps are there."""
    ways, of_ways = every(params, scores[steps], len(steps))
    p = np.exp(of_ways - of_ways.max())
    d_params, d_scores = counts(()), np.zeros((T, K))
    for way, share in [*zip(ways, p / p.sum(), strict=True), (tags[steps], -1.0)]:
        way = np.array(way, int)
        d_scores[steps, way] += share
        for total, count in zip(d_params, counts(way), strict=True):
            total += share * count
    return d_params, d_scores


# Compiled once for all tests of the same shapes. What is eager names jaxseq.
crf_log_partition = jax.jit(jaxseq.crf_log_partition)
crf_score = jax.jit(jaxseq.crf_score)
crf_loss = jax.jit(jaxseq.crf_loss)
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
def test_loss(lengths):
    by_definition = lambda i, n: (
        log_partition(i, n) - score(PARAMS, SCORES[i], TAGS[i][:n])
    )
    found = crf_loss(PARAMS, SCORES, TAGS, lengths=lengths)
    assert_close(found, of_each(by_definition, WHOLE if lengths is None else lengths))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_masked_steps_are_as_if_not_there(lengths):
    valid = MASK if lengths is None else MASK & (np.arange(T) < LENGTHS[..., None])
    scores = np.where(valid[..., None], SCORES, np.nan)
    tags = np.where(valid, TAGS, 99)
    how = {"lengths": lengths, "mask": MASK}
    best, best_score = crf_decode(PARAMS, scores, **how)
    free = crf_log_partition(PARAMS, scores, **how)
    given = crf_score(PARAMS, scores, tags, **how)
    loss = crf_loss(PARAMS, scores, tags, **how)
    for i in np.ndindex(BATCH):
        steps = np.flatnonzero(valid[i])
        ways, of_ways = every(PARAMS, SCORES[i][steps], len(steps))
        whole = np.log(np.exp(of_ways).sum())
        own = score(PARAMS, SCORES[i][steps], TAGS[i][steps])
        assert_close((free[i], given[i], loss[i]), (whole, own, whole - own))
        assert tuple(best[i][steps].tolist()) == ways[of_ways.argmax()]
        assert not np.delete(best[i], steps).any()
        assert_close(best_score[i], of_ways.max())


def test_gradients_with_a_mask():
    valid = MASK & (np.arange(T) < LENGTHS[..., None])
    scores = np.where(valid[..., None], SCORES, np.nan)
    tags = np.where(valid, TAGS, -7)
    loss = lambda *a: crf_loss(*a, tags, lengths=LENGTHS, mask=MASK).sum()
    d_params, d_scores = jax.jit(jax.grad(loss, (0, 1)))(PARAMS, scores)
    expected = [
        gradients(PARAMS, SCORES[i], np.flatnonzero(valid[i]), TAGS[i])
        for i in np.ndindex(BATCH)
    ]
    assert_close(d_params, jax.tree.map(lambda *a: sum(a), *[d for d, _ in expected]))
    assert_close(d_scores.reshape(-1, T, K), np.array([d for _, d in expected]))


def in_float64(params, scores, lengths):
    """The log-partition, and the best way to tag and its score, of long sequences."""
    alpha = best = params.start + scores[:, 0]
    before = np.tile(np.arange(K), (scores.shape[1], len(scores), 1))
    for t in range(1, scores.shape[1]):
        on = (t < lengths)[:, None]
        ways = alpha[..., None] + params.transitions
        top = ways.max(1)
        sums = np.log(np.exp(ways - top[:, None]).sum(1))
        alpha = np.where(on, top + sums + scores[:, t], alpha)
        ways = best[..., None] + params.transitions
        best = np.where(on, ways.max(1) + scores[:, t], best)
        before[t] = np.where(on, ways.argmax(1), before[t])
    total, best = alpha + params.end, best + params.end
    tags = [best.argmax(-1)]
    for step in before[:0:-1]:
        tags.append(np.take_along_axis(step, tags[-1][:, None], 1)[:, 0])
    inside = np.arange(scores.shape[1]) < lengths[:, None]
    top = total.max(-1)
    found = top + np.log(np.exp(total - top[:, None]).sum(-1))
    return found, np.where(inside, np.array(tags[::-1]).T, 0), best.max(-1)


def test_long_sequences_in_float32():
    """Of sharp scores, where the loss is near 0, and of a network not trained yet."""
    sizes, N = np.array([20, 20, 20, 12, 8, 8, 0]), 20_000
    lengths = np.array([N, N, 2000, 1024, 1024, 4096, N])
    rng = np.random.default_rng(1)
    params = to_jax(CRFParams(*(rng.uniform(-1, 1, w.shape) for w in PARAMS)), "f4")
    tags = rng.integers(0, K, (len(sizes), N))
    tags[0] = np.arange(N) % K
    scores = sizes[:, None, None] * np.eye(K)[tags] + rng.standard_normal((7, N, K))
    scores = scores.astype(np.float32)
    wide = CRFParams(*(np.asarray(w, float) for w in params))
    free, best, best_score = in_float64(wide, scores.astype(float), lengths)
    given = np.array([
        score(wide, s[:n].astype(float), t[:n])
        for s, t, n in zip(scores, tags, lengths, strict=True)
    ])  # fmt: skip

    @jax.jit
    def run(params, scores):
        how = {"lengths": lengths}
        loss = jaxseq.crf_loss(params, scores, tags, **how)
        sums = jaxseq.crf_log_partition(params, scores, **how)
        score = jaxseq.crf_score(params, scores, tags, **how)
        found, top = jaxseq.crf_decode(params, scores, **how)
        return loss, (sums, score, top), found

    loss, sums, found = run(params, scores)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, free - given, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(sums, (free, given, best_score), rtol=2e-7)
    np.testing.assert_array_equal(found, best)


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
        loss = jaxseq.crf_loss(params, scores, TAGS, **how)
        return (2 * loss - given).sum()

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


def test_known_tags_of_masked_steps_are_not_checked():
    found = jaxseq.crf_score(PARAMS, SCORES, np.where(MASK, TAGS, 99), mask=MASK)
    assert_close(found, crf_score(PARAMS, SCORES, TAGS, mask=MASK))


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


def test_tags_that_are_forbidden():
    transitions = PARAMS.transitions.copy()
    transitions[TAGS[0, 0, 1], TAGS[0, 0, 2]] = -np.inf
    params = PARAMS._replace(transitions=transitions)
    run = jax.jit(jax.value_and_grad(lambda *a: crf_loss(*a, TAGS[0, 0]), (0, 1)))
    loss, grads = run(params, SCORES[0, 0])
    assert loss == np.inf
    assert_close(grads, gradients(params, SCORES[0, 0], np.arange(T), TAGS[0, 0]))
    never = params._replace(start=np.full(K, -np.inf))
    assert crf_log_partition(never, SCORES[0, 0]) == -np.inf


@pytest.mark.parametrize("wrong", [-1, -K, -100, K, 2**31 - 1])
def test_tags_that_only_a_run_knows_are_nan(wrong):
    """A tag of a transition, the first one and the last one."""
    tags = TAGS.copy()
    for i, t in [((0, 0), 1), ((0, 1), 0), ((1, 2), T - 1)]:
        tags[(*i, t)] = wrong
    for run in (crf_score, crf_loss):
        found = np.array(run(PARAMS, SCORES, tags))
        np.testing.assert_array_equal(np.isnan(found), (tags == wrong).any(-1))
        kept = ~np.isnan(found)
        assert_close(found[kept], np.asarray(run(PARAMS, SCORES, TAGS))[kept])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(dtype):
    params, scores = to_jax((PARAMS, SCORES), dtype)
    wide = jax.tree.map(lambda a: np.asarray(a, float), (params, scores))
    decoded = lambda *a: crf_decode(*a)[1]
    given = lambda *a: crf_score(*a, TAGS)
    loss = lambda *a: crf_loss(*a, TAGS)
    for run in (crf_log_partition, decoded, given, loss):
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
    with pytest.raises(ValueError, match=r"K: expected a size .* got True"):
        jaxseq.crf_init(jax.random.key(0), True)
    runs = {
        "log_partition": jaxseq.crf_log_partition,
        "decode": jaxseq.crf_decode,
        "score": lambda *a, **k: jaxseq.crf_score(*a, TAGS, **k),
        "loss": lambda *a, **k: jaxseq.crf_loss(*a, TAGS, **k),
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
        for bad in (None, PARAMS.start.tolist(), "a", iter(PARAMS.start)):
            with pytest.raises(ValueError, match=r"params\.start: expected an array"):
                run(PARAMS._replace(start=bad), SCORES)
        for bad in (None, SCORES.tolist(), "a"):
            with pytest.raises(ValueError, match="scores: expected an array"):
                run(PARAMS, bad)
        for bad in ([None, 1], "abc", iter([1])):
            with pytest.raises(ValueError, match="lengths: expected an array"):
                run(PARAMS, SCORES, lengths=bad)
        with pytest.raises(ValueError, match="lengths: expected an integer dtype"):
            run(PARAMS, SCORES, lengths=LENGTHS * 1.0)
        for bad in ("abc", iter([True])):
            with pytest.raises(ValueError, match="mask: expected an array"):
                run(PARAMS, SCORES, mask=bad)
        with pytest.raises(ValueError, match=r"mask: expected shape \(2, 3, 4\)"):
            run(PARAMS, SCORES, mask=MASK[0])
        with pytest.raises(ValueError, match="mask: expected dtype bool"):
            run(PARAMS, SCORES, mask=MASK.astype(int))
    for run in (jaxseq.crf_score, jaxseq.crf_loss):
        for how in ({}, {"lengths": LENGTHS}, {"mask": MASK}):
            with pytest.raises(ValueError, match=r"tags: expected shape \(2, 3, 4\)"):
                run(PARAMS, SCORES, TAGS[..., :2], **how)
        for bad in (TAGS + 1, TAGS - 1):
            with pytest.raises(ValueError, match="tags: expected tokens from 0 to 2"):
                run(PARAMS, SCORES, bad)
            with pytest.raises(ValueError, match="tags: expected tokens from 0 to 2"):
                run(PARAMS, SCORES, bad, mask=MASK)
        for bad in (None, "abc", iter([1])):
            with pytest.raises(ValueError, match="tags: expected an array"):
                run(PARAMS, SCORES, bad)
        with pytest.raises(ValueError, match="tags: expected an integer dtype"):
            run(PARAMS, SCORES, TAGS * 1.0)
