"""What the conversions of Flax NNX and Flax Linen share.

Flax's matrices are `(in, out)`, as those of jaxseq, and its gates have the same order.
"""

from collections.abc import Callable
from typing import Any

import jaxseq
from jaxseq._base.check import check, check_callable, check_flag
from jaxseq.convert._common import Found, Function, built, flat, places, width
from jaxseq.convert._gates import Weights, blocks, side_by_side
from jaxseq.convert._network import Network
from jaxseq.convert._state import Named

CELLS = {1: jaxseq.RNN, 3: jaxseq.GRU, 4: jaxseq.LSTM}
# of the arrays, where a cell lies and how wide its input is: its gates and weights
Read = Callable[[Named, str, int | None], tuple[int, Weights]]


def network_of(
    read: Read,
    given: Any,
    name: str,
    prefix: str,
    gate_fn: Function,
    activation_fn: Function,
    **how: Any,
) -> Network:
    """The network of what `read` finds in the cells of each layer."""
    check_callable(gate_fn, "gate_fn")
    check_callable(activation_fn, "activation_fn")
    arrays = flat(given, name)
    arrays = {k: a for k, a in arrays.items() if "rngs" not in k.split("/")}
    named = Named(arrays, name, prefix)
    own = [k.removeprefix(prefix) for k in arrays if k.startswith(prefix)]
    layers: list[list[Found]] = []
    for cells in places(own, 2, name):
        below = width(layers, how["merge"])
        found = [(prefix + cell or name, read(named, cell, below)) for cell in cells]
        layers.append([Found(at, *of) for at, of in found])
    named.finish()
    return built(layers, gate=gate_fn, activation=activation_fn, **how)


def by_gate(
    named: Named,
    cell: str,
    below: int | None,
    of_x: list[str],
    of_h: list[str],
    of_b: list[str],
) -> Weights:
    """Weights that have a matrix for each gate."""
    H, _ = named.shape(f"{cell}{of_h[0]}/kernel", 2)
    D = named.shape(f"{cell}{of_x[0]}/kernel", 2)[0] if below is None else below
    w_x = [named.take(f"{cell}{gate}/kernel", D, H) for gate in of_x]
    w_h = [named.take(f"{cell}{gate}/kernel", H, H) for gate in of_h]
    b = [named.take(f"{cell}{gate}/bias", H) for gate in of_b]
    return Weights(*map(side_by_side, (w_x, w_h, b)))


def each_gate(
    weights: Weights, of_x: list[str], of_h: list[str], of_b: list[str], b: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for names, w in ((of_x, weights.w_x), (of_h, weights.w_h)):
        parts = blocks(w, len(names))
        found |= {k: {"kernel": a.copy()} for k, a in zip(names, parts, strict=True)}
    for name, a in zip(of_b, blocks(b, len(of_b)), strict=True):
        found[name]["bias"] = a.copy()
    return found


def placed(layers: list[list[dict[str, Any]]], cell: bool) -> list[dict[str, Any]]:
    """The cells of each layer, in what runs them over time."""
    if check_flag(cell, "cell"):
        one = len(layers) == 1 and len(layers[0]) == 1
        check(one, "network", "one layer of one direction, for a cell", "more")
        return layers[0]
    both = "forward_rnn", "backward_rnn"
    runs = [[{"cell": own} for own in cells] for cells in layers]
    return [
        own[0] if len(own) == 1 else dict(zip(both, own, strict=True)) for own in runs
    ]
