"""The default path, a chunk of steps at a time, against the equations and the scan."""

import math
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq import _fused
from jaxseq._cell import Maps, affine, form, hidden, make_masks, select, widen
from jaxseq._recurrence import Settings, complete, previous, recurrence
from jaxseq._rnn import RNNUpdate
from jaxseq._scan import scan, scan_tangents
from tests.cells import (
    CELLS,
    assert_close,
    both_directions,
    every_cell,
    expected,
    random_problem,
    to_jax,
    weighted_sum,
)

assert_close_gradients = partial(assert_close, rtol=1e-11, atol=1e-11)
F = jax.ShapeDtypeStruct((4,), jnp.float64)

# steps, whether reverse, which options: around and over the chunks of 4 and of 8
CASES = {
    "rnn": [
        (1, True, "lengths"),
        (3, True, "both"),
        (4, False, "both"),
        (8, True, "lengths"),
        (9, False, "resets"),
        (17, True, "both"),
    ],
    "rnn_relu": [(5, False, "both"), (17, True, "resets")],
    "lstm": [(1, False, "both"), (5, True, ""), (9, False, "both"), (21, True, "both")],
    "gru": [(3, False, "lengths"), (5, True, "both"), (17, False, "")],
}
CASES = [(name, *case) for name, cases in CASES.items() for case in cases]


def make_options(kind, batch, T, seed=7):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, T + 1, batch)
    lengths.flat[:3] = 0, T, max(T - 2, 0)
    resets = rng.random((*batch, T)) < 0.3
    return {
        "": {},
        "lengths": {"lengths": lengths},
        "resets": {"resets": resets},
        "both": {"lengths": lengths, "resets": resets},
    }[kind]


def gradients(cell, problem, implementation=None, **options):
    """Of a loss that depends on all outputs, by all arguments."""
    return outputs_and_gradients(cell, problem, implementation, **options)[1]


def outputs_and_gradients(cell, problem, implementation=None, **options):
    run = partial(cell.sequence, implementation=implementation, **options)
    outputs, pullback = jax.vjp(run, *problem)
    return outputs, pullback(jax.grad(weighted_sum)(outputs))


def check_run(cell, problem, **options):
    """Outputs with and without gradients, and the gradients."""

    @jax.jit
    def everything(problem):
        alone = cell.sequence(*problem, **options)
        outputs, got = outputs_and_gradients(cell, problem, **options)
        return (alone, outputs), got, gradients(cell, problem, "scan", **options)

    outputs, got, want = everything(problem)
    for output in outputs:
        assert_close(output, expected(cell, *problem, **options))
    assert_close_gradients(got, want)


def test_cases_are_around_the_chunks():
    assert (_fused.STEPS, _fused.FORWARD_STEPS) == (4, 8)


@pytest.mark.parametrize("reverse", [False, True])
def test_small_batches_project_several_chunks_at_once(reverse):
    # without gradients: blocks of 64 steps, a rest of 2 chunks, a rest of 3 steps
    batch, T = (), 64 + 2 * 8 + 3
    for cell in CELLS["lstm"], CELLS["gru"]:
        problem = random_problem(cell, batch=batch, T=T, D=3, H=4)
        resets = np.random.default_rng(7).random(T) < 0.1
        options = {"lengths": np.array(T - 1), "resets": resets, "reverse": reverse}
        output = jax.jit(partial(cell.sequence, **options))(*problem)
        assert_close(output, expected(cell, *problem, **options))


@pytest.mark.parametrize("name, T, reverse, kind", CASES)
def test_any_number_of_steps(name, T, reverse, kind):
    cell, batch = CELLS[name], (2, 2)
    problem = random_problem(cell, batch=batch, T=T, D=3, H=4)
    check_run(cell, problem, reverse=reverse, **make_options(kind, batch, T))


def test_one_sequence_and_no_bias():
    for cell, absent in (CELLS["lstm"], "b"), (CELLS["gru"], "b_hn"):
        params, x, state = random_problem(cell, T=6, D=3, H=4)
        zero = params._replace(**{absent: 0 * getattr(params, absent)})
        params = params._replace(**{absent: None})
        run = partial(gradients, cell, resets=np.arange(6) == 4)
        got = jax.jit(run)((params, x, state))
        want = jax.jit(partial(run, implementation="scan"))((zero, x, state))
        assert getattr(got[0], absent) is None
        without = want[0]._replace(**{absent: None})
        assert_close_gradients(got, (without, *want[1:]))


def test_one_step_in_two_directions_without_state():
    cell = CELLS["lstm"]
    params, x, _ = random_problem(cell, batch=(3,), T=6, D=3, H=4)
    options = make_options("both", (3,), 6)

    def loss(implementation, params, x):
        run = partial(cell.sequence, params, x, implementation=implementation)
        return weighted_sum([run(reverse=r, **options) for r in (False, True)])

    got, want = (
        jax.jit(jax.grad(partial(loss, i), argnums=(0, 1)))(params, x)
        for i in (None, "scan")
    )
    assert_close_gradients(got, want)


@pytest.fixture
def slabs(monkeypatch):
    """What `_slabs` returned, in the order of the calls."""
    calls, inner = [], _fused._slabs

    def recorded(*args):
        calls.append(inner(*args))
        return calls[-1]

    monkeypatch.setattr(_fused, "_slabs", recorded)
    return calls


@pytest.mark.parametrize(
    "name, batch, reverse, kind",
    [("lstm", (2, 32), True, "both"), ("gru", (96,), False, "lengths")],
)
def test_two_halves(slabs, name, batch, reverse, kind):
    cell = CELLS[name]
    problem = random_problem(cell, batch=batch, T=6, D=3, H=128)
    check_run(cell, problem, reverse=reverse, **make_options(kind, batch, 6))
    half = batch[0] // 2
    assert len(slabs) >= 3  # forward alone, forward and backward
    assert all(s == [slice(0, half), slice(half, None)] for s in slabs)


@pytest.mark.parametrize(
    "shape, Z, save, halves",
    [
        ((32, 128), 512, False, True),
        ((32, 128), 512, True, False),  # too small with gradients
        ((30, 128), 512, False, False),  # too few rows
        ((33, 128), 512, False, False),  # odd
        ((3, 16, 128), 512, False, False),  # odd in front
        ((2, 16, 128), 512, False, True),
        ((512, 512), 2048, True, False),  # large enough for all cores by itself
        ((64, 128), 512, True, True),
        ((64,), 256, False, False),
    ],
)
def test_which_runs_go_in_halves(shape, Z, save, halves):
    assert len(_fused._slabs(jnp.zeros(shape), Z, save)) == 1 + halves


def test_halves_forward_only(slabs):
    cell = CELLS["lstm"]
    problem = random_problem(cell, batch=(32,), T=9, D=3, H=128)
    options = make_options("both", (32,), 9)
    got = jax.jit(partial(cell.sequence, **options))(*problem)
    assert_close(got, expected(cell, *problem, **options))
    assert slabs and all(len(s) == 2 for s in slabs)


def test_halves_of_a_batch_sharded_by_an_explicit_mesh():
    cell = CELLS["lstm"]
    params, x, state = random_problem(cell, batch=(64,), T=2, D=3, H=128)
    explicit = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=explicit)
    with jax.set_mesh(mesh):
        spec = jax.sharding.PartitionSpec("batch")
        x, state = jax.device_put((x, state), spec)
        got = jax.jit(cell.sequence)(params, x, state)
    assert_close(got, expected(cell, params, np.asarray(x), jax.device_get(state)))


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize(
    "name, reverse", [("rnn", False), ("lstm", True), ("gru", False), ("gru", True)]
)
def test_forward_and_backward_of_each_platform(name, reverse, cpu):
    """Alone, without the rule that joins them: Lᵀ against the transpose of L."""
    cell, T, batch = CELLS[name], 6, (3,)
    params, x, state = to_jax(random_problem(cell, batch=batch, T=T, D=3, H=4))
    update, maps = pieces_of(cell, params)
    options = make_options("both", batch, T)
    lengths, resets = map(jnp.asarray, options.values())
    masks = make_masks(lengths, resets, T, reverse)
    rng = np.random.default_rng(2)
    d_out = jax.tree.map(
        lambda a: jnp.asarray(rng.standard_normal(a.shape)),
        cell.sequence(params, x, state),
    )

    @jax.jit
    def run():
        flags = {"reverse": reverse, "cpu": cpu}
        forward = partial(_fused.forward, update, maps, x, state, masks, **flags)
        end, y, nothing = forward(save=False)
        *saving, saved = forward(save=True)
        assert nothing is None
        h = previous(saving[1], hidden(state), masks, reverse)
        saved = complete(saved, form(update, maps.b, state, x.dtype), h)
        d_in = _fused.backward(update, maps, saved, masks, *d_out, **flags)
        return (end, y), tuple(saving), d_in

    *outputs, got = run()
    for output in outputs:
        want = expected(
            cell, *map(numpy, (params, x, state)), reverse=reverse, **options
        )
        assert_close(output, want)
    z_x = affine(select(masks.valid, x), maps.w_x, maps.b)
    tangent = lambda *b: scan_tangents(
        update, maps, z_x, state, masks, reverse, x.dtype, b
    )
    want = jax.linear_transpose(tangent, z_x, z_x, state)(d_out)
    assert_close_gradients(got, want)


def numpy(tree):
    return jax.tree.map(np.asarray, tree)


def pieces_of(cell, params):
    """The update and the widened maps of a cell."""
    if cell.params is jaxseq.RNNParams:
        update = RNNUpdate(jnp.tanh)
        return update, widen(Maps(*params))
    if cell.params is jaxseq.GRUParams:
        return jaxseq._gru.gru_update, widen(jaxseq._gru.gru_maps(params))
    return jaxseq._lstm.lstm_update, widen(Maps(*params))


PAIR = jaxseq.LSTMState(F, F)
FORMS = {
    "rnn": (RNNUpdate(jnp.tanh), 1, F, (True, (False,))),
    "relu": (RNNUpdate(jax.nn.relu), 1, F, (True, (False,))),
    "lstm": (jaxseq._lstm.lstm_update, 4, PAIR, (True, (False, True))),
    "gru": (jaxseq._gru.gru_update, 3, F, (False, (True,))),
    "product": (lambda z_x, z_h, h: z_x * z_h, 1, F, (False, (False,))),
    "difference": (lambda z_x, z_h, h: z_x - z_h, 1, F, (False, (False,))),
    "two sums": (
        lambda z_x, z_h, h: jnp.tanh(z_x) + jnp.tanh(z_h),
        1,
        F,
        (False, (False,)),
    ),
    "state times sum": (lambda z_x, z_h, h: h * (z_x + z_h), 1, F, (True, (True,))),
    "square of state": (lambda z_x, z_h, h: z_x + z_h + h**2, 1, F, (True, (True,))),
    "input alone": (lambda z_x, z_h, h: jnp.tanh(z_x), 1, F, (False, (False,))),
}


@pytest.mark.parametrize("update, gates, state, want", FORMS.values(), ids=FORMS)
def test_form(update, gates, state, want):
    got = form(update, jnp.zeros(gates * 4), state, jnp.float64)
    assert (got.additive, got.reads) == want


def leak(z_x, z_h, h):
    return 0.5 * h + jnp.tanh(z_x + z_h)


@pytest.mark.parametrize("name", ["product", "two sums", "state times sum", "leak"])
def test_other_updates(name):
    """What a wrong form would spoil: updates that no cell has."""
    update = FORMS[name][0] if name in FORMS else leak
    params, x, state = to_jax(random_problem(CELLS["rnn"], T=6, D=3, H=4, batch=(2,)))
    maps, masks = widen(Maps(*params, params.b / 2)), make_masks(None, None, 6, False)

    def loss(run, *args):
        return weighted_sum(run(*args, masks))

    def default(*args):
        return recurrence(Settings(update, False, kernel=False), *args)[:2]

    def plain(*args):
        return scan(update, *args, reverse=False)

    got, want = (
        jax.jit(jax.grad(partial(loss, run), argnums=(0, 1, 2)))(maps, x, state)
        for run in (default, plain)
    )
    assert_close_gradients(got, want)


def directional(loss, tangent):
    return lambda p: jax.jvp(loss, (p,), (tangent,))[1]


def along_gradient(loss, tangent):
    return lambda p: sum(
        map(jnp.vdot, *map(jax.tree.leaves, (jax.grad(loss)(p), tangent)))
    )


@pytest.mark.parametrize(
    "name, reverse", [("rnn", True), ("lstm", False), ("gru", True)]
)
def test_higher_orders(name, reverse):
    """Inputs and loss that are curved themselves, so that no term is zero."""
    cell, T = CELLS[name], 3
    problem = to_jax(random_problem(cell, batch=(2,), T=T, D=2, H=2))
    resets = np.array([[False, False, True], [False, True, False]])
    options = {"lengths": np.array([3, 2]), "resets": resets, "reverse": reverse}

    def loss(problem, implementation=None):
        curved = jax.tree.map(lambda a: a + jnp.sin(a) ** 2 / 2, problem)
        end, y = cell.sequence(*curved, implementation=implementation, **options)
        return weighted_sum(jax.tree.map(lambda a: jnp.exp(a) * a, (end, y)))

    u, v = (
        to_jax(random_problem(cell, batch=(2,), T=T, D=2, H=2, seed=s)) for s in (1, 2)
    )

    @jax.jit
    def second(problem):
        return (
            jax.grad(along_gradient(loss, v))(problem),
            jax.jvp(jax.grad(loss), (problem,), (v,))[1],
            jax.grad(directional(loss, v))(problem),
        )

    plain = partial(loss, implementation="scan")
    want = jax.jit(jax.grad(directional(plain, v)))(problem)
    for got in second(problem):
        assert_close_gradients(got, want)
    if name == "rnn":
        third = jax.grad(along_gradient(along_gradient(loss, u), v))
        want = jax.grad(directional(directional(plain, u), v))
        assert_close_gradients(jax.jit(third)(problem), jax.jit(want)(problem))


ONE_ARGUMENT = [
    ("x", "y"),
    ("x", "end"),
    ("w_x", "end"),
    ("w_h", "y"),
    ("b", "end"),
    ("b", "y"),
    ("state", "y"),
    ("state", "end"),
]


def test_one_argument_and_one_output_alone():
    """Linear losses: constant cotangents, and zeros for all that is left out."""
    cell = CELLS["lstm"]
    params, x, state = to_jax(random_problem(cell, batch=(2,), T=2, D=2, H=2))
    arguments = {**params._asdict(), "x": x, "state": state}

    def loss(name, part, implementation, value):
        given = arguments | {name: value}
        weights = cell.params(*(given[n] for n in cell.params._fields))
        end, y = cell.sequence(
            weights, given["x"], given["state"], implementation=implementation
        )
        return weighted_sum(y if part == "y" else end)

    def run(implementation):
        return [
            jax.grad(partial(loss, name, part, implementation))(arguments[name])
            for name, part in ONE_ARGUMENT
        ]

    assert_close_gradients(*(jax.jit(partial(run, i))() for i in (None, "scan")))


@pytest.mark.parametrize("name", ["x", "w_h", "b", "state"])
def test_second_order_by_one_argument(name):
    cell = CELLS["rnn"]
    params, x, state = to_jax(random_problem(cell, batch=(2,), T=2, D=2, H=2))
    arguments = {**params._asdict(), "x": x, "state": state}

    def loss(implementation, value):
        given = arguments | {name: value}
        weights = cell.params(*(given[n] for n in cell.params._fields))
        return weighted_sum(
            cell.sequence(
                weights, given["x"], given["state"], implementation=implementation
            )
        )

    v = jax.tree.map(jnp.cos, arguments[name])

    @jax.jit
    def run(value):
        default, plain = partial(loss, None), partial(loss, "scan")
        got = (
            jax.grad(along_gradient(default, v))(value),
            jax.jvp(jax.grad(default), (value,), (v,))[1],
        )
        return got, jax.grad(directional(plain, v))(value)

    got, want = run(arguments[name])
    for one in got:
        assert_close_gradients(one, want)


def in_checkpoint(run, params, x, state):
    return jax.checkpoint(run)(params, x, state)


def in_scan(run, params, x, state):
    """Weights that the body closes over, and a state that it carries."""
    body = lambda state, x: run(params, x, state)
    return jax.lax.scan(body, state, jnp.stack([x, -x]))


def in_while(run, params, x, state):
    """Forward mode only, which a while loop has."""
    body = lambda _, state: run(params, x, state)[0]
    return jax.lax.fori_loop(0, 2, body, state)


def in_cond(run, params, x, state):
    other = lambda params, x, state: run(params, 2 * x, state)
    return jax.lax.cond(x.sum() > 1e3, other, run, params, x, state)


def over_x(run, params, x, state):
    return jax.vmap(run, (None, 0, None))(params, jnp.stack([x, -x]), state)


def over_params(run, params, x, state):
    stacked = jax.tree.map(lambda w: jnp.stack([w, -w]), params)
    return jax.vmap(run, (0, None, None))(stacked, x, state)


def over_state(run, params, x, state):
    stacked = jax.tree.map(lambda s: jnp.stack([s, -s]), state)
    return jax.vmap(run, (None, None, 0))(params, x, stacked)


def over_time_major(run, params, x, state):
    """A mapped axis that is neither first nor shared."""
    states = jax.tree.map(lambda s: jnp.stack([s, -s], -1), state)
    xs = jnp.stack([x, -x], -2)
    return jax.vmap(run, (None, -2, -1), -1)(params, xs, states)


INSIDE = {
    in_checkpoint: "rnn",
    in_scan: "lstm",
    in_cond: "rnn",
    over_x: "rnn",
    over_params: "gru",
    over_state: "lstm",
    over_time_major: "rnn",
}


@pytest.mark.parametrize("inside", INSIDE)
def test_gradient_inside(inside):
    cell = CELLS[INSIDE[inside]]
    problem = to_jax(random_problem(cell, batch=(3,), T=5, D=2, H=3))
    options = make_options("both", (3,), 5)

    def loss(implementation, problem):
        run = partial(cell.sequence, implementation=implementation, **options)
        return weighted_sum(inside(run, *problem))

    @jax.jit
    def run(problem):
        return [jax.grad(partial(loss, i))(problem) for i in (None, "scan")]

    assert_close_gradients(*run(problem))


def test_forward_mode_in_a_while_loop():
    cell = CELLS["gru"]
    problem = to_jax(random_problem(cell, batch=(3,), T=5, D=2, H=3))
    tangents = to_jax(random_problem(cell, batch=(3,), T=5, D=2, H=3, seed=1))

    def run(implementation):
        sequence = partial(cell.sequence, implementation=implementation)
        return jax.jvp(partial(in_while, sequence), problem, tangents)

    assert_close_gradients(*(jax.jit(partial(run, i))() for i in (None, "scan")))


def test_lengths_and_resets_mapped_alone():
    cell = CELLS["rnn"]
    params, x, state = random_problem(cell, T=6, D=2, H=3)
    options = make_options("both", (4,), 6)

    def run(implementation):
        def one(lengths, resets):
            problem, flags = (params, x, state), {"lengths": lengths, "resets": resets}
            return gradients(cell, problem, implementation, reverse=True, **flags)

        return jax.vmap(one)(*options.values())

    assert_close_gradients(*(jax.jit(partial(run, i))() for i in (None, "scan")))


def test_learned_activation():
    """A parameter that the activation closes over is differentiated as any other."""
    params, x, state = to_jax(random_problem(CELLS["rnn"], T=5, D=2, H=3))

    def loss(implementation, slope, params):
        activation = lambda z: jnp.where(z > 0, z, slope * z)
        run = partial(jaxseq.rnn, activation=activation, implementation=implementation)
        return weighted_sum(run(params, x, state))

    got, want = (
        jax.grad(partial(loss, i), argnums=(0, 1))(0.3, params) for i in (None, "scan")
    )
    assert_close_gradients(got, want)
    with jax.checking_leaks():  # that no cache keeps the tracer in the activation
        jitted = jax.jit(jax.grad(partial(loss, None), argnums=(0, 1)))(0.3, params)
    assert_close_gradients(jitted, want)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@both_directions
def test_weight_gradient_in_16_bits_is_of_the_rounded_state(dtype, reverse):
    """One step: the gradient of w_h is the h that the product read, times d_z."""
    cell = CELLS["rnn"]
    params, x, state = random_problem(cell, batch=(1,), T=1, D=3, H=4)
    params, x = to_jax((params, x), dtype)
    state = to_jax(state, jnp.float32)

    def loss(w_h, implementation):
        run = partial(cell.sequence, params._replace(w_h=w_h), x, state)
        end, _ = run(reverse=reverse, implementation=implementation)
        return end.sum()

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    got, want = (grad(params.w_h, i) for i in (None, "scan"))
    chex.assert_trees_all_equal(got, want)


def temporary(run, *shapes):
    """Bytes of scratch memory of a compiled function, which is not run."""
    compiled = jax.jit(run).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def shapes_of(cell, *batch, T, D, H):
    """Shapes of params and x, in float32."""
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), D, H))
    return params, jax.ShapeDtypeStruct((*batch, T, D), jnp.float32)


# what the scan keeps of relu is a mask of a byte; of the GRU about as much as this
@pytest.mark.parametrize(
    "name, most", [("rnn", 1), ("rnn_relu", 1.75), ("lstm", 1), ("gru", 1.1)]
)
def test_gradient_needs_less_memory_than_the_scan(name, most):
    cell = CELLS[name]
    params, x = shapes_of(cell, 16, T=256, D=32, H=64)
    dy = jax.ShapeDtypeStruct((16, 256, 64), x.dtype)

    def bytes_of(implementation):
        def gradient(params, x, dy):
            run = lambda *args: cell.sequence(*args, implementation=implementation)[1]
            y, pullback = jax.vjp(run, params, x)
            return y, pullback(dy)

        return temporary(gradient, params, x, dy)

    assert bytes_of(None) < most * bytes_of("scan")


@every_cell
def test_forward_alone_keeps_nothing_of_a_step(cell):
    """Scratch memory is of a chunk, whatever the number of steps."""
    once, twice = (
        temporary(cell.sequence, *shapes_of(cell, 16, T=T, D=32, H=64))
        for T in (256, 512)
    )
    # y may be built in scratch memory, but nothing else of its size
    assert twice - once <= 256 * 16 * 64 * 4


def test_mapped_sequences_make_one_weight_gradient():
    cell = CELLS["lstm"]
    params, x = shapes_of(cell, 64, T=8, D=16, H=128)

    def loss(params, x):
        return jax.vmap(partial(cell.sequence, params))(x)[1].sum()

    one = sum(4 * math.prod(w.shape) for w in jax.tree.leaves(params))
    assert temporary(jax.grad(loss), params, x) < 64 * one / 4


def products_in_loops(text):
    """Sorted shapes of the matrix products that HLO runs in loops, and elsewhere."""
    bodies, calls, products = set(), {}, {}
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = head[1]
            calls[name], products[name] = set(), []
            continue
        called = re.findall(
            r"(?:calls|to_apply|body|condition|\w+_computation)=%?([\w.\-]+)", line
        )
        for many in re.findall(r"(?:calls|branch_computations)=\{([^}]*)\}", line):
            called += re.findall(r"[\w.\-]+", many)
        if called:
            calls[name].update(called)
        bodies.update(re.findall(r"body=%?([\w.\-]+)", line))
        product = re.match(
            r"\s*(?:ROOT )?%?[\w.\-]+ = \(?\w+\[([\d,]*)\].* (?:dot|custom-call)\(",
            line,
        )
        if product:
            shape = [int(n) for n in product[1].split(",") if n]
            products[name].append(tuple(sorted(shape)))
    inside, found = list(bodies), set()
    while inside:
        name = inside.pop()
        if name not in found:
            found.add(name)
            inside += calls[name]
    of = lambda names: [shape for name in names for shape in products[name]]
    return of(found), of(products.keys() - found)


@pytest.mark.parametrize("cell", [CELLS[name] for name in ("rnn", "lstm", "gru")])
def test_weight_gradients_are_products_after_the_loop(cell):
    params, x = shapes_of(cell, 5, T=64, D=40, H=24)
    lengths = jax.ShapeDtypeStruct((5,), jnp.int32)
    Z = cell.gates * 24
    weights = {(24, Z), tuple(sorted((40, Z)))}

    def loss(implementation, params, x, lengths):
        run = partial(cell.sequence, params, x, lengths=lengths)
        return run(implementation=implementation)[1].sum()

    def products(implementation):
        grad = jax.jit(jax.grad(partial(loss, implementation)))
        text = grad.lower(params, x, lengths).compile().as_text()
        inside, outside = products_in_loops(text)
        return weights & set(inside), weights & set(outside)

    assert products(None) == (set(), weights)
    # the scan adds up the gradient of w_h in its loop, which is seen
    assert (24, Z) in products("scan")[0]


@every_cell
def test_eager_equals_jit(cell):
    problem = random_problem(cell, batch=(3,), T=6, D=2, H=3)
    run = partial(cell.sequence, **make_options("both", (3,), 6))
    assert_close(run(*problem), jax.jit(run)(*problem))


@every_cell
def test_eager_gradient_equals_jit(cell):
    problem = random_problem(cell, batch=(3,), T=6, D=2, H=3)
    grad = partial(gradients, cell, **make_options("both", (3,), 6))
    assert_close(grad(problem), jax.jit(grad)(problem))
