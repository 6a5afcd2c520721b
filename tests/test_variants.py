"""The variants of the built-in cells against their published equations, in float64."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxseq
import jaxseq.nn
from jaxseq import LSTMExtra
from tests import reference_cells, reference_variants
from tests.cells import (
    BATCH,
    EVERYTHING,
    LENGTHS,
    RESETS,
    D,
    H,
    T,
    assert_close,
    assert_equations,
    assert_step,
    weighted_sum,
)
from tests.models import assert_second_derivatives, drawn

OPTIONS = {
    "loop": {"implementation": "loop"},
    "loop, everything": {"implementation": "loop", **EVERYTHING},
    "scan, everything": {"implementation": "scan", **EVERYTHING},
}


class Variant(NamedTuple):
    sequence: Callable
    step: Callable
    init: Callable  # (key, D, H)
    zeros: Callable
    reference: Callable  # of one sequence, in NumPy


def variant(
    cell: jaxseq.Cell, step: Callable, extra: Callable | None = None, **options: Any
) -> Variant:
    """Of a cell, the equations of one row, and what `init` does not draw."""

    def init(key: Any, D: int, H: int, **dtype: Any) -> Any:
        params = cell.init(key, D, H, **dtype)
        return params if extra is None else params._replace(extra=extra(params))

    return Variant(
        partial(jaxseq.cell, cell.update),
        partial(jaxseq.cell_step, cell.update),
        init,
        cell.zeros,
        reference_cells.over_time(partial(step, **options)),
    )


def rearranged(step: Callable, change: Callable) -> Callable:
    """A step of `reference_cells` on weights that lie otherwise."""
    return lambda params, state, x: step(change(params), state, x)


def of_gates(order: list[int], params: Any) -> Any:
    """Only some gates of four, in another order."""
    pick = lambda w: np.concatenate([np.split(w, 4, -1)[i] for i in order], -1)
    return pick(params.w_x), pick(params.w_h), pick(params.b)


def cifg(params: Any) -> Any:
    p = params.extra.peepholes
    return *of_gates([2, 0, 3], params), (p.i, p.o)


def layer_normalized(params: Any) -> Any:
    """Gates in the order f, i, o, g."""
    pick = lambda w: np.concatenate([np.split(w, 4, -1)[i] for i in (1, 0, 3, 2)], -1)
    n = params.extra.norms
    extra = pick(n.h), pick(n.x), n.c, n.c_bias, pick(n.b)
    return pick(params.w_x), pick(params.w_h), None, extra


b_h = lambda params: jnp.zeros_like(params.b)
extra_b_h = lambda params: LSTMExtra(b_h(params))
both = lambda params: params.extra._replace(b_h=jnp.zeros(params.w_x.shape[1]))
act, acts = jaxseq.activation, reference_variants.ACTIVATIONS
LSTM, GRU, RNN = reference_variants.lstm, reference_variants.gru, reference_variants.rnn
OTHER = {  # of ours, and in NumPy
    "gate": (act("hard_sigmoid"), lambda x: acts["hard_sigmoid"](x, 0.2, 0.5)),
    "candidate": (act("softsign"), lambda x: acts["softsign"](x, 0, 0)),
    "output": (
        act("scaled_tanh", alpha=1.7, beta=0.6),
        lambda x: acts["scaled_tanh"](x, 1.7, 0.6),
    ),
}
OURS, THEIRS = ({name: pair[i] for name, pair in OTHER.items()} for i in (0, 1))
OF_GRU = [{k: a for k, a in of.items() if k != "output"} for of in (OURS, THEIRS)]
MUCH = {"coupled": True, "clip": 0.7, "epsilon": 1e-3}
CELLS = {
    "lstm": variant(jaxseq.lstm_cell(), LSTM),
    "lstm of two biases": variant(jaxseq.lstm_cell(), LSTM, extra_b_h),
    "lstm with b_h alone": variant(
        jaxseq.lstm_cell(),
        rearranged(LSTM, lambda p: p._replace(extra=LSTMExtra(p.extra))),
        b_h,
    ),
    "peepholes": variant(
        jaxseq.lstm_cell(peepholes=True),
        rearranged(
            reference_cells.peephole_lstm,
            lambda p: p._replace(extra=p.extra.peepholes),
        ),
    ),
    "projection": variant(
        jaxseq.lstm_cell(cells=5),
        rearranged(
            reference_cells.projected_lstm,
            lambda p: p._replace(w_h=p.w_h._asdict()),
        ),
    ),
    "coupled": variant(
        jaxseq.lstm_cell(coupled=True, peepholes=True),
        rearranged(reference_cells.cifg_lstm, cifg),
    ),
    "layer norm": variant(
        jaxseq.lstm_cell(layer_norm=True),
        rearranged(reference_cells.layer_norm_lstm, layer_normalized),
    ),
    "clip": variant(jaxseq.lstm_cell(clip=0.5), LSTM, clip=0.5),
    "activations": variant(jaxseq.lstm_cell(**OURS), LSTM, **THEIRS),
    "heads": variant(jaxseq.lstm_cell(heads=2, peepholes=True), LSTM),
    "much": variant(
        jaxseq.lstm_cell(peepholes=True, layer_norm=True, cells=5, **MUCH, **OURS),
        LSTM, both, **MUCH, **THEIRS,
    ),
    "gru": variant(jaxseq.gru_cell(), GRU),
    "gru of all biases": variant(jaxseq.gru_cell(), GRU, b_h),
    "reset before": variant(
        jaxseq.gru_cell(reset_after=False),
        rearranged(
            reference_cells.reset_before_gru,
            lambda p: p._replace(w_h=p.w_h._asdict()),
        ),
    ),
    "reset before, of a bias": variant(
        jaxseq.gru_cell(reset_after=False), GRU, lambda p: jnp.zeros(H, p.b.dtype)
    ),
    "reset before, of all biases": variant(
        jaxseq.gru_cell(reset_after=False), GRU, b_h
    ),
    "gru clip and activations": variant(
        jaxseq.gru_cell(clip=0.5, **OF_GRU[0]), GRU, clip=0.5, **OF_GRU[1]
    ),
    "gru heads": variant(jaxseq.gru_cell(heads=2), GRU),
    "reset before, heads": variant(jaxseq.gru_cell(heads=2, reset_after=False), GRU),
    "rnn of two biases": variant(jaxseq.rnn_cell(), RNN, b_h),
    "rnn clip and activation": variant(
        jaxseq.rnn_cell(activation=act("elu", alpha=0.8), clip=0.5),
        RNN, b_h, clip=0.5, activation=lambda x: acts["elu"](x, 0.8, 0),
    ),
}  # fmt: skip
every_variant = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())


def random_problem(cell: Variant, shape: tuple[int, ...] = (*BATCH, T)) -> Any:
    """`(params, x, state)` as NumPy arrays."""
    rng = np.random.default_rng(7)
    params = drawn(lambda key: cell.init(key, D, H, dtype=jnp.float64), seed=0)
    zeros = jax.eval_shape(lambda: cell.zeros(params, shape[:-1]))
    state = jax.tree.map(lambda s: rng.uniform(-1, 1, s.shape), zeros)
    return params, rng.standard_normal((*shape, D)), state


@pytest.mark.every(8)
@every_variant
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_matches_equations_and_gradients_their_finite_differences(cell, options):
    assert_equations(cell, random_problem(cell), **options)


@every_variant
def test_one_step(cell):
    assert_step(cell, *random_problem(cell, (3, 1)))


def test_second_derivatives():
    cell = CELLS["reset before, heads"]
    loss = lambda *problem: weighted_sum(cell.sequence(*problem))
    assert_second_derivatives(loss, random_problem(cell, (2, 2)))


@pytest.mark.parametrize("name", sorted(reference_variants.ACTIVATIONS))
def test_activations(name):
    x = np.linspace(-4, 4, 101)
    numbers = {"affine": (1, 0), "hard_sigmoid": (0.2, 0.5), "scaled_tanh": (1, 1)}
    numbers |= {"elu": (1, 0), "leaky_relu": (0.01, 0), "thresholded_relu": (1, 0)}
    want = reference_variants.ACTIVATIONS[name]
    default = want(x, *numbers.get(name, (0, 0)))
    np.testing.assert_allclose(jaxseq.activation(name)(x), default, atol=1e-14)
    own = jaxseq.activation(name, alpha=0.3, beta=0.7)
    y = jax.jit(own)(jnp.asarray(x))
    np.testing.assert_allclose(y, want(x, 0.3, 0.7), atol=1e-14)
    for dtype in (jnp.float32, jnp.bfloat16):
        assert own(jnp.ones(2, dtype)).dtype == dtype
    assert (
        jaxseq.activation(name, alpha=0.3, beta=0.7) == own != jaxseq.activation(name)
    )


def test_all_activations_are_tested():
    with pytest.raises(ValueError, match=r"^name: expected one of \((.*)\), got") as e:
        jaxseq.activation("none")
    assert sorted(reference_variants.ACTIVATIONS) == sorted(
        eval(str(e.value).partition("one of ")[2].partition(", got")[0])
    )


MAKERS: dict[str, Callable[[], jaxseq.Cell]] = {
    "lstm": lambda: jaxseq.lstm_cell(
        gate=act("hard_sigmoid"), clip=np.float32(2), peepholes=True, heads=np.int32(2)
    ),
    "gru": lambda: jaxseq.gru_cell(reset_after=False, candidate=act("relu")),
    "rnn": lambda: jaxseq.rnn_cell(activation=act("elu", alpha=jnp.float32(0.5))),
    "zoneout": lambda: jaxseq.zoneout(jaxseq.lstm_cell(), jaxseq.LSTMState(0.1, 0.5)),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_equal_cells_are_compiled_once(make, caplog):
    """Even where the first is not held by the caller."""
    params = make().init(jax.random.key(0), D, H)
    x = jnp.ones((T, D), jnp.float32)

    def once():
        cell = make()
        jaxseq.cell(cell.update, params, x, cell.zeros(params))

    once()
    assert make() == make() and hash(make()) == hash(make())
    with jax.log_compiles():
        once()
    assert "Finished XLA compilation" not in caplog.text


def test_a_function_that_closes_over_an_array_is_let_go(few_objects):
    """Also in what is made of its cell; one of a trace would be a leak."""
    scale = jnp.ones(2)
    gate = lambda z: jax.nn.sigmoid(z * scale[0])
    cell = jaxseq.zoneout(jaxseq.gru_cell(gate=gate), 0.5)
    assert cell.update.update.gate is gate
    known = weakref.ref(gate)
    del gate, cell
    gc.collect()
    assert known() is None


def test_other_arguments_make_another_cell():
    cells = [
        jaxseq.lstm_cell(), jaxseq.lstm_cell(clip=1.0), jaxseq.lstm_cell(clip=2.0),
        jaxseq.lstm_cell(coupled=True), jaxseq.lstm_cell(peepholes=True),
        jaxseq.lstm_cell(layer_norm=True), jaxseq.lstm_cell(epsilon=1.0),
        jaxseq.lstm_cell(cells=5), jaxseq.lstm_cell(heads=2), jaxseq.gru_cell(),
        jaxseq.lstm_cell(gate=act("relu")), jaxseq.gru_cell(reset_after=False),
        jaxseq.gru_cell(heads=2), jaxseq.gru_cell(clip=1.0), jaxseq.rnn_cell(),
        jaxseq.rnn_cell(clip=1.0), jaxseq.rnn_cell(activation=act("tanh")),
    ]  # fmt: skip
    assert len(set(cells)) == len(cells)


BUILT_IN = {
    "lstm": (jaxseq.lstm_cell(), jaxseq.lstm_init),
    "gru": (jaxseq.gru_cell(), jaxseq.gru_init),
    "rnn": (jaxseq.rnn_cell(), jaxseq.rnn_init),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_without_arguments_it_is_the_built_in_cell(name):
    cell, init = BUILT_IN[name]
    assert cell.update == getattr(jaxseq, name.upper()).update
    key = jax.random.key(1)
    drawn, want = cell.init(key, D, 64), init(key, D, 64)
    for a, b in ((drawn.w_x, want.w_x), (drawn.w_h, want.w_h), (drawn.b, want.b)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a.std(), b.std(), rtol=0.2)
    np.testing.assert_array_equal(drawn.b, want.b)


def test_forget_bias_of_each_variant():
    key = jax.random.key(0)
    for options in ({}, {"cells": 6}, {"heads": 2}, {"layer_norm": True}):
        params = jaxseq.lstm_cell(**options).init(key, D, 4, forget_bias=-2.0)
        b = params.b if params.b is not None else params.extra.norms.b
        i, f, g, o = np.split(b, 4)
        assert (f == -2).all() and not i.any() and not g.any() and not o.any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@every_variant
def test_dtypes(cell, dtype):
    """Traced only: the shapes and dtypes are what is asked here."""

    def all_of_it(key, x):
        params = cell.init(key, D, H, dtype=dtype)
        params = jax.tree.map(lambda a: a.astype(dtype), params)
        return params, cell.sequence(params, x, cell.zeros(params, BATCH))

    x = jax.ShapeDtypeStruct((*BATCH, T, D), dtype)
    params, (end, y) = jax.eval_shape(all_of_it, jax.random.key(0), x)
    assert {w.dtype for w in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    assert {s.dtype for s in jax.tree.leaves(end)} == {jnp.dtype("float32")}
    assert (y.shape, y.dtype) == ((*BATCH, T, H), dtype)


@pytest.mark.parametrize(
    "cell",
    [
        jaxseq.lstm_cell(cells=6, peepholes=True),
        jaxseq.lstm_cell(heads=2, layer_norm=True),
        jaxseq.gru_cell(reset_after=False),
    ],
)
def test_stacks_of_both_directions(cell):
    """`stack` and `bidirectional` of functions are the module."""
    module = jaxseq.nn.Cell(
        cell, D, H, num_layers=2, bidirectional=True, param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    x = np.random.default_rng(3).standard_normal((*BATCH, T, D))
    options = {"lengths": LENGTHS, "resets": RESETS}

    def layer(params: Any, x: Any, state: Any = None, **options: Any) -> Any:
        state = cell.zeros(params, x.shape[:-2]) if state is None else state
        return jaxseq.cell(cell.update, params, x, state, **options)

    @nnx.jit
    def both(module, x):
        layers = [
            partial(jaxseq.bidirectional, *(partial(layer, own) for own in pair))
            for pair in module.params
        ]
        return module(x, **options), jaxseq.stack(layers, x, **options)

    assert_close(*both(module, x))


SECOND = {
    "rnn": (jaxseq.rnn, jaxseq.rnn_init, "b_h", 1),
    "lstm": (jaxseq.lstm, jaxseq.lstm_init, "b_h", 4),
    "gru": (jaxseq.gru, jaxseq.gru_init, "b_hn", 3),
}


def second_bias(name: str) -> Any:
    """Weights with a second bias, and the same with it in the first.

    Of a GRU all but the candidate's part of it.
    """
    _, init, field, gates = SECOND[name]
    params = drawn(lambda key: init(key, D, H, dtype=jnp.float64), seed=2)
    second = np.random.default_rng(4).standard_normal(gates * H)
    if name == "gru":
        moved = np.concatenate([second[: 2 * H], np.zeros(H)])
        one = params._replace(b=params.b + moved, b_hn=second[2 * H :])
    else:
        one = params._replace(b=params.b + second)
    return params._replace(**{field: second}), one


@pytest.mark.every(2)
@pytest.mark.parametrize("name", SECOND)
def test_a_second_bias_of_the_built_in_cells(name):
    sequence, *_ = SECOND[name]
    two, one = second_bias(name)
    x = np.random.default_rng(5).standard_normal((*BATCH, T, D))

    def both(run):
        loss = lambda params: sum(a.sum() for a in jax.tree.leaves(run(params)))
        return jax.jit(lambda *p: [(run(a), jax.grad(loss)(a)) for a in p])(two, one)

    for options in ({"implementation": "loop"}, {"implementation": "scan"}, EVERYTHING):
        (got, d_got), (want, d_want) = both(lambda p, o=options: sequence(p, x, **o))
        assert_close(got, want)
        assert_close((d_got.b, d_got.w_h), (d_want.b, d_want.w_h))
        second = d_got.b_hn[2 * H :] if name == "gru" else d_got.b_h
        assert_close(second, d_want.b_hn if name == "gru" else d_want.b)
    if name == "lstm":
        assert_close(jaxseq.lstm_states(two, x), jaxseq.lstm_states(one, x))
    none = two._replace(**{SECOND[name][2]: None})
    grads = jax.grad(lambda p: sequence(p, x)[1].sum())(none)
    assert getattr(grads, SECOND[name][2]) is None


@pytest.mark.parametrize("name", SECOND)
def test_a_second_bias_in_modules_and_models(name):
    two, one = second_bias(name)
    x = np.random.default_rng(5).standard_normal((*BATCH, T, D))
    kind = {"rnn": jaxseq.nn.RNN, "lstm": jaxseq.nn.LSTM, "gru": jaxseq.nn.GRU}[name]

    def of_module(params):
        module = kind(D, H, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        module.weights = nnx.data((jax.tree.map(nnx.Param, params),))
        state, _ = module(x)
        return state, module.step(state, x[..., 0, :])

    assert_close(of_module(two), of_module(one))
    cell = getattr(jaxseq, name.upper())
    model = drawn(
        lambda key: jaxseq.seq2seq_init(
            key, source_vocab=5, embed_features=D, hidden_features=H, cell=cell,
            bidirectional=False, attention=None, dtype=jnp.float64,
        ),
        seed=6,
    )  # fmt: skip
    tokens = np.array([[1, 2, 3], [4, 0, 1]])

    def of_model(params):
        params = model._replace(encoder=((params,),), decoder=(params,))
        state = jaxseq.seq2seq_encode(params, tokens)
        state, _ = jaxseq.seq2seq_decode_step(params, state, tokens[:, 0])
        return jaxseq.seq2seq_decode(params, state, tokens)[1]

    assert_close(of_model(two), of_model(one))


K = jax.random.key(0)
ONES = jnp.ones((2, T, D), jnp.float32)


def with_extra(cell: jaxseq.Cell, H: int = 4, **parts: Any) -> Callable[[], Any]:
    def call() -> Any:
        params = cell.init(K, D, H)._replace(**parts)
        return jaxseq.cell(cell.update, params, ONES, cell.zeros(params, 2))

    return call


F32 = partial(jnp.zeros, dtype=jnp.float32)
PEEP = jaxseq.Peepholes(F32(4), F32(1), F32(4))
NORMS = jaxseq.LSTMNorms(F32(16), F32(16), F32(1), F32(4), F32(16))
ERRORS: dict[str, Callable[[], Any]] = {
    "gate: expected a function, got 1": lambda: jaxseq.lstm_cell(gate=1),
    "output: expected a function, got None": lambda: jaxseq.lstm_cell(output=None),
    "clip: expected a number above 0, got 0": lambda: jaxseq.lstm_cell(clip=0),
    "clip: expected a number above 0, got nan": lambda: jaxseq.gru_cell(
        clip=float("nan")
    ),
    "clip: expected a number above 0 that is known, got one that is traced": (
        lambda: jax.jit(lambda c: jaxseq.rnn_cell(clip=c))(1.0)
    ),
    "epsilon: expected a number above 0, got -1": lambda: jaxseq.lstm_cell(epsilon=-1),
    "alpha: expected a finite number, got inf": lambda: jaxseq.activation(
        "elu", alpha=float("inf")
    ),
    "coupled: expected True or False, got 1": lambda: jaxseq.lstm_cell(coupled=1),
    "heads: expected a size of at least 1, got 0": lambda: jaxseq.gru_cell(heads=0),
    "cells: expected a size of at least 1, got 0": lambda: jaxseq.lstm_cell(cells=0),
    "heads: expected 1 with a projection, got 2": lambda: jaxseq.lstm_cell(
        cells=4, heads=2
    ),
    "H: expected a multiple of 3, the number of heads, got 4": lambda: jaxseq.lstm_cell(
        heads=3
    ).init(K, D, 4),
    "H: expected a size of at least 1, got 0": lambda: jaxseq.gru_cell().init(K, D, 0),
    "D: expected a size of at least 1, got 0": lambda: jaxseq.rnn_cell().init(K, 0, 4),
    "key: expected a random key, got 0": lambda: jaxseq.rnn_cell().init(0, D, 4),
    "forget_bias: expected a finite number, got nan": lambda: jaxseq.lstm_cell().init(
        K, D, 4, forget_bias=float("nan")
    ),
    "params.extra.peepholes.f: expected shape (4,), got (1,)": with_extra(
        jaxseq.lstm_cell(), extra=LSTMExtra(None, PEEP)
    ),
    "params.extra.norms.c: expected shape (4,), got (1,)": with_extra(
        jaxseq.lstm_cell(), extra=LSTMExtra(None, None, NORMS)
    ),
    "params.extra.b_h: expected shape (16,), got (1,)": with_extra(
        jaxseq.lstm_cell(), extra=F32(1)
    ),
    "params.extra: expected shape (4,) or (12,), got (1,)": with_extra(
        jaxseq.gru_cell(), extra=F32(1)
    ),
    "params.extra: expected shape (4,), got (1,)": with_extra(
        jaxseq.rnn_cell(), extra=F32(1)
    ),
    "z_x: expected shape (16,), got (1,)": with_extra(
        jaxseq.lstm_cell(), w_x=F32((D, 1)), b=None
    ),
    "z_x: expected shape (12,), got (1,)": with_extra(
        jaxseq.gru_cell(), w_x=F32((D, 1)), b=None
    ),
    "params.w_h: expected shape (2, H / 2, Z / 2), got (4, 16)": with_extra(
        jaxseq.lstm_cell(heads=2), w_h=F32((4, 16))
    ),
    "params.w_h: expected shape (H, Z), got (2, 2, 6)": with_extra(
        jaxseq.gru_cell(), w_h=F32((2, 2, 6))
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message):
    with pytest.raises(ValueError) as e:
        ERRORS[message]()
    assert str(e.value) == message
