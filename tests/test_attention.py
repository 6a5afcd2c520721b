"""Attention against the equations in NumPy, against PyTorch, and on hard masks."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from tests import reference
from tests.cells import assert_close, to_jax
from tests.models import assert_gradients, assert_second_derivatives

BATCH, T, S, Q, K, V, A = (2, 3), 4, 7, 5, 6, 3, 8


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def additive_params():
    return jaxseq.AdditiveParams(draw(Q, A), draw(K, A), draw(A))


def heads_params(N=2, bias=True):
    maps = draw(Q, N, A), draw(K, N, A), draw(V, N, A), draw(N, A, 9)
    biases = draw(N, A, seed=1), draw(N, A, seed=2), draw(N, A, seed=3), draw(9)
    return jaxseq.MultiHeadParams(*maps, *(biases if bias else ()))


# Compiled once for all tests of the same shapes. What is eager names jaxseq.
OPTIONS = ("causal", "scale", "implementation")
additive_attention = jax.jit(jaxseq.additive_attention)
general_attention = jax.jit(jaxseq.general_attention)
dot_attention = jax.jit(jaxseq.dot_attention, static_argnames=OPTIONS)
multi_head_attention = jax.jit(
    jaxseq.multi_head_attention, static_argnames=("causal", "implementation")
)
KINDS = {
    "additive": (partial(additive_attention, additive_params()), Q),
    "general": (partial(general_attention, draw(Q, K)), Q),
    "dot": (partial(dot_attention, scale=1.0), K),
    "scaled dot": (dot_attention, K),
    "multi-head": (partial(multi_head_attention, heads_params()), Q),
}
EAGER = {
    "additive": partial(jaxseq.additive_attention, additive_params()),
    "general": partial(jaxseq.general_attention, draw(Q, K)),
    "dot": partial(jaxseq.dot_attention, scale=1.0),
    "scaled dot": jaxseq.dot_attention,
    "multi-head": partial(jaxseq.multi_head_attention, heads_params()),
}
SCORES = {
    "additive": lambda q, k: reference.additive_score(*additive_params(), q, k),
    "general": lambda q, k: q @ draw(Q, K) @ k,
    "dot": lambda q, k: q @ k,
    "scaled dot": lambda q, k: q @ k / np.sqrt(K),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
LENGTHS = np.array([[7, 0, 3], [1, 7, 2]])


def problem(kind):
    return draw(*BATCH, T, KINDS[kind][1]), draw(*BATCH, S, K), draw(*BATCH, S, V)


def expected(kind, query, keys, values, valid):
    """By the equations, one sequence at a time."""
    if kind == "multi-head":
        one = partial(reference.multi_head_attention, heads_params())
    else:
        one = partial(reference.attention, SCORES[kind])
    arrays = query, keys, values, valid
    found = [one(*(a[i] for a in arrays)) for i in np.ndindex(BATCH)]
    parts = zip(*found, strict=True)
    return tuple(np.stack(p).reshape(*BATCH, *p[0].shape) for p in parts)


def masks(given):
    """The arguments, and the valid keys (..., T, S) that they mean."""
    valid = np.ones((*BATCH, T, S), bool)
    arguments = {}
    if "lengths" in given:
        arguments["lengths"] = LENGTHS
        valid &= (np.arange(S) < LENGTHS[..., None])[..., None, :]
    if "mask" in given:
        mask = draw(*BATCH, T, S, seed=5) > -0.5
        mask[0, 0, 1] = False
        arguments["mask"] = mask
        valid &= mask
    if "causal" in given:
        arguments["causal"] = True
        valid &= np.arange(S) <= np.arange(T)[:, None]
    return arguments, valid


@every_kind
@pytest.mark.parametrize("given", ["", "lengths", "mask", "lengths mask", "causal"])
def test_equations(kind, given):
    if "causal" in given and kind in ("additive", "general"):
        pytest.skip("has no such argument")
    arguments, valid = masks(given)
    found = KINDS[kind][0](*problem(kind), **arguments)
    assert_close(found, expected(kind, *problem(kind), valid))


@every_kind
def test_gradients_by_finite_differences(kind):
    arguments, _ = masks("lengths mask")
    run = KINDS[kind][0]
    weights = [draw(*a.shape) for a in run(*problem(kind), **arguments)]

    def loss(*args):
        found = run(*args, **arguments)
        return sum(map(jnp.vdot, weights, found))

    assert_second_derivatives(loss, problem(kind))


@pytest.mark.parametrize("kind", ["additive", "multi-head"])
def test_gradients_of_weights_by_finite_differences(kind):
    run, _ = KINDS[kind]
    arguments, _ = masks("lengths")

    def loss(params):
        context, weights = run.func(params, *problem(kind), **arguments)
        return jnp.sin(context).sum() + jnp.cos(weights).sum()

    assert_gradients(loss, run.args, rtol=1e-5)


@every_kind
def test_padding_reaches_nothing(kind):
    run, _ = KINDS[kind]
    query, keys, values = problem(kind)
    inside = (np.arange(S) < LENGTHS[..., None])[..., None]

    def loss(query, keys, values):
        context, weights = run(query, keys, values, lengths=LENGTHS)
        return jnp.sin(context).sum() + (weights**2).sum(), (context, weights)

    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    want = both(query, keys, values)
    bad = [np.where(inside, a, np.nan) for a in (keys, values)]
    got = both(query, *bad)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    (_, (context, weights)), (d_query, d_keys, d_values) = got
    for d in (d_keys, d_values):
        assert not np.any(np.where(inside, 0, d))
    empty = LENGTHS == 0
    assert not weights[empty].any() and not d_query[empty].any()
    nothing = heads_params().b_o if kind == "multi-head" else 0
    np.testing.assert_array_equal(context[empty], np.full_like(context[empty], nothing))


def test_padding_of_attention_to_itself_reaches_nothing():
    """Without keys of its own the query is what `lengths` cuts."""
    params = jaxseq.multi_head_init(jax.random.key(0), K, 2, 4, dtype=jnp.float64)
    inside = (np.arange(S) < LENGTHS[..., None])[..., None]
    x = draw(*BATCH, S, K)

    def loss(x):
        context, weights = multi_head_attention(params, x, lengths=LENGTHS)
        return jnp.sin(context).sum() + (weights**2).sum(), (context, weights)

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    found = [both(np.where(inside, x, padding)) for padding in (np.nan, 7.0)]
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert not np.any(np.where(inside, 0, found[0][1]))


def test_keys_are_the_values_by_default():
    query, keys, _ = problem("dot")
    run = jaxseq.dot_attention
    assert_close(run(query, keys), run(query, keys, keys))
    params = jaxseq.multi_head_init(jax.random.key(0), K, 2, 4, dtype=jnp.float64)
    run = partial(jaxseq.multi_head_attention, params)
    assert_close(run(keys), run(keys, keys, keys))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_multi_head_equals_pytorch(bias, causal):
    """Their mask is True where a key is hidden, their weights a mean of heads."""
    torch = pytest.importorskip("torch")
    D, N = 8, 2
    params = jaxseq.multi_head_init(jax.random.key(0), D, N, D // N, bias=bias)
    params = jax.tree.map(lambda a: draw(*a.shape), params)
    module = torch.nn.MultiheadAttention(
        D, N, bias=bias, batch_first=True, dtype=torch.float64
    )
    tensor = lambda a, *shape: torch.tensor(np.asarray(a).reshape(*shape))
    with torch.no_grad():
        maps = [tensor(w, D, D).T for w in params[:3]]
        module.in_proj_weight[:] = torch.cat(maps)
        module.out_proj.weight[:] = tensor(params.w_o, D, D).T
        if bias:
            module.in_proj_bias[:] = torch.cat([tensor(b, D) for b in params[4:7]])
            module.out_proj.bias[:] = tensor(params.b_o, D)
    query, keys = draw(3, T, D), draw(3, T if causal else S, D)
    lengths = np.array([1, keys.shape[1], 3])
    hidden = torch.tensor(np.arange(keys.shape[1]) >= lengths[:, None])
    later = torch.tensor(np.triu(np.ones((T, T), bool), 1)) if causal else None
    want = module(
        *(torch.tensor(a) for a in (query, keys, keys)),
        key_padding_mask=hidden,
        attn_mask=later,
    )
    context, weights = multi_head_attention(
        params, query, keys, lengths=lengths, causal=causal
    )
    want = [a.detach().numpy() for a in want]
    assert_close((context, weights.mean(1)), tuple(want))


@partial(jax.jit, static_argnums=0)
def values_and_gradients(function, weights, args, away):
    arguments, _ = masks("lengths mask")

    def loss(*args):
        found = function(*weights, *args, **arguments)
        return (found[0] * away).sum(), found

    grads, found = jax.grad(loss, (0, 1, 2), has_aux=True)(*args)
    return found, grads


def narrow_and_exact(kind, dtype):
    """Values and gradients in `dtype`, and in float64 of arguments so rounded."""
    run, _ = KINDS[kind]
    weights = getattr(run, "args", ())
    # as wide as the keys, so that the attention of JAX runs where it can
    query, keys, _ = problem(kind)
    heads = kind == "multi-head"
    values, width = (keys[..., :V], 9) if heads else (keys, K)
    weights = jax.tree.map(lambda a: a / 4, weights)
    given = weights, (query, keys, values), draw(*BATCH, T, width)
    given = to_jax(given, dtype)
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), given)
    function = run.func if weights else run
    return (values_and_gradients(function, *both) for both in (given, wide))


def assert_near(found, want, dtype, units):
    for a, b in zip(found, want, strict=True):
        assert a.dtype == dtype
        most = units * float(jnp.finfo(dtype).eps) * abs(np.asarray(b)).max()
        np.testing.assert_allclose(np.asarray(a, float), b, atol=most)


@every_kind
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_other_dtypes(kind, dtype):
    (found, grads), (want, exact) = narrow_and_exact(kind, dtype)
    assert_near(found, want, dtype, 8)
    assert_near(grads, exact, dtype, 16)


def test_implementation_of_jax_is_the_same():
    query, keys, _ = (jnp.asarray(a, jnp.float32) for a in problem("dot"))
    arguments, _ = masks("lengths mask")
    run = partial(dot_attention, query, keys, **arguments)
    for a, b in zip(run(implementation="xla"), run(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    params = jaxseq.multi_head_init(jax.random.key(0), K, 2, 4)
    run = partial(multi_head_attention, params, keys, causal=True)
    for a, b in zip(run(implementation="xla"), run(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def by_torch(torch, kind, weights, query, keys, values, mask):
    if kind == "scaled dot":
        run = torch.nn.functional.scaled_dot_product_attention
        return run(query, keys, values, attn_mask=mask)
    if kind == "additive":
        w_q, w_k, v = weights
        hidden = (query @ w_q)[..., :, None, :] + (keys @ w_k)[..., None, :, :]
        scores = torch.tanh(hidden) @ v
    else:
        scores = query @ weights[0] @ keys.mT
    return torch.softmax(scores.masked_fill(~mask, -torch.inf), -1) @ values


@pytest.mark.parametrize("kind", ["additive", "general", "scaled dot"])
def test_values_and_gradients_equal_pytorch(kind):
    torch = pytest.importorskip("torch")
    run, _ = KINDS[kind]
    args, tree = jax.tree.flatten((getattr(run, "args", ()), *problem(kind)))
    mask = draw(*BATCH, T, S, seed=5) > -0.5
    mask[..., 0] = True  # of a row with no key theirs makes NaN
    away = draw(*BATCH, T, V, seed=6)

    def loss(*args):
        weights, *arrays = jax.tree.unflatten(tree, args)
        context = getattr(run, "func", run)(*weights, *arrays, mask=mask)[0]
        return (context * away).sum(), context

    grads, context = jax.jit(jax.grad(loss, range(len(args)), has_aux=True))(*args)
    theirs = [torch.tensor(a, requires_grad=True) for a in args]
    want = by_torch(torch, kind, theirs[:-3], *theirs[-3:], torch.tensor(mask))
    (want * torch.tensor(away)).sum().backward()
    assert_close(context, want.detach().numpy())
    assert_close(grads, tuple(a.grad.numpy() for a in theirs))


@pytest.mark.parametrize(("dtype", "big"), [(jnp.bfloat16, 256), (jnp.float16, 2048)])
def test_scores_are_not_rounded_to_16_bits(dtype, big):
    """They are `big + 1`, which is no 16-bit number, and `big`."""
    query, values = jnp.ones((1, 2), dtype), jnp.eye(2, dtype=dtype)
    keys = jnp.array([[big, 1], [big, 0]], dtype)
    dot = jaxseq.dot_attention(query, keys, values, scale=1.0)
    v = jnp.array([big, 1], dtype)
    params = jaxseq.AdditiveParams(jnp.zeros((2, 2), dtype), values, v)
    keys = jnp.array([[50, 50], [50, 0]], dtype)  # tanh makes 1 of 50
    additive = jaxseq.additive_attention(params, query, keys, values)
    want = [[1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))]]
    for a in (*dot, *additive):
        np.testing.assert_allclose(np.asarray(a, float), want, rtol=2**-7)


@every_kind
def test_no_nan_on_the_way(kind):
    arguments, _ = masks("lengths mask")
    loss = lambda *args: EAGER[kind](*args, **arguments)[0].sum()
    with jax.debug_nans(True):
        jax.grad(loss, (0, 1, 2))(*problem(kind))  # each step is looked at


@every_kind
def test_transformations(kind):
    run, _ = KINDS[kind]
    args, (arguments, _) = problem(kind), masks("lengths mask")
    want = EAGER[kind](*args, **arguments)
    assert_close(run(*args, **arguments), want)
    one = lambda args, arguments: run(*args, **arguments)
    assert_close(jax.jit(jax.vmap(jax.vmap(one)))(args, arguments), want)


def test_unused_weights_are_not_computed():
    q = jax.ShapeDtypeStruct((1, 64, 64), jnp.float32)
    run = lambda q: jaxseq.dot_attention(q, q)[0]
    text = jax.jit(run).lower(q).compile().as_text()
    assert text.count(" dot(") == 2 or text.count("dot(") == 2


def test_bad_arguments():
    query, keys, values = problem("additive")
    run = partial(jaxseq.additive_attention, additive_params())
    dot, many = jaxseq.dot_attention, jaxseq.multi_head_attention
    key = jax.random.key(0)
    bad_mask, thin = np.ones((*BATCH, T, S)), lambda a: a.astype("float32")
    cases = [
        (lambda: run(query[..., 1:], keys), r"params.w_q: expected shape \(4, 8\)"),
        (lambda: run(query, keys[0]), r"keys: expected shape \(2, 3, 7, K\), got"),
        (lambda: run(query, keys, values[..., 1:, :]), "values: expected shape"),
        (lambda: run(query, keys.astype("float32")), "keys: expected dtype float64"),
        (lambda: run(query, keys, lengths=LENGTHS + 1), "lengths: expected values"),
        (lambda: run(query, keys, mask=bad_mask[0]), "mask: expected shape"),
        (lambda: run(query, keys, mask=bad_mask), "mask: expected dtype"),
        (lambda: run(query.astype(int), keys), "query: expected a dtype"),
        (lambda: run([1.0], keys), "query: expected an array"),
        (lambda: dot(query, keys), "query: expected width 6"),
        (lambda: jaxseq.general_attention(draw(Q, 2), query, keys), "w: expected"),
        (lambda: jaxseq.additive_attention((), query, keys), "params: expected Add"),
        (lambda: many((), query), "params: expected Multi"),
        (lambda: many(heads_params(), query, keys), r"w_v: expected shape \(6, 2, 8"),
        (lambda: dot(keys, keys, implementation="a"), "implementation: expected one"),
        (lambda: dot(keys, keys, implementation="xla"), "None for float64"),
        (
            lambda: dot(thin(keys), thin(keys), thin(values), implementation="xla"),
            "implementation: expected None for values of another width than the keys",
        ),
        (lambda: jaxseq.additive_init(key, 0, 1, 1), "Q: expected a size"),
        (lambda: jaxseq.multi_head_init(key, 4, 2, 0), "A: expected a size"),
    ]
    for run_it, message in cases:
        with pytest.raises(ValueError, match=message):
            run_it()


def test_initial_weights():
    params = jaxseq.additive_init(jax.random.key(0), 40, 60, 100)
    assert [w.shape for w in params] == [(40, 100), (60, 100), (100,)]
    for w, most in zip(params, [140, 160, 101], strict=True):
        limit = np.sqrt(6 / most)
        assert 0.9 * limit < float(abs(w).max()) <= limit
    many = jaxseq.multi_head_init(jax.random.key(0), 40, 4, 8, K=20, V=30, O=50)
    shapes = [(40, 4, 8), (20, 4, 8), (30, 4, 8), (4, 8, 50)] + [(4, 8)] * 3 + [(50,)]
    assert [w.shape for w in many] == shapes
    for w, fan in zip(many[:4], [72, 52, 62, 82], strict=True):
        limit = np.sqrt(6 / fan)
        assert 0.9 * limit < float(abs(w).max()) <= limit
    assert not any(b.any() for b in many[4:])
    drawn = jaxseq.multi_head_init(jax.random.key(0), 4, 2, 2, bias=False)
    assert drawn.b_q is None and drawn.b_o is None
    for weights in drawn[:4], jaxseq.additive_init(jax.random.key(0), 4, 4, 4)[:2]:
        pairs = itertools.combinations(map(np.ravel, weights), 2)
        assert all((a != b).any() for a, b in pairs)  # no two from one key
    narrow = jaxseq.additive_init(jax.random.key(0), 1, 1, 1, dtype=jnp.bfloat16)
    assert {w.dtype for w in narrow} == {jnp.dtype(jnp.bfloat16)}
