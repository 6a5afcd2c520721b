"""The arrays of a tree by name: on their way to a file, and from it."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from jaxseq._base.check import check
from jaxseq._files.container import CODES, TEXTS, is_utf8

ALONE = "array"  # the name of one that is no part of a tree


def named(tree: Any, what: str) -> tuple[list[str], list[Any], Any]:
    """The names of the leaves, these, and the structure of the tree."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(tree)
    variables, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_variable)
    of_flax = {path for path, leaf in variables if is_variable(leaf)}
    names = [_name(path[:-1] if path[:-1] in of_flax else path) for path, _ in pairs]
    seen: set[str] = set()
    for name in names:
        check(name not in seen, f"{what}.{name}", "one leaf of this name", "two")
        check(is_utf8(name), f"{what}.{name!r}", "a name in UTF-8", "a surrogate")
        check(name != TEXTS, f"{what}.{name}", "another name", repr(name))
        seen.add(name)
    return names, [leaf for _, leaf in pairs], treedef


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".") if path else ALONE


def is_variable(a: Any) -> bool:
    """Whether it is a variable of Flax NNX, which adds its own "value" to a path."""
    own = [(c.__module__.split(".")[:2], c.__name__) for c in type(a).__mro__]
    return (["flax", "nnx"], "Variable") in own


def is_key(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jax.dtypes.prng_key)


def on_host(leaf: Any, label: str) -> tuple[Any, str | None]:
    """A leaf as an array of NumPy that can be written; of a key its implementation."""
    import numpy as np

    known = isinstance(leaf, (jax.Array, np.ndarray, np.generic))
    check(known, label, "an array", type(leaf).__name__)
    traced = isinstance(leaf, jax.core.Tracer)
    check(not traced, label, "an array that is known, outside of jit", "a tracer")
    key = None
    if isinstance(leaf, jax.Array):
        here = leaf.is_fully_addressable or leaf.is_fully_replicated
        check(here, label, "an array on devices of this process", leaf.sharding)
        if is_key(leaf):
            key = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
    a = np.asarray(leaf, order="C")
    expected = f"a dtype among {', '.join(CODES)}"
    check(a.dtype.name in CODES, label, expected, a.dtype)
    return a.astype(a.dtype.newbyteorder("="), copy=False), key


def check_like(leaf: Any, label: str) -> None:
    ok = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    check(ok, label, "an array or a jax.ShapeDtypeStruct", type(leaf).__name__)


def check_names(path: str, expected: list[str], arrays: dict[str, Any]) -> None:
    """Checks that the file has all of these arrays, and no others."""
    missing = [name for name in expected if name not in arrays]
    left = [name for name in arrays if name not in expected]
    for name in missing:
        check(False, f"{path}: {name}", "an array of this name", left or sorted(arrays))
    for name in left:
        got = f"{arrays[name].dtype} {arrays[name].shape}"
        check(False, f"{path}: {name}", "no array of this name", got)


def on_device(a: Any, label: str, key: str | None, like: Any = None) -> jax.Array:
    """An array of a file as one of JAX, where and as the template has it."""
    value = _as_key(a, label, key) if key else a
    if like is not None:
        shape, dtype = tuple(like.shape), like.dtype
        check(value.shape == shape, label, f"shape {shape}", value.shape)
        check(str(value.dtype) == str(dtype), label, f"dtype {dtype}", value.dtype)
    sharding = _sharding(like)
    put = jnp.asarray if sharding is None else lambda a: jax.device_put(a, sharding)
    made = put(value)
    expected = "a dtype that JAX has, or jax_enable_x64"
    check(made.dtype == value.dtype, label, expected, value.dtype)
    return made


def _as_key(a: Any, label: str, key: str) -> jax.Array:
    try:
        return jax.random.wrap_key_data(jnp.asarray(a), impl=key)
    except (TypeError, ValueError) as error:
        message = f"{label}: expected a random key of {key!r}, got {a.dtype} {a.shape}"
        raise ValueError(message) from error


def _sharding(like: Any) -> Any:
    """Where the template says that an array is to lie; None if it does not say."""
    if isinstance(like, jax.core.Tracer) or not getattr(like, "committed", True):
        return None
    sharding = getattr(like, "sharding", None)
    mesh = getattr(sharding, "mesh", None)
    return None if isinstance(mesh, jax.sharding.AbstractMesh) else sharding
