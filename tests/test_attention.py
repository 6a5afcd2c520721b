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
from tests.models import assert_gradients, assert_second_derivatives, drawn

BATCH, T, S, Q, K, V, A = (2, 3), 4, 7, 5, 6, 3, 8


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def additive_params():
    return jaxseq.AdditiveParams(draw(Q, A), draw(K, A), draw(A))


def heads_params(N=2, M=None, bias=True):
    """N heads of queries, M of keys and values, as many if None."""
    M = N if M is None else M
    maps = draw(Q, N, A), draw(K, M, A), draw(V, M, A), draw(N, A, 9)
    biases = draw(N, A, seed=1), draw(M, A, seed=2), draw(M, A, seed=3), draw(9)
    return jaxseq.MultiHeadParams(*maps, *(biases if bias else ()))


def repeated(params, xp=np):
    """The heads of keys and values as many as those of queries, each some times."""
    times = params.w_q.shape[1] // params.w_k.shape[1]
    more = lambda w: xp.repeat(w, times, axis=-2)
    names = "w_k", "w_v", "b_k", "b_v"
    return params._replace(**{name: more(getattr(params, name)) for name in names})


# Compiled once for all tests of the same shapes. What is eager names jaxseq.
OPTIONS = ("causal", "window", "implementation")
additive_attention = jax.jit(jaxseq.additive_attention)
general_attention = jax.jit(jaxseq.general_attention)
dot_attention = jax.jit(jaxseq.dot_attention, static_argnames=OPTIONS)
multi_head_attention = jax.jit(jaxseq.multi_head_attention, static_argnames=OPTIONS)
HEADS = {"multi-head": heads_params(), "grouped": heads_params(4, 2)}
KINDS = {
    "additive": (partial(additive_attention, additive_params()), Q),
    "general": (partial(general_attention, draw(Q, K)), Q),
    "dot": (partial(dot_attention, scale=1.0), K),
    "scaled dot": (dot_attention, K),
    **{k: (partial(multi_head_attention, w), Q) for k, w in HEADS.items()},
}
EAGER = {
    "additive": partial(jaxseq.additive_attention, additive_params()),
    "general": partial(jaxseq.general_attention, draw(Q, K)),
    "dot": partial(jaxseq.dot_attention, scale=1.0),
    "scaled dot": jaxseq.dot_attention,
    **{k: partial(jaxseq.multi_head_attention, w) for k, w in HEADS.items()},
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
    if kind in HEADS:
        one = partial(reference.multi_head_attention, repeated(HEADS[kind]))
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


@pytest.mark.parametrize("kind", ["additive", "multi-head", "grouped"])
def test_gradients_of_weights_by_finite_differences(kind):
    run, _ = KINDS[kind]
    arguments, _ = masks("lengths")

    def loss(params):
        context, weights = run.func(params, *problem(kind), **arguments)
        return jnp.sin(context).sum() + jnp.cos(weights).sum()

    assert_gradients(loss, run.args, rtol=1e-5, eps=1e-5)


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
    nothing = HEADS[kind].b_o if kind in HEADS else 0
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
    values, width = (keys[..., :V], 9) if kind in HEADS else (keys, K)
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


@pytest.mark.every(3)
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


MASKS = [(S,), (T, S), (1, T, S), (3, 1, S), (*BATCH, 1, S), (2, 1, T, 1)]


@every_kind
def test_masks_that_broadcast(kind):
    """As the whole mask that they mean, and with lengths."""
    given = [draw(*shape, seed=6) > -0.5 for shape in MASKS]
    run = lambda mask, args: KINDS[kind][0](*args, mask=mask, lengths=LENGTHS)
    together = jax.jit(lambda given, args: [run(mask, args) for mask in given])
    inside = (np.arange(S) < LENGTHS[..., None])[..., None, :]
    for mask, found in zip(given, together(given, problem(kind)), strict=True):
        valid = np.broadcast_to(mask & inside, (*BATCH, T, S))
        assert_close(found, expected(kind, *problem(kind), valid))


@pytest.mark.parametrize("kind", HEADS)
def test_a_mask_for_each_head(kind):
    """The heads one by one, each with its mask, against the equations."""
    run, weights = KINDS[kind][0], repeated(HEADS[kind])
    N = weights.w_q.shape[1]
    mask = draw(*BATCH, N, T, S, seed=7) > -0.5
    mask[0, 0, 1] = False  # no key for any query of this head
    context, rows = 0, []
    for n in range(N):
        maps = [w[:, n : n + 1] for w in weights[:3]] + [weights.w_o[n : n + 1]]
        biases = [b[n : n + 1] for b in weights[4:7]] + [0 * weights.b_o]
        head = jaxseq.MultiHeadParams(*maps, *biases)
        for i in np.ndindex(BATCH):
            args = (a[i] for a in (*problem(kind), mask[:, :, n]))
            rows.append(reference.multi_head_attention(head, *args))
    contexts, rows = (np.stack(a) for a in zip(*rows, strict=True))
    context = contexts.reshape(N, *BATCH, T, 9).sum(0) + weights.b_o
    rows = np.moveaxis(rows.reshape(N, *BATCH, T, S), 0, 2)
    assert_close(run(*problem(kind), mask=mask), (context, rows))
    alike = mask[:1, :1, :1]
    want = run(*problem(kind), mask=np.broadcast_to(alike[:, :, 0], (*BATCH, T, S)))
    assert_close(run(*problem(kind), mask=alike), want)


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_hidden_from_every_query_reaches_nothing(kind, bad):
    """By a mask and lengths together, and where there is one by `causal`."""
    mask = np.broadcast_to(draw(*BATCH, 1, S) > 0, (*BATCH, T, S)).copy()
    arguments, hidden = {"mask": mask}, ~mask[:, :, 0]
    if kind in ("additive", "general"):
        arguments["lengths"] = LENGTHS
        hidden |= np.arange(S) >= LENGTHS[..., None]
    else:
        arguments["causal"] = True
        mask[..., 1, 0] = True
        mask[..., 2, 4] = True  # a later key
        hidden = ~(mask & np.tri(T, S, dtype=bool)).any(-2)
    assert hidden.any() and not hidden.all()
    query, keys, values = problem(kind)

    def loss(query, keys, values):
        found = KINDS[kind][0](query, keys, values, **arguments)
        return sum(jnp.sin(a).sum() for a in found), found

    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    spoilt = [np.where(hidden[..., None], bad, a) for a in (keys, values)]
    got, want = both(query, *spoilt), both(query, keys, values)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(want))


def windowed(causal, window):
    t, s = np.arange(T)[:, None], np.arange(S)
    return (t - window < s) & (s <= t) if causal else abs(t - s) < window


@pytest.mark.parametrize("kind", ["scaled dot", *HEADS])
@pytest.mark.parametrize("causal", [False, True])
def test_windows(kind, causal):
    """Against the explicit mask, alone and with another mask."""
    windows, mask = [1, 2, np.int32(5), 2**40], draw(*BATCH, T, S, seed=5) > -0.5

    @jax.jit
    def together(args):
        run = partial(EAGER[kind], *args, causal=causal)
        return [(run(window=w), run(window=w, mask=mask)) for w in windows]

    for window, found in zip(windows, together(problem(kind)), strict=True):
        valid = np.broadcast_to(windowed(causal, int(window)), (*BATCH, T, S))
        want = [expected(kind, *problem(kind), v) for v in (valid, valid & mask)]
        assert_close(found, tuple(want))


@pytest.mark.parametrize("M", [1, 2])
def test_grouped_queries_equal_pytorch(M):
    """Whose own attention takes fewer heads of keys, and no maps."""
    torch = pytest.importorskip("torch")
    N = 4
    eye = lambda heads: np.eye(heads * A).reshape(heads * A, heads, A)
    w_o = np.eye(N * A).reshape(N, A, N * A)
    params = jaxseq.MultiHeadParams(eye(N), eye(M), eye(M), w_o)
    query, keys, values = (
        draw(3, T, N * A),
        draw(3, S, M * A),
        draw(3, S, M * A, seed=1),
    )
    mask = draw(3, 1, S) > -0.5
    mask[..., 0] = True
    found = multi_head_attention(params, query, keys, values, mask=mask)[0]
    heads = lambda a, n: torch.tensor(a.reshape(*a.shape[:2], n, A)).transpose(1, 2)
    want = torch.nn.functional.scaled_dot_product_attention(
        *map(heads, (query, keys, values), (N, M, M)),
        attn_mask=torch.tensor(mask[:, None]),
        enable_gqa=True,
    )
    assert_close(found, want.transpose(1, 2).reshape(3, T, N * A).numpy())


def test_grouped_queries_in_float32():
    """There they are those of JAX; gradients as of repeated heads, summed by group."""
    params, args = to_jax((HEADS["grouped"], problem("grouped")), jnp.float32)
    arguments, valid = masks("lengths mask")

    @partial(jax.jit, static_argnames="implementation")
    def both(params, args, implementation=None):
        def loss(params, args, change=lambda params: params):
            run = partial(jaxseq.multi_head_attention, change(params), *args)
            found = run(**arguments, implementation=implementation)
            return jnp.sin(found[0]).sum(), found

        of = partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
        more = partial(loss, change=partial(repeated, xp=jnp))
        return of(loss)(params, args), of(more)(params, args)

    near = partial(np.testing.assert_allclose, atol=2e-4, rtol=2e-4)
    found, want = both(params, args)
    jax.tree.map(near, found, want)
    jax.tree.map(near, found[0][1], expected("grouped", *problem("grouped"), valid))
    jax.tree.map(near, both(params, args, implementation="xla"), (found, want))


def test_grouped_queries_repeat_no_keys():
    """No array of the program is as large as keys for each head of the queries."""
    many, N, M = 64, 8, 2
    params = jaxseq.multi_head_init(jax.random.key(0), 4, N, A, num_kv_heads=M)
    x = jnp.zeros((1, many, 4), jnp.float32)
    text = str(
        jax.make_jaxpr(partial(jaxseq.multi_head_attention, params, x[:, :1]))(x)
    )
    assert f"{many},{M},{A}]" in text and f"{many},{N},{A}]" not in text


def test_a_transformer_with_grouped_queries():
    """Whole and step by step, its cache with the heads of the keys."""
    sizes = {"features": 8, "num_heads": 4, "ff_features": 5, "target_vocab": 7}
    more = {"num_decoder_layers": 2, "positions": "rotary"}
    init = partial(jaxseq.transformer_init, **sizes, **more)
    wide = drawn(init, seed=0)
    few = lambda a: a[..., ::2, :]
    names = "w_k", "w_v", "b_k", "b_v"

    def grouped(layer):
        heads = layer.attention
        changed = {name: few(getattr(heads, name)) for name in names}
        return layer._replace(attention=heads._replace(**changed))

    def again(layer):
        return layer._replace(attention=repeated(layer.attention))

    change = lambda params, one: params._replace(
        decoder=params.decoder._replace(layers=tuple(map(one, params.decoder.layers)))
    )
    params = change(wide, grouped)
    tokens = np.random.default_rng(0).integers(0, 7, (3, 5))
    whole = jax.jit(jaxseq.transformer_decode)
    logits = whole(params, None, tokens)[1]
    assert_close(logits, whole(change(params, again), None, tokens)[1])
    state = jaxseq.transformer_zeros(params, batch=3, room=5)
    assert state.caches[0].k.shape == (3, 5, 2, 2)
    step = jax.jit(jaxseq.transformer_decode_step)
    for t in range(5):
        state, found = step(params, state, tokens[:, t])
        assert_close(found, logits[:, t])


def test_a_learned_scale():
    """Traced, of any path: as of scaled queries; its gradient by differences."""
    arguments, _ = masks("lengths mask")
    query, keys, values = problem("dot")
    run = partial(jaxseq.dot_attention, **arguments)

    def loss(scale, query, keys, values):
        context, weights = run(query, keys, values, scale=scale)
        return jnp.sin(context).sum() + (weights**2).sum()

    @jax.jit
    def both(scale, query):
        by_hand = run(scale * query, keys, values, scale=1)
        return run(query, keys, values, scale=scale), by_hand

    for scale in (np.float64(0.3), np.array(-2.0), 1.7):
        assert_close(*both(scale, query))
    assert_gradients(loss, (np.array(0.3), query, keys, values), rtol=1e-5)
    of_each = jax.jit(jax.vmap(lambda scale: run(query, keys, values, scale=scale)))
    contexts, weights = of_each(np.array([0.3, 2.0]))
    assert_close((contexts[1], weights[1]), both(2.0, query)[0])

    @partial(jax.jit, static_argnames="implementation")
    def narrow(scale, query, keys, implementation=None):
        run = partial(jaxseq.dot_attention, query, keys, **arguments)
        each = lambda scale: run(scale=scale, implementation=implementation)[0]
        return jax.value_and_grad(lambda scale: jnp.sin(each(scale)).sum())(scale)

    exact = narrow(0.3, query, keys)
    thin = to_jax((np.array(0.3), query, keys), jnp.float32)
    for implementation in (None, "xla"):
        found = narrow(*thin, implementation=implementation)
        np.testing.assert_allclose(found, exact, rtol=1e-4)


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
        (
            lambda: run(query, keys, mask=draw(3, 3, T, S) > 0),
            r"mask: expected a shape that broadcasts to \(2, 3, 4, 7\), got \(3, 3",
        ),
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
        (lambda: jaxseq.additive_init(key, 0, 1, 1), "query_features: expected a size"),
        (
            lambda: jaxseq.multi_head_init(key, 4, 2, 0),
            "head_features: expected a size",
        ),
    ]
    for run_it, message in cases:
        with pytest.raises(ValueError, match=message):
            run_it()


def refused(message):
    return pytest.raises(ValueError, match=f"^{message}")


KINDS_OF_NOTHING = [None, "no", (), {}, (i for i in "a"), object()]


def test_what_is_no_array_is_named():
    query, keys, values = problem("additive")
    heads, of_dot = heads_params(), draw(*BATCH, T, K)
    runs = {
        "additive": partial(jaxseq.additive_attention, additive_params()),
        "general": partial(jaxseq.general_attention, draw(Q, K)),
        "dot": jaxseq.dot_attention,
        "heads": partial(jaxseq.multi_head_attention, heads),
    }
    for kind, run in runs.items():
        query = of_dot if kind == "dot" else problem("additive")[0]
        for bad in KINDS_OF_NOTHING:
            with refused("query: expected an array"):
                run(bad, keys)
            if bad is not None:
                with refused("values: expected"):
                    run(query, keys, bad)
                with refused("lengths: expected"):
                    run(query, keys, values, lengths=bad)
                with refused("mask: expected"):
                    run(query, keys, values, mask=bad)
            if bad is not None or kind != "heads":
                with refused("keys: expected an array"):
                    run(query, bad)
        for bad in (True, np.array(True), np.ones((T, S))):
            with refused("mask: expected"):
                run(query, keys, values, mask=bad)
    query = problem("additive")[0]
    for bad in KINDS_OF_NOTHING:
        with refused("w: expected an array"):
            jaxseq.general_attention(bad, query, keys)
        broken = additive_params()._replace(w_k=bad)
        with refused("params.w_k: expected an array"):
            jaxseq.additive_attention(broken, query, keys)
        for name in ("w_q", "w_k", "w_v", "w_o", "b_q"):
            if bad is not None or name != "b_q":
                broken = heads._replace(**{name: bad})
                with refused(f"params.{name}: expected an a"):
                    jaxseq.multi_head_attention(broken, query, keys, values)


def test_bad_options():
    keys, key = problem("dot")[1], jax.random.key(0)
    heads = jaxseq.multi_head_init(key, K, 4, 2, dtype=jnp.float64)
    for run in (
        partial(jaxseq.dot_attention, keys, keys),
        partial(jaxseq.multi_head_attention, heads, keys),
    ):
        for bad in (0, -1, 1.5, "a", True, [2], np.nan, np.array([2])):
            with refused("window: expected a size of at l"):
                run(window=bad)
        with refused("window: expected a size of at least"):
            jax.jit(lambda window, run=run: run(window=window))(2)
        for bad in (None, "a", 1, [True], np.ones(2, bool)):
            with refused("causal: expected True or False"):
                run(causal=bad)
        for bad in ("a", "XLA", True, 0, ["xla"]):
            text = r"implementation: expected one of \(None, 'xla', 'cudnn'\), got"
            with refused(text):
                run(implementation=bad)
    dot = partial(jaxseq.dot_attention, keys, keys)
    for bad in ("a", True, [1.0], (), np.nan, np.inf, 1j, keys, np.array(True)):
        with refused("scale: expected a finite number, got"):
            dot(scale=bad)
    thin = jnp.asarray(keys, jnp.float32)
    with refused("scale: expected a number that is not trac"):
        fast = partial(jaxseq.dot_attention, thin, thin, implementation="cudnn")
        jax.jit(lambda scale: fast(scale=scale))(1.0)
    few = heads._replace(w_k=heads.w_k[:, :3], b_k=heads.b_k[:3])
    with refused("params.w_k: .* divides 4, that of w_q, got"):
        jaxseq.multi_head_attention(few, keys)
    few = heads._replace(w_k=heads.w_k[:, :2], b_k=heads.b_k[:2])
    with refused(r"params.w_v: expected shape \(6, 2, 2\), g"):
        jaxseq.multi_head_attention(few, keys)


def test_bad_sizes():
    key, bad_sizes = jax.random.key(0), (0, -1, 2.0, "3", True, [1], np.nan)
    names = "query_features", "key_features", "hidden_features"
    for name in names:
        for bad in (None, *bad_sizes):
            with refused(f"{name}: expected a size of at l"):
                jaxseq.additive_init(key, **{**dict.fromkeys(names, 2), name: bad})
    names = "features", "num_heads", "head_features"
    options = "num_kv_heads", "key_features", "value_features", "out_features"
    for name in names + options:
        for bad in bad_sizes if name in options else (None, *bad_sizes):
            with refused(f"{name}: expected a size of at l"):
                jaxseq.multi_head_init(key, **{**dict.fromkeys(names, 2), name: bad})
    init = partial(jaxseq.multi_head_init, key, 8, 4, 2)
    with refused("num_kv_heads: expected a divisor of num_h"):
        init(num_kv_heads=3)
    for bad in (None, "no", 1, [True]):
        with refused("bias: expected True or False"):
            init(bias=bad)
    for each in (init, partial(jaxseq.additive_init, key, 1, 1, 1)):
        for bad in (None, "foo", int, jnp.int32):
            with refused("dtype: expected a dtype among"):
                each(dtype=bad)


def test_initial_weights():
    params = jaxseq.additive_init(jax.random.key(0), 40, 60, 100)
    assert [w.shape for w in params] == [(40, 100), (60, 100), (100,)]
    for w, most in zip(params, [140, 160, 101], strict=True):
        limit = np.sqrt(6 / most)
        assert 0.9 * limit < float(abs(w).max()) <= limit
    widths = {"key_features": 20, "value_features": 30, "out_features": 50}
    many = jaxseq.multi_head_init(jax.random.key(0), 40, 4, 8, **widths)
    shapes = [(40, 4, 8), (20, 4, 8), (30, 4, 8), (4, 8, 50)] + [(4, 8)] * 3 + [(50,)]
    assert [w.shape for w in many] == shapes
    for w, fan in zip(many[:4], [72, 52, 62, 82], strict=True):
        limit = np.sqrt(6 / fan)
        assert 0.9 * limit < float(abs(w).max()) <= limit
    assert not any(b.any() for b in many[4:])
    grouped = jaxseq.multi_head_init(
        jax.random.key(0), 40, 4, 8, num_kv_heads=2, **widths
    )
    shapes[1:3], shapes[5:7] = [(20, 2, 8), (30, 2, 8)], [(2, 8)] * 2
    assert [w.shape for w in grouped] == shapes
    for w, fan in zip(grouped[1:3], [36, 46], strict=True):
        limit = np.sqrt(6 / fan)
        assert 0.9 * limit < float(abs(w).max()) <= limit
    drawn = jaxseq.multi_head_init(jax.random.key(0), 4, 2, 2, bias=False)
    assert drawn.b_q is None and drawn.b_o is None
    for weights in drawn[:4], jaxseq.additive_init(jax.random.key(0), 4, 4, 4)[:2]:
        pairs = itertools.combinations(map(np.ravel, weights), 2)
        assert all((a != b).any() for a, b in pairs)  # no two from one key
    narrow = jaxseq.additive_init(jax.random.key(0), 1, 1, 1, dtype=jnp.bfloat16)
    assert {w.dtype for w in narrow} == {jnp.dtype(jnp.bfloat16)}
