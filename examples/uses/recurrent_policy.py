"""A policy with a memory, trained by PPO on rollouts with time first.

Each episode shows one of two cues at its first step and asks for it at its last,
2 to 6 steps later. Rollouts cut episodes, so the state of the GRU and the last `done`
go from one rollout to the next. Schulman and others, "Proximal Policy Optimization
Algorithms", 2017, https://arxiv.org/abs/1707.06347.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxseq

T, B, H = 32, 32, 16
OPTIMIZER = optax.adam(1e-2)


class World(NamedTuple):
    cue: jax.Array  # 0 or 1
    t: jax.Array
    last: jax.Array  # the step that asks


class Rollout(NamedTuple):
    x: jax.Array  # (T, B, D): first step and its cue, or whether it asks
    actions: jax.Array  # (T, B), as the others
    log_probs: jax.Array
    rewards: jax.Array
    dones: jax.Array
    state: jax.Array  # (B, H), before the first step
    done: jax.Array  # (B,), whether an episode ended just before it


def begin(key: jax.Array) -> World:
    cue, last = jax.random.split(key)
    draw: Any = jax.random.randint
    return World(draw(cue, B, 0, 2), jnp.zeros(B, int), draw(last, B, 2, 7))


def log_softmax(params, y: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(y @ params["w"])


def collect(params, carry, key):
    def step(carry, key):
        world, state, done = carry
        first, asks = world.t == 0, world.t == world.last
        x = jnp.stack([first, first * world.cue, asks], axis=-1).astype(jnp.float32)
        state, y = jaxseq.gru_step(params["gru"], state, x, resets=done)
        keys = jax.random.split(key)
        log_probs = log_softmax(params, y)
        action = jax.random.categorical(keys[0], log_probs)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], -1)[:, 0]
        reward = jnp.where(asks, 2.0 * (action == world.cue) - 1, 0.0)
        on = world._replace(t=world.t + 1)
        world = jax.tree.map(partial(jnp.where, asks), begin(keys[1]), on)
        return (world, state, asks), (x, action, log_prob, reward, asks)

    after, steps = jax.lax.scan(step, carry, jax.random.split(key, T))
    return after, Rollout(*steps, state=carry[1], done=carry[2])


def replay(params, rollout: Rollout) -> jax.Array:
    """Log-probabilities of the actions, (T, B), of the whole sequence at once."""

    def row(x, actions, dones, state, done):
        resets = jaxseq.resets_from_dones(dones, last_done=done)
        _, y = jaxseq.gru(params["gru"], x, state, resets=resets)
        return jnp.take_along_axis(log_softmax(params, y), actions[:, None], -1)[:, 0]

    over = jax.vmap(row, in_axes=(1, 1, 1, 0, 0), out_axes=1)
    return over(rollout.x, rollout.actions, rollout.dones, rollout.state, rollout.done)


def loss(params, rollout: Rollout) -> tuple[jax.Array, jax.Array]:
    log_probs = replay(params, rollout)
    ratio = jnp.exp(log_probs - rollout.log_probs)
    clipped = jnp.clip(ratio, 0.8, 1.2)
    gain = jnp.minimum(ratio * rollout.rewards, clipped * rollout.rewards)
    return -gain.sum() / rollout.dones.sum(), log_probs


@jax.jit
def iterate(params, optimizer, carry, key):
    carry, rollout = collect(params, carry, key)
    first = loss(params, rollout)[1]
    for _ in range(4):
        grads, _ = jax.grad(loss, has_aux=True)(params, rollout)
        updates, optimizer = OPTIMIZER.update(grads, optimizer)
        params = optax.apply_updates(params, updates)
    reward = rollout.rewards.sum() / rollout.dones.sum()
    return params, optimizer, carry, reward, jnp.abs(first - rollout.log_probs).max()


def main(rollouts: int = 60) -> tuple[list[float], float]:
    """Mean reward of each rollout's episodes, and how far log-probabilities differ
    between acting and the first epoch of learning, at most."""
    keys = jax.random.split(jax.random.key(0), rollouts + 2)
    gru = jaxseq.gru_init(keys[0], 3, H)
    params = {"gru": gru, "w": jnp.zeros((H, 2))}
    carry = begin(keys[1]), jaxseq.gru_zeros(gru, B), jnp.zeros(B, bool)
    optimizer, rewards, apart = OPTIMIZER.init(params), [], 0.0
    for key in keys[2:]:
        params, optimizer, carry, reward, differs = iterate(
            params, optimizer, carry, key
        )
        rewards.append(float(reward))
        apart = max(apart, float(differs))
    return rewards, apart


if __name__ == "__main__":
    rewards, apart = main()
    print(f"mean reward {rewards[0]:.2f} at first, {rewards[-1]:.2f} at last")
    print(f"log-probabilities differ by {apart:.1e} between acting and learning")
