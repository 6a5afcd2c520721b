"""The modules of attention and of whole models: equal to the functions, trainable."""

import inspect
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxseq
import jaxseq.nn
from tests.cells import assert_close

B, S, T, Q, K, V = 2, 5, 3, 4, 6, 8
RNG = np.random.default_rng(0)
QUERY, KEYS, VALUES = (
    RNG.standard_normal(shape) for shape in ((B, T, Q), (B, S, K), (B, S, V))
)
LENGTHS = np.array([5, 2])
MASK = np.arange(S) != np.arange(T)[:, None] + np.zeros((B, 1, 1), int)
TOKENS = RNG.integers(0, 9, (B, S))
TARGETS = RNG.integers(0, 7, (B, T))
F64 = {"param_dtype": jnp.float64}
# Compiled, and once for all tests that have the same shapes.
call = nnx.jit(lambda model, *args, **how: model(*args, **how))
encode = nnx.jit(lambda model, *args, **how: model.encode(*args, **how))
decode = nnx.jit(lambda model, *args, **how: model.decode(*args, **how))
decode_step = nnx.jit(lambda model, *args: model.decode_step(*args))


@cache
def compiled(function):
    takes = inspect.signature(function).parameters
    return jax.jit(
        function, static_argnames="activation" if "activation" in takes else ()
    )


def test_attention():
    nn, how = jaxseq.nn, {"lengths": LENGTHS, "mask": MASK}
    rngs = lambda: nnx.Rngs(0)
    additive = nn.AdditiveAttention(Q, K, 7, **F64, rngs=rngs())
    want = jaxseq.additive_attention(additive.params, QUERY, KEYS, VALUES, **how)
    assert_close(additive(QUERY, KEYS, VALUES, **how), want)
    general = nn.GeneralAttention(Q, K, **F64, rngs=rngs())
    want = jaxseq.general_attention(general.params, QUERY, KEYS, VALUES, **how)
    assert_close(general(QUERY, KEYS, VALUES, **how), want)
    widths = {"key_features": K, "value_features": V, "out_features": 5}
    heads = nn.MultiHeadAttention(Q, 2, **widths, **F64, rngs=rngs())
    want = jaxseq.multi_head_attention(heads.params, QUERY, KEYS, VALUES, **how)
    assert_close(heads(QUERY, KEYS, VALUES, **how), want)
    self_attention = nn.MultiHeadAttention(Q, 2, bias=False, **F64, rngs=rngs())
    assert self_attention.params.b_q is None
    want = jaxseq.multi_head_attention(self_attention.params, QUERY, causal=True)
    assert_close(self_attention(QUERY, causal=True), want)
    assert len(jax.tree.leaves(nnx.state(heads, nnx.Param))) == 8
    grouped = nn.MultiHeadAttention(Q, 4, num_kv_heads=2, **F64, rngs=rngs())
    assert grouped.params.w_k.shape == grouped.params.w_v.shape == (Q, 2, 1)
    near = {"mask": MASK[0, :, :T], "window": 2}
    want = jaxseq.multi_head_attention(grouped.params, QUERY, **near)
    assert_close(grouped(QUERY, **near), want)
    with pytest.raises(ValueError, match="implementation: expected None for float64"):
        grouped(QUERY, implementation="xla")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_attention_in_the_dtype_of_the_queries(dtype):
    """Without a dtype of the module, whose weights are float32."""
    nn, rngs = jaxseq.nn, nnx.Rngs(0)
    query, keys = jnp.asarray(QUERY, dtype), jnp.asarray(KEYS, dtype)
    heads = nn.MultiHeadAttention(Q, 2, key_features=K, rngs=rngs)
    for module, function in (
        (nn.AdditiveAttention(Q, K, 7, rngs=rngs), jaxseq.additive_attention),
        (nn.GeneralAttention(Q, K, rngs=rngs), jaxseq.general_attention),
        (heads, jaxseq.multi_head_attention),
    ):
        params = jax.tree.map(lambda w: w.astype(dtype), module.params)
        found = module(query, keys)
        assert found[0].dtype == dtype
        assert_close(found, function(params, query, keys))
    with pytest.raises(ValueError, match="query: expected a dtype among"):
        nn.GeneralAttention(Q, K, rngs=rngs)(query.astype(int), keys)


def test_weights_of_attention():
    nn, rngs = jaxseq.nn, nnx.Rngs(0)
    shapes = lambda module: jax.tree.map(jnp.shape, module.params)
    additive = nn.AdditiveAttention(Q, K, 7, rngs=rngs)
    assert shapes(additive) == jaxseq.AdditiveParams((Q, 7), (K, 7), (7,))
    assert shapes(nn.GeneralAttention(Q, K, rngs=rngs)) == (Q, K)
    biases = [(2, 2)] * 3
    own = shapes(nn.MultiHeadAttention(Q, 2, rngs=rngs))
    assert list(own) == [(Q, 2, 2)] * 3 + [(2, 2, Q), *biases, (Q,)]
    widths = {"key_features": K, "out_features": 5}
    other = shapes(nn.MultiHeadAttention(Q, 2, **widths, rngs=rngs))
    maps = [(Q, 2, 2), (K, 2, 2), (K, 2, 2), (2, 2, 5)]
    assert list(other) == [*maps, *biases, (5,)]
    third = shapes(nn.MultiHeadAttention(Q, 1, **widths, value_features=V, rngs=rngs))
    assert third.w_v == (V, 1, Q)
    narrow = nn.GeneralAttention(Q, K, param_dtype=jnp.float16, rngs=rngs)
    assert narrow.params.dtype == jnp.float16


def test_what_the_options_of_attention_hide():
    nn, rngs = jaxseq.nn, nnx.Rngs(0)
    modules = (
        nn.AdditiveAttention(Q, K, 7, **F64, rngs=rngs),
        nn.GeneralAttention(Q, K, **F64, rngs=rngs),
        nn.MultiHeadAttention(Q, 2, key_features=K, **F64, rngs=rngs),
    )
    outside = np.arange(S) >= LENGTHS[:, None]
    for module in modules:
        by_head = lambda a: a if a.ndim == 3 else a[:, 0]
        _, weights = module(QUERY, KEYS, lengths=LENGTHS)
        np.testing.assert_array_equal(by_head(weights)[:, 0] == 0, outside)
        _, weights = module(QUERY, KEYS, mask=MASK)
        np.testing.assert_array_equal(by_head(weights) != 0, MASK)
    own = nn.MultiHeadAttention(Q, 2, **F64, rngs=rngs)
    _, weights = own(QUERY, causal=True)
    later = np.arange(T) > np.arange(T)[:, None]
    assert not weights[..., later].any() and weights[..., ~later].all()
    assert own(QUERY)[1].all()


def seq2seq(**options):
    sizes = {"source_vocab": 9, "target_vocab": 7, "embed_features": 4}
    sizes |= {"hidden_features": 6, **F64, **options}
    return jaxseq.nn.Seq2Seq(**sizes, rngs=nnx.Rngs(0))


def transformer(**options):
    sizes = {"features": 8, "num_heads": 2, "ff_features": 12}
    sizes |= {"source_vocab": 9, "target_vocab": 7}
    sizes |= {"num_encoder_layers": 1, "num_decoder_layers": 2, **F64, **options}
    return jaxseq.nn.Transformer(**sizes, rngs=nnx.Rngs(0))


ALONE = {"source_vocab": None, "num_encoder_layers": 0}


def test_seq2seq():
    model = seq2seq(
        attention="luong", score="multi_head", feed=True, num_layers=2,
        attention_features=8, num_heads=2, cell=jaxseq.GRU, bidirectional=False,
    )  # fmt: skip
    params = model.params
    assert len(params.decoder) == 2 and params.decoder[0].w_x.shape == (4 + 8, 18)
    lengths = {"source_lengths": LENGTHS}
    state = compiled(jaxseq.seq2seq_encode)(params, TOKENS, **lengths)
    assert_close(encode(model, TOKENS, **lengths), state)
    want = compiled(jaxseq.seq2seq_decode)(params, state, TARGETS)
    assert_close(decode(model, state, TARGETS), want)
    assert_close(call(model, TOKENS, TARGETS, **lengths), want[1])
    assert_close(
        decode_step(model, state, TARGETS[:, 0]),
        compiled(jaxseq.seq2seq_decode_step)(params, state, TARGETS[:, 0]),
    )


def test_transformer():
    model = transformer(
        positions="learned", max_positions=6, pre_norm=False, final_norm=True,
        epsilon=1e-3, tied=False, activation=jnp.tanh,
    )  # fmt: skip
    params, how = model.params, {"activation": jnp.tanh}
    assert params.w_o.shape == (8, 7) and params.decoder.norm is not None
    assert params.decoder.layout == jaxseq.NormLayout(False, 1e-3)
    lengths = {"source_lengths": LENGTHS}
    memory = compiled(jaxseq.transformer_encode)(params, TOKENS, **lengths, **how)
    assert_close(encode(model, TOKENS, **lengths), memory)
    want = compiled(jaxseq.transformer_decode)(params, memory, TARGETS, **how)
    assert_close(decode(model, memory, TARGETS), want)
    assert_close(call(model, TOKENS, TARGETS, **lengths), want[1])
    assert model.decode(memory, TARGETS, room=5)[0].left == 2
    sliding = {"lengths": [3, 1], "window": 2}
    want = jax.jit(partial(jaxseq.transformer_decode, **sliding, **how))
    found = nnx.jit(partial(jaxseq.nn.Transformer.decode, **sliding))
    want = want(params, memory, TARGETS)
    assert_close(found(model, memory, TARGETS), want)
    found = nnx.jit(partial(jaxseq.nn.Transformer.__call__, **sliding))
    assert_close(found(model, TOKENS, TARGETS, **lengths), want[1])
    state = jaxseq.transformer_zeros(params, memory, window=2)
    assert_close(model.zeros(memory, window=2), state)
    state = jaxseq.transformer_zeros(params, memory, room=4)
    assert_close(model.zeros(memory, room=4), state)
    token = TARGETS[:, 0]
    want = compiled(jaxseq.transformer_decode_step)(params, state, token, **how)
    assert_close(decode_step(model, state, token), want)
    alone = transformer(**ALONE)
    want = compiled(jaxseq.transformer_decode)(alone.params, None, TARGETS)[1]
    assert_close(call(alone, None, TARGETS), want)
    assert alone.zeros(batch=3, room=2).position.shape == (3,)


@pytest.mark.parametrize("make", [seq2seq, transformer])
def test_one_loop_for_both(make):
    """What encodes, decodes and goes on is called in the same way."""
    model = make()
    encoded = encode(model, TOKENS, source_lengths=LENGTHS)
    state, logits, weights = decode(model, encoded, TARGETS)
    assert_close(logits, call(model, TOKENS, TARGETS, source_lengths=LENGTHS))
    for w in jax.tree.leaves(weights):
        assert (w.shape[0], *w.shape[-2:]) == (B, T, S)
    assert all(a.shape[0] == B for a in jax.tree.leaves(state))


def test_weights_of_seq2seq():
    """The embeddings are 4 wide, states 6, the vocabularies 9 and 7 tokens."""
    plain = seq2seq().params
    assert plain.source.shape == (9, 4) and plain.target.shape == (7, 4)
    assert isinstance(plain.attention, jaxseq.BahdanauParams)
    score = jax.tree.map(jnp.shape, plain.attention.score)
    assert score == jaxseq.AdditiveParams((6, 6), (12, 6), (6,))
    assert len(plain.encoder) == len(plain.decoder) == 1 and len(plain.encoder[0]) == 2
    assert isinstance(plain.decoder[0], jaxseq.LSTMParams)
    assert plain.decoder[0].w_x.shape == (4 + 12, 24) and plain.w_o.shape == (6, 7)
    luong = {"attention": "luong", "attention_features": 8}
    one_way = seq2seq(
        **luong, score="dot", bidirectional=False, num_layers=2, cell=jaxseq.RNN
    ).params
    assert isinstance(one_way.attention, jaxseq.LuongParams)
    assert type(one_way.attention.score) is jaxseq.Dot
    assert [len(layer) for layer in one_way.encoder] == [1, 1]
    assert isinstance(one_way.encoder[1][0], jaxseq.RNNParams)
    assert one_way.decoder[0].w_x.shape == (4, 6) and len(one_way.decoder) == 2
    fed = seq2seq(**luong, score="multi_head", num_heads=2, feed=True).params
    assert fed.attention.score.w_q.shape == (6, 2, 4)
    assert fed.decoder[0].w_x.shape == (4 + 8, 24) and fed.w_o.shape == (8, 7)
    assert seq2seq(**luong, score="multi_head").params.attention.score.w_q.shape == (
        6, 4, 2,
    )  # fmt: skip
    assert seq2seq(attention=None).params.attention is None
    shared = seq2seq(target_vocab=None, param_dtype=jnp.float32).params
    assert shared.target is None and shared.w_o.shape == (6, 9)
    assert shared.w_o.dtype == jnp.float32


def test_weights_of_the_transformer():
    """It is 8 wide, of 2 heads, 12 between the maps."""
    plain = transformer().params
    layer = plain.encoder.layers[0]
    assert layer.w_1.shape == (8, 12) and layer.attention.w_q.shape == (8, 2, 4)
    assert plain.encoder.embed.shape == (9, 8) and plain.decoder.embed.shape == (7, 8)
    assert len(plain.encoder.layers) == 1 and len(plain.decoder.layers) == 2
    assert type(plain.positions) is jaxseq.Sinusoidal
    assert plain.encoder.norm is not None and plain.w_o is None
    other = transformer(
        num_encoder_layers=2, num_decoder_layers=1, positions="rotary", pre_norm=False,
        tied=False,
    ).params  # fmt: skip
    assert type(other.positions) is jaxseq.Rotary and other.w_o.shape == (8, 7)
    assert len(other.encoder.layers) == 2 and len(other.decoder.layers) == 1
    assert other.encoder.norm is None and other.decoder.norm is None
    learned = transformer(positions="learned", max_positions=6).params
    assert learned.positions.shape == (6, 8)
    alone = transformer(**ALONE).params
    assert alone.encoder is None and alone.decoder.layers[0].cross is None
    reader = transformer(num_decoder_layers=0, target_vocab=None)
    assert reader.params.decoder is None


def test_options_of_calls():
    """Activation and lengths reach every part."""
    model, other = transformer(), transformer(activation=jnp.tanh)
    assert model.activation is jax.nn.relu
    source = np.where(np.arange(S) < LENGTHS[:, None], TOKENS, (TOKENS + 1) % 9)
    memory = encode(model, TOKENS)
    state = model.zeros(memory, room=2)
    for run in (
        lambda m: encode(m, TOKENS).values,
        lambda m: decode(m, memory, TARGETS)[1],
        lambda m: decode_step(m, state, TARGETS[:, 0])[1],
    ):
        assert (run(model) != run(other)).any()
    for either in (model, seq2seq()):
        run = lambda tokens, model=either, **how: call(model, tokens, TARGETS, **how)
        cut = [run(tokens, source_lengths=LENGTHS) for tokens in (TOKENS, source)]
        np.testing.assert_array_equal(*cut)
        assert (run(TOKENS) != run(source)).any()


@pytest.mark.parametrize("make", [seq2seq, transformer])
def test_dropout_in_training_only(make):
    model = make(dropout=0.5)
    args = TOKENS, TARGETS
    assert (call(model, *args) != call(model, *args)).any()
    model.eval()
    assert_close(call(model, *args), call(model, *args))
    assert_close(call(model, *args), call(make(), *args))
    model.train()
    assert (call(model, *args) != call(model, *args)).any()


@pytest.mark.every(2)
@pytest.mark.parametrize("make", [seq2seq, transformer])
def test_trains(make):
    model = make(dropout=0.1)
    call = lambda m: m(TOKENS, TARGETS)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer):
            loss = lambda m: jaxseq.cross_entropy(call(m), TARGETS).mean()
            value, grads = nnx.value_and_grad(loss)(model)
            optimizer.update(model, grads)
            return value

        values = [float(step(model, optimizer)) for _ in range(40)]
    assert values[-1] < 0.3 * values[0]


@pytest.mark.parametrize("make", [seq2seq, transformer])
def test_dtype_and_split(make):
    model = make(dtype=jnp.bfloat16)
    assert model.params.decoder is not None
    args = TOKENS, TARGETS
    assert call(model, *args).dtype == jnp.bfloat16
    again = nnx.merge(*nnx.split(model))
    np.testing.assert_array_equal(call(again, *args), call(model, *args))
    query = jnp.asarray(QUERY, jnp.float32)
    heads = jaxseq.nn.MultiHeadAttention(Q, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert heads(query)[0].dtype == jnp.bfloat16


def test_bad_arguments():
    rngs, nn, whole = nnx.Rngs(0), jaxseq.nn, {"param_dtype": jnp.int32}
    additive, general = nn.AdditiveAttention, nn.GeneralAttention
    heads = nn.MultiHeadAttention
    cases = [
        (lambda: additive(0, 1, 1, rngs=rngs), "query_features: expected"),
        (lambda: additive(1, 0, 1, rngs=rngs), "key_features: expected"),
        (lambda: additive(1, 1, 0, rngs=rngs), "hidden_features: expected"),
        (lambda: additive(1, 1, 1, **whole, rngs=rngs), "param_dtype: expected"),
        (lambda: general(4, 4, **whole, rngs=rngs), "param_dtype: expected a dtype"),
        (lambda: heads(0, 2, rngs=rngs), "^features: expected a size"),
        (lambda: heads(4, 0, rngs=rngs), "num_heads: expected a size"),
        (lambda: heads(4, 4, num_kv_heads=3, rngs=rngs), "num_kv_heads: expected a d"),
        (lambda: heads(4, 2, bias=None, rngs=rngs), "bias: expected True or False"),
        (lambda: heads(4, 2, rngs=rngs)("a"), "query: expected an array"),
        (lambda: additive(4, 4, 1, rngs=rngs)(QUERY, None), "keys: expected an array"),
        (lambda: heads(4, 2, key_features=0, rngs=rngs), "key_features: expected"),
        (lambda: heads(4, 2, value_features=0, rngs=rngs), "value_features: expected"),
        (lambda: heads(4, 2, out_features=0, rngs=rngs), "out_features: expected"),
        (lambda: seq2seq(num_layers=0), "num_layers: expected"),
        (lambda: seq2seq(attention_features=0), "attention_features: expected"),
        (lambda: seq2seq(score="multi_head"), "num_heads: expected a divisor of att"),
        (lambda: seq2seq(dtype=jnp.int32), "dtype: expected a dtype"),
        (lambda: seq2seq(source_vocab=0), "source_vocab: expected"),
        (lambda: seq2seq(num_heads=2), "num_heads: expected None without score"),
        (lambda: seq2seq(cell="lstm"), "cell: expected a Cell, got str"),
        (lambda: seq2seq(param_dtype=jnp.int32), "param_dtype: expected a dtype"),
        (lambda: transformer(features=0), "^features: expected a size"),
        (lambda: transformer(num_heads=3), "num_heads: expected a divisor of features"),
        (lambda: transformer(activation="relu"), "activation: expected a function"),
        (lambda: transformer(param_dtype=jnp.int32), "param_dtype: expected a dtype"),
        (lambda: transformer()(None, TARGETS), "^source: expected tokens for the enc"),
        (lambda: transformer(**ALONE)(TOKENS, TARGETS), "^source: expected None with"),
        (
            lambda: transformer(**ALONE)(None, TARGETS, source_lengths=LENGTHS),
            "source_lengths: expected None with no encoder",
        ),
        (lambda: jaxseq.nn.GeneralAttention(4, 0, rngs=rngs), "key_features: expected"),
        (lambda: jaxseq.nn.MultiHeadAttention(4, 3, rngs=rngs), "num_heads: expected"),
        (lambda: seq2seq(dropout=1.0), "dropout: expected a probability"),
        (lambda: transformer(dropout=-0.1), "dropout: expected a probability"),
        (lambda: transformer(dtype=jnp.int32), "dtype: expected"),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=message):
            run()
