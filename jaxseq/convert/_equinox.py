"""Weights of Equinox: `eqx.nn.LSTMCell` and `GRUCell`.

Equinox's matrices are `(out, in)`, with the gates one under the other, in the order
that jaxseq has them side by side: i, f, g, o of an LSTM, r, z, n of a GRU. `bias_n` is
the bias of the candidate's recurrent product.

https://docs.kidger.site/equinox/api/nn/rnn/
"""

from typing import Any

import jaxseq
from jaxseq.convert._common import Found, built, gates_of, taken_apart, width
from jaxseq.convert._gates import Weights, gru_biases, one_bias
from jaxseq.convert._names import Named, flat, places
from jaxseq.convert._network import Network

# what a cell has besides its arrays
STATIC = "input_size", "hidden_size", "use_bias"


def from_equinox(
    weights: Any, *, reverse: bool = False, merge: str | None = "concat"
) -> Network:
    """Converts the weights of recurrent cells of Equinox.

    Args:
        weights: the arrays of an `LSTMCell` or `GRUCell` by the names of its
            attributes, as `vars(cell)` has them. For several layers, a list of such
            dicts, first layer first. For two directions, a pair `(forward, backward)`
            in place of each dict.
        reverse: whether the cells run from the last step to the first.
        merge: how the outputs of two directions are combined; see `bidirectional`.

    Returns:
        A `Network` of NumPy arrays with `LSTMParams` or `GRUParams`.

    Raises:
        ValueError: if a name is missing or not used, if a shape or dtype is wrong, or
            if layers are of different kinds.

    Example:
        >>> import numpy as np
        >>> shapes = {"weight_ih": (32, 3), "weight_hh": (32, 8), "bias": (32,)}
        >>> weights = {name: np.ones(shape, "f") for name, shape in shapes.items()}
        >>> network = jaxseq.convert.from_equinox(weights)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    arrays = {
        name: a
        for name, a in flat(weights, "vars(cell)").items()
        if a is not None and name.rpartition("/")[2] not in STATIC
    }
    named = Named(arrays)
    layers: list[list[Found]] = []
    for own in places(arrays, 1):
        below = width(layers, merge)
        layers.append([_read(named, prefix, below) for prefix in own])
    named.finish()
    return built(layers, reverse=reverse, merge=merge)


def _read(named: Named, prefix: str, below: int | None) -> Found:
    w_ih, w_hh, bias, bias_n = (
        prefix + name for name in ("weight_ih", "weight_hh", "bias", "bias_n")
    )
    shape = Z, H = named.shape(w_hh, None, None)
    gates = gates_of(w_hh, shape, rows=True, among=(3, 4))
    w_x, w_h = named.take(w_ih, Z, below).T, named.take(w_hh, Z, H).T
    if bias not in named and bias_n not in named:
        return Found(w_ih, gates, Weights(w_x, w_h))
    b = named.take(bias, Z)
    b_hn = named.take(bias_n, H) if gates == 3 else None
    return Found(w_ih, gates, Weights(w_x, w_h, b, b_hn))


def to_equinox(network: Network) -> list[Any]:
    """Converts a network into the weights of cells of Equinox.

    Args:
        network: layers of `jaxseq.LSTM` or `GRU`.

    Returns:
        A list with a dict for each layer, or a pair of dicts for two directions: NumPy
        arrays by the names of the cell's attributes, to be put into a cell with
        `eqx.tree_at`. Without biases there are only the two matrices, as of a cell
        with `use_bias=False`. Two biases are added where Equinox has one.

    Raises:
        ValueError: if Equinox has no such cell; the message says why.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.GRU)
        >>> (cell,) = jaxseq.convert.to_equinox(network)
        >>> sorted(cell)
        ['bias', 'bias_n', 'weight_hh', 'weight_ih']
    """
    gates, layers = taken_apart(network, "Equinox", (jaxseq.GRU, jaxseq.LSTM))
    cells = [tuple(_written(gates, weights) for weights in own) for own in layers]
    return [own if len(own) == 2 else own[0] for own in cells]


def _written(gates: int, weights: Weights) -> dict[str, Any]:
    import numpy as np

    w_x, w_h, b, b_h = weights
    found = {"weight_ih": w_x.T, "weight_hh": w_h.T}
    if b is not None or b_h is not None:
        both = gru_biases(weights) if gates == 3 else (one_bias(weights),)
        found |= dict(zip(("bias", "bias_n"), both, strict=False))
    return {name: np.ascontiguousarray(a) for name, a in found.items()}
