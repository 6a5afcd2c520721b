"""What the conversions of JAX's and Keras's layers share."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxseq
from jaxseq import Cell, CellParams, LSTMExtra, Projected, ResetBefore
from jaxseq._base.check import check, check_choice, check_flag
from jaxseq.convert._gates import Weights
from jaxseq.convert._network import Network, directions, width_out

Function = Callable[[Any], Any]

NAMES = {1: "an RNN", 3: "a GRU", 4: "an LSTM"}
# where a cell lies among the weights of a stack, in one of two directions, in a layer
PLACE = re.compile(
    r"(?:(?:layers[/_])?(\d+)/)?(?:(forward|backward)(?:_rnn)?/)?(?:cell/)?"
)


class Found(NamedTuple):
    """Weights with the name of their place and how many gates they have."""

    name: str
    gates: int
    weights: Weights


def flat(tree: Any, name: str) -> dict[str, Any]:
    """Arrays by their paths, such as "cell/dense_i/kernel".

    In a list layers are numbered; a tuple is a pair of directions.
    """
    found: dict[str, Any] = {}

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, Mapping):
            items = list(node.items())
        elif type(node) is list:
            items = list(enumerate(node))
        elif type(node) is tuple:
            at = "/".join((name, *path))
            check(len(node) == 2, at, "a pair (forward, backward)", len(node))
            items = list(zip(("forward", "backward"), node, strict=True))
        else:
            found["/".join(path)] = node
            return
        for key, value in items:
            parts = key if isinstance(key, tuple) else re.split("[./]", str(key))
            visit(value, (*path, *map(str, parts)))

    ok = isinstance(tree, Mapping) or type(tree) in (list, tuple)
    expected = "a mapping from names to arrays, or a list of such"
    check(ok, name, expected, type(tree).__name__)
    visit(tree, ())
    return found


def places(names: list[str], depth: int, argument: str) -> list[list[str]]:
    """The prefixes of the cells of each layer, for one direction or for both.

    Args:
        names: paths of all arrays.
        depth: how many components of a path belong to the cell.
        argument: what to call the weights in errors.
    """
    layers: dict[int, dict[str, str]] = {}
    for prefix in sorted({"".join(_parts(name)[:-depth]) for name in names}):
        match = PLACE.fullmatch(prefix)
        if match is None:
            expected = "a cell, a layer of one or two directions, or numbered layers"
            check(False, argument, expected, f"weights at {prefix!r}")
            continue
        number, direction = match.groups()
        own = layers.setdefault(int(number or 0), {})
        twice = direction or ""
        check(twice not in own, argument, "one cell", f"more at {prefix!r}")
        own[twice] = prefix
    numbers, all_numbers = sorted(layers), list(range(len(layers)))
    check(bool(layers), argument, "weights of at least one layer", "none")
    check(numbers == all_numbers, argument, f"layers {all_numbers}", numbers)
    for i, own in sorted(layers.items()):
        ok = set(own) in ({""}, {"forward", "backward"})
        check(ok, argument, "one direction of a layer or two", f"{list(own)} of {i}")
    return [
        [own[d] for d in sorted(own, reverse=True)] for _, own in sorted(layers.items())
    ]


def _parts(name: str) -> list[str]:
    return [part + "/" for part in name.split("/")]


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
    check_choice(merge, "merge", ("concat", "sum", "mean", None))
    first = layers[0][0]
    before = isinstance(first.weights.w_h, ResetBefore)
    both = len(layers[0]) == 2
    check(not (both and reverse), "reverse", "False for two directions", reverse)
    for own in layers:
        expected = f"{len(layers[0])} direction(s), as the first layer"
        check(len(own) == len(layers[0]), own[0].name, expected, len(own))
        for found in own:
            expected = f"{NAMES[first.gates]}, as the first layer"
            ok = found.gates == first.gates
            check(ok, found.name, expected, NAMES[found.gates])
            expected = "the reset gate where the first layer has it"
            same = isinstance(found.weights.w_h, ResetBefore) == before
            check(same, found.name, expected, "another place")
        if merge in ("sum", "mean"):
            H = [width_out(found.weights.w_h) for found in own]
            check(H[0] == H[-1], own[-1].name, f"a width of {H[0]}, to add", H[-1])
    cell = _cell(first.gates, gate, activation, before)
    params = [[_params(cell, found.weights) for found in own] for own in layers]
    weights = tuple(tuple(own) if both else own[0] for own in params)
    network = Network(weights, cell, reverse=reverse, merge=merge)
    directions(network)
    return network


def _cell(gates: int, gate: Function, activation: Function, before: bool) -> Cell:
    plain = gate is jax.nn.sigmoid and activation is jnp.tanh
    if gates == 1:
        plain = activation is jnp.tanh
        return jaxseq.RNN if plain else jaxseq.rnn_cell(activation=activation)
    if gates == 3:
        if plain and not before:
            return jaxseq.GRU
        of_gru = partial(jaxseq.gru_cell, reset_after=not before)
        return of_gru(gate=gate, candidate=activation)
    of_lstm = partial(jaxseq.lstm_cell, output=activation)
    return jaxseq.LSTM if plain else of_lstm(gate=gate, candidate=activation)


def _params(cell: Cell, weights: Weights) -> Any:
    of = (
        (jaxseq.RNN, jaxseq.RNNParams),
        (jaxseq.GRU, jaxseq.GRUParams),
        (jaxseq.LSTM, jaxseq.LSTMParams),
    )
    kind: Any = next((kind for own, kind in of if cell is own), CellParams)
    return kind(*weights)


def taken_apart(
    network: Network,
    framework: str,
    cells: dict[int, Cell],
    *,
    free: bool = False,
    before: bool | None = False,
) -> tuple[int, list[list[Weights]]]:
    """How many gates the cells have, and the weights of each layer and direction.

    Args:
        network: what is to be converted.
        framework: its name, for errors.
        cells: those that it has, by their numbers of gates.
        free: whether its activations may be others.
        before: whether the reset gate of its GRU stands before the product; None if
            it may stand before or after.
    """
    layers = directions(network)
    used = network.cells[: len(layers[0])]
    gates = [_gates_of(cell, framework, cells, free) for cell in used]
    check(gates[0] == gates[-1], "network.cell", "two cells of one kind", used)
    place = "before" if before else "after"
    expected = f"a reset gate {place} the recurrent product, as {framework} has it"
    weights = [[_weights(params, framework) for params in own] for own in layers]
    for own in (own for both in weights for own in both):
        here = isinstance(own.w_h, ResetBefore)
        ok = gates[0] != 3 or before is None or here == before
        check(ok, "network.cell", expected, "before" if here else "after")
    return gates[0], weights


def _gates_of(cell: Cell, framework: str, cells: dict[int, Cell], free: bool) -> int:
    found = [n for n, own in cells.items() if _same(cell.update, own.update, free)]
    names = " or ".join(NAMES[n] for n in cells)
    expected = f"a cell that {framework} has: {names}"
    check(bool(found), "network.cell", expected, cell.update)
    return found[0]


def _same(update: Any, own: Any, free: bool) -> bool:
    """Whether two updates are equal, but for their activations if these are free."""
    if type(update) is not type(own) or not free:
        return update == own
    candidate = getattr(update, "candidate", None)
    one = getattr(update, "output", candidate) == candidate
    of = {f.name: getattr(own, f.name) for f in fields(own)}
    functions = {name: f for name, f in of.items() if callable(f)}
    return one and own == replace(update, **functions)


def _weights(params: Any, framework: str) -> Weights:
    w_x, w_h, b, extra = params
    reason = f"no projection, for {framework} has none"
    check(not isinstance(w_h, Projected), "network", reason, "one")
    if isinstance(extra, LSTMExtra):
        has = [k for k, a in extra._asdict().items() if a is not None and k != "b_h"]
        check(not has, "network", f"none of these, for {framework} has none", has)
        extra = extra.b_h
    return Weights(*jax.tree.map(_numpy, (w_x, w_h, b, extra)))


def _numpy(a: Any) -> Any:
    import numpy as np

    return np.asarray(a).copy()  # who gets it may change it in place
