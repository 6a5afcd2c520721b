"""Whether two training steps are the same but for rounding.

Two trainings that differ by rounding may part: an action or a latent is drawn otherwise
once in a while, and a policy that is learning makes much of little. So each step of one
training is taken by the other too, from the same state, and what both make of it is
compared: the loss and the new state. How far two trainings on their own have parted is
said beside it, with what a single rounding of the first weights makes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.real.training import Training


class Compared(NamedTuple):
    """Differences over the largest value of what differs."""

    same_start: float  # of losses and states after a step from the same state
    alone: float  # of losses of two trainings
    rounded: float  # of losses of one, and one whose first weights are rounded once
    first_loss: float
    last_loss: float

    def __str__(self) -> str:
        return (
            f"steps within {self.same_start:.1e}, losses of whole trainings within "
            f"{self.alone:.1e}, after one rounding {self.rounded:.1e}"
        )


def compare(plain: Training, other: Training, steps: int) -> Compared:
    state, alone, rounded = plain.state, other.state, jax.tree.map(nudged, plain.state)
    off, losses = 0.0, []
    for key in jax.random.split(jax.random.key(1), steps):
        theirs = other.step(state, key)
        state, loss = ours = plain.step(state, key)
        off = max(off, *jax.tree.leaves(jax.tree.map(apart, theirs, ours)))
        alone, loss_alone = other.step(alone, key)
        rounded, loss_rounded = plain.step(rounded, key)
        losses.append((loss, loss_alone, loss_rounded))
    found = np.array(losses, np.float64).T
    of_both, of_rounded = (apart(each, found[0]) for each in found[1:])
    return Compared(off, of_both, of_rounded, float(found[0, 0]), float(found[0, -1]))


def apart(a: Any, b: Any) -> float:
    """The largest difference over the largest value; infinite for NaN."""
    a, b = (np.asarray(each, np.float64) for each in (a, b))
    most = np.abs(a - b).max() / (np.abs(b).max() or 1)
    return float(most) if np.isfinite(most) else float("inf")


def nudged(a: Any) -> Any:
    """Floats one rounding up, but for zeros."""
    if not jnp.issubdtype(a.dtype, jnp.floating):
        return a
    a = np.asarray(a)
    return jnp.asarray(np.where(a == 0, a, np.nextafter(a, np.inf, dtype=a.dtype)))
