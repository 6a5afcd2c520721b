"""Weights of Equinox: `eqx.nn.LSTMCell` and `GRUCell`.

Equinox's matrices are `(out, in)`, with the gates one under the other, in the order
that jaxseq has them side by side: i, f, g, o of an LSTM, r, z, n of a GRU. `bias_n` is
the bias of the candidate's recurrent product.

https://docs.kidger.site/equinox/api/nn/rnn/
"""

from typing import Any

import jaxseq
from jaxseq._base.check import check
from jaxseq.convert._common import Found, built, flat, places, taken_apart, width
from jaxseq.convert._gates import Weights, gru_biases, one_bias
from jaxseq.convert._network import Network
from jaxseq.convert._state import Named

CELLS = {3: jaxseq.GRU, 4: jaxseq.LSTM}
# what a cell has besides its arrays
STATIC = "input_size", "hidden_size", "use_bias"


def from_equinox(
    weights: Any, *, reverse: bool = False, merge: str | None = "concat"
) -> Network:
    """A network with the weights of cells of Equinox.

    Args:
        weights: the arrays of a cell by the names of its attributes, such as
            `vars(cell)`; for several layers a list of these from the input up, and for
            two directions a pair `(forward, backward)` in place of each.
        reverse: whether the cells are run from the last step to the first.
        merge: what becomes of the outputs of two directions; see `bidirectional`.

    Returns:
        A `Network` of NumPy arrays with `LSTMParams` or `GRUParams`.

    Raises:
        ValueError: if a name is missing or left over, a shape or dtype does not fit, or
            layers are of different kinds.

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
        for name, a in flat(weights, "weights").items()
        if a is not None and name.rpartition("/")[2] not in STATIC
    }
    named = Named(arrays, "weights")
    layers: list[list[Found]] = []
    for own in places(list(arrays), 1, "weights"):
        below = width(layers, merge)
        layers.append([_read(named, prefix, below) for prefix in own])
    named.finish()
    return built(layers, reverse=reverse, merge=merge)


def _read(named: Named, prefix: str, below: int | None) -> Found:
    w_ih, w_hh, bias, bias_n = (
        prefix + name for name in ("weight_ih", "weight_hh", "bias", "bias_n")
    )
    Z, H = named.shape(w_hh, 2)
    ok = Z in (3 * H, 4 * H)
    check(ok, w_hh, f"rows of a GRU or an LSTM: 3 or 4 times {H}", Z)
    D = named.shape(w_ih, 2)[1] if below is None else below
    w_x, w_h = named.take(w_ih, Z, D).T, named.take(w_hh, Z, H).T
    if bias not in named and bias_n not in named:
        return Found(w_ih, Z // H, Weights(w_x, w_h))
    b = named.take(bias, Z)
    b_hn = named.take(bias_n, H) if Z == 3 * H else None
    return Found(w_ih, Z // H, Weights(w_x, w_h, b, b_hn))


def to_equinox(network: Network) -> list[Any]:
    """The weights of cells of Equinox, by the names of their attributes.

    Args:
        network: layers of `jaxseq.LSTM` or `GRU`.

    Returns:
        Of each layer a dict of NumPy arrays, or a pair of them for two directions, to
        put into a cell with `eqx.tree_at`. Without biases there are two arrays, of a
        cell made with `use_bias=False`. Two biases where Equinox has one are added.

    Raises:
        ValueError: if Equinox has no such cell, with the reason.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.GRU)
        >>> (cell,) = jaxseq.convert.to_equinox(network)
        >>> sorted(cell)
        ['bias', 'bias_n', 'weight_hh', 'weight_ih']
    """
    gates, layers = taken_apart(network, "Equinox", CELLS)
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
