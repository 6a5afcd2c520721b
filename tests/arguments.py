"""A right value for each argument of each public function, module and method."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxseq
import jaxseq.linen
import jaxseq.nn

B, T, D, H, V = 2, 5, 3, 4, 6
Given = dict[str, Any]


@cache
def right_values() -> dict[str, tuple[Callable[..., Any], Given]]:
    """Each by its name: what is called, and with what."""
    functions = (
        cells() | variants() | scans() | layers() | attention() | losses() | searches()
    )
    functions |= models() | files()
    called = {name: (getattr(jaxseq, name), its) for name, its in functions.items()}
    called |= recurrent_modules() | attention_modules() | model_modules()
    return called | flax_cells() | linen_modules()


def floats(*shape: int) -> jax.Array:
    return jnp.asarray(np.zeros(shape, np.float32))


# the values of these are looked at, which is quicker in NumPy
ints = lambda *shape: np.zeros(shape, np.int32)
flags = lambda *shape: np.zeros(shape, np.bool_)


def zeros_of(f: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Zeros of the shapes of what `f` gives; it is not run."""
    found = jax.eval_shape(lambda: f(*args, **options))
    return jax.tree.map(lambda a: jnp.asarray(np.zeros(a.shape, a.dtype)), found)


def made(kind: Callable[..., Any], options: Given) -> Any:
    """A module with weights of zeros."""
    module = nnx.eval_shape(lambda: kind(**{**options, "rngs": nnx.Rngs(0)}))
    graph, state = nnx.split(module)
    return nnx.merge(graph, zeros_of(lambda: state))


def methods(kind: str, options: Given, **given: Given) -> dict[str, Any]:
    """A module as it is made, and its methods with the values given by name."""
    init = getattr(jaxseq.nn, kind)
    module = made(
        init, {**options, "dropout": 0.0} if "dropout" in options else options
    )
    found = {f"nn.{kind}": (init, {**options, **MADE})}
    for name, its in given.items():
        found[f"nn.{kind}.{name}"] = getattr(module, name), its
    return found


def update(z: Any, h: Any, w: Any, _: Any) -> Any:
    return jnp.tanh(z + w(h))


KEY = jax.random.key_data(jax.random.key(0))
MADE: Given = {"dtype": "float32", "param_dtype": "float32", "rngs": nnx.Rngs(0)}
DRAWN: Given = {"key": KEY, "dtype": "float32"}
DROPPED: Given = {"dropout": 0.5, "key": KEY}
VALID: Given = {"lengths": ints(B) + T, "mask": ~flags(B, T)}
OVER_TIME: Given = {"x": floats(B, T, D), **VALID, "resets": flags(B, T)}
RUN: Given = {"reverse": False, "remat": 2, "implementation": "scan"}
LAYOUT: Given = {"reverse": False, "time_major": False}
ONE_STEP: Given = {"x": floats(B, D), "resets": flags(B)}


def cells() -> dict[str, Given]:
    found: dict[str, Given] = {}
    for name, drawn, own in (
        ("rnn", {}, {"activation": jnp.tanh}),
        ("lstm", {"forget_bias": 1.0}, {}),
        ("gru", {}, {}),
    ):
        init, zeros = getattr(jaxseq, f"{name}_init"), getattr(jaxseq, f"{name}_zeros")
        params = zeros_of(init, KEY, D, H)
        state, start = zeros_of(zeros, params, B), zeros_of(zeros, params)
        given = {"params": params, "state": state, "start": start}
        found[f"{name}_init"] = {**DRAWN, "D": D, "H": H, **drawn}
        found[f"{name}_zeros"] = {"params": params, "batch": B}
        found[f"{name}_step"] = {**given, **own, **ONE_STEP}
        found[name] = {**given, **own, **OVER_TIME, **RUN}
        if name == "lstm":
            found["lstm_states"] = {**given, **OVER_TIME, "reverse": False}
    params = zeros_of(jaxseq.cell_init, KEY, D, H, (H, H))
    given = {"update": update, "params": params}
    given |= {"state": floats(B, H), "start": floats(H)}
    sequence = {**given, "zeros": H, **OVER_TIME}
    return found | {
        "cell_init": {**DRAWN, "D": D, "Z": H, "w_h": (H, H), "extra": floats(H)},
        "cell_zeros": {"widths": H, "batch": B, "dtype": "float32"},
        "cell_step": {**given, **ONE_STEP},
        "cell_states": {**sequence, "reverse": False},
        "cell": {**sequence, **RUN},
    }


def variants() -> dict[str, Given]:
    functions: Given = {"gate": jnp.tanh, "candidate": jnp.tanh, "clip": 2.0}
    gru = zeros_of(jaxseq.gru_init, KEY, D, H)
    rates: Given = {"dropout": 0.5, "recurrent_dropout": 0.5, "zoneout": 0.5}
    dropping = {"cell": jaxseq.GRU, "params": gru, "key": KEY, "deterministic": False}
    dropping |= {"state": floats(B, H), "start": floats(H)}
    return {
        "activation": {"name": "elu", "alpha": 0.5, "beta": 0.5},
        "lstm_cell": {
            **functions, "output": jnp.tanh, "coupled": False, "peepholes": True,
            "layer_norm": True, "epsilon": 1e-3, "cells": 3, "heads": 1,
        },
        "gru_cell": {**functions, "reset_after": False, "heads": 2},
        "rnn_cell": {"activation": jnp.tanh, "clip": 2.0},
        "zoneout": {"cell": jaxseq.GRU, "rate": 0.5},
        "cell_dropout": {**rates, **dropping, **OVER_TIME, **RUN},
        "weight_drop": {"params": gru, "rate": 0.5, "key": KEY},
    }  # fmt: skip


def files() -> dict[str, Given]:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    jaxseq.save(folder, floats(D), config={"D": D})
    given: Given = {"path": folder}
    return {
        "load": {**given, "like": floats(D)},
        "load_arrays": given,
        "load_config": given,
        "save": {**given, "weights": floats(D), "config": {"D": D}},
    }


def scans() -> dict[str, Given]:
    w = floats(D, D)
    body = lambda h, x: (jnp.tanh(x + h @ w), x)
    given: Given = {"body": body, "init": floats(B, D), "xs": floats(T, B, D)}
    given |= {"length": T}
    return {
        "linear_scan": {**linear_scan(), **VALID, "reverse": False, **over("time")},
        "scan": {**given, "reverse": False, "unroll": 1, "remat": 2},
        "explain": given,
        "native_available": {},
    }


def linear_scan() -> Given:
    return {"a": floats(B, T, D), "b": floats(B, T, D), "state": floats(B, D)}


def over(axis: str) -> Given:
    """A mesh of one device, in which all arguments have something to say."""
    kinds = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((1, 1), ("d", axis), axis_types=kinds)
    return {"axis": axis, "batch_axis": "d", "mesh": mesh}


def layers() -> dict[str, Given]:
    lower = partial(jaxseq.lstm, zeros_of(jaxseq.lstm_init, KEY, D, H))
    upper = partial(jaxseq.gru, zeros_of(jaxseq.gru_init, KEY, H, H))
    state = jaxseq.LSTMState(floats(B, H), floats(B, H))
    stacked = {"state": (state, state.h), "start": (state, state.h)}
    both = {"state": (state, state), "start": (state, state)}
    ordered = {**OVER_TIME, "reverse": False}
    return {
        "stack": {
            "layers": [lower, upper],
            **ordered,
            **stacked,
            **DROPPED,
            "dropout_per": "sequence",
        },
        "bidirectional": {
            "forward": lower,
            "backward": lower,
            **ordered,
            **both,
            "merge": "sum",
        },
        "resets_from_dones": {"dones": flags(B, T), "last_done": flags(B)},
        "wavefront": {
            "layer": jaxseq.lstm,
            "params": [lower.args[0]],
            "state": [state],
            **OVER_TIME,
            **over("layer"),
            "reverse": False,
            "chunk": 2,
        },
    }


WIDTHS: Given = {"query_features": H, "key_features": H}
HEADS: Given = {"features": H, "num_heads": 2, "num_kv_heads": 1, "bias": True}
HEADS |= {"key_features": H, "value_features": H, "out_features": H}
ATTEND: Given = {"query": floats(B, 2, H), "keys": floats(B, T, H)}
ATTEND |= {"values": floats(B, T, H), "lengths": ints(B) + T}
ATTEND |= {"mask": ~flags(B, 2, T)}
DOT: Given = {"causal": False, "window": 3, "implementation": "xla"}


def attention() -> dict[str, Given]:
    additive = zeros_of(jaxseq.additive_init, KEY, H, H, 3)
    multi = zeros_of(jaxseq.multi_head_init, KEY, H, 2, 3)
    return {
        "additive_init": {**DRAWN, **WIDTHS, "hidden_features": 3},
        "multi_head_init": {**DRAWN, **HEADS, "head_features": 3},
        "additive_attention": {"params": additive, **ATTEND},
        "general_attention": {"w": floats(H, H), **ATTEND},
        "dot_attention": {**ATTEND, **DOT, "scale": 0.5},
        "multi_head_attention": {"params": multi, **ATTEND, **DOT},
    }


SCORED: Given = {"scores": floats(B, T, V), **VALID}
TAGGED: Given = {**SCORED, "tags": ints(B, T)}


def losses() -> dict[str, Given]:
    labelled = {"logits": floats(B, T, V), "labels": ints(B, T), **VALID}
    labelled |= {"ignore": -100}
    params = zeros_of(jaxseq.crf_init, KEY, V)
    ctc = {"logits": floats(B, T, V), "lengths": ints(B) + T, "blank": 0}
    return {
        "cross_entropy": {**labelled, "label_smoothing": 0.1},
        "perplexity": labelled,
        "crf_init": {**DRAWN, "K": V},
        "crf_log_partition": {"params": params, **SCORED},
        "crf_score": {"params": params, **TAGGED},
        "crf_loss": {"params": params, **TAGGED},
        "crf_decode": {"params": params, **SCORED},
        "ctc_greedy": ctc,
        "ctc_beam_search": {**ctc, "beam": 3, "n_best": 2},
        "ctc_steps": {"labels": ints(B, T), "lengths": ints(B) + T},
    }


def searches() -> dict[str, Given]:
    step = partial(lambda w, state, token: (state, w[token]), floats(V, V))
    begin = {"step": step, "state": floats(B, 1), "token": ints(B)}
    how = {"max_length": 3, "end": 1, "max_lengths": ints(B) + 2}
    how |= {"process": lambda logits, tokens, n: logits}
    drawn = {"key": KEY, "temperature": 0.5, "top_k": 2, "top_p": 0.9}
    beam = {"beam": 3, "n_best": 2, "length_penalty": 0.5}
    prompt = {"prompt": ints(B, T), "lengths": ints(B) + T}
    written = {"logits": floats(B, V), "tokens": ints(B, 3), "n": 2}
    return {
        "greedy": {**begin, **how},
        "sample": {**begin, **how, **drawn},
        "beam_search": {**begin, **how, **beam},
        "prefill": {"step": step, "state": floats(B, 1), **prompt},
        "at_least": {**written, "end": 1, "length": 2},
        "penalize_repetition": {**written, "penalty": 1.5},
        "no_repeat_ngrams": {**written, "size": 2},
    }


READ: Given = {"source": ints(B, T), "source_lengths": ints(B) + T}
DECODED: Given = {"inputs": ints(B, T), "lengths": ints(B) + T}
DECODED |= {"room": 7, "window": None}
RECURRENT: Given = {"source_vocab": V, "target_vocab": V, "embed_features": D}
RECURRENT |= {"hidden_features": H, "num_layers": 1, "bidirectional": True}
RECURRENT |= {"attention": "luong", "score": "multi_head", "feed": False}
RECURRENT |= {"attention_features": 4, "num_heads": 2, "cell": jaxseq.GRU}
PAIR: Given = {"source_vocab": V, "target_vocab": V, "features": H, "num_heads": 2}
PAIR |= {"ff_features": 5, "num_encoder_layers": 1, "num_decoder_layers": 1}
PAIR |= {"positions": "learned", "max_positions": 9, "tied": True, "epsilon": 1e-5}
PAIR |= {"pre_norm": True, "final_norm": True}


def seq2seq_params() -> tuple[Any, Any]:
    """The weights, and a state of the decoder."""
    params = zeros_of(jaxseq.seq2seq_init, KEY, **RECURRENT)
    return params, zeros_of(jaxseq.seq2seq_encode, params, ints(B, T))


def transformer_params() -> tuple[Any, Any, Any]:
    """The weights, a memory and a state of the decoder."""
    params = zeros_of(jaxseq.transformer_init, KEY, **PAIR)
    memory = zeros_of(jaxseq.transformer_encode, params, ints(B, T))
    return params, memory, zeros_of(jaxseq.transformer_zeros, params, memory, room=T)


def models() -> dict[str, Given]:
    params, state = seq2seq_params()
    own = {"params": params, "cell": jaxseq.GRU}
    found: dict[str, Given] = {
        "seq2seq_init": {**DRAWN, **RECURRENT},
        "seq2seq_encode": {**own, **READ, **DROPPED},
        "seq2seq_decode": {**own, "state": state, "inputs": ints(B, T), **DROPPED},
        "seq2seq_decode_step": {**own, "state": state, "token": ints(B)},
    }
    params, memory, state = transformer_params()
    own = {"params": params, "activation": jax.nn.relu}
    given = {"memory": memory, **DECODED}
    return found | {
        "transformer_init": {**DRAWN, **PAIR},
        "transformer_encode": {**own, **READ, **DROPPED},
        "transformer_decode": {**own, **given, **DROPPED},
        "transformer_zeros": {
            "params": params,
            "memory": memory,
            "batch": B,
            "room": T,
            "window": None,
        },
        "transformer_decode_step": {**own, "state": state, "token": ints(B)},
    }


def recurrent_modules() -> dict[str, Any]:
    sizes: Given = {"in_features": D, "hidden_features": H, "num_layers": 2}
    how: Given = {"merge": "sum", "dropout": 0.5, "dropout_per": "sequence"}
    how |= dict.fromkeys(("recurrent_dropout", "zoneout", "weight_drop"), 0.5)
    found: dict[str, Any] = {}
    for kind, own in (
        ("RNN", {"activation": jnp.tanh}),
        ("LSTM", {"forget_bias": 1.0}),
        ("GRU", {}),
        ("Cell", {"cell": jaxseq.GRU}),
    ):
        init = getattr(jaxseq.nn, kind)
        layer = made(init, {**sizes, **own})
        given = {"state": layer.zeros(B), "start": layer.zeros()}
        both = {**sizes, **how, **own, "bidirectional": True}
        found |= {
            f"nn.{kind}": (init, {**both, **MADE}),
            f"nn.{kind}.__call__": (layer, {**OVER_TIME, **given, **RUN}),
            f"nn.{kind}.step": (layer.step, {**ONE_STEP, **given}),
            f"nn.{kind}.zeros": (layer.zeros, {"batch": B}),
        }
    return found


def flax_cells() -> dict[str, Any]:
    cell = nn.GRUCell(H)
    weights = zeros_of(cell.init, KEY, floats(B, H), floats(B, D))
    cells = nnx.GRUCell(D, H, rngs=nnx.Rngs(0)), cell.bind(weights)
    over = {"state": floats(B, H), **OVER_TIME, **LAYOUT, "remat": 2}
    return {
        f"{package.__name__.partition('.')[2]}.over_time": (
            package.over_time,
            {"cell": cell, **over},
        )
        for package, cell in zip((jaxseq.nn, jaxseq.linen), cells, strict=True)
    }


def linen_modules() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, own in (("RNN", ()), ("LSTM", ()), ("GRU", ()), ("Cell", (jaxseq.GRU,))):
        layer = getattr(jaxseq.linen, kind)(*own, H, num_layers=2)
        layer = layer.bind(zeros_of(layer.init, KEY, floats(B, T, D)))
        given = {"state": layer.zeros(B), "start": layer.zeros()}
        run = {**OVER_TIME, **given, **RUN, "deterministic": True}
        found |= {
            f"linen.{kind}.__call__": (layer, run),
            f"linen.{kind}.step": (layer.step, {**ONE_STEP, **given}),
            f"linen.{kind}.zeros": (layer.zeros, {"batch": B}),
        }
    rollout = jaxseq.linen.ScannedRNN(H)
    given = {"carry": floats(B, H), "x": (floats(T, B, D), flags(T, B))}
    rollout = rollout.bind(zeros_of(rollout.init, KEY, **given))
    begun = {"batch_size": B, "hidden_size": H, "cell": jaxseq.GRU}
    return found | {
        "linen.ScannedRNN.__call__": (rollout, given),
        "linen.ScannedRNN.initialize_carry": (rollout.initialize_carry, begun),
    }


def attention_modules() -> dict[str, Any]:
    additive = {**WIDTHS, "hidden_features": 3}
    return {
        **methods("AdditiveAttention", additive, __call__=ATTEND),
        **methods("GeneralAttention", WIDTHS, __call__=ATTEND),
        **methods("MultiHeadAttention", HEADS, __call__={**ATTEND, **DOT}),
    }


def model_modules() -> dict[str, Any]:
    (_, start), (_, memory, state) = seq2seq_params(), transformer_params()
    dropped, inputs, token = (
        {"dropout": 0.5},
        {"inputs": ints(B, T)},
        {"token": ints(B)},
    )
    return {
        **methods(
            "Seq2Seq",
            {**RECURRENT, **dropped},
            __call__={**READ, **inputs},
            encode=READ,
            decode={"state": start, **inputs},
            decode_step={"state": start, **token},
        ),
        **methods(
            "Transformer",
            {**PAIR, **dropped, "activation": jax.nn.relu},
            __call__={**READ, **inputs, "lengths": ints(B) + T, "window": 3},
            encode=READ,
            decode={"memory": memory, **DECODED},
            zeros={"memory": memory, "batch": B, "room": None, "window": 3},
            decode_step={"state": state, **token},
        ),
        **methods(
            "CRF",
            {"num_tags": V},
            loss=TAGGED,
            score=TAGGED,
            log_partition=SCORED,
            decode=SCORED,
        ),
    }
