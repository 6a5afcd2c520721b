"""Dropout of recurrent weights."""

from typing import Any, TypeVar

import jax
from jax import Array
from jax.typing import ArrayLike

from jaxseq._base.check import check, check_key
from jaxseq._base.dropout import drop
from jaxseq._base.rates import check_rate_key, rates_of

Params = TypeVar("Params")


def weight_drop(
    params: Params, rate: ArrayLike | Any, *, key: Array | None = None
) -> Params:
    """Drops entries of recurrent matrices, for one pass of training.

    Args:
        params: weights of a cell, such as `LSTMParams` or `CellParams`; or a tree with
            such in it, such as the weights of several layers or `Seq2SeqParams`.
        rate: probability in [0, 1) that an entry of a matrix in `w_h` is set to zero;
            the others are scaled by 1 / (1 - rate). It may be traced. Or a tree of
            rates like `w_h`, such as `Projected(0.5, 0.0)`.
        key: random key; needed only if `rate` is not 0.

    Returns:
        The weights with other `w_h`, the same for all sequences and steps that are run
        with them; the rest are those that were given, not copies. For evaluation, run
        the weights themselves.

    Raises:
        ValueError: if `params` has no cell in it, or a rate is out of range or has no
            key.

    Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language Models", 2018,
    https://arxiv.org/abs/1708.02182.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> dropped = jaxseq.weight_drop(params, 0.5, key=jax.random.key(1))
        >>> state, y = jaxseq.lstm(dropped, jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    is_cell = lambda p: isinstance(p, tuple) and hasattr(p, "w_h")
    parts, tree = jax.tree.flatten(params, is_leaf=is_cell)
    cells = [i for i, part in enumerate(parts) if is_cell(part)]
    got = type(params).__name__
    check(bool(cells), "params", "weights with w_h, or a tree with such", got)
    rates = [rates_of(rate, parts[i].w_h, "rate") for i in cells]
    for own in rates:
        check_rate_key(own, key, "weight_drop")
    if key is None:
        return params
    check_key(key)
    for i, own, k in zip(cells, rates, jax.random.split(key, len(cells)), strict=True):
        matrices, w_h = jax.tree.flatten(parts[i].w_h)
        of_each = zip(
            matrices, own, jax.random.split(k, max(1, len(own))), strict=False
        )
        parts[i] = parts[i]._replace(w_h=w_h.unflatten([drop(*one) for one in of_each]))
    return tree.unflatten(parts)
