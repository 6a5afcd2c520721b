"""Functions with derivatives of their own, which are not those of their values."""

from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_jvp
def twice_the_slope(a: Any) -> Any:
    return jnp.tanh(a)


@twice_the_slope.defjvp
def _(primals: Any, tangents: Any) -> Any:
    y = twice_the_slope(*primals)
    return y, 2 * (1 - y**2) * tangents[0]


@jax.custom_vjp
def clipped_gradient(a: Any) -> Any:
    return a


clipped_gradient.defvjp(lambda a: (a, None), lambda _, d: (jnp.clip(d, -0.1, 0.1),))


@jax.custom_vjp
def halved_gradient_product(a: Any, w: Any) -> Any:
    return a @ w


halved_gradient_product.defvjp(
    lambda a, w: (a @ w, (a, w)),
    lambda r, z: (
        0.5 * z @ r[1].T,
        r[0].reshape(-1, r[0].shape[-1]).T @ z.reshape(-1, z.shape[-1]),
    ),
)
