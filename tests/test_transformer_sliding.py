"""A Transformer whose tokens attend to the last ones, and the cache of these."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from tests.cells import assert_close
from tests.models import assert_gradients
from tests.test_transformer import (
    BOTH,
    TARGET,
    TWO,
    by_hand,
    decode,
    decode_step,
    encode,
    make,
)

W, T, B = 3, 9, 4
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, TARGET, (B, T))
SOURCES = RNG.integers(0, TARGET, (B, 4))
ONE = {"target_vocab": TARGET, "num_decoder_layers": 1}
ALONE = {**ONE, "num_decoder_layers": 2}


def steps(params, state, tokens):
    found = []
    for t in range(tokens.shape[1]):
        state, logits = decode_step(params, state, tokens[:, t])
        found.append(logits)
    return state, np.stack(found, 1)


@pytest.mark.parametrize(
    ("positions", "pre_norm", "options"),
    [
        ("sinusoidal", True, ALONE),
        ("learned", False, {**ALONE, "max_positions": T}),
        ("rotary", True, TWO),
    ],
)
def test_steps_and_the_whole_are_the_equations(positions, pre_norm, options):
    params = make(**options, positions=positions, pre_norm=pre_norm)
    memory = None if params.encoder is None else encode(params, SOURCES)
    end, logits, _ = decode(params, memory, TOKENS, window=W)
    for b in range(B):
        assert_close(logits[b], by_hand(params, SOURCES[b], TOKENS[b], window=W)[1])
    zeros = partial(jaxseq.transformer_zeros, params, memory)
    state, found = steps(params, zeros(batch=B, window=W), TOKENS)
    assert_close(found, logits)
    assert_close(state, end)
    assert type(state.caches[0]) is jaxseq.SlidingCache and state.left is None
    assert state.caches[0].k.shape[1] == W  # after any number of steps


@pytest.mark.parametrize("window", [1, 3, T + 4])
def test_rows_go_on_from_prompts_of_different_lengths(window):
    params = make(**ONE, positions="rotary")
    want = [by_hand(params, None, row, window=window)[1] for row in TOKENS]
    lengths = np.array([7, 4, 2, 0])
    behind = np.arange(T - 2) >= lengths[:, None]
    prompts = np.where(behind, TARGET + 9, TOKENS[:, :-2])
    how = {"lengths": lengths, "window": window}
    state, logits, _ = decode(params, None, prompts, **how)
    np.testing.assert_array_equal(state.position, lengths)
    assert not logits[behind].any()
    at = lengths[:, None] + np.arange(2)
    _, found = steps(params, state, np.take_along_axis(TOKENS, at, 1))
    for b, n in enumerate(lengths):
        assert_close(logits[b, :n], want[b][:n])
        assert_close(found[b], want[b][n : n + 2])


def test_searches_are_those_by_full_passes():
    """Each step of the other search reads all tokens so far."""
    params = make(**ONE, positions="sinusoidal", seed=1)
    prompts, lengths = TOKENS[:, :5], np.array([5, 1, 4, 2])

    def whole(state, token):
        tokens, n = state
        tokens = jnp.where(
            jnp.arange(12, dtype=jnp.int32) == n[:, None], token[:, None], tokens
        )
        _, logits, _ = jaxseq.transformer_decode(params, None, tokens, window=W)
        logits = jnp.take_along_axis(logits, n[:, None, None], 1)[:, 0]
        return (tokens, n + 1), logits

    @partial(jax.jit, static_argnums=0)
    def run(step, state):
        state, token = jaxseq.prefill(step, state, prompts, lengths=lengths)
        how = {"max_length": 7, "end": 0}
        beams = jaxseq.beam_search(step, state, token, **how, beam=3, n_best=3)
        return jaxseq.greedy(step, state, token, **how), beams

    step = partial(jaxseq.transformer_decode_step, params)
    found = run(step, jaxseq.transformer_zeros(params, batch=B, window=W))
    every = jnp.zeros((B, 12), jnp.int32), jnp.zeros(B, jnp.int32)
    assert_close(found, run(whole, every))
    assert found[0].lengths.max() == 7 and len({*map(bytes, found[0].tokens)}) > 1


def test_learned_positions_end():
    params = make(**ONE, positions="learned", max_positions=5)
    state = jaxseq.transformer_zeros(params, batch=B, window=W)
    state, _ = steps(params, state, TOKENS[:, :4])
    step = partial(jaxseq.transformer_decode_step, params)
    last, _ = step(state, TOKENS[:, 4])
    with pytest.raises(ValueError, match="state: expected at most 5 tokens, the posi"):
        step(last, TOKENS[:, 5])
    mixed = state._replace(position=jnp.array([4, 5, 4, 7], jnp.int32))
    _, logits = decode_step(params, mixed, TOKENS[:, 4])
    np.testing.assert_array_equal(np.isnan(logits).all(-1), [False, True, False, True])
    assert np.isnan(logits).any(-1).sum() == 2
    how = {"max_length": 3, "end": None}
    found = jaxseq.greedy(step, state, TOKENS[:, 4], **how)
    assert np.isnan(found.scores).all() and (found.lengths == 1).all()


def test_vmap_and_export():
    """A caller of what was exported cannot take one cache for the other."""
    params = make(**ONE, positions="rotary")
    lengths = np.array([7, 4, 2, 0])
    state, _, _ = decode(params, None, TOKENS[:, :7], lengths=lengths, window=W)
    token = TOKENS[:, 7]
    want = decode_step(params, state, token)
    found = jax.jit(jax.vmap(decode_step, (None, 0, 0)))(params, state, token)
    assert_close(found, want)
    w, b = jax.export.symbolic_shape("w, b")
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((b, *a.shape[1:]), a.dtype), state
    )
    one = lambda a: jax.ShapeDtypeStruct((b, w, *a.shape[2:]), a.dtype)
    like = like._replace(caches=jax.tree.map(one, state.caches))
    step = jax.jit(partial(jaxseq.transformer_decode_step, params))
    token_like = jax.ShapeDtypeStruct((b,), token.dtype)
    again = jax.export.export(step)(like, token_like).serialize()
    again = jax.export.deserialize(again)
    assert_close(again.call(state, token), want)
    fixed = state._replace(caches=tuple(jaxseq.Cache(*c) for c in state.caches))
    with pytest.raises(ValueError, match="SlidingCache"):
        again.call(fixed, token)


def test_gradients():
    """Those of the caches too, through what a step reads there."""
    params = make(**BOTH, positions="rotary")
    lengths, how = np.array([7, 4, 2, 0]), {"activation": jnp.tanh}  # no kinks

    def loss(params):
        memory = jaxseq.transformer_encode(params, SOURCES, **how)
        state, logits, _ = jaxseq.transformer_decode(
            params, memory, TOKENS[:, :7], lengths=lengths, window=W, **how
        )
        _, last = jaxseq.transformer_decode_step(params, state, TOKENS[:, 7], **how)
        losses = jaxseq.cross_entropy(logits, TOKENS[:, 1:8], lengths=lengths)
        return losses.sum() + jaxseq.cross_entropy(last, TOKENS[:, 8]).sum()

    assert_gradients(loss, (params,), rtol=1e-5, eps=1e-5)


def test_kinds_of_caches_are_not_mixed():
    params = make(**ALONE)
    state = jaxseq.transformer_zeros(params, batch=B, window=W)
    first, second = state.caches
    step = partial(jaxseq.transformer_decode_step, params, token=TOKENS[:, 0])
    mixed = first, jaxseq.Cache(*second)
    with pytest.raises(ValueError, match=r"state\.caches\[1\]: expected SlidingCache"):
        step(state=state._replace(caches=mixed))
    none = (first.k, second)
    with pytest.raises(
        ValueError, match=r"caches\[0\]: expected Cache or SlidingCache"
    ):
        step(state=state._replace(caches=none))
