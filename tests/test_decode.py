"""Decoding against search by hand over every sequence of a small vocabulary."""

from functools import cache, partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq

B, V, L, END, H = 3, 4, 4, 2, 5
PARAMS = jaxseq.gru_init(jax.random.key(0), V, H, dtype=jnp.float64)
OUT = 1.5 * jax.random.normal(jax.random.key(3), (H, V), jnp.float64)
STATE = {"h": jax.random.normal(jax.random.key(2), (B, H), jnp.float64)}
TOKEN = np.array([0, 1, 3])
# Compiled once for all tests of the same options. What is eager names jaxseq.
LIMITS = ("max_length", "end")
greedy = jax.jit(jaxseq.greedy, static_argnums=0, static_argnames=LIMITS)
beam_search = jax.jit(
    jaxseq.beam_search,
    static_argnums=0,
    static_argnames=(*LIMITS, "beam", "n_best", "length_penalty"),
)
sample = jax.jit(
    jaxseq.sample,
    static_argnums=0,
    static_argnames=(*LIMITS, "temperature", "top_k", "top_p"),
)


def step(state, token):
    """A state that depends on all tokens so far, in a pytree of its own."""
    h, _ = jaxseq.gru_step(PARAMS, 3 * state["h"], jax.nn.one_hot(token, V))
    return {"h": h}, h @ OUT


@cache
def log_probs(b, tokens, *, every=False, step=None):
    """Of each of `tokens` of sequence b, or of all that may follow, by plain steps."""
    step = step or globals()["step"]
    state, before, found = {"h": STATE["h"][b]}, TOKEN[b], []
    for token in tokens:
        state, logits = step(state, before)
        found.append(float(logits[token] - jax.nn.logsumexp(logits)))
        before = token
    return jax.nn.log_softmax(step(state, before)[1]) if every else found


def every_sequence(ends=(END,), most=L):
    """All that end within `most` tokens, and those of `most` that do not."""
    others = [v for v in range(V) if v not in ends]
    for n in range(most):
        for head in product(others, repeat=n):
            yield from ((*head, end) for end in ends)
    yield from product(others, repeat=most)


def exhaustive(b, penalty, ends=(END,), most=L):
    """Every sequence with its score, the best first."""
    scores = [
        (sum(log_probs(b, s)) / ((5 + len(s)) / 6) ** penalty, s)
        for s in every_sequence(ends, most)
    ]
    return sorted(scores, reverse=True)


def taken(decoded, *at):
    return tuple(np.asarray(decoded.tokens[at])[: decoded.lengths[at]].tolist())


@pytest.fixture(autouse=True, scope="module")
def jitted_step():
    global step
    step = jax.jit(step)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_wide_beam_is_exhaustive(penalty):
    search = partial(beam_search, max_length=L, end=END, beam=81, n_best=7)
    found = search(step, STATE, TOKEN, length_penalty=penalty)
    for b in range(B):
        want = exhaustive(b, penalty)[:7]
        assert [taken(found, b, i) for i in range(7)] == [s for _, s in want]
        np.testing.assert_allclose(found.scores[b], [x for x, _ in want], atol=1e-12)
        for i in range(7):
            assert (found.tokens[b, i, found.lengths[b, i] :] == END).all()


def test_beam_of_one_is_greedy():
    how = {"max_length": 12, "end": END}
    one = beam_search(step, STATE, TOKEN, beam=1, **how)
    want = greedy(step, STATE, TOKEN, **how)
    got = jax.tree.map(lambda a: a[:, 0], one)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.lengths, want.lengths)
    np.testing.assert_allclose(got.scores, want.scores, atol=1e-12)


def test_greedy_takes_the_best_of_each_step():
    found = greedy(step, STATE, TOKEN, max_length=L, end=END)
    for b in range(B):
        state, before, want, score = {"h": STATE["h"][b]}, TOKEN[b], [], 0.0
        while len(want) < L and END not in want:
            state, logits = step(state, before)
            before = int(logits.argmax())
            score += float(jax.nn.log_softmax(logits)[before])
            want.append(before)
        assert taken(found, b) == tuple(want)
        assert float(found.scores[b]) == pytest.approx(score, abs=1e-12)
        assert (found.tokens[b, len(want) :] == END).all()
    assert len(set(np.asarray(found.tokens)[:, -1] == END)) == 2  # not all end


@pytest.mark.parametrize("beam", [1, 2, 3])
def test_scores_of_a_beam_are_those_of_its_tokens(beam):
    how = {"max_length": 9, "end": END, "beam": beam, "n_best": beam}
    found = beam_search(step, STATE, TOKEN, length_penalty=0.8, **how)
    for b, i in np.ndindex(B, beam):
        tokens = taken(found, b, i)
        want = sum(log_probs(b, tokens)) / ((5 + len(tokens)) / 6) ** 0.8
        assert float(found.scores[b, i]) == pytest.approx(want, abs=1e-12)
    assert (np.diff(found.scores) <= 0).all()


LOGITS = np.log([0.4, 0.3, 0.2, 0.1])


def same_each_step(state, token):
    return state, jnp.broadcast_to(LOGITS, (*jnp.shape(token), V))


def beam_by_hand(step, end, b, beam, penalty, most):
    """To the last step, whatever is found before it; `end` may be several."""
    ends = end if isinstance(end, tuple) else (end,)
    scored = lambda s, p: (p / ((5 + len(s)) / 6) ** penalty, s)
    alive, done = [(0.0, ())], []
    for _ in range(most):
        ways = []
        for p, s in alive:
            more = log_probs(b, s, every=True, step=step)
            ways += [(p + float(more[v]), (*s, v)) for v in range(V)]
        ways = sorted(ways, reverse=True)
        done += [scored(s, p) for p, s in ways[:beam] if s[-1] in ends]
        alive = [(p, s) for p, s in ways if s[-1] not in ends][:beam]
    done += [scored(s, p) for p, s in alive]
    return sorted(done, reverse=True)[:beam]


@pytest.mark.every(5)
@pytest.mark.parametrize("penalty", [0.0, 1.0, 4.0])
@pytest.mark.parametrize(("model", "end"), [("gru", END), ("same", 0), ("same", 1)])
@pytest.mark.parametrize("beam", [1, 3])
def test_beam_stops_no_earlier_than_it_may(model, end, penalty, beam):
    model = step if model == "gru" else same_each_step
    how = {"max_length": 7, "end": end, "length_penalty": penalty, "beam": beam}
    found = {
        n: beam_search(model, STATE, TOKEN, n_best=n, **how) for n in range(1, beam + 1)
    }
    for b, n in product(range(B), found):
        best, want = found[n], beam_by_hand(model, end, b, beam, penalty, 7)[:n]
        np.testing.assert_allclose(best.scores[b], [x for x, _ in want], atol=1e-12)
        if model is step:  # the other has ties
            assert [taken(best, b, i) for i in range(n)] == [s for _, s in want]


def test_length_may_raise_what_goes_on_above_what_has_ended():
    """At first the end has 0.55 and token 1 has 0.45; then token 1 is all but sure."""

    def model(t, token):
        logits = jnp.where(t[:, None] == 0, jnp.log(FIRST), jnp.log(LATER))
        return t + 1, logits

    FIRST = jnp.array([0.55, 0.45, 0, 0]) + 1e-12
    LATER = jnp.array([0.0, 1.0, 0, 0]) + 1e-12
    how = {"max_length": 8, "end": 0, "beam": 2, "length_penalty": 1.0}
    found = jaxseq.beam_search(model, jnp.zeros(B, jnp.int32), TOKEN, **how)
    assert (found.tokens == 1).all() and (found.lengths == 8).all()
    np.testing.assert_allclose(found.scores, np.log(0.45) / (13 / 6), atol=1e-9)


@pytest.mark.parametrize(("n_best", "steps"), [(1, 1), (2, 2), (3, 2)])
def test_a_beam_stops_as_soon_as_it_may(n_best, steps):
    """The end has probability 0.9 at each step, and each other token 1 / 30."""
    calls = []

    def model(state, token):
        jax.debug.callback(lambda: calls.append(1))
        logits = jnp.log(jnp.array([0.9] + [1 / 30] * 3))
        return state, jnp.broadcast_to(logits, (*token.shape, V))

    how = {"max_length": 50, "end": 0, "beam": 3, "n_best": n_best}
    found = jaxseq.beam_search(model, (), TOKEN, **how)
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert len(calls) == steps
    want = np.log([0.9, 0.9 / 30, 0.9 / 30][:n_best])
    np.testing.assert_allclose(found.scores, np.tile(want, (B, 1)), atol=1e-12)


@pytest.mark.parametrize("end", [END, None])
def test_fewer_sequences_than_asked_for(end):
    """Four have one token; the fifth is empty."""
    how = {"max_length": 1, "end": end, "beam": 5, "n_best": 5}
    found = jaxseq.beam_search(same_each_step, (), TOKEN, **how)
    np.testing.assert_allclose(found.scores[:, :4], np.tile(LOGITS, (B, 1)), atol=1e-12)
    np.testing.assert_array_equal(found.tokens[:, :4, 0], np.tile(range(4), (B, 1)))
    assert (found.scores[:, 4] == -np.inf).all() and (found.lengths[:, 4] == 0).all()
    assert (found.tokens[:, 4] == (-1 if end is None else end)).all()


def constant(*logits, dtype=jnp.float32):
    row = jnp.array(logits, dtype)
    return lambda state, token: (state, jnp.broadcast_to(row, (*token.shape, V)))


def test_top_k_among_equals_is_k():
    run = partial(sample, constant(2, 2, 2, 2), (), np.zeros(500, int))
    how = {"max_length": 1, "end": None}
    for k in (1, 2, 3):
        found = run(jax.random.key(0), top_k=k, **how)
        assert set(np.ravel(found.tokens).tolist()) == set(range(k))
    found = run(jax.random.key(0), top_k=2, top_p=0.6, **how)
    assert set(np.ravel(found.tokens).tolist()) == {0, 1}
    found = run(jax.random.key(0), top_k=2, top_p=0.5, **how)
    assert not found.tokens.any()


@pytest.mark.parametrize("temperature", [1e-37, 1e-40, 1e-60])
def test_low_temperatures_do_not_overflow(temperature):
    run = partial(jaxseq.sample, constant(-900, 1000, 999, 0), (), np.zeros(50, int))
    how = {"max_length": 2, "end": 3, "temperature": temperature}
    for limits in ({}, {"top_p": 0.9}, {"top_k": 3}):
        found = run(jax.random.key(0), **how, **limits)
        assert (found.tokens == 1).all() and np.isfinite(found.scores).all()


def test_temperature_and_top_p_under_jit():
    run = partial(jaxseq.sample, step, STATE, TOKEN, max_length=5, end=END)
    traced = lambda t, p: run(jax.random.key(0), temperature=t, top_p=p)
    for args in ((0.5, 0.7), (2.0, 0.9)):
        found, want = jax.jit(traced)(*args), traced(*args)
        np.testing.assert_array_equal(found.tokens, want.tokens)
        np.testing.assert_allclose(found.scores, want.scores, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_scores_of_16_bits_are_float32(dtype):
    model = constant(1.01, 2.03, 0.5, 1.99, dtype=dtype)
    log_p = jax.nn.log_softmax(model((), jnp.zeros(1))[1][0].astype(jnp.float32))
    how, tokens = {"max_length": 9, "end": None}, np.zeros(2, int)
    best = greedy(model, (), tokens, **how)
    drawn = sample(model, (), tokens, jax.random.key(0), **how)
    beams = beam_search(model, (), tokens, beam=2, **how)
    beams = jax.tree.map(lambda a: a[:, 0], beams)
    for found in (best, drawn, beams):
        assert found.scores.dtype == jnp.float32
        want = log_p[found.tokens].sum(-1)
        np.testing.assert_allclose(found.scores, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "p"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, np.array([16, 9, 4, 1]) / 30),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_k": 9}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_p": 0.69}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.71}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        ({"top_p": 0.56, "top_k": 2}, [1, 0, 0, 0]),
        ({"top_p": 0.6, "temperature": 0.5}, [16 / 25, 9 / 25, 0, 0]),
    ],
)
def test_frequencies_of_samples(options, p):
    N = 20_000
    run = partial(sample, same_each_step, (), max_length=1, end=3, **options)
    found = run(np.zeros(N, int), jax.random.key(0))
    counts = np.bincount(found.tokens[:, 0], minlength=V)
    assert (counts[np.equal(p, 0)] == 0).all()
    deviation = np.sqrt(np.multiply(p, 1 - np.array(p)) / N)
    assert np.all(abs(counts / N - p) <= 5 * deviation)
    np.testing.assert_allclose(found.scores, LOGITS[found.tokens[:, 0]], atol=1e-12)


def test_samples_have_their_scores_and_keys():
    run = partial(sample, step, STATE, TOKEN, max_length=30, end=END)
    found, again = run(jax.random.key(0)), run(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert (found.tokens != run(jax.random.key(1)).tokens).any()
    for b in range(B):
        tokens = taken(found, b)
        assert END not in tokens[:-1]
        want = sum(log_probs(b, tokens))
        assert float(found.scores[b]) == pytest.approx(want, abs=1e-12)


def test_prefill_is_the_steps_of_each_prompt():
    prompt = np.array([[0, 1, 3, 1], [3, 9, 9, 9], [1, 0, 9, 9]]) % V
    lengths = np.array([4, 1, 2])
    state, token = jaxseq.prefill(step, STATE, prompt, lengths=lengths)
    np.testing.assert_array_equal(token, [1, 3, 0])
    for b, n in enumerate(lengths):
        want = {"h": STATE["h"][b]}
        for t in range(n - 1):
            want, _ = step(want, prompt[b, t])
        np.testing.assert_allclose(state["h"][b], want["h"], atol=1e-12)
    whole, _ = jaxseq.prefill(step, STATE, prompt)
    np.testing.assert_allclose(whole["h"][0], state["h"][0], atol=1e-12)


def test_one_compilation_and_an_early_stop():
    calls = []

    def counted(state, token):
        jax.debug.callback(lambda: calls.append(1))
        return step(state, token)

    traces = []

    @jax.jit
    def run(state, prompt, lengths):
        traces.append(1)
        state, token = jaxseq.prefill(step, state, prompt, lengths=lengths)
        return jaxseq.greedy(counted, state, token, max_length=500, end=END)

    for lengths in ([3, 3, 3], [1, 2, 3]):
        found = run(STATE, np.zeros((B, 3), int), np.array(lengths))
        jax.effects_barrier()
        if (found.lengths < 500).all():
            assert len(calls) == int(found.lengths.max())
        calls.clear()
    assert len(traces) == 1
    counts = jnp.zeros((2, 1))

    def count(state, token):
        jax.debug.callback(lambda: calls.append(1))
        others = jnp.arange(V, dtype=jnp.int32) != END
        return state + 1, jnp.where(others, -50.0, 0.0) + 0 * state

    for search in (jaxseq.greedy, partial(jaxseq.beam_search, beam=1)):
        calls.clear()
        jax.block_until_ready(search(count, counts, TOKEN[:2], max_length=50, end=END))
        jax.effects_barrier()
        assert len(calls) == 1


def test_no_end_token():
    """Every sequence has all its tokens, whatever they are."""
    how = {"max_length": 6, "end": None}
    found = greedy(step, STATE, TOKEN, **how)
    beams = beam_search(step, STATE, TOKEN, beam=5, n_best=5, **how)
    drawn = sample(step, STATE, TOKEN, jax.random.key(0), **how)
    for b in range(B):
        state, before, want = {"h": STATE["h"][b]}, TOKEN[b], []
        for _ in range(6):
            state, logits = step(state, before)
            before = int(logits.argmax())
            want.append(before)
        assert taken(found, b) == tuple(want)
        hand = beam_by_hand(step, None, b, 5, 0.0, 6)
        assert [taken(beams, b, i) for i in range(5)] == [s for _, s in hand]
        assert len(taken(drawn, b)) == 6
    for tokens in (found.tokens, drawn.tokens):
        assert (tokens[:, :-1] == END).any()


def test_greedy_of_several_ends():
    """By plain steps, however the ends are given; behind them stands the first."""
    ends = (3, END)
    traced = jax.jit(partial(jaxseq.greedy, step, max_length=6))
    given = [ends, list(ends), np.array(ends), jnp.array(ends)]
    found = [jaxseq.greedy(step, STATE, TOKEN, max_length=6, end=e) for e in given[:2]]
    found += [traced(STATE, TOKEN, end=e) for e in given[2:]]
    for b in range(B):
        state, before, want = {"h": STATE["h"][b]}, TOKEN[b], []
        while len(want) < 6 and not set(ends) & set(want):
            state, logits = step(state, before)
            before = int(logits.argmax())
            want.append(before)
        for one in found:
            assert taken(one, b) == tuple(want)
            assert (one.tokens[b, len(want) :] == ends[0]).all()
            score = sum(log_probs(b, tuple(want)))
            assert float(one.scores[b]) == pytest.approx(score, abs=1e-12)
    one = traced(STATE, TOKEN, end=np.int32(END))
    want = greedy(step, STATE, TOKEN, max_length=6, end=END)
    jax.tree.map(np.testing.assert_array_equal, one, want)


@pytest.mark.parametrize("ends", [(3, END), (0, 1, 3), (0, 1, 2, 3)])
def test_beam_search_of_several_ends(ends):
    how = {"max_length": L, "beam": 81, "n_best": 5, "length_penalty": 0.6}
    run = jax.jit(partial(jaxseq.beam_search, step, **how))
    found = run(STATE, TOKEN, end=np.array(ends))
    for b in range(B):
        want = exhaustive(b, 0.6, ends)[:5]
        got = [taken(found, b, i) for i in range(5)][: len(want)]
        assert got == [s for _, s in want]
        scores = [x for x, _ in want] + [-np.inf] * (5 - len(want))
        np.testing.assert_allclose(found.scores[b], scores, atol=1e-12)


@pytest.mark.parametrize(("model", "ends"), [("gru", (3, END)), ("same", (0, 1))])
@pytest.mark.parametrize("beam", [1, 3])
def test_a_narrow_beam_of_several_ends(model, ends, beam):
    """Of the second model most of the best ways end."""
    model = step if model == "gru" else same_each_step
    how = {"max_length": 7, "end": ends, "beam": beam, "n_best": beam}
    found = beam_search(model, STATE, TOKEN, length_penalty=4.0, **how)
    for b in range(B):
        want = beam_by_hand(model, ends, b, beam, 4.0, 7)
        np.testing.assert_allclose(found.scores[b], [x for x, _ in want], atol=1e-12)
        if model is step:  # the other has ties
            assert [taken(found, b, i) for i in range(beam)] == [s for _, s in want]


def test_samples_of_several_ends():
    ends = (END, 0)
    how = {"max_length": 20, "end": ends, "temperature": 4.0}
    found = sample(step, STATE, TOKEN, jax.random.key(0), **how)
    last = set()
    for b in range(B):
        tokens = taken(found, b)
        assert not set(ends) & set(tokens[:-1])
        assert (found.tokens[b, len(tokens) :] == END).all()
        last.add(tokens[-1])
    assert last >= set(ends)


def shorter(found, most):
    """What is decoded, cut by hand to the most tokens of each row."""
    at = np.arange(found.tokens.shape[1])
    tokens = np.where(at < most[:, None], found.tokens, END)
    lengths = np.minimum(found.lengths, most)
    pairs = enumerate(zip(tokens, lengths, strict=True))
    scores = [sum(log_probs(b, tuple(t[:n].tolist()))) for b, (t, n) in pairs]
    return tokens, lengths, scores


MOST = np.array([2, 0, 4])


def test_most_tokens_of_each_row():
    how = {"max_length": 6, "end": END}
    draw = partial(sample, key=jax.random.key(3))
    for search in (greedy, draw):
        tokens, lengths, scores = shorter(search(step, STATE, TOKEN, **how), MOST)
        found = search(step, STATE, TOKEN, max_lengths=MOST, **how)
        np.testing.assert_array_equal(found.tokens, tokens)
        np.testing.assert_array_equal(found.lengths, lengths)
        np.testing.assert_allclose(found.scores, scores, atol=1e-12)


def test_most_tokens_of_each_row_of_a_beam():
    how = {"end": END, "beam": 3, "n_best": 3, "length_penalty": 2.0}
    found = beam_search(step, STATE, TOKEN, max_length=6, max_lengths=MOST, **how)
    for b, n in enumerate(MOST):
        if n == 0:
            assert (found.lengths[b] == 0).all() and (found.tokens[b] == END).all()
            np.testing.assert_array_equal(found.scores[b], [0, -np.inf, -np.inf])
            continue
        want = beam_by_hand(step, END, b, 3, 2.0, n)
        assert [taken(found, b, i) for i in range(3)] == [s for _, s in want]
        np.testing.assert_allclose(found.scores[b], [x for x, _ in want], atol=1e-12)


NOT_FINITE = np.array(
    [
        [0.5, np.nan, 1, 2],
        [-np.inf] * 4,
        [5, 1, np.inf, 900],
        [7, np.inf, -np.inf, np.inf],
        [np.inf, np.nan, 1, 2],
        [1, 0, -np.inf, 0],
    ]
)
ENDS_THERE = [True, True, False, False, True, False]


def then_not_finite(state, token):
    """Token 3 at first, then the logits above, then token 0."""
    sure = 9.0 * np.eye(4)
    logits = jnp.where(state[:, None] == 1, NOT_FINITE, sure[0])
    return state + 1, jnp.where(state[:, None] == 0, sure[3], logits)


@pytest.mark.parametrize("end", [None, 1])
@pytest.mark.parametrize("search", ["greedy", "sample"])
def test_rows_with_no_or_a_forced_token(search, end):
    how = {"max_length": 3, "end": end}
    if search == "sample":
        how |= {"key": jax.random.key(0), "top_p": 0.99, "top_k": 2}
    search = {"greedy": greedy, "sample": sample}[search]
    start = np.zeros(6, int)
    found = search(then_not_finite, start, start, **how)
    first = 9 - np.logaddexp.reduce([9, 0, 0, 0])
    with np.errstate(invalid="ignore"):
        p = np.exp(NOT_FINITE - np.logaddexp.reduce(NOT_FINITE, axis=1, keepdims=True))
    p[2], p[3] = [0, 0, 1, 0], [0, 0.5, 0, 0.5]
    for row, ends_there in enumerate(ENDS_THERE):
        tokens = np.asarray(found.tokens[row])
        if ends_there:
            assert tokens.tolist() == [3, *[-1 if end is None else end] * 2]
            assert found.lengths[row] == 1
            want = np.nan if np.isnan(NOT_FINITE[row]).any() else -np.inf
            np.testing.assert_equal(float(found.scores[row]), want)
            continue
        assert tokens[0] == 3 and p[row, tokens[1]] > 0
        ended = tokens[1] == end
        assert tokens[2] == (end if ended else 0)
        assert found.lengths[row] == (2 if ended else 3)
        want = (1 if ended else 2) * first + np.log(p[row, tokens[1]])
        assert float(found.scores[row]) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("hole", [np.nan, -np.inf])
@pytest.mark.parametrize("end", [END, None])
def test_a_beam_that_cannot_go_on(end, hole):
    """Behind token 3 no logits are finite: what has no NaN is as by plain search."""

    def model(state, token):
        state, logits = step(state, token)
        return state, jnp.where(token[..., None] == 3, hole, logits)

    how = {"max_length": 3, "end": end, "beam": 40, "n_best": 40}
    found = beam_search(model, STATE, TOKEN, **how)
    ends = () if end is None else (end,)
    every = [s for s in every_sequence(ends, 3) if 3 not in s[:-1]]
    heads = [head for n in range(2) for head in product((0, 1, 2), repeat=n)]
    stuck = {(*head, 3) for head in heads if end not in head}
    for b in range(2):
        want = sorted(((sum(log_probs(b, s)), s) for s in every), reverse=True)
        n, scores = len(want), np.asarray(found.scores[b])
        assert [taken(found, b, i) for i in range(n)] == [s for _, s in want]
        np.testing.assert_allclose(scores[:n], [x for x, _ in want], atol=1e-12)
        m = len(stuck) if np.isnan(hole) else 0
        assert {taken(found, b, i) for i in range(n, n + m)} == (stuck if m else set())
        assert np.isnan(scores[n : n + m]).all() and (scores[n + m :] == -np.inf).all()
        assert (found.lengths[b, n + m :] == 0).all()
    assert TOKEN[2] == 3 and (found.lengths[2] == 0).all()  # stuck from the start
    np.testing.assert_equal(float(found.scores[2, 0]), hole)
    assert (found.scores[2, 1:] == -np.inf).all()


def test_a_beam_of_forced_tokens():
    search = partial(jaxseq.beam_search, max_length=2, end=None, beam=3, n_best=3)
    row = jnp.array([1.0, jnp.inf, 3.0, jnp.inf])
    found = search(lambda s, t: (s, jnp.broadcast_to(row, (len(t), 4))), (), TOKEN)
    assert set(np.unique(found.tokens)) == {1, 3}
    np.testing.assert_allclose(found.scores, -2 * np.log(2), atol=1e-12)


class Room(NamedTuple):
    """A state that may know how many tokens it can still take."""

    position: jax.Array
    cache: jax.Array

    @property
    def left(self):
        known = not isinstance(self.position, jax.core.Tracer)
        return self.cache.shape[1] - int(max(self.position)) if known else None


ROOM = Room(np.array([1, 3, 0]), np.zeros((B, 8)))


def filling(state, token):
    """NaN where the state is full."""
    full = state.position >= state.cache.shape[1]
    logits = jnp.where(full[:, None], jnp.nan, LOGITS)
    return state._replace(position=state.position + 1), logits


def test_room_of_a_state():
    runs = [
        jaxseq.greedy,
        partial(jaxseq.sample, key=jax.random.key(0)),
        partial(jaxseq.beam_search, beam=2),
    ]
    message = "max_length: expected at most 5 tokens, as .* room for 5 more, got 6"
    for run in runs:
        search = partial(run, filling, ROOM, TOKEN, end=None)
        assert not np.isnan(search(max_length=5).scores).any()
        with pytest.raises(ValueError, match=message):
            search(max_length=6)
    message = "prompt: expected at most 6 tokens, as .* room for 5 more, got 7"
    fill = partial(jaxseq.prefill, filling, ROOM)
    assert fill(np.zeros((B, 6), int))[0].left == 0
    fill(np.zeros((B, 9), int), lengths=[6, 1, 2])
    with pytest.raises(ValueError, match=message):
        fill(np.zeros((B, 7), int))
    with pytest.raises(ValueError, match=message):
        fill(np.zeros((B, 9), int), lengths=[1, 7, 2])


def test_a_state_that_is_full():
    """Where only a run under `jit` knows it; what ended before keeps its score."""
    found = greedy(filling, ROOM, TOKEN, max_length=9, end=None)
    np.testing.assert_array_equal(found.lengths, [7, 5, 8])
    assert np.isnan(found.scores).all()
    for b, n in enumerate([7, 5, 8]):
        assert not found.tokens[b, :n].any() and (found.tokens[b, n:] == -1).all()
    how = {"max_length": 9, "end": END, "beam": 4, "n_best": 4}
    start = ROOM._replace(position=np.full(B, 7))  # one token, then no more
    found = beam_search(filling, start, TOKEN, **how)
    assert (found.tokens[:, 0] == END).all() and (found.lengths == 1).all()
    want = [LOGITS[END], np.nan, np.nan, np.nan]
    np.testing.assert_allclose(found.scores, np.tile(want, (B, 1)), atol=1e-12)


def test_a_cache_that_is_full():
    """That of a Transformer, under `jit`."""
    sizes = {"features": 8, "num_heads": 2, "ff_features": 8, "target_vocab": V}
    params = jaxseq.transformer_init(jax.random.key(0), **sizes, num_decoder_layers=1)
    steps = partial(jaxseq.transformer_decode_step, params)

    @jax.jit
    def run(token):
        state = jaxseq.transformer_zeros(params, batch=B, room=3)
        search = partial(jaxseq.greedy, steps, state, token, end=None)
        beams = partial(jaxseq.beam_search, steps, state, token, max_length=5, end=END)
        return search(max_length=3), search(max_length=5), beams(beam=4, n_best=4)

    short, long, beams = run(TOKEN)
    np.testing.assert_array_equal(long.tokens[:, :3], short.tokens)
    assert (long.tokens[:, 3:] == -1).all() and (long.lengths == 3).all()
    assert np.isnan(long.scores).all() and not np.isnan(short.scores).any()
    assert (beams.tokens[..., 3:] == END).all() and (beams.lengths <= 3).all()
    ended = (beams.tokens == END)[..., :3].any(-1)
    np.testing.assert_array_equal(np.isnan(beams.scores), ~ended)
    assert ended.any(1).all() and (np.diff(ended.astype(int), axis=1) <= 0).all()


traced_sample = jax.jit(
    jaxseq.sample, static_argnums=0, static_argnames=(*LIMITS, "top_k")
)


def test_temperature_of_each_row():
    N = 8000
    temperature = np.repeat([1.0, 0.5, 0.0, 1.0], N)
    top_p = np.repeat([1.0, 1.0, 1.0, 0.71], N)
    how = {"max_length": 1, "end": None, "temperature": temperature, "top_p": top_p}
    run = partial(traced_sample, same_each_step, ())
    found = run(np.zeros(4 * N, int), jax.random.key(0), **how)
    want = [
        np.array([4, 3, 2, 1]) / 10,
        np.array([16, 9, 4, 1]) / 30,
        np.array([1, 0, 0, 0]),
        np.array([4, 3, 2, 0]) / 9,
    ]
    for tokens, p in zip(found.tokens.reshape(4, N), want, strict=True):
        share = np.bincount(tokens, minlength=V) / N
        assert (share[p == 0] == 0).all()
        assert np.all(abs(share - p) <= 5 * np.sqrt(p * (1 - p) / N))
    np.testing.assert_allclose(found.scores, LOGITS[found.tokens[:, 0]], atol=1e-12)


def test_temperature_of_zero_is_greedy():
    how = {"max_length": 6, "end": END}
    want = greedy(step, STATE, TOKEN, **how)
    for options in ({}, {"top_p": 0.5}, {"top_k": 2}):
        run = partial(traced_sample, step, STATE, TOKEN, **options, **how)
        found = run(jax.random.key(1), temperature=np.zeros(B))
        jax.tree.map(np.testing.assert_array_equal, found, want)
    ties = constant(1, 7, 7, 7, dtype=jnp.float16)
    run = partial(sample, ties, (), np.zeros(99, int), temperature=0)
    assert (run(jax.random.key(0), max_length=1, end=None).tokens == 1).all()


@pytest.fixture
def least_of_those_allowed(monkeypatch):
    """In place of a draw: of the least probable, the last."""

    def last(key, logits):
        allowed = jnp.where(logits == -jnp.inf, jnp.inf, logits)[..., ::-1]
        return logits.shape[-1] - 1 - jnp.argmin(allowed, -1)

    monkeypatch.setattr(jax.random, "categorical", last)


def last_of_nucleus(logits, top_p):
    """By rank and a plain sum in float64."""
    p = np.exp(logits - logits.max())
    p, mass = p / p.sum(), 0.0
    order = sorted(range(len(p)), key=lambda v: (-p[v], v))
    for v in order:
        if mass >= top_p:
            break
        mass, last = mass + p[v], v
    return last


def test_a_nucleus_is_exact(least_of_those_allowed):
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(size=(40, 60)), 1)  # with ties
    top_p = rng.uniform(size=40)
    model = lambda s, t: (s, jnp.asarray(logits))
    run = jax.jit(
        lambda p: jaxseq.sample(
            model, (), np.zeros(40, int), jax.random.key(0), max_length=1, end=None,
            top_p=p,
        )
    )  # fmt: skip
    want = [last_of_nucleus(row, p) for row, p in zip(logits, top_p, strict=True)]
    np.testing.assert_array_equal(run(top_p).tokens[:, 0], want)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_nucleus_of_equals(least_of_those_allowed, dtype):
    """Of n tokens of the same probability, k have k / n together."""
    pairs = [(k, n) for n in range(1, 31) for k in range(1, n + 1)]
    k, n = np.array(pairs).T
    logits = jnp.where(np.arange(30) < n[:, None], 0.0, -jnp.inf).astype(dtype)
    model = lambda s, t: (s, logits)
    how = {"max_length": 1, "end": None, "top_p": k / n}
    start = np.zeros(len(k), int)
    found = jaxseq.sample(model, (), start, jax.random.key(0), **how)
    np.testing.assert_array_equal(found.tokens[:, 0], k - 1)


@pytest.mark.parametrize("top_p", [1.0, np.float32(1), None])
def test_no_limit_at_one(least_of_those_allowed, top_p):
    """Where the sum is 1 in float32 long before the last token."""
    logits = jnp.log(jnp.array([1.0, 0.5, 1e-9, 1e-30], jnp.float32))
    model = lambda s, t: (s, jnp.broadcast_to(logits, (len(t), V)))
    how = {"max_length": 1, "end": None, "top_p": top_p}
    found = jaxseq.sample(model, (), TOKEN, jax.random.key(0), **how)
    assert (found.tokens == 3).all()


def test_traced_length_penalty():
    how = {"max_length": 7, "end": END, "beam": 3, "n_best": 3}
    run = jax.jit(
        lambda a: jaxseq.beam_search(step, STATE, TOKEN, length_penalty=a, **how)
    )
    for penalty in (0.0, 4.0):
        want = beam_search(step, STATE, TOKEN, length_penalty=penalty, **how)
        jax.tree.map(np.testing.assert_array_equal, run(penalty), want)


def test_bad_arguments():
    how = {"max_length": 3, "end": END}
    key = jax.random.key(0)
    greedy = partial(jaxseq.greedy, step, STATE)
    sample = partial(jaxseq.sample, step, STATE, TOKEN, key, **how)
    beam = partial(jaxseq.beam_search, step, STATE, TOKEN, **how)
    fill = partial(jaxseq.prefill, step, STATE)
    flat = lambda state, token: (state, jnp.zeros(V))
    cases = [
        (lambda: greedy(TOKEN, max_length=0, end=END), "max_length: expected a size"),
        (
            lambda: greedy(TOKEN, max_length=3, end=V),
            "end: expected None, a token from 0 to 3, or several of them, got 4",
        ),
        (lambda: greedy(TOKEN / 2, **how), "token: expected an integer dtype"),
        (lambda: greedy(1, **how), "token: expected one token each"),
        (lambda: jaxseq.greedy(flat, (), TOKEN, **how), r"step: expected logits \(3"),
        (lambda: sample(top_k=0), "top_k: expected a size"),
        (lambda: sample(top_p=0), "top_p: expected a probability"),
        (lambda: sample(top_p=1.5), "top_p: expected a probability"),
        (lambda: beam(beam=0), "beam: expected a size"),
        (lambda: beam(beam=2, n_best=3), "n_best: expected at most beam = 2, got 3"),
        (lambda: beam(beam=2, length_penalty=-1), "length_penalty: expected a num"),
        (lambda: fill(TOKEN), r"prompt: expected shape \(B, P\)"),
        (lambda: fill(TOKEN[:, None], lengths=[2, 1, 1]), "lengths: expected values"),
        (
            lambda: fill(TOKEN[:, None], lengths=[1, 0, 1]),
            "lengths: expected values from 1 to 1, got 0",
        ),
        (lambda: sample(temperature=np.ones(2)), "temperature: expected a number"),
        (lambda: sample(top_p=np.ones(2)), "top_p: expected a probability"),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=message):
            run()


class Bad(NamedTuple):
    """Values that an argument refuses, by the search that has it."""

    search: str
    name: str
    values: list


def some():
    yield 1


NUMBERS = ["1", None, True, [1.0], some(), np.nan, -1.0, np.inf, np.ones((B, 1))]
WHOLE = ["2", None, True, [2], some(), 2.5, 0, np.ones(2, int), np.float64(2)]
BAD = [
    *(Bad(s, "max_length", WHOLE) for s in ("greedy", "sample", "beam_search")),
    Bad("beam_search", "beam", WHOLE),
    Bad("beam_search", "n_best", [*WHOLE, 3]),
    *(
        Bad(s, "end", ["x", True, 1.0, [], [True], [0.5], [[1]], some(), {1: 2}, [1, V],
                       -1, np.ones(2), np.array(True), np.ones((1, 1), int)])
        for s in ("greedy", "sample", "beam_search")
    ),
    Bad("sample", "temperature", NUMBERS),
    Bad("sample", "top_p", [a for a in NUMBERS if a is not None] + [0, 1.5]),
    Bad("sample", "top_k", [a for a in WHOLE if a is not None]),
    Bad("beam_search", "length_penalty", [*NUMBERS, np.ones(B)]),
    Bad("sample", "key", [None, 0, "key", True, np.zeros(2), jnp.zeros(2, int)]),
    *(
        Bad(s, "process", ["x", 1, [], [np.sin], (1,), (np.sin, None)])
        for s in ("greedy", "sample", "beam_search")
    ),
    *(
        Bad(s, "max_lengths", ["x", True, 1, 1.5, [1], [1.0] * B, [4] * B, [-1] * B])
        for s in ("greedy", "sample", "beam_search")
    ),
    *(
        Bad(s, "step", [None, "x", 1, (np.sin,)])
        for s in ("greedy", "sample", "beam_search", "prefill")
    ),
    *(
        Bad(s, "token", [None, "x", True, 1, 1.5, [0.5] * B, some(), [None]])
        for s in ("greedy", "sample", "beam_search")
    ),
    Bad("prefill", "prompt", [None, "x", True, 1, TOKEN, TOKEN / 2, some()]),
    Bad("prefill", "lengths", ["x", True, 1, [1], [0] * B, [3] * B, [1.0] * B, some()]),
    *(
        Bad(s, "state", ["x", {"h": "x"}, {"h": 1.0}, {"h": True}, 1, [1.0]])
        for s in ("greedy", "sample", "beam_search", "prefill")
    ),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.search} {bad.name}")
def test_what_an_argument_refuses(bad):
    how = {"step": step, "state": STATE, "token": TOKEN, "max_length": 3, "end": END}
    how |= {"sample": {"key": jax.random.key(0)}, "beam_search": {"beam": 2}}.get(
        bad.search, {}
    )
    if bad.search == "prefill":
        how = {"step": step, "state": STATE, "prompt": np.zeros((B, 2), int)}
    for value in bad.values:
        with pytest.raises(ValueError, match=f"^{bad.name}: expected"):
            getattr(jaxseq, bad.search)(**how | {bad.name: value})


@pytest.mark.parametrize("name", ["max_length", "beam", "n_best", "top_k"])
def test_sizes_are_not_traced(name):
    search = partial(jaxseq.beam_search, beam=2)
    if name == "top_k":
        search = partial(jaxseq.sample, key=jax.random.key(0))
    how = {"step": step, "state": STATE, "token": TOKEN, "max_length": 3, "end": END}
    with pytest.raises(ValueError, match=f"^{name}: expected a size"):
        jax.jit(lambda n: search(**how | {name: n}))(2)


def test_faults_of_state_and_step():
    how = {"max_length": 3, "end": END}
    same = lambda state: (state, jnp.zeros((len(state["h"]), V)))
    whole = lambda s, _: (s, jnp.zeros((len(s["h"]), V), jnp.int32))
    cases = [
        ({"h": STATE["h"][:2]}, step, r"state: expected .* \(3, ...\), got \(2, 5\)"),
        ({**STATE, "t": 0}, lambda s, _: same(s), r"state: expected .*, got \(\)"),
        (STATE, lambda s, _: (*same(s), 1), r"step: expected \(state, logits\), got t"),
        (STATE, lambda s, _: (s["h"], same(s)[1]), "step: expected a state PyTreeDef"),
        (
            STATE,
            lambda s, _: ({"h": s["h"][:, :1]}, same(s)[1]),
            r"step: expected a state with float64 \(\d+, 5\), got float64 \(\d+, 1\)",
        ),
        (
            STATE,
            lambda s, _: ({"h": s["h"].astype("f4")}, same(s)[1]),
            r"step: expected a state with float64 .*, got float32",
        ),
        (STATE, whole, "step: expected logits of a float dtype, got int32"),
    ]
    runs = [
        partial(jaxseq.greedy, **how),
        partial(jaxseq.sample, key=jax.random.key(0), **how),
        partial(jaxseq.beam_search, beam=2, **how),
    ]
    for state, wrong, message in cases:
        for run in runs:
            with pytest.raises(ValueError, match=message):
                run(wrong, state, TOKEN)
    for state, wrong, message in cases[:-1]:  # logits are of no matter to a prefill
        with pytest.raises(ValueError, match=message):
            jaxseq.prefill(wrong, state, TOKEN[:, None])
