"""Calls of all that the native kernels do, forward and backward."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxseq
from examples.cells.layer_norm_lstm import LAYER_NORM_LSTM
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU
from examples.cells.slstm import SLSTM
from jaxseq._base.dtypes import state_dtype
from tests.native.calls import Call, calls_of, write
from tests.native.problems import normal, random_weights

# B, T, D, H: rows in one block and in several, odd widths, a width of one, matrices
# that are packed and, for few steps, that are not, no rows, no steps, and few rows with
# steps that are worth sharing among threads
SHAPES = [(3, 4, 5, 37), (70, 3, 4, 24), (2, 3, 1, 1), (5, 1, 3, 8), (0, 3, 2, 3)]
SHAPES += [(3, 0, 2, 3), (1, 9, 16, 33), (33, 12, 3, 17), (1, 2, 7, 251)]
SHAPES += [(3, 4, 6, 203)]
CELLS = {
    "reset": RESET_BEFORE_GRU,
    "projected": PROJECTED_LSTM,
    "norm": LAYER_NORM_LSTM,
    "peephole": PEEPHOLE_LSTM,
    "multiplicative": MULTIPLICATIVE_LSTM,
    "blocks": SLSTM,
    "heads": jaxseq.lstm_cell(heads=3),
}
OPTIONS = "", "lengths", "mask resets", "start resets", "lengths mask resets start"


def there_and_back(run: Any, *args: Any) -> Any:
    """The values by themselves, then with what is saved, and the gradients."""
    out, pull = jax.vjp(run, *args)
    return run(*args), pull(jax.tree.map(jnp.cos, out))


def layer(op: str, shape: Any, dtype: Any) -> list[Call]:
    B, T, D, H = shape
    params = random_weights(getattr(jaxseq, f"{op}_init"), D, H, dtype=dtype)
    f = lambda params, x: getattr(jaxseq, op)(params, x, implementation="native")
    run = lambda *args: there_and_back(f, *args)
    return calls_of(run, params, normal(1, B, T, D, dtype=dtype))


def cell(cell: Any, shape: Any, names: str, reverse: bool, dtype: Any) -> list[Call]:
    B, T, D, H = shape
    rng = np.random.default_rng(2)
    masks = {
        "lengths": jnp.asarray(rng.integers(0, T + 1, B)),
        "mask": jnp.asarray(rng.random((B, T)) < 0.6),
        "resets": jnp.asarray(rng.random((B, T)) < 0.3),
    }
    options = {k: a for k, a in masks.items() if k in names.split()}
    params = random_weights(cell.init, D, H, dtype=dtype)
    zeros = jax.eval_shape(lambda: cell.zeros(params, (B,)))
    state = jax.tree.map(lambda a: np.full(a.shape, 0.5, a.dtype), zeros)
    start = jax.tree.map(np.cos, state) if "start" in names else None

    def f(params: Any, x: Any, state: Any, start: Any) -> Any:
        how = {**options, "start": start, "reverse": reverse}
        return jaxseq.cell(
            cell.update, params, x, state, **how, implementation="native"
        )

    run = lambda *args: there_and_back(f, *args)
    return calls_of(run, params, normal(1, B, T, D, dtype=dtype), state, start)


def body(B: int, dtype: Any) -> list[Call]:
    """A scan, of two inputs, whose body has weights of its own in it."""
    w, u = normal(1, 3, 9, dtype=dtype), normal(2, 18, 9, dtype=dtype) / 4

    def run(u: Any, a: Any, state: Any, xs: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            h, k = state
            new = jnp.tanh(x[0] @ w + jnp.concatenate([h * a, k], -1) @ u + x[1])
            return (new, h), (new, k * a)

        return jaxseq.scan(step, state, xs)

    xs = normal(3, 6, B, 3, dtype=dtype), normal(4, 6, B, 9, dtype=dtype)
    state = normal(5, B, 9, dtype=dtype), normal(6, B, 9, dtype=dtype)
    args = u, normal(7, 9, dtype=dtype), state, xs
    return calls_of(lambda *args: there_and_back(run, *args), *args)


def ensemble(op: str, M: int, shape: Any, dtype: Any) -> list[Call]:
    """Members of one layer, of which all but one kind of weights differ."""
    B, T, D, H = shape
    params = random_weights(getattr(jaxseq, f"{op}_init"), D, H, dtype=dtype)
    w_h = normal(2, M, *params.w_h.shape, dtype=dtype)
    own = params._replace(w_h=w_h)
    axes = jax.tree.map(lambda _: None, params)._replace(w_h=0)
    f = lambda params, x: getattr(jaxseq, op)(params, x, implementation="native")
    run = jax.vmap(partial(there_and_back, f), (axes, 0))
    return calls_of(run, own, normal(1, M, B, T, D, dtype=dtype))


def in_blocks(shape: Any, dtype: Any) -> list[Call]:
    """A cell whose matrices are blocks: each is a member of a call for gradients."""
    B, T, D, H = shape
    w_x, w_h = normal(1, D, 4 * H), normal(2, 2, H, 2 * H)
    params = jaxseq.CellParams(w_x, w_h, normal(3, 4 * H))
    params = jax.tree.map(lambda a: (a / 4).astype(dtype), params)

    def f(params: Any, x: Any) -> Any:
        update = lambda z, h, w, _: jnp.tanh((z + w(h)).reshape(2, -1)).prod(0)
        how = {"zeros": 2 * H, "implementation": "native"}
        return jaxseq.cell(update, params, x, **how)

    run = lambda *args: there_and_back(f, *args)
    return calls_of(run, params, normal(4, B, T, D, dtype=dtype))


def integers(B: int, dtype: Any) -> list[Call]:
    """A scan with integers in its state, its inputs and its outputs."""
    w = normal(1, 9, 9, dtype=dtype)

    def step(state: Any, x: Any) -> Any:
        (h, t, n), (token, k) = state, x
        u, bits = n.astype(jnp.uint32), token << (t & 3)
        odd = (n // (token - 1) + n % 3) * (1 - token) + jnp.abs(bits)
        u = (u // (u % 7) + (u >> 3)).astype(jnp.int32) ^ (-5 >> token)
        best = lax.argmax(h, 1, jnp.int32)
        n = jnp.minimum(jnp.maximum(odd, u), 10**6) + best[:, None] + k
        h = lax.switch(t % 4, (jnp.tanh, jnp.sin, jnp.cos), h @ w)
        h = h * jnp.cos(n.astype(h.dtype))
        whole = (9 * h).astype(jnp.int32)
        n = n + jnp.cumsum(whole, axis=-1, dtype=jnp.int32) + count(9)
        sums = n.max(-1), n.sum(-1, dtype=jnp.int32), (n > 0).astype(jnp.uint8)
        return (h, t + 1, n), (h, n, *sums)

    count = lambda n: jnp.arange(n, dtype=jnp.int32)
    xs = count(6) - 3, count(6 * B).reshape(6, B, 1)
    state = normal(2, B, 9, dtype=dtype), jnp.int32(0), count(9 * B).reshape(B, 9)
    run = lambda w, state, xs: jaxseq.scan(step, state, xs)
    calls = calls_of(run, w, state, xs)
    assert any(any(call.integers) for call in calls)
    return calls


def members(M: int, shape: Any, masked: bool, dtype: Any) -> list[Call]:
    """An ensemble, whose members have weights of their own, and the state in common."""
    B, T, D, H = shape
    rng = np.random.default_rng(2)
    options = {"lengths": jnp.asarray(rng.integers(0, T + 1, B))} if masked else {}
    params = random_weights(jaxseq.gru_init, D, H, dtype=dtype)
    some = lambda a: (a + normal(3, M, *a.shape) / 9).astype(dtype)
    several = jax.tree.map(some, params)

    def run(params: Any, x: Any, h: Any) -> Any:
        f = lambda *a: jaxseq.gru(*a, **options, implementation="native")
        return jax.vmap(lambda params: there_and_back(f, params, x, h))(params)

    sums = state_dtype(dtype)
    x, h = normal(1, B, T, D, dtype=dtype), normal(4, B, H, dtype=sums)
    return calls_of(run, several, x, h)


def of_one_matrix(B: int, T: int, H: int) -> list[Call]:
    """All calls of an update that has little to compute, in small whole numbers."""

    def f(params: Any, x: Any) -> Any:
        update = lambda z_x, h, w_h, extra: 0.5 * h + z_x
        return jaxseq.cell(update, params, x, zeros=H, implementation="native")

    params = jaxseq.CellParams(jnp.ones((1, H), jnp.float32), None, None)
    x = jnp.ones((B, T, 1), jnp.float32)
    return calls_of(lambda *args: there_and_back(f, *args), params, x)


def several_axes(dtype: Any) -> list[Call]:
    """A body whose rows have two axes, with a weight for each row, and one for all."""
    w, scale, bias = normal(1, 9, 9, dtype=dtype) / 3, normal(2, 2, 3, 9), normal(3, 9)

    def run(weights: Any, state: Any, xs: Any) -> Any:
        w, scale, bias = weights

        def step(h: Any, x: Any) -> Any:
            h = jnp.tanh(h @ w * scale + bias + x)
            return h, (h * h).sum(-1)

        return jaxseq.scan(step, state, xs)

    weights = w, scale.astype(dtype), bias.astype(dtype)
    args = weights, normal(4, 2, 3, 9, dtype=dtype), normal(5, 4, 2, 3, 9, dtype=dtype)
    return calls_of(lambda *args: there_and_back(run, *args), *args)


def shared(B: int, dtype: Any) -> list[Call]:
    """A body in which rows have in common a counter, and numbers of each step."""
    w, a = normal(1, 9, 9, dtype=dtype), normal(2, 9, dtype=dtype)

    def run(w: Any, a: Any, h: Any, xs: Any) -> Any:
        def step(state: Any, now: Any) -> Any:
            (h, t), (x, n) = state, now
            part = jnp.exp(-a * a) * jnp.sin(n) + jnp.abs(a).max()
            new = jnp.tanh(h @ w + x.mean(-1, keepdims=True) * part)
            periods = jnp.arange(1, 10, dtype=jnp.int32)
            h = jnp.where(t % periods == 0, new, h * jnp.exp(-a * a))
            return (h, t + 1), (h, t)

        return jaxseq.scan(step, (h, jnp.int32(0)), xs)

    xs = normal(3, 6, B, 3, dtype=dtype), normal(4, 6, dtype=dtype)
    args = w, a, normal(5, B, 9, dtype=dtype), xs
    return calls_of(lambda *args: there_and_back(run, *args), *args)


def shared_in_pieces(dtype: Any) -> list[Call]:
    """What is computed of weights alone, in steps that threads share."""
    H = 203
    w, a = normal(1, H, H, dtype=dtype) / 9, normal(2, H, dtype=dtype)

    def run(w: Any, a: Any, h: Any, xs: Any) -> Any:
        step = lambda h, x: (jnp.tanh((h @ w) * jax.nn.softplus(a) + x),) * 2
        return jaxseq.scan(step, h, xs)

    args = w, a, normal(3, 2, H, dtype=dtype), normal(4, 5, 2, H, dtype=dtype)
    return calls_of(lambda *args: there_and_back(run, *args), *args)


def cases() -> dict[str, Callable[[], list[Call]]]:
    """The calls of each case."""
    found: dict[str, Callable[[], list[Call]]] = {}
    dtypes = jnp.float32, jnp.float64
    for i, shape in enumerate(SHAPES):
        for k, dtype in enumerate(dtypes):
            a = ("lstm", "gru", "rnn")[(i + k) % 3], shape, dtype
            found[f"{a[0]}-{i}-{k}"] = lambda a=a: layer(*a)
    for i, (name, one) in enumerate(CELLS.items()):
        # of unlike blocks, and few rows whose columns are shared
        odd, even = [(5, 7, 3, 9), (37, 4, 2, 8), (3, 3, 4, 203)], [12, 24, 204]
        for k, shape in enumerate(odd):
            if name in ("blocks", "heads"):
                shape = *shape[:3], even[k]
            names, dtype = OPTIONS[(i + k) % len(OPTIONS)], dtypes[(i + k) % 2]
            a = one, shape, names, bool((i + k) // 2 % 2), dtype
            found[f"{name}-{k}"] = lambda a=a: cell(*a)
    for i, dtype in enumerate((*dtypes, jnp.bfloat16, jnp.float16)):
        found[f"body-{i}"] = lambda a=(6, dtype): body(*a)
    for i, dtype in enumerate(dtypes):
        found[f"integers-{i}"] = lambda a=(5, dtype): integers(*a)
        found[f"shared-{i}"] = lambda a=(37, dtype): shared(*a)
        found[f"shared-pieces-{i}"] = lambda a=dtype: shared_in_pieces(a)
    for i, shape in enumerate(SHAPES):
        a = "gru", shape, (jnp.bfloat16, jnp.float16)[i % 2]
        found[f"half-{i}"] = lambda a=a: layer(*a)
    # with rows enough for gradients by the kernels; shared by threads and not
    for i, shape in enumerate([(33, 2, 3, 17), (1, 66, 4, 9), (2, 3, 1, 5)]):
        a = ("gru", "lstm", "rnn")[i], (5, 1, 2)[i], shape, dtypes[i % 2]
        found[f"ensemble-{i}"] = lambda a=a: ensemble(*a)
        found[f"blocks-{i}"] = lambda a=(shape, dtypes[i % 2]): in_blocks(*a)
    for i, dtype in enumerate((*dtypes, jnp.bfloat16)):
        # as many members as threads, more and fewer; rows in blocks, and long columns
        a = (3, 2, 9)[i], SHAPES[(0, 8, 1)[i]], i != 1, dtype
        found[f"members-{i}"] = lambda a=a: members(*a)
        found[f"axes-{i}"] = lambda a=dtype: several_axes(a)
    a = PROJECTED_LSTM, (37, 4, 3, 9), OPTIONS[-1], True, jnp.bfloat16
    found["half-masks"] = lambda a=a: cell(*a)
    return found


# a width of one, no rows, no steps, integers, and members
ALWAYS = "rnn-2-0", "gru-4-0", "rnn-5-0", "integers-0", "ensemble-2", "shared-pieces-0"


def write_all(folder: Path, every: int = 1) -> list[Path]:
    """Files of the calls of every so many cases, and of those that always are."""
    found, paths = cases(), []
    some = list(found)[::every]
    for name in [*some, *(name for name in ALWAYS if name not in some)]:
        for k, call in enumerate(found[name]()):
            paths.append(folder / f"{name}-{k}.case")
            write(call, paths[-1])
    return paths
