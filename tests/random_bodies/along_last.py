"""Operations along the last axis: they sum, normalise, sort and move."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tests.random_bodies.draw import Draw, Shape


def along_last(f: Callable[[Any], Any]) -> Callable[[Draw, Shape, int], Any]:
    """`f` of an expression that has an axis."""

    def apply(d: Draw, shape: Shape, depth: int) -> Any:
        return f(d.expression(shape, depth)) if shape else None

    return apply


def stacked(a: Any) -> Any:
    """`tanh(a)`, by a stack that is turned and taken apart."""
    both = jnp.stack([a, jnp.tanh(a)], 0).swapaxes(0, -1)
    return both[..., 1].T.reshape(a.shape)


def times_masked_logsumexp(a: Any) -> Any:
    masked = jnp.where(jnp.arange(a.shape[-1]) < 2, a, -jnp.inf)
    return jax.nn.logsumexp(masked, -1, keepdims=True) * a


ALONG_LAST = [
    along_last(lambda a: jnp.cumsum(a, axis=-1) / a.shape[-1]),
    along_last(lambda a: jnp.sort(a, -1)),
    along_last(lambda a: jnp.roll(a, 1, -1) + a[..., ::-1]),
    along_last(lambda a: jax.nn.softmax(a, -1)),
    along_last(lambda a: jax.nn.log_softmax(a, 0)),
    along_last(lambda a: a - jax.nn.logsumexp(a, -1, keepdims=True)),
    along_last(lambda a: a * jax.nn.one_hot(a.argmax(-1), a.shape[-1], dtype=a.dtype)),
    along_last(lambda a: jnp.concatenate([a[..., 1:], jnp.tanh(a[..., :1])], -1)),
    along_last(lambda a: a.at[..., 0].set(0.3).at[..., -1].add(a[..., 0])),
    along_last(lambda a: jnp.take_along_axis(a, jnp.argsort(-a, -1), -1)),
    along_last(lambda a: jnp.fft.irfft(jnp.fft.rfft(a), a.shape[-1]) / 2),
    along_last(stacked),
    along_last(times_masked_logsumexp),
    along_last(lambda a: jnp.linalg.norm(a, axis=-1, keepdims=True) + a),
]
