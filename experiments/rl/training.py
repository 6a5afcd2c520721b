"""Policies of several seeds, trained side by side: what a run has, and its loop."""

import sys
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from experiments.frame.checkpoint import Checkpoints
from experiments.frame.errors import InputError
from experiments.frame.interrupts import Interrupts
from experiments.rl import policy, ppo, tasks
from experiments.rl.policy import Policy
from experiments.rl.settings import Settings

TEST = 256  # episodes of each policy


class Training:
    """The state of all seeds, and its compiled update."""

    def __init__(self, settings: Settings):
        self.settings, self.step = settings, 0
        self.task = tasks.make(settings.task, settings.length)
        self.policy = policy.make(settings, self.task.actions)
        of_run = settings, self.task, self.policy
        seeds = jnp.arange(settings.seed, settings.seed + settings.seeds)
        self.keys = jax.vmap(jax.random.key)(seeds)
        self.state = jax.jit(jax.vmap(partial(ppo.begin, *of_run)))(self.keys)

        def update(state: Any, keys: Array, step: Array) -> Any:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
            return jax.vmap(partial(ppo.update, *of_run))(state, keys)

        self.update = jax.jit(update, donate_argnums=0)

    @property
    def per_step(self) -> int:
        """Steps of environments in an update."""
        return self.settings.seeds * self.settings.envs * self.settings.rollout

    @property
    def weights(self) -> int:
        """Of one policy."""
        leaves = jax.tree.leaves(self.state.weights)
        return sum(w.size for w in leaves) // self.settings.seeds

    def advance(self) -> ppo.Told:
        self.step += 1
        self.state, told = self.update(self.state, self.keys, jnp.array(self.step))
        return told

    def test(self) -> tuple[list[float], list[float]]:
        """Of each seed the mean return and score of episodes never seen."""

        def play(weights: Any, key: Array) -> Any:
            return episodes(self.task, self.policy, weights, key, TEST)

        keys = jax.vmap(jax.random.fold_in, (0, None))(self.keys, 2**31 - 1)
        found = jax.jit(jax.vmap(play))(self.state.weights, keys)
        returns, scores = (np.asarray(a, float).tolist() for a in found)
        return returns, scores


def episodes(task: tasks.Task, policy: Policy, weights: Any, key: Array, N: int) -> Any:
    """The means of returns and scores of N episodes of the likeliest actions."""
    of_worlds, of_steps = jax.random.split(key)
    worlds = jax.vmap(task.start)(jax.random.split(of_worlds, N))
    zeros = jnp.zeros(N)
    running = ppo.Running(worlds, jnp.ones(N, bool), policy.zeros(N), zeros, None)

    def step(now: Any, key: Array) -> Any:
        running, over, score = now
        _, memory, logits, _ = ppo.look(task, policy, weights, running)
        out = jax.vmap(task.act)(
            jax.random.split(key, N), running.worlds, logits.argmax(-1)
        )
        gained = running.gained + jnp.where(over, 0.0, out.reward)
        score = jnp.where(out.done & ~over, out.score, score)
        first = jnp.zeros(N, bool)
        running = ppo.Running(out.state, first, memory, gained, None)
        return (running, over | out.done, score), None

    keys = jax.random.split(of_steps, task.longest)
    (running, _, score), _ = jax.lax.scan(step, (running, ~running.first, zeros), keys)
    return running.gained.mean(), score.mean()


def row(step: int, told: list[list[Any]]) -> dict[str, Any]:
    """What some updates come to: the loss, and lists with a number for each seed."""
    returns, scores, episodes, loss, ratio = (
        np.array(a) for a in zip(*told, strict=True)
    )
    n = episodes.sum(0)
    mean = lambda a: [
        float(s / m) if m else None for s, m in zip(a.sum(0), n, strict=True)
    ]
    found = {"step": step, "loss": float(loss.mean()), "ratio": ratio.max(0).tolist()}
    return found | {"return": mean(returns), "score": mean(scores)}


def loop(
    training: Training,
    facts: dict[str, Any],
    checkpoints: Checkpoints,
    save_seconds: float,
) -> bool:
    """Trains to the last step, or to an interrupt, whose answer is False."""
    steps, per_step = training.settings.steps, training.per_step
    every, told = max(1, steps // 100), facts["pending"]
    start = saved = time.monotonic()
    before = facts["seconds"]

    def check() -> None:
        leaves = jax.tree.leaves(training.state.weights)
        if not all(bool(jnp.isfinite(w).all()) for w in leaves):
            raise InputError(
                f"the weights are not finite at step {training.step}: try a lower "
                "--learning-rate; what was saved is kept"
            )

    def save() -> None:
        check()
        facts["seconds"] = before + time.monotonic() - start
        facts["step"] = training.step
        if checkpoints.newest != training.step:
            checkpoints.save(training.step, facts, arrays=training.state)

    bar = tqdm(
        total=steps * per_step,
        initial=training.step * per_step,
        unit="step",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
    with Interrupts() as interrupts, bar:
        while training.step < steps and not interrupts.seen:
            told.append([np.asarray(a).tolist() for a in training.advance()])
            bar.update(per_step)
            last = training.step == steps
            if training.step % every == 0 or last:
                facts["train"].append(row(training.step, told))
                told.clear()
                here = [r for r in facts["train"][-1]["return"] if r is not None]
                text = f"return {np.mean(here):.3g}" if here else "no episode over"
                bar.set_postfix_str(text, refresh=False)
            if time.monotonic() - saved >= save_seconds or last:
                save()
                saved = time.monotonic()
        if training.step < steps:
            save()
    return training.step == steps
