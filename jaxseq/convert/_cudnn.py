"""The one vector of weights that `jax.experimental.rnn` hands to cuDNN.

First come the matrices `(4H, D)` of the input and `(4H, H)` of the state, layer by
layer and in each the forward direction before the backward one, then in the same
order both biases `(4H,)` of each. The gates stand one under the other in the order
that jaxseq has them side by side: i, f, g, o.

https://docs.jax.dev/en/latest/jax.experimental.rnn.html
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.typing import ArrayLike

import jaxseq
from jaxseq import LSTMParams
from jaxseq._base.check import check, check_flag, check_sizes
from jaxseq.convert._lstms import biases, lstm_layers
from jaxseq.convert._network import Network


def from_cudnn(
    weights: ArrayLike,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
) -> Network:
    """A network with the weights of an LSTM of `jax.experimental.rnn`.

    The arguments are those of `jax.experimental.rnn.unpack_lstm_weights`. PyTorch's
    LSTM on a GPU keeps its weights in the same order.

    Args:
        weights: all weights as one vector.
        input_size: width of the inputs, D.
        hidden_size: width of the state of each direction, H.
        num_layers: number of layers.
        bidirectional: whether each layer has two directions.

    Returns:
        A `Network` of NumPy arrays with `LSTMParams`. Both biases are kept, the second
        as `b_h`.

    Raises:
        ValueError: if a size is not right, or `weights` has another length than these
            make, or is not of floats.

    Example:
        >>> weights = jnp.zeros(4 * 8 * (3 + 8 + 2))
        >>> network = jaxseq.convert.from_cudnn(weights, 3, 8, 1, False)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    import numpy as np

    check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
    ways = 2 if check_flag(bidirectional, "bidirectional") else 1
    vector = np.asarray(weights)
    floats = np.issubdtype(vector.dtype, np.floating) or vector.dtype.name == "bfloat16"
    check(floats, "weights", "a float dtype", vector.dtype)
    D, H = input_size, hidden_size
    widths = [D if layer == 0 else ways * H for layer in range(num_layers)]
    matrices = [((4 * H, width), (4 * H, H)) for width in widths for _ in range(ways)]
    shapes = [shape for pair in matrices for shape in pair]
    shapes += [(4 * H,)] * len(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    expected = f"shape ({sum(sizes)},)"
    check(vector.shape == (sum(sizes),), "weights", expected, vector.shape)
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    both = zip(parts, shapes, strict=True)
    arrays: list[Any] = [a.reshape(shape) for a, shape in both]
    n = len(arrays) // 2
    pseudo = [
        LSTMParams(arrays[k].T, arrays[k + 1].T, arrays[n + k], arrays[n + k + 1])
        for k in range(0, n, 2)
    ]
    pairs = zip(pseudo[::2], pseudo[1::2], strict=True)
    return Network(tuple(pairs if ways == 2 else pseudo), jaxseq.LSTM)


def to_cudnn(network: Network) -> Any:
    """The weights as the one vector that `jax.experimental.rnn` takes.

    Args:
        network: layers of `jaxseq.LSTM`, all of one width.

    Returns:
        A NumPy vector in the dtype of the weights; the kernel takes float32. A bias
        that the weights do not have is zero.

    Raises:
        ValueError: if the format does not hold the network, with the reason.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.LSTM)
        >>> jaxseq.convert.to_cudnn(network).shape
        (416,)
    """
    import numpy as np

    layers = lstm_layers(network, "that is what cuDNN's vector holds")
    below, H = None, layers[0][0].w_h.shape[0]
    for i, both in enumerate(layers):
        name = f"network.layers[{i}]"
        for params in both:
            D, own = params.w_x.shape[0], params.w_h.shape[0]
            check(own == H, name, f"H = {H} as in all layers, for cuDNN", own)
            check(below in (None, D), name, f"an input {below} wide", D)
        widths = {params.w_x.shape[0] for params in both}
        check(len(widths) == 1, name, "both directions of one input", widths)
        below = H * len(both)
    pseudo = [params for both in layers for params in both]
    found = [np.asarray(a) for a in (*_matrices(pseudo), *_biases(pseudo))]
    dtypes = {a.dtype.name for a in found}
    check(len(dtypes) == 1, "network", "weights of one dtype", sorted(dtypes))
    return np.concatenate([a.ravel() for a in found])


def _matrices(pseudo: list[LSTMParams]) -> Iterator[Any]:
    for params in pseudo:
        yield params.w_x.T
        yield params.w_h.T


def _biases(pseudo: list[LSTMParams]) -> Iterator[Any]:
    for params in pseudo:
        yield from biases(params)
