"""The Transformer against its equations, against PyTorch, and as one uses it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from tests import reference
from tests.cells import assert_close, to_jax
from tests.models import assert_gradients, drawn, fit

SOURCE, TARGET, D, N, F, S, T = 11, 9, 8, 2, 12, 4, 3
BATCH = (2, 2)
LENGTHS = np.array([[4, 1], [2, 3]])
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, SOURCE, (*BATCH, S))
TARGETS = RNG.integers(0, TARGET, (*BATCH, T))
POSITIONS = ("sinusoidal", "learned", "rotary")
BOTH = {
    "source_vocab": SOURCE, "target_vocab": TARGET,
    "num_encoder_layers": 1, "num_decoder_layers": 1,
}  # fmt: skip
TWO = {**BOTH, "num_encoder_layers": 2, "num_decoder_layers": 2}
SIZES = {"features": D, "num_heads": N, "ff_features": F}
# Compiled once for all tests of the same shapes. What is eager names jaxseq.
STATIC = ("activation", "dropout", "room", "window")
encode = jax.jit(jaxseq.transformer_encode, static_argnames=STATIC[:2])
decode = jax.jit(jaxseq.transformer_decode, static_argnames=STATIC)
decode_step = jax.jit(jaxseq.transformer_decode_step, static_argnames="activation")
cross_entropy = jax.jit(jaxseq.cross_entropy)
# whether the norms stand before, and whether there is one at the end
LAYOUTS = [(True, True), (False, False), (True, False), (False, True)]
every_layout = pytest.mark.parametrize(("pre_norm", "final_norm"), LAYOUTS)
every_form = pytest.mark.parametrize(
    ("positions", "pre_norm", "final_norm"),
    [
        (p, *layout)
        for i, p in enumerate(POSITIONS)
        for layout in (LAYOUTS[i % 2], LAYOUTS[-1 - i % 2])
    ],
)


def make(*, seed=0, **options):
    """Weights in which no bias is zero and no scale is one."""
    options = options or BOTH
    if options.get("positions") == "learned":
        options = {"max_positions": 8, **options}
    init = partial(jaxseq.transformer_init, dtype=jnp.float64, **SIZES, **options)
    return drawn(init, seed=seed)


def by_hand(params, tokens, targets, activation=reference.relu, window=None):
    """Vectors of the source, logits and weights, of one pair."""
    rotary = isinstance(params.positions, jaxseq.Rotary)

    def start(embed, tokens):
        x = embed[tokens] * np.sqrt(D)
        if isinstance(params.positions, jaxseq.Sinusoidal):
            return x + reference.waves(len(x), D)
        return x if rotary else x + params.positions[: len(x)] * np.sqrt(D)

    run = partial(reference.transformer, activation=activation)
    memory, logits, weights = None, None, None
    encoder, decoder = params.encoder, params.decoder
    if encoder is not None:
        x = start(encoder.embed, tokens)
        memory, _ = run(encoder, x, None, causal=False, rotary=rotary)
    if decoder is not None:
        embed = decoder.embed if decoder.embed is not None else encoder.embed
        x = start(embed, targets)
        how = {"causal": True, "rotary": rotary, "window": window}
        y, weights = run(decoder, x, memory, **how)
        logits = y @ (embed.T if params.w_o is None else params.w_o)
    return memory, logits, weights


@pytest.mark.every(2)
@every_form
@pytest.mark.parametrize("tied", [True, False])
def test_equations(positions, pre_norm, final_norm, tied):
    norms = {"pre_norm": pre_norm, "final_norm": final_norm}
    params = make(**TWO, positions=positions, **norms, tied=tied)
    memory = encode(params, TOKENS, source_lengths=LENGTHS)
    _, logits, weights = decode(params, memory, TARGETS)
    assert logits.shape == (*BATCH, T, TARGET) and len(weights) == 2
    for i in np.ndindex(BATCH):
        n = LENGTHS[i]
        want = by_hand(params, TOKENS[i][:n], TARGETS[i])
        assert_close(memory.values[i][:n], want[0])
        assert not memory.values[i][n:].any()
        assert_close(logits[i], want[1])
        for got, rows in zip(weights, want[2], strict=True):
            assert_close(got[i][..., :n], rows)
            assert not got[i][..., n:].any()


@every_form
def test_decoder_alone(positions, pre_norm, final_norm):
    options = {"positions": positions, "pre_norm": pre_norm, "final_norm": final_norm}
    params = make(target_vocab=TARGET, num_decoder_layers=2, **options)
    _, logits, weights = decode(params, None, TARGETS)
    assert weights is None and params.encoder is None
    for i in np.ndindex(BATCH):
        assert_close(logits[i], by_hand(params, None, TARGETS[i])[1])


def test_encoder_alone_and_one_vocabulary():
    params = make(source_vocab=SOURCE, num_encoder_layers=1)
    assert params.decoder is None
    found = encode(params, TOKENS)
    for i in np.ndindex(BATCH):
        assert_close(found.values[i], by_hand(params, TOKENS[i], None)[0])
    params = make(source_vocab=SOURCE, num_encoder_layers=1, num_decoder_layers=1)
    assert params.decoder.embed is None
    memory = encode(params, TOKENS)
    _, logits, _ = decode(params, memory, TARGETS)
    for i in np.ndindex(BATCH):
        assert_close(logits[i], by_hand(params, TOKENS[i], TARGETS[i])[1])


def test_activation():
    params = make(source_vocab=SOURCE, num_encoder_layers=1)
    found = encode(params, TOKENS[0, 0], activation=jnp.tanh)
    x = params.encoder.embed[TOKENS[0, 0]] * np.sqrt(D) + reference.waves(S, D)
    how = {"causal": False, "rotary": False, "activation": np.tanh}
    want = reference.transformer(params.encoder, x, None, **how)[0]
    assert_close(found.values, want)


def test_activation_of_the_decoder():
    params, how = make(**BOTH), {"activation": jnp.tanh}
    source, target = TOKENS[0, 0], TARGETS[0, 0]
    memory = encode(params, source, **how)
    _, logits, weights = decode(params, memory, target, **how)
    want = by_hand(params, source, target, np.tanh)
    assert_close((memory.values, logits, *weights), (want[0], want[1], *want[2]))
    state = jaxseq.transformer_zeros(params, memory, room=2)
    for t in range(2):
        state, now = decode_step(params, state, target[t], **how)
        assert_close(now, want[1][t])


def test_a_state_that_is_full():
    params = make(target_vocab=TARGET, num_decoder_layers=1)
    step = partial(jaxseq.transformer_decode_step, params)
    state = jaxseq.transformer_zeros(params, batch=2, room=2)
    token = np.array([1, 2])
    state, want = step(state, token)
    full = state._replace(position=jnp.array([1, 2], jnp.int32))
    with pytest.raises(ValueError, match="state: expected a position below room = 2"):
        step(full, token)
    want = step(state, token)[1]
    _, logits = jax.jit(step)(full, token)
    assert_close(logits[0], want[0])
    assert np.isnan(logits[1]).all()


def load_layer(torch, theirs, layer):
    """Writes the weights of a layer into one of PyTorch's."""

    def attention(module, p):
        flat = lambda w: torch.tensor(np.asarray(w).reshape(len(w), -1).T)
        joined = torch.cat([flat(p.w_q), flat(p.w_k), flat(p.w_v)])
        biases = np.concatenate([np.ravel(b) for b in (p.b_q, p.b_k, p.b_v)])
        module.in_proj_weight.copy_(joined)
        module.in_proj_bias.copy_(torch.tensor(biases))
        module.out_proj.weight.copy_(torch.tensor(p.w_o.reshape(-1, D).T))
        module.out_proj.bias.copy_(torch.tensor(p.b_o))

    norms = [layer.attention_norm, layer.cross_norm, layer.norm]
    norms = [norm for norm in norms if norm is not None]
    with torch.no_grad():
        attention(theirs.self_attn, layer.attention)
        if layer.cross is not None:
            attention(theirs.multihead_attn, layer.cross)
        for i, norm in enumerate(norms, 1):
            getattr(theirs, f"norm{i}").weight.copy_(torch.tensor(norm.scale))
            getattr(theirs, f"norm{i}").bias.copy_(torch.tensor(norm.b))
        for i, (w, b) in enumerate([(layer.w_1, layer.b_1), (layer.w_2, layer.b_2)], 1):
            getattr(theirs, f"linear{i}").weight.copy_(torch.tensor(w.T))
            getattr(theirs, f"linear{i}").bias.copy_(torch.tensor(b))


def load_norm(torch, theirs, norm):
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(norm.scale))
        theirs.bias.copy_(torch.tensor(norm.b))


@every_layout
def test_pytorch(pre_norm, final_norm):
    torch = pytest.importorskip("torch")
    epsilon = 1e-3
    norms = {"pre_norm": pre_norm, "final_norm": final_norm, "epsilon": epsilon}
    params = make(**TWO, positions="learned", **norms)
    how = {"dropout": 0.0, "batch_first": True, "norm_first": pre_norm}
    how |= {"layer_norm_eps": epsilon, "dtype": torch.float64}
    start = lambda stack, tokens: torch.tensor(
        (stack.embed[tokens] + params.positions[: tokens.shape[-1]]) * np.sqrt(D)
    ).flatten(0, 1)

    def theirs(kind, stack, *inputs, **masks):
        layer = getattr(torch.nn, f"Transformer{kind}Layer")(D, N, F, **how)
        norm = torch.nn.LayerNorm(D, eps=epsilon, dtype=torch.float64)
        norm = norm if final_norm else None
        more = {"enable_nested_tensor": False} if kind == "Encoder" else {}
        made = getattr(torch.nn, f"Transformer{kind}")(layer, 2, norm=norm, **more)
        for layer, own in zip(made.layers, stack.layers, strict=True):
            load_layer(torch, layer, own)
        if final_norm:
            load_norm(torch, made.norm, stack.norm)
        return made(*inputs, **masks)

    x, y = start(params.encoder, TOKENS), start(params.decoder, TARGETS)
    pad = torch.tensor(np.arange(S) >= LENGTHS.reshape(-1, 1))
    causal = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
    x = theirs("Encoder", params.encoder, x, src_key_padding_mask=pad)
    masks = {"tgt_mask": causal, "memory_key_padding_mask": pad}
    y = theirs("Decoder", params.decoder, y, x, **masks)
    want = y.detach().numpy() @ params.decoder.embed.T
    memory = encode(params, TOKENS, source_lengths=LENGTHS)
    _, logits, _ = decode(params, memory, TARGETS)
    assert_close(logits.reshape(want.shape), want)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-3])
def test_epsilon(epsilon):
    """It counts where activations are small."""
    params = make(**BOTH, pre_norm=False, epsilon=epsilon)
    small = lambda stack: stack._replace(embed=0.01 * stack.embed)
    params = params._replace(
        encoder=small(params.encoder), decoder=small(params.decoder),
        positions=jaxseq.Rotary(),
    )  # fmt: skip
    source, target = TOKENS[0, 0], TARGETS[0, 0]
    memory = encode(params, source)
    _, logits, _ = decode(params, memory, target)
    want = by_hand(params, source, target)
    assert_close((memory.values, logits), want[:2])
    state = jaxseq.transformer_zeros(params, memory, room=2)
    for t in range(2):
        state, now = decode_step(params, state, target[t])
        assert_close(now, want[1][t])


def test_the_layout_of_norms_is_no_array():
    """Neither an optimizer nor a cast reaches it; it survives both, and bytes."""
    params = make(**BOTH, pre_norm=False, final_norm=True, epsilon=1e-12)
    layout = jaxseq.NormLayout(pre_norm=False, epsilon=1e-12)
    assert params.encoder.layout == params.decoder.layout == layout
    assert jax.tree.leaves(layout) == []
    narrow = to_jax(params, jnp.bfloat16)
    assert narrow.encoder.layout == layout
    exported = jax.export.export(jax.jit(encode))(narrow, TOKENS)
    again = jax.export.deserialize(exported.serialize())
    found = again.call(narrow, TOKENS)
    np.testing.assert_array_equal(found.values, encode(narrow, TOKENS).values)
    other = narrow._replace(encoder=narrow.encoder._replace(
        layout=layout._replace(epsilon=1e-5)
    ))  # fmt: skip
    with pytest.raises(ValueError, match="NormLayout"):
        again.call(other, TOKENS)


@pytest.mark.every(2)
@every_form
@pytest.mark.parametrize("alone", [True, False])
def test_steps_are_the_whole(positions, pre_norm, final_norm, alone):
    options = {"target_vocab": TARGET, "num_decoder_layers": 2} if alone else TWO
    norms = {"pre_norm": pre_norm, "final_norm": final_norm}
    params = make(**options, positions=positions, **norms)
    memory = None
    if not alone:
        memory = encode(params, TOKENS, source_lengths=LENGTHS)
    end, logits, _ = decode(params, memory, TARGETS, room=7)
    state = jaxseq.transformer_zeros(params, memory, batch=BATCH, room=7)
    assert state.left == 7
    for t in range(T):
        state, now = decode_step(params, state, TARGETS[..., t])
        assert_close(now, logits[..., t, :])
    assert (state.position == T).all() and state.left == end.left == 7 - T
    assert_close(end, state)


def test_prefill_and_beam_search():
    """From prompts of unlike lengths, as from each alone; scores recomputed."""
    params = make(target_vocab=TARGET, num_decoder_layers=2, positions="rotary")
    step = partial(jaxseq.transformer_decode_step, params)
    prompts, lengths = TARGETS[0], np.array([3, 2])
    zeros = partial(jaxseq.transformer_zeros, params, room=12)
    how = {"max_length": 6, "end": 0, "beam": 4, "n_best": 2}

    @jax.jit
    def run(prompts, lengths):
        state = zeros(batch=len(prompts))
        state, token = jaxseq.prefill(step, state, prompts, lengths=lengths)
        return jaxseq.beam_search(step, state, token, **how)

    found = run(prompts, lengths)
    for b, n in enumerate(lengths):
        alone = run(prompts[b : b + 1, :n], lengths[b : b + 1])
        np.testing.assert_array_equal(alone.tokens[0], found.tokens[b])
        for k in range(2):
            tokens = np.asarray(found.tokens[b, k, : found.lengths[b, k]])
            whole = np.concatenate([prompts[b, :n], tokens])
            last = len(whole) - 1
            padded = np.pad(whole, (0, 12 - len(whole)))  # no token sees a later one
            _, logits, _ = decode(params, None, padded[:-1])
            losses = cross_entropy(logits, padded[1:], lengths=last)
            assert_close(found.scores[b, k], -np.asarray(losses)[n - 1 :].sum())


def test_padding_is_not_read():
    params = make()
    other = np.where(np.arange(S) < LENGTHS[..., None], TOKENS, SOURCE + 100)
    inside = (np.arange(S) < LENGTHS[..., None])[..., None]
    read = partial(encode, params, source_lengths=LENGTHS)
    memory, same = read(TOKENS), read(other)
    np.testing.assert_array_equal(memory.values, same.values)
    assert not np.where(inside, 0, memory.values).any()
    junk = np.where(inside, memory.values, np.nan)
    write = lambda values: decode(params, memory._replace(values=values), TARGETS)[1]
    np.testing.assert_array_equal(*map(write, (memory.values, junk)))
    grads = jax.jit(jax.grad(lambda values: write(values).sum()))(junk)
    assert np.isfinite(grads).all()


def test_a_source_of_no_token_gives_numbers():
    params = make()
    lengths = np.zeros(BATCH, int)

    def loss(params):
        memory = jaxseq.transformer_encode(params, TOKENS, source_lengths=lengths)
        _, logits, _ = jaxseq.transformer_decode(params, memory, TARGETS)
        return (logits**2).sum()

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves((value, grads)))


def test_rotary_attention_depends_on_distances():
    """Moved as a whole, a sequence has the same weights within it."""
    params = make(source_vocab=SOURCE, num_encoder_layers=1, positions="rotary")
    heads = RNG.standard_normal((T, N, D // N))
    from jaxseq._models.transformer.positions import rotated

    at = jnp.arange(T, dtype=jnp.int32)
    near, far = (rotated(params.positions, heads, at + shift) for shift in (0, 1000))
    scores = lambda a: np.einsum("tna,sna->nts", a, a)
    np.testing.assert_allclose(scores(near), scores(far), atol=1e-9)


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_gradients(positions, pre_norm):
    params = make(**BOTH, positions=positions, pre_norm=pre_norm, tied=False)

    def loss(params):
        how = {"activation": jnp.tanh}  # no kinks
        lengths = {"source_lengths": LENGTHS}
        memory = jaxseq.transformer_encode(params, TOKENS, **lengths, **how)
        _, logits, _ = jaxseq.transformer_decode(params, memory, TARGETS, **how)
        return jaxseq.cross_entropy(logits, TARGETS).mean()

    assert_gradients(loss, (params,), rtol=1e-5, eps=1e-5)


@pytest.mark.every(2)
@pytest.mark.parametrize("pre_norm", [True, False])
def test_overfits_one_batch_and_decodes_it(pre_norm):
    B, END, START = 8, 0, 1
    words = np.random.default_rng(1).integers(2, TARGET, (B, 5))
    targets = np.concatenate([(words[:, ::-1] + 1) % (TARGET - 2) + 2, words[:, :1]], 1)
    targets[:, -1] = END
    inputs = np.concatenate([np.full((B, 1), START), targets[:, :-1]], 1)
    params = jaxseq.transformer_init(
        jax.random.key(0), features=16, num_heads=2, ff_features=32,
        **{**TWO, "source_vocab": TARGET}, pre_norm=pre_norm,
    )  # fmt: skip

    def loss(params):
        memory = jaxseq.transformer_encode(params, words)
        _, logits, _ = jaxseq.transformer_decode(params, memory, inputs)
        return jaxseq.cross_entropy(logits, targets).mean()

    params, values = fit(
        loss, params, rate=5e-3, steps=250
    )  # post-norm would need a warm-up for more
    assert values[-1] < 0.05 < 1 < values[0]

    @jax.jit
    def written(params):
        memory = jaxseq.transformer_encode(params, words)
        state = jaxseq.transformer_zeros(params, memory, room=6)
        step = partial(jaxseq.transformer_decode_step, params)
        return jaxseq.greedy(step, state, np.full(B, START), max_length=6, end=END)

    np.testing.assert_array_equal(written(params).tokens, targets)


def test_dropout():
    params = make()
    keys = jax.random.split(jax.random.key(0))
    read = lambda **how: encode(params, TOKENS, **how).values
    found = [read(dropout=0.5, key=key) for key in keys]
    assert (found[0] != found[1]).any()
    assert_close(found[0], read(dropout=0.5, key=keys[0]))
    assert_close(read(dropout=0.0, key=keys[0]), read())
    write = partial(decode, params, encode(params, TOKENS), TARGETS)
    logits = [write(dropout=0.5, key=key)[1] for key in keys]
    assert (logits[0] != logits[1]).any()
    # of layers that add nothing the embeddings are left, dropped
    rate, many = 0.25, jax.random.split(jax.random.key(1), 500)
    zeros = jax.tree.map(np.zeros_like, params.encoder.layers)
    empty = params._replace(encoder=params.encoder._replace(layers=zeros, norm=None))
    run = lambda key: encode(empty, TOKENS, dropout=rate, key=key).values
    x = np.asarray(jax.vmap(run)(many))
    assert (x == 0).mean() == pytest.approx(rate, abs=0.01)
    kept = np.broadcast_to(encode(empty, TOKENS).values, x.shape)
    assert_close(x[x != 0], kept[x != 0] / (1 - rate))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_what_is_dropped(pre_norm):
    """With all of it dropped, the embeddings and each sub-layer, norms are left."""
    params = make(**BOTH, pre_norm=pre_norm)
    how = {"dropout": 1 - 1e-12, "key": jax.random.key(0)}

    def left(stack):
        x = np.zeros(D)
        for layer in () if pre_norm else stack.layers:
            for norm in (layer.attention_norm, layer.cross_norm, layer.norm):
                x = x if norm is None else reference.layer_norm(x, *norm)
        return reference.layer_norm(x, *stack.norm) if pre_norm else x

    memory = encode(params, TOKENS, **how)
    found = memory.values
    assert_close(found, np.broadcast_to(left(params.encoder), found.shape))
    _, logits, _ = decode(params, memory, TARGETS, **how)
    want = left(params.decoder) @ params.decoder.embed.T
    assert_close(logits, np.broadcast_to(want, logits.shape))


def test_gradients_in_bfloat16():
    params = make(**BOTH)
    narrow = to_jax(params, jnp.bfloat16)

    def loss(params):
        how = {"activation": jnp.tanh}  # no kinks
        lengths = {"source_lengths": LENGTHS}
        memory = jaxseq.transformer_encode(params, TOKENS, **lengths, **how)
        _, logits, _ = jaxseq.transformer_decode(params, memory, TARGETS, **how)
        return jaxseq.cross_entropy(logits, TARGETS).sum()

    exact = jax.tree.map(lambda w: np.asarray(w, np.float64), narrow)
    grad = jax.jit(jax.grad(loss))
    flat = lambda tree: [np.asarray(a, float) for a in jax.tree.leaves(tree)]
    found, want = (np.concatenate([*map(np.ravel, flat(grad(p)))]) for p in
                   (narrow, exact))  # fmt: skip
    assert np.linalg.norm(found - want) < 0.1 * np.linalg.norm(want)


@jax.jit
def read_and_write(params):
    memory = jaxseq.transformer_encode(params, TOKENS, source_lengths=LENGTHS)
    return memory, jaxseq.transformer_decode(params, memory, TARGETS)[1]


@pytest.mark.every(2)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("positions", POSITIONS)
def test_dtypes(positions, dtype):
    params = make(**BOTH, positions=positions)
    narrow = to_jax(params, dtype)
    (_, expected), (memory, found) = read_and_write(params), read_and_write(narrow)
    assert found.dtype == memory.values.dtype == dtype
    error = abs(np.asarray(found, float) - expected).max()
    assert error < 200 * float(jnp.finfo(dtype).eps)
    state = jaxseq.transformer_zeros(narrow, memory, room=3)
    _, one = decode_step(narrow, state, TARGETS[..., 0])
    assert one.dtype == dtype


def test_init_and_donation():
    sizes = {"features": 64, "num_heads": 4, "ff_features": 128}
    make = partial(jaxseq.transformer_init, jax.random.key(0), **sizes)
    params = make(**{**TWO, "source_vocab": 1000, "target_vocab": 500})
    assert float(params.encoder.embed.std()) == pytest.approx(1 / 8, rel=0.02)
    assert params.encoder.layers[0].cross is None
    assert params.encoder.norm is not None and params.w_o is None
    alone = partial(make, target_vocab=5, num_decoder_layers=1)
    for pre_norm, final_norm in LAYOUTS:
        stack = alone(pre_norm=pre_norm, final_norm=final_norm).decoder
        assert stack.layout == jaxseq.NormLayout(pre_norm, 1e-5)
        assert (stack.norm is not None) == final_norm
    assert alone(pre_norm=False).decoder.norm is None
    assert alone(tied=False).w_o.shape == (64, 5)
    shapes = {}
    for w in jax.tree.leaves(params):  # no two from one key
        if w.ndim > 1 and w.any():
            assert not any((w == v).all() for v in shapes.setdefault(w.shape, []))
            shapes[w.shape].append(w)
    state = jaxseq.transformer_zeros(alone(), room=3)
    for tree in (params, state):  # no array twice
        jax.jit(lambda t: jax.tree.map(lambda a: a + a, t), donate_argnums=0)(tree)


def test_room():
    """How many tokens a state takes, as far as it is known."""
    params = make(target_vocab=TARGET, num_decoder_layers=1)
    state = jaxseq.transformer_zeros(params, batch=(2,), room=5)
    assert state.left == 5
    state = state._replace(position=jnp.array([1, 3], jnp.int32))
    assert state.left == 2
    inside = []
    jax.jit(lambda s: inside.append(s.left))(state)
    jax.vmap(lambda s: inside.append(s.left))(state)
    jax.jit(lambda: inside.append(state.left))()  # known, though inside
    assert inside == [None, None, 2]
    assert jaxseq.transformer_zeros(params, batch=0, room=5).left == 5
    assert jaxseq.transformer_decode(params, None, TARGETS)[0].left == 0


def test_a_prompt_is_read_at_once():
    """`transformer_decode` of prompts of unlike lengths, in place of `prefill`."""
    params = make(target_vocab=TARGET, num_decoder_layers=2, positions="rotary")
    step = partial(jaxseq.transformer_decode_step, params)
    prompts, lengths = TARGETS[0], np.array([3, 2])
    state = jaxseq.transformer_zeros(params, batch=2, room=8)
    state, token = jaxseq.prefill(step, state, prompts, lengths=lengths)
    padded = np.where(np.arange(2) < lengths[:, None] - 1, prompts[:, :-1], TARGET + 9)
    at_once, logits, _ = decode(params, None, padded, lengths=lengths - 1, room=8)
    assert_close(at_once, state)
    how = {"max_length": 5, "end": None}
    want, found = (jaxseq.greedy(step, s, token, **how) for s in (state, at_once))
    assert_close(found, want)
    _, unpadded, _ = decode(params, None, prompts[:, :-1])
    assert_close(logits[0], unpadded[0])
    assert_close(logits[1, 0], unpadded[1, 0])
    assert not logits[1, 1].any()


def test_bad_sizes_and_options():
    init = partial(jaxseq.transformer_init, jax.random.key(0))
    wrong = lambda **options: lambda: init(**{**SIZES, **BOTH, **options})
    none = {"source_vocab": None, "num_encoder_layers": 0}
    cases = [
        (wrong(features=0), "features: expected a size"),
        (wrong(features=True), "features: expected a size"),
        (wrong(features="8"), "features: expected a size of at least 1, got '8'"),
        (wrong(num_heads=3), "num_heads: expected a divisor of features = 8, got 3"),
        (wrong(num_heads=None), "num_heads: expected a size"),
        (wrong(ff_features=[4]), "ff_features: expected a size"),
        (wrong(features=7, num_heads=1), "features: expected features of an even"),
        (wrong(features=6, positions="rotary"), "features: expected heads of an even"),
        (wrong(positions="alibi"), "positions: expected one of"),
        (wrong(positions=None), "positions: expected one of"),
        (wrong(positions="learned"), "max_positions: expected a size"),
        (wrong(max_positions=5), "max_positions: expected None with sinusoidal"),
        (wrong(pre_norm=None), "pre_norm: expected True or False, got None"),
        (wrong(final_norm="a"), "final_norm: expected True or False, got 'a'"),
        (wrong(epsilon=0), "epsilon: expected a number above 0"),
        (wrong(epsilon=np.nan), "epsilon: expected a number above 0"),
        (wrong(epsilon="1"), "epsilon: expected a number above 0"),
        (wrong(epsilon=True), "epsilon: expected a number above 0"),
        (wrong(tied=1), "tied: expected True or False, got 1"),
        (wrong(num_encoder_layers=-1), "num_encoder_layers: expected a number of la"),
        (wrong(num_decoder_layers=1.5), "num_decoder_layers: expected a number of la"),
        (wrong(num_decoder_layers=True), "num_decoder_layers: expected a number of"),
        (lambda: init(**SIZES), "num_encoder_layers: expected a layer"),
        (wrong(source_vocab=None), "source_vocab: expected a size"),
        (wrong(**none, target_vocab=None), "target_vocab: expected a size"),
        (wrong(num_encoder_layers=0), "source_vocab: expected None with no encoder"),
        (wrong(num_decoder_layers=0), "target_vocab: expected None with no decoder"),
        (
            wrong(num_decoder_layers=0, target_vocab=None, tied=False),
            "tied: expected True with no decoder",
        ),
        (wrong(dtype=jnp.int8), "dtype: expected"),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            run()


def test_bad_weights():
    """Each is named by where it stands."""
    params = make(**TWO, positions="learned")
    layer, *others = params.decoder.layers
    of_layer = lambda **parts: params._replace(
        decoder=params.decoder._replace(layers=(layer._replace(**parts), *others))
    )
    of_decoder = lambda **parts: params._replace(
        decoder=params.decoder._replace(**parts)
    )
    half = jnp.bfloat16
    first = r"params\.decoder\.layers\[0\]"
    cases = [
        (params.encoder, "params: expected TransformerParams, got TransformerStack"),
        (params._replace(encoder=None, decoder=None), "params: expected an encoder or"),
        (
            of_decoder(layers=()),
            r"params\.decoder\.layers: .*, got one of 0",
        ),
        (of_decoder(layers=[layer]), r"params\.decoder\.layers: .*, got list"),
        (of_decoder(norm=layer), r"params\.decoder\.norm: expected NormParams"),
        (of_decoder(layout=True), r"params\.decoder\.layout: expected NormLayout"),
        (
            of_decoder(layout=jaxseq.NormLayout(True, jnp.ones(()))),
            r"params\.decoder\.layout\.epsilon: expected a number",
        ),
        (of_decoder(embed=np.ones((9, 7))), r"params\.decoder\.embed: expected shape"),
        (of_layer(w_2=layer.w_1), rf"{first}\.w_2: expected shape \(12, 8\)"),
        (of_layer(w_1=to_jax(layer.w_1, half)), r"params\..*dtype .*got"),
        (of_layer(b_2=to_jax(layer.b_2, half)), rf"{first}\.b_2: expected dtype"),
        (of_layer(b_1=None), rf"{first}\.b_1: expected an array, got NoneType"),
        (of_layer(b_1="a"), rf"{first}\.b_1: expected an array, got str"),
        (of_layer(cross=None), r"params\.decoder\.layers\[0\]\.cross_norm: expected N"),
        (
            of_layer(attention=layer.attention._replace(w_o=layer.attention.w_q)),
            rf"{first}\.attention\.w_o: expected shape",
        ),
        (params._replace(w_o=np.ones((8, 5))), r"params\.w_o: expected shape \(8, 9\)"),
        (params._replace(w_o=np.ones((8, 9), "f4")), r"params\.w_o: expected dtype"),
        (params._replace(positions="rotary"), r"params\.positions: expected an array"),
        (params._replace(positions=np.ones(8)), r"params\.positions: expected rank 2"),
    ]
    memory = encode(params, TOKENS)
    for wrong, message in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            jaxseq.transformer_decode(wrong, memory, TARGETS)
    no_biases = layer.attention._replace(b_q=None, b_k=None, b_v=None, b_o=None)
    decode(of_layer(attention=no_biases), memory, TARGETS)


def test_bad_arguments():
    params = make(**BOTH, positions="learned")
    alone = make(target_vocab=5, num_decoder_layers=1)
    deaf = alone._replace(decoder=alone.decoder._replace(embed=None))
    memory = jaxseq.transformer_encode(params, TOKENS)
    values = memory.values
    encode = partial(jaxseq.transformer_encode, params)
    decode = lambda memory, inputs=TARGETS, **how: jaxseq.transformer_decode(
        params, memory, inputs, **how
    )
    zeros = partial(jaxseq.transformer_zeros, params)
    state = zeros(memory, room=4)
    step = partial(jaxseq.transformer_decode_step, params)
    token, long = TARGETS[..., 0], np.zeros((*BATCH, 9), int)
    others = jax.tree.map(lambda a: a[:1], state)
    narrow = jax.tree.map(
        lambda a: a.astype("f4") if a.dtype == jnp.float64 else a, state
    )
    cases = [
        (lambda: encode(TOKENS + SOURCE), "source: expected tokens from 0 to 10"),
        (lambda: encode(None), "source: expected an array, got None"),
        (lambda: encode("abc"), "source: expected an array"),
        (lambda: encode(TOKENS * 1.0), "source: expected an integer dtype"),
        (lambda: encode(TOKENS > 3), "source: expected an integer dtype"),
        (lambda: encode(np.int32(1)), "source: expected shape"),
        (lambda: encode(t for t in TOKENS), "source: expected an array"),
        (lambda: encode(long), "source: expected at most 8 tokens"),
        (lambda: encode(TOKENS, source_lengths=LENGTHS + 1), "source_lengths: expec"),
        (lambda: encode(TOKENS, source_lengths=[1]), "source_lengths: expected shape"),
        (lambda: encode(TOKENS, dropout=0.5), "key: expected a random key"),
        (lambda: encode(TOKENS, activation="relu"), "activation: expected a function"),
        (
            lambda: encode(TOKENS, activation=lambda z: z.astype("f4")),
            r"activation: expected a function to float64 \(2, 2, 4, 12\)",
        ),
        (
            lambda: encode(TOKENS, activation=lambda z: z.sum()),
            r"activation: expected a function to .*, got float64 \(\)",
        ),
        (lambda: jaxseq.transformer_encode(alone, TOKENS), "params: expected weights"),
        (lambda: decode(None), "memory: expected Memory, got NoneType"),
        (lambda: decode(values), "memory: expected Memory, got ArrayImpl"),
        (
            lambda: decode(jaxseq.Memory(values[..., :4])),
            r"memory\.values: expected shape \(2, 2, 4, 8\)",
        ),
        (
            lambda: decode(jaxseq.Memory(values.astype("f4"))),
            r"memory\.values: expected dtype float64, got",
        ),
        (
            lambda: decode(jaxseq.Memory(values, valid=LENGTHS)),
            r"memory\.valid: expected shape \(2, 2, 4\)",
        ),
        (lambda: decode(memory, TARGETS[0]), r"inputs: expected shape \(2, 2, 3\)"),
        (lambda: decode(memory, TARGETS + 9), "inputs: expected tokens from 0 to 8"),
        (lambda: decode(memory, None), "inputs: expected an array"),
        (lambda: decode(memory, room=2), "room: expected at least 3, as many as inp"),
        (lambda: decode(memory, window=0), "window: expected a size of at least 1"),
        (lambda: decode(memory, room=8, window=2), "room: expected None with a window"),
        (lambda: decode(memory, lengths=[4]), r"lengths: expected shape \(2, 2\)"),
        (lambda: decode(memory, room=9), "room: expected at most 8 tokens"),
        (lambda: decode(memory, room=True), "room: expected a size of at least 1"),
        (lambda: decode(memory, activation=None), "activation: expected a function"),
        (
            lambda: jaxseq.transformer_decode(alone, memory, TARGETS % 5),
            "memory: expected None with no encoder",
        ),
        (
            lambda: jaxseq.transformer_decode(deaf, None, TARGETS % 5),
            "params: expected embeddings of the decoder, got None",
        ),
        (lambda: zeros(memory, batch=4, room=2), r"batch: expected \(2, 2\), that of"),
        (lambda: zeros(memory, batch="ab", room=2), "batch: expected a size"),
        (lambda: zeros(memory, batch=[2, 2], room=2), "batch: expected a size"),
        (lambda: zeros(memory, batch=(2, True), room=2), "batch: expected a size"),
        (lambda: zeros(memory, room=9), "room: expected at most 8 tokens"),
        (lambda: zeros(memory, room=0), "room: expected a size"),
        (lambda: zeros(memory, room=None), "room: expected a size"),
        (
            lambda: zeros(memory),
            "room: expected a size of at least 1, or a window, got",
        ),
        (lambda: zeros(memory, room=2, window=2), "room: expected None with a window"),
        (lambda: zeros(memory, window=2.0), "window: expected a size of at least 1"),
        (lambda: step(memory, token), "state: expected TransformerState, got Memory"),
        (
            lambda: step(state._replace(caches=()), token),
            r"state\.caches: expected a tuple of 1 caches, got one of 0",
        ),
        (
            lambda: step(state._replace(caches=state.caches * 2), token),
            r"state\.caches: expected a tuple of 1 caches, got one of 2",
        ),
        (
            lambda: step(state._replace(cross=None), token),
            "state: expected a memory, got no memory",
        ),
        (
            lambda: step(state._replace(caches=others.caches), token),
            r"state\.caches\[0\]\.k: expected shape \(2, 2, 4, 2, 4\)",
        ),
        (
            lambda: step(state._replace(position=np.zeros(BATCH)), token),
            r"state\.position: expected dtype int32",
        ),
        (lambda: step(narrow, token), r"state\.caches\[0\]\.k: expected dtype float64"),
        (lambda: step(state, TARGETS), r"token: expected shape \(2, 2\)"),
        (lambda: step(state, token - 9), "token: expected tokens from 0"),
        (lambda: step(state, token, activation="relu"), "activation: expected a func"),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            run()
