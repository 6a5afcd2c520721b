"""Functions that change logits, against plain Python loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxseq

B, V, L = 4, 5, 9
LOGITS = np.random.default_rng(0).normal(size=(B, V))
TOKENS = np.random.default_rng(1).integers(0, 3, (B, L))  # so that some come again
TOKENS[:, 5:] = -1  # as behind what is written
at_least = jax.jit(jaxseq.at_least)
penalize_repetition = jax.jit(jaxseq.penalize_repetition)
no_repeat_ngrams = jax.jit(jaxseq.no_repeat_ngrams, static_argnames="size")
every_n = pytest.mark.parametrize("n", [0, 1, 2, 4, 5])


def banned(logits, tokens, size):
    """As fairseq does: a table of what followed each n-gram but for its last token."""
    followed = {}
    for i in range(len(tokens) - size + 1):
        *head, last = tokens[i : i + size]
        followed.setdefault(tuple(head), []).append(last)
    out = list(logits)
    if len(tokens) >= size - 1:
        for v in followed.get(tuple(tokens[len(tokens) - size + 1 :]), []):
            out[v] = -np.inf
    return out


def penalized(logits, tokens, penalty):
    out = list(logits)
    for v in set(tokens):
        out[v] = out[v] / penalty if out[v] > 0 else out[v] * penalty
    return out


@every_n
@pytest.mark.parametrize("size", [1, 2, 3, 12])
def test_no_ngram_comes_twice(size, n):
    got = no_repeat_ngrams(LOGITS, TOKENS, n, size=size)
    want = [banned(*row, size) for row in rows(n)]
    np.testing.assert_array_equal(got, want)


def rows(n):
    return [(x, t[:n].tolist()) for x, t in zip(LOGITS, TOKENS, strict=True)]


@every_n
@pytest.mark.parametrize("penalty", [1.3, 0.5, 1])
def test_repetition_is_penalized(penalty, n):
    got = penalize_repetition(LOGITS, TOKENS, n, penalty=penalty)
    want = [penalized(*row, penalty) for row in rows(n)]
    np.testing.assert_allclose(got, want, rtol=1e-14)


@pytest.mark.parametrize("end", [1, (0, 3)])
def test_no_end_too_early(end):
    ends = end if isinstance(end, tuple) else (end,)
    for n, length in [(0, 0), (0, 1), (2, 2), (2, 3)]:
        got = at_least(LOGITS, TOKENS, n, end=np.array(end), length=length)
        want = LOGITS.copy()
        if n < length:
            want[:, list(ends)] = -np.inf
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes_stay(dtype):
    logits = jnp.asarray(LOGITS, dtype)
    for f in (
        partial(jaxseq.at_least, end=1, length=3),
        partial(jaxseq.penalize_repetition, penalty=2.0),
        partial(jaxseq.no_repeat_ngrams, size=2),
    ):
        assert f(logits, TOKENS, 2).dtype == dtype


def test_gradients_of_penalized_logits():
    f = lambda x, p: jnp.sin(penalize_repetition(x, TOKENS, 4, penalty=p)).sum()
    check_grads(f, (LOGITS, 1.3), order=1, modes=["rev"], atol=1e-6)


H, END = 6, 0
PARAMS = jaxseq.gru_init(jax.random.key(0), V, H, dtype=jnp.float64)
OUT = 2 * jax.random.normal(jax.random.key(1), (H, V), jnp.float64)
STATE = jax.random.normal(jax.random.key(2), (B, H), jnp.float64)
START = np.array([0, 1, 2, 3])


@jax.jit
def step(h, token):
    h, _ = jaxseq.gru_step(PARAMS, h, jax.nn.one_hot(token, V))
    return h, h @ OUT


def by_hand(b, tokens, length, penalty, size):
    """Log-probabilities of all tokens after `tokens`, with the three functions."""
    h = STATE[b]
    for token in (START[b], *tokens):
        h, logits = step(h, token)
    logits = penalized(np.asarray(logits), tokens, penalty)
    logits = np.array(banned(logits, tokens, size))
    if len(tokens) < length:
        logits[END] = -np.inf
    return logits - np.logaddexp.reduce(logits)


HOW = {"max_length": 7, "end": END}
PROCESS = (
    partial(jaxseq.penalize_repetition, penalty=2.5),
    partial(jaxseq.no_repeat_ngrams, size=2),
    partial(jaxseq.at_least, end=END, length=3),
)
AS_ABOVE = {"length": 3, "penalty": 2.5, "size": 2}


def test_greedy_with_all_of_them():
    run = jax.jit(partial(jaxseq.greedy, step, process=PROCESS, **HOW))
    found, plain = run(STATE, START), jaxseq.greedy(step, STATE, START, **HOW)
    assert (found.tokens != plain.tokens).any()
    for b in range(B):
        tokens, score = [], 0.0
        while len(tokens) < 7 and END not in tokens:
            log_p = by_hand(b, tokens, **AS_ABOVE)
            tokens.append(int(log_p.argmax()))
            score += log_p[tokens[-1]]
        n = len(tokens)
        assert found.lengths[b] == n and found.tokens[b, :n].tolist() == tokens
        assert float(found.scores[b]) == pytest.approx(score, abs=1e-12)


def test_samples_with_all_of_them():
    """What they forbid is not drawn, and scores are of what they give."""
    run = jax.jit(partial(jaxseq.sample, step, process=PROCESS, **HOW))
    found = run(STATE, START, jax.random.key(0), temperature=2.0)
    for b in range(B):
        n, tokens = int(found.lengths[b]), np.asarray(found.tokens[b]).tolist()
        log_p = [by_hand(b, tokens[:t], **AS_ABOVE)[tokens[t]] for t in range(n)]
        assert float(found.scores[b]) == pytest.approx(sum(log_p), abs=1e-12)
    assert np.isfinite(found.scores).all()


def test_beam_search_with_all_of_them():
    run = partial(jaxseq.beam_search, step, process=PROCESS, beam=3, n_best=3, **HOW)
    found = jax.jit(run)(STATE, START)
    for b in range(B):
        alive, done = [(0.0, [])], []
        for _ in range(7):
            ways = []
            for p, s in alive:
                log_p = by_hand(b, s, **AS_ABOVE)
                ways += [(p + log_p[v], [*s, v]) for v in range(V)]
            ways = sorted((w for w in ways if w[0] > -np.inf), reverse=True)
            done += [(p, s) for p, s in ways[:3] if s[-1] == END]
            alive = [(p, s) for p, s in ways if s[-1] != END][:3]
        want = sorted(done + alive, reverse=True)[:3]
        for i, (p, s) in enumerate(want):
            assert found.tokens[b, i, : found.lengths[b, i]].tolist() == s
            assert float(found.scores[b, i]) == pytest.approx(p, abs=1e-12)


def test_a_row_that_may_write_nothing():
    """Each of the five tokens once; then none is left."""
    once = partial(jaxseq.no_repeat_ngrams, size=1)
    how = {"max_length": 7, "end": None, "process": once}
    found = jaxseq.greedy(step, STATE, START, **how)
    assert (found.lengths == V).all() and (found.scores == -np.inf).all()
    np.testing.assert_array_equal(np.sort(found.tokens[:, :V]), [range(V)] * B)
    assert (found.tokens[:, V:] == -1).all()


def test_what_a_function_gives_is_checked():
    how = {"max_length": 3, "end": END}
    wrong = [
        (lambda x, tokens, n: x[:, 1:], r"process: expected logits \(4, 5\), got"),
        (lambda x, tokens, n: None, r"process: expected logits .*, got NoneType"),
        (lambda x, tokens, n: x > 0, "process: expected logits of a float dtype"),
    ]
    for f, message in wrong:
        with pytest.raises(ValueError, match=message):
            jaxseq.greedy(step, STATE, START, process=f, **how)


def some():
    yield 1


OPTIONS = {
    "at_least": {"end": 1, "length": 2},
    "no_repeat_ngrams": {"size": 2},
    "penalize_repetition": {"penalty": 1.5},
}
BAD = {
    "logits": [None, "x", [1.0], LOGITS[0], LOGITS.astype(int), some()],
    "tokens": [None, "x", [[1]], TOKENS[0], TOKENS[:2], TOKENS / 2, some()],
    "n": [None, "x", True, [1], -1, 1.5, np.ones(2, int), np.nan],
    "end": [None, "x", True, 1.5, V, [], [True]],
    "length": [None, "x", True, [1], 1.5, -1, np.nan, np.ones(2, int)],
    "size": [None, "x", True, [1], 1.5, 0],
    "penalty": [None, "x", True, [1.0], 0, -1.0, np.nan, np.inf, np.ones(B)],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_they_refuse(name):
    args = {"logits": LOGITS, "tokens": TOKENS, "n": 2, **OPTIONS[name]}
    for argument in args:
        for value in BAD[argument]:
            with pytest.raises(ValueError, match=f"^{argument}: expected"):
                getattr(jaxseq, name)(**args | {argument: value})
