"""`remat=K`: the same numbers from the states between pieces of K steps alone."""

from functools import cache, partial
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxseq
from tests.cells import (
    CELLS,
    assert_close,
    compiled,
    every_cell,
    expected,
    random_problem,
    run,
    run_and_gradients,
    to_jax,
    weighted_sum,
)


@compiled
def alone_and_with_gradients(cell, params, x, state=None, **options):
    """What the run returns by itself and under `jax.grad`, and the gradients."""
    alone = run(cell, params, x, state, **options)
    return alone, *run_and_gradients(cell, params, x, state, **options)


implementations = pytest.mark.parametrize("implementation", [None, "scan"])
assert_close_gradients = partial(assert_close, rtol=1e-11, atol=1e-11)

T = 5
LENGTHS = np.array([[0, 5], [4, 2]])
RESETS = np.random.default_rng(5).random((2, 2, T)) < 0.3
OPTIONS = {
    "plain": {},
    "lengths": {"lengths": LENGTHS},
    "resets": {"resets": RESETS},
    "both": {"lengths": LENGTHS, "resets": RESETS},
}


@cache
def without(name, options, reverse):
    """The results of the equations, and the gradients of the plain scan."""
    cell = CELLS[name]
    problem = random_problem(cell, batch=(2, 2), T=T, D=3, H=4)
    settings = {"reverse": reverse, **OPTIONS[options]}
    scan = run_and_gradients(cell, *problem, implementation="scan", **settings)
    return expected(cell, *problem, **settings), scan[1]


@pytest.mark.every(3)
@pytest.mark.parametrize(
    "name, K, reverse, options",
    [
        ("rnn", 1, True, "both"),
        ("rnn", 3, False, "both"),
        ("rnn", 3, True, "both"),
        ("rnn", T, False, "both"),
        ("rnn", T + 1, True, "both"),
        ("rnn_relu", 2, False, "plain"),
        ("rnn_relu", 4, True, "resets"),
        ("lstm", 3, False, "lengths"),
        ("lstm", 4, True, "both"),
        ("gru", 2, True, "both"),
        ("gru", 3, False, "plain"),
    ],
)
@implementations
def test_equal_to_the_run_without(name, K, reverse, options, implementation):
    cell = CELLS[name]
    problem = random_problem(cell, batch=(2, 2), T=T, D=3, H=4)
    outputs, gradients = without(name, options, reverse)
    settings = {"remat": K, "implementation": implementation, "reverse": reverse}
    settings |= OPTIONS[options]
    alone, found, got = alone_and_with_gradients(cell, *problem, **settings)
    assert_close(alone, outputs)
    assert_close(found, outputs)
    assert_close_gradients(got, gradients)


@pytest.mark.parametrize("reverse", [False, True])
def test_one_sequence_without_state(reverse):
    """No batch: the states that are kept are of rank 2."""
    cell = CELLS["lstm"]
    params, x, _ = random_problem(cell, T=T, D=3, H=4)
    options = {"reverse": reverse, "remat": 3}
    plain = {"reverse": reverse, "implementation": "scan"}
    want, gradients = run_and_gradients(cell, params, x, **plain)
    alone, found, got = alone_and_with_gradients(cell, params, x, **options)
    assert_close(alone, want)
    assert_close(found, want)
    assert_close_gradients(got, gradients)


@pytest.mark.every(2)
@implementations
def test_second_order_and_forward_mode(implementation):
    cell = CELLS["rnn"]
    problem = to_jax(random_problem(cell, batch=(2,), T=3, D=1, H=2))
    tangents = jax.tree.map(jnp.cos, problem)
    options = {"resets": np.array([[0, 0, 1], [0, 1, 0]], bool)}

    def loss(problem, **remat):
        curved = jax.tree.map(jnp.sin, problem)
        outputs = cell.sequence(*curved, **options, **remat)
        return weighted_sum(jax.tree.map(jnp.exp, outputs))

    remat = partial(loss, remat=2, implementation=implementation)
    plain = partial(loss, implementation="scan")

    @jax.jit
    def compare():
        first = [jax.jvp(f, (problem,), (tangents,)) for f in (remat, plain)]
        hessian = jax.hessian(remat)(problem), jax.jacrev(jax.grad(remat))(problem)
        return first, hessian, jax.hessian(plain)(problem)

    (got, want), second, second_want = compare()
    assert_close_gradients(got, want)
    for one in second:
        assert_close_gradients(one, second_want)


@pytest.mark.parametrize("axes", [(None, 0, None), (0, None, None), (None, None, 0)])
def test_one_argument_mapped(axes):
    cell = CELLS["rnn"]
    problem = to_jax(random_problem(cell, batch=(2,), T=T, D=3, H=4))
    stack = lambda a: jnp.stack([a, -a, a / 2])
    args = [
        a if axis is None else jax.tree.map(stack, a)
        for a, axis in zip(problem, axes, strict=True)
    ]

    @jax.jit
    def compare():
        def loss(args, **options):
            return weighted_sum(
                jax.vmap(partial(cell.sequence, **options), axes)(*args)
            )

        one = partial(loss, remat=3), partial(loss, implementation="scan")
        return [jax.grad(f)(args) for f in one]

    assert_close_gradients(*compare())


@pytest.mark.parametrize("name", ["rnn", "lstm"])
@implementations
def test_shards_over_batch(name, implementation):
    cell = CELLS[name]
    params, x, state = random_problem(cell, batch=(4,), T=T, D=2, H=3)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    P = jax.sharding.PartitionSpec
    remat = partial(cell.sequence, remat=3, implementation=implementation)
    sharded = jax.shard_map(
        lambda *args: remat(*args),
        mesh=mesh,
        in_specs=(P(), P("batch"), P("batch")),
        out_specs=P("batch"),
    )

    def loss(f, *problem):
        return weighted_sum(f(*problem))

    got, want = (
        jax.jit(jax.value_and_grad(partial(loss, f), argnums=(0, 1, 2)))(
            params, x, state
        )
        for f in (sharded, cell.sequence)
    )
    assert_close_gradients(got, want)


def test_explicit_mesh():
    cell = CELLS["lstm"]
    params, x, state = random_problem(cell, batch=(4,), T=T, D=2, H=3)
    explicit = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=explicit)
    grad = jax.grad(
        lambda params, x, state, **remat: sum(
            a.sum() for a in jax.tree.leaves(cell.sequence(params, x, state, **remat))
        ),
        argnums=(0, 1, 2),
    )
    with jax.set_mesh(mesh):
        x_s, state_s = jax.device_put((x, state), jax.sharding.PartitionSpec("batch"))
        got = jax.jit(partial(grad, remat=3))(params, x_s, state_s)
    want = jax.jit(partial(grad, implementation="scan"))(params, x, state)
    assert_close_gradients(got, want)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@implementations
def test_16_bits(dtype, implementation):
    """Types as without; sums over pieces in float32, rounded once."""
    cell = CELLS["gru"]
    params, x, state = random_problem(cell, batch=(3,), T=12, D=3, H=4)
    params, x = to_jax((params, x), dtype)
    state = to_jax(state, jnp.float32)

    def loss(problem, **options):
        end, y = cell.sequence(*problem, **options)
        leaves = [a.astype(jnp.float32) for a in jax.tree.leaves((end, y))]
        return sum(jnp.sum(jnp.sin(a)) for a in leaves)

    grad = jax.jit(jax.grad(loss), static_argnames=("remat", "implementation"))
    got = grad((params, x, state), remat=5, implementation=implementation)
    want = grad((params, x, state), implementation="scan")
    chex.assert_trees_all_equal_shapes_and_dtypes(got, want)
    eps = float(jnp.finfo(dtype).eps)
    for g, w in zip(*map(jax.tree.leaves, map(to_jax, (got, want))), strict=True):
        assert jnp.abs(g - w).max() <= 2 * eps * jnp.abs(w).max()


def test_weight_gradients_are_summed_in_float32_over_pieces():
    """4000 equal terms in pieces of 8: a bfloat16 sum would stop at 2048."""
    n, dtype = 4000, jnp.bfloat16
    zeros = jnp.zeros((1, 1), dtype)
    params = jaxseq.RNNParams(zeros, zeros, jnp.zeros(1, dtype))

    def loss(params):
        remat = partial(jaxseq.rnn, activation=lambda z: z, remat=8)
        _, y = remat(params, jnp.ones((n, 1), dtype))
        return y.astype(jnp.float32).sum()

    grads = jax.jit(jax.grad(loss))(params)
    assert grads.b.astype(jnp.float32).item() == float(jnp.asarray(n, dtype))


def test_memory_of_a_long_input():
    """Compiled and not run: that of a piece and of the states between pieces."""
    cell = CELLS["lstm"]
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), 64, 64))
    x = jax.ShapeDtypeStruct((8, 16384, 64), jnp.float32)

    def bytes_of(**options):
        loss = lambda params, x: cell.sequence(params, x, **options)[0].h.sum()
        compiled = jax.jit(jax.grad(loss)).lower(params, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert 40 * bytes_of(remat=128) <= bytes_of(implementation="scan")


@every_cell
@pytest.mark.parametrize("remat", [0, -1, 2.5, True, "8"])
def test_wrong_remat(cell, remat):
    params, x, state = random_problem(cell, batch=(2,), T=4, D=3, H=4)
    want = f"remat: expected None or a number of steps, got {remat!r}"
    with pytest.raises(ValueError) as e:
        cell.sequence(params, x, state, remat=remat)
    assert str(e.value) == want


# the pieces of 12 steps; each is of a length that is compiled once
EDGES = [(0, 12), (0, 1, 12), (0, 5, 6, 12), (0, 1, 6, 11, 12)]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_stream_cut_anywhere_equals_the_whole(data):
    cell = CELLS[data.draw(st.sampled_from(["rnn", "lstm", "gru"]), "cell")]
    reverse = data.draw(st.booleans(), "reverse")
    edges = data.draw(st.sampled_from(EDGES), "edges")
    seed = data.draw(st.integers(0, 99), "seed")
    params, x, state = random_problem(cell, batch=(2,), T=12, D=3, H=4, seed=seed)
    resets = np.random.default_rng(seed).random((2, 12)) < 0.3
    options = {"resets": resets, "reverse": reverse, "implementation": "scan"}
    whole = run(cell, params, x, state, **options)
    order = slice(None, None, -1 if reverse else 1)
    outputs = []
    for start, stop in list(pairwise(edges))[order]:
        now = slice(start, stop)
        # read backwards, a reset at the first step of the piece before ends this one
        state, y = run(
            cell,
            params,
            x[:, now],
            state,
            resets=resets[:, now],
            reverse=reverse,
            remat=data.draw(st.sampled_from([None, 1, 2, 5]), "remat"),
        )
        if reverse:
            first = resets[:, start, None]
            state = jax.tree.map(lambda s, first=first: np.where(first, 0, s), state)
        outputs.append(y)
    y = np.concatenate(outputs[order], axis=1)
    if reverse:
        # the whole has no step before its first, for which to start anew
        assert_close(y, whole[1])
    else:
        assert_close((state, y), whole)
