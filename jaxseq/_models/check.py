"""Checks of trees against others that are right, which name what is wrong in them."""

from typing import Any

import jax
from jax.tree_util import keystr

from jaxseq._attention.params import MultiHeadParams
from jaxseq._base.check import as_array, check, check_array


def as_arrays(tree: Any, name: str) -> Any:
    """The same tree of JAX arrays, each of which is named if it is none."""
    one = lambda path, a: as_array(a, name + keystr(path))
    return jax.tree.map_with_path(one, tree)


def check_kind(tree: Any, name: str, kind: type) -> None:
    check(type(tree) is kind, name, kind.__name__, type(tree).__name__)


def check_parts(parts: Any, name: str, of: str, n: int | None = None) -> None:
    """Checks a tuple for having n parts, or one at least."""
    expected = f"a tuple of {'' if n is None else f'{n} '}{of}"
    check(type(parts) is tuple, name, expected, type(parts).__name__)
    ok = len(parts) > 0 if n is None else len(parts) == n
    check(ok, name, expected, f"one of {len(parts)}")


def check_tree(tree: Any, like: Any, name: str) -> None:
    """Checks types, shapes and dtypes; `like` may hold `jax.ShapeDtypeStruct`."""
    if isinstance(like, tuple):
        check_kind(tree, name, type(like))
        check(len(tree) == len(like), name, f"{len(like)} parts", len(tree))
        fields = getattr(like, "_fields", None)
        names = [f"[{i}]" for i in range(len(like))]
        names = names if fields is None else [f".{field}" for field in fields]
        for part, right, its in zip(tree, like, names, strict=True):
            check_tree(part, right, name + its)
    elif like is None:
        check(tree is None, name, "None", type(tree).__name__)
    elif hasattr(like, "shape"):
        check_array(as_array(tree, name), name, like.shape, like.dtype)


def shape_of(a: Any, name: str, rank: int) -> tuple[Any, ...]:
    """The shape of an array that has to have this rank."""
    shape = as_array(a, name).shape
    check(len(shape) == rank, name, f"rank {rank}", shape)
    return shape


def heads_like(
    params: Any, name: str, Q: int, K: int, O: int, dtype: Any
) -> MultiHeadParams:
    """What heads have to be that read these widths and give O; biases may be None."""
    check_kind(params, name, MultiHeadParams)
    _, N, A = shape_of(params.w_q, f"{name}.w_q", 3)
    _, M, _ = shape_of(params.w_k, f"{name}.w_k", 3)  # heads of keys and values
    w: Any = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    maps = w(Q, N, A), w(K, M, A), w(K, M, A), w(N, A, O)
    like = MultiHeadParams(*maps, w(N, A), w(M, A), w(M, A), w(O))
    absent = {k: None for k, a in params._asdict().items() if a is None and k[0] == "b"}
    return like._replace(**absent)
