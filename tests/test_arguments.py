"""Every public argument with wrong kinds of values: each is refused by its name."""

import inspect
import re
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.errors import ScopeParamShapeError

import jaxseq
import jaxseq.nn
from tests.arguments import KEY, B, D, T, V, right_values


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
    "extra": "any tree",
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
    **dict.fromkeys(("recurrent_dropout", "zoneout", "weight_drop", "rate"), "rate"),
    **dict.fromkeys(("gate", "candidate", "output"), "function"),
    **dict.fromkeys(("clip", "alpha", "beta"), "number"),
    **dict.fromkeys(("coupled", "peepholes", "layer_norm", "reset_after"), "flag"),
    "deterministic": "flag",
    "cells": "size",
    "heads": "size",
    "name": "choice",
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
    "time_major": "flag",
    "final_norm": "flag",
    **dict.fromkeys(("attention", "score", "positions", "dropout_per"), "choice"),
    "epsilon": "number",
    **dict.fromkeys(("source", "inputs"), "tokens"),
    "source_lengths": "lengths",
    "memory": "tree",
    "cell": "tree",
    "rngs": "tree",
    "param_dtype": "dtype",
    **{"carry": "tree", "batch_size": "batch", "hidden_size": "size"},
}
KINDS |= {"path": "path", "weights": "any tree", "like": "any tree", "config": "dict"}
KINDS |= {"a": "array", "b": "array", "layer": "function", "chunk": "size"}
KINDS |= dict.fromkeys(("axis", "batch_axis", "mesh"), "choice")
KINDS |= {"body": "function", "init": "any tree", "xs": "any tree", "unroll": "unroll"}
OF_KIND["any tree"] = {}
OF_KIND["dict"] = {"list": lambda: [1.0], "number": lambda: 1.5}
OF_KIND["path"] = {**OF_KIND["dict"], "bool": lambda: True, "bytes": lambda: b"abc"}
OF_KIND["share"] = {
    k: v for k, v in OF_KIND["rate"].items() if k not in ("one", "array")
}
OF_KIND["whole"] = {
    k: v for k, v in OF_KIND["size"].items() if k not in ("zero", "negative")
}
OF_KIND["count"] = {k: v for k, v in OF_KIND["size"].items() if k != "zero"}
OF_KIND["unroll"] = {k: v for k, v in OF_KIND["count"].items() if k != "bool"}
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
DTYPES = "ints", "complex"
# what some of these mean where they are not wrong
RIGHT = {
    ("w_h", "None"),
    ("init", "None"),  # a state with no arrays
    ("weights", "None"),  # a tree of none
    ("path", "str"),
    ("a", "complex"),  # if b is
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
    # the cell says what dtypes it takes
    *(
        (f"{package}.over_time", dtype)
        for package in ("nn", "linen")
        for dtype in DTYPES
    ),
}


FUNCTIONS = [n for n in jaxseq.__all__ if inspect.isfunction(getattr(jaxseq, n))]


def of_module(name):
    """A function, or a module as it is made, and each method that is not Flax's."""
    kind, flax = getattr(jaxseq.nn, name), dir(nnx.Module)
    if inspect.isfunction(kind):
        return [f"nn.{name}"]
    own = [n for n in dir(kind) if n not in flax and callable(getattr(kind, n))]
    methods = [n for n in own if n == "__call__" or not n.startswith("_")]
    return [f"nn.{name}", *(f"nn.{name}.{method}" for method in methods)]


NAMES = [*FUNCTIONS, *chain.from_iterable(map(of_module, jaxseq.nn.__all__))]
NAMES += [name for name in right_values() if name.startswith("linen.")]


def parameters_of(f):
    """Of a function, a module as it is made, or one as it is called."""
    signature = inspect.signature(f.__init__ if isinstance(f, type) else f)
    return {k: v for k, v in signature.parameters.items() if k != "self"}


def wrong_values(name, arg):
    default = parameters_of(right_values()[name][0])[arg].default
    for label, make in {**COMMON, **OF_KIND[KINDS[arg]]}.items():
        optional = label == "None" and default is None
        if not optional and (arg, label) not in RIGHT and (name, label) not in RIGHT:
            yield label, make


def shown(array):
    raise AssertionError("an array was shown that is not wrong")


@pytest.fixture
def none_is_shown(monkeypatch):
    """To show an array takes long and waits for its values: only what is wrong is."""
    for name in ("__repr__", "__str__"):
        monkeypatch.setattr(type(KEY), name, shown)


@pytest.mark.parametrize("name", NAMES)
def test_the_right_values_are_taken(name, none_is_shown):
    f, given = right_values()[name]
    assert set(given) == set(parameters_of(f))
    if isinstance(f, type):  # keys are counted, which must not be in another trace
        nnx.eval_shape(lambda: f(**{**given, "rngs": nnx.Rngs(0)}))
    else:
        called = []  # which may be text
        jax.eval_shape(lambda: called.append(f(**given)))


# quick ones that run for real, with the numbers that may be arrays too
NUMBERS = {
    "lstm_zeros": ["batch"],
    "cell_zeros": ["widths", "batch"],
    "transformer_zeros": ["room"],
    "rnn_init": ["D", "H"],
    "multi_head_init": ["num_heads", "bias"],
    "lstm_step": [],
    "cell_step": [],
    "resets_from_dones": [],
    "dot_attention": ["causal", "window", "scale"],
    "cross_entropy": ["ignore", "label_smoothing"],
    "crf_score": [],
    "ctc_greedy": ["blank"],
    "at_least": ["n", "end", "length"],
    "penalize_repetition": ["n", "penalty"],
    "no_repeat_ngrams": ["n", "size"],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_arrays_are_taken_and_not_shown(name, none_is_shown):
    f, given = right_values()[name]
    is_array = lambda a: isinstance(a, np.ndarray)
    arrays = jax.tree.map(lambda a: jnp.asarray(a) if is_array(a) else a, given)
    f(**arrays | {number: jnp.asarray(given[number]) for number in NUMBERS[name]})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of JAX and NumPy
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_value_is_refused_by_name(name):
    f, given = right_values()[name]
    failures = []
    for arg in given:
        for label, make in wrong_values(name, arg):
            # an array of another rank says how many sequences there are: what does
            # not fit it is named
            names = "|".join(given) if label == "rank" else arg
            try:
                f(**{**given, arg: make()})
                failures.append(f"{arg}, {label}: nothing was raised")
            except Exception as e:
                if isinstance(e, ScopeParamShapeError) and arg == "x":
                    continue  # Flax's own, of another width than the weights have
                refused = isinstance(e, ValueError | TypeError)
                if not refused or not re.match(rf"({names})\b", str(e)):
                    failures.append(
                        f"{arg}, {label}: {type(e).__name__}: {str(e)[:90]}"
                    )
    assert not failures, "\n" + "\n".join(failures)


def test_how_many_there_are():
    values = [
        v for n in NAMES for a in right_values()[n][1] for v in wrong_values(n, a)
    ]
    assert len(values) >= 4800
