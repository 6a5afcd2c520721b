"""Weights of the functions, held as parameters of a module."""

import inspect
from typing import Any

import jax
from flax import nnx

from jaxseq._base.check import check, check_dtype, check_sizes
from jaxseq._base.dropout import check_rate, is_zero
from jaxseq._base.dtypes import is_float


class InitSignature:
    """The signature of a class, for help; Flax's metaclass hides it."""

    def __get__(self, module: Any, kind: type) -> inspect.Signature:
        if module is not None:  # which has that of its __call__
            raise AttributeError("__signature__")
        signature = inspect.signature(kind.__init__)
        return signature.replace(parameters=[*signature.parameters.values()][1:])


class Weights(nnx.Module):
    """A module with weights, which `self.params` gives as the functions take them."""

    __signature__ = InitSignature()

    def __init__(self, params: Any, dtype: Any):
        if dtype is not None:
            check_dtype(dtype, "dtype")
        variable = lambda a: nnx.Param(a) if is_float(a) else nnx.Variable(a)
        self.weights = nnx.data(jax.tree.map(variable, params))
        self.dtype = dtype

    @property
    def params(self) -> Any:
        """The weights, in `dtype` if that is given."""
        return self._read(self.dtype)

    def _read(self, dtype: Any) -> Any:
        def read(w: Any) -> Any:
            a = w[...]
            return a if dtype is None or not is_float(a) else a.astype(dtype)

        kind = lambda w: isinstance(w, nnx.Variable)
        return jax.tree.map(read, self.weights, is_leaf=kind)


class DroppingWeights(Weights):
    """A module that drops values in training: until `eval()`, and after `train()`."""

    def __init__(
        self,
        params: Any,
        dropout: Any,
        dtype: Any,
        rngs: nnx.Rngs,
        rates: tuple[Any, ...] = (),  # others that need keys
    ):
        check_rate(dropout)
        super().__init__(params, dtype)
        self.dropout = dropout
        self.deterministic = False
        # a stream of keys only where one is drawn, so that use needs none
        never = all_zero((dropout, *rates))
        self.rngs = None if never else rngs.dropout.fork()

    def _key(self, rates: Any) -> Any:
        """A new key, if in training something is dropped at these rates."""
        if self.deterministic or self.rngs is None or all_zero(rates):
            return None
        return self.rngs()

    def _dropping(self) -> dict[str, Any]:
        """Dropout and its key, as the functions take them."""
        key = self._key(self.dropout)
        return {} if key is None else {"dropout": self.dropout, "key": key}


def all_zero(rates: Any) -> bool:
    return all(map(is_zero, jax.tree.leaves(rates)))


def check_module(rngs: Any, param_dtype: Any, **sizes: int) -> None:
    """Checks what a function would know by another name."""
    got = type(rngs).__name__
    check(isinstance(rngs, nnx.Rngs), "rngs", "nnx.Rngs, such as nnx.Rngs(0)", got)
    check_sizes(**sizes)
    check_dtype(param_dtype, "param_dtype")
