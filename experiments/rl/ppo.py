"""Proximal policy optimisation of a policy with a memory.

Schulman, Wolski, Dhariwal, Radford and Klimov, "Proximal Policy Optimization
Algorithms", 2017, https://arxiv.org/abs/1707.06347. Chunks of a rollout begin with the
state that the policy had there when it acted, brought up to date by a burn-in, as in
Kapturowski and others, "Recurrent Experience Replay in Distributed Reinforcement
Learning", 2019, https://openreview.net/forum?id=r1lyTjAqYX.

All here is of one policy; the training maps it over seeds.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

import jaxseq
from experiments.rl.policy import Policy, run
from experiments.rl.settings import Settings
from experiments.rl.tasks import Task

VALUE, MOST = 0.5, 0.5  # weight of the value's error, largest norm of a gradient


class Seen(NamedTuple):
    """What the policy saw at each step, and its memory before that step."""

    x: Array  # (T, N, D)
    resets: Array  # (T, N), whether it is the first of an episode
    memory: Any  # (T, N, H)


class Done(NamedTuple):
    """What it did at each step, and what came of it; each `(T, N)`."""

    action: Array
    log_prob: Array
    value: Array
    reward: Array
    done: Array


class Running(NamedTuple):
    """Where the environments and the policy in them stand."""

    worlds: Any  # (N,)
    first: Array  # (N,), whether an episode begins
    memory: Any  # (N, H)
    gained: Array  # (N,), rewards of the episode so far
    before: Any  # `Seen` of the last steps, as many as the burn-in has, or None


class State(NamedTuple):
    weights: Any
    moments: Any
    running: Running


class Chunks(NamedTuple):
    """What is learnt from, cut into pieces of L steps, one after the other in front."""

    seen: Seen  # (C, burn-in + L), the memory only that before the first step
    done: Done  # (C, L)
    advantage: Array
    goal: Array  # of the value


class Told(NamedTuple):
    """What an update tells of it."""

    returns: Array  # sums over the episodes that ended
    scores: Array
    episodes: Array
    loss: Array
    ratio: Array  # the furthest from 1 in the first minibatch


def optimizer(settings: Settings) -> optax.GradientTransformation:
    updates = settings.steps * settings.epochs * settings.minibatches
    rate = optax.linear_schedule(settings.learning_rate, 0.0, updates)
    return optax.chain(optax.clip_by_global_norm(MOST), optax.adam(rate, eps=1e-5))


def begin(settings: Settings, task: Task, policy: Policy, key: Array) -> State:
    """Untrained weights, and environments at the start of their first episodes."""
    N, burn_in = settings.envs, settings.burn_in
    of_weights, of_worlds = jax.random.split(key)
    worlds = jax.vmap(task.start)(jax.random.split(of_worlds, N))
    memory, first = policy.zeros(N), jnp.ones(N, bool)
    x = jax.vmap(task.observe)(worlds)
    weights = policy.init(of_weights, memory, x[None], first[None])
    before = None
    if burn_in:  # of zeros, for the first step resets whatever is made of them
        earlier = lambda a: jnp.zeros((burn_in, *a.shape), a.dtype)
        before = Seen(*jax.tree.map(earlier, (x, first, memory)))
    running = Running(worlds, first, memory, jnp.zeros(N), before)
    return State(weights, optimizer(settings).init(weights), running)


def update(
    settings: Settings, task: Task, policy: Policy, state: State, key: Array
) -> tuple[State, Told]:
    """Acts for a rollout and learns from it."""
    of_rollout, of_order = jax.random.split(key)
    running = state.running
    if settings.burn_in:  # also where it goes on, so that it acts as it will be judged
        old = first_of(running.before.memory), running.before
        running = running._replace(memory=burnt_in(policy, state.weights, *old))
    running, seen, done, ended = collect(
        settings, task, policy, state.weights, running, of_rollout
    )
    last = look(task, policy, state.weights, running)[-1]
    window = seen
    if settings.burn_in:
        join = lambda *parts: jnp.concatenate(parts)
        window = jax.tree.map(join, running.before, seen)
        later = lambda a: a[settings.rollout :]  # what the next burn-in begins with
        running = running._replace(before=jax.tree.map(later, window))
    advantage = advantages(settings, done, last)
    goal = advantage + done.value
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    given = chunks(settings, window, done, advantage, goal)

    def epoch(learnt: Any, key: Array) -> Any:
        order = jax.random.permutation(key, len(given.goal))
        groups = order.reshape(settings.minibatches, -1)
        return jax.lax.scan(minibatch, learnt, groups)

    def minibatch(learnt: Any, group: Array) -> Any:
        weights, moments = learnt
        some = jax.tree.map(lambda a: a[group], given)
        of_loss = jax.value_and_grad(loss_of, has_aux=True)
        told, grads = of_loss(weights, settings, policy, some)
        updates, moments = optimizer(settings).update(grads, moments, weights)
        return (optax.apply_updates(weights, updates), moments), told

    keys = jax.random.split(of_order, settings.epochs)
    learnt, (loss, ratio) = jax.lax.scan(epoch, (state.weights, state.moments), keys)
    (weights, moments), (returns, scores, episodes) = learnt, ended
    told = Told(returns, scores, episodes, loss.mean(), ratio[0, 0])
    return State(weights, moments, running), told


def first_of(tree: Any) -> Any:
    return jax.tree.map(lambda a: a[0], tree)


def burnt_in(policy: Policy, weights: Any, memory: Any, before: Seen) -> Any:
    """The memory after these steps; no gradient goes into it."""
    memory = run(policy, weights, memory, before.x, before.resets)[0]
    return jax.lax.stop_gradient(memory)


def look(task: Task, policy: Policy, weights: Any, running: Running) -> Any:
    """What is seen, the memory after it, logits and values: one step of the policy."""
    x = jax.vmap(task.observe)(running.worlds)
    step = x[None], running.first[None]
    memory, logits, value = run(policy, weights, running.memory, *step)
    return x, memory, logits[0], value[0]


def collect(
    settings: Settings, task: Task, policy: Policy, weights: Any, running: Running,
    key: Array,
) -> tuple[Running, Seen, Done, Any]:  # fmt: skip
    """Acts for T steps; also sums of returns, of scores, and of episodes that ended."""
    before = running.first

    def step(running: Running, key: Array) -> Any:
        of_action, *of_worlds = jax.random.split(key, 1 + 2 * settings.envs)
        of_acts, of_starts = jnp.stack(of_worlds).reshape(2, -1)
        x, memory, logits, value = look(task, policy, weights, running)
        action = jax.random.categorical(of_action, logits)
        out = jax.vmap(task.act)(of_acts, running.worlds, action)
        gained = running.gained + out.reward
        fresh = jax.vmap(task.start)(of_starts)
        new = jax.tree.map(lambda a, b: where(out.done, a, b), fresh, out.state)
        after = Running(
            new, out.done, memory, where(out.done, 0.0, gained), running.before
        )
        # the two conventions: done with the last observation, or with the next first
        flag = running.first if settings.done == "first" else out.done
        seen = Seen(x, flag, running.memory)
        done = Done(action, log_prob(logits, action), value, out.reward, flag)
        over = lambda a: jnp.where(out.done, a, 0).sum()
        return after, (seen, done, (over(gained), over(out.score), over(1)))

    running, (seen, done, ended) = jax.lax.scan(
        step, running, jax.random.split(key, settings.rollout)
    )
    resets, dones = told_apart(settings.done, done.done, before, running.first)
    ended = jax.tree.map(jnp.sum, ended)
    return running, seen._replace(resets=resets), done._replace(done=dones), ended


def told_apart(
    convention: str, flags: Array, before: Array, after: Array
) -> tuple[Array, Array]:
    """Which steps are the first of an episode, and which the last, `(T, N)`.

    `flags` say one of the two; `before` and `after`, `(N,)`, whether the first step and
    the one after the last begin an episode.
    """
    if convention == "first":
        return flags, jnp.concatenate([flags[1:], after[None]])
    return jaxseq.resets_from_dones(flags.T, before).T, flags


def where(which: Array, a: Any, b: Array) -> Array:
    """By rows."""
    which = which.reshape(-1, *[1] * (b.ndim - 1))
    return jnp.where(which, a, b)


def log_prob(logits: Array, action: Array) -> Array:
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, action[..., None], -1)[..., 0]


def advantages(settings: Settings, done: Done, last: Array) -> Array:
    """Schulman and others, 2015, https://arxiv.org/abs/1506.02438."""

    def back(later: Any, now: Done) -> Any:
        advantage, value = later
        on = jnp.where(now.done, 0.0, settings.discount)
        error = now.reward + on * value - now.value
        advantage = error + on * settings.trace * advantage
        return (advantage, now.value), advantage

    start = jnp.zeros_like(last), last
    return jax.lax.scan(back, start, done, reverse=True)[1]


def chunks(
    settings: Settings, window: Seen, done: Done, advantage: Array, goal: Array
) -> Chunks:
    """Of all environments; `window` is the rollout with the steps before it."""
    T, L, burn_in = settings.rollout, settings.chunk, settings.burn_in
    first = jnp.arange(0, T, L)

    def cut(a: Array, steps: int) -> Array:
        pieces = a[first[:, None] + jnp.arange(steps)]  # (C, steps, N, ...)
        pieces = jnp.moveaxis(pieces, 2, 1)
        return pieces.reshape(-1, *pieces.shape[2:])

    x, resets = (cut(a, burn_in + L) for a in (window.x, window.resets))
    memory = jax.tree.map(lambda a: cut(a, 1)[:, 0], window.memory)
    given = jax.tree.map(lambda a: cut(a, L), (done, advantage, goal))
    return Chunks(Seen(x, resets, memory), *given)


def loss_of(
    weights: Any, settings: Settings, policy: Policy, given: Chunks
) -> tuple[Array, Array]:
    """The loss of some chunks, and how far from 1 a ratio is."""
    (x, resets, memory), *rest = given
    x, resets, done, advantage, goal = jax.tree.map(
        lambda a: a.swapaxes(0, 1), (x, resets, *rest)
    )
    if settings.begin == "zeros":
        memory = jax.tree.map(jnp.zeros_like, memory)
    if settings.burn_in:
        n = settings.burn_in
        memory = burnt_in(policy, weights, memory, Seen(x[:n], resets[:n], None))
        x, resets = x[n:], resets[n:]
    _, logits, value = run(policy, weights, memory, x, resets)
    ratio = jnp.exp(log_prob(logits, done.action) - done.log_prob)
    clipped = jnp.clip(ratio, 1 - settings.clip, 1 + settings.clip)
    gain = jnp.minimum(ratio * advantage, clipped * advantage).mean()
    error = ((value - goal) ** 2).mean() / 2
    log_probs = jax.nn.log_softmax(logits)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    loss = VALUE * error - gain - settings.entropy * entropy
    return loss, jnp.abs(ratio - 1).max()
