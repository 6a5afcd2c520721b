"""The modules against the functions, and under every way that Flax runs a module."""

import pickle
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxseq.nn
from tests.cells import assert_close

MODULES = {
    "rnn": (jaxseq.nn.RNN, jaxseq.rnn, jaxseq.RNNParams),
    "lstm": (jaxseq.nn.LSTM, jaxseq.lstm, jaxseq.LSTMParams),
    "gru": (jaxseq.nn.GRU, jaxseq.gru, jaxseq.GRUParams),
}
every_module = pytest.mark.parametrize("name", MODULES)
X = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
LENGTHS = np.array([6, 0, 3, 1])
RESETS = np.random.default_rng(1).random((4, 6)) < 0.3
compiled = cache(partial(jax.jit, static_argnames="reverse"))
# Compiled, and once for all tests that have the same shapes.
call = nnx.jit(lambda module, *args, **how: module(*args, **how))
close = partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-6)


def surely(module, x):
    """Without dropout."""
    module.eval()
    found = call(module, x)
    module.train()
    return found


def weights(module, layer, direction):
    params = module.params[layer]
    return params[direction] if module.bidirectional else params


@every_module
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_the_functions(name, bidirectional):
    make, sequence, _ = MODULES[name]
    module = make(
        3, 5, num_layers=2, bidirectional=bidirectional, rngs=nnx.Rngs(0),
        param_dtype=jnp.float64,
    )  # fmt: skip
    assert (module.in_features, module.hidden_features) == (3, 5)
    is_cell = lambda a: isinstance(a, MODULES[name][2])
    held = jax.tree.leaves(module.params, is_leaf=is_cell)
    assert len({w.w_h[0, 0].item() for w in held}) == (4 if bidirectional else 2)
    assert module.num_layers == 2
    x, options = X.astype(np.float64), {"lengths": LENGTHS, "resets": RESETS}
    want, states = x, []
    for layer in range(2):
        ends, ys = zip(
            *(
                compiled(sequence)(
                    weights(module, layer, d), want, reverse=d == 1, **options
                )
                for d in range(2 if bidirectional else 1)
            ),
            strict=True,
        )
        states.append(ends if bidirectional else ends[0])
        want = jnp.concatenate(ys, axis=-1)
    assert_close(call(module, x, **options), (tuple(states), want))
    # and from a state, as the functions do
    again = call(module, x, tuple(states), **options)
    assert not np.allclose(again[1], want)
    start = states[0][0] if bidirectional else states[0]
    first, _ = compiled(sequence)(weights(module, 0, 0), x, start, **options)
    assert_close(again[0][0][0] if bidirectional else again[0][0], first)


def test_rnn_activation():
    module = jaxseq.nn.RNN(3, 5, activation=jax.nn.relu, rngs=nnx.Rngs(0))
    want = jaxseq.rnn(weights(module, 0, 0), X, activation=jax.nn.relu)[1]
    close(module(X)[1], want)


def own(D, H, **options):
    """A module of an Elman network with relu, whose cell is one's own."""
    update = lambda z_x, h, w_h, _: jax.nn.relu(z_x + w_h(h))
    init = lambda key, D, H, dtype: jaxseq.cell_init(key, D, H, (H, H), dtype=dtype)
    zeros = lambda params, batch: jaxseq.cell_zeros(H, batch, dtype=params.b.dtype)
    options = {"rngs": nnx.Rngs(0), **options}
    return jaxseq.nn.Cell(jaxseq.Cell(update, init, zeros), D, H, **options)


@pytest.mark.parametrize("name", [*MODULES, "own"])
def test_a_step_is_a_scan_body(name):
    """From zeros, with resets to a start: what the whole sequence gives."""
    make = own if name == "own" else MODULES[name][0]
    how = {"num_layers": 2, "dropout": 0.5, "param_dtype": jnp.float64}
    module = make(3, 5, **how, rngs=nnx.Rngs(0))
    module.eval()
    x, zeros = X.astype(np.float64), module.zeros(len(X))
    start = jax.tree.map(lambda a: 0.5 + a[0], zeros)

    @nnx.jit
    def both(module, x):
        step = lambda state, now: module.step(state, now[0], resets=now[1], start=start)
        by_time = x.swapaxes(0, 1), RESETS.swapaxes(0, 1)
        end, y = jax.lax.scan(step, zeros, by_time)
        whole = module(x, module.zeros((len(X),)), resets=RESETS, start=start)
        return (end, y.swapaxes(0, 1)), whole

    assert_close(*both(module, x))
    module.train()  # a step leaves dropout out
    once = nnx.jit(lambda module, x: module.step(zeros, x))
    assert_close(once(module, x[:, 0]), once(module, x[:, 0]))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_zeros_are_the_state_that_no_step_changes(bidirectional):
    how = {"num_layers": 2, "bidirectional": bidirectional, "rngs": nnx.Rngs(0)}
    for make, dtypes in ((jaxseq.nn.LSTM, {}), (jaxseq.nn.GRU, {"dtype": "bfloat16"})):
        module = make(3, 5, **how, **dtypes)
        for batch, shape in ((4, (4,)), ((2, 3), (2, 3)), ((), ())):
            x = np.zeros((*shape, 0, 3), np.float32)
            chex.assert_trees_all_equal(module.zeros(batch), call(module, x)[0])


def test_the_state_of_one_layer():
    """A tuple of one, in which that of two directions is a pair."""
    make = partial(jaxseq.nn.LSTM, 3, 5, rngs=nnx.Rngs(0))
    (state,), _ = call(make(), X)
    assert state.h.shape == state.c.shape == (4, 5)
    ((forward, backward),), y = call(make(bidirectional=True), X)
    np.testing.assert_array_equal(y[:, -1, :5], forward.h)
    np.testing.assert_array_equal(y[:, 0, 5:], backward.h)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_reversed_is_the_sequence_the_other_way(bidirectional):
    how = {"num_layers": 2, "bidirectional": bidirectional, "rngs": nnx.Rngs(0)}
    module = jaxseq.nn.GRU(3, 5, **how, param_dtype=jnp.float64)
    x = X.astype(np.float64)
    state, y = call(module, x[:, ::-1])
    backward = nnx.jit(lambda module, x: module(x, reverse=True))
    assert_close(backward(module, x), (state, y[:, ::-1]))


@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_merge(merge):
    how = {"num_layers": 2, "bidirectional": True, "merge": merge}
    module = jaxseq.nn.GRU(3, 5, **how, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    y = X.astype(np.float64)
    for pair in module.params:
        both = [
            compiled(jaxseq.gru)(w, y, reverse=d == 1)[1] for d, w in enumerate(pair)
        ]
        y = (both[0] + both[1]) / (2 if merge == "mean" else 1)
    assert_close(call(module, X.astype(np.float64))[1], y)


def test_options_are_those_of_the_functions():
    module = jaxseq.nn.LSTM(3, 5, forget_bias=2.5, rngs=nnx.Rngs(0))
    (params,) = module.params
    np.testing.assert_array_equal(params.b, [0] * 5 + [2.5] * 5 + [0] * 10)
    run = nnx.jit(lambda module, x: module(x, implementation="scan", remat=2))
    close(run(module, X), call(module, X))
    with pytest.raises(ValueError, match=r"^implementation: expected"):
        module(X, implementation="fast")
    module.weights[0].b[...] = jnp.zeros(20, jnp.float32)
    assert not np.asarray(module.params[0].b).any()


def test_dropout_per_sequence_and_a_rate_that_changes():
    """Between layers that give their inputs back, with no compilation for a rate."""
    module = jaxseq.nn.RNN(
        64, 64, num_layers=2, activation=lambda a: a, dropout=jnp.float32(0.25),
        dropout_per="sequence", rngs=nnx.Rngs(0),
    )  # fmt: skip
    for held in module.weights:
        held.w_x[...] = jnp.eye(64, dtype=jnp.float32)
        held.w_h[...] = jnp.zeros((64, 64), jnp.float32)
    traces = []

    @nnx.jit
    def run(module):
        traces.append(module)
        return module(jnp.ones((50, 3, 64), jnp.float32))[1]

    y = run(module)
    np.testing.assert_array_equal(y, jnp.broadcast_to(y[:, :1], y.shape))
    # 3,200 draws: a standard deviation of 0.008
    np.testing.assert_allclose((y == 0).mean(), 0.25, atol=0.04)
    module.dropout = jnp.float32(0.75)
    np.testing.assert_allclose((run(module) == 0).mean(), 0.75, atol=0.04)
    assert len(traces) == 1


def test_crf_is_that_of_the_functions():
    crf = jaxseq.nn.CRF(5, rngs=nnx.Rngs(0))
    scores = np.random.default_rng(2).standard_normal((4, 6, 5))
    tags = np.random.default_rng(3).integers(0, 5, (4, 6))
    params = jax.tree.map(lambda w: w.astype(jnp.float64), crf.params)
    how = {"lengths": LENGTHS}
    every = jaxseq.crf_log_partition(params, scores, **how)
    score = jaxseq.crf_score(params, scores, tags, **how)
    assert_close(crf.log_partition(scores, **how), every)
    assert_close(crf.score(scores, tags, **how), score)
    assert_close(crf.loss(scores, tags, **how), every - score)
    assert_close(crf.decode(scores, **how), jaxseq.crf_decode(params, scores, **how))
    narrow = jaxseq.nn.CRF(5, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert narrow.params.start.dtype == jnp.bfloat16
    assert narrow.decode(scores)[0].shape == (4, 6)


def test_a_tagger_with_a_crf_learns():
    """Tags in turn, of which the scores of a step, all zeros, say nothing."""
    rngs = nnx.Rngs(0)
    model = nnx.List([nnx.Linear(3, 3, rngs=rngs), jaxseq.nn.CRF(3, rngs=rngs)])
    tags = np.arange(7) % 3 + np.zeros((4, 1), int)
    inputs = np.zeros((4, 7, 3), np.float32)

    with jax.numpy_dtype_promotion("standard"):  # optax: decay ** count
        optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)

        @nnx.jit
        def train_step(model, optimizer):
            loss = lambda model: model[1].loss(model[0](inputs), tags).mean()
            value, grads = nnx.value_and_grad(loss)(model)
            optimizer.update(model, grads)
            return value

        train_step = nnx.cached_partial(train_step, model, optimizer)
        for _ in range(100):
            last = train_step()
    assert last < 0.1
    np.testing.assert_array_equal(model[1].decode(model[0](inputs))[0], tags)


@every_module
def test_trains_under_nnx_jit_with_optax(name):
    """Learns to sum its inputs; a loss a hundredth of the first is far from luck."""
    module = MODULES[name][0](3, 16, num_layers=2, dropout=0.0, rngs=nnx.Rngs(0))
    head = nnx.Linear(16, 1, rngs=nnx.Rngs(1))
    model = nnx.List([module, head])
    target = np.tanh(X.cumsum(1).sum(-1, keepdims=True) / 4)

    with jax.numpy_dtype_promotion("standard"):  # optax: decay ** count
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.jit
        def train_step(model, optimizer):
            def loss(model):
                return ((model[1](model[0](X)[1]) - target) ** 2).mean()

            value, grads = nnx.value_and_grad(loss)(model)
            optimizer.update(model, grads)
            return value

        first = train_step(model, optimizer)
        train_step = nnx.cached_partial(train_step, model, optimizer)
        for _ in range(300):
            last = train_step()
    assert last < first / 100


@every_module
def test_needs_no_random_key_to_run(name):
    """The defect of nnx.RNN: a closed-over module under jit asks for a stream."""
    module = MODULES[name][0](3, 5, num_layers=2, rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.state(module, nnx.RngState))
    want = module(X)  # eager
    graph, state = nnx.split(module)
    close(jax.jit(lambda x: nnx.merge(graph, state)(x))(X), want)
    close(jax.jit(lambda s, x: nnx.merge(graph, s)(x))(state, X), want)
    dropping = MODULES[name][0](3, 5, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0))
    dropping.eval()
    close(jax.jit(lambda x: dropping(x))(X), call(dropping, X))


@every_module
def test_vmap_makes_an_ensemble(name):
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(key):
        return MODULES[name][0](3, 5, rngs=nnx.Rngs(key))

    keys = jax.random.split(jax.random.key(0), 3)
    ensemble = make(keys)
    run = nnx.vmap(lambda m, x: m(x), in_axes=(0, None))
    _, y = nnx.jit(run)(ensemble, X)
    for i, key in enumerate(keys):
        close(y[i], call(MODULES[name][0](3, 5, rngs=nnx.Rngs(key)), X)[1])
    assert not np.allclose(y[0], y[1]) and not np.allclose(y[1], y[2])


@every_module
def test_pickles(name):
    module = MODULES[name][0](3, 5, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0))
    copy = pickle.loads(pickle.dumps(module))
    chex.assert_trees_all_equal(call(copy, X), call(module, X))  # with the same mask


@every_module
def test_dropout_is_that_of_stack_with_keys_of_its_own_stream(name):
    make, sequence, _ = MODULES[name]
    rngs = partial(nnx.Rngs, params=0, dropout=1)
    module = make(3, 64, num_layers=2, dropout=0.25, rngs=rngs())
    key = rngs().dropout.fork()()
    layers = [partial(sequence, weights(module, i, 0)) for i in range(2)]
    surely(module, X)  # draws none
    close(call(module, X), jaxseq.stack(layers, X, dropout=0.25, key=key))


def test_dropout_is_between_layers_and_only_in_training():
    make = partial(jaxseq.nn.LSTM, 3, 64, dropout=0.5)
    two = make(num_layers=2, rngs=nnx.Rngs(0))
    assert not np.allclose(call(two, X)[1], call(two, X)[1])  # a new mask each time
    still = surely(two, X)
    two.eval()
    close(call(two, X), still)
    two.train()
    assert not np.allclose(call(two, X)[1], still[1])
    twins = (make(num_layers=2, rngs=nnx.Rngs(0)) for _ in range(2))
    close(*(call(module, X) for module in twins))


@every_module
@pytest.mark.parametrize(
    "dtype, param_dtype",
    [
        (None, jnp.bfloat16),
        (jnp.float32, jnp.bfloat16),
        (jnp.bfloat16, jnp.float32),
        (jnp.float16, jnp.bfloat16),
    ],
)
def test_dtypes(name, dtype, param_dtype):
    module = MODULES[name][0](
        3, 5, num_layers=2, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0)
    )
    params = jax.tree.leaves(nnx.state(module, nnx.Param))
    kind = MODULES[name][2]
    assert len(params) == 2 * (len(kind._fields) - len(kind._field_defaults))
    chex.assert_type(params, param_dtype)
    for x_dtype in (jnp.float32, jnp.bfloat16):
        state, y = call(module, X.astype(x_dtype))
        chex.assert_type(y, dtype or x_dtype)
        chex.assert_type(jax.tree.leaves(state), jnp.float32)


def test_errors_name_the_argument():
    make = partial(jaxseq.nn.GRU, rngs=nnx.Rngs(0))
    for match, call in {
        r"^in_features: expected a size of at least 1, got 0": lambda: make(0, 5),
        r"^hidden_features: expected a size of at least 1, got 0": lambda: make(3, 0),
        r"^num_layers: .* got 0": lambda: make(3, 5, num_layers=0),
        r"^dropout: .* got 1.0": lambda: make(3, 5, dropout=1.0),
        r"^dropout: .* got None": lambda: make(3, 5, num_layers=2, dropout=None),
        r"^dropout: expected 0 with a single layer.* got 0.5": lambda: make(
            3, 5, dropout=0.5
        ),
        r"^dropout_per: .* got 'layer'": lambda: make(3, 5, dropout_per="layer"),
        r"^merge: expected one of .* got None": lambda: make(3, 5, merge=None),
        r"^merge: expected 'concat', or a bidir.* got 'sum'": lambda: make(
            3, 5, merge="sum"
        ),
        r"^bidirectional: .* got 'x'": lambda: make(3, 5, bidirectional="x"),
        r"^rngs: expected nnx.Rngs.* got int": lambda: make(3, 5, rngs=0),
        r"^num_layers: .* got None": lambda: make(3, 5, num_layers=None),
        r"^num_layers: .* got True": lambda: make(3, 5, num_layers=True),
        r"^activation: .* got 'relu'": lambda: jaxseq.nn.RNN(
            3, 5, activation="relu", rngs=nnx.Rngs(0)
        ),
        r"^forget_bias: .* got '1'": lambda: jaxseq.nn.LSTM(
            3, 5, forget_bias="1", rngs=nnx.Rngs(0)
        ),
        r"^rngs: .* got NoneType": lambda: jaxseq.nn.CRF(5, rngs=None),
        r"^num_tags: .* got 0": lambda: jaxseq.nn.CRF(0, rngs=nnx.Rngs(0)),
        r"^scores: .* got list": lambda: jaxseq.nn.CRF(2, rngs=nnx.Rngs(0)).decode(
            [[0.0, 1.0]]
        ),
        r"^batch: .* got 'ab'": lambda: make(3, 5).zeros("ab"),
        r"^bidirectional: expected False for single steps": lambda: make(
            3, 5, bidirectional=True
        ).step(None, X[:, 0]),
        r"^state: expected a state.* got None": lambda: make(3, 5).step(None, X[:, 0]),
        r"^state: expected shape \(4, 5\), got \(4, 6\)": lambda: make(3, 5).step(
            (np.zeros((4, 6), np.float32),), X[:, 0]
        ),
        r"^state: expected shape \(4, 5\), got \(4, 7\)": lambda: own(3, 5)(
            X, (np.zeros((4, 7), np.float32),)
        ),
        r"^state: expected shape \(4, 5\), got \(4, 8\)": lambda: own(3, 5).step(
            (np.zeros((4, 8), np.float32),), X[:, 0]
        ),
        r"^resets: expected shape \(4, 6\), as x is": lambda: make(3, 5)(
            X, resets=RESETS.T
        ),
        r"^reverse: .* got 'yes'": lambda: make(3, 5)(X, reverse="yes"),
        r"^x: expected an array, got NoneType": lambda: make(3, 5)(None),
        r"^x: expected an array, got tuple": lambda: make(3, 5)((X,)),
        r"^x: expected an array, got list": lambda: make(3, 5)([X]),
        r"^dropout: .* got -0.1": lambda: make(3, 5, dropout=-0.1),
        r"^dtype: .* got .*int32": lambda: make(3, 5, dtype=jnp.int32),
        r"^param_dtype: .* got .*int32": lambda: make(3, 5, param_dtype=jnp.int32),
        r"^x: expected a dtype among .*, got int": lambda: make(3, 5)(
            np.ones((2, 3), int)
        ),
        r"^x: expected shape \(\.\.\., T, 3\), got \(2, 4\)": lambda: make(3, 5)(
            np.ones((2, 4), np.float32)
        ),
        r"^state: expected a tuple of 1, one for each layer, got ": lambda: make(3, 5)(
            X, np.zeros((4, 5), np.float32)
        ),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
