"""A call of a cell of a user's own, with errors that say what it was given."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxseq._base.check import check


def name_of_kind(a: Any) -> str:
    """The class of `a` with its module, such as `flax.linen.recurrent.GRUCell`."""
    kind = type(a)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def called(cell: Callable[..., Any], state: Any, x: Any) -> tuple[Any, Any]:
    """`cell(state, x)`, with errors that say what the cell was given."""
    try:
        out = cell(state, x)
    except Exception as error:
        expected = "a module that is called as cell(state, x_t) -> (state, y_t)"
        check(_takes_two(cell), "cell", expected, name_of_kind(cell))
        given = f"a state {_described(state)} and x_t {_described(x)}"
        error.add_note(f"the cell was given {given}")
        raise
    ok = isinstance(out, (tuple, list)) and len(out) == 2
    check(ok, "cell", "a call that gives (state, y_t)", _described(out))
    return out[0], out[1]


def _takes_two(f: Any) -> bool:
    """Whether `f` takes two arguments by position, neither of them an option."""
    kinds = inspect.Parameter
    given = inspect.signature(f).parameters.values() if callable(f) else []
    by_name = kinds.KEYWORD_ONLY, kinds.VAR_KEYWORD
    needed = [p for p in given if p.default is p.empty and p.kind not in by_name]
    return len(needed) == 2 or any(p.kind is kinds.VAR_POSITIONAL for p in needed)


def _described(tree: Any) -> str:
    """Its shapes and dtypes, such as `(float32[5,8], float32[5,8])`."""
    leaf = lambda a: f"{jnp.result_type(a)}[{','.join(map(str, jnp.shape(a)))}]"
    return str(jax.tree.map(leaf, tree)).replace("'", "")
