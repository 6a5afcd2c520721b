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
MASK = RNG.random((*BATCH, T)) < 0.6
IGNORED = -100
cross_entropy = jax.jit(
    jaxseq.cross_entropy, static_argnames=("label_smoothing", "ignore")
)
perplexity = jax.jit(jaxseq.perplexity, static_argnames="ignore")


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


def test_mask():
    """With lengths, with what is ignored, and with anything where they are False."""
    inside = MASK & (np.arange(T) < LENGTHS[..., None])
    kept = inside & (LABELS != 2)
    labels = np.where(inside, LABELS, V + 100)
    logits = np.where(inside[..., None], LOGITS, np.nan)
    how = {"lengths": LENGTHS, "mask": MASK, "ignore": 2}
    expected = np.where(kept, by_definition(0.1, np.full(BATCH, T)), 0)
    smooth = {**how, "label_smoothing": 0.1}
    assert_close(cross_entropy(logits, labels, **smooth), expected)
    assert_close(jaxseq.cross_entropy(logits, labels, **smooth), expected)
    grads = jax.jit(jax.grad(lambda x: jaxseq.cross_entropy(x, labels, **how).sum()))
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    p = np.where(kept[..., None], p - np.eye(V)[LABELS], 0)
    assert_close(grads(logits), p)
    mean = by_definition(0.0, np.full(BATCH, T))[kept].mean()
    assert_close(perplexity(logits, labels, **how), np.exp(mean))
    alone = np.where(MASK, by_definition(0.0, np.full(BATCH, T)), 0)
    assert_close(cross_entropy(LOGITS, LABELS, mask=MASK), alone)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [IGNORED, 2])
def test_ignored_labels_as_in_pytorch(ignored, smoothing):
    torch = pytest.importorskip("torch")
    labels = np.where(MASK, LABELS, ignored)
    logits = torch.tensor(LOGITS, requires_grad=True)
    theirs = lambda reduction: torch.nn.functional.cross_entropy(
        logits.reshape(-1, V),
        torch.tensor(labels).reshape(-1),
        reduction=reduction,
        ignore_index=ignored,
        label_smoothing=smoothing,
    )
    how = {"ignore": ignored, "label_smoothing": smoothing}
    found = cross_entropy(LOGITS, labels, **how)
    assert_close(found.reshape(-1), theirs("none").detach().numpy())
    theirs("sum").backward()
    loss = lambda logits: cross_entropy(logits, labels, **how).sum()
    assert_close(jax.grad(loss)(LOGITS), logits.grad.numpy())
    if smoothing == 0:
        mean = theirs("mean").detach().numpy()
        assert_close(perplexity(LOGITS, labels, ignore=ignored), np.exp(mean))


def test_what_is_ignored_among_known_labels():
    """The other labels are checked; no label is one that its dtype cannot hold."""
    labels = np.where(MASK, LABELS, IGNORED)
    expected = np.where(MASK, by_definition(0.0, np.full(BATCH, T)), 0)
    for given in (labels, jnp.asarray(labels)):
        found = jaxseq.cross_entropy(LOGITS, given, ignore=np.int32(IGNORED))
        assert_close(found, expected)
        for other in (None, -1):
            with pytest.raises(ValueError, match="labels: expected tokens from 0 to 6"):
                jaxseq.cross_entropy(LOGITS, given, ignore=other)
    found = jaxseq.cross_entropy(LOGITS, LABELS.astype(np.uint8), ignore=IGNORED)
    assert_close(found, by_definition(0.0, np.full(BATCH, T)))
    with jax.enable_x64(False):
        wrong = labels + 2**32  # in 32 bits it is what is ignored
        with pytest.raises(ValueError, match="labels: expected tokens from 0 to 6"):
            jaxseq.cross_entropy(LOGITS.astype("f4"), wrong, ignore=IGNORED)


def test_smoothing_that_only_a_run_knows():
    run = jax.jit(
        lambda logits, s: jaxseq.cross_entropy(logits, LABELS, label_smoothing=s)
    )
    for smoothing in (0.1, np.float32(0.5)):
        expected = by_definition(float(smoothing), np.full(BATCH, T))
        assert_close(run(LOGITS, smoothing), expected)
    np.testing.assert_array_equal(run(LOGITS, 0.0), cross_entropy(LOGITS, LABELS))
    never = np.where(np.eye(V, dtype=bool)[(LABELS + 1) % V], -np.inf, LOGITS)
    np.testing.assert_array_equal(run(never, 0.0), cross_entropy(never, LABELS))
    grads = jax.jit(jax.grad(lambda *a: run(*a).sum(), (0, 1)))(LOGITS, 0.0)
    assert_close(grads[0], jax.grad(lambda x: run(x, 0.0).sum())(LOGITS))
    picked = np.take_along_axis(LOGITS, LABELS[..., None], -1)[..., 0]
    assert_close(grads[1], (picked - LOGITS.mean(-1)).sum(), atol=1e-10)


def test_gradient_is_the_difference_of_distributions():
    grads = jax.grad(lambda x: jaxseq.cross_entropy(x, LABELS).sum())(LOGITS)
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    assert_close(grads, p - np.eye(V)[LABELS])


def test_perplexity():
    losses = by_definition(0.0, LENGTHS)
    run = perplexity
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
        (lambda: loss(LOGITS.tolist(), LABELS), "logits: expected an array, got list"),
    ]
    how = [
        *(("lengths", bad) for bad in ([None, 1], "abc", iter([1]), LENGTHS * 1.0)),
        *(("mask", bad) for bad in ("abc", iter([1]), MASK[0], MASK.astype(int))),
        *(("ignore", bad) for bad in (True, 1.0, "1", [1], np.array([1]))),
    ]
    for name, bad in how:
        for f in (jaxseq.cross_entropy, jaxseq.perplexity):
            run = lambda f=f, name=name, bad=bad: f(LOGITS, LABELS, **{name: bad})
            cases.append((run, f"{name}: expected"))
    for bad in (None, "a", True, [0.1], iter([0.1]), np.nan, -0.1, 1j, np.full(2, 0.1)):
        smooth = lambda bad=bad: loss(LOGITS, LABELS, label_smoothing=bad)
        cases.append((smooth, r"label_smoothing: expected a probability in \[0, 1\)"))
    for bad in (None, "a", iter([1])):
        for ignore in (None, -100):
            run = lambda bad=bad, ignore=ignore: loss(LOGITS, bad, ignore=ignore)
            cases.append((run, "labels: expected an array"))
    for run, message in cases:
        with pytest.raises(ValueError, match=message):
            run()
