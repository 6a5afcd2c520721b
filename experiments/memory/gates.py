"""What single units of an LSTM keep: their cells and forget gates over a text.

The forget gate is not among what a step returns, but it is how much of the old cell
goes into the new one: f_t = ∂c_t/∂c_{t-1}, with h_{t-1} held fixed. It is asked of the
step as a derivative, and so none of the cell's equations stands here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax


def trace(recurrent: Any, x: Array, layer: int) -> tuple[Array, Array]:
    """Cells and forget gates of a layer of LSTMs over `x` `(T, D)`, each `(T, H)`."""
    start, _ = recurrent(x[:0])
    ones = jnp.ones_like(start[layer].c)

    def step(state: Any, x: Array) -> tuple[Any, tuple[Array, Array]]:
        def cell(c: Array) -> tuple[Array, Any]:
            own = state[layer]._replace(c=c)
            old = (*state[:layer], own, *state[layer + 1 :])
            new, _ = recurrent(x[None], old)
            return new[layer].c, new

        c, forget, new = jax.jvp(cell, (state[layer].c,), (ones,), has_aux=True)
        return new, (c, forget)

    return lax.scan(step, start, x)[1]


@nnx.jit(static_argnames="layer")
def read(model: Any, tokens: Array, *, layer: int) -> tuple[Array, Array]:
    """`trace` of a language model over tokens `(T,)`."""
    return trace(model.recurrent, model.embed(tokens), layer)


def running(text: str, step: Callable[[int, str], int]) -> list[int]:
    """A number carried over the characters, from 0."""
    found, now = [], 0
    for char in text:
        now = step(now, char)
        found.append(now)
    return found


def indented(text: str) -> list[int]:
    """The spaces that the line so far begins with."""
    found: list[int] = []
    for line in text.splitlines(keepends=True):
        width = len(line) - len(line.lstrip(" "))
        found += [min(i, width) for i in range(1, len(line) + 1)]
    return found


def visible(text: str) -> dict[str, np.ndarray]:
    """What a reader can see at each character: names, and numbers `(T,)`."""
    brackets = {"(": 1, "[": 1, ")": 0, "]": 0}  # one that is not closed ends too
    toggle = lambda mark: lambda on, char: on ^ (char == mark)
    found = {
        "place in the line": running(text, lambda n, c: 0 if c == "\n" else n + 1),
        "place in the word": running(text, lambda n, c: n + 1 if c.isalnum() else 0),
        "indentation": indented(text),
        "inside brackets": running(text, lambda on, c: brackets.get(c, on)),
        'inside "quotes"': running(text, toggle('"')),
        "inside `quotes`": running(text, toggle("`")),
        "a capital": [char.isupper() for char in text],
        "after a line's end": [char == "\n" for char in text],
    }
    return {name: np.array(values, float) for name, values in found.items()}


class Found(NamedTuple):
    what: str
    unit: int
    correlation: float


def correlations(values: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Of numbers `(T,)` with each column of `(T, H)`; 0 where either is constant."""
    values, c = values - values.mean(), c - c.mean(0)
    scale = np.sqrt(np.square(values).sum() * np.square(c).sum(0))
    return np.divide(values @ c, scale, out=np.zeros(c.shape[1]), where=scale > 1e-9)


def telling(text: str, c: np.ndarray) -> list[Found]:
    """For each thing visible the unit whose cell says it best, the best first."""
    found = []
    for name, values in visible(text).items():
        r = correlations(values, np.tanh(c))
        unit = int(np.abs(r).argmax())
        found.append(Found(name, unit, float(r[unit])))
    found.sort(key=lambda f: -abs(f.correlation))
    return [f for f in found if f.correlation]
