"""Proximal policy optimisation of a recurrent policy, in the manner of PureJaxRL.

One step runs the policy in the environments, estimates advantages, and goes over the
rollout in a few epochs, with minibatches of whole environments: a recurrent policy has
to see its steps in order. The recurrence is a Linen GRU in a scan, zeroed where an
episode has ended.

Schulman, Wolski, Dhariwal, Radford and Klimov, "Proximal Policy Optimization
Algorithms", 2017, https://arxiv.org/abs/1707.06347; advantages as in Schulman, Moritz,
Levine, Jordan and Abbeel, 2015, https://arxiv.org/abs/1506.02438; the form of the
program follows Lu et al., "Discovered Policy Optimisation", 2022,
https://arxiv.org/abs/2210.05639.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.real import recall
from benchmarks.real.training import Sizes, Training

DISCOUNT, TRACE = 0.99, 0.95
CLIP, VALUE, ENTROPY = 0.2, 0.5, 0.01
EPOCHS, MINIBATCHES = 2, 4
OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-3, eps=1e-5))


class ScannedRNN(nn.Module):
    """A GRU over time, whose carry is zeroed where an episode has ended."""

    features: int
    scan: Any
    dtype: Any

    @nn.compact
    def __call__(self, carry: Any, inputs: Any) -> Any:
        kind = {"dtype": self.dtype, "param_dtype": self.dtype}
        cell = nn.GRUCell(self.features, **kind, parent=None)
        weights = self.param("cell", cell.init, carry, inputs[0][0])

        def body(carry: Any, now: Any) -> Any:
            x, ended = now
            carry = jnp.where(ended[:, None], jnp.zeros_like(carry), carry)
            return cell.apply(weights, carry, x)

        return self.scan(body, carry, inputs)  # the line that differs


class Policy(nn.Module):
    features: int
    scan: Any
    dtype: Any
    memory: Any = ScannedRNN

    @nn.compact
    def __call__(self, carry: Any, inputs: Any) -> Any:
        """The new carry, and logits and values of all steps, `(T, N, ...)`."""
        seen, ended = inputs
        kind = {"dtype": self.dtype, "param_dtype": self.dtype}
        dense = lambda width: nn.Dense(width, **kind)
        x = nn.relu(dense(self.features)(seen))
        memory = self.memory(self.features, self.scan, self.dtype, name="memory")
        carry, y = memory(carry, (x, ended))
        logits = dense(recall.CUES)(nn.relu(dense(self.features)(y)))
        value = dense(1)(nn.relu(dense(self.features)(y)))
        return carry, logits, value[..., 0]


class Running(NamedTuple):
    """Where the environments and the policy in them stand."""

    episodes: recall.Episodes
    ended: Any  # (N,), whether the step before was the last of its episode
    carry: Any  # (N, H)


class State(NamedTuple):
    weights: Any
    moments: Any
    running: Running


class Rollout(NamedTuple):
    """What happened in T steps, each `(T, N, ...)`."""

    seen: Any
    ended: Any  # before this step
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    done: Any  # after this step


def training(
    sizes: Sizes, scan: Any, dtype: Any = jnp.float32, memory: Any = ScannedRNN
) -> Training:
    N, T, _, H = sizes
    policy = Policy(H, scan, dtype, memory)

    def step(state: State, key: Any) -> tuple[State, Any]:
        of_rollout, of_order = jax.random.split(key)
        first = state.running.carry
        running, rollout = collect(policy, state.weights, state.running, of_rollout, T)
        value = ahead(policy, state.weights, running)[2]
        advantage = advantages(rollout, value)
        given = first, rollout, advantage, advantage + rollout.value

        def epoch(learnt: Any, key: Any) -> Any:
            order = jax.random.permutation(key, N)
            return jax.lax.scan(update, learnt, minibatches(given, order))

        def update(learnt: Any, batch: Any) -> Any:
            weights, moments = learnt
            loss, gradients = jax.value_and_grad(loss_of)(weights, policy, *batch)
            updates, moments = OPTIMIZER.update(gradients, moments, weights)
            return (optax.apply_updates(weights, updates), moments), loss

        keys = jax.random.split(of_order, EPOCHS)
        learnt, losses = jax.lax.scan(epoch, (state.weights, state.moments), keys)
        return State(*learnt, running), losses.mean()

    of_weights, of_cues = jax.random.split(jax.random.key(0))
    carry = jnp.zeros((N, H), dtype)
    running = Running(recall.start(of_cues, N), jnp.zeros(N, bool), carry)
    inputs = recall.observe(running.episodes, dtype)[None], running.ended[None]
    weights = policy.init(of_weights, carry, inputs)
    return Training(step, State(weights, OPTIMIZER.init(weights), running))


def ahead(policy: Any, weights: Any, running: Running) -> tuple[Any, Any, Any, Any]:
    """One step of the policy: carry, logits, values, and what it has seen."""
    seen = recall.observe(running.episodes, running.carry.dtype)
    inputs = seen[None], running.ended[None]
    carry, logits, value = policy.apply(weights, running.carry, inputs)
    return carry, logits[0], value[0], seen


def collect(
    policy: Any, weights: Any, running: Running, key: Any, T: int
) -> tuple[Running, Rollout]:
    def one(running: Running, key: Any) -> tuple[Running, Rollout]:
        of_action, of_world = jax.random.split(key)
        carry, logits, value, seen = ahead(policy, weights, running)
        action = jax.random.categorical(of_action, logits)
        log_prob = chosen(logits, action)
        episodes, reward, done = recall.act(of_world, running.episodes, action)
        reward = reward.astype(value.dtype)
        ended = running.ended
        happened = Rollout(seen, ended, action, log_prob, value, reward, done)
        return Running(episodes, done, carry), happened

    return jax.lax.scan(one, running, jax.random.split(key, T))


def chosen(logits: Any, action: Any) -> Any:
    """The log probability of each action."""
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, action[..., None], -1)[..., 0]


def advantages(rollout: Rollout, last: Any) -> Any:
    """Generalised advantage estimation, from the last step back."""

    def back(later: Any, now: Rollout) -> Any:
        advantage, value = later
        going_on = jnp.where(now.done, 0, DISCOUNT).astype(last.dtype)
        error = now.reward + going_on * value - now.value
        advantage = error + going_on * TRACE * advantage
        return (advantage, now.value), advantage

    start = jnp.zeros_like(last), last
    return jax.lax.scan(back, start, rollout, reverse=True)[1]


def minibatches(given: Any, order: Any) -> Any:
    """Environments in groups, in front of all else; the first carry has no time."""
    first, *over_time = given
    groups = order.reshape(MINIBATCHES, -1)
    some = lambda a: jnp.moveaxis(a[:, groups], 1, 0)
    return first[groups], *jax.tree.map(some, over_time)


def loss_of(
    weights: Any, policy: Any, first: Any, old: Rollout, advantage: Any, goal: Any
) -> Any:
    _, logits, value = policy.apply(weights, first, (old.seen, old.ended))
    ratio = jnp.exp(chosen(logits, old.action) - old.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    gain = jnp.minimum(ratio * advantage, clipped * advantage).mean()
    near = old.value + jnp.clip(value - old.value, -CLIP, CLIP)
    error = jnp.maximum((value - goal) ** 2, (near - goal) ** 2).mean() / 2
    log_probs = jax.nn.log_softmax(logits)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return VALUE * error - gain - ENTROPY * entropy
