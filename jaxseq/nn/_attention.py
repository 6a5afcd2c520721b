"""Attention as modules: weights; the arithmetic is that of the functions."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

import jaxseq
from jaxseq._base.check import as_array, check, check_dtype
from jaxseq.nn._weights import Weights, check_module


class _Attention(Weights):
    def _run(
        self, function: Any, query: Any, keys: Any, values: Any, **options: Any
    ) -> Any:
        query = _floats(query, "query")
        keys = None if keys is None else _floats(keys, "keys")
        values = None if values is None else _floats(values, "values")
        if self.dtype is not None:
            narrow = lambda a: None if a is None else a.astype(self.dtype)
            query, keys, values = map(narrow, (query, keys, values))
            return function(self.params, query, keys, values, **options)
        return function(self._read(query.dtype), query, keys, values, **options)


def _floats(a: Any, name: str) -> Array:
    a = as_array(a, name)
    check_dtype(a.dtype, name)
    return a


class AdditiveAttention(_Attention):
    """Attention with scores `v . tanh(q w_q + k w_k)`; see `additive_attention`.

    Args:
        query_features: width of the queries.
        key_features: width of the keys.
        hidden_features: number of hidden units.
        dtype: dtype of the computation; that of the queries if None.
        param_dtype: dtype of the stored weights.
        rngs: random keys: "params" for the weights.

    Raises:
        ValueError: if a size is less than 1 or a dtype is not a supported float.

    Example:
        >>> attend = jaxseq.nn.AdditiveAttention(4, 6, 8, rngs=nnx.Rngs(0))
        >>> context, weights = attend(jnp.ones((2, 3, 4)), jnp.ones((2, 5, 6)))
        >>> context.shape, weights.shape
        ((2, 3, 6), (2, 3, 5))
    """

    def __init__(
        self,
        query_features: int,
        key_features: int,
        hidden_features: int,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_module(
            rngs,
            param_dtype,
            query_features=query_features,
            key_features=key_features,
            hidden_features=hidden_features,
        )
        params = jaxseq.additive_init(
            rngs.params(),
            query_features,
            key_features,
            hidden_features,
            dtype=param_dtype,
        )
        super().__init__(params, dtype)

    def __call__(
        self,
        query: ArrayLike,
        keys: ArrayLike,
        values: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """Returns `(context, weights)`; see `jaxseq.additive_attention`."""
        return self._run(
            jaxseq.additive_attention,
            query,
            keys,
            values,
            lengths=lengths,
            mask=mask,
        )


class GeneralAttention(_Attention):
    """Attention with scores `q w . k`; see `general_attention`.

    Args:
        query_features: width of the queries.
        key_features: width of the keys.
        dtype: dtype of the computation; that of the queries if None.
        param_dtype: dtype of the stored weights, Glorot uniform.
        rngs: random keys: "params" for the weights.

    Raises:
        ValueError: if a size is less than 1 or a dtype is not a supported float.

    Example:
        >>> attend = jaxseq.nn.GeneralAttention(4, 6, rngs=nnx.Rngs(0))
        >>> context, weights = attend(jnp.ones((2, 3, 4)), jnp.ones((2, 5, 6)))
        >>> context.shape, weights.shape
        ((2, 3, 6), (2, 3, 5))
    """

    def __init__(
        self,
        query_features: int,
        key_features: int,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_module(
            rngs,
            param_dtype,
            query_features=query_features,
            key_features=key_features,
        )
        glorot = jax.nn.initializers.glorot_uniform()
        shape = query_features, key_features
        super().__init__(glorot(rngs.params(), shape, param_dtype), dtype)

    def __call__(
        self,
        query: ArrayLike,
        keys: ArrayLike,
        values: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """Returns `(context, weights)`; see `jaxseq.general_attention`."""
        return self._run(
            jaxseq.general_attention,
            query,
            keys,
            values,
            lengths=lengths,
            mask=mask,
        )


class MultiHeadAttention(_Attention):
    """Scaled dot-product attention in several heads; see `multi_head_attention`.

    Args:
        features: width of the queries, and of the keys, values and outputs if these
            have none of their own.
        num_heads: number of heads, each of width features / num_heads.
        num_kv_heads: number of heads of keys and values, a divisor of `num_heads`,
            for grouped-query attention; `num_heads` if None.
        key_features: width of the keys; `features` if None.
        value_features: width of the values; that of the keys if None.
        out_features: width of the outputs; `features` if None.
        bias: whether the four maps have biases.
        dtype: dtype of the computation; that of the queries if None.
        param_dtype: dtype of the stored weights.
        rngs: random keys: "params" for the weights.

    Raises:
        ValueError: if a size is less than 1, `num_heads` does not divide `features`,
            `num_kv_heads` does not divide `num_heads`, `bias` is no boolean, or a
            dtype is not a supported float.

    Example:
        >>> rngs = nnx.Rngs(0)
        >>> attend = jaxseq.nn.MultiHeadAttention(8, 4, num_kv_heads=2, rngs=rngs)
        >>> context, weights = attend(jnp.ones((2, 5, 8)), causal=True, window=3)
        >>> context.shape, weights.shape
        ((2, 5, 8), (2, 4, 5, 5))
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        key_features: int | None = None,
        value_features: int | None = None,
        out_features: int | None = None,
        bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_module(rngs, param_dtype, features=features, num_heads=num_heads)
        ok = features % num_heads == 0
        check(ok, "num_heads", f"a divisor of features = {features}", num_heads)
        params = jaxseq.multi_head_init(
            rngs.params(),
            features,
            num_heads,
            features // num_heads,
            num_kv_heads=num_kv_heads,
            key_features=key_features,
            value_features=value_features,
            out_features=out_features,
            bias=bias,
            dtype=param_dtype,
        )
        super().__init__(params, dtype)

    def __call__(
        self,
        query: ArrayLike,
        keys: ArrayLike | None = None,
        values: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        causal: bool = False,
        window: int | None = None,
        implementation: str | None = None,
    ) -> tuple[Array, Array]:
        """Returns `(context, weights)`; see `jaxseq.multi_head_attention`."""
        return self._run(
            jaxseq.multi_head_attention,
            query,
            keys,
            values,
            lengths=lengths,
            mask=mask,
            causal=causal,
            window=window,
            implementation=implementation,
        )
