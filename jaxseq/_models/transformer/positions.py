"""Where a token stands: sinusoidal, learned and rotary positions.

    wave    x_t + [sin, cos](t / 10000^(2i / D)), interleaved
    learned x_t + p_t
    rotary  in self-attention, each pair of values of the queries and keys turned
            by t / 10000^(2i / A)

In float32 the angles lose precision: logits of about 5 are off by roughly 1e-3 at
position 10^5, 1e-2 at 10^6 and 1e-1 at 10^7. Positions are int32 and wrap at 2^31.

Vaswani and others, "Attention Is All You Need", 2017,
https://arxiv.org/abs/1706.03762, section 3.5; Su and others, "RoFormer: Enhanced
Transformer with Rotary Position Embedding", 2021, https://arxiv.org/abs/2104.09864.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._base.check import check
from jaxseq._base.dtypes import state_dtype, widened
from jaxseq._base.mesh import rows

POSITIONS = ("sinusoidal", "learned", "rotary")


class Sinusoidal(NamedTuple):
    """Marks sinusoidal positions in a model's weights; they have none of their own."""


class Rotary(NamedTuple):
    """Marks rotary positions in a model's weights; they have none of their own."""


Positions = Array | Sinusoidal | Rotary  # an array (most positions, D) if learned


def check_positions(positions: Positions, T: int, name: str) -> None:
    if isinstance(positions, (Sinusoidal, Rotary)):
        return
    most = len(positions)
    ok = is_symbolic_dim(T) or most >= T
    check(ok, name, f"at most {most} tokens, the positions learned", T)


def positioned(positions: Positions, x: Array, at: Array) -> Array:
    """Embeddings (..., T, D) times sqrt(D), plus their positions (..., T)."""
    D = x.shape[-1]
    x = x * jnp.asarray(D**0.5, x.dtype)
    if isinstance(positions, Rotary):
        return x
    if isinstance(positions, Sinusoidal):
        angles = _angles(at, D, x.dtype)
        waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1)
        return x + waves.reshape(*at.shape, D).astype(x.dtype)
    # learned: drawn as small as the embeddings, and made as large
    wide = state_dtype(x.dtype)
    learned = rows(widened(positions), at) * jnp.asarray(D**0.5, wide)
    return (x.astype(wide) + learned).astype(x.dtype)


def _angles(at: Array, width: int, dtype: Any) -> Array:
    """at / 10000^(2i / width), (..., width / 2)."""
    wide = state_dtype(dtype)
    i = jnp.arange(0, width, 2, dtype=jnp.int32).astype(wide)
    return at[..., None].astype(wide) * 10000.0 ** (-i / width)


def rotated(positions: Positions, heads: Array, at: Array) -> Array:
    """Heads (..., T, N, A) turned by their positions (..., T), if these are rotary."""
    if not isinstance(positions, Rotary):
        return heads
    angles = _angles(at, heads.shape[-1], heads.dtype)[..., None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = heads[..., 0::2].astype(cos.dtype), heads[..., 1::2].astype(cos.dtype)
    turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], -1)
    return turned.reshape(heads.shape).astype(heads.dtype)
