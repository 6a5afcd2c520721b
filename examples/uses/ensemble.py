"""An ensemble of GRUs: weights with an axis in front, `jax.vmap` over it.

Each member starts from weights of its own and learns from its own draw of the series
(Breiman, "Bagging Predictors", 1996). `train` is written for one; under `jax.vmap` it
trains all, and their mean predicts better than any of them.
"""

import jax
import jax.numpy as jnp
import optax

import jaxseq

MEMBERS, H = 5, 16
optimizer = optax.adam(1e-2)


def init(key):
    below, above = jax.random.split(key)
    head = jax.random.normal(above, (H, 1)) / H**0.5
    return {"gru": jaxseq.gru_init(below, 1, H), "head": head}


def predict(params, x):
    """The value after each of `(..., T, 1)`."""
    _, y = jaxseq.gru(params["gru"], x)
    return y @ params["head"]


def draw(key, batch=8, T=40):
    """Noisy sines of random period and phase, and what comes next without noise."""
    keys = jax.random.split(key, 3)
    period = jax.random.uniform(keys[0], (batch, 1), minval=8, maxval=16)
    phase = jax.random.uniform(keys[1], (batch, 1), maxval=2 * jnp.pi)
    clean = jnp.sin(2 * jnp.pi * jnp.arange(T + 1) / period + phase)[..., None]
    noisy = clean[:, :-1] + 0.3 * jax.random.normal(keys[2], (batch, T, 1))
    return noisy, clean[:, 1:]


def train(params, x, target, key, steps=150):
    """Trains one member on its own draw, with replacement, of the series."""
    own = jax.random.choice(key, len(x), (len(x),))

    def loss(params):
        return jnp.mean((predict(params, x[own]) - target[own]) ** 2)

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), value

    start = params, optimizer.init(params)
    (params, _), losses = jax.lax.scan(step, start, length=steps)
    return params, losses


def main():
    keys = jax.random.split(jax.random.key(0), (2, MEMBERS))
    data = draw(jax.random.key(1), batch=24)
    each = jax.jit(jax.vmap(train, in_axes=(0, None, None, 0)))
    params, losses = each(jax.vmap(init)(keys[0]), *data, keys[1])

    x, target = draw(jax.random.key(2), batch=200)  # never seen
    predictions = jax.vmap(predict, in_axes=(0, None))(params, x)
    errors = jnp.mean((predictions - target) ** 2, axis=(1, 2, 3))
    mean = jnp.mean((predictions.mean(0) - target) ** 2)
    print(f"errors of the members {errors}, of their mean {mean:.4f}")
    return losses, errors, mean


if __name__ == "__main__":
    main()
