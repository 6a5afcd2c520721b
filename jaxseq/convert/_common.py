"""What the conversions share: weights into a network, and a network into weights."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxseq
from jaxseq import Cell, CellParams, LSTMExtra, Projected, ResetBefore
from jaxseq._base.check import check, check_choice, check_flag
from jaxseq.convert._gates import Weights, check_gates
from jaxseq.convert._network import (
    MERGES,
    Network,
    called,
    directions,
    shown,
    width_out,
)

Function = Callable[[Any], Any]

NAMES = {1: "an RNN", 3: "a GRU", 4: "an LSTM"}
PLAIN: dict[int, tuple[Cell, Any]] = {
    1: (jaxseq.RNN, jaxseq.RNNParams),
    3: (jaxseq.GRU, jaxseq.GRUParams),
    4: (jaxseq.LSTM, jaxseq.LSTMParams),
}
CELLS = jaxseq.RNN, jaxseq.GRU, jaxseq.LSTM


class Found(NamedTuple):
    """Weights with the name of their place and how many gates they have."""

    name: str
    gates: int
    weights: Weights


def gates_of(
    name: str,
    shape: tuple[int, ...],
    *,
    rows: bool = False,
    among: tuple[int, ...] = (1, 3, 4),
) -> int:
    """How many gates a recurrent matrix has, side by side or, as `rows`, below."""
    Z, H = shape if rows else shape[::-1]
    sizes = [f"{n}H" if n > 1 else "H" for n in among]
    shapes = " or ".join(f"({z}, H)" if rows else f"(H, {z})" for z in sizes)
    check(Z in [n * H for n in among], name, f"shape {shapes}", shape)
    return Z // H


def width(below: list[list[Found]], merge: str | None) -> int | None:
    """How wide the input of the next layer is, if that is known."""
    if not below:
        return None
    H = [width_out(found.weights.w_h) for found in below[-1]]
    return sum(H) if merge == "concat" else H[0]


def built(
    layers: list[list[Found]],
    *,
    gate: Function = jax.nn.sigmoid,
    activation: Function = jnp.tanh,
    reverse: bool = False,
    merge: str | None = "concat",
) -> Network:
    """The network of what was found, which has to be of one kind."""
    reverse = check_flag(reverse, "reverse")
    check_choice(merge, "merge", MERGES)
    first, both = layers[0][0], len(layers[0]) == 2
    check(not (both and reverse), "reverse", "False for two directions", reverse)
    for own in layers:
        expected = f"{len(layers[0])} direction(s), as the first layer"
        check(len(own) == len(layers[0]), own[0].name, expected, len(own))
        for found in own:
            expected = f"{NAMES[first.gates]}, as the first layer"
            ok = found.gates == first.gates
            check(ok, found.name, expected, NAMES[found.gates])
            same = type(found.weights.w_h) is type(first.weights.w_h)
            expected = "a reset gate or a projection as in the first layer"
            check(same, found.name, expected, "another")
        if merge in ("sum", "mean"):
            H = [width_out(found.weights.w_h) for found in own]
            check(H[0] == H[-1], own[-1].name, f"a width of {H[0]}, to add", H[-1])
    cell = _cell(first, gate, activation)
    params = [[_params(cell, found) for found in own] for own in layers]
    weights = tuple(tuple(own) if both else own[0] for own in params)
    network = Network(weights, cell, reverse=reverse, merge=merge)
    directions(network)
    return network


def _cell(found: Found, gate: Function, activation: Function) -> Cell:
    plain, _ = PLAIN[found.gates]
    w_h = found.weights.w_h
    if found.gates == 1:
        made = jaxseq.rnn_cell(activation=activation)
    elif found.gates == 3:
        after = not isinstance(w_h, ResetBefore)
        made = jaxseq.gru_cell(gate=gate, candidate=activation, reset_after=after)
    else:
        cells = w_h.projection.shape[0] if isinstance(w_h, Projected) else None
        each: dict[str, Any] = {"candidate": activation, "output": activation}
        made = jaxseq.lstm_cell(gate=gate, **each, cells=cells)
    one_matrix = not isinstance(w_h, (ResetBefore, Projected))
    return plain if one_matrix and made.update == plain.update else made


def _params(cell: Cell, found: Found) -> Any:
    plain, kind = PLAIN[found.gates]
    if cell is plain:
        return kind(*found.weights)
    w_x, w_h, b, b_h = found.weights
    extra = LSTMExtra(b_h) if found.gates == 4 and b_h is not None else b_h
    return CellParams(w_x, w_h, b, extra)


def taken_apart(
    network: Network,
    framework: str,
    cells: tuple[Cell, ...],
    *,
    free: bool = False,
    before: bool | None = False,
    projected: bool = False,
) -> tuple[int, list[list[Weights]]]:
    """How many gates the cells have, and the weights of each layer and direction.

    Args:
        network: what is to be converted.
        framework: its name, for errors.
        cells: those that it has.
        free: whether its activations may be others.
        before: whether the reset gate of its GRU stands before the product; None if
            it may stand before or after.
        projected: whether it has projections.
    """
    layers = directions(network)
    used = network.cells[: len(layers[0])]
    expected = f"a cell that {framework} has: {' or '.join(map(shown, cells))}"
    expected += ", with any activations" if free else ""
    for cell in used:
        if free:
            _check_one_activation(cell, framework)
        ok = any(_same(cell.update, own.update, free) for own in cells)
        check(ok, "network.cell", expected, shown(cell))
    same = _same(used[-1].update, used[0].update, free)
    expected = f"two cells of one kind, as {framework} has them"
    check(same, "network.cell", expected, " and ".join(map(shown, used)))
    kind = type(used[0].update)
    gates = next(n for n, (own, _) in PLAIN.items() if type(own.update) is kind)
    place = "before" if before else "after"
    expected = f"a reset gate {place} the recurrent product, as {framework} has it"
    weights: list[list[Weights]] = []
    for i, both in enumerate(layers):
        name = f"network.layers[{i}]"
        weights.append([_weights(name, own, framework, projected) for own in both])
        for own in weights[-1]:
            here = isinstance(own.w_h, ResetBefore)
            ok = gates != 3 or before is None or here == before
            check(ok, "network.cell", expected, "before" if here else "after")
            check_gates(name, gates, own)
    return gates, weights


def _check_one_activation(cell: Cell, framework: str) -> None:
    """Checks that an LSTM has one activation for its candidate and its output."""
    if type(cell.update) is type(jaxseq.LSTM.update):
        own: Any = cell.update
        expected = f"one activation of candidate and output, as {framework} has it"
        got = f"candidate={called(own.candidate)} and output={called(own.output)}"
        check(own.candidate == own.output, "network.cell", expected, got)


def _same(update: Any, own: Any, free: bool) -> bool:
    """Whether two updates are equal, but for their activations if these are free."""
    if type(update) is not type(own) or not free:
        return update == own
    of = {f.name: getattr(own, f.name) for f in fields(own)}
    functions = {name: f for name, f in of.items() if callable(f)}
    return own == replace(update, **functions)


def _weights(name: str, params: Any, framework: str, projected: bool) -> Weights:
    w_x, w_h, b, extra = params
    none = f"for {framework} has none"
    ok = projected or not isinstance(w_h, Projected)
    check(ok, name, f"no projection, {none}", "one")
    if isinstance(extra, LSTMExtra):
        check(extra.peepholes is None, name, f"no peepholes, {none}", "some")
        check(extra.norms is None, name, f"no layer normalization, {none}", "some")
        extra = extra.b_h
    return Weights(*jax.tree.map(_numpy, (w_x, w_h, b, extra)))


def _numpy(a: Any) -> Any:
    import numpy as np

    return np.asarray(a).copy()  # who gets it may change it in place


def check_forward(network: Network, framework: str) -> None:
    """Checks what a format does not say of a network is as everyone takes it to be."""
    none = f"for {framework} has no other"
    check(not network.reverse, "network.reverse", f"False, {none}", True)
    merge = network.merge
    check(merge == "concat", "network.merge", f"'concat', {none}", repr(merge))


def check_one_width(layers: list[list[Weights]], framework: str) -> None:
    each = [own.w_h for both in layers for own in both]
    H = [
        w.projection.shape[0] if isinstance(w, Projected) else width_out(w)
        for w in each
    ]
    for name, widths in (("width", H), ("projected width", map(width_out, each))):
        expected = f"layers of one {name}, for {framework} has one"
        got = sorted(set(widths))
        check(len(got) == 1, "network.layers", expected, f"widths {got}")


def check_cell(cell: bool, layers: list[list[Weights]]) -> bool:
    """Checks the option to write a cell alone, of which there has to be one."""
    cell, one = check_flag(cell, "cell"), sum(map(len, layers)) == 1
    expected = "one layer of one direction, for a cell"
    check(one or not cell, "network", expected, "more")
    return cell
