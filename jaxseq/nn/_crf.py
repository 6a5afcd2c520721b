"""A linear-chain conditional random field as a module."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

import jaxseq
from jaxseq._base.check import as_array, check_dtype
from jaxseq.nn._weights import Weights, check_module


class CRF(Weights):
    """A linear-chain CRF over tags; see `jaxseq.crf_score` for the equations.

    Args:
        num_tags: number of tags, K.
        dtype: dtype of the computation; that of the scores if None.
        param_dtype: dtype of the stored weights, which `jaxseq.crf_init` draws.
        rngs: random keys: "params" for the weights.

    Raises:
        ValueError: if `num_tags` is less than 1 or a dtype is not a supported float.

    All methods take scores `(..., T, K)`, such as a linear map of a network's outputs;
    `lengths` `(...)` or a `mask` `(..., T)` tell which steps are valid, all if None.

    Example:
        >>> crf, scores = jaxseq.nn.CRF(4, rngs=nnx.Rngs(0)), jnp.ones((2, 7, 4))
        >>> crf.loss(scores, jnp.zeros((2, 7), int), lengths=jnp.array([7, 3])).shape
        (2,)
        >>> tags, score = crf.decode(scores)
        >>> tags.shape
        (2, 7)
    """

    def __init__(
        self,
        num_tags: int,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_module(rngs, param_dtype, num_tags=num_tags)
        params = jaxseq.crf_init(rngs.params(), num_tags, dtype=param_dtype)
        super().__init__(params, dtype)

    def loss(
        self,
        scores: ArrayLike,
        tags: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> Array:
        """The negative log-likelihood of tags `(..., T)`; see `jaxseq.crf_loss`."""
        params, scores = self._inputs(scores)
        return jaxseq.crf_loss(params, scores, tags, lengths=lengths, mask=mask)

    def score(
        self,
        scores: ArrayLike,
        tags: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> Array:
        """The score of tags `(..., T)`; see `jaxseq.crf_score`."""
        params, scores = self._inputs(scores)
        return jaxseq.crf_score(params, scores, tags, lengths=lengths, mask=mask)

    def log_partition(
        self,
        scores: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> Array:
        """The log of the sum over all tags; see `jaxseq.crf_log_partition`."""
        params, scores = self._inputs(scores)
        return jaxseq.crf_log_partition(params, scores, lengths=lengths, mask=mask)

    def decode(
        self,
        scores: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """The tags with the highest score, and that; see `jaxseq.crf_decode`."""
        params, scores = self._inputs(scores)
        return jaxseq.crf_decode(params, scores, lengths=lengths, mask=mask)

    def _inputs(self, scores: Any) -> tuple[jaxseq.CRFParams, Array]:
        scores = as_array(scores, "scores")
        check_dtype(scores.dtype, "scores")
        dtype = scores.dtype if self.dtype is None else self.dtype
        return self._read(dtype), scores.astype(dtype)
