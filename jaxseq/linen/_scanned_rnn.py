"""The recurrent part of a policy, called as code of reinforcement learning calls it."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxseq
from jaxseq._base.check import (
    as_array,
    check,
    check_batch,
    check_dtype,
    check_mask,
    check_sizes,
    check_state,
)
from jaxseq.linen._layers import cast


class ScannedRNN(nn.Module):
    """A layer over rollouts, time first, whose state starts anew with each episode.

    In the place of the module of this name that PureJaxRL has, and code that follows
    it: `hidden, y = ScannedRNN()(hidden, (x, resets))`. It computes the same function,
    from weights under another name: `jaxseq.convert.from_linen(cell).layers` are the
    "weights" for those of a `GRUCell`. New weights are drawn as `jaxseq.gru_init` draws
    them, orthogonal gate by gate; only those of the input differ from a `GRUCell`,
    Glorot uniform in the place of LeCun normal.

    Args:
        features: width of the state; that of `x` if None.
        cell: `jaxseq.GRU`, `jaxseq.LSTM`, or any other cell.
        dtype: dtype of the computation and of the outputs; that of `x` if None.
        param_dtype: dtype of the stored weights.

    Raises:
        ValueError: if a size is less than 1, or a dtype is not a supported float.

    The one parameter, "weights", is `params` of `jaxseq.nn.GRU` of one layer, or of the
    module of the other cell.

    Example:
        >>> class Policy(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, hidden, x, resets):
        ...         x = nn.relu(nn.Dense(8)(x))
        ...         hidden, y = jaxseq.linen.ScannedRNN()(hidden, (x, resets))
        ...         return hidden, nn.Dense(4)(y)
        >>> x, resets = jnp.ones((20, 5, 3)), jnp.zeros((20, 5), bool)
        >>> hidden = jaxseq.linen.ScannedRNN.initialize_carry(5, 8)
        >>> variables = Policy().init(jax.random.key(0), hidden, x, resets)
        >>> hidden, logits = Policy().apply(variables, hidden, x, resets)
        >>> hidden.shape, logits.shape
        ((5, 8), (20, 5, 4))
    """

    features: int | None = None
    cell: jaxseq.Cell = jaxseq.GRU
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        if self.features is not None:
            check_sizes(features=self.features)
        ok = isinstance(self.cell, jaxseq.Cell)
        check(ok, "cell", "a Cell", type(self.cell).__name__)
        check_dtype(self.param_dtype, "param_dtype")
        if self.dtype is not None:
            check_dtype(self.dtype, "dtype")
        super().__post_init__()

    @nn.compact
    def __call__(self, carry: Any, x: Any) -> tuple[Any, Any]:
        """Runs over a rollout.

        Args:
            carry: the state before the first step, such as `initialize_carry` gives.
            x: a pair `(x, resets)`: inputs `(T, ..., D)`, and booleans `(T, ...)`, True
                at the first step of an episode. Of numbers, as such code passes them,
                all but 0 are True.

        Returns:
            `(carry, y)`: the state after the last step, and the outputs of all steps,
            `(T, ..., features)`.

        Raises:
            ValueError: if a shape or dtype does not fit.
        """
        ok = isinstance(x, (tuple, list)) and len(x) == 2
        check(ok, "x", "a pair (x, resets)", type(x).__name__)
        x, resets = as_array(x[0], "x"), x[1]
        check(x.ndim >= 2, "x", "shape (T, ..., D)", x.shape)
        check_dtype(x.dtype, "x")
        resets = check_mask(flags_of(resets), x.shape[:-1], "resets")
        D, dtype = x.shape[-1], self.dtype or x.dtype
        H = D if self.features is None else self.features
        draw = lambda key: (self.cell.init(key, D, H, dtype=self.param_dtype),)
        (weights,) = cast(self.param("weights", draw), dtype)
        zeros = jax.eval_shape(lambda: self.cell.zeros(weights, x.shape[1:-1]))
        carry = check_state(carry, zeros, "carry")
        step = partial(jaxseq.cell_step, self.cell.update, jaxseq.CellParams(*weights))
        body = lambda state, now: step(state, now[0], resets=now[1])
        return jaxseq.scan(body, carry, (x.astype(dtype), resets))

    @staticmethod
    def initialize_carry(
        batch_size: int | tuple[int, ...],
        hidden_size: int,
        cell: jaxseq.Cell = jaxseq.GRU,
    ) -> Any:
        """The state before the first step: zeros.

        Args:
            batch_size: environments, one size or a tuple of axes in front.
            hidden_size: width of the state.
            cell: that of the module.

        Returns:
            The state of a layer in float32, `(batch_size, hidden_size)` of a GRU.

        Raises:
            ValueError: if `batch_size` is not a size or a tuple of sizes, `hidden_size`
                is less than 1, or `cell` is not a `Cell`. Some code has the two sizes
                in the other order.
        """
        check_sizes(hidden_size=hidden_size)
        batch = check_batch(batch_size, "batch_size")
        check(isinstance(cell, jaxseq.Cell), "cell", "a Cell", type(cell).__name__)

        def one() -> Any:
            weights = cell.init(jax.random.key(0), hidden_size, hidden_size)
            return cell.zeros(weights, batch)

        zeros = lambda a: jnp.zeros(a.shape, a.dtype)
        return jax.tree.map(zeros, jax.eval_shape(one))


def flags_of(resets: Any) -> Any:
    """Numbers as booleans, in the way of `jnp.where`."""
    dtype = getattr(resets, "dtype", None)
    is_number = dtype is not None and jnp.issubdtype(dtype, jnp.number)
    return resets != 0 if is_number else resets
