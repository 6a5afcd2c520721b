"""Episode ends of reinforcement learning as resets of a recurrent state."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._base.check import check, check_array, of_values


def resets_from_dones(dones: ArrayLike, last_done: ArrayLike | None = None) -> Array:
    """Turns `done` flags into `resets`: done at step t resets step t + 1.

    A `done` flag says that the episode ended *with* this step, so the state is
    still good for it and the next step is the first of a new episode.

    Args:
        dones: booleans `(..., T)`, whether an episode ended with each step.
        last_done: booleans `(...)`, whether one ended with the step before the
            first, as the flag of the last step of the previous piece when a
            stream comes in pieces; all False if None.

    Returns:
        `resets`, booleans `(..., T)`, to pass to `rnn`, `lstm` or `gru`.

    Raises:
        ValueError: if a flag is not boolean or a shape does not fit.

    Example:
        >>> jaxseq.resets_from_dones(jnp.array([False, True, False, False])).tolist()
        [False, False, True, False]
    """
    dones = of_values(dones, "dones")
    check(dones.ndim >= 1, "dones", "shape (..., T)", dones.shape)
    check(dones.dtype == bool, "dones", "dtype bool", dones.dtype)
    first = jnp.zeros_like(dones[..., :1])
    if last_done is not None:
        last_done = of_values(last_done, "last_done")
        check_array(last_done, "last_done", dones.shape[:-1], jnp.bool_)
        first = last_done[..., None]
    return jnp.concatenate([first, dones], axis=-1)[..., :-1]
