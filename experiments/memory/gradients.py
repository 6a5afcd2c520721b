"""How much of the gradient is left after so many steps.

Differentiated is the state after the last step, with respect to that after an earlier
one: h_T by h_t, where an LSTM's c_t is held fixed, and for an LSTM its whole state
(h_T, c_T) by (h_t, c_t). It is the product of the Jacobians of single steps.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.flatten_util import ravel_pytree


def steps(layer: Any, x: Array) -> Array:
    """∂s_t/∂s_{t-1} of each step of a recurrent module over `x` `(T, D)`: `(T, S, S)`.

    The state s begins at zero; it is `h`, and of an LSTM (h, c) side by side.
    """
    state, _ = layer(x[:0])
    flat, restore = ravel_pytree(state)

    def step(s: Array, x: Array) -> Array:
        return ravel_pytree(layer(x[None], restore(s))[0])[0]

    body = lambda s, x: (step(s, x), jax.jacfwd(step)(s, x))
    return lax.scan(body, flat, x)[1]


def norms(layer: Any, x: Array, H: int) -> tuple[Array, Array]:
    """Norms of ∂h_T/∂h_t and of ∂s_T/∂s_t by the distance T - t, each `(T + 1,)`.

    The norm is Frobenius' over the root of the width: that of the identity is 1, and
    a gradient of any direction is this much smaller, in the root of the mean square.
    """
    size = lambda J: jnp.linalg.norm(J) / len(J) ** 0.5
    both = lambda J: (size(J[:H, :H]), size(J))

    def back(J: Array, step: Array) -> tuple[Array, Any]:
        J = J @ step
        return J, both(J)

    jacobians = steps(layer, x)
    start = jnp.eye(jacobians.shape[1], dtype=x.dtype)
    _, found = lax.scan(back, start, jacobians, reverse=True)
    # the scan puts the last step's at the end
    join = lambda first, rest: jnp.concatenate([first[None], rest[::-1]])
    h, s = map(join, both(start), found)
    return h, s


@partial(nnx.jit, static_argnums=2)
def mean_norms(layer: Any, x: Array, H: int) -> tuple[Array, Array]:
    """The means of `norms` over sequences `(N, T, D)`, one after the other."""
    h, s = lax.map(lambda x: norms(layer, x, H), x)
    return h.mean(0), s.mean(0)
