"""The one vector of weights that `jax.experimental.rnn` hands to cuDNN.

First come the matrices `(4H, D)` of the input and `(4H, H)` of the state, layer by
layer and in each the forward direction before the backward one, then in the same
order both biases `(4H,)` of each. The gates stand one under the other in the order
that jaxseq has them side by side: i, f, g, o.

https://docs.jax.dev/en/latest/jax.experimental.rnn.html
"""

import math
from typing import Any

from jax.typing import ArrayLike

import jaxseq
from jaxseq import LSTMParams
from jaxseq._base.check import check_flag, check_sizes
from jaxseq.convert._common import check_forward, check_one_width, taken_apart
from jaxseq.convert._gates import two_biases
from jaxseq.convert._names import check_float, check_shape
from jaxseq.convert._network import Network


def from_cudnn(
    weights: ArrayLike,
    *,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
) -> Network:
    """Converts the weights of an LSTM of `jax.experimental.rnn`.

    The options have the names that `jax.experimental.rnn` gives them. PyTorch's LSTM
    keeps its weights in the same order on a GPU.

    Args:
        weights: all weights as one vector.
        input_size: width D of the inputs.
        hidden_size: width H of the state of each direction.
        num_layers: number of layers.
        bidirectional: whether each layer has two directions.

    Returns:
        A `Network` of NumPy arrays with `LSTMParams`. Both biases are kept, the second
        one as `b_h`.

    Raises:
        ValueError: if an option is wrong, if `weights` does not have the length that
            follows from the options, or if it does not have a float dtype.

    Example:
        >>> weights = jnp.zeros(4 * 8 * (3 + 8 + 2))
        >>> sizes = {"input_size": 3, "hidden_size": 8}
        >>> network = jaxseq.convert.from_cudnn(weights, **sizes)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    import numpy as np

    check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
    ways = 2 if check_flag(bidirectional, "bidirectional") else 1
    vector = np.array(weights)  # a copy, for what is given may change in place
    check_float("weights", vector.dtype)
    D, H = input_size, hidden_size
    widths = [D if layer == 0 else ways * H for layer in range(num_layers)]
    matrices = [((4 * H, width), (4 * H, H)) for width in widths for _ in range(ways)]
    shapes = [shape for pair in matrices for shape in pair]
    shapes += [(4 * H,)] * len(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    check_shape("weights", vector.shape, (sum(sizes),))
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    both = zip(parts, shapes, strict=True)
    arrays: list[Any] = [a.reshape(shape) for a, shape in both]
    n = len(arrays) // 2
    each = [
        LSTMParams(arrays[k].T, arrays[k + 1].T, arrays[n + k], arrays[n + k + 1])
        for k in range(0, n, 2)
    ]
    pairs = zip(each[::2], each[1::2], strict=True)
    return Network(tuple(pairs if ways == 2 else each), jaxseq.LSTM)


def to_cudnn(network: Network) -> Any:
    """Converts a network into the one vector that `jax.experimental.rnn` takes.

    Args:
        network: layers of `jaxseq.LSTM`, all of one width.

    Returns:
        A NumPy vector in the dtype of the weights. cuDNN itself takes float32. A
        missing bias is written as zeros.

    Raises:
        ValueError: if the vector cannot hold the network; the message says why.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.LSTM)
        >>> jaxseq.convert.to_cudnn(network).shape
        (416,)
    """
    import numpy as np

    _, layers = taken_apart(network, "cuDNN", (jaxseq.LSTM,))
    check_forward(network, "cuDNN")
    check_one_width(layers, "cuDNN")
    each = [own for both in layers for own in both]
    matrices = [a.T for own in each for a in (own.w_x, own.w_h)]
    biases = [b for own in each for b in two_biases(own)]
    return np.concatenate([a.ravel() for a in (*matrices, *biases)])
