"""Trees of weights as JSON, so that they can be made again without a template.

null                            None
"layers.0.w_x"                  the array of that name
{"tuple": […]}, {"list": […]}   with their parts
{"dict": [[key, …], …]}         with its keys, all of them str or all int
{"LSTMParams": {"w_x": …}}      a public NamedTuple of jaxseq, or a Network
{"value": 1e-05}                a number, text or boolean that is no array
{"Cell": "LSTM"}                a Cell of jaxseq, with no code in it
{"Cell": ["gru_cell", {…}]}     or how it is made
{"function": "tanh"}            an activation of such a one
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp

FUNCTIONS = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}
MAKERS = {
    "GRUUpdate": "gru_cell",
    "LSTMUpdate": "lstm_cell",
    "RNNUpdate": "rnn_cell",
}
VALUES = bool, int, float, str


class UnknownError(Exception):
    """It has a part that only a template can say how to make."""


def kinds() -> dict[str, Any]:
    """The public types that trees of weights and states are made of, by name."""
    import jaxseq
    from jaxseq.convert._network import Network

    public = {name: getattr(jaxseq, name) for name in jaxseq.__all__}
    is_tuple = lambda a: isinstance(a, type) and hasattr(a, "_fields")
    tuples = {name: a for name, a in public.items() if is_tuple(a)}
    return tuples | {"Network": Network}


def is_array(leaf: Any) -> bool:
    """Whether it is an array or stands for one."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def described(tree: Any, names: list[str]) -> Any:
    """A tree as JSON, with the names of its arrays in the order of its leaves.

    Raises `UnknownError` with the name of a type that is not jaxseq's.
    """
    return _described(tree, iter(names), kinds())


def _described(tree: Any, names: Iterator[str], known: dict[str, Any]) -> Any:
    part = lambda a: _described(a, names, known)
    kind = type(tree)
    if tree is None:
        return None
    if kind in (tuple, list):
        return {kind.__name__: [part(a) for a in tree]}
    if kind is dict:
        if set(map(type, tree)) not in ({str}, {int}, set()):
            raise UnknownError("dict with such keys")
        return {"dict": [[key, part(tree[key])] for key in sorted(tree)]}
    if kind is known["Cell"]:
        return {"Cell": _cell(tree, part)}
    if known.get(kind.__name__) is kind:
        of_tuple = hasattr(kind, "_fields")
        fields = kind._fields if of_tuple else kind.__dataclass_fields__
        return {kind.__name__: {name: part(getattr(tree, name)) for name in fields}}
    if kind in VALUES:
        return {"value": tree}
    for name, f in FUNCTIONS.items():
        if tree is f:
            return {"function": name}
    if is_array(tree):
        return next(names)
    raise UnknownError(kind.__name__)


def _cell(cell: Any, part: Callable[[Any], Any]) -> Any:
    import jaxseq

    for name in ("GRU", "LSTM", "RNN"):
        if cell == getattr(jaxseq, name):
            return name
    maker = MAKERS.get(type(cell.update).__name__)
    if maker is not None:
        options = vars(cell.update) | getattr(cell.init, "__dict__", {})
        # where it only has that name, or a function of your own
        with suppress(TypeError, ValueError, UnknownError):
            static = not any(map(is_array, options.values()))
            if static and getattr(jaxseq, maker)(**options) == cell:
                return [maker, {name: part(a) for name, a in options.items()}]
    raise UnknownError("Cell of your own")


def made(text: Any) -> Any:
    """A tree from its JSON, with the names of arrays as its leaves.

    Raises `ValueError` where it is no such text.
    """
    try:
        return _made(text, kinds())
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(repr(error)) from error


def _made(text: Any, known: dict[str, Any]) -> Any:
    part = lambda a: _made(a, known)
    if text is None or isinstance(text, str):
        return text
    ((kind, inside),) = text.items()
    if kind in ("tuple", "list"):
        parts = [part(a) for a in inside]
        return tuple(parts) if kind == "tuple" else parts
    if kind == "dict":
        return {key: part(a) for key, a in inside}
    if kind == "value" and type(inside) in VALUES:
        return inside
    if kind == "function":
        return FUNCTIONS[inside]
    if kind == "Cell":
        return _made_cell(inside, part)
    return known[kind](**{name: part(a) for name, a in inside.items()})


def _made_cell(text: Any, part: Callable[[Any], Any]) -> Any:
    import jaxseq

    if text in ("GRU", "LSTM", "RNN"):
        return getattr(jaxseq, text)
    maker, options = text
    if maker not in MAKERS.values():
        raise KeyError(maker)
    return getattr(jaxseq, maker)(**{name: part(a) for name, a in options.items()})


def difference(a: Any, b: Any, at: str = "") -> tuple[str, Any, Any] | None:
    """Where two trees of JSON differ first, and what each of them has there."""
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        pairs = [(name, a[name], b[name]) for name in a]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(str(i), *both) for i, both in enumerate(zip(a, b, strict=True))]
    elif a == b:
        return None
    else:
        first = lambda x: next(iter(x)) if isinstance(x, dict) else x
        return at, first(a), first(b)
    found = (difference(x, y, f"{at}.{name}".lstrip(".")) for name, x, y in pairs)
    return next(filter(None, found), None)
