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
{"unknown": …}                  what only a template can make: its arrays
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import signature
from typing import Any

import jax

from jaxseq._base.functions import FUNCTIONS, name_of

MAKERS = {
    "GRUUpdate": "gru_cell",
    "LSTMUpdate": "lstm_cell",
    "RNNUpdate": "rnn_cell",
}
VALUES = bool, int, float, str


def kinds() -> dict[str, Any]:
    """The public types that trees of weights and states are made of, by name."""
    import jaxseq
    from jaxseq.convert._network import Network

    public = {name: getattr(jaxseq, name) for name in jaxseq.__all__}
    is_tuple = lambda a: isinstance(a, type) and hasattr(a, "_fields")
    tuples = {name: a for name, a in public.items() if is_tuple(a)}
    return tuples | {"Activation": jaxseq.Activation, "Network": Network}


def is_array(leaf: Any) -> bool:
    """Whether it is an array or stands for one."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def described(tree: Any, names: list[str]) -> tuple[Any, list[str]]:
    """A tree as JSON, and the types in it that only a template can make.

    `names` are those of its arrays, in the order of its leaves.
    """
    unknown: list[str] = []
    return _described(tree, iter(names), kinds(), unknown), unknown


def _described(
    tree: Any, names: Iterator[str], known: dict[str, Any], unknown: list[str]
) -> Any:
    part = lambda a: _described(a, names, known, unknown)
    kind: Any = type(tree)
    if tree is None:
        return None
    if kind in (tuple, list):
        return {kind.__name__: [part(a) for a in tree]}
    if kind is dict and set(map(type, tree)) in ({str}, {int}, set()):
        return {"dict": [[key, part(tree[key])] for key in sorted(tree)]}
    if kind is known["Cell"]:
        found = _cell(tree, part)
        if found is None:
            unknown.append("Cell of your own")
            found = {"unknown": sketch(tree.update)}
        return {"Cell": found}
    if known.get(kind.__name__) is kind:
        of_tuple = hasattr(kind, "_fields")
        of_kind: Any = kind
        fields = of_kind._fields if of_tuple else of_kind.__dataclass_fields__
        return {kind.__name__: {name: part(getattr(tree, name)) for name in fields}}
    if kind in VALUES:
        return {"value": tree}
    if (name := name_of(tree)) is not None:
        return {"function": name}
    if is_array(tree):
        return next(names)
    unknown.append("dict with such keys" if kind is dict else kind.__name__)
    return {"unknown": [next(names) for _ in jax.tree.leaves(tree)]}


def _cell(cell: Any, part: Callable[[Any], Any]) -> Any:
    """How jaxseq makes a cell; None for others."""
    import jaxseq

    for name in ("GRU", "LSTM", "RNN"):
        if cell == getattr(jaxseq, name):
            return name
    maker = MAKERS.get(type(cell.update).__name__)
    if maker is None:
        return None
    make = getattr(jaxseq, maker)
    known = signature(make).parameters
    options = vars(cell.update) | getattr(cell.init, "__dict__", {})
    options = {name: a for name, a in options.items() if name in known}
    flat = [a for f in options.values() for a in (f if type(f) is tuple else (f,))]
    if not all(type(a) in VALUES or a is None or is_function(a) for a in flat):
        return None
    with suppress(TypeError, ValueError):  # where it only has that name
        if make(**options) == cell:
            return [maker, {name: part(a) for name, a in options.items()}]
    return None


def is_function(a: Any) -> bool:
    import jaxseq

    return name_of(a) is not None or type(a) is jaxseq.Activation


def sketch(a: Any) -> Any:
    """As much of a value that is in no array as JSON can hold, to compare it by."""
    if a is None or type(a) in VALUES:
        return a
    if type(a) in (tuple, list):
        return [sketch(part) for part in a]
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        fields = {f.name: sketch(getattr(a, f.name)) for f in dataclasses.fields(a)}
        return {type(a).__name__: fields}
    return getattr(a, "__qualname__", type(a).__name__)


def made(text: Any) -> Any:
    """A tree from its JSON, with the names of arrays as its leaves.

    Raises `ValueError` where it is no such text.
    """
    try:
        return _made(text, kinds())
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(repr(error)) from error


def _made(text: Any, known: dict[str, Any]) -> Any:
    import jaxseq

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
        return _known(FUNCTIONS, inside, "function")
    if kind == "Cell":
        return _made_cell(inside, part)
    make: Any = _known(known, kind, "type")
    if kind == "Activation":  # whose name is checked
        make = jaxseq.activation
    return make(**{name: part(a) for name, a in inside.items()})


def _known(each: dict[str, Any], name: Any, what: str) -> Any:
    if name not in each:
        raise ValueError(f"unknown {what} {name!r}")
    return each[name]


def _made_cell(text: Any, part: Callable[[Any], Any]) -> Any:
    import jaxseq

    if text in ("GRU", "LSTM", "RNN"):
        return getattr(jaxseq, text)
    maker, options = text
    if maker not in MAKERS.values():
        raise ValueError(f"unknown cell {maker!r}")
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
