"""Wrong arguments: a ValueError that names the argument, the need and what came."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq._base.check import check_tokens
from tests.cells import CELLS, every_cell, random_problem, to_jax

LSTM = CELLS["lstm"]
PARAMS, X, STATE = to_jax(random_problem(LSTM, batch=(2,), T=5, D=3, H=4))
GRU_PARAMS = to_jax(random_problem(CELLS["gru"], T=5, D=3, H=4)[0])
RNN_PARAMS = to_jax(random_problem(CELLS["rnn"], T=5, D=3, H=4)[0])
H = jnp.zeros((2, 4))
KEY = jax.random.key(0)
DONES = jnp.zeros((2, 5), bool)
IMPLEMENTATIONS = "None, 'scan', 'loop', 'native' or 'pallas'"


RUN = partial(jaxseq.lstm, PARAMS)
PAIR = partial(jaxseq.bidirectional, RUN, RUN, merge=None)


def lstm(params=PARAMS, x=X, state=STATE, **options):
    return lambda: jaxseq.lstm(params, x, state, **options)


def rnn(**options):
    return lambda: jaxseq.rnn(RNN_PARAMS, X, **options)


AS_X = ", as x is (..., T, D)"
TIME = "; where time comes first, use jax.vmap or swapaxes"
CASES = {
    # x
    "x: expected an array, got NoneType": lstm(x=None),
    "x: expected shape (..., T, 3), got (2, 5, 2)": lstm(x=X[..., :2]),
    "x: expected shape (..., T, 3), got (3,)": lstm(x=X[0, 0]),
    "x: expected shape (..., 3), got ()": lambda: jaxseq.lstm_step(
        PARAMS, STATE, jnp.zeros(())
    ),
    "x: expected dtype float64, that of params, got float32": lstm(
        x=X.astype(jnp.float32)
    ),
    "x: expected dtype float64, that of params, got int64": lstm(x=X.astype(int)),
    "x: expected an array, got list": lstm(x=X.tolist()),
    "x: expected an array, got tuple": lambda: jaxseq.stack([PAIR, PAIR], X),
    # state
    "state: expected LSTMState(h, c), got tuple": lstm(state=(H, H)),
    "state: expected LSTMState(h, c), got ArrayImpl": lstm(state=H),
    "state.h: expected shape (2, 4), got (4,)": lstm(state=jaxseq.LSTMState(H[0], H)),
    "state.c: expected shape (2, 4), got (2, 3)": lstm(
        state=jaxseq.LSTMState(H, H[:, :3])
    ),
    "state.c: expected dtype float64, got float32": lstm(
        state=jaxseq.LSTMState(H, H.astype(jnp.float32))
    ),
    "state: expected an array, got LSTMState": lambda: jaxseq.gru(GRU_PARAMS, X, STATE),
    "state: expected an array, got tuple": lambda: jaxseq.rnn(RNN_PARAMS, X, (H,)),
    "state: expected an array, got list": lambda: jaxseq.rnn(RNN_PARAMS, X, [H]),
    "state: expected an array, got dict": lambda: jaxseq.gru(GRU_PARAMS, X, {"h": H}),
    "state.h: expected an array, got NoneType": lstm(state=jaxseq.LSTMState(None, H)),
    "state: expected shape (2, 4), got (2, 5)": lambda: jaxseq.gru(
        GRU_PARAMS, X, jnp.zeros((2, 5))
    ),
    # params
    "params: expected LSTMParams, got GRUParams": lstm(params=GRU_PARAMS),
    "params: expected RNNParams, got tuple": lambda: jaxseq.rnn(tuple(RNN_PARAMS), X),
    "params.w_h: expected shape (4, 16), got (4, 12)": lstm(
        params=PARAMS._replace(w_h=PARAMS.w_h[:, :12])
    ),
    "params.w_x: expected shape (3, 16), got (3, 15)": lstm(
        params=PARAMS._replace(w_x=PARAMS.w_x[:, :15])
    ),
    "params.b: expected shape (16,), got (4,)": lstm(
        params=PARAMS._replace(b=PARAMS.b[:4])
    ),
    "params.b_hn: expected shape (4,) or (12,), got (8,)": lambda: jaxseq.gru(
        GRU_PARAMS._replace(b_hn=GRU_PARAMS.b[:8]), X
    ),
    "params.b_h: expected shape (16,), got (1,)": lstm(
        params=PARAMS._replace(b_h=PARAMS.b[:1])
    ),
    "params.b: expected dtype float64, got float32": lstm(
        params=PARAMS._replace(b=PARAMS.b.astype(jnp.float32))
    ),
    "params: expected w_x and w_h of rank 2, or both of rank 3, got ranks (3, 2)": lstm(
        params=PARAMS._replace(w_x=PARAMS.w_x[None])
    ),
    "params: expected w_x and w_h of rank 2, or both of rank 3, got ranks (2, 3)": lstm(
        params=PARAMS._replace(w_h=PARAMS.w_h[None])
    ),
    "params.w_x: expected a dtype among ('float64', 'float32', 'bfloat16', "
    "'float16'), got int32": lstm(
        params=jax.tree.map(lambda w: w.astype("int32"), PARAMS)
    ),
    "params.w_x: expected an array, got list": lstm(
        params=PARAMS._replace(w_x=[[1.0]])
    ),
    "params.w_h: expected an array, got NoneType": lstm(
        params=PARAMS._replace(w_h=None)
    ),
    # lengths and resets
    f"lengths: expected shape (2,){AS_X}, got (){TIME}": lstm(lengths=jnp.array(3)),
    f"lengths: expected shape (2,){AS_X}, got (5,){TIME}": lstm(lengths=jnp.arange(5)),
    "lengths: expected an array, got [None, 1]": lstm(lengths=[None, 1]),
    "lengths: expected an array, got 'abc'": lstm(lengths="abc"),
    "lengths: expected an integer dtype, got float64": lstm(lengths=jnp.ones(2)),
    "lengths: expected values from 0 to 5, got 6": lstm(lengths=jnp.array([6, 1])),
    "lengths: expected values from 0 to 5, got -1": lstm(lengths=np.array([-1, 1])),
    "resets: expected dtype bool, got float64": lstm(resets=jnp.zeros((2, 5))),
    f"resets: expected shape (2, 5){AS_X}, got (5, 2){TIME}": lstm(resets=DONES.T),
    f"mask: expected shape (2, 5){AS_X}, got (5,){TIME}": lstm(mask=DONES[0]),
    # options
    f"implementation: expected {IMPLEMENTATIONS}, got 'fast'": lstm(
        implementation="fast"
    ),
    "reverse: expected True or False, got 'yes'": lstm(reverse="yes"),
    "reverse: expected True or False, got None": lambda: jaxseq.lstm_states(
        PARAMS, X, reverse=None
    ),
    "activation: expected a function, got 'relu'": rnn(activation="relu"),
    "activation: expected a function that gives float64 (4,), got float16 (4,)": rnn(
        activation=lambda a: jnp.tanh(a).astype(jnp.float16)
    ),
    "activation: expected a function that gives float64 (4,), got int64 (4,)": rnn(
        activation=lambda a: jnp.sign(a).astype(int)
    ),
    "activation: expected a function that gives float64 (4,), got float64 ()": rnn(
        activation=jnp.sum
    ),
    "activation: expected a function that gives float64 (4,), got NoneType": rnn(
        activation=lambda a: None
    ),
    "forget_bias: expected a finite number, got None": lambda: jaxseq.lstm_init(
        KEY, 3, 4, forget_bias=None
    ),
    "forget_bias: expected a finite number, got nan": lambda: jaxseq.lstm_init(
        KEY, 3, 4, forget_bias=float("nan")
    ),
    "forget_bias: expected a finite number, got float64 (3,)": lambda: jaxseq.lstm_init(
        KEY, 3, 4, forget_bias=jnp.zeros(3)
    ),
    "H: expected a size of at least 1, got True": lambda: jaxseq.lstm_init(
        KEY, 3, True
    ),
    "batch: expected a size of at least 0, or a tuple of such, got -1": lambda: (
        jaxseq.lstm_zeros(PARAMS, -1)
    ),
    "batch: expected a size of at least 0, or a tuple of such, got None": lambda: (
        jaxseq.gru_zeros(GRU_PARAMS, None)
    ),
    "batch: expected a size of at least 0, or a tuple of such, got True": lambda: (
        jaxseq.rnn_zeros(RNN_PARAMS, True)
    ),
    "batch: expected a size of at least 0, or a tuple of such, got [2]": lambda: (
        jaxseq.cell_zeros(4, [2])
    ),
    "batch: expected a size of at least 0, or a tuple of such, got (2, 'a')": lambda: (
        jaxseq.lstm_zeros(PARAMS, (2, "a"))
    ),
    "D: expected a size of at least 1, got 0": lambda: jaxseq.lstm_init(KEY, 0, 4),
    "D: expected a size of at least 1, got 3.0": lambda: jaxseq.lstm_init(KEY, 3.0, 4),
    "H: expected a size of at least 1, got -1": lambda: jaxseq.gru_init(KEY, 3, -1),
    "dtype: expected a dtype among ('float64', 'float32', 'bfloat16', 'float16'), "
    "got int32": lambda: jaxseq.rnn_init(KEY, 3, 4, dtype="int32"),
    "dones: expected dtype bool, got float64": lambda: jaxseq.resets_from_dones(
        jnp.zeros((2, 5))
    ),
    "dones: expected shape (..., T), got ()": lambda: jaxseq.resets_from_dones(True),
    "last_done: expected shape (2,), got (5,)": lambda: jaxseq.resets_from_dones(
        DONES, DONES[0]
    ),
    "last_done: expected dtype bool, got float64": lambda: jaxseq.resets_from_dones(
        DONES, jnp.zeros(2)
    ),
}


def message_of(call, *args, **kwargs):
    with pytest.raises(ValueError) as e:
        call(*args, **kwargs)
    return str(e.value)


@pytest.mark.parametrize("message", CASES)
def test_message(message):
    assert message_of(CASES[message]) == message


@every_cell
def test_every_function_checks_params_and_state(cell):
    params, x, state = to_jax(random_problem(cell, batch=(2,), T=5, D=3, H=4))
    kind, Z = cell.params, cell.gates * 4
    wrong = PARAMS if kind is jaxseq.GRUParams else GRU_PARAMS
    wrong_b = params._replace(b=params.b[:3])
    for call in (
        lambda params: cell.sequence(params, x, state),
        lambda params: cell.step(params, state, x[:, 0]),
        cell.zeros,
    ):
        want = f"params: expected {kind.__name__}, got {type(wrong).__name__}"
        assert message_of(call, wrong) == want
        assert message_of(call, wrong_b) == f"params.b: expected shape ({Z},), got (3,)"
    is_lstm = kind is jaxseq.LSTMParams
    for call in (
        lambda state: cell.sequence(params, x, state),
        lambda state: cell.step(params, state, x[:, 0]),
    ):
        want = "LSTMState(h, c)" if is_lstm else "an array"
        assert message_of(call, (H, H)) == f"state: expected {want}, got tuple"
        # of one sequence, which would broadcast
        one = jax.tree.map(lambda s: s[0], state)
        name = "state.h" if is_lstm else "state"
        assert message_of(call, one) == f"{name}: expected shape (2, 4), got (4,)"
    want = f"implementation: expected {IMPLEMENTATIONS}, got 'fast'"
    assert message_of(cell.sequence, params, x, implementation="fast") == want


def test_lengths_are_checked_before_they_wrap():
    """Without x64 an int64 array becomes int32, in which this one is a good 3."""
    with jax.enable_x64(False):
        wrong = lstm(
            *to_jax((PARAMS, X, STATE), "f4"), lengths=np.array([2**32 + 3, 1])
        )
        want = "lengths: expected values from 0 to 5, got 4294967299"
        assert message_of(wrong) == want


def test_messages_under_jit():
    with pytest.raises(ValueError, match="x: expected shape"):
        jax.jit(jaxseq.lstm)(PARAMS, X[..., :2])
    # a length that only the run knows is taken as T, or as 0, where it is beyond
    far, full = jnp.array([9, -3]), jnp.array([5, 0])
    run = jax.jit(lambda n: jaxseq.lstm(PARAMS, X, STATE, lengths=n))
    np.testing.assert_array_equal(run(far)[1], run(full)[1])
    with pytest.raises(ValueError, match="lengths: expected values from 0 to 5, got 9"):
        jax.jit(lambda: jaxseq.lstm(PARAMS, X, lengths=np.array([9, 1])))()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_tokens_of_the_padding_are_read_as_zeros(wrap):
    """Whatever they are, so that no table is read out of its bounds."""
    inside = np.array([True, False, False])
    check = wrap(lambda tokens: check_tokens(tokens, "tokens", 5, inside))
    np.testing.assert_array_equal(check(np.array([3, 100, -7])), [3, 0, 0])
