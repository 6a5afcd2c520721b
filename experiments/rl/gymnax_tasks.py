"""Environments of gymnax with a choice of actions, as tasks."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from experiments.frame.errors import InputError
from experiments.rl.tasks import Outcome, Task


def make(name: str) -> Task:
    """The score of an episode is its return."""
    try:
        import gymnax  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as e:
        need = "it needs gymnax: pip install 'jaxseq[rl]'"
        raise InputError(f"--task gymnax:{name}: {need}") from e
    try:
        env, params = gymnax.make(name)
        actions = env.action_space(params).n
    except (ValueError, AttributeError) as e:
        expected = "expected an environment of gymnax with a choice of actions"
        raise InputError(f"--task gymnax:{name}: {expected}") from e
    seen, inside = jax.eval_shape(env.reset, jax.random.key(0), params)
    cast = lambda state: jax.tree.map(
        lambda a, b: jnp.asarray(a, b.dtype), state, inside
    )

    def start(key: Array) -> Any:
        x, state = env.reset_env(key, params)
        return x, cast(state), jnp.array(0.0)

    def act(key: Array, now: Any, action: Array) -> Outcome:
        x, state, reward, over, _ = env.step_env(key, now[1], action, params)
        gained = now[2] + reward
        done = over | env.is_truncated(state, params)
        return Outcome(
            (x, cast(state), gained), jnp.asarray(reward, float), done, gained
        )

    observe = lambda now: jnp.asarray(now[0], float).reshape(-1)
    longest = int(params.max_steps_in_episode)
    return Task(max(1, seen.size), actions, longest, start, observe, act)
