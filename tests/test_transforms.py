"""Every JAX transformation of every cell, against the plain run or the equations."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cells import (
    CELLS,
    assert_close,
    every_cell,
    expected,
    random_problem,
    weighted_sum,
)
from tests.models import assert_second_derivatives

LENGTHS = np.array([4, 0, 2])
RESETS = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], bool)


def problem_and_loss(cell):
    problem = random_problem(cell, batch=(3,), T=4, D=2, H=3)

    def loss(params, x, state):
        return weighted_sum(
            cell.sequence(params, x, state, lengths=LENGTHS, resets=RESETS)
        )

    return problem, loss


@every_cell
def test_one_trace_per_shape(cell):
    params, x, state = random_problem(cell, batch=(3,), T=4, D=2, H=3)
    chex.clear_trace_counter()  # it counts by the function's name

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params, x, state, lengths, resets):
        return cell.sequence(params, x, state, lengths=lengths, resets=resets)

    for lengths, resets in [(LENGTHS, RESETS), (LENGTHS[::-1].copy(), ~RESETS)]:
        got = run(params, x, state, lengths, resets)
        want = expected(cell, params, x, state, lengths=lengths, resets=resets)
        assert_close(got, want)


@every_cell
@pytest.mark.parametrize("implementation", [None, "scan"])
def test_a_second_call_compiles_nothing(cell, implementation, caplog):
    problem = random_problem(cell, batch=(3,), T=4, D=2, H=3)
    options = {"lengths": LENGTHS, "resets": RESETS, "implementation": implementation}
    with jax.log_compiles():
        first = cell.sequence(*problem, **options)
        assert "Compiling jit(over_time)" in caplog.text
        caplog.clear()
        second = cell.sequence(*problem, **options)
    assert "Compiling" not in caplog.text and "Finished tracing" not in caplog.text
    chex.assert_trees_all_equal(first, second)


@every_cell
def test_vmap_over_everything(cell):
    """An ensemble: each member its own weights, input, state, lengths and resets."""
    problems = [random_problem(cell, T=4, D=2, H=3, seed=s) for s in range(3)]
    stacked = jax.tree.map(lambda *a: np.stack(a), *problems)

    def run(problem, lengths, resets):
        return cell.sequence(*problem, lengths=lengths, resets=resets)

    got = jax.vmap(run)(stacked, LENGTHS, RESETS)
    want = [
        expected_one(cell, p, LENGTHS[i], RESETS[i]) for i, p in enumerate(problems)
    ]
    assert_close(got, jax.tree.map(lambda *a: np.stack(a), *want))


def expected_one(cell, problem, length, resets):
    params, x, state = problem
    one = lambda a: np.asarray(a)[None]
    got = expected(
        cell,
        params,
        one(x),
        jax.tree.map(one, state),
        lengths=one(length),
        resets=one(resets),
    )
    return jax.tree.map(lambda a: a[0], got)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])  # relu has a kink
def test_first_and_second_order_by_finite_differences(name):
    """grad, jvp, and each over the other, through the library's own function."""
    cell = CELLS[name]
    problem, loss = problem_and_loss(cell)
    assert_second_derivatives(loss, problem, atol=1e-7)


@every_cell
def test_jacfwd_hessian_and_checkpoint_agree_with_grad(cell):
    problem, loss = problem_and_loss(cell)
    grads = jax.jit(jax.grad(loss))(*problem)
    assert_close(jax.jit(jax.jacfwd(loss))(*problem), grads)
    assert_close(jax.jit(jax.grad(jax.checkpoint(loss)))(*problem), grads)
    forward_over_reverse = jax.jit(jax.hessian(loss))(*problem)
    reverse_over_reverse = jax.jit(jax.jacrev(jax.grad(loss)))(*problem)
    assert_close(forward_over_reverse, reverse_over_reverse)


@every_cell
def test_shards_over_batch(cell):
    params, x, state = random_problem(cell, batch=(4,), T=4, D=2, H=3)
    devices = jax.devices()
    assert len(devices) == 2
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    P = jax.sharding.PartitionSpec
    sharded = partial(jax.shard_map, mesh=mesh, out_specs=P("batch"))
    run = sharded(cell.sequence, in_specs=(P(), P("batch"), P("batch")))
    want = expected(cell, params, x, state)
    assert_close(jax.jit(run)(params, x, state), want)
    run = sharded(
        lambda params, x: cell.sequence(params, x, resets=jnp.zeros(x.shape[:2], bool)),
        in_specs=(P(), P("batch")),
    )
    zeros = jax.tree.map(np.zeros_like, state)
    assert_close(jax.jit(run)(params, x), expected(cell, params, x, zeros))

    def loss(params, x):
        return weighted_sum(run(params, x))

    def whole_loss(params, x):
        return weighted_sum(cell.sequence(params, x))

    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)
    whole = jax.jit(jax.grad(whole_loss, argnums=(0, 1)))
    assert_close(grads, whole(params, x))


@every_cell
@pytest.mark.parametrize("name", ["params", "lengths", "resets"])
def test_shards_one_argument_alone(cell, name):
    """Two members with an argument each; the others are the same on all devices."""
    problems = [random_problem(cell, batch=(3,), T=4, D=2, H=3, seed=s) for s in (0, 1)]
    params, x, state = problems[0]
    values = {
        "params": [params for params, _, _ in problems],
        "lengths": [LENGTHS, LENGTHS[::-1]],
        "resets": [RESETS, ~RESETS],
    }[name]
    arguments = {"params": params, "x": x, "state": state}

    def run(value):
        value = jax.tree.map(lambda a: a[0], value)
        got = cell.sequence(**arguments | {name: value})
        return jax.tree.map(lambda a: a[None], got)

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("member",))
    P = jax.sharding.PartitionSpec("member")
    run = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P, out_specs=P))
    want = [expected(cell, **arguments | {name: value}) for value in values]
    stack = partial(jax.tree.map, lambda *a: np.stack(a))
    assert_close(run(stack(*values)), stack(*want))


@every_cell
def test_explicit_mesh(cell):
    """The batch sharded by a mesh whose axes are part of the types."""
    params, x, state = random_problem(cell, batch=(4,), T=4, D=2, H=3)
    lengths = np.array([1, 4, 0, 2])
    explicit = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=explicit)
    with jax.set_mesh(mesh):
        shard = partial(jax.device_put, device=jax.sharding.PartitionSpec("batch"))
        x_s, state_s, lengths_s = shard(x), shard(state), shard(lengths)
        run = jax.jit(cell.sequence)
        zeros = jax.tree.map(np.zeros_like, state)
        want = expected(cell, params, x, zeros, lengths=lengths)
        assert_close(run(params, x_s, lengths=lengths_s), want)
        want = expected(cell, params, x, state, lengths=lengths)
        assert_close(run(params, x_s, state_s, lengths=lengths_s), want)
        loss = lambda params, x: cell.sequence(params, x)[1].sum()
        grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x_s)
    assert_close(grads, jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x))


@every_cell
def test_grad_under_vmap_is_the_gradient_of_each(cell):
    params, x, state = random_problem(cell, batch=(3,), T=4, D=2, H=3)

    def loss(params, x, state):
        return weighted_sum(cell.sequence(params, x, state))

    grad = jax.jit(jax.grad(loss))
    got = jax.jit(jax.vmap(grad, (None, 0, 0)))(params, x, state)
    for i in range(3):
        alone = grad(params, x[i], jax.tree.map(lambda s, i=i: s[i], state))
        assert_close(jax.tree.map(lambda g, i=i: g[i], got), alone)
