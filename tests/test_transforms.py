"""Every JAX transformation of every cell, against the plain run or the equations."""

import re
from functools import cache, partial

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
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


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])  # relu has a kink
def test_first_and_second_order_by_finite_differences(name):
    """grad, jvp, and each over the other, through the library's own function."""
    cell = CELLS[name]
    problem, loss = problem_and_loss(cell)
    assert_second_derivatives(loss, problem, atol=1e-7)


@pytest.mark.every(2)
@every_cell
def test_jacfwd_hessian_and_checkpoint_agree_with_grad(cell):
    problem, loss = problem_and_loss(cell)

    @jax.jit
    def first(*problem):
        firsts = jax.grad, jax.jacfwd, lambda f: jax.grad(jax.checkpoint(f))
        return [derivative(loss)(*problem) for derivative in firsts]

    @jax.jit
    def second(*problem):
        forward_over_reverse = jax.hessian(loss)(*problem)
        return forward_over_reverse, jax.jacrev(jax.grad(loss))(*problem)

    grads, *others = first(*problem)
    for other in others:
        assert_close(other, grads)
    assert_close(*second(*problem))


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


# an update of one's own that closes over `s`, where JAX itself calls jitted functions
PARAMS, X, STATE = random_problem(CELLS["rnn"], batch=(4,), T=6, D=3, H=4)
S = np.random.default_rng(8).standard_normal(4)
PATHS = {
    "default": {},
    "remat": {"remat": 4},
    "scan": {"implementation": "scan"},
    "remat of the scan": {"implementation": "scan", "remat": 4},
}
every_path = pytest.mark.parametrize("path", PATHS)


def closing(path, s, params, x):
    """Sums over each sequence of what a cell gives whose update closes over `s`."""

    def update(z_x, h, w_h, _):
        a = jax.nn.relu(z_x + w_h(h)) + jnp.where(h > 0, s, jnp.arange(4.0) / 9)
        return jnp.tanh(a) * jax.nn.softmax(s)

    params = jaxseq.CellParams(*params)
    h, y = jaxseq.cell(update, params, x, zeros=4, **PATHS[path])
    return jnp.sin(h).sum(-1) + jnp.sin(y).sum((-1, -2))


def value_and_gradients(run, *args):
    each = tuple(range(len(args)))
    return jax.value_and_grad(lambda *args: run(*args).sum(), each)(*args)


@cache
def plain_closing():
    run = partial(value_and_gradients, partial(closing, "scan"))
    return jax.jit(run)(S, PARAMS, X)


@pytest.mark.every(3)
@every_path
@pytest.mark.parametrize("check", [True, False])
def test_closures_in_shards(path, check):
    """`s` as an argument of the shards, as a constant, and as all that varies."""
    P = jax.sharding.PartitionSpec
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    sharded = partial(jax.shard_map, mesh=mesh, out_specs=P("batch"), check_vma=check)
    run, rows = partial(closing, path), P("batch")
    given = sharded(run, in_specs=(P(), P(), rows))
    constant = sharded(partial(run, jnp.asarray(S)), in_specs=(P(), rows))
    alone = sharded(lambda s, *args: run(s[0], *args), in_specs=(rows, P(), P()))

    @jax.jit
    def everything(s, params, x):
        return (
            value_and_gradients(given, s, params, x),
            value_and_gradients(constant, params, x),
            value_and_gradients(alone, jnp.stack([s, s]), params, x),
        )

    want, (d_s, *others) = plain_closing()
    got, got_constant, (value, (d_twice, *twice)) = everything(S, PARAMS, X)
    close = partial(assert_close, rtol=1e-11)
    close(got, (want, (d_s, *others)))
    close(got_constant, (want, tuple(others)))
    close((value / 2, d_twice[0]), (want, d_s))
    close(jax.tree.map(lambda a: a / 2, twice), others)


@pytest.mark.every(3)
@every_path
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_closures_on_a_mesh(path, kind):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType[kind],))
    over = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    run = partial(closing, path)
    with jax.set_mesh(mesh):
        x, s = jax.device_put(X, over), jnp.asarray(S) * 1
        got = jax.jit(partial(value_and_gradients, run))(s, PARAMS, x)
        constant = partial(value_and_gradients, partial(run, s))
        got_constant = jax.jit(constant)(PARAMS, x)
    want, gradients = plain_closing()
    close = partial(assert_close, rtol=1e-11)
    close(got, (want, gradients))
    close(got_constant, (want, gradients[1:]))


def test_without_jit_and_with_nans_looked_for():
    want = plain_closing()
    run = partial(value_and_gradients, partial(closing, "default"))
    with jax.debug_nans(True):
        assert_close(run(S, PARAMS, X), want)
        with pytest.raises(FloatingPointError):
            run(S, PARAMS, np.full_like(X, np.inf))
    with jax.disable_jit():
        assert_close(run(S, PARAMS, X), want)


@pytest.mark.every(3)
@pytest.mark.parametrize("path, name", [*zip(PATHS, ["lstm", "gru"] * 2, strict=True)])
def test_export_with_symbolic_sizes(name, path):
    """Any batch and any number of steps, in both directions, values and gradients."""
    cell, (B, T) = CELLS[name], jax.export.symbolic_shape("b, t")
    shape = lambda *s, dtype=jnp.float64: jax.ShapeDtypeStruct(s, dtype)

    def run(params, x, lengths, mask, resets):
        def loss(params, x, reverse):
            options = {"lengths": lengths, "mask": mask, "resets": resets}
            out = cell.sequence(params, x, reverse=reverse, **options, **PATHS[path])
            return sum(jnp.sin(a).sum() for a in jax.tree.leaves(out)), out

        grad = jax.grad(loss, (0, 1), has_aux=True)
        return [(grad(params, x, r), loss(params, x, r)) for r in (False, True)]

    def problem(B, T):
        rng = np.random.default_rng(0)
        params, x, _ = random_problem(cell, batch=(B,), T=T, D=2, H=3)
        mask, resets = rng.random((2, B, T)) < 0.6
        return params, x, rng.integers(0, T + 1, B, np.int32), mask, resets

    params, *_ = problem(1, 1)
    flags = shape(B, T, dtype=bool)
    args = params, shape(B, T, 2), shape(B, dtype=jnp.int32), flags, flags
    exported = jax.export.export(jax.jit(run))(*args)
    for sizes in (1, 1), (3, 6):
        got, want = (f(*problem(*sizes)) for f in (exported.call, jax.jit(run)))
        assert_close(got, want)


@every_cell
def test_no_buffer_twice_in_what_is_returned(cell):
    """So that all of it can be donated, to a step or to a run."""
    params, x, _ = random_problem(cell, batch=(3,), T=4, D=2, H=3)
    params = cell.init(jax.random.key(0), 2, 3, dtype=jnp.float64)
    zeros = cell.zeros(params, 3)
    results = params, zeros, cell.step(params, zeros, x[:, 0]), cell.sequence(params, x)
    for tree in results:
        buffers = [a.unsafe_buffer_pointer() for a in jax.tree.leaves(tree)]
        assert len(set(buffers)) == len(buffers)
    step = jax.jit(cell.step, donate_argnums=1)
    state, y = step(params, zeros, x[:, 0])
    assert all(a.is_deleted() for a in jax.tree.leaves(zeros))
    assert_close((state, y), results[2])


@every_path
def test_matmul_precision_where_a_run_is_written(path, monkeypatch):
    """Of each product, also where the program is lowered or differentiated later."""
    monkeypatch.setenv("JAXSEQ_NATIVE", "0")  # the engine has one precision
    cell = CELLS["gru"]
    params = cell.init(jax.random.key(0), 2, 3)
    x = jnp.ones((3, 6, 2), jnp.float32)

    def loss(params, x):
        with jax.default_matmul_precision("highest"):
            end, y = cell.sequence(params, x, **PATHS[path])
        return jnp.sin(y).sum() + jnp.sin(end).sum()

    for run in loss, jax.grad(loss, (0, 1)):
        text = jax.jit(run).lower(params, x).as_text()
        products = re.findall(r"dot_general.*", text)
        assert products and all("HIGHEST" in product for product in products)


def test_float64_where_a_run_is_written():
    params, x, _ = random_problem(CELLS["gru"], batch=(3,), T=6, D=2, H=3)
    low = jax.tree.map(lambda a: a.astype(np.float32), (params, x))
    wide = lambda params, x: jax.tree.map(lambda a: a.astype(float), (params, x))

    def run(params, x):
        with jax.enable_x64(True):
            return jaxseq.gru(*wide(params, x))[1]

    want = jax.jit(jaxseq.gru)(*wide(*low))[1]
    with jax.enable_x64(False):
        got = jax.jit(run)(*low)
    assert_close(got, want)
