"""Small layers, cells and bodies, and their comparison with the plain scan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxseq
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU

# B, T, D, H: rows in one block and in several, odd widths, a width of one, one step
SHAPES = [(3, 4, 5, 37), (70, 3, 4, 24), (1, 9, 16, 33), (2, 3, 1, 1), (5, 1, 3, 8)]
# rows of whole vectors, which are read and written where they lie: in one block, in
# several, with steps in pieces, and rows of 4096 bytes
IN_PLACE = [(3, 5, 4, 16), (70, 3, 4, 32), (1, 4, 16, 256), (9, 2, 8, 512)]
# few rows, where all threads run each step together: units that two threads cannot
# share evenly, a last vector that is not full, matrices of one panel and of many
PIECES = [
    (1, 5, 3, 96),
    (1, 4, 8, 130),
    (2, 3, 5, 200),
    (7, 4, 4, 104),
    (3, 6, 16, 257),
]
CELLS = [PROJECTED_LSTM, RESET_BEFORE_GRU, PEEPHOLE_LSTM, MULTIPLICATIVE_LSTM]

# of numbers that are divided by the largest of them
CLOSE: dict[Any, Any] = {
    jnp.float32: {"rtol": 5e-6, "atol": 5e-6},
    jnp.float64: {"rtol": 1e-12, "atol": 1e-12},
}


# All by NumPy: arithmetic of arrays of JAX would be compiled, for each shape anew.
def normal(seed: int, *shape: int, dtype: Any = jnp.float64) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def random_weights(
    init: Callable[..., Any], *args: Any, dtype: Any = jnp.float64, **options: Any
) -> Any:
    """What `init(key, *args)` gives, with all numbers random, so that none is zero."""
    like = jax.eval_shape(
        lambda: init(jax.random.key(0), *args, dtype=dtype, **options)
    )
    rng = np.random.default_rng(7)

    def draw(a: Any) -> np.ndarray:
        size = a.shape[0] if a.ndim > 1 else 9
        return (rng.standard_normal(a.shape) / size**0.5).astype(a.dtype)

    return jax.tree.map(draw, like)


def built_in(op: str, D: int, H: int, dtype: Any) -> tuple[Callable[..., Any], Any]:
    """`jaxseq.lstm`, `gru` or `rnn`, and weights."""
    init = getattr(jaxseq, f"{op}_init")
    return getattr(jaxseq, op), random_weights(init, D, H, dtype=dtype)


def cell_run(cell: Any, B: int, **options: Any) -> Callable[..., Any]:
    """A cell over time from zeros, as a function like those of `built_in`."""

    def run(params: Any, x: Any, implementation: str) -> Any:
        zeros = cell.zeros(params, (B,))
        how = {**options, "implementation": implementation}
        return jaxseq.cell(cell.update, params, x, zeros, **how)

    return run


def state_of(op: str, B: int, H: int) -> Any:
    parts = [normal(seed, B, H) for seed in (3, 4)]
    return jaxseq.LSTMState(*parts) if op == "lstm" else parts[0]


def masks_of(names: str) -> dict[str, Any]:
    """The options of these names, for 6 rows and 7 steps, the same each time."""
    rng, B, T = np.random.default_rng(5), 6, 7
    every = {
        "lengths": jnp.asarray([0, 1, 3, 7, 6, 2]),
        "mask": jnp.asarray(rng.random((B, T)) < 0.6),
        "resets": jnp.asarray(rng.random((B, T)) < 0.3),
    }
    return {name: every[name] for name in names.split()}


def only_valid(x: Any, options: dict[str, Any]) -> Any:
    """`x`, with NaN in the steps past its lengths, which nothing may read."""
    if "lengths" not in options:
        return x
    steps = np.arange(x.shape[1])[:, None]
    inside = steps < np.asarray(options["lengths"])[:, None, None]
    return np.where(inside, x, x.dtype.type(np.nan))


def lstm_step(z: Any, c: Any) -> jaxseq.LSTMState:
    """The equations of an LSTM, for an update of a user."""
    i, f, g, o = jnp.split(z, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jaxseq.LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)


def bodies(H: int) -> dict[str, Callable[..., Any]]:
    """Bodies of scans with two parts of a state `(B, H)`, for inputs `(T, B, 3)`."""
    w, u, v = normal(1, 3, 4 * H), normal(2, H, 4 * H) / 4, normal(3, 4 * H)
    w_1, u_1, c = normal(4, 3, H), normal(5, H, H) / 4, normal(6, 2 * H, H) / 4

    def lstm(state, x):
        h, c = lstm_step(x @ w + state[0] @ u + v, state[1])
        return (h, c), h

    def softplus(state, x):
        h, c = state
        n = jax.nn.softplus(x @ w_1 + jnp.maximum(h, 0) @ u_1)
        return (jnp.where(n > 1, jnp.log(n), c), n - 1), jnp.abs(h) * 2

    def joined(state, x):
        h, k = state
        new = jnp.tanh(x @ w_1 + jnp.concatenate([h * 2, k], -1) @ c)
        return (new, h), (new, k)

    return {"lstm": lstm, "softplus": softplus, "joined": joined}


def values(f: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, Any]:
    """What `f` gives by the native kernels, and by the plain scan."""
    run = lambda name: jax.jit(lambda *args: f(*args, **options, implementation=name))
    return run("native")(*args), run("scan")(*args)


def gradients(f: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, Any]:
    """Also its gradients, for which more is saved."""

    def run(name):
        def one(*args):
            value = lambda *args: f(*args, **options, implementation=name)
            out, pull = jax.vjp(value, *args)
            return out, pull(jax.tree.map(jnp.cos, out))

        return jax.jit(one)(*args)

    return run("native"), run("scan")


def check(pair: Any, dtype: Any = jnp.float64) -> None:
    """Both have the same shapes and dtypes, and nearly the same numbers."""
    for a, b in zip(*map(jax.tree.leaves, pair), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = np.asarray(a), np.asarray(b)
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a / scale, b / scale, **CLOSE[dtype])
