"""Decoding against search by hand over every sequence of a small vocabulary."""

from functools import cache, partial
from itertools import product

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


def every_sequence():
    """All that end within L tokens, and those of L tokens that do not."""
    others = [v for v in range(V) if v != END]
    for n in range(L):
        for head in product(others, repeat=n):
            yield (*head, END)
    yield from product(others, repeat=L)


def exhaustive(b, penalty):
    """Every sequence with its score, the best first."""
    scores = [
        (sum(log_probs(b, s)) / ((5 + len(s)) / 6) ** penalty, s)
        for s in every_sequence()
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
    """To the last step, whatever is found before it."""
    scored = lambda s, p: (p / ((5 + len(s)) / 6) ** penalty, s)
    alive, done = [(0.0, ())], []
    for _ in range(most):
        ways = []
        for p, s in alive:
            more = log_probs(b, s, every=True, step=step)
            ways += [(p + float(more[v]), (*s, v)) for v in range(V)]
        ways = sorted(ways, reverse=True)[: 2 * beam]
        done += [scored(s, p) for p, s in ways[:beam] if s[-1] == end]
        alive = [(p, s) for p, s in ways if s[-1] != end][:beam]
    done += [scored(s, p) for p, s in alive]
    return sorted(done, reverse=True)[:beam]


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
            "end: expected None or a token from",
        ),
        (lambda: greedy(TOKEN / 2, **how), "token: expected an integer dtype"),
        (lambda: greedy(1, **how), "token: expected one token each"),
        (lambda: jaxseq.greedy(flat, (), TOKEN, **how), r"step: expected logits \(3"),
        (lambda: sample(temperature=0), "temperature: expected a number above 0"),
        (lambda: sample(top_k=0), "top_k: expected a size"),
        (lambda: sample(top_p=0), "top_p: expected a probability"),
        (lambda: sample(top_p=1.5), "top_p: expected a probability"),
        (lambda: beam(beam=0), "beam: expected a size"),
        (lambda: beam(beam=2, n_best=3), "n_best: expected at most beam = 2, got 3"),
        (lambda: beam(beam=2, length_penalty=-1), "length_penalty: expected at least"),
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
