"""A call of each public function and module, as a function of arrays alone."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxseq
import jaxseq.linen
import jaxseq.nn

Array = jax.Array | np.ndarray


class Call(NamedTuple):
    run: Callable[..., Any]
    args: Callable[[int, int], tuple[Any, ...]]  # for a batch and a number of steps
    differentiable: bool = True
    by_row: bool = True  # whether what comes of a row depends on no other


D, H, V, K = 2, 4, 5, 3
KEY = jax.ShapeDtypeStruct((2,), jnp.uint32)


def drawn_like(f: Callable[..., Any], *args: Any, seed: int = 0) -> Any:
    """Arrays at random, of the shapes of what `f` gives; it is not run."""
    rng = np.random.default_rng(seed)

    def one(a: Any) -> Array:
        if a.dtype == bool:
            return np.arange(a.shape[-1]) <= rng.integers(0, 3, (*a.shape[:-1], 1))
        if jnp.issubdtype(a.dtype, jnp.integer):
            return rng.integers(0, 2, a.shape, np.int32)
        return (rng.standard_normal(a.shape) / 2).astype(a.dtype)

    return jax.tree.map(one, jax.eval_shape(f, *args))


def weights(init: Callable[..., Any], *sizes: Any, **options: Any) -> Any:
    return drawn_like(lambda key: init(key, *sizes, **options), KEY)


def floats(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def flags(*shape: int) -> Array:
    return np.random.default_rng(2).random(shape) < 0.4


def tokens(*shape: int, most: int = V) -> Array:
    return np.random.default_rng(3).integers(0, most, shape, np.int32)


def lengths(B: int, T: int) -> Array:
    return np.array([max(T - i % 3, 1) for i in range(B)], np.int32)


def drawing(init: Callable[..., Any], *sizes: Any, **options: Any) -> Call:
    def run(key: Any) -> Any:
        return init(jax.random.wrap_key_data(key), *sizes, **options)

    return Call(run, lambda B, T: (np.array([0, 1], np.uint32),))


def module(
    kind: Callable[..., Any],
    sizes: tuple[Any, ...],
    options: dict[str, Any],
    run: Callable[..., Any],
    *args: Callable[..., Any],
) -> Call:
    """A call of a module, whose weights are arguments too."""
    made = nnx.eval_shape(lambda: kind(*sizes, **options, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(made)
    leaves, tree = jax.tree.flatten(state)
    leaves = drawn_like(lambda: leaves)

    def call(leaves: Any, *arrays: Any) -> Any:
        return run(nnx.merge(graph, tree.unflatten(leaves)), *arrays)

    return Call(call, lambda B, T: (leaves, *(arg(B, T) for arg in args)))


# a cell of one's own, with two matrices and two parts of a state
def own_update(z_x: Any, state: Any, w_h: Any, gain: Any) -> Any:
    a, b = state
    f = jax.nn.sigmoid(z_x + w_h["f"](a) + gain * b)
    b = f * b + (1 - f) * jnp.tanh(z_x)
    return jaxseq.LSTMState(jnp.tanh(b + w_h["n"](f * a)), b)


WIDTH: Any = H
OWN_ZEROS = jaxseq.LSTMState(WIDTH, WIDTH)


def own_init(key: Any, D: int, H: int, *, dtype: Any = jnp.float32) -> Any:
    w_h = {"f": (H, H), "n": (H, H)}
    gain = jnp.ones(H, dtype)
    return jaxseq.cell_init(key, D, H, w_h, extra=gain, dtype=dtype)


OWN = jaxseq.Cell(
    own_update, own_init, lambda params, batch=(): jaxseq.cell_zeros(OWN_ZEROS, batch)
)

X = lambda B, T: floats(B, T, D)
LENGTHS = lengths
FLAGS = lambda B, T: flags(B, T)
TOKENS = lambda B, T: tokens(B, T)


def cell_calls() -> dict[str, Call]:
    calls = {}
    for name in ("rnn", "lstm", "gru"):
        part = lambda suffix, name=name: getattr(jaxseq, name + suffix)
        params, zeros = weights(part("_init"), D, H), part("_zeros")
        state = lambda B, T, p=params, z=zeros: drawn_like(lambda: z(p, B))

        def run(params: Any, x: Any, lengths: Any, resets: Any, f: Any) -> Any:
            return f(params, x, lengths=lengths, resets=resets)

        def backwards(
            params: Any, x: Any, state: Any, mask: Any, resets: Any, f: Any
        ) -> Any:
            how = {"mask": mask, "resets": resets, "reverse": True}
            return f(params, x, state, **how)

        calls[f"{name}_init"] = drawing(part("_init"), D, H)
        calls[f"{name}_zeros"] = Call(
            lambda params, x, z=zeros: z(params, x.shape[0]),
            lambda B, T, p=params: (p, X(B, T)),
        )
        calls[f"{name}_step"] = Call(
            part("_step"),
            lambda B, T, p=params, s=state: (p, s(B, T), floats(B, D)),
        )
        calls[name] = Call(
            partial(run, f=part("")),
            lambda B, T, p=params: (p, X(B, T), lengths(B, T), flags(B, T)),
        )
        calls[f"{name} reverse, from a state"] = Call(
            partial(backwards, f=part("")),
            lambda B, T, p=params, s=state: (
                p,
                X(B, T),
                s(B, T),
                flags(B, T),
                flags(B, T),
            ),
        )
    own = weights(own_init, D, H)
    state = lambda B, T: drawn_like(lambda: jaxseq.cell_zeros(OWN_ZEROS, B))
    start = drawn_like(lambda: jaxseq.cell_zeros(OWN_ZEROS))
    calls["cell_init"] = drawing(own_init, D, H)
    calls["cell_zeros"] = Call(
        lambda x: jaxseq.cell_zeros(OWN_ZEROS, x.shape[0]), lambda B, T: (X(B, T),)
    )
    calls["cell_step"] = Call(
        lambda params, state, x, resets: jaxseq.cell_step(
            own_update, params, state, x, resets=resets
        ),
        lambda B, T: (own, state(B, T), floats(B, D), flags(B)),
    )
    calls["cell"] = Call(
        lambda params, start, x, lengths, resets: jaxseq.cell(
            own_update, params, x, start=start, lengths=lengths, resets=resets
        ),
        lambda B, T: (own, start, X(B, T), lengths(B, T), flags(B, T)),
    )
    calls["cell remat"] = Call(
        lambda params, x: jaxseq.cell(own_update, params, x, zeros=OWN_ZEROS, remat=2),
        lambda B, T: (own, X(B, T)),
    )
    calls["cell_states"] = Call(
        lambda params, start, x, mask, resets: jaxseq.cell_states(
            own_update, params, x, start=start, mask=mask, resets=resets
        ),
        lambda B, T: (own, start, X(B, T), flags(B, T), flags(B, T)),
    )
    lstm, gru = weights(jaxseq.lstm_init, D, H), weights(jaxseq.gru_init, H, H)
    biased = lstm._replace(b_h=floats(4 * H))
    calls["lstm with two biases"] = Call(
        lambda params, x, lengths: jaxseq.lstm(params, x, lengths=lengths),
        lambda B, T: (biased, X(B, T), lengths(B, T)),
    )
    calls["lstm_states"] = Call(
        lambda params, x, lengths: jaxseq.lstm_states(
            params, x, lengths=lengths, reverse=True
        ),
        lambda B, T: (lstm, X(B, T), lengths(B, T)),
    )
    calls["stack"] = Call(
        lambda a, b, x, lengths: jaxseq.stack(
            [partial(jaxseq.lstm, a), partial(jaxseq.gru, b)], x, lengths=lengths
        ),
        lambda B, T: (lstm, gru, X(B, T), lengths(B, T)),
    )
    dropped = lambda a, b, x, key: jaxseq.stack(
        [partial(jaxseq.lstm, a), partial(jaxseq.gru, b)],
        x,
        dropout=0.5,
        key=jax.random.wrap_key_data(key),
    )
    key = np.array([0, 1], np.uint32)
    calls["stack dropout"] = Call(
        dropped, lambda B, T: (lstm, gru, X(B, T), key), by_row=False
    )
    once = lambda a, b, x, rate, key: jaxseq.stack(
        [partial(jaxseq.lstm, a), partial(jaxseq.gru, b)],
        x,
        dropout=rate,
        dropout_per="sequence",
        key=jax.random.wrap_key_data(key),
        reverse=True,
    )
    rate = np.float32(0.5)
    calls["stack dropout per sequence"] = Call(
        once, lambda B, T: (lstm, gru, X(B, T), rate, key), by_row=False
    )
    calls["wavefront"] = Call(
        lambda a, b, x, lengths: jaxseq.wavefront(
            jaxseq.gru, [a, b], x, lengths=lengths
        ),
        lambda B, T: (weights(jaxseq.gru_init, D, H), gru, X(B, T), lengths(B, T)),
    )
    both = weights(jaxseq.rnn_init, D, H)
    calls["bidirectional"] = Call(
        lambda a, b, x, lengths: jaxseq.bidirectional(
            partial(jaxseq.lstm, a), partial(jaxseq.rnn, b), x, lengths=lengths
        ),
        lambda B, T: (lstm, both, X(B, T), lengths(B, T)),
    )
    calls["resets_from_dones"] = Call(
        jaxseq.resets_from_dones, lambda B, T: (flags(B, T),)
    )
    calls["resets_from_dones last_done"] = Call(
        jaxseq.resets_from_dones, lambda B, T: (flags(B, T), flags(B))
    )
    return calls


def variant_calls() -> dict[str, Call]:
    key = np.array([0, 1], np.uint32)

    def running(cell: jaxseq.Cell) -> Call:
        def run(params: Any, x: Any, lengths: Any, resets: Any) -> Any:
            state = cell.zeros(params, x.shape[0])
            how = {"lengths": lengths, "resets": resets}
            return jaxseq.cell(cell.update, params, x, state, **how)

        params = weights(cell.init, D, H)
        return Call(run, lambda B, T: (params, X(B, T), lengths(B, T), flags(B, T)))

    hard = jaxseq.activation("hard_sigmoid")
    lstm, gru = weights(jaxseq.lstm_init, D, H), weights(jaxseq.gru_init, D, H)
    rates = {"dropout": 0.2, "recurrent_dropout": 0.3, "zoneout": 0.1}

    def dropping(params: Any, x: Any, resets: Any, rate: Any, key: Any) -> Any:
        key = jax.random.wrap_key_data(key)
        how = {**rates, "zoneout": rate, "key": key, "resets": resets, "reverse": True}
        return jaxseq.cell_dropout(jaxseq.LSTM, params, x, **how)

    return {
        "activation": Call(hard, lambda B, T: (X(B, T),)),
        "lstm_cell": running(
            jaxseq.lstm_cell(gate=hard, peepholes=True, layer_norm=True, cells=3)
        ),
        "lstm_cell with heads": running(jaxseq.lstm_cell(heads=2, clip=1.0)),
        "gru_cell": running(jaxseq.gru_cell(reset_after=False, heads=2)),
        "rnn_cell": running(jaxseq.rnn_cell(activation=hard)),
        "zoneout": Call(
            lambda params, x, lengths: jaxseq.cell_dropout(
                jaxseq.zoneout(jaxseq.GRU, 0.2), params, x, lengths=lengths
            ),
            lambda B, T: (gru, X(B, T), lengths(B, T)),
        ),
        "cell_dropout": Call(
            dropping,
            lambda B, T: (lstm, X(B, T), flags(B, T), np.float32(0.1), key),
            by_row=False,
        ),
        "weight_drop": Call(
            lambda params, x, rate, key: jaxseq.gru(
                jaxseq.weight_drop(params, rate, key=jax.random.wrap_key_data(key)), x
            ),
            lambda B, T: (gru, X(B, T), np.float32(0.5), key),
        ),
    }


def scan_calls() -> dict[str, Call]:
    w = floats(D, H), floats(H, H, seed=2)

    def run(w: Any, h: Any, xs: Any, **options: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            h = jnp.tanh(x @ w[0] + h @ w[1])
            return h, h

        return jaxseq.scan(body, h, xs, **options)

    args = lambda B, T: (w, floats(B, H), floats(T, B, D))
    return {
        "scan": Call(run, args),
        "scan remat": Call(partial(run, remat=2), args),
        "scan reverse": Call(partial(run, reverse=True), args),
        "linear_scan": Call(
            lambda a, b, state, lengths: jaxseq.linear_scan(
                jax.nn.sigmoid(a), b, state, lengths=lengths
            ),
            lambda B, T: (
                floats(B, T, H),
                floats(B, T, H, seed=2),
                floats(B, H),
                lengths(B, T),
            ),
        ),
    }


def attention_calls() -> dict[str, Call]:
    query, keys = (lambda B, T: floats(B, 3, H)), (lambda B, T: floats(B, T, H))
    additive = weights(jaxseq.additive_init, H, H, 3)
    heads = weights(jaxseq.multi_head_init, H, 2, 3)
    grouped = weights(jaxseq.multi_head_init, H, 4, 3, num_kv_heads=2)
    scale = np.float32(0.7)
    square = floats(H, H)

    def given(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda w, q, k, lengths: f(w, q, k, lengths=lengths)

    def args(w: Any) -> Callable[..., Any]:
        return lambda B, T: (w, query(B, T), keys(B, T), lengths(B, T))

    return {
        "additive_init": drawing(jaxseq.additive_init, H, H, 3),
        "multi_head_init": drawing(jaxseq.multi_head_init, H, 2, 3),
        "additive_attention": Call(given(jaxseq.additive_attention), args(additive)),
        "general_attention": Call(given(jaxseq.general_attention), args(square)),
        "multi_head_attention": Call(given(jaxseq.multi_head_attention), args(heads)),
        "multi_head_attention causal": Call(
            lambda w, x, lengths: jaxseq.multi_head_attention(
                w, x, lengths=lengths, causal=True
            ),
            lambda B, T: (heads, keys(B, T), lengths(B, T)),
        ),
        "multi_head_attention grouped": Call(
            lambda w, x, mask: jaxseq.multi_head_attention(w, x, mask=mask, window=2),
            lambda B, T: (grouped, keys(B, T), flags(T, T)),
        ),
        "multi_head_attention mask by head": Call(
            lambda w, q, k, mask: jaxseq.multi_head_attention(w, q, k, mask=mask),
            lambda B, T: (heads, query(B, T), keys(B, T), flags(B, 2, 1, T)),
        ),
        "dot_attention": Call(
            lambda q, k, lengths: jaxseq.dot_attention(q, k, lengths=lengths),
            lambda B, T: (query(B, T), keys(B, T), lengths(B, T)),
        ),
        "dot_attention causal": Call(
            lambda x, v, mask: jaxseq.dot_attention(x, x, v, mask=mask, causal=True),
            lambda B, T: (keys(B, T), floats(B, T, 3), flags(B, T, T)),
        ),
        "dot_attention window": Call(
            lambda x, lengths, mask, scale: jaxseq.dot_attention(
                x, x, lengths=lengths, mask=mask, causal=True, window=2, scale=scale
            ),
            lambda B, T: (keys(B, T), lengths(B, T), flags(1, T, T), scale),
        ),
    }


def loss_calls() -> dict[str, Call]:
    logits = lambda B, T: floats(B, T, V)
    crf = weights(jaxseq.crf_init, V)
    with_tags = lambda B, T: (crf, logits(B, T), tokens(B, T), lengths(B, T))
    without = lambda B, T: (crf, logits(B, T), lengths(B, T))
    labelled = lambda B, T: (logits(B, T), tokens(B, T), lengths(B, T))
    given = lambda f: lambda *args: f(*args[:-1], lengths=args[-1])
    masked = lambda f: lambda *args: f(*args[:-2], lengths=args[-2], mask=args[-1])
    and_flags = lambda args: lambda B, T: (*args(B, T), flags(B, T))
    unpadded = lambda B, T: (logits(B, T), tokens(B, T))
    return {
        "cross_entropy": Call(
            lambda logits, labels, lengths: jaxseq.cross_entropy(
                logits, labels, lengths=lengths, label_smoothing=0.1
            ),
            labelled,
        ),
        "cross_entropy mask": Call(
            lambda logits, labels, lengths, mask, smoothing: jaxseq.cross_entropy(
                logits,
                labels,
                lengths=lengths,
                mask=mask,
                ignore=2,
                label_smoothing=smoothing,
            ),
            lambda B, T: (*and_flags(labelled)(B, T), np.float32(0.1)),
        ),
        "perplexity": Call(given(jaxseq.perplexity), labelled, by_row=False),
        "perplexity mask": Call(
            masked(partial(jaxseq.perplexity, ignore=2)),
            and_flags(labelled),
            by_row=False,
        ),
        "perplexity with no lengths": Call(jaxseq.perplexity, unpadded, by_row=False),
        "crf_init": drawing(jaxseq.crf_init, V),
        "crf_log_partition": Call(given(jaxseq.crf_log_partition), without),
        "crf_score": Call(given(jaxseq.crf_score), with_tags),
        "crf_loss": Call(given(jaxseq.crf_loss), with_tags),
        "crf_loss mask": Call(masked(jaxseq.crf_loss), and_flags(with_tags)),
        "crf_decode": Call(given(jaxseq.crf_decode), without),
        "crf_decode mask": Call(masked(jaxseq.crf_decode), and_flags(without)),
        "crf_decode with no lengths": Call(
            jaxseq.crf_decode, lambda B, T: without(B, T)[:-1]
        ),
        "ctc_greedy": Call(
            given(jaxseq.ctc_greedy), lambda B, T: (logits(B, T), lengths(B, T))
        ),
        "ctc_steps": Call(
            given(jaxseq.ctc_steps), lambda B, T: (tokens(B, T), lengths(B, T))
        ),
        "ctc_beam_search": Call(
            lambda logits, lengths: jaxseq.ctc_beam_search(
                logits, lengths=lengths, beam=3, n_best=2
            ),
            lambda B, T: (logits(B, T), lengths(B, T)),
            differentiable=False,
        ),
    }


RECURRENT: dict[str, Any] = {
    "source_vocab": V,
    "embed_features": D,
    "hidden_features": H,
}
WIDTHS: dict[str, Any] = {"features": H, "num_heads": 2, "ff_features": 3}
PAIR: dict[str, Any] = {
    **WIDTHS,
    "source_vocab": V,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
}
# what other calls have shown already
SAME = [
    *(f"seq2seq_encode{kind}" for kind in (" no attention", " luong")),
    *(f"seq2seq_decode_step{kind}" for kind in (" no attention", " luong")),
    "transformer_encode rotary",
    "transformer_decode learned",
    *(f"transformer_zeros{kind}" for kind in (" rotary", " learned")),
]


def model_calls() -> dict[str, Call]:
    calls = {
        "seq2seq_init": drawing(jaxseq.seq2seq_init, **RECURRENT, num_layers=2),
        "transformer_init": drawing(
            jaxseq.transformer_init, **PAIR, target_vocab=V, positions="learned",
            max_positions=9, tied=False,
        ),
    }  # fmt: skip
    kinds: dict[str, Any] = {
        "": {},
        " no attention": {"attention": None, "cell": jaxseq.GRU},
        " luong": {"attention": "luong", "num_layers": 2},
        " fed": {"attention": "luong", "feed": True, "cell": OWN},
        " heads": {"score": "multi_head", "num_heads": 2},
    }
    seq2seq: dict[str, Any] = {}
    for kind, options in kinds.items():
        cell = {"cell": OWN} if options.get("cell") is OWN else {}
        params = weights(jaxseq.seq2seq_init, **RECURRENT, **options)
        encode = partial(jaxseq.seq2seq_encode, **cell)

        def state(B: int, T: int, params: Any = params, encode: Any = encode) -> Any:
            read = lambda source, lengths: encode(
                params, source, source_lengths=lengths
            )
            return drawn_like(read, tokens(B, T), lengths(B, T))

        seq2seq[kind] = params, state
        calls[f"seq2seq_encode{kind}"] = Call(
            lambda params, source, lengths, f=encode: f(
                params, source, source_lengths=lengths
            ),
            lambda B, T, p=params: (p, tokens(B, T), lengths(B, T)),
        )
        calls[f"seq2seq_decode{kind}"] = Call(
            partial(jaxseq.seq2seq_decode, **cell),
            lambda B, T, p=params, s=state: (p, s(B, T), tokens(B, T)),
        )
        calls[f"seq2seq_decode_step{kind}"] = Call(
            partial(jaxseq.seq2seq_decode_step, **cell),
            lambda B, T, p=params, s=state: (p, s(B, T), tokens(B)),
        )
    kinds = {
        "": {},
        " rotary": {"positions": "rotary", "pre_norm": False},  # and a sliding cache
        " learned": {"positions": "learned", "max_positions": 9},
    }
    transformer: dict[str, Any] = {}
    memory = lambda B, T: jaxseq.Memory(floats(B, T, H), None, flags(B, T))
    for kind, options in kinds.items():
        params = weights(jaxseq.transformer_init, **PAIR, **options)
        slides = {"window": 3} if kind == " rotary" else {}
        zeros = partial(jaxseq.transformer_zeros, **(slides or {"room": 6}))

        def cached(B: int, T: int, params: Any = params, zeros: Any = zeros) -> Any:
            return drawn_like(zeros, params, memory(B, T))

        transformer[kind] = params, cached
        calls[f"transformer_encode{kind}"] = Call(
            lambda params, source, lengths: jaxseq.transformer_encode(
                params, source, source_lengths=lengths
            ),
            lambda B, T, p=params: (p, tokens(B, T), lengths(B, T)),
        )
        calls[f"transformer_decode{kind}"] = Call(
            partial(jaxseq.transformer_decode, **slides),
            lambda B, T, p=params: (p, memory(B, T), tokens(B, T)),
        )
        calls[f"transformer_zeros{kind}"] = Call(
            zeros, lambda B, T, p=params: (p, memory(B, T))
        )
        calls[f"transformer_decode_step{kind}"] = Call(
            jaxseq.transformer_decode_step,
            lambda B, T, p=params, s=cached: (p, s(B, T), tokens(B)),
        )
    alone = weights(
        jaxseq.transformer_init, **WIDTHS, target_vocab=V, num_decoder_layers=1
    )
    calls["transformer_decode alone"] = Call(
        lambda params, inputs: jaxseq.transformer_decode(
            params, None, inputs, room=inputs.shape[1] + 3
        ),
        lambda B, T: (alone, tokens(B, T)),
    )
    calls["transformer_zeros of any length"] = Call(
        lambda params, inputs: jaxseq.transformer_zeros(
            params, batch=inputs.shape[0], room=inputs.shape[1]
        ),
        lambda B, T: (alone, tokens(B, T)),
    )
    for name in SAME:
        del calls[name]
    return calls | search_calls(seq2seq, transformer)


def search_calls(seq2seq: Any, transformer: Any) -> dict[str, Call]:
    how: Any = {"max_length": 3, "end": 1}
    steps = jaxseq.seq2seq_decode_step, jaxseq.transformer_decode_step

    def searching(search: Any, step: Any, of: Any, **more: Any) -> Call:
        params, state = of
        return Call(
            lambda params, *args: search(partial(step, params), *args),
            lambda B, T: (params, state(B, T), tokens(B)),
            differentiable=False,
            **more,
        )

    def prefilling(step: Any, of: Any) -> Call:
        params, state = of
        return Call(
            lambda params, state, prompt, lengths: jaxseq.prefill(
                partial(step, params), state, prompt, lengths=lengths
            ),
            lambda B, T: (params, state(B, T), tokens(B, T), lengths(B, T)),
        )

    greedy, beam = partial(jaxseq.greedy, **how), partial(jaxseq.beam_search, **how)
    draw = lambda step, state, token: jaxseq.sample(
        step, state, token, jax.random.key(0), top_p=0.9, top_k=3, **how
    )
    rows: Any = {"max_length": 3, "end": (1, 2)}
    twice = partial(jaxseq.no_repeat_ngrams, size=1)
    limited = lambda step, state, token: jaxseq.beam_search(
        step, state, token, beam=2, max_lengths=token % 4, process=twice, **rows
    )

    def draw_by_row(step: Any, state: Any, token: Any) -> Any:
        p = (1 + token).astype(jnp.float32) / V
        how = {"temperature": p - p.min(), "top_p": p, "max_lengths": token % 4, **rows}
        return jaxseq.sample(step, state, token, jax.random.key(0), **how)

    written = lambda B, T: (floats(B, V), tokens(B, T), np.array(2, np.int32))
    banning = partial(Call, args=written, differentiable=False)
    return {
        "greedy": searching(greedy, steps[0], seq2seq[""]),
        "greedy of a Transformer": searching(greedy, steps[1], transformer[""]),
        "sample": searching(draw, steps[1], transformer[""], by_row=False),
        "sample by row": searching(draw_by_row, steps[0], seq2seq[""], by_row=False),
        "beam_search": searching(
            partial(beam, beam=3, n_best=2), steps[0], seq2seq[""]
        ),
        "beam_search by row": searching(limited, steps[0], seq2seq[""]),
        "prefill": prefilling(steps[0], seq2seq[" heads"]),
        "prefill of a Transformer": prefilling(steps[1], transformer[" rotary"]),
        "at_least": banning(partial(jaxseq.at_least, end=(1, 2), length=3)),
        "no_repeat_ngrams": banning(partial(jaxseq.no_repeat_ngrams, size=1)),
        "no_repeat_ngrams of several": banning(
            partial(jaxseq.no_repeat_ngrams, size=2)
        ),
        "penalize_repetition": Call(
            partial(jaxseq.penalize_repetition, penalty=1.5), written
        ),
    }


def module_calls() -> dict[str, Call]:
    nn = jaxseq.nn
    over = lambda m, x, lengths: m(x, lengths=lengths), X, lengths
    both = {"bidirectional": True}
    query, keys = (lambda B, T: floats(B, 3, H)), (lambda B, T: floats(B, T, H))
    attending = lambda m, q, k, n: m(q, k, lengths=n), query, keys, lengths
    translate = lambda m, source, inputs, n: m(source, inputs, source_lengths=n)
    pair = TOKENS, lambda B, T: tokens(B, 3), lengths
    return {
        "nn.RNN": module(nn.RNN, (D, H), {}, *over),
        "nn.LSTM": module(nn.LSTM, (D, H), both, *over),
        "nn.GRU": module(nn.GRU, (D, H), {}, *over),
        "nn.Cell": module(nn.Cell, (OWN, D, H), {}, *over),
        "nn.over_time": module(
            nnx.LSTMCell,
            (D, H),
            {},
            lambda m, x, lengths, resets: nn.over_time(
                m, x, lengths=lengths, resets=resets
            ),
            X,
            lengths,
            FLAGS,
        ),
        "nn.LSTM step": module(
            nn.LSTM,
            (D, H),
            {"num_layers": 2},
            lambda m, x, resets: m.step(m.zeros(x.shape[0]), x, resets=resets),
            lambda B, T: floats(B, D),
            lambda B, T: flags(B),
        ),
        "nn.CRF": module(
            nn.CRF,
            (V,),
            {},
            lambda m, scores, tags, lengths: m.loss(scores, tags, lengths=lengths),
            lambda B, T: floats(B, T, V),
            TOKENS,
            lengths,
        ),
        "nn.AdditiveAttention": module(nn.AdditiveAttention, (H, H, 3), {}, *attending),
        "nn.GeneralAttention": module(nn.GeneralAttention, (H, H), {}, *attending),
        "nn.MultiHeadAttention": module(nn.MultiHeadAttention, (H, 2), {}, *attending),
        "nn.Seq2Seq": module(nn.Seq2Seq, (), RECURRENT, translate, *pair),
        "nn.Transformer": module(nn.Transformer, (), PAIR, translate, *pair),
    }


def linen_module(module: Any, run: Callable[..., Any], *args: Any) -> Call:
    """A call of a Linen module, as of a bound one."""
    given = lambda B, T: [arg(B, T) for arg in args]
    of = drawn_like(lambda: module.init(jax.random.key(0), floats(1, 1, D)))

    def call(variables: Any, *arrays: Any) -> Any:
        return run(module.bind(variables), *arrays)

    return Call(call, lambda B, T: (of, *given(B, T)))


def linen_modules() -> dict[str, Call]:
    linen = jaxseq.linen
    over = lambda m, x, lengths: m(x, lengths=lengths), X, lengths
    rollout = linen.ScannedRNN(H)
    hidden = linen.ScannedRNN.initialize_carry
    made = lambda: rollout.init(
        jax.random.key(0), hidden(1, H), (floats(1, 1, D), flags(1, 1))
    )
    drawn = drawn_like(made)
    return {
        "linen.RNN": linen_module(linen.RNN(H), *over),
        "linen.LSTM": linen_module(linen.LSTM(H, bidirectional=True), *over),
        "linen.GRU": linen_module(linen.GRU(H), *over),
        "linen.Cell": linen_module(linen.Cell(OWN, H), *over),
        "linen.LSTM step": linen_module(
            linen.LSTM(H, num_layers=2),
            lambda m, x, resets: m.step(m.zeros(x.shape[0]), x, resets=resets),
            lambda B, T: floats(B, D),
            lambda B, T: flags(B),
        ),
        "linen.ScannedRNN": Call(
            lambda variables, *args: rollout.apply(variables, args[0], args[1:]),
            lambda B, T: (drawn, floats(B, H), floats(T, B, D), flags(T, B)),
        ),
    }


def linen_calls() -> dict[str, Call]:
    cell = flax.linen.GRUCell(H)
    weights = drawn_like(lambda: cell.init(jax.random.key(0), floats(H), floats(D)))

    class Scanned(flax.linen.Module):
        @partial(jaxseq.linen.scan, variable_broadcast="params")
        @flax.linen.compact
        def __call__(self, h: Any, x: Any) -> Any:
            return flax.linen.GRUCell(H)(h, x)

    def over_time(weights: Any, x: Any, lengths: Any) -> Any:
        return jaxseq.linen.over_time(cell.bind(weights), x, lengths=lengths)

    def scan(weights: Any, h: Any, x: Any) -> Any:
        params = {"params": {"GRUCell_0": weights["params"]}}
        return Scanned().apply(params, h, x)

    by_time = lambda B, T: (weights, floats(B, H), floats(T, B, D))
    return {
        "linen.over_time": Call(
            over_time, lambda B, T: (weights, X(B, T), lengths(B, T))
        ),
        "linen.scan": Call(scan, by_time),
    }


CALLS = {
    **cell_calls(),
    **variant_calls(),
    **scan_calls(),
    **attention_calls(),
    **loss_calls(),
    **model_calls(),
    **module_calls(),
    **linen_modules(),
    **linen_calls(),
}
