"""Layers put together: one over the other, or both directions over one sequence.

A layer is a function `(x, state, *, lengths, mask, resets, start, reverse) ->
(state, y)`, such as `partial(lstm, params)` or `partial(cell, update, params)`; it is
given only those options that are set. What these functions make of layers is a layer
again: `partial(bidirectional, forward, backward)` is one of a stack, and
`partial(stack, layers)` one of the two directions.
"""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._base.check import check, check_choice, check_flag
from jaxseq._base.dropout import check_dropout, check_rate, drop, is_zero

Layer = Callable[..., tuple[Any, Any]]
X = TypeVar("X")
Forward = TypeVar("Forward")
Backward = TypeVar("Backward")

MERGES = {
    "concat": lambda forward, backward: jnp.concatenate([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "mean": lambda forward, backward: (forward + backward) / 2,
    None: lambda forward, backward: (forward, backward),
}


def stack(
    layers: Sequence[Layer],
    x: Any,
    state: Sequence[Any] | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    start: Sequence[Any] | None = None,
    reverse: bool = False,
    dropout: ArrayLike = 0.0,
    dropout_per: str = "step",
    key: Array | None = None,
) -> tuple[tuple[Any, ...], Array]:
    """Runs layers one over the other, each on the outputs of the one below.

    Args:
        layers: a list or tuple of the layers from the input up, each a function
            `(x, state, *, lengths, mask, resets, start, reverse) -> (state, y)`.
        x: inputs, `(..., T, D)`; or a tree of such, where a layer's cell takes one.
        state: a tuple with the initial state of each layer; zeros if None.
        lengths: valid steps of each sequence, integers `(...)`; all T if None.
        mask: booleans `(..., T)`, which steps are valid; all if None.
        resets: booleans `(..., T)`; where True a new segment starts.
        start: a tuple with the state of each layer that a segment starts from; zeros
            if None.
        reverse: whether each layer runs from the last valid step to the first.
        dropout: probability in [0, 1) that a value between two layers is set to
            zero; the others are scaled by 1 / (1 - dropout), so 0 is right for use.
            It may be traced. With a single layer nothing is dropped.
        dropout_per: "step" draws anew at each step, "sequence" once for each sequence,
            so that the same features of it are zero at all steps.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `(state, y)`: a tuple of the final state of each layer, and the outputs of
        the last one, `(..., T, H)`.

    Raises:
        ValueError: if there is no layer, `state` is not one for each layer, or
            `dropout` is out of range or has no key.

    Dropout is on the connections between layers only, as in Zaremba, Sutskever
    and Vinyals, "Recurrent Neural Network Regularization", 2014,
    https://arxiv.org/abs/1409.2329; once for each sequence it is that of Gal and
    Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural
    Networks", 2016, https://arxiv.org/abs/1512.05287.

    Example:
        >>> from functools import partial
        >>> below, above = jax.random.split(jax.random.key(0))
        >>> layers = [partial(jaxseq.lstm, jaxseq.lstm_init(below, 3, 8)),
        ...           partial(jaxseq.gru, jaxseq.gru_init(above, 8, 4))]
        >>> state, y = jaxseq.stack(layers, jnp.ones((5, 20, 3)))
        >>> y.shape, state[0].c.shape, state[1].shape
        ((5, 20, 4), (5, 8), (5, 4))
    """
    got = type(layers).__name__
    check(type(layers) in (tuple, list), "layers", "a list or tuple of layers", got)
    n = len(layers)
    check(n >= 1, "layers", "at least one layer", n)
    for i, layer in enumerate(layers):
        check_layer(layer, f"layers[{i}]")
    reverse = check_flag(reverse, "reverse")
    check_choice(dropout_per, "dropout_per", ("step", "sequence"))
    check_rate(dropout)
    if n > 1:
        check_dropout(dropout, key)
    before, starts = (
        _of_each(a, n, name) for a, name in ((state, "state"), (start, "start"))
    )
    ends = []
    for i, (layer, first, own) in enumerate(zip(layers, before, starts, strict=True)):
        if i > 0 and key is not None and not is_zero(dropout):
            key, layer_key = jax.random.split(key)
            got = type(x).__name__
            check(hasattr(x, "shape"), f"layers[{i - 1}]", "one array as outputs", got)
            x = drop(x, dropout, layer_key, same=dropout_per == "sequence")
        options = _given(lengths=lengths, mask=mask, resets=resets, start=own)
        end, x = layer(x, first, **options, **_backward(reverse))
        ends.append(end)
    return tuple(ends), x


def check_layer(layer: Any, name: str) -> None:
    expected = "a function, such as partial(lstm, params)"
    check(callable(layer), name, expected, type(layer).__name__)


def _of_each(states: Any, n: int, name: str) -> Sequence[Any]:
    if states is None:
        return [None] * n
    # by its very type: a single LSTMState is a tuple too
    ok = type(states) in (tuple, list) and len(states) == n
    check(ok, name, f"a tuple of {n}, one for each layer", described(states))
    return states


def _given(**options: Any) -> dict[str, Any]:
    """Those that are not None, so that a layer need not know the others."""
    return {name: value for name, value in options.items() if value is not None}


def _backward(reverse: bool) -> dict[str, Any]:
    return {"reverse": True} if reverse else {}


def bidirectional(
    forward: Callable[Concatenate[X, ...], tuple[Forward, Any]],
    backward: Callable[Concatenate[X, ...], tuple[Backward, Any]],
    x: X,
    state: tuple[Any, Any] | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    start: tuple[Any, Any] | None = None,
    reverse: bool = False,
    merge: str | None = "concat",
) -> tuple[tuple[Forward, Backward], Any]:
    """Runs two layers over one sequence, the second from its end to its start.

    Args:
        forward: a layer `(x, state, *, lengths, mask, resets, start) -> (state, y)`.
        backward: a layer that takes `reverse=True` as well; such as a
            `partial(stack, layers)`.
        x: inputs, `(..., T, D)`; or a tree of such, where a layer's cell takes one.
        state: initial states `(forward, backward)`; zeros if None.
        lengths: valid steps of each sequence, integers `(...)`; all T if None.
            `backward` starts at the last valid step.
        mask: booleans `(..., T)`, which steps are valid; all if None.
        resets: booleans `(..., T)`; where True a new segment starts.
        start: states `(forward, backward)` that a segment starts from; zeros if None.
        reverse: whether it is `forward` that runs from the end to the start, and
            `backward` from the start: what a layer in a reversed stack has to do.
        merge: what becomes of the two outputs at each step: "concat", "sum",
            "mean", or None for both, as a tuple.

    Returns:
        `((forward state, backward state), y)`, with `y` `(..., T, 2H)` for
        "concat", `(..., T, H)` for "sum" and "mean", and a tuple of two
        `(..., T, H)` for None. A state is the final one of its direction: that of
        `backward` has read the first step last.

    Raises:
        ValueError: if `merge` is none of these, `state` is not a pair, or outputs
            to be added differ in width.

    See Schuster and Paliwal, "Bidirectional Recurrent Neural Networks", 1997,
    https://doi.org/10.1109/78.650093.

    Example:
        >>> from functools import partial
        >>> keys = jax.random.split(jax.random.key(0))
        >>> pair = [partial(jaxseq.gru, jaxseq.gru_init(key, 3, 8)) for key in keys]
        >>> state, y = jaxseq.bidirectional(*pair, jnp.ones((5, 20, 3)))
        >>> y.shape, state[0].shape, state[1].shape
        ((5, 20, 16), (5, 8), (5, 8))
    """
    check_layer(forward, "forward")
    check_layer(backward, "backward")
    check_choice(merge, "merge", tuple(MERGES))
    reverse = check_flag(reverse, "reverse")
    pairs = []
    for states, name in ((state, "state"), (start, "start")):
        pair = (None, None) if states is None else states
        ok = type(pair) in (tuple, list) and len(pair) == 2
        check(ok, name, "a pair (forward, backward)", described(pair))
        pairs.append(pair)
    (first_f, first_b), (start_f, start_b) = pairs
    options = _given(lengths=lengths, mask=mask, resets=resets)
    own_f = {**_given(start=start_f), **_backward(reverse)}
    own_b = {**_given(start=start_b), **_backward(not reverse)}
    end_f, y_f = forward(x, first_f, **options, **own_f)
    end_b, y_b = backward(x, first_b, **options, **own_b)
    if merge in ("sum", "mean"):
        check(y_f.shape == y_b.shape, "backward", f"outputs {y_f.shape}", y_b.shape)
    return (end_f, end_b), MERGES[merge](y_f, y_b)


def described(states: Any) -> str:
    name = type(states).__name__
    return f"a {name} of {len(states)}" if name in ("tuple", "list") else name
