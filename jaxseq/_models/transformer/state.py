"""State of the decoder between its steps, and checks of it."""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._base.buffers import apart
from jaxseq._base.check import (
    as_array,
    check,
    check_batch,
    check_sizes,
    check_value,
    extremes,
)
from jaxseq._base.mesh import as_one_batch
from jaxseq._models.check import (
    as_arrays,
    check_kind,
    check_parts,
    check_tree,
    shape_of,
)
from jaxseq._models.memory import Memory
from jaxseq._models.transformer.cache import (
    Cache,
    SlidingCache,
    check_memory,
    memory_caches,
)
from jaxseq._models.transformer.checks import check_params
from jaxseq._models.transformer.params import (
    TransformerParams,
    decoder_of,
)
from jaxseq._models.transformer.positions import check_positions

KINDS = Cache, SlidingCache


class TransformerState(NamedTuple):
    """State of the decoder; every leaf starts with the batch.

    Fields:
        position: that of the next token, `(...)`.
        caches: keys and values of the tokens so far, of each layer.
        cross: those of the encoder's outputs, of each layer; None with no encoder.
        valid: which of these outputs are valid, `(..., S)`; all if None.
    """

    position: Array
    caches: tuple[Cache | SlidingCache, ...]
    cross: tuple[Cache, ...] | None
    valid: Array | None

    @property
    def slides(self) -> bool:
        """Whether the caches keep only the last positions."""
        return isinstance(self.caches[0], SlidingCache)

    @property
    def left(self) -> int | None:
        """How many more tokens the caches have room for; None where it is not known.

        It is that of the longest sequence, and is known only outside `jax.jit`. It is
        None too for caches that slide, which set no limit.
        """
        if self.slides:
            return None
        room = room_of(self)
        values = hasattr(self.position, "max")
        if not values or isinstance(self.position, jax.core.Tracer):
            return None
        if is_symbolic_dim(room):
            return None
        return room - max(extremes(self.position), default=0)


def room_of(state: TransformerState) -> int:
    return state.caches[0].k.shape[-3]


def transformer_zeros(
    params: TransformerParams,
    memory: Memory | None = None,
    *,
    batch: int | tuple[int, ...] = (),
    room: int | None = None,
    window: int | None = None,
) -> TransformerState:
    """Returns the decoder's state before its first token.

    Its caches hold either `room` tokens or the last `window` tokens.

    Args:
        params: weights with a decoder.
        memory: what `transformer_encode` returns; None with no encoder.
        batch: batch dimensions, a tuple or one size; with an encoder those of the
            memory, and may be left out.
        room: number of tokens that the caches can hold. Generating `max_length`
            tokens after a prompt of P takes P - 1 + max_length, as the last token is
            not read. `state.left` tells how many are left.
        window: each token attends to the last `window` tokens, including itself, and
            the caches keep only these, so decoding continues for any number of tokens,
            up to the end of learned positions; with others, in float32, the logits are
            off by about 1e-3 at position 10^5, and ten times that at 10^6. Give the
            `window` of training: another one, or `room`, gives other logits, and no
            error.

    Returns:
        `TransformerState`, with the keys and values of the memory.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Example:
        >>> params = jaxseq.transformer_init(
        ...     jax.random.key(0), features=16, num_heads=2, ff_features=32,
        ...     target_vocab=90, num_decoder_layers=2,
        ... )
        >>> jaxseq.transformer_zeros(params, batch=5, room=40).left
        40
        >>> jaxseq.transformer_zeros(params, batch=5, window=8).caches[0].k.shape
        (5, 8, 2, 8)
    """
    params = check_params(params)
    stack, memory = decoder_of(params), check_memory(params, memory)
    some = room is not None or window is not None
    check(some, "room", "a size of at least 1, or a window", room)
    kind, L = check_room(params, room, window)
    batch = check_batch(batch)
    if memory is not None:
        expected = memory.values.shape[:-2]
        ok = batch in ((), expected)
        check(ok, "batch", f"{expected}, that of the memory", batch)
        batch = expected
    position = jnp.zeros(batch, jnp.int32)
    empty = lambda w: jnp.zeros((*batch, L, *w.shape[1:]), w.dtype)
    # each an array of its own, to be donated
    of_self = (layer.attention for layer in stack.layers)
    caches = tuple(kind(empty(heads.w_k), empty(heads.w_v)) for heads in of_self)
    return state_of(position, caches, memory_caches(params, memory), memory)


def state_of(
    position: Array,
    caches: tuple[Cache | SlidingCache, ...],
    cross: tuple[Cache, ...] | None,
    memory: Memory | None,
) -> TransformerState:
    valid = None if memory is None else apart(memory.valid)
    state = TransformerState(position, caches, cross, valid)
    return as_one_batch(state, position.ndim)


def check_room(
    params: TransformerParams, room: Any, window: Any
) -> tuple[type[Cache] | type[SlidingCache], Any]:
    """Checks `room` or `window`, and returns the kind and size of the caches."""
    if window is None:
        check_sizes(room=room)
        check_positions(params.positions, room, "room")
        return Cache, room
    check_sizes(window=window)
    check_value(room is None, "room", "None with a window", room)
    return SlidingCache, window


def check_state(params: TransformerParams, state: Any) -> TransformerState:
    """Checks that a state fits the weights and, if known, has room for a token."""
    stack = decoder_of(params)
    check_kind(state, "state", TransformerState)
    state = as_arrays(state, "state")
    expects, has = stack.layers[0].cross is not None, state.cross is not None
    text, got = (f"{'a' if x else 'no'} memory" for x in (expects, has))
    check(has == expects, "state", text, got)
    position = as_array(state.position, "state.position")
    batch = position.shape
    cross: Any = None
    valid: Any = None
    of_self = [layer.attention for layer in stack.layers]
    caches = _caches_like(state.caches, "state.caches", of_self, batch, *KINDS)
    if has:
        of_memory = [layer.cross for layer in stack.layers]
        cross = _caches_like(state.cross, "state.cross", of_memory, batch, Cache)
        S = cross[0].k.shape[-3]
        if state.valid is not None:
            valid = jax.ShapeDtypeStruct((*batch, S), jnp.bool_)
    where: Any = jax.ShapeDtypeStruct(batch, jnp.int32)
    check_tree(state, TransformerState(where, caches, cross, valid), "state")
    room = room_of(state)
    for t in extremes(position):
        ok = state.slides or t < room
        check(ok, "state", f"a position below room = {room}", t)
        check_positions(params.positions, t + 1, "state")
    return state


def _caches_like(
    caches: Any,
    name: str,
    heads: list[Any],
    batch: tuple[int, ...],
    *kinds: type,
) -> tuple[Any, ...]:
    """What caches of any length have to be for the heads of each layer."""
    check_parts(caches, name, "caches", len(heads))
    kind: Any = type(caches[0])
    expected = " or ".join(k.__name__ for k in kinds)
    check(kind in kinds, f"{name}[0]", expected, kind.__name__)
    L = shape_of(caches[0].k, f"{name}[0].k", len(batch) + 3)[-3]
    one: Any = lambda w: jax.ShapeDtypeStruct((*batch, L, *w.shape[1:]), w.dtype)
    return tuple(kind(one(own.w_k), one(own.w_v)) for own in heads)
