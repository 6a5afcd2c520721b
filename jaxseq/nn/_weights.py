"""Weights of the functions, held as parameters of a module."""

from typing import Any

import jax
from flax import nnx

from jaxseq._base.check import check, check_dtype, check_sizes


class Weights(nnx.Module):
    """A module with weights, which `self.params` gives as the functions take them."""

    def __init__(self, params: Any, dropout: float, dtype: Any, rngs: nnx.Rngs):
        check(0 <= dropout < 1, "dropout", "a probability in [0, 1)", dropout)
        if dtype is not None:
            check_dtype(dtype, "dtype")
        self.weights = nnx.data(jax.tree.map(nnx.Param, params))
        self.dropout = dropout
        self.dtype = dtype
        self.deterministic = False
        # a stream of keys only where one is drawn, so that use needs none
        self.rngs = rngs.dropout.fork() if dropout > 0 else None

    @property
    def params(self) -> Any:
        """The weights, in `dtype` if that is given."""
        return self._read(self.dtype)

    def _read(self, dtype: Any) -> Any:
        read = lambda w: w[...] if dtype is None else w[...].astype(dtype)
        kind = lambda w: isinstance(w, nnx.Param)
        return jax.tree.map(read, self.weights, is_leaf=kind)

    def dropping(self) -> dict[str, Any]:
        """Dropout and its key, as the functions take them."""
        if self.deterministic or self.rngs is None:
            return {}
        return {"dropout": self.dropout, "key": self.rngs()}


def check_module(param_dtype: Any, **sizes: int | None) -> None:
    """Checks what a function would know by another name; sizes may be None."""
    check_sizes(**{name: n for name, n in sizes.items() if n is not None})
    check_dtype(param_dtype, "param_dtype")
