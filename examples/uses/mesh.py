"""A model on an explicit mesh: the batch lies on two devices, the weights on both.

`loss` is the same function with and without a mesh, and so are its gradients.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxseq

optimizer = optax.adam(1e-2)


def init(key):
    below, above, out = jax.random.split(key, 3)
    layers = jaxseq.lstm_init(below, 2, 16), jaxseq.lstm_init(above, 16, 16)
    return {"layers": layers, "head": jax.random.normal(out, (16, 1)) / 4}


@jax.jit
def draw(key):
    """The adding problem: the sum of those two numbers that are marked."""
    batch, T = 32, 20
    keys = jax.random.split(key, 3)
    numbers = jax.random.uniform(keys[0], (batch, T))
    lengths = jax.random.randint(keys[1], (batch,), T // 2, T + 1)
    order = jax.random.uniform(keys[2], (batch, T))
    order = jnp.where(jnp.arange(T) < lengths[:, None], order, 1)
    marked = order.argsort().argsort() < 2
    return jnp.stack([numbers, marked], -1), lengths, (numbers * marked).sum(-1)


def loss(params, x, lengths, target):
    layers = [partial(jaxseq.lstm, layer) for layer in params["layers"]]
    (_, state), _ = jaxseq.stack(layers, x, lengths=lengths)
    return jnp.mean(((state.h @ params["head"])[:, 0] - target) ** 2)


@jax.jit
def update(params, state, batch):
    value, grads = jax.value_and_grad(loss)(params, *batch)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(params, updates), state, value


def main(steps=200):
    params, batch = init(jax.random.key(0)), draw(jax.random.key(1))
    gradient = jax.jit(jax.value_and_grad(loss))
    alone = gradient(params, *batch)

    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*a)) for a in (["batch"], []))
    with jax.set_mesh(mesh):
        params = jax.device_put(params, whole)
        together = gradient(params, *jax.device_put(batch, rows))
        state, losses = optimizer.init(params), []
        for step in range(steps):
            batch = jax.device_put(draw(jax.random.key(step)), rows)
            params, state, value = update(params, state, batch)
            losses.append(float(value))
    print(f"loss {losses[0]:.3f} to {losses[-1]:.3f} on {mesh.size} devices")
    return alone, together, losses


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
