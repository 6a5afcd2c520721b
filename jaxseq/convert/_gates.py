"""Weights with their gates side by side, and what is done with them."""

from typing import Any, NamedTuple

from jaxseq import Projected, ResetBefore
from jaxseq.convert._names import check_shape
from jaxseq.convert._network import width_out


class Weights(NamedTuple):
    """Weights of one direction of a layer; `b_h` is that of the recurrent product."""

    w_x: Any
    w_h: Any
    b: Any = None
    b_h: Any = None


def check_gates(name: str, n: int, weights: Weights) -> None:
    """Checks the shapes of the weights of n gates."""
    w_x, w_h, b, b_h = weights
    H = w_x.shape[1] // n
    Z = n * H
    shapes: list[tuple[Any, tuple[int | None, ...]]] = [(w_x, (None, Z))]
    if isinstance(w_h, ResetBefore):
        shapes += [(w_h.gates, (H, 2 * H)), (w_h.candidate, (H, H))]
    elif isinstance(w_h, Projected):
        P = width_out(w_h)
        shapes += [(w_h.gates, (P, Z)), (w_h.projection, (H, P))]
    else:
        shapes.append((w_h, (H, Z)))
    for a, shape in [*shapes, *((a, (Z,)) for a in (b, b_h) if a is not None)]:
        of_candidate = a is b_h and n == 3 and a.shape == (H,)
        check_shape(name, a.shape, (H,) if of_candidate else shape)


def zeros(weights: Weights, n: int) -> Any:
    import numpy as np

    return np.zeros(n, weights.w_x.dtype)


def added(b: Any, b_h: Any) -> Any:
    """One bias for two, either of which may be None."""
    if b is None or b_h is None:
        return b_h if b is None else b
    return b + b_h


def of_all_gates(weights: Weights) -> Any:
    """The second bias with zeros for the gates it leaves out, or None."""
    if weights.b_h is None:
        return None
    before = zeros(weights, weights.w_x.shape[1] - weights.b_h.shape[0])
    return side_by_side([before, weights.b_h])


def one_bias(weights: Weights) -> Any:
    """The sum of the biases, or zeros."""
    b = added(weights.b, of_all_gates(weights))
    return zeros(weights, weights.w_x.shape[1]) if b is None else b


def two_biases(weights: Weights) -> tuple[Any, Any]:
    """Both biases, of all gates; zeros for None."""
    n = weights.w_x.shape[1]
    each = weights.b, of_all_gates(weights)
    b, b_h = (zeros(weights, n) if a is None else a for a in each)
    return b, b_h


def gru_biases(weights: Weights) -> tuple[Any, Any]:
    """The bias of all gates, and that of the candidate's product; zeros for None."""
    H, b, b_h = width_out(weights.w_h), weights.b, weights.b_h
    b = zeros(weights, 3 * H) if b is None else b
    if b_h is None:
        return b, zeros(weights, H)
    if b_h.shape[0] == 3 * H:
        b = side_by_side([b[: 2 * H] + b_h[: 2 * H], b[2 * H :]])
    return b, b_h[-H:]


def blocks(a: Any, n: int) -> list[Any]:
    """The parts of the last axis that belong to each of n gates."""
    import numpy as np

    return np.split(a, n, axis=-1)


def side_by_side(parts: list[Any]) -> Any:
    import numpy as np

    return np.concatenate(parts, axis=-1)


def reordered(a: Any, order: tuple[int, ...]) -> Any:
    """An array with the blocks of its last axis in this order."""
    parts = blocks(a, len(order))
    return side_by_side([parts[i] for i in order])
