"""`remat=K`: the same numbers from the states between pieces of K steps alone."""

from functools import partial
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxseq
from tests.cells import CELLS, assert_close, random_problem, to_jax, weighted_sum

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
implementations = pytest.mark.parametrize("implementation", [None, "scan"])
assert_close_gradients = partial(assert_close, rtol=1e-11, atol=1e-11)

T = 7
LENGTHS = np.array([[0, 7], [5, 3]])
RESETS = np.random.default_rng(5).random((2, 2, T)) < 0.3
BOTH = {"lengths": LENGTHS, "resets": RESETS}


def outputs_and_gradients(cell, problem, **options):
    def loss(problem):
        end, y = cell.sequence(*problem, **options)
        return weighted_sum((end, y)), (end, y)

    grads, outputs = jax.grad(loss, has_aux=True)(problem)
    return cell.sequence(*problem, **options), outputs, grads


@pytest.mark.parametrize(
    "name, K, reverse, options",
    [
        ("rnn", 1, True, BOTH),
        ("rnn", 3, False, BOTH),
        ("rnn", 3, True, BOTH),
        ("rnn", T, False, BOTH),
        ("rnn", T + 1, True, BOTH),
        ("rnn_relu", 2, False, {}),
        ("rnn_relu", 4, True, {"resets": RESETS}),
        ("lstm", 3, False, {"lengths": LENGTHS}),
        ("lstm", 5, True, BOTH),
        ("gru", 2, True, BOTH),
        ("gru", 6, False, {}),
    ],
)
@implementations
def test_equal_to_the_run_without(name, K, reverse, options, implementation):
    cell = CELLS[name]
    problem = random_problem(cell, batch=(2, 2), T=T, D=3, H=4)
    run = partial(outputs_and_gradients, cell, reverse=reverse, **options)
    got = jax.jit(partial(run, remat=K, implementation=implementation))(problem)
    want = jax.jit(partial(run, implementation="scan"))(problem)
    assert_close(got[:2], want[:2])
    assert_close_gradients(got[2], want[2])


@pytest.mark.parametrize("reverse", [False, True])
def test_one_sequence_without_state(reverse):
    """No batch: the states that are kept are of rank 2."""
    cell = CELLS["lstm"]
    params, x, _ = random_problem(cell, T=T, D=3, H=4)
    run = partial(outputs_and_gradients, cell, reverse=reverse)
    got = jax.jit(partial(run, remat=3))((params, x))
    want = jax.jit(partial(run, implementation="scan"))((params, x))
    assert_close(got[:2], want[:2])
    assert_close_gradients(got[2], want[2])


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
    def run():
        first = [jax.jvp(f, (problem,), (tangents,)) for f in (remat, plain)]
        hessian = jax.hessian(remat)(problem), jax.jacrev(jax.grad(remat))(problem)
        return first, hessian, jax.hessian(plain)(problem)

    (got, want), second, second_want = run()
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
    def run():
        def loss(args, **options):
            return weighted_sum(
                jax.vmap(partial(cell.sequence, **options), axes)(*args)
            )

        one = partial(loss, remat=3), partial(loss, implementation="scan")
        return [jax.grad(f)(args) for f in one]

    assert_close_gradients(*run())


@pytest.mark.parametrize("name", ["rnn", "lstm"])
@implementations
def test_shards_over_batch(name, implementation):
    cell = CELLS[name]
    params, x, state = random_problem(cell, batch=(4,), T=T, D=2, H=3)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    P = jax.sharding.PartitionSpec
    remat = partial(cell.sequence, remat=3, implementation=implementation)
    run = jax.shard_map(
        lambda *args: remat(*args),
        mesh=mesh,
        in_specs=(P(), P("batch"), P("batch")),
        out_specs=P("batch"),
    )

    def loss(run, *problem):
        return weighted_sum(run(*problem))

    got, want = (
        jax.jit(jax.value_and_grad(partial(loss, f), argnums=(0, 1, 2)))(
            params, x, state
        )
        for f in (run, cell.sequence)
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
    assert_close_gradients(got, grad(params, x, state, implementation="scan"))


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
        run = partial(jaxseq.rnn, activation=lambda z: z, remat=8)
        _, y = run(params, jnp.ones((n, 1), dtype))
        return y.astype(jnp.float32).sum()

    grads = jax.grad(loss)(params)
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


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_stream_cut_anywhere_equals_the_whole(data):
    cell = CELLS[data.draw(st.sampled_from(["rnn", "lstm", "gru"]), "cell")]
    reverse = data.draw(st.booleans(), "reverse")
    n = data.draw(st.integers(1, 12), "T")
    cuts = data.draw(st.sets(st.integers(1, max(1, n - 1)), max_size=3), "cuts")
    problem = random_problem(cell, batch=(2,), T=n, D=3, H=4, seed=n)
    params, x, state = problem
    rng = np.random.default_rng(n)
    resets = rng.random((2, n)) < 0.3
    whole = cell.sequence(
        *problem, resets=resets, reverse=reverse, implementation="scan"
    )
    edges = [0, *sorted(c for c in cuts if c < n), n]
    order = slice(None, None, -1 if reverse else 1)
    outputs = []
    for start, stop in list(pairwise(edges))[order]:
        now = slice(start, stop)
        remat = data.draw(st.sampled_from([None, 1, 2, 5]), "remat")
        # read backwards, a reset at the first step of the piece before ends this one
        state, y = cell.sequence(
            params,
            x[:, now],
            state,
            resets=resets[:, now],
            reverse=reverse,
            remat=remat,
        )
        if reverse:
            first = resets[:, start, None]
            state = jax.tree.map(lambda s, first=first: np.where(first, 0, s), state)
        outputs.append(y)
    end, y = state, np.concatenate(outputs[order], axis=1)
    if reverse:
        # the whole has no step before its first, for which to start anew
        end, whole = y, whole[1]
        assert_close(end, whole)
    else:
        assert_close((end, y), whole)
