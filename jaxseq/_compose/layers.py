"""Layers put together: one over the other, or both directions over one sequence.

A layer is a function `(x, state, *, lengths, mask, resets, start, reverse) ->
(state, y)`, such as `partial(lstm, params)` or `partial(cell, update, params)`; it is
given those options that are not None. What these functions make of layers is a layer
again (but for `reverse`, which they choose themselves), so a stack of bidirectional
layers is a stack of `partial(bidirectional, forward, backward)`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check
from jaxseq._base.dropout import check_dropout, drop

Layer = Callable[..., tuple[Any, Any]]

MERGES = {
    "concat": lambda forward, backward: jnp.concatenate([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "mean": lambda forward, backward: (forward + backward) / 2,
    None: lambda forward, backward: (forward, backward),
}


def stack(
    layers: Sequence[Layer],
    x: Array,
    state: Sequence[Any] | None = None,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    start: Sequence[Any] | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
) -> tuple[tuple[Any, ...], Array]:
    """Runs layers one over the other, each on the outputs of the one below.

    Args:
        layers: the layers from the input up, each a function
            `(x, state, *, lengths, mask, resets, start) -> (state, y)`.
        x: inputs, `(..., T, D)`.
        state: initial state of each layer; zeros if None.
        lengths: valid steps of each sequence, `(...)`; all T if None.
        mask: booleans `(..., T)`, which steps are valid; all if None.
        resets: booleans `(..., T)`, where a new segment starts.
        start: of each layer the state that a segment starts from; zeros if None.
        dropout: probability in [0, 1) that a value between two layers is set to
            zero; the others are scaled by 1 / (1 - dropout), so 0 is right for use.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `(state, y)`: a tuple of the final state of each layer, and the outputs of
        the last one, `(..., T, H)`.

    Raises:
        ValueError: if there is no layer, `state` is not one for each layer, or
            `dropout` is out of range or has no key.

    Dropout is on the connections between layers only, as in Zaremba, Sutskever
    and Vinyals, "Recurrent Neural Network Regularization", 2014,
    https://arxiv.org/abs/1409.2329.
    """
    n = len(layers)
    check(n >= 1, "layers", "at least one layer", n)
    check_dropout(dropout, key if n > 1 else "no need")
    before, starts = (
        _of_each(a, n, name) for a, name in ((state, "state"), (start, "start"))
    )
    ends = []
    for i, (layer, first, own) in enumerate(zip(layers, before, starts, strict=True)):
        if i > 0 and dropout > 0 and key is not None:
            key, layer_key = jax.random.split(key)
            x = drop(x, dropout, layer_key)
        options = _given(lengths=lengths, mask=mask, resets=resets, start=own)
        end, x = layer(x, first, **options)
        ends.append(end)
    return tuple(ends), x


def _of_each(states: Any, n: int, name: str) -> Sequence[Any]:
    if states is None:
        return [None] * n
    # by its very type: a single LSTMState is a tuple too
    ok = type(states) in (tuple, list) and len(states) == n
    check(ok, name, f"a tuple with states of {n} layers", described(states))
    return states


def _given(**options: Any) -> dict[str, Any]:
    """Those that are not None, so that a layer need not know the others."""
    return {name: value for name, value in options.items() if value is not None}


def bidirectional(
    forward: Layer,
    backward: Layer,
    x: Array,
    state: tuple[Any, Any] | None = None,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    start: tuple[Any, Any] | None = None,
    merge: str | None = "concat",
) -> tuple[tuple[Any, Any], Any]:
    """Runs two layers over one sequence, the second from its end to its start.

    Args:
        forward: a layer `(x, state, *, lengths, mask, resets, start) -> (state, y)`.
        backward: a layer that takes `reverse=True` as well.
        x: inputs, `(..., T, D)`.
        state: initial states `(forward, backward)`; zeros if None.
        lengths: valid steps of each sequence, `(...)`; all T if None. `backward`
            starts at the last valid step.
        mask: booleans `(..., T)`, which steps are valid; all if None.
        resets: booleans `(..., T)`, where a new segment starts.
        start: states `(forward, backward)` that a segment starts from; zeros if None.
        merge: what becomes of the two outputs at each step: "concat", "sum",
            "mean", or None for both, as a tuple.

    Returns:
        `((forward state, backward state), y)`, with `y` `(..., T, 2H)` for
        "concat", `(..., T, H)` for "sum" and "mean", and a tuple of two
        `(..., T, H)` for None.

    Raises:
        ValueError: if `merge` is none of these, `state` is not a pair, or outputs
            to be added differ in width.

    See Schuster and Paliwal, "Bidirectional Recurrent Neural Networks", 1997,
    https://doi.org/10.1109/78.650093.
    """
    check(merge in list(MERGES), "merge", f"one of {list(MERGES)}", repr(merge))
    pairs = []
    for states, name in ((state, "state"), (start, "start")):
        pair = (None, None) if states is None else states
        ok = type(pair) in (tuple, list) and len(pair) == 2
        check(ok, name, "a pair (forward, backward)", described(pair))
        pairs.append(pair)
    (first_f, first_b), (start_f, start_b) = pairs
    options = _given(lengths=lengths, mask=mask, resets=resets)
    end_f, y_f = forward(x, first_f, **options, **_given(start=start_f))
    end_b, y_b = backward(x, first_b, reverse=True, **options, **_given(start=start_b))
    if merge in ("sum", "mean"):
        check(y_f.shape == y_b.shape, "backward", f"outputs {y_f.shape}", y_b.shape)
    return (end_f, end_b), MERGES[merge](y_f, y_b)


def described(states: Any) -> str:
    name = type(states).__name__
    return f"a {name} of {len(states)}" if name in ("tuple", "list") else name
