"""The loop over the steps and the native engine, against the equations and the scan."""

import math
import re
from functools import partial

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq._base.masks import select
from jaxseq._engine import loop, work
from jaxseq._engine.backends import CPU_LOOP, LOOP
from jaxseq._engine.extras import summed_part
from jaxseq._engine.plain import plain
from jaxseq._engine.products import project
from jaxseq._engine.recall import complete, told_by
from jaxseq._engine.steps import reads
from jaxseq._engine.types import Inputs, Weights
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
from tests.engine import ONE, UPDATES, parts, step_of
from tests.models import assert_gradients

assert_close_gradients = partial(assert_close, rtol=1e-11, atol=1e-11)

# steps, whether reverse, which options; a block of input maps is of 16 steps
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


@pytest.fixture(autouse=True, params=["loop", "native"])
def engine(request, monkeypatch):
    """What runs where no implementation is given; both go by one rule."""
    if request.param == "loop":
        monkeypatch.setenv("JAXSEQ_NATIVE", "0")


of_the_loop = pytest.mark.parametrize("engine", ["loop"], indirect=True)


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """Input maps of a few steps at a time, though those of all steps are small."""
    monkeypatch.setattr(work, "MAPS_BYTES", 0)


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


@pytest.mark.parametrize(
    "T, batch, size",
    [
        (64, (), None),
        (65, (), 64),
        (17, (2, 2), 16),
        (16, (2, 2), None),
        (9, (8,), 8),
        (9, (100,), 8),
        (8, (100,), None),
        (9, (0,), None),
        (9, (127,), 8),
        (9, (128,), 1),
        (3, (16, 16), 1),
        (1, (256,), None),
    ],
)
def test_block_of(T, batch, size):
    """Of about 64 rows, and 8 steps at least; all steps at once if there are fewer.

    One step with many rows.
    """
    weights = Weights((jnp.zeros((3, 16)),), (None,), (), ())
    of_step = (jnp.zeros(16),)
    assert work.block_of(T, batch, weights, of_step) == size
    without = weights._replace(w_x=(None,))
    assert work.block_of(T, batch, without, of_step) is None


@pytest.mark.parametrize(
    "T, batch, size", [(10, (4,), None), (11, (4,), 8), (40, (), None)]
)
def test_small_maps_are_made_at_once(T, batch, size, monkeypatch):
    """Up to `MAPS_BYTES`, here 10 steps of 4 rows of 16."""
    monkeypatch.setattr(work, "MAPS_BYTES", 10 * 4 * 16 * 4)
    monkeypatch.setattr(work, "PROJECTED_ROWS", 1)
    weights = Weights((jnp.zeros((3, 16)),), (None,), (), ())
    of_step = (jnp.zeros(16, jnp.float32),)
    assert work.block_of(T, batch, weights, of_step) == size


@pytest.mark.every(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch", [(3,), (3, 1)])
def test_many_rows_in_place(reverse, batch, monkeypatch):
    """Input maps in the steps; x, y and the gradient of y where they lie."""
    monkeypatch.setattr(work, "MANY_ROWS", 3)
    for cell in CELLS["lstm"], CELLS["gru"]:
        problem = random_problem(cell, batch=batch, T=7, D=2, H=3)
        options = {**make_options("both", batch, 7), "reverse": reverse}
        check_run(cell, problem, **options)


@pytest.mark.parametrize("reverse", [False, True])
def test_one_sequence_in_blocks(reverse):
    """Without gradients, input maps of 64 steps; the last block begins early."""
    T = 64 + 2 * 8 + 3
    for cell in CELLS["lstm"], CELLS["gru"]:
        problem = random_problem(cell, T=T, D=3, H=4)
        resets = np.random.default_rng(7).random(T) < 0.1
        options = {"lengths": np.array(T - 1), "resets": resets, "reverse": reverse}
        output = jax.jit(partial(cell.sequence, **options))(*problem)
        assert_close(output, expected(cell, *problem, **options))


@pytest.mark.every(2)
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
def halves(monkeypatch):
    """What `in_halves` returned, and None for each run that did not ask it."""
    calls, forward, in_halves = [], loop.forward, loop.in_halves

    def recorded(*args):
        calls[-1] = in_halves(*args)
        return calls[-1]

    def recorded_forward(*args):
        calls.append(None)
        return forward(*args)

    monkeypatch.setattr(loop, "in_halves", recorded)
    monkeypatch.setattr(loop, "forward", recorded_forward)
    return calls


@of_the_loop
@pytest.mark.parametrize(
    "name, batch, reverse, kind",
    [("lstm", (2, 32), True, "both"), ("gru", (96,), False, "lengths")],
)
def test_two_halves(halves, name, batch, reverse, kind):
    """Of the run alone; with gradients it is whole."""
    cell = CELLS[name]
    problem = random_problem(cell, batch=batch, T=6, D=3, H=128)
    check_run(cell, problem, reverse=reverse, **make_options(kind, batch, 6))
    half = batch[0] // 2
    two = [slice(0, half), slice(half, batch[0])] if half > 1 else [0, 1]
    assert two in halves and None in halves


@pytest.mark.parametrize(
    "shape, Z, two",
    [
        ((32, 128), 512, True),
        ((32, 64), 512, False),  # too small
        ((30, 128), 512, False),  # too few rows
        ((33, 128), 512, False),  # odd
        ((3, 16, 128), 512, False),  # odd in front
        ((2, 16, 128), 512, True),
        ((512, 512), 2048, False),  # large enough for all cores by itself
        ((64, 128), 512, True),
        ((64,), 256, False),
    ],
)
def test_which_runs_go_in_halves(shape, Z, two):
    H = shape[-1]
    step = step_of(lambda z, h, w, _: h + w(h)[:H], Z, H, (H, Z))
    assert len(work.in_halves(step, shape[:-1])) == 1 + two


@of_the_loop
@pytest.mark.parametrize("batch, H", [((32,), 128), ((2, 64), 64)])
def test_halves_forward_only(halves, batch, H):
    cell = CELLS["lstm"]
    problem = random_problem(cell, batch=batch, T=9, D=3, H=H)
    options = make_options("both", batch, 9)
    got = jax.jit(partial(cell.sequence, **options))(*problem)
    assert_close(got, expected(cell, *problem, **options))
    assert halves and all(len(s) == 2 for s in halves)


@of_the_loop
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_no_halves_of_a_sharded_batch(halves, kind):
    cell = CELLS["lstm"]
    params, x, state = random_problem(cell, batch=(64,), T=2, D=3, H=128)
    axes = (jax.sharding.AxisType[kind],)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=axes)
    over = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    with jax.set_mesh(mesh):
        x, state = jax.device_put((x, state), over)
        got = jax.jit(cell.sequence)(params, x, state)
    assert_close(got, expected(cell, params, np.asarray(x), jax.device_get(state)))
    assert halves and not any(halves)


PLATFORMS = {"cpu": CPU_LOOP, "others": LOOP}


@pytest.mark.every(5)
@pytest.mark.parametrize("backend", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize(
    "name, reverse, holes",
    [
        ("rnn", False, False),
        ("lstm", True, True),
        ("gru", False, True),
        ("gru", True, False),
    ],
)
def test_forward_and_backward_of_each_platform(name, reverse, holes, backend):
    """Alone, without the rule that joins them: Lᵀ against the transpose of L."""
    cell, T, batch = CELLS[name], 6, (3,)
    params, x, state = to_jax(random_problem(cell, batch=batch, T=T, D=3, H=4))
    lengths, resets = map(jnp.asarray, make_options("both", batch, T).values())
    rng = np.random.default_rng(2)
    draw = lambda a: jnp.asarray(rng.standard_normal(a.shape))
    given = {"lengths": lengths, "resets": resets, "start": jax.tree.map(draw, state)}
    if holes:
        given["mask"] = jnp.asarray(rng.random((*batch, T)) < 0.7)
    args = parts(UPDATES[name], params, x, state, reverse=reverse, **given)
    spec, weights, inputs = args
    d_end, d_ys = jax.tree.map(draw, (inputs.state, (jnp.zeros((T, *batch, 4)),)))
    (z_x,) = project(spec.step, weights, select(inputs.masks.valid, inputs.x))
    zeros = jnp.zeros((T, *batch, cell.gates * 4))

    def along(*b):
        """L: the tangents of a plain scan."""

        def run(z_x, shift, extra, state, start):
            alone = weights._replace(w_x=(None,), b=(None,), extra=extra)
            at = Inputs((z_x,), state, start, inputs.masks)
            return plain(spec, alone, at, (shift,))[:2]

        at = z_x, zeros, weights.extra, inputs.state, inputs.start
        return jax.jvp(run, at, b)[1]

    @jax.jit
    def run():
        *alone, nothing = backend.forward(ONE, *args)
        assert nothing is None
        saving = spec._replace(save=True)
        end, ys, saved = backend.forward(ONE, saving, weights, inputs)
        full = complete(spec, saved, told_by(spec, ys, inputs))
        rest = full, inputs.masks, d_end, d_ys
        got = backend.backward(ONE, saving, weights, (None,), *rest)
        at = z_x, zeros, weights.extra, inputs.state, inputs.start
        want = jax.linear_transpose(along, *at)((d_end, d_ys))
        return tuple(alone), (end, ys), got, want

    alone, saving, got, want = run()
    end, y = cell.sequence(params, x, state, **given, reverse=reverse)
    outputs = tuple(jax.tree.leaves(end)), (jnp.moveaxis(y, -2, 0),)
    assert_close(alone, outputs)
    assert_close(saving, outputs)
    extra = got.extra
    for part in reads(spec.step).parts:
        # the gradient of b_hn is a part of that of the product
        extra = (summed_part(part, got.z[part.i], None, 1),)
    got = got.z_x[0], got.z[0], extra, got.state, got.start
    assert_close_gradients(got, want)


PAIR = jaxseq.LSTMState(4, 4)
STEPS = {  # update, widths of z_x and the state; whether summed, what is read
    "rnn": (UPDATES["rnn"], 4, 4, True, (False, False)),
    "relu": (UPDATES["rnn_relu"], 4, 4, True, (False, False)),
    "lstm": (UPDATES["lstm"], 16, PAIR, True, (False, False, True)),
    "gru": (UPDATES["gru"], 12, 4, False, (True, True)),
    "product": (lambda z, h, w, _: z * w(h), 4, 4, False, (True, False)),
    "difference": (lambda z, h, w, _: z - w(h), 4, 4, False, (False, False)),
    "two sums": (
        lambda z, h, w, _: jnp.tanh(z) + jnp.tanh(w(h)),
        4,
        4,
        False,
        (True, False),
    ),
    "a sum with itself": (
        lambda z, h, w, _: (w(h) + 0 * h) + z + z,
        4,
        4,
        False,
        (False, False),
    ),
    "the product twice": (
        lambda z, h, w, _: (a := w(h)) + a,
        4,
        4,
        False,
        (False, False),
    ),
    "state times sum": (lambda z, h, w, _: h * (z + w(h)), 4, 4, True, (False, True)),
    "square of state": (lambda z, h, w, _: z + w(h) + h**2, 4, 4, True, (False, True)),
    "input alone": (lambda z, h, w, _: jnp.tanh(z), 4, 4, False, (True, False)),
    "product of a square": (
        lambda z, h, w, _: jnp.tanh(z + w(h**2)),
        4,
        4,
        True,
        (False, True),
    ),
    "product of a gate": (
        lambda z, h, w, _: jnp.tanh(w(z * h)),
        4,
        4,
        False,
        (True, True),
    ),
    "nothing": (lambda z, h, w, _: 0.9 * h, 4, 4, False, (False, False)),
}


@pytest.mark.parametrize("update, Z, state, summed, want", STEPS.values(), ids=STEPS)
def test_what_a_step_reads(update, Z, state, summed, want):
    step = step_of(update, Z, state, (4, Z))
    found = reads(step)
    assert step.sums == (0 if summed else None,)
    assert (*found.x, *found.state) == want


def test_a_map_without_a_bias_is_not_written_again():
    """It would cost a copy of all steps at each of them."""

    def carried(b):
        update = lambda z, h, w, _: jnp.tanh(z * w(h))
        weights = jnp.ones((3, 4)), jnp.ones((4, 4)), b
        x, state = jnp.ones((2, 6, 3)), jnp.ones((2, 4))
        spec, *args = parts(update, weights, x, state)
        run = partial(CPU_LOOP.forward, ONE, spec._replace(save=True))
        eqns = jax.make_jaxpr(run)(*args).jaxpr.eqns
        return [len(e.outvars) for e in eqns if e.primitive.name in ("while", "scan")]

    (without,), (with_bias,) = carried(None), carried(jnp.ones(4))
    assert without == with_bias - 1


def multiplicative(z, h, w, _):
    """Its gradient of the first product is made before that product is last read."""
    a, b = jnp.split(z, [4])
    return jnp.tanh(b + w["gates"](a * w["m"](h)))


@of_the_loop
def test_no_step_copies_all_steps():
    """What is overwritten is read before, so XLA on CPU has no need of a copy."""
    T = 23
    params = jaxseq.cell_init(
        jax.random.key(0), 3, 8, {"m": (4, 4), "gates": (4, 4)}, dtype=float
    )
    x = jnp.ones((2, T, 3))
    run = lambda params, x: weighted_sum(
        jaxseq.cell(multiplicative, params, x, zeros=4)
    )
    both = jax.jit(jax.grad(run, argnums=(0, 1)))
    text = both.lower(params, x).compile().as_text()
    bodies = re.findall(r"body=(%[\w.-]+)", text)
    inside = [re.search(rf"^{re.escape(b)} .*?^}}", text, re.S | re.M) for b in bodies]
    lines = [line for b in inside for line in b[0].splitlines() if " copy(" in line]
    assert len(bodies) > 1
    assert [line for line in lines if re.search(rf"= \w+\[{T},", line)] == []


def test_extras_whose_gradient_is_a_part_of_that_of_a_product():
    """Found where an extra is added to the product, or to a part of it."""

    def update(z, h, w, extra):
        a, c = jnp.split(w["one"](h) + extra["whole"], 2)
        n = jnp.tanh(z * (w["two"](a) + extra["all"]))
        return jnp.tanh(extra["gain"] * n + c + extra["part"])

    w, extra = (
        {"one": (4, 8), "two": (4, 4)},
        dict.fromkeys(["all", "gain", "part"], (4,)),
    )
    step = step_of(update, 4, 4, w, {**extra, "whole": (8,)})
    parts = [part and part[:3] for part in reads(step).parts]
    assert parts == [(1, 0, 4), None, (0, 4, 4), (0, 0, 8)]


@pytest.mark.parametrize("name", ["product", "two sums", "state times sum", "leak"])
def test_other_updates(name):
    """What a wrong analysis would spoil: updates that no cell has."""
    leak = lambda z, h, w, _: 0.5 * h + jnp.tanh(z + w(h))
    inner = STEPS[name][0] if name in STEPS else leak
    update = lambda z, h, w, b: inner(z, h, lambda a: w(a) + b, None)
    params, x, state = to_jax(random_problem(CELLS["rnn"], T=6, D=3, H=4, batch=(2,)))
    params = jaxseq.CellParams(*params[:3], params.b / 2)

    def loss(implementation, *args):
        return weighted_sum(jaxseq.cell(update, *args, implementation=implementation))

    got, want = (
        jax.jit(jax.grad(partial(loss, i), argnums=(0, 1, 2)))(params, x, state)
        for i in (None, "scan")
    )
    assert_close_gradients(got, want)


def directional(loss, tangent):
    return lambda p: jax.jvp(loss, (p,), (tangent,))[1]


def along_gradient(loss, tangent):
    return lambda p: sum(
        map(jnp.vdot, *map(jax.tree.leaves, (jax.grad(loss)(p), tangent)))
    )


@pytest.mark.every(2)
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


@pytest.mark.every(3)
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


def test_learned_activation(few_objects):
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
    """Scratch memory is of a block, whatever the number of steps."""
    once, twice = (
        temporary(cell.sequence, *shapes_of(cell, 16, T=T, D=32, H=64))
        for T in (256, 512)
    )
    # y may be built in scratch memory, but nothing else of its size
    assert twice - once <= 256 * 16 * 64 * 4


@every_cell
@pytest.mark.parametrize("shape", [(128, 64, 8), (2, 64, 64, 8), (64, 128, 8)])
def test_many_rows_are_read_and_written_where_they_lie(cell, shape):
    """Without gradients, neither x nor y is copied to turn it to time first."""
    params, _ = shapes_of(cell, T=64, D=8, H=8)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)

    def run(params, x):
        rows = lambda x: cell.sequence(params, x)[1]
        return jax.vmap(rows, 1, 1)(x) if shape[0] == 64 else rows(x)

    assert temporary(run, params, x) < 128 * 64 * 8 * 4 / 2


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


@of_the_loop
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


def mgu(z_x, h, w_h, gain):
    x_f, x_n = jnp.split(z_x, 2)
    f = jax.nn.sigmoid(x_f + w_h["forget"](h))
    return (1 - f) * h + f * jnp.tanh(x_n + gain * w_h["new"](f * h))


def test_gradients_of_matrices_in_a_chain_are_products_after_the_loop():
    """One that reads h and one that reads other than h, of two widths."""
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)
    w_h = {"forget": shape(24, 24), "new": shape(24, 24)}
    params = jaxseq.CellParams(shape(40, 48), w_h, shape(48), shape(24))
    h, x = shape(5, 24), shape(5, 64, 40)

    def products(implementation):
        def loss(params, x, h):
            run = partial(jaxseq.cell, implementation=implementation)
            return run(mgu, params, x, h)[1].sum()

        text = jax.jit(jax.grad(loss)).lower(params, x, h).compile().as_text()
        inside, outside = products_in_loops(text)
        count = lambda found: (found.count((24, 24)), found.count((40, 48)))
        return count(inside), count(outside)

    assert products(None) == ((0, 0), (2, 1))
    assert products("scan")[0][0] >= 2


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


MASK = np.random.default_rng(3).random((4, 7)) < 0.6
MASK[0] = [0, 0, 0, 1, 1, 1, 1]  # left padding
MASK[1] = False
MASK_OPTIONS = {
    "alone": {},
    "lengths": {"lengths": np.array([6, 7, 5, 4])},
    "resets": {"resets": np.random.default_rng(4).random((4, 7)) < 0.4},
}
MASK_OPTIONS["both"] = MASK_OPTIONS["lengths"] | MASK_OPTIONS["resets"]


def compressed(cell, params, x, state, *, lengths=None, resets=None, reverse):
    """Each sequence without the steps that are not valid, by the plain scan."""
    ends, ys = [], []
    for i, mask in enumerate(MASK):
        inside = np.arange(7) < (7 if lengths is None else lengths[i])
        (steps,) = np.nonzero(mask & inside)
        end, y = cell.sequence(
            params,
            x[i, steps],
            jax.tree.map(lambda s, i=i: s[i], state),
            resets=None if resets is None else resets[i, steps],
            reverse=reverse,
            implementation="scan",
        )
        ends.append(end)
        ys.append(jnp.zeros((7, y.shape[-1])).at[steps].set(y))
    return jax.tree.map(lambda *a: jnp.stack(a), *ends), jnp.stack(ys)


@pytest.mark.every(2)
@pytest.mark.parametrize(
    "name, kind, reverse",
    [
        ("rnn", "alone", False),
        ("rnn", "both", True),
        ("lstm", "both", False),
        ("lstm", "resets", True),
        ("gru", "lengths", False),
        ("gru", "both", True),
    ],
)
def test_a_mask_is_as_if_its_steps_were_not_there(name, kind, reverse):
    """Values and gradients, on every path; junk in masked steps reaches neither."""
    cell, options = CELLS[name], {**MASK_OPTIONS[kind], "reverse": reverse}
    params, x, state = random_problem(cell, batch=(4,), T=7, D=3, H=4)
    junk = np.where(MASK[..., None], x, np.nan)

    def everything(run, x):
        return outputs_and_gradients(cell._replace(sequence=run), (params, x, state))

    masked = lambda **path: partial(cell.sequence, mask=MASK, **options, **path)

    @jax.jit
    def run():
        apart = lambda *args, implementation: compressed(cell, *args, **options)
        paths = {}, {"remat": 3}
        got = [everything(masked(**path), junk) for path in paths]
        scan = lambda *args, implementation: masked(implementation="scan")(*args)
        return *got, everything(scan, junk), everything(apart, x)

    *got, want = run()
    for outputs, gradients in got:
        assert_close(outputs, want[0])
        assert_close_gradients(gradients, want[1])


@pytest.mark.every(3)
@pytest.mark.parametrize("of_each", [False, True])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_start(name, of_each):
    """Learned, of all rows or of each: where resets go, and where a run begins."""
    cell, reverse, T = CELLS[name], name == "gru", 6
    params, x, state = random_problem(cell, batch=(3,), T=T, D=2, H=3)
    _, _, start = random_problem(cell, batch=(3,), T=T, D=2, H=3, seed=1)
    start = start if of_each else jax.tree.map(lambda s: s[0], start)
    options = make_options("both", (3,), T) | {"reverse": reverse}

    def run(params, x, state, start, **path):
        given = {"start": start, **options, **path}
        return [cell.sequence(params, x, s, **given) for s in (None, state)]

    @jax.jit
    def everything(*problem):
        loss = lambda path, *args: weighted_sum(run(*args, **path))
        paths = {}, {"implementation": "scan"}, {"remat": 4}
        each = (0, 1, 2, 3)
        return [
            (run(*problem, **path), jax.grad(partial(loss, path), each)(*problem))
            for path in paths
        ]

    rows = start if of_each else jax.tree.map(lambda s: np.stack([s] * 3), start)
    problem = params, x, state, start
    want = [expected(cell, params, x, s, start=rows, **options) for s in (rows, state)]
    first, *others = everything(*problem)
    for outputs, gradients in (first, *others):
        assert_close(outputs, want)
        assert_close_gradients(gradients, first[1])
    assert_gradients(lambda *args: weighted_sum(run(*args)), problem, rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_start_with_a_mask_and_in_a_step(reverse):
    """The run equals its steps one by one; a masked step neither resets nor counts."""
    cell, T = CELLS["lstm"], 6
    params, x, state = random_problem(cell, batch=(4,), T=T, D=2, H=3)
    rng = np.random.default_rng(5)
    mask, resets = rng.random((2, 4, T)) < 0.5
    start = to_jax(random_problem(cell, batch=(), T=T, D=2, H=3, seed=1)[2])

    @jax.jit
    def by_steps():
        now, ys, due = to_jax(state), [None] * T, jnp.zeros(4, bool)
        for t in range(T)[:: -1 if reverse else 1]:
            valid = mask[:, t]
            # read backwards, a reset takes effect at the next valid step
            first = valid & (due if reverse else resets[:, t])
            due = jnp.where(valid, resets[:, t], due)
            new, y = cell.step(params, now, x[:, t], resets=first, start=start)
            keep = lambda a, b, valid=valid: jnp.where(valid[:, None], a, b)
            now = jax.tree.map(keep, new, now)
            ys[t] = keep(y, 0 * y)
        return now, jnp.stack(ys, 1)

    options = {"mask": mask, "resets": resets, "start": start, "reverse": reverse}
    got = [
        cell.sequence(params, x, state, implementation=i, **options)
        for i in (None, "scan")
    ]
    for one in got:
        assert_close(one, by_steps())


@pytest.mark.parametrize("rows", [3, 40, 200])
def test_a_symbolic_width(rows):
    """How products are made is decided without it."""
    (n,) = jax.export.symbolic_shape("n")

    def f(w_x, w_h, x):
        return jaxseq.rnn(jaxseq.RNNParams(w_x, w_h, None), x)

    of = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float64)
    exported = jax.export.export(jax.jit(f))(of(3, n), of(n, n), of(rows, 6, 3))
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.standard_normal(s)) for s in ((3, 4), (4, 4), (rows, 6, 3))]
    assert_close(exported.call(*args), f(*args))


@pytest.mark.parametrize("shape", [(8, 8), (4, 2, 2)])
def test_work_is_that_of_the_blocks(shape):
    """Not of a matrix with zeros between them."""
    step = step_of(lambda z, h, w, _: jnp.tanh(z + w(h)), 8, 8, shape)
    assert work.work_of(step, (5,)) == (5, 2 * 5 * math.prod(shape))
