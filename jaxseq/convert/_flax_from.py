"""Reads weights of Flax NNX and Linen: recurrent cells, and what runs them over time.

Flax's matrices are `(in, out)`, as those of jaxseq, and its gates have the same order.
`LSTMCell` of NNX and all cells of Linen have a matrix for each gate, the other cells of
NNX have all gates side by side. The only bias of an LSTM is that of the recurrent
product. A GRU has one of the candidate's recurrent product in Linen, and none in NNX.

https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/recurrent.html
https://flax.readthedocs.io/en/latest/api_reference/flax.linen/layers.html#recurrent
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxseq._base.check import check, check_callable
from jaxseq.convert._common import Found, Function, built, gates_of, width
from jaxseq.convert._gates import Weights, blocks, side_by_side
from jaxseq.convert._names import Named, flat, path_of, places
from jaxseq.convert._network import Network

# the names of the gates, of the input and of the state, by how many there are
NNX_LSTM = ["ii", "if_", "ig", "io"], ["hi", "hf", "hg", "ho"]
LINEN = {
    1: (["i"], ["h"]),
    2: (["if", "in"], ["hf", "hn"]),
    3: (["ir", "iz", "in"], ["hr", "hz", "hn"]),
    4: (["ii", "if", "ig", "io"], ["hi", "hf", "hg", "ho"]),
}


def from_nnx(
    weights: Any,
    *,
    prefix: str = "",
    gate_fn: Function = jax.nn.sigmoid,
    activation_fn: Function = jnp.tanh,
    reverse: bool = False,
    merge: str | None = "concat",
) -> Network:
    """Converts the weights of a recurrent module of Flax NNX.

    Args:
        weights: the state of a module as nested dicts,
            `nnx.to_pure_dict(nnx.state(module))`, or as a dict by paths, which are
            tuples or joined by "/" or ".". The module is a `SimpleCell`, `LSTMCell`,
            `OptimizedLSTMCell` or `GRUCell`, an `nnx.RNN` or `nnx.Bidirectional` of
            them, or an `nnx.Sequential` of these. Modules that are not in a sequence
            can be given as a list, first layer first, with a pair `(forward, backward)`
            for a layer of two directions. States of random numbers, `rngs`, are
            ignored.
        prefix: the path of the module in the state of a larger one, such as
            "encoder/rnn".
        gate_fn: the `gate_fn` of the cell, which is not part of the weights.
        activation_fn: the `activation_fn` of the cell, likewise. A `SimpleCell` with
            `residual` cannot be converted.
        reverse: the `reverse` of the `nnx.RNN`. Without `keep_order` Flax returns the
            outputs of such an RNN in reverse; jaxseq returns each at the position of
            its input.
        merge: how the outputs of two directions are combined; see `bidirectional`.

    Returns:
        A `Network` of NumPy arrays: `RNNParams`, `LSTMParams` or `GRUParams`, or
        `CellParams` for other activations.

    Raises:
        ValueError: if a name is missing or not used, if a shape or dtype is wrong, or
            if layers are of different kinds.

    Example:
        >>> import numpy as np
        >>> i, h = {"kernel": np.ones((3, 32), "f")}, {"kernel": np.ones((8, 32), "f")}
        >>> h["bias"] = np.ones(32, "f")
        >>> weights = {"cell": {"dense_i": i, "dense_h": h}}
        >>> network = jaxseq.convert.from_nnx(weights)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    how = {"gate_fn": gate_fn, "activation_fn": activation_fn}
    read = "nnx.to_pure_dict(nnx.state(module))"
    return _read(_nnx, weights, prefix, read, how, reverse=reverse, merge=merge)


def from_linen(
    weights: Any,
    *,
    prefix: str = "",
    gate_fn: Function = jax.nn.sigmoid,
    activation_fn: Function = jnp.tanh,
    reverse: bool = False,
    merge: str | None = "concat",
) -> Network:
    """Converts the weights of a recurrent module of Flax Linen.

    Args:
        weights: the parameters of a module, `variables["params"]`, as nested dicts or
            as a dict by paths; or a list of such; see `from_nnx`. The module is a
            `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` or `MGUCell`, an
            `nn.RNN` or `nn.Bidirectional` of them, or an `nn.Sequential` of these.
        prefix: the path of the module in the parameters of a larger one. A module that
            is made in `setup` is at its name, as in "encoder/rnn". One that is made
            under `@nn.compact` has its cells beside its own name: as in
            "encoder/OptimizedLSTMCell_0", or "encoder" if there is nothing else in it.
            Two directions are given as a pair, such as
            `[(p["GRUCell_0"], p["GRUCell_1"])]` with `p` the parameters of the module
            around them.
        gate_fn: the `gate_fn` of the cell, which is not part of the weights.
        activation_fn: the `activation_fn` of the cell, likewise. A `SimpleCell` with
            `residual` cannot be converted.
        reverse: the `reverse` of the `nn.RNN`; see `from_nnx`.
        merge: how the outputs of two directions are combined; see `bidirectional`.

    Returns:
        A `Network` of NumPy arrays: `RNNParams`, `LSTMParams` or `GRUParams`, or
        `CellParams` for other activations. An `MGUCell` becomes a GRU whose reset and
        update gates have equal weights, which training would not keep equal.

    Raises:
        ValueError: if a name is missing or not used, if a shape or dtype is wrong, if
            layers are of different kinds, or if an `MGUCell` has no reset gate.

    Example:
        >>> import numpy as np
        >>> i, h = {"kernel": np.ones((3, 8), "f")}, {"kernel": np.ones((8, 8), "f")}
        >>> weights = {"cell": {"i": i | {"bias": np.ones(8, "f")}, "h": h}}
        >>> network = jaxseq.convert.from_linen(weights)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    how = {"gate_fn": gate_fn, "activation_fn": activation_fn}
    read = 'variables["params"]'
    return _read(_linen, weights, prefix, read, how, reverse=reverse, merge=merge)


def _read(
    cell: Callable[[Named, str, int | None], tuple[int, Weights]],
    weights: Any,
    prefix: str,
    how_read: str,
    functions: dict[str, Function],
    **how: Any,
) -> Network:
    """The network of what `cell` finds at each place: the gates and the weights."""
    for name, f in functions.items():
        check_callable(f, name)
    prefix = path_of(prefix, "./")
    arrays = flat(weights, how_read)
    arrays = {k: a for k, a in arrays.items() if "rngs" not in k.split("/")}
    named = Named(arrays, prefix)
    own = [k.removeprefix(prefix) for k in arrays if k.startswith(prefix)]
    layers: list[list[Found]] = []
    for both in places(own, 2):
        below, at = width(layers, how["merge"]), [prefix + place for place in both]
        layers.append([Found(p or "weights", *cell(named, p, below)) for p in at])
    named.finish()
    gate, activation = functions.values()
    return built(layers, gate=gate, activation=activation, **how)


def _nnx(named: Named, cell: str, below: int | None) -> tuple[int, Weights]:
    if _has(named, cell, *NNX_LSTM[0], *NNX_LSTM[1]):
        return 4, _by_gate(named, cell, below, *NNX_LSTM, NNX_LSTM[1])
    i, h = cell + "dense_i/", cell + "dense_h/"
    shape = H, Z = named.shape(h + "kernel", None, None)
    gates = gates_of(h + "kernel", shape)
    w_x, w_h = named.take(i + "kernel", below, Z), named.take(h + "kernel", H, Z)
    b = named.take((h if gates == 4 else i) + "bias", Z)
    return gates, Weights(w_x, w_h, b)


def _linen(named: Named, cell: str, below: int | None) -> tuple[int, Weights]:
    if _has(named, cell, "ii", "ig", "io", "hi", "hg", "ho"):
        return 4, _by_gate(named, cell, below, *LINEN[4], LINEN[4][1])
    if _has(named, cell, "i", "h"):
        return 1, _by_gate(named, cell, below, *LINEN[1], LINEN[1][0])
    mgu, bias = _has(named, cell, "if", "hf"), cell + "hn/bias"
    reason = "a bias; an MGUCell without a reset gate is no GRU"
    check(not mgu or bias in named, bias, reason, "none")
    of_x, of_h = LINEN[2 if mgu else 3]
    weights = _by_gate(named, cell, below, of_x, of_h, of_x)
    b_hn = named.take(bias, weights.w_h.shape[0])
    if mgu:  # the forget gate is both the reset and the update gate
        w_x, w_h, b = (side_by_side([blocks(a, 2)[0], a]) for a in weights[:3])
        return 3, Weights(w_x, w_h, b, b_hn)
    return 3, weights._replace(b_h=b_hn)


def _has(named: Named, cell: str, *gates: str) -> bool:
    return any(f"{cell}{gate}/kernel" in named for gate in gates)


def _by_gate(
    named: Named,
    cell: str,
    below: int | None,
    of_x: list[str],
    of_h: list[str],
    of_b: list[str],
) -> Weights:
    """Weights that have a matrix for each gate."""
    H, _ = named.shape(f"{cell}{of_h[0]}/kernel", None, None)
    D, _ = named.shape(f"{cell}{of_x[0]}/kernel", below, None)
    w_x = [named.take(f"{cell}{gate}/kernel", D, H) for gate in of_x]
    w_h = [named.take(f"{cell}{gate}/kernel", H, H) for gate in of_h]
    b = [named.take(f"{cell}{gate}/bias", H) for gate in of_b]
    return Weights(*map(side_by_side, (w_x, w_h, b)))
