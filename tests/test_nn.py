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
surely = nnx.jit(lambda module, x: module(x, deterministic=True))
in_training = nnx.jit(lambda module, x: module(x, deterministic=False))
close = partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-6)


def weights(module, name, layer, direction):
    held = module.layers[layer][direction]
    kind = MODULES[name][2]
    return kind(*(getattr(held, field)[...] for field in kind._fields))


@every_module
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_the_functions(name, bidirectional):
    make, sequence, _ = MODULES[name]
    module = make(
        3, 5, num_layers=2, bidirectional=bidirectional, rngs=nnx.Rngs(0),
        param_dtype=jnp.float64,
    )  # fmt: skip
    assert (module.in_features, module.hidden_features) == (3, 5)
    held = [w for layer in module.layers for w in layer]
    assert len({w.w_h[0, 0].item() for w in held}) == (4 if bidirectional else 2)
    x, options = X.astype(np.float64), {"lengths": LENGTHS, "resets": RESETS}
    want, states = x, []
    for layer in range(2):
        ends, ys = zip(
            *(
                compiled(sequence)(
                    weights(module, name, layer, d), want, reverse=d == 1, **options
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
    first, _ = compiled(sequence)(weights(module, name, 0, 0), x, start, **options)
    assert_close(again[0][0][0] if bidirectional else again[0][0], first)


def test_rnn_activation():
    module = jaxseq.nn.RNN(3, 5, activation=jax.nn.relu, rngs=nnx.Rngs(0))
    want = jaxseq.rnn(weights(module, "rnn", 0, 0), X, activation=jax.nn.relu)[1]
    close(module(X)[1], want)


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
    for options in ({"num_layers": 2}, {"dropout": 0.5}):
        module = MODULES[name][0](3, 5, rngs=nnx.Rngs(0), **options)
        assert not jax.tree.leaves(nnx.state(module, nnx.RngState))
    want = module(X)  # eager
    graph, state = nnx.split(module)
    close(jax.jit(lambda x: nnx.merge(graph, state)(x))(X), want)
    close(jax.jit(lambda s, x: nnx.merge(graph, s)(x))(state, X), want)
    dropping = MODULES[name][0](3, 5, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0))
    run = jax.jit(lambda x: dropping(x, deterministic=True))
    close(run(X), surely(dropping, X))


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
    layers = [partial(sequence, weights(module, name, i, 0)) for i in range(2)]
    surely(module, X)  # draws none
    close(call(module, X), jaxseq.stack(layers, X, dropout=0.25, key=key))


def test_dropout_is_between_layers_and_only_in_training():
    make = partial(jaxseq.nn.LSTM, 3, 64, dropout=0.5)
    one = make(rngs=nnx.Rngs(0))
    close(call(one, X)[1], surely(one, X)[1])
    two = make(num_layers=2, rngs=nnx.Rngs(0))
    assert not np.allclose(call(two, X)[1], call(two, X)[1])  # a new mask each time
    still = surely(two, X)
    two.eval()
    close(call(two, X), still)
    assert not np.allclose(in_training(two, X)[1], still[1])
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
    assert len(params) == 2 * len(MODULES[name][2]._fields)
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
        r"^dropout: .* got -0.1": lambda: make(3, 5, dropout=-0.1),
        r"^dtype: .* got .*int32": lambda: make(3, 5, dtype=jnp.int32),
        r"^param_dtype: .* got .*int32": lambda: make(3, 5, param_dtype=jnp.int32),
        r"^x: expected a dtype among .*, got int": lambda: make(3, 5)(
            np.ones((2, 3), int)
        ),
        r"^x: expected shape \(\.\.\., T, 3\), got \(2, 4\)": lambda: make(3, 5)(
            np.ones((2, 4), np.float32)
        ),
        r"^state: expected a tuple with states of 1 layers, got ": lambda: make(3, 5)(
            X, np.zeros((4, 5), np.float32)
        ),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
