"""Log-probabilities of logits, which need not be finite."""

import jax.numpy as jnp
from jax import Array


def log_probs(logits: Array) -> Array:
    """Log-probabilities of logits `(..., V)`: x - log sum_v exp(x_v).

    They are NaN for all V if one logit is, and -inf for all V if all logits are. Logits
    of +inf share the probability 1 evenly.
    """
    below = below_top(logits)
    total = jnp.exp(below).sum(-1, keepdims=True)  # at least 1, or 0 if all are -inf
    return below - jnp.log(jnp.maximum(total, 1))


def below_top(logits: Array) -> Array:
    """Logits of the same distribution with the greatest at 0, so none is +inf."""
    top = logits.max(-1, keepdims=True)
    below = jnp.where(logits == top, 0, logits - top)  # inf - inf is NaN
    return jnp.where(top == -jnp.inf, top, below)
