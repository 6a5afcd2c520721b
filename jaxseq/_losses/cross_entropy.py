"""Losses of token sequences: logits `(..., T, V)`, labels `(..., T)`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._base.check import (
    as_array,
    check,
    check_dtype,
    check_number,
    check_tokens,
    check_value,
    is_whole,
    of_values,
)
from jaxseq._base.dtypes import state_dtype
from jaxseq._base.masks import valid_steps
from jaxseq._base.mesh import as_one_batch


def cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    ignore: int | None = None,
    label_smoothing: ArrayLike = 0.0,
) -> Array:
    """Cross-entropy of each label in nats.

    With lengths the mean is `losses.sum() / lengths.sum().astype(losses.dtype)`.

    Args:
        logits: `(..., T, V)`.
        labels: tokens from 0 to V - 1, `(..., T)`; another, where only a run under
            `jit` knows it, has the loss NaN.
        lengths: valid steps of each sequence, `(...)`; all T if None.
        mask: booleans `(..., T)`, which of these are valid; all if None. At other
            steps the loss is zero, and logits and labels may be anything.
        ignore: a label that makes its step not valid, such as -100; None if none does.
        label_smoothing: probability in [0, 1) that the target spreads evenly over
            all V tokens. It may be traced.

    Returns:
        Losses, `(..., T)`; float32 for the 16-bit dtypes.

    Raises:
        ValueError: if `logits` are not floats `(..., T, V)`, `labels` not tokens
            `(..., T)`, `lengths` not integers from 0 to T, `mask` not booleans
            `(..., T)`, `ignore` neither None nor an integer, or `label_smoothing` not
            in [0, 1).

    Example:
        >>> logits = jnp.zeros((2, 4, 10))
        >>> labels = jnp.array([[3, 1, 4, 1], [5, 9, -100, -100]])
        >>> losses = jaxseq.cross_entropy(logits, labels, ignore=-100)
        >>> mean = losses.sum() / (labels != -100).astype(losses.dtype).sum()
        >>> bool(jnp.isclose(mean, jnp.log(10.0)))
        True

    For label smoothing see Szegedy and others, "Rethinking the Inception
    Architecture for Computer Vision", 2016, https://arxiv.org/abs/1512.00567,
    section 7.
    """
    return _losses(logits, labels, lengths, mask, ignore, label_smoothing)[0]


def perplexity(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    ignore: int | None = None,
) -> Array:
    """The exponential of the mean cross-entropy of all valid labels.

    Args:
        logits: `(..., T, V)`.
        labels: tokens from 0 to V - 1, `(..., T)`; with another, where only a run
            under `jit` knows it, the perplexity is NaN.
        lengths: valid steps of each sequence, `(...)`; all T if None.
        mask: booleans `(..., T)`, which of these are valid; all if None.
        ignore: a label that makes its step not valid, such as -100; None if none does.

    Returns:
        A scalar: V for a uniform guess, 1 at best, NaN where there is no label.

    Raises:
        ValueError: if an argument is not as in `cross_entropy`.

    Example:
        >>> logits, labels = jnp.zeros((2, 4, 10)), jnp.ones((2, 4), int)
        >>> lengths = jnp.array([4, 2])
        >>> round(float(jaxseq.perplexity(logits, labels, lengths=lengths)), 4)
        10.0
    """
    losses, valid = _losses(logits, labels, lengths, mask, ignore, 0.0)
    n: Any = losses.size if valid is None else valid.sum()
    return jnp.exp(losses.sum() / jnp.asarray(n, losses.dtype))


def _losses(
    logits: Any, labels: Any, lengths: Any, mask: Any, ignore: Any, smoothing: Any
) -> tuple[Array, Array | None]:
    """The losses, and which of them are valid if not all."""
    logits = as_array(logits, "logits")
    check_dtype(logits.dtype, "logits")
    check(logits.ndim >= 2, "logits", "shape (..., T, V)", logits.shape)
    *batch, T, V = logits.shape
    expected, inside = "a probability in [0, 1)", lambda p: (p >= 0) & (p < 1)
    check_number(smoothing, "label_smoothing", expected, inside)
    valid = valid_steps(lengths, mask, tuple(batch), T)
    if ignore is not None:
        check_value(is_whole(ignore), "ignore", "None or an integer", ignore)
        kept = _differ(labels, ignore)
        check(kept.shape == (*batch, T), "labels", f"shape {(*batch, T)}", kept.shape)
        valid = kept if valid is None else kept & valid
    labels = check_tokens(labels, "labels", V, valid)
    check(labels.shape == (*batch, T), "labels", f"shape {(*batch, T)}", labels.shape)
    logits = logits.astype(state_dtype(logits.dtype))
    logits, labels, valid = as_one_batch((logits, labels, valid), len(batch))
    if valid is not None:
        logits = jnp.where(valid[..., None], logits, 0)
    labels = jnp.where(labels < 0, V, labels)  # both are beyond: NaN
    picked = jnp.take_along_axis(logits, labels[..., None], -1, mode="fill")[..., 0]
    losses = jax.nn.logsumexp(logits, -1) - _target(logits, picked, smoothing)
    return losses if valid is None else jnp.where(valid, losses, 0), valid


def _differ(labels: Any, ignore: Any) -> Array:
    """Where labels are others than this one."""
    array = of_values(labels, "labels")
    ok = jnp.issubdtype(array.dtype, jnp.integer)
    check(ok, "labels", "an integer dtype", array.dtype)
    # those that came, which may be wider than the array
    labels = labels if hasattr(labels, "dtype") else array
    known = jnp.iinfo(labels.dtype)
    if not known.min <= ignore <= known.max:
        return jnp.ones(array.shape, jnp.bool_)
    return jnp.asarray(labels != labels.dtype.type(ignore))


def _target(logits: Array, picked: Array, smoothing: Any) -> Array:
    """The mean of the logits by the distribution that is aimed at."""
    if isinstance(smoothing, (int, float)) and smoothing == 0:
        return picked
    s, mean = jnp.asarray(smoothing, logits.dtype), logits.mean(-1)
    # an infinite logit, which is no target, is not multiplied by a zero
    mean = jnp.where((s > 0) | jnp.isfinite(mean), mean, 0)
    return (1 - s) * picked + s * mean
