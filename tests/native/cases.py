"""Calls of all that the native kernels do, forward and backward."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxseq
from examples.cells.layer_norm_lstm import LAYER_NORM_LSTM
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU
from tests.native.calls import Call, calls_of, write

# B, T, D, H: rows in one block and in several, odd widths, a width of one, matrices
# that are packed and, for few steps, that are not, no rows, no steps, and few rows with
# steps that are worth to be shared by threads
SHAPES = [(3, 4, 5, 37), (70, 3, 4, 24), (2, 3, 1, 1), (5, 1, 3, 8), (0, 3, 2, 3)]
SHAPES += [(3, 0, 2, 3), (1, 9, 16, 33), (33, 12, 3, 17), (1, 2, 7, 251)]
SHAPES += [(3, 4, 6, 203)]
CELLS = {
    "reset": RESET_BEFORE_GRU,
    "projected": PROJECTED_LSTM,
    "norm": LAYER_NORM_LSTM,
    "peephole": PEEPHOLE_LSTM,
    "multiplicative": MULTIPLICATIVE_LSTM,
}
OPTIONS = "", "lengths", "mask resets", "start resets", "lengths mask resets start"


def there_and_back(run: Any, *args: Any) -> Any:
    """The values by themselves, then with what is saved, and the gradients."""
    out, pull = jax.vjp(run, *args)
    return run(*args), pull(jax.tree.map(jnp.cos, out))


def normal(seed: int, *shape: int, dtype: Any = jnp.float64) -> Any:
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(drawn, dtype)


def layer(op: str, shape: Any, dtype: Any) -> list[Call]:
    B, T, D, H = shape
    params = getattr(jaxseq, f"{op}_init")(jax.random.key(0), D, H, dtype=dtype)
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
    params = cell.init(jax.random.key(0), D, H, dtype=dtype)
    state = jax.tree.map(lambda a: a + 0.5, cell.zeros(params, (B,)))
    start = jax.tree.map(jnp.cos, state) if "start" in names else None

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
        for k, shape in enumerate([(5, 7, 3, 9), (37, 4, 2, 8), (3, 3, 4, 203)]):
            names, dtype = OPTIONS[(i + k) % len(OPTIONS)], dtypes[(i + k) % 2]
            a = one, shape, names, bool((i + k) // 2 % 2), dtype
            found[f"{name}-{k}"] = lambda a=a: cell(*a)
    for i, dtype in enumerate((*dtypes, jnp.bfloat16, jnp.float16)):
        found[f"body-{i}"] = lambda a=(6, dtype): body(*a)
    for i, shape in enumerate(SHAPES):
        a = "gru", shape, (jnp.bfloat16, jnp.float16)[i % 2]
        found[f"half-{i}"] = lambda a=a: layer(*a)
    a = PROJECTED_LSTM, (37, 4, 3, 9), OPTIONS[-1], True, jnp.bfloat16
    found["half-masks"] = lambda a=a: cell(*a)
    return found


def write_all(folder: Path, every: int = 1) -> list[Path]:
    """Files of the calls of every so many cases."""
    paths = []
    for name, make in list(cases().items())[::every]:
        for k, call in enumerate(make()):
            paths.append(folder / f"{name}-{k}.case")
            write(call, paths[-1])
    return paths
