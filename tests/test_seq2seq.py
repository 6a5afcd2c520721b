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
SIZES = {
    "source_vocab": SOURCE, "target_vocab": TARGET,
    "embed_features": E, "hidden_features": H,
}  # fmt: skip
# attention, score, input feeding
KINDS = {
    "none": {"attention": None},
    "bahdanau": {},
    "bahdanau general": {"score": "general"},
    "bahdanau multi-head": {
        "score": "multi_head", "attention_features": 8, "num_heads": 2,
    },
    "luong": {"attention": "luong"},
    "luong concat": {"attention": "luong", "score": "additive"},
    "luong dot": {"attention": "luong", "score": "dot", "bidirectional": False},
    "luong scaled dot": {
        "attention": "luong", "score": "scaled_dot", "bidirectional": False,
    },
    "luong fed": {"attention": "luong", "feed": True},
    "luong concat fed": {"attention": "luong", "score": "additive", "feed": True},
    "luong multi-head fed": {
        "attention": "luong", "score": "multi_head", "attention_features": 8,
        "feed": True,
    },
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, cell="lstm", *, seed=0, **options):
    """Weights in which no bias is zero, of the shapes that `seq2seq_init` gives."""
    init = partial(jaxseq.seq2seq_init, dtype=jnp.float64, cell=CELLS[cell][0])
    width = {} if kind == "none" else {"attention_features": A}
    options = {**SIZES, "num_layers": 2, **width, **KINDS[kind], **options}
    return drawn(partial(init, **options), seed=seed)


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
    state = encode(params, TOKENS, source_lengths=LENGTHS)
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


@pytest.mark.every(2)
@every_kind
def test_equations(kind):
    check(kind, "lstm")


@pytest.mark.every(5)
@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong", "luong fed"])
@pytest.mark.parametrize("cell", ["rnn", "gru"])
@pytest.mark.parametrize("layers", [1, 3])
def test_cells_and_depth(kind, cell, layers):
    check(kind, cell, num_layers=layers)


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong fed"])
def test_one_direction_and_one_vocabulary(kind):
    check(kind, "lstm", bidirectional=False, target_vocab=None)


@every_kind
def test_steps_are_the_whole(kind):
    params = make(kind)
    state = encode(params, TOKENS, source_lengths=LENGTHS)
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
        state = encode(params, tokens, source_lengths=LENGTHS)
        found.append(decode(params, state, TARGETS)[1])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_eager_calls_equal_compiled_ones():
    params, inside = make("luong fed"), np.arange(S) < LENGTHS[..., None]
    tokens = np.where(inside, TOKENS, SOURCE + 100)  # of padding no check is made
    state = encode(params, tokens, source_lengths=LENGTHS)
    assert_close(state, jax.jit(encode)(params, TOKENS, source_lengths=LENGTHS))
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
        for how in ({}, {"source_lengths": LENGTHS}):
            with pytest.raises(ValueError, match=r"source: expected tokens .* 42949"):
                encode(wrong, **how)
        encode(right, source_lengths=LENGTHS)


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
    params = make(kind, "gru", num_layers=1)

    def loss(params):
        state = encode(params, TOKENS, source_lengths=LENGTHS)
        _, logits, _ = jaxseq.seq2seq_decode(params, state, TARGETS)
        return jaxseq.cross_entropy(logits, TARGETS).sum()

    grads = assert_gradients(loss, (params,), rtol=1e-6)
    assert all(np.any(g) for g in jax.tree.leaves(grads))


@pytest.mark.every(3)
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
    params = jaxseq.seq2seq_init(
        jax.random.key(0), source_vocab=TARGET, target_vocab=TARGET,
        embed_features=16, hidden_features=32, cell=CELLS[cell][0], **KINDS[kind],
    )  # fmt: skip

    def loss(params):
        state = encode(params, words, source_lengths=lengths)
        _, logits, _ = decode(params, state, inputs)
        losses = jaxseq.cross_entropy(logits, targets, lengths=lengths + 1)
        return losses.sum() / (lengths + 1).sum()

    params, values = fit(loss, params, rate=1e-2, steps=150)
    assert values[-1] < 0.05 < 1 < values[0]

    @jax.jit
    def written(params):
        state = encode(params, words, source_lengths=lengths)
        args = partial(jaxseq.seq2seq_decode_step, params), state, np.full(N, START)
        how = {"max_length": 5, "end": END}
        return jaxseq.greedy(*args, **how), jaxseq.beam_search(*args, **how, beam=3)

    found, beams = written(params)
    np.testing.assert_array_equal(found.tokens, targets)
    np.testing.assert_array_equal(beams.tokens[:, 0], targets)


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong fed"])
def test_dropout(kind):
    params = make(kind)
    read = partial(encode, params, TOKENS, source_lengths=LENGTHS)
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
    read = partial(encode, source=TOKENS, source_lengths=LENGTHS)
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
    state = encode(params, TOKENS, source_lengths=LENGTHS)
    write = partial(decode, state=state, inputs=TARGETS)
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
    params = make("luong", "rnn", num_layers=1, bidirectional=False)
    narrow = to_jax(params, jnp.bfloat16)

    def loss(params):
        state = encode(params, TOKENS, source_lengths=LENGTHS)
        _, logits, _ = jaxseq.seq2seq_decode(params, state, TARGETS)
        return jaxseq.cross_entropy(logits, TARGETS).sum()

    exact = jax.tree.map(lambda w: np.asarray(w, np.float64), narrow)
    grad = jax.jit(jax.grad(loss))
    found, want = grad(narrow), grad(exact)
    for a, b in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        error = np.linalg.norm(np.asarray(a, float) - b)
        assert a.dtype == jnp.bfloat16 and error < 0.1 * np.linalg.norm(b)


@pytest.mark.every(2)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong fed"])
def test_dtypes(kind, dtype):
    params = make(kind)
    want_state = encode(params, TOKENS, source_lengths=LENGTHS)
    want = decode(params, want_state, TARGETS)[1]
    narrow = to_jax(params, dtype)
    state = encode(narrow, TOKENS, source_lengths=LENGTHS)
    assert state.layers[0].h.dtype == jnp.float32
    _, logits, _ = decode(narrow, state, TARGETS)
    assert logits.dtype == dtype
    error = abs(np.asarray(logits, float) - want).max()
    assert error < 60 * float(jnp.finfo(dtype).eps)
    _, one = decode_step(narrow, state, TARGETS[..., 0])
    assert one.dtype == dtype


def test_init():
    sizes = {"source_vocab": 1000, "embed_features": 64, "hidden_features": 32}
    init = partial(jaxseq.seq2seq_init, **sizes)
    make = partial(init, jax.random.key(0), target_vocab=500)
    params = make(num_layers=2)
    assert params.source.shape == (1000, 64) and params.target.shape == (500, 64)
    assert float(params.source.std()) == pytest.approx(1, rel=0.02)
    assert params.decoder[0].w_x.shape == (64 + 64, 4 * 32)
    assert params.attention.w.shape == (32 + 64 + 64, 2 * 32)
    other = init(jax.random.key(1), target_vocab=500, num_layers=2)
    drawn = [w for w in jax.tree.leaves(params) if w.ndim == 2]
    again = [w for w in jax.tree.leaves(other) if w.ndim == 2]
    assert all((a != b).any() for a, b in zip(drawn, again, strict=True))
    shapes = {}
    for w in drawn:  # no two from one key
        assert not any((w == v).all() for v in shapes.setdefault(w.shape, []))
        shapes[w.shape].append(w)
    assert init(jax.random.key(0)).target is None
    fed = make(attention="luong", feed=True, attention_features=24)
    assert fed.attention.feeding == jaxseq.InputFeeding()
    assert make(attention="luong").attention.feeding is None
    assert fed.decoder[0].w_x.shape == (64 + 24, 4 * 32)


@pytest.mark.parametrize("attention", ["bahdanau", "luong"])
def test_init_of_scores(attention):
    sizes = {"source_vocab": 9, "target_vocab": 7, "embed_features": 3}
    sizes["hidden_features"] = 8
    make = partial(jaxseq.seq2seq_init, jax.random.key(0), **sizes)
    init = lambda **how: jax.eval_shape(partial(make, attention=attention, **how))
    scored = lambda **options: init(**options).attention.score
    shapes = lambda score: jax.tree.map(lambda w: w.shape, score)
    additive = jaxseq.AdditiveParams((8, 8), (16, 8), (8,))
    assert shapes(scored(score="additive")) == additive
    narrow = jaxseq.AdditiveParams((8, 6), (16, 6), (6,))
    assert shapes(scored(score="additive", attention_features=6)) == narrow
    one_way = jaxseq.AdditiveParams((8, 8), (8, 8), (8,))
    assert shapes(scored(score="additive", bidirectional=False)) == one_way
    assert scored(score="general").shape == (8, 16)
    assert shapes(scored()) == (additive if attention == "bahdanau" else (8, 16))
    for heads, options in ((4, {}), (2, {"num_heads": 2})):
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
    memory = lambda **parts: state._replace(memory=state.memory._replace(**parts))
    f32 = lambda tree: jax.tree.map(lambda a: a.astype("f4"), tree)
    half = lambda tree: jax.tree.map(lambda a: a[..., :2], tree)
    cases = [
        (params, state.layers, "state: expected Seq2SeqState, got tuple"),
        (params, state._replace(layers=state.layers * 2), "state: expected states of"),
        (params, state._replace(layers=[*state.layers]), "state: expected states of"),
        (params, state._replace(memory=None), "state: expected a memory, got no"),
        (params, feed(state), "state: expected no feed, got a feed"),
        (fed, of_fed._replace(feed=None), "state: expected a feed, got no feed"),
        (fed, of_fed._replace(feed=of_fed.feed[..., :2]), r"state\.feed: expected sha"),
        (bare, of_bare._replace(memory=state.memory), "state: expected no memory"),
        (params, mixed, r"state\.memory\.values: .* \(2, 2, 3, 12\), got \(1, 2, 3"),
        (params, memory(keys=None), r"state\.memory\.keys: expected an array, got No"),
        (params, memory(valid=LENGTHS), r"state\.memory\.valid: expected shape"),
        (params, memory(values="a"), r"state\.memory\.values: expected an array"),
        (params, half(state), r"state\.layers\[0\]\.h: expected shape \(2, 2, 6\)"),
        (params, f32(state), r"state\.layers\[0\]\.h: expected dtype float64"),
        (
            params,
            state._replace(memory=f32(state.memory)),
            r"state\.memory\.values: expected dtype float64, got float32",
        ),
        (params, short, r"(inputs: expected .* \(1, 2, 3\)|token: .* \(1, 2\)), got"),
    ]
    for weights, wrong, message in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            jaxseq.seq2seq_decode(weights, wrong, TARGETS)
        with pytest.raises(ValueError, match=f"^{message}"):
            jaxseq.seq2seq_decode_step(weights, wrong, TARGETS[..., 0])


def test_bad_sizes_and_options():
    init = partial(jaxseq.seq2seq_init, jax.random.key(0))
    wrong = lambda **options: lambda: init(**{**SIZES, **options})
    luong = {"attention": "luong"}
    cases = [
        (wrong(hidden_features=0), "hidden_features: expected a size"),
        (wrong(embed_features=True), "embed_features: expected a size"),
        (wrong(embed_features="4"), "embed_features: expected a size .*, got '4'"),
        (wrong(source_vocab=None), "source_vocab: expected a size"),
        (wrong(target_vocab=0), "target_vocab: expected a size"),
        (wrong(num_layers=[2]), "num_layers: expected a size"),
        (wrong(attention="local"), "attention: expected one of"),
        (wrong(score="bilinear"), "score: expected one of"),
        (wrong(score=True), "score: expected one of"),
        (wrong(attention=None, score="dot"), "score: expected None with no attention"),
        (
            wrong(attention=None, attention_features=4),
            "attention_features: expected None with no attention",
        ),
        (wrong(attention_features=0), "attention_features: expected a size"),
        (wrong(feed=True), 'feed: expected False without attention "luong"'),
        (wrong(feed=None, **luong), "feed: expected True or False"),
        (wrong(feed=1, **luong), "feed: expected True or False"),
        (wrong(bidirectional="x"), "bidirectional: expected True or False"),
        (wrong(score="dot", **luong), "score: expected not"),
        (wrong(score="multi_head", num_heads=4), "num_heads: expected a divisor"),
        (wrong(score="multi_head", num_heads=0), "num_heads: expected a size"),
        (wrong(num_heads=2), 'num_heads: expected None without score "multi_head"'),
        (wrong(cell="lstm"), "cell: expected a Cell, got str"),
        (wrong(cell=jaxseq.lstm), "cell: expected a Cell, got function"),
        (wrong(cell=None), "cell: expected a Cell, got NoneType"),
        (wrong(dtype=jnp.int32), "dtype: expected"),
        (wrong(dtype="abc"), "dtype: expected"),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            run()


def test_bad_weights():
    """Each is named by where it stands."""
    params, fed = make("bahdanau"), make("luong fed")
    below, above = params.decoder
    f32 = lambda tree: jax.tree.map(lambda a: np.asarray(a, "f4"), tree)
    of_score = lambda score: params._replace(
        attention=params.attention._replace(score=score)
    )
    unfed = fed._replace(attention=fed.attention._replace(feeding=None))
    additive = params.attention.score
    cases = [
        (params.decoder, "params: expected Seq2SeqParams, got tuple"),
        (params._replace(decoder=()), r"params\.decoder: .*, got one of 0"),
        (params._replace(decoder=[below, above]), r"params\.decoder: .*, got list"),
        (params._replace(encoder=[*params.encoder]), r"params\.encoder: .*, got list"),
        (
            params._replace(encoder=tuple(map(list, params.encoder))),
            r"params\.encoder\[0\]: expected a tuple of cells, got list",
        ),
        (
            params._replace(encoder=params.encoder[:1]),
            r"params\.encoder: expected a tuple of 2 layers, as in .*, got one of 1",
        ),
        (params._replace(decoder=(below, "lstm")), r"params\.decoder\[1\]: expected"),
        (
            params._replace(decoder=(below, f32(above))),
            r"params\.decoder\[1\]\.w_x: ",
        ),
        (params._replace(decoder=(above, above)), r"params\.decoder\[0\]\.w_x: expect"),
        (unfed, r"params\.decoder\[0\]\.w_x: expected a map of 4 inputs, got \(9, 24"),
        (params._replace(source=None), r"params\.source: expected an array, got NoneT"),
        (params._replace(target=params.source[:, :3]), r"params\.target: expected sha"),
        (params._replace(w_o=f32(params.w_o)), r"params\.w_o: expected dtype float64"),
        (params._replace(b_o=params.w_o), r"params\.b_o: expected shape \(9,\)"),
        (
            params._replace(bridge=params.bridge[:1]),
            r"params\.bridge: expected a tuple",
        ),
        (
            params._replace(bridge=(params.bridge[0], params.bridge[0]._replace(b=3))),
            r"params\.bridge\[1\]\.b: expected shape \(12,\)",
        ),
        (params._replace(attention="luong"), r"params\.attention: expected an arr"),
        (params._replace(attention=params.w_o), r"params\.attention: expected Bah"),
        (of_score(additive.w_q), r"params\.attention\.score: expected shape \(6, 12\)"),
        (of_score(jaxseq.Dot()), r"params\.attention\.score: expected another"),
        (
            of_score(additive._replace(w_k=additive.w_q)),
            r"params\.attention\.score\.w_k: expected shape \(12, 5\)",
        ),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            jaxseq.seq2seq_encode(wrong, TOKENS)


def test_bad_arguments():
    params = make("bahdanau")
    encode = partial(jaxseq.seq2seq_encode, params)
    state = encode(TOKENS)
    decode = partial(jaxseq.seq2seq_decode, params, state)
    step = partial(jaxseq.seq2seq_decode_step, params, state)
    cases = [
        (lambda: encode(TOKENS + SOURCE), "source: expected tokens from 0 to 10"),
        (lambda: encode(TOKENS * 1.0), "source: expected an integer dtype"),
        (lambda: encode(None), "source: expected an array, got None"),
        (lambda: encode("abc"), "source: expected an array"),
        (lambda: encode(np.int32(1)), r"source: expected shape \(..., S\)"),
        (lambda: encode(TOKENS, source_lengths=LENGTHS + 1), "source_lengths: expect"),
        (lambda: encode(TOKENS, source_lengths="abc"), "source_lengths: exp"),
        (lambda: encode(TOKENS, dropout=0.1), "key: expected a random key"),
        (lambda: encode(TOKENS, dropout=1.0), "dropout: expected a probability"),
        (lambda: encode(TOKENS, dropout=None), "dropout: expected a probability"),
        (lambda: encode(TOKENS, cell="lstm"), "cell: expected a Cell, got str"),
        (lambda: encode(TOKENS, cell=jaxseq.lstm), "cell: expected a Cell"),
        (lambda: decode(TARGETS - 1), "inputs: expected tokens from 0 to 8"),
        (lambda: decode(None), "inputs: expected an array"),
        (lambda: decode(TARGETS, dropout=0.1), "key: expected a random key"),
        (lambda: step(TARGETS[..., 0] + TARGET), "token: expected tokens from 0 to 8"),
        (lambda: step(None), "token: expected an array"),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            run()
