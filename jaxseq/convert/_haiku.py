"""Weights of Haiku: `hk.VanillaRNN`, `LSTM` and `GRU`, alone and in an `hk.DeepRNN`.

An LSTM has one matrix, of the input over that of the hidden state, with the gates in
the order i, g, f, o, and adds 1 to what the forget gate is given. A GRU has the order
z, r, a, with the reset gate before the recurrent product, and its update gate is 1
minus that of jaxseq, so its weights change their sign. A VanillaRNN has relu.

https://dm-haiku.readthedocs.io/en/latest/api.html#recurrent
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import jaxseq
from jaxseq import ResetBefore
from jaxseq._base.check import check
from jaxseq.convert._common import Found, built, taken_apart, width
from jaxseq.convert._gates import (
    Weights,
    added,
    blocks,
    one_bias,
    reordered,
    side_by_side,
    zeros,
)
from jaxseq.convert._names import Named, flat, some
from jaxseq.convert._network import Network

CELLS = (
    jaxseq.rnn_cell(activation=jax.nn.relu),
    jaxseq.gru_cell(reset_after=False),
    jaxseq.LSTM,
)
MODULES = {1: "vanilla_rnn", 3: "gru", 4: "lstm"}
# i, g, f, o and i, f, g, o, either way
LSTM_ORDER = 0, 2, 1, 3
Names = Sequence[str | tuple[str, str]]


def from_haiku(
    weights: Mapping[str, Mapping[str, Any]],
    *,
    names: Names | None = None,
    reverse: bool = False,
    merge: str | None = "concat",
) -> Network:
    """Converts the weights of recurrent cores of Haiku.

    Args:
        weights: the parameters that `init` of `hk.transform` returned, with those of
            a `VanillaRNN`, `LSTM` or `GRU` among them.
        names: the names of the modules, first layer first, such as `["lstm",
            "lstm_1"]`, with a pair `(forward, backward)` for a layer of two directions.
            Other modules are not read. If None, all modules are read; they have to be
            layers with the names that Haiku gives them by itself.
        reverse: whether the cores run from the last step to the first.
        merge: how the outputs of two directions are combined; see `bidirectional`.

    Returns:
        A `Network` of NumPy arrays with `LSTMParams`, or with `CellParams` for a GRU
        or VanillaRNN. The 1 that Haiku's LSTM adds to its forget gate is in the second
        bias, `b_h`, which is 0 elsewhere.

    Raises:
        ValueError: if a name is missing or not used, if a shape or dtype is wrong, or
            if layers are of different kinds.

    Example:
        >>> import numpy as np
        >>> linear = {"w": np.ones((11, 32), "f"), "b": np.ones(32, "f")}
        >>> network = jaxseq.convert.from_haiku({"lstm/linear": linear})
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    got = type(weights).__name__
    check(isinstance(weights, Mapping), "weights", "a mapping", got)
    arrays = flat(weights, "the params of hk.transform")
    cores = [*dict.fromkeys(map(_core_of, arrays))]
    found = _numbered(cores) if names is None else _pairs(names)
    check(bool(found), "weights", "those of at least one core", "none")
    if names is not None:
        used = {name for own in found for name in own}
        missing = some(used - {*cores})
        check(used <= {*cores}, "names", f"modules among {some(cores)}", missing)
        arrays = {k: a for k, a in arrays.items() if _core_of(k) in used}
    named = Named(arrays)
    layers: list[list[Found]] = []
    for own in found:
        below = width(layers, merge)
        layers.append([_read(named, name, below) for name in own])
    named.finish()
    activation = jax.nn.relu if layers[0][0].gates == 1 else jnp.tanh
    return built(layers, activation=activation, reverse=reverse, merge=merge)


def _core_of(path: str) -> str:
    return re.sub(r"(/linear(_\d+)?)?/[^/]*$", "", path)


def _pairs(names: Any) -> list[tuple[str, ...]]:
    """The names of each layer's directions."""
    expected, got = "a list with a name for each layer", type(names).__name__
    check(type(names) in (list, tuple), "names", expected, got)
    found = [tuple(own) if type(own) in (list, tuple) else (own,) for own in names]
    each = [name for own in found for name in own]
    ok = bool(found) and all(len(own) in (1, 2) for own in found)
    ok = ok and all(isinstance(name, str) for name in each)
    check(ok, "names", "names of modules, or pairs of them", names)
    found = [tuple(name.rstrip("/") for name in own) for own in found]
    each = [name for own in found for name in own]
    check(len(set(each)) == len(each), "names", "each name once", names)
    return found


def _numbered(cores: list[str]) -> list[tuple[str, ...]]:
    """Modules in the order of the numbers that Haiku has given them."""
    found: dict[int, str] = {}
    for core in cores:
        _, number = re.fullmatch(r"(.*?)(?:_(\d+))?", core, re.DOTALL).groups()  # pyright: ignore
        found[int(number or 0)] = core
    starts = {re.sub(r"_\d+$", "", core) for core in cores}
    ok = len(starts) <= 1 and sorted(found) == list(range(len(cores)))
    expected = "one module, or numbered ones of one name; else say which by `names`"
    check(ok, "weights", expected, some(cores))
    return [(found[i],) for i in sorted(found)]


def _read(named: Named, core: str, below: int | None) -> Found:
    if f"{core}/w_i" in named or f"{core}/w_h" in named:
        return Found(core, 3, _read_gru(named, core, below))
    linear, linear_1 = f"{core}/linear/", f"{core}/linear_1/"
    if f"{linear_1}w" in named or f"{linear_1}b" in named:
        H, _ = named.shape(linear_1 + "w", None, None)
        w_x, w_h = named.take(linear + "w", below, H), named.take(linear_1 + "w", H, H)
        b, second = named.take(linear + "b", H), linear_1 + "b"
        b_h = named.take(second, H) if second in named else None
        return Found(core, 1, Weights(w_x, w_h, b, b_h))
    rows, Z = named.shape(linear + "w", None, None)
    H = Z // 4
    D = max(rows - H, 1) if below is None else below
    ok = Z == 4 * H and rows == D + H
    expected = f"shape (D + H, 4H) of an LSTM, here with D = {D}"
    check(ok, linear + "w", expected, (rows, Z))
    w = reordered(named.take(linear + "w", rows, Z), LSTM_ORDER)
    b = reordered(named.take(linear + "b", Z), LSTM_ORDER)
    return Found(core, 4, Weights(w[:D], w[D:], b, _forget_bias(b)))


def _forget_bias(b: Any) -> Any:
    """What an LSTM of Haiku adds: 1 to what the forget gate is given."""
    import numpy as np

    ones = np.zeros_like(b)
    ones[b.size // 4 : b.size // 2] = 1
    return ones


def _read_gru(named: Named, core: str, below: int | None) -> Weights:
    H, _ = named.shape(f"{core}/w_h", None, None)
    of: dict[str, Any] = {"w_i": (below, 3 * H), "w_h": (H, 3 * H), "b": (3 * H,)}
    arrays = [named.take(f"{core}/{name}", *shape) for name, shape in of.items()]
    w_x, w_h, b = (_from_zra(a) for a in arrays)
    r, z, n = blocks(w_h, 3)
    return Weights(w_x, ResetBefore(side_by_side([r, z]), n), b)


def _from_zra(a: Any) -> Any:
    """The gates z, r, a as r, z, n; σ(-x) is 1 - σ(x)."""
    z, r, n = blocks(a, 3)
    return side_by_side([r, -z, n])


def _to_zra(a: Any) -> Any:
    r, z, n = blocks(a, 3)
    return side_by_side([-z, r, n])


def to_haiku(
    network: Network, *, names: Names | None = None
) -> dict[str, dict[str, Any]]:
    """Converts a network into the weights of recurrent cores of Haiku.

    Args:
        network: layers of `jaxseq.LSTM`, of `gru_cell(reset_after=False)`, or of
            `rnn_cell` with `jax.nn.relu`.
        names: the names of the modules, first layer first, such as `["lstm",
            "lstm_1"]`, with a pair `(forward, backward)` for a layer of two directions.
            If None, the names that Haiku gives them by itself.

    Returns:
        NumPy arrays by the name of their module and their own name, for `apply` of
        `hk.transform`. Missing biases are written as zeros. Of an LSTM, the 1 that
        Haiku adds to the forget gate is subtracted from its bias, which rounds, unless
        it stands in `b_h` as `from_haiku` puts it there.

    Raises:
        ValueError: if Haiku has no such core; the message says why.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.LSTM)
        >>> weights = jaxseq.convert.to_haiku(network)
        >>> weights["lstm/linear"]["w"].shape
        (11, 32)
    """
    gates, layers = taken_apart(network, "Haiku", CELLS, before=True)
    if names is None:
        name = MODULES[gates]
        numbered = (f"{name}_{i}" if i else name for i in itertools.count())
        of = [tuple(itertools.islice(numbered, len(own))) for own in layers]
    else:
        of = _pairs(names)
    fits = [len(own) for own in of] == [len(own) for own in layers]
    expected = "a name for each layer, a pair for one of two directions"
    check(fits, "names", expected, names)
    found: dict[str, dict[str, Any]] = {}
    for own, both in zip(of, layers, strict=True):
        for name, weights in zip(own, both, strict=True):
            found |= _written(gates, weights, name)
    return found


def _written(gates: int, weights: Weights, name: str) -> dict[str, dict[str, Any]]:
    import numpy as np

    w_x, w_h, b, b_h = weights
    if gates == 3:
        w_h = np.concatenate([w_h.gates, w_h.candidate], axis=1)
        b = one_bias(weights)
        w_i, w_h, b = (_to_zra(a) for a in (w_x, w_h, b))
        return {name: {"w_i": w_i, "w_h": w_h, "b": b}}
    if gates == 1:
        b = zeros(weights, w_h.shape[0]) if b is None else b
        second = {} if b_h is None else {"b": b_h}
        linear, linear_1 = {"w": w_x, "b": b}, {"w": w_h, **second}
        return {f"{name}/linear": linear, f"{name}/linear_1": linear_1}
    b = zeros(weights, w_x.shape[1]) if b is None else b
    ones = _forget_bias(b)
    if b_h is None or not np.array_equal(b_h, ones):
        b = added(b, b_h) - ones
    w = reordered(np.concatenate([w_x, w_h]), LSTM_ORDER)
    return {f"{name}/linear": {"w": w, "b": reordered(b, LSTM_ORDER)}}
