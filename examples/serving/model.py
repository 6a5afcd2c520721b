"""A character model whose state has a row for each of many readers."""

import string
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxseq

CHARS = string.printable[:95] + "\n"
D, H = 64, 256


def init(key: jax.Array) -> dict[str, Any]:
    embed, lstm, head = jax.random.split(key, 3)
    return {
        "embed": jax.random.normal(embed, (len(CHARS), D), jnp.float32),
        "lstm": jaxseq.lstm_init(lstm, D, H),
        "head": jax.random.normal(head, (H, len(CHARS)), jnp.float32) / H**0.5,
    }


def load(path: str) -> dict[str, Any]:
    """Weights of a file that `jaxseq.save` wrote."""
    return jaxseq.load(path, jax.eval_shape(init, jax.random.key(0)))


@jax.jit
def step(params, state, rows, tokens, fresh):
    """Reads a token in some rows of the state; a row past its end is none at all."""
    own = jax.tree.map(lambda a: a.at[rows].get(mode="fill", fill_value=0), state)
    x = params["embed"][tokens]
    own, h = jaxseq.lstm_step(params["lstm"], own, x, resets=fresh)
    state = jax.tree.map(lambda a, b: a.at[rows].set(b, mode="drop"), state, own)
    return state, jax.nn.softmax(h @ params["head"])


class Model:
    """Reads a character in any rows, and says what comes next in each."""

    def __init__(self, params: dict[str, Any], rows: int):
        self._rows = rows
        self._step = partial(step, params)
        self._state = jaxseq.lstm_zeros(params["lstm"], rows)
        for n in range(1, rows + 1):  # compiles the few sizes there are
            self(np.arange(n), np.zeros(n, int), np.ones(n, bool))

    def __call__(self, rows: Any, tokens: Any, fresh: Any) -> np.ndarray:
        """Probabilities of the next character `(n, V)`, of n rows; some are fresh."""
        n = len(rows)
        size = min(1 << (n - 1).bit_length(), self._rows)  # the next power of two
        whole = np.full(size, self._rows), np.zeros(size, int), np.zeros(size, bool)
        for a, part in zip(whole, (rows, tokens, fresh), strict=True):
            a[:n] = part
        self._state, found = self._step(self._state, *whole)
        return np.asarray(found)[:n]
