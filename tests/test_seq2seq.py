"""The recurrent encoder-decoder against its equations, and as one uses it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from tests import reference
from tests.cells import assert_close, to_jax
from tests.models import assert_gradients, drawn, fit

SOURCE, TARGET, E, H, A, S, T = 11, 9, 4, 6, 5, 3, 3
BATCH = (2, 2)
LENGTHS = np.array([[3, 1], [2, 3]])
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, SOURCE, (*BATCH, S))
TARGETS = RNG.integers(0, TARGET, (*BATCH, T))
# Compiled once for all tests of the same shapes; what `encode` calls is by itself.
encode = jaxseq.seq2seq_encode
decode = jax.jit(jaxseq.seq2seq_decode, static_argnames="dropout")
decode_step = jax.jit(jaxseq.seq2seq_decode_step)
CELLS = {
    "rnn": (jaxseq.RNN, reference.rnn),
    "lstm": (jaxseq.LSTM, reference.lstm),
    "gru": (jaxseq.GRU, reference.gru),
}
# attention, score, input feeding
KINDS = {
    "none": {"attention": None},
    "bahdanau": {},
    "bahdanau general": {"score": "general"},
    "bahdanau multi-head": {"score": "multi_head", "A": 8, "heads": 2},
    "luong": {"attention": "luong"},
    "luong concat": {"attention": "luong", "score": "additive"},
    "luong dot": {"attention": "luong", "score": "dot", "bidirectional": False},
    "luong scaled dot": {
        "attention": "luong", "score": "scaled_dot", "bidirectional": False,
    },
    "luong fed": {"attention": "luong", "feed": True},
    "luong concat fed": {"attention": "luong", "score": "additive", "feed": True},
    "luong multi-head fed": {
        "attention": "luong", "score": "multi_head", "A": 8, "feed": True,
    },
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, cell="lstm", *, seed=0, **options):
    """Weights in which no bias is zero, of the shapes that `seq2seq_init` gives."""
    init = partial(jaxseq.seq2seq_init, dtype=jnp.float64, cell=CELLS[cell][0])
    options = {"A": A, "layers": 2, **KINDS[kind], **options}
    target = options.pop("target", TARGET)
    sizes = SOURCE, target, E, H
    return drawn(lambda key: init(key, *sizes, **options), seed=seed)


def score_of(params):
    """The score as `reference.seq2seq` takes it."""
    if params.attention is None:
        return None
    score = params.attention.score

    def attend(query, memory):
        every = np.ones((1, len(memory)), bool)
        if isinstance(score, jaxseq.MultiHeadParams):
            args = score, query[None], memory, memory, every
            context, rows = reference.multi_head_attention(*args)
            return rows[:, 0], context[0]
        f = {
            jaxseq.AdditiveParams: lambda q, k: reference.additive_score(*score, q, k),
            jaxseq.Dot: lambda q, k: q @ k,
            jaxseq.ScaledDot: lambda q, k: q @ k / np.sqrt(len(k)),
        }.get(type(score), lambda q, k: q @ score @ k)
        context, rows = reference.attention(f, query[None], memory, memory, every)
        return rows[0], context[0]

    return attend


def by_hand(params, cell, tokens, targets, *, luong, feeds):
    def run(weights, state, x):
        H = weights.w_h.shape[0]
        zeros = np.zeros(H)
        if state is None:
            state = (zeros, zeros) if cell is reference.lstm else zeros
        return cell(weights, state, x)

    score = score_of(params)
    return reference.seq2seq(
        run, params, score, tokens, targets, luong=luong, feeds=feeds
    )


def check(kind, cell, **options):
    params = make(kind, cell, **options)
    state = encode(params, TOKENS, lengths=LENGTHS)
    end, logits, weights = decode(params, state, TARGETS)
    assert logits.shape == (*BATCH, T, TARGET if params.target is not None else SOURCE)
    luong = isinstance(params.attention, jaxseq.LuongParams)
    feeds = KINDS[kind].get("feed", False)
    for i in np.ndindex(BATCH):
        n = LENGTHS[i]
        want, rows = by_hand(
            params, CELLS[cell][1], TOKENS[i][:n], TARGETS[i], luong=luong, feeds=feeds
        )
        assert_close(logits[i], want)
        if weights is None:
            assert params.attention is None
            continue
        got = np.moveaxis(weights[i], -2, 0)  # the heads behind time
        assert_close(got[..., :n], np.array(rows))
        assert not got[..., n:].any()
    return params, state, end, logits


@every_kind
def test_equations(kind):
    check(kind, "lstm")


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong", "luong fed"])
@pytest.mark.parametrize("cell", ["rnn", "gru"])
@pytest.mark.parametrize("layers", [1, 3])
def test_cells_and_depth(kind, cell, layers):
    check(kind, cell, layers=layers)


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong fed"])
def test_one_direction_and_one_vocabulary(kind):
    check(kind, "lstm", bidirectional=False, target=None)


@every_kind
def test_steps_are_the_whole(kind):
    params = make(kind)
    state = encode(params, TOKENS, lengths=LENGTHS)
    end, logits, _ = decode(params, state, TARGETS)
    for t in range(T):
        state, now = decode_step(params, state, TARGETS[..., t])
        assert_close(now, logits[..., t, :])
    assert_close(state, end)


@pytest.mark.parametrize("kind", ["bahdanau", "luong", "luong fed", "none"])
def test_decoding_goes_on_from_where_it_stopped(kind):
    params = make(kind)
    state = encode(params, TOKENS)
    _, whole, _ = decode(params, state, TARGETS)
    state, first, _ = decode(params, state, TARGETS[..., :2])
    _, rest, _ = decode(params, state, TARGETS[..., 2:])
    assert_close(jnp.concatenate([first, rest], -2), whole)


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong", "luong fed"])
def test_padding_is_not_read(kind):
    params = make(kind)
    inside = np.arange(S) < LENGTHS[..., None]
    found = []
    for padding in (0, -7, SOURCE + 100):
        tokens = np.where(inside, TOKENS, padding)
        state = encode(params, tokens, lengths=LENGTHS)
        found.append(decode(params, state, TARGETS)[1])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_eager_calls_equal_compiled_ones():
    params, inside = make("luong fed"), np.arange(S) < LENGTHS[..., None]
    tokens = np.where(inside, TOKENS, SOURCE + 100)  # of padding no check is made
    state = encode(params, tokens, lengths=LENGTHS)
    assert_close(state, jax.jit(encode)(params, TOKENS, lengths=LENGTHS))
    want = decode(params, state, TARGETS)
    assert_close(jaxseq.seq2seq_decode(params, state, TARGETS), want)
    token = TARGETS[..., 0]
    want = decode_step(params, state, token)
    assert_close(jaxseq.seq2seq_decode_step(params, state, token), want)


def test_tokens_are_checked_before_they_wrap():
    """Without x64 an int64 array becomes int32, in which these are good."""
    params = jax.tree.map(lambda w: w.astype("f4"), make("none"))
    wrong = TOKENS.astype("int64") + 2**32
    inside = np.arange(S) < LENGTHS[..., None]
    right = np.where(inside, TOKENS, wrong)
    with jax.enable_x64(False):
        encode = partial(jaxseq.seq2seq_encode, params)
        for how in ({}, {"lengths": LENGTHS}):
            with pytest.raises(ValueError, match=r"tokens: expected tokens .* 42949"):
                encode(wrong, **how)
        encode(right, lengths=LENGTHS)


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong", "luong fed"])
def test_nothing_to_read(kind):
    """No sequence, or no target token."""
    params = make(kind)
    C = TARGET
    for batch, S, T in (((0,), 2, 1), ((2,), 2, 0)):
        state = encode(params, np.zeros((*batch, S), int))
        tokens = np.zeros((*batch, T), int)
        end, logits, weights = decode(params, state, tokens)
        assert logits.shape == (*batch, T, C) and np.isfinite(logits).all()
        assert weights is None or weights.shape[-2:] == (T, S)
        assert jax.tree.map(jnp.shape, end) == jax.tree.map(jnp.shape, state)
        _, one = decode_step(params, state, np.zeros(batch, int))
        assert one.shape == (*batch, C)


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong", "luong fed"])
def test_gradients(kind):
    params = make(kind, "gru", layers=1)

    def loss(params):
        state = encode(params, TOKENS, lengths=LENGTHS)
        _, logits, _ = jaxseq.seq2seq_decode(params, state, TARGETS)
        return jaxseq.cross_entropy(logits, TARGETS).sum()

    grads = assert_gradients(loss, (params,), rtol=1e-6)
    assert all(np.any(g) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    "kind, cell",
    [("none", "lstm"), ("bahdanau", "gru"), ("luong", "gru"), ("luong fed", "lstm")],
)
def test_overfits_one_batch_and_decodes_it(kind, cell):
    """Words reversed and shifted: nothing but the source tells the target."""
    N, END, START = 8, 0, 1
    words = np.random.default_rng(1).integers(2, TARGET, (N, 4))
    lengths = np.array([4, 3, 2, 4, 1, 4, 3, 2])
    targets = np.full((N, 5), END)
    for i, n in enumerate(lengths):
        targets[i, :n] = (words[i, :n][::-1] - 2 + 3) % (TARGET - 2) + 2
    inputs = np.concatenate([np.full((N, 1), START), targets[:, :-1]], 1)
    options = {k: v for k, v in KINDS[kind].items() if k != "A"}
    params = jaxseq.seq2seq_init(
        jax.random.key(0), TARGET, TARGET, 16, 32, cell=CELLS[cell][0], **options
    )

    def loss(params):
        state = encode(params, words, lengths=lengths)
        _, logits, _ = decode(params, state, inputs)
        losses = jaxseq.cross_entropy(logits, targets, lengths=lengths + 1)
        return losses.sum() / (lengths + 1).sum()

    params, values = fit(loss, params, rate=1e-2, steps=150)
    assert values[-1] < 0.05 < 1 < values[0]

    @jax.jit
    def written(params):
        state = encode(params, words, lengths=lengths)
        args = partial(jaxseq.seq2seq_decode_step, params), state, np.full(N, START)
        how = {"max_length": 5, "end": END}
        return jaxseq.greedy(*args, **how), jaxseq.beam_search(*args, **how, beam=3)

    found, beams = written(params)
    np.testing.assert_array_equal(found.tokens, targets)
    np.testing.assert_array_equal(beams.tokens[:, 0], targets)


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong fed"])
def test_dropout(kind):
    params = make(kind)
    read = partial(encode, params, TOKENS, lengths=LENGTHS)
    keys = jax.random.split(jax.random.key(0))
    states = [read(dropout=0.5, key=key) for key in keys]
    assert (states[0].layers[0].h != states[1].layers[0].h).any()
    assert_close(states[0], read(dropout=0.5, key=keys[0]))
    plain = read()
    write = partial(decode, params, plain, TARGETS)
    logits = [write(dropout=0.5, key=key)[1] for key in keys]
    assert (logits[0] != logits[1]).any()
    assert_close(write(dropout=0.0, key=keys[0])[1], write()[1])
    # the outputs dropped: the mean over many keys is what goes without
    flat = params._replace(
        source=0 * params.source, target=0 * params.target, decoder=params.decoder[:1],
        encoder=params.encoder[:1], bridge=params.bridge[:1],
    )  # fmt: skip
    if kind == "none":  # linear behind the dropped values
        start = encode(flat, TOKENS)
        many = jax.random.split(jax.random.key(1), 4000)
        run = lambda key: decode(flat, start, TARGETS, dropout=0.3, key=key)[1]
        mean = jax.jit(jax.vmap(run))(many).mean(0)
        np.testing.assert_allclose(mean, decode(flat, start, TARGETS)[1], atol=0.08)


ALL = 1 - 1e-12  # a rate at which every value is dropped


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_the_encoder_drops(cell):
    """Embeddings, what goes between layers, and the outputs."""
    params = make("luong", cell)
    read = partial(encode, tokens=TOKENS, lengths=LENGTHS)
    found = read(params, dropout=ALL, key=jax.random.key(0))
    upper = tuple(p._replace(w_x=0 * p.w_x) for p in params.encoder[1])
    deaf = params._replace(source=0 * params.source)
    assert_close(found.layers[0], read(deaf).layers[0])
    deaf = deaf._replace(encoder=(deaf.encoder[0], upper))
    assert_close(found.layers, read(deaf).layers)
    assert not found.memory.values.any()
    plain = read(params)
    assert plain.memory.values.any()
    for i in range(2):
        here, there = (jax.tree.leaves(s.layers[i])[0] for s in (found, plain))
        assert (here != there).any()


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong", "luong fed"])
def test_what_the_decoder_drops(kind):
    """Embeddings, what goes between layers, and what the logits are read from."""
    params = make(kind)
    state = encode(params, TOKENS, lengths=LENGTHS)
    write = partial(decode, state=state, tokens=TARGETS)
    end, logits, _ = write(params, dropout=ALL, key=jax.random.key(0))
    assert_close(logits, np.broadcast_to(params.b_o, logits.shape))
    below, above = params.decoder
    deaf = params._replace(target=0 * params.target)
    deaf = deaf._replace(decoder=(below, above._replace(w_x=0 * above.w_x)))
    assert_close(end, write(deaf)[0])
    for i in range(2):
        assert (end.layers[i].h != write(params)[0].layers[i].h).any()


def test_each_step_drops_by_a_mask_of_its_own():
    """Where every step has the same inputs and no memory, all else is the same."""
    params = make("bahdanau general", "rnn")
    params = params._replace(
        target=0 * params.target,
        decoder=tuple(p._replace(w_h=0 * p.w_h) for p in params.decoder),
        attention=params.attention._replace(score=0 * params.attention.score),
    )
    state = encode(params, TOKENS)
    how = {"dropout": 0.5, "key": jax.random.key(0)}
    write = partial(decode, params, state, **how)
    one, two = (write(TARGETS[..., :n])[0].layers for n in (1, 2))
    assert_close(one[0], two[0])
    assert (one[1] != two[1]).any()


def test_gradients_in_bfloat16():
    params = make("luong", "rnn", layers=1, bidirectional=False)
    narrow = to_jax(params, jnp.bfloat16)

    def loss(params):
        state = encode(params, TOKENS, lengths=LENGTHS)
        _, logits, _ = jaxseq.seq2seq_decode(params, state, TARGETS)
        return jaxseq.cross_entropy(logits, TARGETS).sum()

    exact = jax.tree.map(lambda w: np.asarray(w, np.float64), narrow)
    grad = jax.jit(jax.grad(loss))
    found, want = grad(narrow), grad(exact)
    for a, b in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        error = np.linalg.norm(np.asarray(a, float) - b)
        assert a.dtype == jnp.bfloat16 and error < 0.1 * np.linalg.norm(b)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong fed"])
def test_dtypes(kind, dtype):
    params = make(kind)
    want_state = encode(params, TOKENS, lengths=LENGTHS)
    want = decode(params, want_state, TARGETS)[1]
    narrow = to_jax(params, dtype)
    state = encode(narrow, TOKENS, lengths=LENGTHS)
    assert state.layers[0].h.dtype == jnp.float32
    _, logits, _ = decode(narrow, state, TARGETS)
    assert logits.dtype == dtype
    error = abs(np.asarray(logits, float) - want).max()
    assert error < 60 * float(jnp.finfo(dtype).eps)
    _, one = decode_step(narrow, state, TARGETS[..., 0])
    assert one.dtype == dtype


def test_init():
    make = partial(jaxseq.seq2seq_init, jax.random.key(0), 1000, 500, 64, 32)
    params = make(layers=2)
    assert params.source.shape == (1000, 64) and params.target.shape == (500, 64)
    assert float(params.source.std()) == pytest.approx(1, rel=0.02)
    assert params.decoder[0].w_x.shape == (64 + 64, 4 * 32)
    assert params.attention.w.shape == (32 + 64 + 64, 2 * 32)
    other = jaxseq.seq2seq_init(jax.random.key(1), 1000, 500, 64, 32, layers=2)
    drawn = [w for w in jax.tree.leaves(params) if w.ndim == 2]
    again = [w for w in jax.tree.leaves(other) if w.ndim == 2]
    assert all((a != b).any() for a, b in zip(drawn, again, strict=True))
    shapes = {}
    for w in drawn:  # no two from one key
        assert not any((w == v).all() for v in shapes.setdefault(w.shape, []))
        shapes[w.shape].append(w)
    assert jaxseq.seq2seq_init(jax.random.key(0), 9, None, 4, 4).target is None
    fed = make(attention="luong", feed=True, A=24)
    assert fed.decoder[0].w_x.shape == (64 + 24, 4 * 32)


@pytest.mark.parametrize("attention", ["bahdanau", "luong"])
def test_init_of_scores(attention):
    make = partial(jaxseq.seq2seq_init, jax.random.key(0), 9, 7, 3, 8)
    init = lambda **how: jax.eval_shape(partial(make, attention=attention, **how))
    scored = lambda **options: init(**options).attention.score
    shapes = lambda score: jax.tree.map(lambda w: w.shape, score)
    additive = jaxseq.AdditiveParams((8, 8), (16, 8), (8,))
    assert shapes(scored(score="additive")) == additive
    narrow = jaxseq.AdditiveParams((8, 6), (16, 6), (6,))
    assert shapes(scored(score="additive", A=6)) == narrow
    one_way = jaxseq.AdditiveParams((8, 8), (8, 8), (8,))
    assert shapes(scored(score="additive", bidirectional=False)) == one_way
    assert scored(score="general").shape == (8, 16)
    assert shapes(scored()) == (additive if attention == "bahdanau" else (8, 16))
    for heads, options in ((4, {}), (2, {"heads": 2})):
        many = scored(score="multi_head", **options)
        assert isinstance(many, jaxseq.MultiHeadParams)
        A = 8 // heads
        assert many.w_q.shape == (8, heads, A)
        assert many.w_k.shape == many.w_v.shape == (16, heads, A)
        assert many.w_o.shape == (heads, A, 16) and many.b_o.shape == (16,)
    for score, kind in (("dot", jaxseq.Dot), ("scaled_dot", jaxseq.ScaledDot)):
        assert type(scored(score=score, bidirectional=False)) is kind
    A, kind = {"bahdanau": (16, jaxseq.BahdanauParams)}.get(
        attention, (8, jaxseq.LuongParams)
    )
    assert type(init().attention) is kind and init().attention.w.shape[1] == A
    assert type(init().decoder[0]) is jaxseq.LSTMParams and len(init().encoder[0]) == 2


def test_bad_states():
    params, fed, bare = make("bahdanau"), make("luong fed"), make("none")
    state, of_fed, of_bare = (encode(p, TOKENS) for p in (params, fed, bare))
    feed = lambda state: state._replace(feed=of_fed.feed)
    short = jax.tree.map(lambda a: a[:1], state)
    mixed = state._replace(memory=short.memory)
    cases = [
        (params, state.layers, "state: expected Seq2SeqState, got tuple"),
        (params, state._replace(layers=state.layers * 2), "state: expected states of"),
        (params, state._replace(memory=None), "state: expected a memory, got no"),
        (params, feed(state), "state: expected no feed, got a feed"),
        (fed, of_fed._replace(feed=None), "state: expected a feed, got no feed"),
        (bare, of_bare._replace(memory=state.memory), "state: expected no memory"),
        (params, mixed, r"state: expected arrays that start .* \(2, 2\), got \(1, 2"),
        (params, short, r"(tokens: expected .* \(1, 2, 3\)|token: .* \(1, 2\)), got"),
    ]
    for weights, wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            jaxseq.seq2seq_decode(weights, wrong, TARGETS)
        with pytest.raises(ValueError, match=message):
            jaxseq.seq2seq_decode_step(weights, wrong, TARGETS[..., 0])


def test_bad_arguments():
    init = partial(jaxseq.seq2seq_init, jax.random.key(0), SOURCE, TARGET, E)
    params = make("bahdanau")
    encode = partial(jaxseq.seq2seq_encode, params)
    state = encode(TOKENS)
    decode = partial(jaxseq.seq2seq_decode, params, state)
    step = partial(jaxseq.seq2seq_decode_step, params, state)
    cases = [
        (lambda: init(0), "H: expected a size"),
        (lambda: init(H, attention="local"), "attention: expected one of"),
        (lambda: init(H, score="bilinear"), "score: expected one of"),
        (lambda: init(H, feed=True), "feed: expected False"),
        (lambda: init(H, attention="luong", score="dot"), "score: expected not"),
        (lambda: init(H, score="multi_head", heads=4), "heads: expected a divisor"),
        (lambda: init(H, dtype=jnp.int32), "dtype: expected"),
        (lambda: encode(TOKENS + SOURCE), "tokens: expected tokens from 0 to 10"),
        (lambda: encode(TOKENS * 1.0), "tokens: expected an integer dtype"),
        (lambda: encode(np.int32(1)), r"tokens: expected shape \(..., S\)"),
        (lambda: encode(TOKENS, lengths=LENGTHS + 1), "lengths: expected values"),
        (lambda: encode(TOKENS, dropout=0.1), "key: expected a random key"),
        (lambda: encode(TOKENS, dropout=1.0), "dropout: expected a probability"),
        (lambda: decode(TARGETS - 1), "tokens: expected tokens from 0 to 8"),
        (lambda: decode(TARGETS, dropout=0.1), "key: expected a random key"),
        (lambda: step(TARGETS[..., 0] + TARGET), "token: expected tokens from 0 to 8"),
        (
            lambda: jaxseq.seq2seq_encode(params.decoder, TOKENS),
            "params: expected Seq2SeqParams, got tuple",
        ),
    ]  # fmt: skip
    for run, message in cases:
        with pytest.raises(ValueError, match=message):
            run()
