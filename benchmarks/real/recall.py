"""A toy environment for policies with memory: recall what was shown at the start.

An episode begins with a cue, one of `CUES`, which is seen in its first step only. It
ends with a question, asked in each later step with probability `ASKED`; the action
then taken is rewarded with 1 if it names the cue.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

CUES = 8  # as many actions there are
ASKED = 0.1
SEEN = CUES + 1  # the width of an observation: a cue, and whether it is asked for


class Episodes(NamedTuple):
    """Of N environments side by side."""

    cue: jax.Array  # (N,)
    new: jax.Array  # (N,), whether this is the first step
    asked: jax.Array  # (N,)


def start(key: Any, N: int) -> Episodes:
    cue = jax.random.randint(key, (N,), 0, CUES)
    return Episodes(cue, jnp.ones(N, bool), jnp.zeros(N, bool))


def observe(episodes: Episodes, dtype: Any) -> jax.Array:
    cue = jax.nn.one_hot(episodes.cue, CUES, dtype=dtype) * episodes.new[:, None]
    return jnp.concatenate([cue, episodes.asked[:, None].astype(dtype)], -1)


def act(key: Any, episodes: Episodes, action: Any) -> tuple[Episodes, Any, Any]:
    """The next step of every environment, the reward, and whether it has ended."""
    of_cue, of_question = jax.random.split(key)
    done = episodes.asked
    reward = done & (action == episodes.cue)
    N = len(action)
    cue = jnp.where(done, jax.random.randint(of_cue, (N,), 0, CUES), episodes.cue)
    asked = jax.random.bernoulli(of_question, ASKED, (N,)) & ~done
    return Episodes(cue, done, asked), reward, done
