"""Reads the weights of another framework by name, with errors that name them."""

from collections.abc import Mapping
from typing import Any

from jaxseq._base.check import check


class Named:
    """Arrays by name, of which each has to be there, of its shape, and to be taken."""

    def __init__(self, state: Any, name: str, prefix: str = ""):
        ok = isinstance(state, Mapping)
        check(ok, name, "a mapping from names to arrays", type(state).__name__)
        check(isinstance(prefix, str), "prefix", "a str", type(prefix).__name__)
        strange = [k for k in state if not isinstance(k, str)]
        check(not strange, name, "names that are str", strange)
        mine = {k: a for k, a in state.items() if k.startswith(prefix)}
        self._arrays = {k[len(prefix) :]: a for k, a in mine.items()}
        self._prefix, self._name = prefix, name
        self._taken: set[str] = set()
        self.dtype: Any = None

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def shape(self, key: str, rank: int) -> tuple[int, ...]:
        """The shape of an array that is to have so many axes."""
        a = self._read(key)
        check(a.ndim == rank, self._prefix + key, f"{rank} axes", f"shape {a.shape}")
        return a.shape

    def take(self, key: str, *shape: int) -> Any:
        """An array that is to have this shape, and the dtype of the first one."""
        a, name = self._read(key), self._prefix + key
        check(a.shape == shape, name, f"shape {shape}", a.shape)
        self.dtype = a.dtype if self.dtype is None else self.dtype
        check(a.dtype == self.dtype, name, f"dtype {self.dtype}", a.dtype)
        self._taken.add(key)
        return a

    def finish(self) -> None:
        """Checks that nothing is left over."""
        left = [self._prefix + k for k in self._arrays if k not in self._taken]
        check(not left, self._name, "no other weights", sorted(left))

    def _read(self, key: str) -> Any:
        import numpy as np

        if key not in self._arrays:
            names = sorted(self._prefix + k for k in self._arrays)
            check(False, self._name, f"a key {self._prefix + key!r}", names)
        name = self._prefix + key
        try:
            a = np.asarray(self._arrays[key]).copy()  # it may change in place
        except Exception as error:
            got = f"{type(self._arrays[key]).__name__}: {error}"
            message = f"{name}: expected an array that NumPy can read, got {got}"
            raise ValueError(message) from error
        check(a.size > 0, name, "at least one element", f"shape {a.shape}")
        ok = np.issubdtype(a.dtype, np.floating) or a.dtype.name == "bfloat16"
        check(ok, name, "a float dtype", a.dtype)
        return a
