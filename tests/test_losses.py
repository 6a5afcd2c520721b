"""Losses against their definitions in NumPy and against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from tests.cells import assert_close

BATCH, T, V = (2, 3), 5, 7
LENGTHS = np.array([[5, 0, 1], [3, 4, 2]])
RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.standard_normal((*BATCH, T, V))
LABELS = RNG.integers(0, V, (*BATCH, T))
cross_entropy = jax.jit(jaxseq.cross_entropy, static_argnames="label_smoothing")


def by_definition(smoothing, lengths):
    losses = np.zeros((*BATCH, T))
    for i in np.ndindex(BATCH):
        for t in range(lengths[i]):
            p = np.exp(LOGITS[i][t]) / np.exp(LOGITS[i][t]).sum()
            target = np.full(V, smoothing / V)
            target[LABELS[i][t]] += 1 - smoothing
            losses[i][t] = -(target * np.log(p)).sum()
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy(smoothing):
    whole = cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    assert_close(whole, by_definition(smoothing, np.full(BATCH, T)))
    cut = cross_entropy(LOGITS, LABELS, lengths=LENGTHS, label_smoothing=smoothing)
    assert_close(cut, by_definition(smoothing, LENGTHS))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_equals_pytorch(smoothing):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS).reshape(-1, V),
        torch.tensor(LABELS).reshape(-1),
        reduction="none",
        label_smoothing=smoothing,
    )
    found = cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    assert_close(found.reshape(-1), theirs.numpy())


def test_padding_may_be_anything():
    inside = np.arange(T) < LENGTHS[..., None]
    logits = np.where(inside[..., None], LOGITS, np.nan)
    labels = np.where(inside, LABELS, V + 100)
    loss = lambda logits: jaxseq.cross_entropy(
        logits, labels, lengths=LENGTHS, label_smoothing=0.2
    )
    assert_close(loss(logits), by_definition(0.2, LENGTHS))
    grads = jax.jit(jax.grad(lambda logits: loss(logits).sum()))(logits)
    assert np.isfinite(grads).all() and not grads[~inside].any()


def test_gradient_is_the_difference_of_distributions():
    grads = jax.grad(lambda x: jaxseq.cross_entropy(x, LABELS).sum())(LOGITS)
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    assert_close(grads, p - np.eye(V)[LABELS])


def test_perplexity():
    losses = by_definition(0.0, LENGTHS)
    run = jax.jit(jaxseq.perplexity)
    want = np.exp(losses.sum() / LENGTHS.sum())
    assert_close(run(LOGITS, LABELS, lengths=LENGTHS), want)
    whole = np.exp(by_definition(0.0, np.full(BATCH, T)).mean())
    assert_close(run(LOGITS, LABELS), whole)
    assert float(run(np.zeros((4, V)), np.arange(4))) == pytest.approx(V)
    assert np.isnan(run(LOGITS, LABELS, lengths=0 * LENGTHS))


def test_sixteen_bits_are_summed_in_float32():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    found = jaxseq.cross_entropy(logits, LABELS)
    assert found.dtype == jnp.float32
    want = jaxseq.cross_entropy(logits.astype(jnp.float32), LABELS)
    np.testing.assert_array_equal(found, want)
    assert jaxseq.perplexity(logits, LABELS, lengths=LENGTHS).dtype == jnp.float32


def test_the_mean_that_is_documented():
    losses = jaxseq.cross_entropy(LOGITS, LABELS, lengths=LENGTHS)
    for lengths in (LENGTHS, jnp.asarray(LENGTHS)):
        mean = losses.sum() / lengths.sum().astype(losses.dtype)
        assert_close(mean, by_definition(0.0, LENGTHS).sum() / LENGTHS.sum())


@pytest.mark.parametrize("wrong", [-1, -V, V])
def test_labels_that_only_a_run_knows_are_nan(wrong):
    labels = LABELS.copy()
    labels[0, 0, 2] = wrong
    found = np.array(jax.jit(jaxseq.cross_entropy)(LOGITS, labels))
    assert np.isnan(found[0, 0, 2])
    found[0, 0, 2] = by_definition(0.0, np.full(BATCH, T))[0, 0, 2]
    assert_close(found, by_definition(0.0, np.full(BATCH, T)))


def test_labels_are_checked_before_they_wrap():
    """Without x64 an int64 array becomes int32, in which these are good."""
    with jax.enable_x64(False):
        wrong, logits = LABELS + 2**32, LOGITS.astype("f4")
        for how in ({}, {"lengths": LENGTHS}):
            with pytest.raises(ValueError, match="labels: expected tokens from 0 to 6"):
                jaxseq.cross_entropy(logits, wrong, **how)


def test_bad_arguments():
    loss = jaxseq.cross_entropy
    cases = [
        (lambda: loss(LOGITS, LABELS[0]), r"labels: expected shape \(2, 3, 5\)"),
        (lambda: loss(LOGITS, LABELS + V), "labels: expected tokens from 0 to 6"),
        (lambda: loss(LOGITS, LABELS - 1), "labels: expected tokens from 0 to 6"),
        (lambda: loss(LOGITS, LABELS * 1.0), "labels: expected an integer dtype"),
        (lambda: loss(LABELS, LABELS), "logits: expected a dtype among"),
        (lambda: loss(LOGITS[0, 0, 0], 1), r"logits: expected shape \(..., T, V\)"),
        (lambda: loss(LOGITS, LABELS, lengths=LENGTHS + 1), "lengths: expected values"),
        (lambda: loss(LOGITS, LABELS, label_smoothing=1), "label_smoothing: expected"),
        (lambda: jaxseq.perplexity(LOGITS, LABELS, lengths=[1]), "lengths: expected"),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=message):
            run()
