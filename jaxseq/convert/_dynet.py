"""Weights of DyNet's LSTMs, in the text files that `ParameterCollection.save` writes.

Each array is a line that begins with `#Parameter#` and has its name, its shape and the
number of bytes that follow, and a line of values, column by column. An LSTM has for
each layer the matrices `(4H, D)` of the input and `(4H, H)` of the state and a bias
`(4H,)`, with the gates i, f, o, g one under the other. To the forget gate DyNet adds
its `forget_bias`, 1 if not told otherwise, which is not in the file.

Neubig et al., "DyNet: The Dynamic Neural Network Toolkit", 2017,
https://arxiv.org/abs/1701.03980.
"""

import re
from statistics import mode
from typing import Any, NamedTuple

import jaxseq
from jaxseq import LSTMParams
from jaxseq._base.check import check, check_flag, check_number
from jaxseq.convert._common import check_forward, taken_apart
from jaxseq.convert._gates import Weights, two_biases
from jaxseq.convert._names import check_shape, path_of, some
from jaxseq.convert._network import Network

BUILDER = "vanilla-lstm-builder"
BIRNN = re.compile(r"/birnn(_\d+)?/$")
ENTRY = re.compile(r"^#Parameter# (\S*/)(\S+) \{([\d,]+)\} \d+.*\n(.*)$", re.MULTILINE)


class Parameter(NamedTuple):
    name: str
    shape: tuple[int, ...]
    values: str


def from_dynet(text: str, *, prefix: str = "", forget_bias: float = 1.0) -> Network:
    """Converts the weights of an LSTM of DyNet.

    Args:
        text: the text of a file that `ParameterCollection.save` wrote. It may have
            other parameters besides the LSTM.
        prefix: the path of the LSTM in the text. Either that of a single builder, such
            as "/vanilla-lstm-builder", whose layers have one direction; or that of a
            collection with several builders, such as "/birnn" of a `BiRNNBuilder`,
            where every two builders are the two directions of a layer; "/" is the
            collection itself that was saved. It can be left out if there is only one
            builder or `BiRNNBuilder`.
        forget_bias: the `forget_bias` that the builders were made with.

    Returns:
        A `Network` of NumPy arrays with `LSTMParams`, in float32, the dtype of DyNet.
        `b_h` holds the forget bias, so `b` is exactly the bias in the text.

    Raises:
        ValueError: if the text has no such LSTM, if it has several and `prefix` does
            not say which, if it has one of another builder than
            `VanillaLSTMBuilder` (`LSTMBuilder` in Python) and its compact form, or if
            a shape or number is wrong. The weights of layer normalization (`ln_lstm`)
            are saved outside of the builder, and are not read.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.LSTM)
        >>> text = jaxseq.convert.to_dynet(network)
        >>> network = jaxseq.convert.from_dynet(text)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    check(isinstance(text, str), "text", "a str", type(text).__name__)
    prefix, given = _checked(prefix, forget_bias), bool(prefix)
    groups: dict[str, list[Parameter]] = {}
    for folder, name, shape, values in (m.groups() for m in ENTRY.finditer(text)):
        dims = tuple(map(int, shape.split(",")))
        groups.setdefault(folder, []).append(Parameter(folder + name, dims, values))
    builders = [f for f in groups if "-builder" in f.split("/")[-2]]
    found = {f: groups[f] for f in builders if f.startswith(prefix)}
    expected = f"the beginning of a builder in the text: {some(builders)}"
    check(bool(found), "prefix", expected, repr(prefix))
    for folder in found:
        name = folder.split("/")[-2]
        ok = re.fullmatch(rf"(compact-)?{BUILDER}(_\d+)?", name) is not None
        check(ok, "text", f"parameters of a {BUILDER} under {prefix}", folder)
    each = [_layers(own, forget_bias) for own in found.values()]
    if len(each) == 1:
        return Network(tuple(each[0]), jaxseq.LSTM)
    places = {"/".join(folder.split("/")[:-2]) + "/" for folder in found}
    clear = len(places) == 1 and BIRNN.search(min(places)) is not None
    clear |= given and places == {prefix}
    expected = "the path of one builder, or of the collection of a BiRNNBuilder"
    check(clear, "prefix", expected, f"{prefix!r}, where there are {some(found)}")
    ok = len(each) % 2 == 0 and all(len(own) == 1 for own in each)
    got = {folder: len(own) for folder, own in zip(found, each, strict=True)}
    check(ok, "prefix", "one builder, or pairs of builders with one layer", got)
    flat = [own[0] for own in each]
    pairs = tuple(zip(flat[::2], flat[1::2], strict=True))
    width = pairs[0][0].w_x.shape[0]
    for pair in pairs:
        got = [params.w_x.shape[0] for params in pair]
        check(got == [width] * 2, "text", f"layers with an input {width} wide", got)
        width = sum(params.w_h.shape[0] for params in pair)
    return Network(pairs, jaxseq.LSTM)


def _checked(prefix: str, forget_bias: float) -> str:
    finite = lambda n: abs(n) < float("inf")
    check_number(forget_bias, "forget_bias", "a finite number", finite)
    return "/" + path_of(prefix, "/")


def _layers(own: list[Parameter], forget_bias: float) -> list[LSTMParams]:
    """The layers of one builder."""
    import numpy as np

    names = [parameter.name for parameter in own]
    ok = len(own) % 3 == 0
    check(ok, "text", "two matrices and a bias of each layer", some(names))
    layers: list[LSTMParams] = []
    for w_x, w_h, b in zip(own[::3], own[1::3], own[2::3], strict=True):
        # as most of them have it, so that an error names the one that has not
        H = mode(parameter.shape[0] for parameter in (w_x, w_h, b)) // 4
        D = layers[-1].w_h.shape[0] if layers else w_x.shape[-1]
        x, h, bias = _take(w_x, 4 * H, D), _take(w_h, 4 * H, H), _take(b, 4 * H)
        added: Any = np.zeros(4 * H, np.float32)
        added[H : 2 * H] = forget_bias
        layers.append(LSTMParams(x.T, h.T, bias, added))
    return layers


def _take(parameter: Parameter, *shape: int) -> Any:
    """The array of a parameter that is to have this shape, with gates as in jaxseq."""
    import numpy as np

    name, got, values = parameter
    check_shape(name, got, shape)
    try:
        array = np.array(values.split(), np.float32)
    except ValueError as error:
        raise ValueError(f"{name}: expected numbers, got {error}") from error
    size = int(np.prod(shape))
    check(array.size == size, name, f"{size} numbers", array.size)
    return _swapped(array.reshape(shape, order="F"))


def _swapped(a: Any) -> Any:
    """The last two of four gates, o and g, in the other order."""
    import numpy as np

    i, f, o, g = np.split(a, 4)
    return np.concatenate([i, f, g, o])


def to_dynet(
    network: Network,
    *,
    prefix: str = "",
    forget_bias: float = 1.0,
    lossy: bool = False,
) -> str:
    """Converts a network into text in the format of DyNet.

    `ParameterCollection.populate` reads it into a collection that has this LSTM and
    nothing else.

    Args:
        network: layers of `jaxseq.LSTM`.
        prefix: the path of the collection that the builders are in, such as "/birnn"
            for a `BiRNNBuilder`.
        forget_bias: the `forget_bias` of the builder that will read the text.
        lossy: whether to round float64 to float32, the only dtype of the format.

    Returns:
        The text. Two biases are added, and the forget bias is subtracted. Weights that
        `from_dynet` read are written exactly as they were.

    Raises:
        ValueError: if the format cannot hold the network; the message says why.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.LSTM)
        >>> jaxseq.convert.to_dynet(network)[:48]
        '#Parameter# /vanilla-lstm-builder/_0 {32,3} 1537'
    """
    _, layers = taken_apart(network, "DyNet", (jaxseq.LSTM,))
    check_forward(network, "DyNet")
    prefix, lossy = _checked(prefix, forget_bias), check_flag(lossy, "lossy")
    dtype = layers[0][0].w_x.dtype
    ok = lossy or dtype.itemsize <= 4
    check(ok, "network", "float32, all that DyNet has, or lossy=True", dtype)
    both = len(layers[0]) == 2
    text: list[str] = []
    for n, own in enumerate(own for pair in layers for own in pair):
        folder = f"{prefix}{BUILDER}_{n}/" if both and n else f"{prefix}{BUILDER}/"
        arrays = own.w_x.T, own.w_h.T, _bias(own, forget_bias)
        for k, a in enumerate(arrays, 0 if both else 3 * n):
            text += _lines(f"{folder}_{k}", _swapped(a))
    return "".join(text)


def _bias(weights: Weights, forget_bias: float) -> Any:
    import numpy as np

    b, b_h = two_biases(weights)
    H = weights.w_h.shape[0]
    added = np.zeros_like(b_h)
    added[H : 2 * H] = forget_bias
    return b if np.array_equal(added, b_h) else b + (b_h - added)


def _lines(name: str, a: Any) -> list[str]:
    """The two lines of an array."""
    import numpy as np

    values = a.astype(np.float32).ravel(order="F").tolist()
    dims = ",".join(map(str, a.shape))
    size = 16 * len(values) + 1  # each "+1.00000000e+00 ", and the end of the line
    line = "".join(f"{value:+.8e} " for value in values)
    return [f"#Parameter# {name} {{{dims}}} {size} ZERO_GRAD\n", f"{line}\n"]
