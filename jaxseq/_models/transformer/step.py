"""The decoder one token at a time, with caches of the tokens before."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._attention.heads import attend_heads, heads_of
from jaxseq._base.buffers import apart
from jaxseq._base.check import check, check_callable, check_tokens
from jaxseq._base.mesh import rows
from jaxseq._models.transformer.checks import check_params
from jaxseq._models.transformer.layer import Activation, Pass, logits_of, run_layers
from jaxseq._models.transformer.params import (
    TransformerParams,
    decoder_of,
    embed_of,
)
from jaxseq._models.transformer.positions import positioned, rotated
from jaxseq._models.transformer.state import TransformerState, check_state, room_of


def transformer_decode_step(
    params: TransformerParams,
    state: TransformerState,
    token: ArrayLike,
    *,
    activation: Activation = jax.nn.relu,
) -> tuple[TransformerState, Array]:
    """Does one step of the decoder.

    `partial(transformer_decode_step, params)` is a step that `greedy`, `sample`,
    `beam_search` and `prefill` take. In a loop of your own, call it under `jax.jit`:
    outside `jit` it reads positions and tokens to check them, and so waits for the
    device.

    Args:
        params: weights with a decoder.
        state: the decoder's state, of `transformer_zeros` or `transformer_decode`.
        token: the previous token, or a start token, from 0 to V - 1, `(...)`. Under
            `jit`, a token out of range has an embedding of NaN.
        activation: between the two maps of a layer.

    Returns:
        `(state, logits)`: the new state, and logits of the next token, `(..., V)`.
        Under `jit`, they are NaN where the state is full, or past the end of learned
        positions.

    Raises:
        ValueError: if a shape, dtype or value does not fit; outside `jit` also if the
            state is full, or past the end of learned positions.

    Example:
        >>> params = jaxseq.transformer_init(
        ...     jax.random.key(0), features=16, num_heads=2, ff_features=32,
        ...     target_vocab=90, num_decoder_layers=2,
        ... )
        >>> state = jaxseq.transformer_zeros(params, batch=5, room=40)
        >>> token = jnp.ones(5, int)
        >>> state, logits = jaxseq.transformer_decode_step(params, state, token)
        >>> logits.shape, state.left
        ((5, 90), 39)
    """
    params = check_params(params)
    check_callable(activation, "activation")
    stack, embed = decoder_of(params), embed_of(params, "decoder")
    token = check_tokens(token, "token", len(embed))
    state = check_state(params, state)
    t, room = state.position, room_of(state)
    check(token.shape == t.shape, "token", f"shape {t.shape}", token.shape)
    at = t[..., None]
    x = positioned(params.positions, rows(embed, token)[..., None, :], at)
    slots = jnp.arange(room, dtype=jnp.int32)
    here = (slots == (at % room if state.slides else at))[..., None, None]
    filled = (slots <= at)[..., None, :]  # one query
    caches = []

    def attend(i: int, x: Array) -> Array:
        heads = stack.layers[i].attention
        k, v = heads_of(heads, x, x)
        k, old = rotated(params.positions, k, at), state.caches[i]
        cache = old._replace(k=jnp.where(here, k, old.k), v=jnp.where(here, v, old.v))
        caches.append(cache)
        rotate = lambda q: rotated(params.positions, q, at)
        return attend_heads(heads, x, *cache, filled, rotate=rotate)[0]

    common = Pass(stack.layout, activation, state.valid)
    x, _ = run_layers(stack, x, attend, state.cross, common)
    cross, valid = apart((state.cross, state.valid))
    logits = logits_of(params, x[..., 0, :])
    if not state.slides:  # a token past the end is in no cache
        logits = jnp.where(at < room, logits, jnp.nan)
    return TransformerState(t + 1, tuple(caches), cross, valid), logits
