"""Arrays by name: paths of nested weights, and errors that say which array is wrong."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxseq._base.check import check

# where a cell lies among the weights of a stack, in one of two directions, in a layer
PLACE = re.compile(
    r"(?:(?:layers[/_])?(\d+)/)?(?:(forward|backward)(?:_rnn)?/)?(?:cell/)?"
)
# the weights of a state, of PyTorch and of Flax, behind the path of their module
RECURRENT = re.compile(r"(.*?)[./]?(?:weight_hh\w*|(?:dense_h|h[ifgonrz]?)/kernel)")


class Named:
    """Arrays by name, of which each has to be there, of its shape, and to be taken.

    Args:
        weights: the arrays by their whole names.
        prefix: what the names of those begin with that are to be taken.
    """

    def __init__(self, weights: Any, prefix: str = ""):
        expected, got = "a mapping from names to arrays", type(weights).__name__
        check(isinstance(weights, Mapping), "weights", expected, got)
        strange = [k for k in weights if not isinstance(k, str)]
        check(not strange, "weights", "names that are str", strange)
        self._arrays = {k: a for k, a in weights.items() if k.startswith(prefix)}
        at = {m[1] for k in weights if (m := RECURRENT.fullmatch(k))}
        own = f"recurrent weights are at {some(at)}" if any(at) else some(weights)
        expected = f"the beginning of a name in weights: {own}"
        check(bool(self._arrays) or not prefix, "prefix", expected, repr(prefix))
        self._taken: set[str] = set()
        self.dtype: Any = None

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def shape(self, key: str, *shape: int | None) -> tuple[int, ...]:
        """The shape of an array that is to have this shape, with None for any size."""
        got = self._read(key).shape
        check_shape(key, got, shape)
        return got

    def take(self, key: str, *shape: int | None) -> Any:
        """An array that is to have this shape, and the dtype of the first one."""
        a = self._read(key)
        check_shape(key, a.shape, shape)
        self.dtype = a.dtype if self.dtype is None else self.dtype
        check(a.dtype == self.dtype, key, f"dtype {self.dtype}", a.dtype)
        self._taken.add(key)
        return a

    def finish(self) -> None:
        """Checks that nothing is left over."""
        left = [k for k in self._arrays if k not in self._taken]
        check(not left, "weights", "no other names", some(left))

    def _read(self, key: str) -> Any:
        import numpy as np

        there = key in self._arrays
        check(there, "weights", f"a key {key!r}", some(self._arrays))
        try:
            a = np.asarray(self._arrays[key]).copy()  # it may change in place
        except Exception as error:
            got = f"{type(self._arrays[key]).__name__}: {error}"
            message = f"{key}: expected an array that NumPy can read, got {got}"
            raise ValueError(message) from error
        got = type(self._arrays[key]).__name__
        check(a.dtype != object, key, "an array", got)
        check(a.size > 0, key, "at least one element", f"shape {a.shape}")
        check_float(key, a.dtype)
        return a


def check_float(name: str, dtype: Any) -> None:
    import numpy as np

    ok = np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"
    check(ok, name, "a float dtype", dtype)


def check_shape(name: str, got: tuple[int, ...], shape: tuple[int | None, ...]) -> None:
    """Checks a shape, in which None is any size."""
    ok = len(got) == len(shape)
    ok = ok and all(n in (m, None) for m, n in zip(got, shape, strict=True))
    check(ok, name, f"shape {shape}".replace("None", "*"), got)


def some(names: Iterable[str], most: int = 8) -> str:
    """Names for an error, of many the first ones."""
    each = sorted(names)
    more = [f"and {len(each) - most} more"] if len(each) > most else []
    return ", ".join([*map(repr, each[:most]), *more]) or "none"


def path_of(prefix: str, separators: str) -> str:
    """What the names below a prefix begin with, ending with the last separator."""
    check(isinstance(prefix, str), "prefix", "a str", type(prefix).__name__)
    parts = re.split(f"[{separators}]", prefix)
    return "".join(part + separators[-1] for part in parts if part)


def flat(tree: Any, how: str) -> dict[str, Any]:
    """Arrays by their paths, such as "cell/dense_i/kernel".

    In a list layers are numbered; a tuple is a pair of directions.

    Args:
        tree: the weights.
        how: how they are read from a module, for errors.
    """
    found: dict[str, Any] = {}

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, Mapping):
            items = list(node.items())
        elif type(node) is list:
            items = list(enumerate(node))
        elif type(node) is tuple:
            at = "/".join(("weights", *path))
            check(len(node) == 2, at, "a pair (forward, backward)", len(node))
            items = list(zip(("forward", "backward"), node, strict=True))
        else:
            module = hasattr(node, "__dict__") and not hasattr(node, "shape")
            at, got = "/".join(("weights", *path)), type(node).__name__
            check(not module, at, f"arrays by name, such as {how}", got)
            found["/".join(path)] = node
            return
        for key, value in items:
            parts = key if isinstance(key, tuple) else re.split("[./]", str(key))
            visit(value, (*path, *map(str, parts)))

    ok = isinstance(tree, Mapping) or type(tree) in (list, tuple)
    expected = f"a mapping from names to arrays, such as {how}, or a list of such"
    check(ok, "weights", expected, type(tree).__name__)
    visit(tree, ())
    return found


def places(names: Iterable[str], depth: int) -> list[list[str]]:
    """The prefixes of the cells of each layer, for one direction or for both.

    Args:
        names: paths of all arrays.
        depth: how many components of a path belong to the cell.
    """
    layers: dict[int, dict[str, str]] = {}
    prefixes = sorted({"".join(_parts(name)[:-depth]) for name in names})
    if len(prefixes) == 1 and "/" in prefixes[0] and not PLACE.fullmatch(prefixes[0]):
        return [prefixes]  # the only cell, whatever its name
    for prefix in prefixes:
        match = PLACE.fullmatch(prefix)
        if match is None:
            expected = "a cell, a 'forward' and a 'backward' one, or numbered layers"
            strange = some(p for p in prefixes if not PLACE.fullmatch(p))
            check(False, "weights", expected, f"weights at {strange}")
            continue
        number, direction = match.groups()
        own = layers.setdefault(int(number or 0), {})
        twice = direction or ""
        check(twice not in own, "weights", "one cell", f"more at {prefix!r}")
        own[twice] = prefix
    numbers, all_numbers = sorted(layers), list(range(len(layers)))
    check(bool(layers), "weights", "those of at least one layer", "none")
    check(numbers == all_numbers, "weights", f"layers {all_numbers}", numbers)
    for i, own in sorted(layers.items()):
        ok = set(own) in ({""}, {"forward", "backward"})
        got = f"{some(own)} in layer {i}"
        check(ok, "weights", "one direction of a layer, or both", got)
    return [
        [own[d] for d in sorted(own, reverse=True)] for _, own in sorted(layers.items())
    ]


def _parts(name: str) -> list[str]:
    return [part + "/" for part in name.split("/")]
