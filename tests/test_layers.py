"""Stacks and directions over any cell, against the equations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from tests.cells import CELLS, assert_close, every_cell, expected, random_problem

LENGTHS = np.array([5, 0, 3])
RESETS = np.random.default_rng(2).random((3, 5)) < 0.4
OPTIONS = {"lengths": LENGTHS, "resets": RESETS}


def problems(cell, widths):
    """A problem for each layer, the k-th of input width `widths[k]`, hidden 4."""
    return [
        random_problem(cell, batch=(3,), T=5, D=D, H=4, seed=k)
        for k, D in enumerate(widths)
    ]


@every_cell
@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_stack(cell, options):
    (p, x, s), (q, _, t) = problems(cell, [3, 4])
    layers = [partial(cell.sequence, params) for params in (p, q)]
    end_1, y = expected(cell, p, x, s, **options)
    end_2, y = expected(cell, q, y, t, **options)
    assert_close(jaxseq.stack(layers, x, (s, t), **options), ((end_1, end_2), y))
    zeros = jax.tree.map(np.zeros_like, (s, t))
    assert_close(
        jaxseq.stack(layers, x, **options), jaxseq.stack(layers, x, zeros, **options)
    )


@every_cell
@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_stack_reversed(cell, options):
    (p, x, s), (q, _, t) = problems(cell, [3, 4])
    layers = [partial(cell.sequence, params) for params in (p, q)]
    end_1, y = expected(cell, p, x, s, reverse=True, **options)
    end_2, y = expected(cell, q, y, t, reverse=True, **options)
    found = jaxseq.stack(layers, x, (s, t), reverse=True, **options)
    assert_close(found, ((end_1, end_2), y))


@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_stack_of_both_directions_reversed(options):
    """What was read forward is read backward, and the other way."""
    cell = CELLS["gru"]
    (p, x, s), (q, _, t), (r, _, u) = problems(cell, [3, 3, 8])
    p, q, r = (partial(cell.sequence, params) for params in (p, q, r))
    params = [layer.args[0] for layer in (p, q, r)]
    pair = partial(jaxseq.bidirectional, p, q)
    end_f, y_f = expected(cell, params[0], x, s, reverse=True, **options)
    end_b, y_b = expected(cell, params[1], x, t, **options)
    y = np.concatenate([y_f, y_b], -1)
    end, y = expected(cell, params[2], y, u, reverse=True, **options)
    found = jaxseq.stack([pair, r], x, ((s, t), u), reverse=True, **options)
    assert_close(found, (((end_f, end_b), end), y))


MASK = np.random.default_rng(4).random((3, 5)) < 0.7
LONG = {"lengths": LENGTHS, "mask": MASK, "resets": RESETS}


@pytest.mark.parametrize("options", [{}, OPTIONS, LONG], ids=["", "lengths", "mask"])
def test_a_stack_as_backward_layer(options):
    """As with the valid steps of each sequence put in the opposite order by hand."""
    cell = CELLS["lstm"]
    (p, x, s), (q, _, t), (r, _, u) = problems(cell, [3, 3, 4])
    layers = [partial(cell.sequence, params) for params in (p, q, r)]
    forward, deep = layers[0], partial(jaxseq.stack, layers[1:])
    found = jaxseq.bidirectional(forward, deep, x, (s, (t, u)), **options)
    end_f, y_f = forward(x, s, **options)
    valid = np.arange(5) < options.get("lengths", np.full(3, 5))[:, None]
    valid &= options.get("mask", np.ones_like(valid))
    ends, y_b = [], np.zeros((3, 5, 4))
    for i in range(3):
        at = np.flatnonzero(valid[i])[::-1]
        # what was the last step of a segment is the first now
        resets = options.get("resets", np.zeros_like(valid))[i]
        begins = np.array([False, *resets[at][:-1]])[: len(at)]
        first = jax.tree.map(lambda a, i=i: a[i], (t, u))
        end, y = deep(x[i][at], first, resets=begins)
        y_b[i, at] = y
        ends.append(end)
    end_b = jax.tree.map(lambda *a: np.stack(a), *ends)
    assert_close(found, ((end_f, end_b), np.concatenate([y_f, y_b], -1)))


@every_cell
@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_bidirectional(cell, options):
    (p, x, s), (q, _, t) = problems(cell, [3, 3])
    layers = [partial(cell.sequence, params) for params in (p, q)]
    end_f, y_f = expected(cell, p, x, s, **options)
    end_b, y_b = expected(cell, q, x, t, reverse=True, **options)
    for merge, y in {
        "concat": np.concatenate([y_f, y_b], -1),
        "sum": y_f + y_b,
        "mean": (y_f + y_b) / 2,
        None: (y_f, y_b),
    }.items():
        got = jaxseq.bidirectional(*layers, x, (s, t), merge=merge, **options)
        assert_close(got, ((end_f, end_b), y))
    assert_close(
        jaxseq.bidirectional(*layers, x, **options),
        jaxseq.bidirectional(
            *layers, x, jax.tree.map(np.zeros_like, [s, t]), merge="concat", **options
        ),
    )


def test_different_cells_in_one_stack():
    lstm, gru = CELLS["lstm"], CELLS["gru"]
    p, x, s = random_problem(lstm, T=5, D=3, H=4)
    q, _, t = random_problem(gru, T=5, D=4, H=2)
    layers = [partial(jaxseq.lstm, p), partial(jaxseq.gru, q)]
    end_1, y = expected(lstm, p, x, s)
    end_2, y = expected(gru, q, y, t)
    assert_close(jaxseq.stack(layers, x, (s, t)), ((end_1, end_2), y))


def test_padding_reaches_no_gradient_through_layers():
    cell = CELLS["lstm"]
    (p, x, _), (q, _, _), (r, _, _) = problems(cell, [3, 3, 8])
    padding = np.arange(5) >= LENGTHS[:, None]

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def run(params, x):
        p, q, r = (partial(jaxseq.lstm, w) for w in params)
        layers = [partial(jaxseq.bidirectional, p, q), r]
        return jaxseq.stack(layers, x, **OPTIONS)[1].sum()

    clean = run((p, q, r), np.where(padding[..., None], 0, x))
    dirty = run((p, q, r), np.where(padding[..., None], np.nan, x))
    assert_close(dirty, clean)
    assert np.isfinite(dirty[0])


def identity(x, state=None, *, lengths=None, resets=None, reverse=False):
    return state, x


def doubled(x, state=None, **options):
    return state, jnp.concatenate([x, x], -1)


def test_dropout_between_layers():
    """Zeros at the given rate, the rest scaled up; nothing after the last layer."""
    x, key = jnp.ones((4, 100, 50)), jax.random.key(0)
    run = partial(jaxseq.stack, x=x, dropout=0.25, key=key)
    np.testing.assert_array_equal(run([identity], key=None)[1], x)
    _, y = run([identity, identity])
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75])
    # 20,000 draws: a standard deviation of 0.003
    np.testing.assert_allclose((y == 0).mean(), 0.25, atol=0.015)
    assert (y == 0).any(axis=(0, 2)).all() and (y[0] != y[1]).any()
    np.testing.assert_array_equal(run([identity, identity])[1], y)  # the same key
    assert (run([identity, identity], key=jax.random.key(1))[1] != y).any()
    inputs = []

    def spy(x, state=None, **options):
        inputs.append(x)
        return state, x

    _, y = run([spy] * 3)
    rates = [(a == 0).mean() for a in (*inputs, y)]
    np.testing.assert_allclose(rates[1:], 1 - 0.75 ** np.array([1, 2, 2]), atol=0.015)
    assert rates[0] == 0 and rates[3] == rates[2]
    _, y16 = run([identity, identity], x=x.astype(jnp.bfloat16))
    assert y16.dtype == jnp.bfloat16
    traced = jax.jit(lambda rate: run([identity, identity], dropout=rate)[1])
    np.testing.assert_allclose(traced(0.25), run([identity, identity])[1])
    np.testing.assert_array_equal(traced(0.0), x)


def test_dropout_per_sequence():
    """One draw for each sequence between two layers, the same at all its steps."""
    x, key = jnp.ones((200, 3, 100)), jax.random.key(0)
    outputs = []

    def spy(x, state=None, **options):
        outputs.append(x)
        return state, x

    how = {"dropout": 0.25, "dropout_per": "sequence", "key": key}
    jaxseq.stack([spy] * 3, x, **how)
    first, second = outputs[1], outputs[2] / outputs[1]
    for y in (first, second):
        np.testing.assert_array_equal(y, jnp.broadcast_to(y[:, :1], y.shape))
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.75])
    # 20,000 draws: a standard deviation of 0.003
    np.testing.assert_allclose((first[:, 0] == 0).mean(), 0.25, atol=0.015)
    assert (first[0] != first[1]).any()
    dropped = [outputs[1] == 0, outputs[2] == 0]
    rate = (dropped[1] & ~dropped[0]).sum() / (~dropped[0]).sum()
    np.testing.assert_allclose(rate, 0.25, atol=0.02)
    alone = jaxseq.stack([identity] * 2, x[0], **how)[1]
    np.testing.assert_array_equal(alone, jnp.broadcast_to(alone[:1], alone.shape))


@pytest.mark.parametrize(
    "message, call",
    {
        "layers: expected at least one layer, got 0": lambda: jaxseq.stack([], 0),
        "layers: expected a list or tuple of layers, got function": lambda: (
            jaxseq.stack(identity, 0)
        ),
        "layers: expected a list or tuple of layers, got NoneType": lambda: (
            jaxseq.stack(None, 0)
        ),
        "layers: expected a list or tuple of layers, got generator": lambda: (
            jaxseq.stack((layer for layer in [identity]), 0)
        ),
        "layers: expected a list or tuple of layers, got LSTMParams": lambda: (
            jaxseq.stack(jaxseq.LSTMParams(0, 0, 0), 0)
        ),
        "layers[1]: expected a function, such as partial(lstm, params), got "
        "LSTMParams": lambda: jaxseq.stack([identity, jaxseq.LSTMParams(0, 0, 0)], 0),
        "layers[0]: expected one array as outputs, got tuple": lambda: jaxseq.stack(
            [partial(jaxseq.bidirectional, identity, identity, merge=None), identity],
            jnp.zeros((5, 3)),
            dropout=0.5,
            key=jax.random.key(0),
        ),
        "forward: expected a function, such as partial(lstm, params), got NoneType": (
            lambda: jaxseq.bidirectional(None, identity, 0)
        ),
        "backward: expected a function, such as partial(lstm, params), got str": (
            lambda: jaxseq.bidirectional(identity, "lstm", 0)
        ),
        "reverse: expected True or False, got 'yes'": lambda: jaxseq.stack(
            [identity], 0, reverse="yes"
        ),
        "reverse: expected True or False, got 1": lambda: jaxseq.bidirectional(
            identity, identity, 0, reverse=1
        ),
        "dropout: expected a probability in [0, 1), got '.5'": lambda: jaxseq.stack(
            [identity], 0, dropout=".5"
        ),
        "dropout: expected a probability in [0, 1), got None": lambda: jaxseq.stack(
            [identity], 0, dropout=None
        ),
        "dropout_per: expected one of ('step', 'sequence'), got 'layer'": lambda: (
            jaxseq.stack([identity], 0, dropout_per="layer")
        ),
        "dropout: expected a probability in [0, 1), got 1": lambda: jaxseq.stack(
            [identity], 0, dropout=1
        ),
        "dropout: expected a probability in [0, 1), got -0.1": lambda: jaxseq.stack(
            [identity], 0, dropout=-0.1
        ),
        "key: expected a random key for dropout, got None": lambda: jaxseq.stack(
            [identity] * 2, 0, dropout=0.1
        ),
        "state: expected a tuple of 2, one for each layer, got a tuple of 1": lambda: (
            jaxseq.stack([identity] * 2, 0, (0,))
        ),
        # which has two rows, and could be taken apart
        "state: expected a tuple of 2, one for each layer, got ArrayImpl": lambda: (
            jaxseq.stack([identity] * 2, 0, jnp.zeros((2, 3)))
        ),
        "state: expected a pair (forward, backward), got int": lambda: (
            jaxseq.bidirectional(identity, identity, 0, 0)
        ),
        "state: expected a pair (forward, backward), got a tuple of 3": lambda: (
            jaxseq.bidirectional(identity, identity, 0, (0, 0, 0))
        ),
        "state: expected a pair (forward, backward), got LSTMState": lambda: (
            jaxseq.bidirectional(identity, identity, 0, jaxseq.LSTMState(0, 0))
        ),
        "backward: expected outputs (5, 3), got (5, 6)": lambda: jaxseq.bidirectional(
            identity, doubled, jnp.zeros((5, 3)), merge="sum"
        ),
        "backward: expected outputs (5, 6), got (5, 3)": lambda: jaxseq.bidirectional(
            doubled, identity, jnp.zeros((5, 3)), merge="mean"
        ),
        "merge: expected one of ('concat', 'sum', 'mean', None), got 'max'": lambda: (
            jaxseq.bidirectional(identity, identity, 0, merge="max")
        ),
    }.items(),
)
def test_errors(message, call):
    with pytest.raises(ValueError) as e:
        call()
    assert str(e.value) == message


@every_cell
def test_resets_from_dones(cell):
    """As an agent would run: after each done, the next step starts from zeros."""
    params, x, state = random_problem(cell, T=6, D=3, H=4)
    dones = np.array([False, True, False, True, True, False])
    _, y = cell.sequence(params, x, state, resets=jaxseq.resets_from_dones(dones))
    for t in range(6):
        state, y_t = expected(cell, params, x[t : t + 1], state)
        assert_close(y[t], y_t[0])
        if dones[t]:
            state = jax.tree.map(np.zeros_like, state)


def test_resets_from_dones_in_pieces():
    dones = np.random.default_rng(0).random((3, 8)) < 0.5
    whole = jaxseq.resets_from_dones(dones)
    first = jaxseq.resets_from_dones(dones[:, :5])
    second = jaxseq.resets_from_dones(dones[:, 5:], dones[:, 4])
    np.testing.assert_array_equal(np.concatenate([first, second], 1), whole)
    np.testing.assert_array_equal(whole[:, 0], False)
    np.testing.assert_array_equal(whole[:, 1:], dones[:, :-1])
    assert jaxseq.resets_from_dones(dones[:, :0]).shape == (3, 0)
    as_lists = jaxseq.resets_from_dones(dones[:, 5:].tolist(), dones[:, 4].tolist())
    np.testing.assert_array_equal(as_lists, second)
    assert jaxseq.resets_from_dones([True, False], False).tolist() == [False, True]
