"""Decoders in ONNX Runtime, token after token, as `examples/serving` writes them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from tests.convert.onnx_nodes import checked, close, run

pytest.importorskip("onnxruntime")
APART = "jax2onnx is not there: make .venv/jax2onnx fetches it"
pytest.importorskip("jax2onnx", reason=APART)

from examples.serving import onnx_models  # noqa: E402

SOURCE, TARGET, START, END, STEPS = 11, 9, 1, 0, 8
LENGTHS = np.array([5, 2, 1], np.int32)
CELLS = {"lstm": jaxseq.LSTM, "gru": jaxseq.GRU, "rnn": jaxseq.RNN}
ONE_WAY = {"attention": "luong", "bidirectional": False}
HEADS = {"score": "multi_head", "attention_features": 8}
KINDS = {
    "none": {"attention": None},
    "bahdanau": {},
    "bahdanau general": {"score": "general"},
    "bahdanau multi-head": {**HEADS, "num_heads": 2},
    "luong": {"attention": "luong"},
    "luong concat": {"attention": "luong", "score": "additive"},
    "luong dot": {**ONE_WAY, "score": "dot"},
    "luong scaled dot": {**ONE_WAY, "score": "scaled_dot"},
    "luong fed": {"attention": "luong", "feed": True},
    "luong multi-head fed": {"attention": "luong", "feed": True, **HEADS},
}
CASES = [(kind, "lstm") for kind in KINDS]
CASES += [(kind, "gru") for kind in ("none", "bahdanau", "luong", "luong fed")]
CASES += [("bahdanau", "rnn")]


@pytest.fixture(autouse=True)
def as_jax_comes():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def drawn(init, **options):
    """Weights in which no bias is zero."""
    rng = np.random.default_rng(0)
    draw = lambda a: rng.uniform(-0.7, 0.7, a.shape).astype(a.dtype)
    like = jax.eval_shape(partial(init, **options), jax.random.key(0))
    return jax.tree.map(draw, like)


def seq2seq(kind, cell="lstm", **more):
    sizes = {"source_vocab": SOURCE, "target_vocab": TARGET, "embed_features": 4}
    sizes |= {"hidden_features": 6, "num_layers": 2, "cell": CELLS[cell]}
    return drawn(jaxseq.seq2seq_init, **sizes | KINDS[kind] | more)


def by_name(state):
    leaves = map(np.asarray, jax.tree.leaves(state))
    return dict(zip(onnx_models.names(state), leaves, strict=True))


def outputs(model, feeds):
    found = run(model, feeds)
    return dict(zip([own.name for own in model.graph.output], found, strict=True))


def same(found, want):
    assert {*found} == {*want}
    close([found[name] for name in want], [*want.values()])


def greedy(model, feeds):
    """The tokens of each row, by a loop over the model of a step."""
    token = np.full(len(LENGTHS), START, np.int32)
    written = []
    for _ in range(STEPS):
        found = outputs(model, {"token": token, **feeds})
        logits = found.pop("logits")
        feeds = feeds | {name.removeprefix("new."): a for name, a in found.items()}
        token = logits.argmax(-1).astype(np.int32)
        written.append(token)
    return np.stack(written, axis=1)


def compare(encoder, step, encode, decode_step, dtype=np.int64):
    """The models with jaxseq, for sources of other sizes than they were traced for."""
    encode, decode_step = jax.jit(encode), jax.jit(decode_step)
    token = np.array([3, 0, TARGET - 1], np.int32)
    for S in (5, 7):
        shape = len(LENGTHS), S
        tokens = np.random.default_rng(S).integers(0, SOURCE, shape, dtype)
        state = encode(tokens, LENGTHS)
        first = outputs(encoder, {"tokens": tokens, "lengths": LENGTHS})
        same(first, by_name(state))
        found = outputs(step, {"token": token, **first})
        new, logits = decode_step(state, token)
        after = {f"new.{name}": np.asarray(a) for name, a in by_name(new).items()}
        kept = {name: first[name.removeprefix("new.")] for name in after}
        same(kept | found, {**after, "logits": np.asarray(logits)})
    start = jnp.full(len(LENGTHS), START)
    want = jaxseq.greedy(decode_step, state, start, max_length=STEPS, end=END)
    for row, n, ours in zip(
        greedy(step, first), want.lengths, want.tokens, strict=True
    ):
        np.testing.assert_array_equal(row[:n], ours[:n])


def recurrent(params, cell):
    encode = lambda tokens, n: jaxseq.seq2seq_encode(params, tokens, source_lengths=n)
    decode_step = partial(jaxseq.seq2seq_decode_step, params)
    encoder = checked(onnx_models.seq2seq_encoder(params, cell))
    state = onnx_models.first_state(params, cell)
    step = checked(onnx_models.step(decode_step, state))
    compare(encoder, step, encode, decode_step)


@pytest.mark.every(2)
@pytest.mark.parametrize(("kind", "cell"), CASES)
def test_recurrent(kind, cell):
    recurrent(seq2seq(kind, cell), CELLS[cell])


def test_one_layer_and_one_vocabulary():
    recurrent(seq2seq("bahdanau", num_layers=1, target_vocab=None), jaxseq.LSTM)


def test_transformer():
    params = drawn(
        jaxseq.transformer_init,
        source_vocab=SOURCE,
        target_vocab=TARGET,
        features=8,
        num_heads=2,
        ff_features=12,
        num_encoder_layers=2,
        num_decoder_layers=2,
    )

    def encode(tokens, lengths):
        memory = jaxseq.transformer_encode(params, tokens, source_lengths=lengths)
        return jaxseq.transformer_zeros(params, memory, room=STEPS)

    inputs = onnx_models.sources()
    decode_step = partial(jaxseq.transformer_decode_step, params)
    state = jax.eval_shape(encode, *inputs.values())
    leaves = lambda *args: jax.tree.leaves(encode(*args))
    encoder = checked(onnx_models.converted(leaves, inputs, onnx_models.names(state)))
    step = checked(onnx_models.step(decode_step, state))
    compare(encoder, step, encode, decode_step, np.int32)
