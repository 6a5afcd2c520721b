"""Tasks that ask for memory, in pure JAX.

A task is functions of one environment; what acts maps them over many.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from experiments.frame.errors import InputError


class Outcome(NamedTuple):
    """What an action leads to."""

    state: Any
    reward: Array
    done: Array  # whether the episode is over
    score: Array  # of an episode that is over, how much of it was done, from 0 to 1


class Task(NamedTuple):
    width: int  # of an observation
    actions: int
    longest: int  # steps of an episode
    start: Callable[[Array], Any]  # key -> state
    observe: Callable[[Any], Array]  # state -> (width,)
    act: Callable[[Array, Any, Array], Outcome]  # key, state, action


class Maze(NamedTuple):
    up: Array  # where the goal is
    at: Array
    t: Array


def tmaze(length: int) -> Task:
    """A corridor; which way to turn at its end is shown at its beginning alone.

    Observations, rewards of 4 and -0.1, and the four actions are those of Bakker,
    "Reinforcement Learning with Long Short-Term Memory", 2001,
    https://proceedings.neurips.cc/paper/2001/hash/a38b16173474ba8b1a95bcbc30d3b8a5-Abstract.html.
    Two things are not: to go back costs 0.1 too, as standing still does, since nothing
    here explores in a directed way; and an episode ends after three times the length.
    """
    north, east, _, west = range(4)
    longest = 3 * length

    def start(key: Array) -> Maze:
        return Maze(jax.random.bernoulli(key), jnp.array(0), jnp.array(0))

    def observe(maze: Maze) -> Array:
        cue = jnp.where(maze.up, jnp.array([0.0, 1, 1]), jnp.array([1.0, 1, 0]))
        inside = jnp.where(maze.at == length, jnp.array([0.0, 1, 0]),
                           jnp.array([1.0, 0, 1]))  # fmt: skip
        return jnp.where(maze.at == 0, cue, inside)

    def act(key: Array, maze: Maze, action: Array) -> Outcome:
        turns = (maze.at == length) & (action != east) & (action != west)
        right = turns & ((action == north) == maze.up)
        move = jnp.where(action == east, 1, 0) - jnp.where(action == west, 1, 0)
        at = jnp.clip(maze.at + move, 0, length)
        reward = jnp.where(right, 4.0, jnp.where(at > maze.at, 0.0, -0.1))
        done = turns | (maze.t + 1 == longest)
        return Outcome(
            Maze(maze.up, at, maze.t + 1), reward, done, jnp.where(right, 1.0, 0.0)
        )

    return Task(3, 4, longest, start, observe, act)


class Deck(NamedTuple):
    suits: Array  # (52,), of shuffled cards
    t: Array
    right: Array  # answers


def repeat(back: int) -> Task:
    """A card at each step; the answer is the suit of the card `back` steps before.

    RepeatPrevious of Morad and others, "POPGym", 2023, https://arxiv.org/abs/2303.01859:
    one deck, and rewards that sum to 1 or -1 if all answers are right or wrong.
    """
    cards, suits = 52, 4

    def start(key: Array) -> Deck:
        deck = jax.random.permutation(key, jnp.arange(cards) % suits)
        return Deck(deck, jnp.array(0), jnp.array(0))

    def observe(deck: Deck) -> Array:
        return jax.nn.one_hot(deck.suits[deck.t], suits)

    def act(key: Array, deck: Deck, action: Array) -> Outcome:
        asked = deck.t >= back
        right = asked & (action == deck.suits[jnp.maximum(deck.t - back, 0)])
        reward = jnp.where(right, 1.0, -1.0) * asked / (cards - back)
        total = deck.right + right
        done = deck.t + 1 == cards
        return Outcome(
            Deck(deck.suits, deck.t + 1, total), reward, done, total / (cards - back)
        )

    return Task(suits, suits, cards, start, observe, act)


class Pole(NamedTuple):
    x: Array
    speed: Array
    angle: Array
    turning: Array
    t: Array


def cartpole(longest: int) -> Task:
    """A pole on a cart, of which only the position and the angle are seen.

    The dynamics of Barto, Sutton and Anderson, "Neuronlike adaptive elements that can
    solve difficult learning control problems", 1983,
    https://doi.org/10.1109/TSMC.1983.6313077, without friction; the bounds and a reward
    of 1 a step are those of OpenAI Gym. The velocities are hidden as in Meuleau and
    others, "Learning finite-state controllers for partially observable environments",
    1999, https://arxiv.org/abs/1301.6721.
    """
    gravity, pole, half, mass, force, dt = 9.8, 0.1, 0.5, 1.1, 10.0, 0.02
    most = jnp.array([2.4, 12 * jnp.pi / 180])

    def start(key: Array) -> Pole:
        drawn = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        x, speed, angle, turning = drawn
        return Pole(x, speed, angle, turning, jnp.array(0))

    def observe(s: Pole) -> Array:
        return jnp.stack([s.x, s.angle]) / most

    def act(key: Array, s: Pole, action: Array) -> Outcome:
        cos, sin = jnp.cos(s.angle), jnp.sin(s.angle)
        push = jnp.where(action == 1, force, -force)
        push = (push + pole * half * s.turning**2 * sin) / mass
        turned = (gravity * sin - cos * push) / (half * (4 / 3 - pole * cos**2 / mass))
        moved = push - pole * half * turned * cos / mass
        new = Pole(s.x + dt * s.speed, s.speed + dt * moved, s.angle + dt * s.turning,
                   s.turning + dt * turned, s.t + 1)  # fmt: skip
        fallen = (jnp.abs(jnp.stack([new.x, new.angle])) > most).any()
        done = fallen | (new.t == longest)
        return Outcome(new, jnp.ones_like(s.x), done, new.t / longest)

    return Task(2, 2, longest, start, observe, act)


def make(name: str, length: int) -> Task:
    own = {"tmaze": tmaze, "repeat": repeat, "cartpole": cartpole}
    if name in own:
        return own[name](length)
    kind, _, of_gymnax = name.partition(":")
    if kind == "gymnax" and of_gymnax:
        from experiments.rl import gymnax_tasks

        return gymnax_tasks.make(of_gymnax)
    known = ", ".join([*own, "gymnax:NAME"])
    raise InputError(f"--task {name}: expected one of {known}")


def title(name: str, length: int) -> str:
    """What a run is called beside others."""
    if name == "tmaze":
        return f"T-maze of {length} steps"
    if name == "repeat":
        return f"RepeatPrevious, {length} back"
    if name == "cartpole":
        return f"cart-pole without velocities, {length} steps"
    return name.partition(":")[2]
