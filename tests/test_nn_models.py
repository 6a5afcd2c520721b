"""The modules of attention and of whole models: equal to the functions, trainable."""

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


def seq2seq(**options):
    sizes = {"embedding_features": 4, "hidden_features": 6}
    return jaxseq.nn.Seq2Seq(9, 7, **sizes, **F64, **options, rngs=nnx.Rngs(0))


def transformer(**options):
    options = {"encoder_layers": 1, "decoder_layers": 2, **options}
    sizes = {"source_size": 9, "target_size": 7}
    return jaxseq.nn.Transformer(8, 2, 12, **sizes, **options, **F64, rngs=nnx.Rngs(0))


def test_seq2seq():
    model = seq2seq(
        attention="luong", score="multi_head", feed=True, num_layers=2,
        attention_features=8, num_heads=2, cell=jaxseq.gru_init, bidirectional=False,
    )  # fmt: skip
    params = model.params
    assert len(params.decoder) == 2 and params.decoder[0].w_x.shape == (4 + 8, 18)
    state = jaxseq.seq2seq_encode(params, TOKENS, lengths=LENGTHS)
    assert_close(model.encode(TOKENS, lengths=LENGTHS), state)
    want = jaxseq.seq2seq_decode(params, state, TARGETS)
    assert_close(model.decode(state, TARGETS), want)
    assert_close(model(TOKENS, TARGETS, lengths=LENGTHS), want[1])
    assert_close(
        model.decode_step(state, TARGETS[:, 0]),
        jaxseq.seq2seq_decode_step(params, state, TARGETS[:, 0]),
    )


def test_transformer():
    model = transformer(
        positions="learned", most_positions=6, pre_norm=False, tied=False,
        activation=jnp.tanh,
    )  # fmt: skip
    params, how = model.params, {"activation": jnp.tanh}
    assert params.w_o.shape == (8, 7) and params.decoder.norm is None
    memory = jaxseq.transformer_encode(params, TOKENS, lengths=LENGTHS, **how)
    assert_close(model.encode(TOKENS, lengths=LENGTHS), memory)
    lengths = {"memory_lengths": LENGTHS}
    want = jaxseq.transformer_decode(params, TARGETS, memory, **lengths, **how)
    assert_close(model.decode(TARGETS, memory, **lengths), want)
    assert_close(model(TARGETS, TOKENS, lengths=LENGTHS), want[0])
    state = jaxseq.transformer_zeros(params, memory, **lengths, max_length=4)
    assert_close(model.zeros(memory, **lengths, max_length=4), state)
    token = TARGETS[:, 0]
    want = jaxseq.transformer_decode_step(params, state, token, **how)
    assert_close(model.decode_step(state, token), want)
    alone = transformer(encoder_layers=0)
    want = jaxseq.transformer_decode(alone.params, TARGETS)[0]
    assert_close(alone(TARGETS), want)
    assert alone.zeros(batch=(3,), max_length=2).position.shape == (3,)


@pytest.mark.parametrize("make", [seq2seq, transformer])
def test_dropout_in_training_only(make):
    model = make(dropout=0.5)
    call = lambda m: m(TOKENS, TARGETS) if make is seq2seq else m(TARGETS, TOKENS)
    assert (call(model) != call(model)).any()
    model.eval()
    assert_close(call(model), call(model))
    assert_close(call(model), call(make()))
    model.train()
    assert (call(model) != call(model)).any()


@pytest.mark.parametrize("make", [seq2seq, transformer])
def test_trains(make):
    model = make(dropout=0.1)
    call = (lambda m: m(TOKENS, TARGETS)) if make is seq2seq else (
        lambda m: m(TARGETS, TOKENS)
    )  # fmt: skip
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
    call = (lambda m: m(TOKENS, TARGETS)) if make is seq2seq else (
        lambda m: m(TARGETS, TOKENS)
    )  # fmt: skip
    assert call(model).dtype == jnp.bfloat16
    again = nnx.merge(*nnx.split(model))
    np.testing.assert_array_equal(call(again), call(model))
    query = jnp.asarray(QUERY, jnp.float32)
    heads = jaxseq.nn.MultiHeadAttention(Q, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert heads(query)[0].dtype == jnp.bfloat16


def test_bad_arguments():
    rngs = nnx.Rngs(0)
    cases = [
        (lambda: jaxseq.nn.AdditiveAttention(0, 1, 1, rngs=rngs), "Q: expected"),
        (lambda: jaxseq.nn.GeneralAttention(4, 0, rngs=rngs), "key_features: expected"),
        (lambda: jaxseq.nn.MultiHeadAttention(4, 3, rngs=rngs), "num_heads: expected"),
        (lambda: seq2seq(dropout=1.0), "dropout: expected a probability"),
        (lambda: transformer(dropout=-0.1), "dropout: expected a probability"),
        (lambda: transformer(dtype=jnp.int32), "dtype: expected"),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=message):
            run()
