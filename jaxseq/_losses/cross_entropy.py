"""Losses of token sequences: logits `(..., T, V)`, labels `(..., T)`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import as_array, check, check_dtype, check_lengths, check_tokens
from jaxseq._base.dtypes import state_dtype


def cross_entropy(
    logits: Array,
    labels: Array,
    *,
    lengths: Array | None = None,
    label_smoothing: float = 0.0,
) -> Array:
    """Cross-entropy of each label in nats.

    The mean is `losses.sum() / lengths.sum().astype(losses.dtype)`.

    Args:
        logits: `(..., T, V)`.
        labels: tokens from 0 to V - 1, `(..., T)`; another, where only a run under
            `jit` knows it, has the loss NaN.
        lengths: valid steps of each sequence, `(...)`; all T if None. Past them the
            loss is zero, and logits and labels may be anything.
        label_smoothing: probability in [0, 1) that the target spreads evenly over
            all V tokens.

    Returns:
        Losses, `(..., T)`; float32 for the 16-bit dtypes.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    For label smoothing see Szegedy and others, "Rethinking the Inception
    Architecture for Computer Vision", 2016, https://arxiv.org/abs/1512.00567,
    section 7.
    """
    logits = as_array(logits, "logits")
    check_dtype(logits.dtype, "logits")
    check(logits.ndim >= 2, "logits", "shape (..., T, V)", logits.shape)
    *batch, T, V = logits.shape
    smoothing, ok = label_smoothing, 0 <= label_smoothing < 1
    check(ok, "label_smoothing", "a probability in [0, 1)", smoothing)
    shape = jnp.shape(labels)
    check(shape == (*batch, T), "labels", f"shape {(*batch, T)}", shape)
    logits, inside = logits.astype(state_dtype(logits.dtype)), None
    if lengths is not None:
        ends = check_lengths(lengths, tuple(batch), T)[..., None]
        inside = jnp.arange(T, dtype=jnp.int32) < ends
        logits = jnp.where(inside[..., None], logits, 0)
    labels = check_tokens(labels, "labels", V, inside)
    labels = jnp.where(labels < 0, V, labels)  # both are beyond: NaN
    picked = jnp.take_along_axis(logits, labels[..., None], -1, mode="fill")[..., 0]
    target = (1 - smoothing) * picked
    if smoothing > 0:
        target = target + smoothing * logits.mean(-1)
    losses = jax.nn.logsumexp(logits, -1) - target
    return losses if inside is None else jnp.where(inside, losses, 0)


def perplexity(logits: Array, labels: Array, *, lengths: Any = None) -> Array:
    """The exponential of the mean cross-entropy of all valid labels.

    Args:
        logits: `(..., T, V)`.
        labels: tokens from 0 to V - 1, `(..., T)`.
        lengths: valid steps of each sequence, `(...)`; all T if None.

    Returns:
        A scalar: V for a uniform guess, 1 at best, NaN where there is no label.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    losses = cross_entropy(logits, labels, lengths=lengths)
    n: Any = losses.size
    if lengths is not None:
        *batch, T = losses.shape
        n = check_lengths(lengths, tuple(batch), T).sum()
    return jnp.exp(losses.sum() / jnp.asarray(n, losses.dtype))
