"""The world model of Dreamer: a recurrent state-space model with discrete latents.

    h_t = f(h_{t-1}, z_{t-1}, a_{t-1})    a GRU with a norm
    z_t ~ q(z | h_t, x_t)                 posterior, of an embedded observation
    ẑ_t ~ p(z | h_t)                      prior
    x̂_t = g(h_t, z_t)                     reconstruction

Where an episode starts, h and z are zeros. A latent is a row of categorical variables,
drawn with gradients passed straight through. The loss is that of the reconstruction and
two KL divergences between the same distributions, one of which trains the prior and one
the posterior.

Hafner, Pasukonis, Ba and Lillicrap, "Mastering Diverse Domains through World Models",
2023, https://arxiv.org/abs/2301.04104; the GRU with a norm is that of "Mastering Atari
with Discrete World Models", 2020, https://arxiv.org/abs/2010.02193.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import nn

from benchmarks.real.training import Sizes, Training

SEEN, ACTIONS = 24, 4
CLASSES = 16  # of each categorical variable; D / CLASSES of them are a latent
UNIFORM = 0.01  # of every distribution, so that none has a zero
FREE, OF_PRIOR, OF_POSTERIOR = 1.0, 0.5, 0.1
ENDING = 0.02  # of episodes, at every step
OPTIMIZER = optax.chain(optax.clip_by_global_norm(100.0), optax.adam(3e-4))


class Batch(NamedTuple):
    """Of B sequences, each `(T, B, ...)`."""

    seen: Any
    action: Any  # the one before
    first: Any  # whether an episode starts here


def training(sizes: Sizes, scan: Any, dtype: Any = jnp.float32) -> Training:
    _, _, D, H = sizes

    def step(state: Any, key: Any) -> tuple[Any, Any]:
        weights, moments = state
        of_data, of_latents = jax.random.split(key)
        batch = draw(of_data, sizes, dtype)
        loss, gradients = jax.value_and_grad(loss_of)(weights, batch, of_latents, scan)
        updates, moments = OPTIMIZER.update(gradients, moments, weights)
        return (optax.apply_updates(weights, updates), moments), loss

    weights = init(jax.random.key(0), D, H, dtype)
    return Training(step, (weights, OPTIMIZER.init(weights)))


def init(key: Any, D: int, H: int, dtype: Any) -> Any:
    layers = {
        "embed": (SEEN, H),
        "enter": (D + ACTIONS, H),
        "gru": (2 * H, 3 * H),
        "posterior 1": (2 * H, H),
        "posterior 2": (H, D),
        "prior 1": (H, H),
        "prior 2": (H, D),
        "decode 1": (H + D, H),
        "decode 2": (H, SEEN),
    }
    keys = jax.random.split(key, len(layers))
    normal = lambda key, sizes: jax.random.normal(key, sizes, dtype) / sizes[0] ** 0.5
    pairs = zip(layers.items(), keys, strict=True)
    return {
        name: {
            "w": normal(key, sizes),
            "b": jnp.zeros(sizes[1], dtype),
            "gain": jnp.ones(sizes[1], dtype),
        }
        for (name, sizes), key in pairs
    }


def plain(w: Any, x: Any) -> Any:
    return x @ w["w"] + w["b"]


def normed(w: Any, x: Any) -> Any:
    """A product and a layer norm, whose bias is that of the layer."""
    z = x @ w["w"]
    z = z - z.mean(-1, keepdims=True)
    z = z * jax.lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-3)
    return z * w["gain"] + w["b"]


def log_probs(logits: Any) -> Any:
    """Of D / CLASSES categorical variables, a little of which is uniform."""
    logits = logits.reshape(*logits.shape[:-1], -1, CLASSES)
    return jnp.log((1 - UNIFORM) * nn.softmax(logits) + UNIFORM / CLASSES)


def latent(key: Any, logs: Any) -> Any:
    """Draws a latent `(..., D)`; its gradient is that of the probabilities."""
    drawn = nn.one_hot(jax.random.categorical(key, logs), CLASSES, dtype=logs.dtype)
    probs = jnp.exp(logs)
    drawn = drawn + probs - jax.lax.stop_gradient(probs)
    return drawn.reshape(*drawn.shape[:-2], -1)


def observe(w: Any, embedded: Any, batch: Batch, key: Any, scan: Any) -> Any:
    """h_t, z_t and the log probabilities of z_t, for all t."""
    T, B = batch.first.shape
    D, H = w["posterior 2"]["b"].size, embedded.shape[-1]

    def body(state: Any, now: Any) -> Any:
        embedded, action, first, key = now
        h, z = (jnp.where(first[:, None], jnp.zeros_like(a), a) for a in state)
        x = nn.silu(normed(w["enter"], jnp.concatenate([z, action], -1)))
        r, c, u = jnp.split(normed(w["gru"], jnp.concatenate([x, h], -1)), 3, -1)
        u = nn.sigmoid(u - 1)
        h = u * jnp.tanh(nn.sigmoid(r) * c) + (1 - u) * h
        both = jnp.concatenate([h, embedded], -1)
        logits = plain(w["posterior 2"], nn.silu(normed(w["posterior 1"], both)))
        logs = log_probs(logits)
        z = latent(key, logs)
        return (h, z), (h, z, logs)

    dtype = embedded.dtype
    state = jnp.zeros((B, H), dtype), jnp.zeros((B, D), dtype)
    xs = embedded, batch.action, batch.first, jax.random.split(key, T)
    return scan(body, state, xs)[1]  # the line that differs


def loss_of(w: Any, batch: Batch, key: Any, scan: Any) -> Any:
    embedded = nn.silu(normed(w["embed"], batch.seen))
    h, z, posterior = observe(w, embedded, batch, key, scan)
    prior = log_probs(plain(w["prior 2"], nn.silu(normed(w["prior 1"], h))))
    hidden = nn.silu(normed(w["decode 1"], jnp.concatenate([h, z], -1)))
    error = ((plain(w["decode 2"], hidden) - batch.seen) ** 2).sum(-1)
    stop = jax.lax.stop_gradient
    of_prior = jnp.maximum(divergence(stop(posterior), prior), FREE)
    of_posterior = jnp.maximum(divergence(posterior, stop(prior)), FREE)
    return (error / 2 + OF_PRIOR * of_prior + OF_POSTERIOR * of_posterior).mean()


def divergence(p: Any, q: Any) -> Any:
    """KL(p | q) of latents, from log probabilities."""
    return (jnp.exp(p) * (p - q)).sum((-1, -2))


def draw(key: Any, sizes: Sizes, dtype: Any) -> Batch:
    """Oscillators pushed by actions, which start anew when an episode does."""
    B, T, _, _ = sizes
    of_start, of_action, of_first = jax.random.split(key, 3)
    n = SEEN // 2
    chosen = jax.random.randint(of_action, (T, B), 0, ACTIONS)
    action = nn.one_hot(chosen, ACTIONS, dtype=dtype)
    first = jax.random.bernoulli(of_first, ENDING, (T, B)).at[0].set(True)
    start = jax.random.normal(of_start, (T, B, 2, n), dtype)
    rate = jnp.linspace(0.1, 0.6, n, dtype=dtype)
    push = jnp.linspace(-0.3, 0.3, ACTIONS, dtype=dtype)

    def move(state: Any, now: Any) -> Any:
        action, first, start = now
        place, speed = state[:, 0], state[:, 1] + (action @ push)[:, None]
        speed = speed - rate * place
        place = place + rate * speed
        state = jnp.where(first[:, None, None], start, jnp.stack([place, speed], 1))
        return state, state

    state = jnp.zeros((B, 2, n), dtype)
    seen = jax.lax.scan(move, state, (action, first, start))[1]
    return Batch(jnp.tanh(seen.reshape(T, B, SEEN)), action, first)
