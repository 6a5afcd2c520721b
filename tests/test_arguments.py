"""Every public argument with wrong kinds of values: each is refused by its name."""

import inspect
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxseq
import jaxseq.nn

KEY = jax.random.key(0)
B, T, D, H, V = 2, 5, 3, 4, 6


@pytest.fixture(autouse=True, scope="module")
def float32():
    with jax.enable_x64(False):
        yield


def none_of(n):
    """A generator, which is no array and no list."""
    return (i for i in range(n))


nan = float("nan")
COMMON: dict[str, Any] = {
    "None": lambda: None,
    "str": lambda: "abc",
    "object": object,
    "generator": lambda: none_of(2),
}
OF_KIND: dict[str, dict[str, Any]] = {
    "array": {
        "bool": lambda: True,
        "number": lambda: 1.5,
        "list of str": lambda: ["one"],
        "dict": lambda: {"a": np.zeros(2)},
        "complex": lambda: np.zeros((B, T, D), np.complex64),
        "ints": lambda: np.zeros((B, T, D), np.int32),
        "rank": lambda: np.zeros((1, 1, 1, 1, 1, 1, 7), np.float32),
    },
    "lengths": {
        "bool": lambda: True,
        "float": lambda: 1.5,
        "list of None": lambda: [None, 1],
        "list of str": lambda: ["one", "two"],
        "floats": lambda: np.ones(B, np.float32),
        "rank": lambda: np.ones((B, T), np.int32),
        "too long": lambda: np.full(B, T + 1),
        "negative": lambda: np.full(B, -1),
        "huge": lambda: [2**33, 1],
    },
    "flags": {
        "bool": lambda: True,
        "ints": lambda: np.ones((B, T), np.int32),
        "list of None": lambda: [None],
        "rank": lambda: np.ones((B, T, 1, 1, 1, 1), bool),
    },
    "size": {
        "bool": lambda: True,
        "float": lambda: 2.5,
        "list": lambda: [2],
        "nan": lambda: nan,
        "zero": lambda: 0,
        "negative": lambda: -1,
        "number in a str": lambda: "3",
    },
    "flag": {
        "int": lambda: 1,
        "nan": lambda: nan,
        "list": lambda: [True],
        "array": lambda: np.ones(2, bool),
    },
    "rate": {
        "bool": lambda: True,
        "nan": lambda: nan,
        "list": lambda: [0.5],
        "negative": lambda: -0.5,
        "one": lambda: 1.0,
        "array": lambda: np.full(2, 0.5, np.float32),
        "number in a str": lambda: ".5",
    },
    "choice": {
        "bool": lambda: True,
        "int": lambda: 3,
        "list": lambda: ["concat"],
    },
    "tree": {
        "bool": lambda: True,
        "number": lambda: 1.5,
        "list": lambda: [1.0],
        "rank": lambda: np.zeros((1, 1, 1, 1, 1, 1, 7), np.float32),
    },
    "function": {
        "bool": lambda: True,
        "number": lambda: 1.5,
        "list": lambda: [1.0],
    },
    "key": {
        "bool": lambda: True,
        "number": lambda: 1.5,
        "list": lambda: [1.0],
        "floats": lambda: np.zeros(2, np.float32),
    },
    "dtype": {"int32": lambda: "int32", "number": lambda: 3, "list": lambda: ["f4"]},
    "number": {
        "bool": lambda: True,
        "nan": lambda: nan,
        "list": lambda: [0.5],
        "array": lambda: np.full(7, 0.5, np.float32),
        "number in a str": lambda: ".5",
    },
}
KINDS = {
    "key": "key",
    "D": "size",
    "H": "size",
    "Z": "size",
    "dtype": "dtype",
    "forget_bias": "number",
    "params": "tree",
    "state": "tree",
    "start": "tree",
    "zeros": "tree",
    "widths": "tree",
    "w_h": "tree",
    "x": "array",
    "lengths": "lengths",
    "mask": "flags",
    "resets": "flags",
    "dones": "flags",
    "last_done": "flags",
    "reverse": "flag",
    "remat": "size",
    "implementation": "choice",
    "merge": "choice",
    "activation": "function",
    "update": "function",
    "forward": "function",
    "backward": "function",
    "layers": "tree",
    "dropout": "rate",
    "batch": "batch",
    **dict.fromkeys(("query", "keys", "values", "logits", "scores", "w"), "array"),
    **dict.fromkeys(("labels", "tags", "token", "prompt", "tokens"), "tokens"),
    **dict.fromkeys(
        ("K", "query_features", "key_features", "hidden_features", "features"), "size"
    ),
    **dict.fromkeys(
        ("num_heads", "head_features", "num_kv_heads", "value_features"), "size"
    ),
    **dict.fromkeys(("out_features", "window", "beam", "n_best", "top_k"), "size"),
    **dict.fromkeys(("max_length", "size"), "size"),
    **dict.fromkeys(("bias", "causal"), "flag"),
    **dict.fromkeys(("scale", "temperature", "length_penalty", "penalty"), "number"),
    **dict.fromkeys(("end", "blank"), "token number"),
    **dict.fromkeys(("n", "length"), "count"),
    "ignore": "whole",
    "label_smoothing": "rate",
    "top_p": "share",
    "max_lengths": "lengths",
    "step": "function",
    "process": "function",
    "room": "size",
    "max_positions": "size",
    **dict.fromkeys(("source_vocab", "target_vocab", "embed_features"), "size"),
    **dict.fromkeys(("num_layers", "ff_features", "attention_features"), "size"),
    **dict.fromkeys(("in_features", "num_tags"), "size"),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers"), "count"),
    **dict.fromkeys(("bidirectional", "feed", "tied", "pre_norm"), "flag"),
    "final_norm": "flag",
    **dict.fromkeys(("attention", "score", "positions", "dropout_per"), "choice"),
    "epsilon": "number",
    **dict.fromkeys(("source", "inputs"), "tokens"),
    "source_lengths": "lengths",
    "memory": "tree",
    "cell": "tree",
    "rngs": "tree",
    "param_dtype": "dtype",
}
OF_KIND["share"] = {
    k: v for k, v in OF_KIND["rate"].items() if k not in ("one", "array")
}
OF_KIND["whole"] = {
    k: v for k, v in OF_KIND["size"].items() if k not in ("zero", "negative")
}
OF_KIND["count"] = {k: v for k, v in OF_KIND["size"].items() if k != "zero"}
OF_KIND["token number"] = {
    **OF_KIND["whole"],
    "negative": lambda: -1,
    "beyond": lambda: V,
    "list": lambda: ["one"],
}
OF_KIND["tokens"] = {
    "number": lambda: 1.5,
    "list of None": lambda: [None],
    "list of str": lambda: ["one", "two"],
    "floats": lambda: np.zeros((B, T), np.float32),
    "rank": lambda: np.zeros((1, 1, 1, 1, 1, 1, 7), np.int32),
}
OF_KIND["batch"] = {
    "bool": lambda: True,
    "float": lambda: 2.5,
    "list of str": lambda: ["one"],
    "negative": lambda: -1,
    "nan": lambda: nan,
}
# what some of these mean where they are not wrong
RIGHT = {
    ("w_h", "None"),
    ("merge", "None"),  # both outputs
    ("end", "None"),
    ("D", "None"),  # Z is named, which is not None
    ("attention", "None"),  # that of a model
    ("memory", "None"),
    # a state with no arrays, of a step that needs none
    ("greedy", "None"),
    ("sample", "None"),
    ("beam_search", "None"),
    ("prefill", "None"),
}


def update(z, h, w, _):
    return jnp.tanh(z + w(h))


def calls() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each function with a right value for each argument."""
    x = np.zeros((B, T, D), np.float32)
    over_time = {
        "x": x,
        "lengths": np.full(B, T),
        "mask": np.ones((B, T), bool),
        "resets": np.zeros((B, T), bool),
    }
    run: dict[str, Any] = {**over_time, "reverse": False, "remat": 2}
    run["implementation"] = "scan"
    one = {"x": x[:, 0], "resets": np.zeros(B, bool)}
    found: dict[str, Any] = {}
    for name in ("rnn", "lstm", "gru"):
        f = lambda suffix, name=name: getattr(jaxseq, name + suffix)
        params = f("_init")(KEY, D, H)
        state, start = f("_zeros")(params, B), f("_zeros")(params)
        own = {"params": params, "state": state, "start": start}
        init = {"key": KEY, "D": D, "H": H, "dtype": "float32"}
        if name == "lstm":
            init["forget_bias"] = 1.0
        if name == "rnn":
            own["activation"] = jnp.tanh
        found[f"{name}_init"] = f("_init"), init
        found[f"{name}_zeros"] = f("_zeros"), {"params": params, "batch": B}
        found[f"{name}_step"] = f("_step"), {**own, **one}
        found[name] = f(""), {**own, **run}
    params = jaxseq.cell_init(KEY, D, H, (H, H))
    state, start = jaxseq.cell_zeros(H, B), jaxseq.cell_zeros(H)
    own = {"update": update, "params": params, "state": state, "start": start}
    init = {"key": KEY, "D": D, "Z": H, "w_h": (H, H), "dtype": "float32"}
    found["cell_init"] = jaxseq.cell_init, init
    zeros = {"widths": H, "batch": B, "dtype": "float32"}
    found["cell_zeros"] = jaxseq.cell_zeros, zeros
    found["cell_step"] = jaxseq.cell_step, {**own, **one}
    found["cell"] = jaxseq.cell, {**own, **run}
    layer = partial(jaxseq.lstm, jaxseq.lstm_init(KEY, D, H))
    upper = partial(jaxseq.gru, jaxseq.gru_init(KEY, H, H))
    zeros = jaxseq.LSTMState(np.zeros((B, H), np.float32), np.zeros((B, H), np.float32))
    found["stack"] = (
        jaxseq.stack,
        {
            **over_time,
            "layers": [layer, upper],
            "state": (zeros, zeros.h),
            "start": (zeros, zeros.h),
            "dropout": 0.5,
            "key": KEY,
        },
    )
    found["bidirectional"] = (
        jaxseq.bidirectional,
        {
            **over_time,
            "forward": layer,
            "backward": layer,
            "state": (zeros, zeros),
            "start": (zeros, zeros),
            "merge": "sum",
        },
    )
    found["cell_states"] = (
        jaxseq.cell_states,
        {"update": update, "params": params, "state": state, "start": start}
        | over_time
        | {"reverse": False},
    )
    lstm = jaxseq.lstm_init(KEY, D, H)
    found["lstm_states"] = (
        jaxseq.lstm_states,
        {
            "params": lstm,
            "state": jaxseq.lstm_zeros(lstm, B),
            "start": jaxseq.lstm_zeros(lstm),
            "reverse": False,
            **over_time,
        },
    )
    found |= attention() | losses() | searches() | models() | modules()
    dones = np.zeros((B, T), bool)
    found["resets_from_dones"] = (
        jaxseq.resets_from_dones,
        {"dones": dones, "last_done": dones[:, 0]},
    )
    return found


def attention() -> dict[str, tuple[Any, dict[str, Any]]]:
    query, keys = np.zeros((B, 2, H), np.float32), np.zeros((B, T, H), np.float32)
    own: dict[str, Any] = {"query": query, "keys": keys, "values": keys}
    own |= {"lengths": np.full(B, T), "mask": np.ones((B, 2, T), bool)}
    how = {"causal": False, "window": 3, "implementation": "xla"}
    init = {"key": KEY, "dtype": "float32"}
    widths = {"query_features": H, "key_features": H, "hidden_features": 3}
    heads = {"features": H, "num_heads": 2, "head_features": 3, "num_kv_heads": 1}
    heads |= {"key_features": H, "value_features": H, "out_features": H, "bias": True}
    additive = jaxseq.additive_init(KEY, H, H, 3)
    multi = jaxseq.multi_head_init(KEY, H, 2, 3)
    square = {"w": np.zeros((H, H), np.float32), **own}
    return {
        "additive_init": (jaxseq.additive_init, {**init, **widths}),
        "multi_head_init": (jaxseq.multi_head_init, {**init, **heads}),
        "additive_attention": (jaxseq.additive_attention, {"params": additive, **own}),
        "general_attention": (jaxseq.general_attention, square),
        "dot_attention": (jaxseq.dot_attention, {**own, **how, "scale": 0.5}),
        "multi_head_attention": (
            jaxseq.multi_head_attention,
            {"params": multi, **own, **how},
        ),
    }


def losses() -> dict[str, tuple[Any, dict[str, Any]]]:
    logits, tokens = np.zeros((B, T, V), np.float32), np.zeros((B, T), np.int32)
    valid = {"lengths": np.full(B, T), "mask": np.ones((B, T), bool)}
    labelled = {"logits": logits, "labels": tokens, **valid, "ignore": -100}
    params = jaxseq.crf_init(KEY, V)
    scored = {"params": params, "scores": logits, **valid}
    ctc = {"logits": logits, "lengths": np.full(B, T), "blank": 0}
    return {
        "cross_entropy": (jaxseq.cross_entropy, {**labelled, "label_smoothing": 0.1}),
        "perplexity": (jaxseq.perplexity, labelled),
        "crf_init": (jaxseq.crf_init, {"key": KEY, "K": V, "dtype": "float32"}),
        "crf_log_partition": (jaxseq.crf_log_partition, scored),
        "crf_score": (jaxseq.crf_score, {**scored, "tags": tokens}),
        "crf_loss": (jaxseq.crf_loss, {**scored, "tags": tokens}),
        "crf_decode": (jaxseq.crf_decode, scored),
        "ctc_greedy": (jaxseq.ctc_greedy, ctc),
        "ctc_beam_search": (jaxseq.ctc_beam_search, {**ctc, "beam": 3, "n_best": 2}),
    }


def models() -> dict[str, tuple[Any, dict[str, Any]]]:
    tokens, token = np.zeros((B, T), np.int32), np.zeros(B, np.int32)
    read = {"source": tokens, "source_lengths": np.full(B, T)}
    dropped = {"dropout": 0.5, "key": KEY}
    vocabularies = {"source_vocab": V, "target_vocab": V}
    recurrent: dict[str, Any] = {**vocabularies, "embed_features": D}
    recurrent |= {"hidden_features": H, "num_layers": 1, "bidirectional": True}
    recurrent |= {"attention": "luong", "score": "multi_head", "feed": False}
    recurrent |= {"attention_features": 4, "num_heads": 2, "cell": jaxseq.GRU}
    transformer: dict[str, Any] = {**vocabularies, "features": H, "num_heads": 2}
    transformer |= {"ff_features": 5, "num_encoder_layers": 1, "tied": True}
    transformer |= {"num_decoder_layers": 1, "positions": "learned"}
    transformer |= {"max_positions": 9, "pre_norm": True, "final_norm": True}
    transformer |= {"epsilon": 1e-5}
    init: dict[str, Any] = {"key": KEY, "dtype": "float32"}
    params = jaxseq.seq2seq_init(KEY, **recurrent)
    state = jaxseq.seq2seq_encode(params, tokens)
    found = {
        "seq2seq_init": (jaxseq.seq2seq_init, {**init, **recurrent}),
        "seq2seq_encode": (
            jaxseq.seq2seq_encode,
            {"params": params, **read, **dropped},
        ),
        "seq2seq_decode": (
            jaxseq.seq2seq_decode,
            {"params": params, "state": state, "inputs": tokens, **dropped},
        ),
        "seq2seq_decode_step": (
            jaxseq.seq2seq_decode_step,
            {"params": params, "state": state, "token": token},
        ),
    }
    params = jaxseq.transformer_init(KEY, **transformer)
    memory = jaxseq.transformer_encode(params, tokens)
    state = jaxseq.transformer_zeros(params, memory, batch=B, room=T)
    act = {"activation": jax.nn.relu}
    alone = jaxseq.transformer_init(
        KEY, features=H, num_heads=2, ff_features=5, target_vocab=V,
        num_decoder_layers=1,
    )  # fmt: skip
    return found | {
        "transformer_init": (jaxseq.transformer_init, {**init, **transformer}),
        "transformer_encode": (
            jaxseq.transformer_encode,
            {"params": params, **read, **act, **dropped},
        ),
        "transformer_decode": (
            jaxseq.transformer_decode,
            {
                "params": params,
                "memory": memory,
                "inputs": tokens,
                "lengths": np.full(B, T),
                "room": 7,
                **act,
                **dropped,
            },
        ),
        "transformer_decode sliding": (
            partial(jaxseq.transformer_decode, params, memory, tokens),
            {"window": 3},
        ),
        "transformer_zeros": (
            jaxseq.transformer_zeros,
            {"params": alone, "batch": B, "room": T},
        ),
        "transformer_zeros sliding": (
            partial(jaxseq.transformer_zeros, alone, batch=B),
            {"window": 3},
        ),
        "transformer_decode_step": (
            jaxseq.transformer_decode_step,
            {"params": params, "state": state, "token": token, **act},
        ),
    }


def modules() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each module as it is made and as it is called."""
    x = np.zeros((B, T, D), np.float32)
    made = {"dtype": "float32", "param_dtype": "float32", "rngs": nnx.Rngs(0)}
    sizes: dict[str, Any] = {"in_features": D, "hidden_features": H, "num_layers": 2}
    sizes |= {"bidirectional": True, "merge": "sum", "dropout": 0.5}
    sizes |= {"dropout_per": "sequence", **made}
    run: dict[str, Any] = {"x": x, "lengths": np.full(B, T), "reverse": False}
    run |= {"mask": np.ones((B, T), bool), "resets": np.zeros((B, T), bool)}
    run |= {"remat": 2, "implementation": "scan"}
    found: dict[str, Any] = {}
    for name, more in (
        ("RNN", {"activation": jnp.tanh}),
        ("LSTM", {"forget_bias": 1.0}),
        ("GRU", {}),
        ("Cell", {"cell": jaxseq.GRU}),
    ):
        kind = getattr(jaxseq.nn, name)
        layer = kind(**{**sizes, **more})
        found[f"nn.{name}"] = kind, {**sizes, **more}
        states = {"state": layer.zeros(B), "start": layer.zeros()}
        found[f"nn.{name}()"] = layer, {**run, **states}
    heads = {"features": H, "num_heads": 2, "num_kv_heads": 1, "key_features": H}
    heads |= {"value_features": H, "out_features": H, "bias": True, **made}
    query, keys = np.zeros((B, 2, H), np.float32), np.zeros((B, T, H), np.float32)
    given: dict[str, Any] = {"query": query, "keys": keys, "values": keys}
    given |= {"lengths": np.full(B, T), "mask": np.ones((B, 2, T), bool)}
    how = {"causal": False, "window": 3, "implementation": "xla"}
    widths = {"query_features": H, "key_features": H, **made}
    for name, options, more in (
        ("MultiHeadAttention", heads, how),
        ("GeneralAttention", widths, {}),
        ("AdditiveAttention", {**widths, "hidden_features": 3}, {}),
    ):
        kind = getattr(jaxseq.nn, name)
        found[f"nn.{name}"] = kind, options
        found[f"nn.{name}()"] = kind(**options), {**given, **more}
    return found | {"nn.CRF": (jaxseq.nn.CRF, {"num_tags": V, **made})}


def searches() -> dict[str, tuple[Any, dict[str, Any]]]:
    step = lambda state, token: (state, jnp.zeros((len(token), V)))
    same = lambda logits, tokens, n: logits
    state = np.zeros((B, 1), np.float32)
    begin = {"step": step, "state": state, "token": np.zeros(B, np.int32)}
    how = {"max_length": 3, "end": 1, "max_lengths": np.full(B, 2), "process": same}
    drawn = {"key": KEY, "temperature": 0.5, "top_k": 2, "top_p": 0.9}
    beam = {"beam": 3, "n_best": 2, "length_penalty": 0.5}
    written = {"logits": np.zeros((B, V), np.float32)}
    written |= {"tokens": np.zeros((B, 3), np.int32), "n": 2}
    prompt = {"step": step, "state": state, "prompt": np.zeros((B, T), np.int32)}
    return {
        "greedy": (jaxseq.greedy, {**begin, **how}),
        "sample": (jaxseq.sample, {**begin, **how, **drawn}),
        "beam_search": (jaxseq.beam_search, {**begin, **how, **beam}),
        "prefill": (jaxseq.prefill, {**prompt, "lengths": np.full(B, T)}),
        "at_least": (jaxseq.at_least, {**written, "end": 1, "length": 2}),
        "penalize_repetition": (
            jaxseq.penalize_repetition,
            {**written, "penalty": 1.5},
        ),
        "no_repeat_ngrams": (jaxseq.no_repeat_ngrams, {**written, "size": 2}),
    }


CALLS = calls()
ARGUMENTS = [(name, arg) for name, (_, given) in CALLS.items() for arg in given]


def parameters_of(f):
    """Of a function, a module as it is made, or one as it is called."""
    if isinstance(f, type):
        f = f.__init__
    elif isinstance(f, nnx.Module):
        f = f.__call__
    return inspect.signature(f).parameters


def wrong_values(name, arg):
    f, _ = CALLS[name]
    default = parameters_of(f)[arg].default
    for label, make in {**COMMON, **OF_KIND[KINDS[arg]]}.items():
        optional = label == "None" and default is None
        if not optional and (arg, label) not in RIGHT and (name, label) not in RIGHT:
            yield label, make


@pytest.mark.parametrize("name", CALLS)
def test_the_right_values_are_taken(name):
    f, given = CALLS[name]
    if name.startswith("nn."):  # random keys are counted, which no trace may do
        f(**given)
    else:
        jax.eval_shape(lambda: f(**given))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of JAX and NumPy
@pytest.mark.parametrize("name, arg", ARGUMENTS)
def test_a_wrong_value_is_refused_by_name(name, arg):
    f, given = CALLS[name]
    failures = []
    for label, make in wrong_values(name, arg):
        try:
            f(**{**given, arg: make()})
        except (ValueError, TypeError) as e:
            # an array of another rank says how many sequences there are: what does
            # not fit it is named
            names = "|".join(given) if label == "rank" else arg
            if not re.match(rf"({names})\b", str(e)):
                failures.append(f"{label}: {type(e).__name__}: {str(e)[:90]}")
        except Exception as e:
            failures.append(f"{label}: {type(e).__name__}: {str(e)[:90]}")
        else:
            failures.append(f"{label}: nothing was raised")
    assert not failures, "\n" + "\n".join(failures)


def test_how_many_there_are():
    assert sum(len(list(wrong_values(*each))) for each in ARGUMENTS) >= 3500
