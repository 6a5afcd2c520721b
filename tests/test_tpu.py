"""The kernel for TPUs in Pallas's interpreter, and compiled if libtpu is installed.

Outputs are held to the equations in NumPy, gradients to the derivative of a plain
scan, both within 1e-5 of the largest value: float32 sums in another order.
"""

import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import Literal, jaxprs_in_params
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxseq
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU
from jaxseq import CellParams, LSTMState
from jaxseq._base.dtypes import widened
from jaxseq._base.masks import make_masks
from jaxseq._cells.gru_update import gru_update
from jaxseq._cells.lstm_update import lstm_update
from jaxseq._cells.rnn import RNNUpdate
from jaxseq._engine.backends import LOOP
from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.recall import complete, told_by, whole
from jaxseq._engine.types import Devices, Inputs, Spec, Weights
from jaxseq._engine.update import Shapes, step_of, traced
from jaxseq._kernels import call
from jaxseq._kernels.tpu import limits, scan, steps, tiles
from jaxseq._kernels.tpu.tiles import Bytes, Chip
from tests.cells import CELLS, expected, random_problem

ROOT = Path(__file__).parent.parent
B, T, D, H = 19, 7, 3, 128  # no multiples of the tiles
UPDATES = {
    "rnn": RNNUpdate(jnp.tanh),
    "rnn_relu": RNNUpdate(jax.nn.relu),
    "lstm": lstm_update,
    "gru": gru_update,
}
WRITTEN = {
    "peephole": PEEPHOLE_LSTM,
    "projected": PROJECTED_LSTM._replace(init=partial(PROJECTED_LSTM.init, n_c=2 * H)),
    "reset before": RESET_BEFORE_GRU,
}
every_update = pytest.mark.parametrize("name", UPDATES)
every_written = pytest.mark.parametrize("name", WRITTEN)
both_ways = pytest.mark.parametrize("reverse", [False, True])
ONE = Devices(1, NO_MESH)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """The kernels run here, in tiles of 16 rows and 3 steps."""
    monkeypatch.setattr(call, "INTERPRET", True)
    monkeypatch.setattr(tiles, "MOST_ROWS", 16)
    monkeypatch.setattr(tiles, "MOST_STEPS", 3)


class Problem(NamedTuple):
    """What a run is differentiated by."""

    params: CellParams
    x: jax.Array
    state: object
    start: object


def drawn(tree, seed):
    """Random values of the shapes and dtypes of a tree."""
    rng = np.random.default_rng(seed)
    draw = lambda a: jnp.asarray(rng.uniform(-1, 1, a.shape), a.dtype)
    return jax.tree.map(draw, tree)


def as_cell(name, params):
    params = jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), params)
    return CellParams(*params)


def problem_of(name, batch=B):
    """An update, and random weights, inputs and states for it."""
    if name in UPDATES:
        cell, update = CELLS[name], UPDATES[name]
        params, x, state = random_problem(cell, batch=(batch,), T=T, D=D, H=H)
        params = as_cell(name, params)
        x, state = jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), (x, state))
    else:
        update, init, zeros = WRITTEN[name]
        params = init(jax.random.key(0), D, H)
        extra = drawn((params.b, params.extra), 4)
        params = params._replace(b=extra[0], extra=extra[1])
        x, state = drawn((jnp.zeros((batch, T, D), "float32"), zeros(params, batch)), 5)
    start = drawn(jax.tree.map(lambda a: a[0], state), 6)
    return update, Problem(params, x, state, start)


def options_of(kind, batch=B):
    rng = np.random.default_rng(2)
    options = {
        "lengths": rng.integers(0, T + 1, batch),
        "resets": rng.random((*np.atleast_1d(batch), T)) < 0.3,
        "mask": rng.random((*np.atleast_1d(batch), T)) < 0.7,
    }
    return {name: options[name] for name in options if name in kind}


def outputs_like(update, problem):
    """Shapes of the state and of y."""
    run = partial(jaxseq.cell, update)
    return jax.eval_shape(run, problem.params, problem.x, problem.state)


def forward(implementation, update, options, problem):
    return jaxseq.cell(
        update,
        problem.params,
        problem.x,
        problem.state,
        start=problem.start,
        implementation=implementation,
        **options,
    )


def with_gradients(implementation, update, options, problem, d):
    """`((state, y), gradients)`, by `problem`, where those of the outputs are `d`."""
    run = partial(forward, implementation, update, options)
    out, back = jax.vjp(run, problem)
    return out, back(d)[0]


def assert_near(got, want, tolerance=1e-5):
    chex.assert_trees_all_equal_structs(got, want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * abs(b).max())


def check_against_scan(update, problem, options, tolerance=1e-5):
    d = drawn(outputs_like(update, problem), 3)
    by = lambda how: jax.jit(partial(with_gradients, how, update, options))
    got = by("pallas")(problem, d)
    assert_near(got, by("scan")(problem, d), tolerance)
    return got[0]


@pytest.mark.every(3)
@both_ways
@every_update
def test_equations_and_gradients(name, reverse):
    update, problem = problem_of(name)
    problem = problem._replace(start=None)
    options = {**options_of("lengths and resets"), "reverse": reverse}
    got = check_against_scan(update, problem, options)
    raw = random_problem(CELLS[name], batch=(B,), T=T, D=D, H=H)
    assert_near(got, expected(CELLS[name], *raw, **options))


@pytest.mark.every(3)
@both_ways
@every_written
def test_cells_of_a_users_own(name, reverse):
    options = {**options_of("lengths and resets"), "reverse": reverse}
    check_against_scan(*problem_of(name), options)


@pytest.mark.every(3)
@both_ways
@pytest.mark.parametrize("kind", ["", "lengths", "resets", "mask and resets"])
def test_masks(kind, reverse):
    options = {**options_of(kind, 3), "reverse": reverse}
    check_against_scan(*problem_of("lstm", 3), options)


@pytest.mark.parametrize("kind", ["lengths", "resets"])
def test_one_mask_alone(kind):
    check_against_scan(*problem_of("gru", 3), options_of(kind, 3))


def test_junk_in_padding():
    """What makes a NaN at steps that are not valid reaches no gradient."""

    def update(z_x, h, w_h, gain):
        return jnp.tanh(w_h(h) + jnp.sqrt(jnp.abs(gain * z_x)))

    _, problem = problem_of("rnn", 3)
    x = problem.x.at[:, 4:].set(jnp.nan)
    # without a bias z_x is 0 there
    params = problem.params._replace(b=None, extra=drawn(problem.params.b, 1))
    problem = problem._replace(x=x, params=params, start=None)
    check_against_scan(update, problem, {"lengths": np.array([4, 0, 2])})


def test_rank():
    """A sequence, and a batch of two axes."""
    update, problem = problem_of("lstm", 6)
    cut = lambda f, p: p._replace(x=f(p.x), state=jax.tree.map(f, p.state))
    check_against_scan(update, cut(lambda a: a[0], problem), {})
    wide = cut(lambda a: a.reshape(2, 3, *a.shape[1:]), problem)
    check_against_scan(update, wide, options_of("lengths and resets", (2, 3)))


def test_several_inputs_and_arrays_that_are_closed_over():
    """One of the inputs is passed on as it is, and one is not read."""
    table = drawn(jnp.zeros(H, "float32"), 1)

    def update(z_x, state, w_h, extra):
        a, passed, _ = z_x
        h, c = state
        c = c + jnp.tanh(a + w_h["c"](h) * passed + extra["bias"]) * table
        return LSTMState(jnp.sin(w_h["h"](c)), c)

    draw = lambda *shape: drawn(jnp.zeros(shape, "float32"), len(shape))
    w_h = {"c": draw(H, 2 * H), "h": draw(2 * H, H), "not called": draw(H, H)}
    double = jnp.concatenate([table, -table])
    table, extra = double, {"bias": draw(2 * H), "not read": draw(H)}
    params = CellParams((draw(D, 2 * H), None, None), w_h, (draw(2 * H), None, None))
    x = draw(3, T, D), draw(3, T, 2 * H), draw(3, T, H)
    state = LSTMState(draw(3, H), draw(3, 2 * H))
    problem = Problem(params._replace(extra=extra), x, state, None)
    scaled = lambda a: a / 16 if a.ndim == 2 and a.shape[0] > T else a
    params = jax.tree.map(scaled, problem.params)
    check_against_scan(update, problem._replace(params=params), {})


@pytest.mark.parametrize("name", ["lstm", "reset before"])
def test_forward_alone(name):
    update, problem = problem_of(name, 3)
    options = options_of("lengths and resets", 3)
    run = lambda how: jax.jit(partial(forward, how, update, options))(problem)
    assert_near(run("pallas"), run("scan"))


@pytest.mark.parametrize("name", ["lstm", "gru", "peephole"])
def test_bfloat16(name):
    update, problem = problem_of(name, 3)
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), problem.params)
    problem = problem._replace(params=params, x=problem.x.astype(jnp.bfloat16))
    # a sum that falls on the other side of a rounding moves by one part in 256
    _, y = check_against_scan(update, problem, options_of("resets", 3), 2**-7)
    assert y.dtype == jnp.bfloat16


def direct(name, kind="lengths and resets", reverse=False):
    """What a backend is given for a run that is saved."""
    update, problem = problem_of(name, 3)
    params, x, state, start = problem
    shape = lambda a: jax.ShapeDtypeStruct(a.shape[-1:], a.dtype)
    whole = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype)
    shapes = Shapes(
        shape(params.w_x),
        jax.tree.map(shape, state),
        *jax.tree.map(whole, (params.w_h, params.extra)),
    )
    step = step_of(update, shapes, *traced(update, shapes))
    options = options_of(kind, 3)
    marks = (options.get(name) for name in ("lengths", "mask", "resets"))
    masks = make_masks(
        T, *(None if m is None else jnp.asarray(m) for m in marks), reverse
    )
    starts = masks.keep is not None
    spec = Spec(step, reverse, x.dtype, "mask" in options, starts, save=True)
    leaves = lambda tree: tuple(jax.tree.leaves(tree))
    weights = (params.w_x,), (params.b,), leaves(params.w_h), leaves(params.extra)
    start = jax.tree.map(lambda a: jnp.broadcast_to(a, (3, *a.shape)), start)
    start = leaves(start) if starts else None
    inputs = Inputs((jnp.moveaxis(x, 1, 0),), leaves(state), start, masks)
    return spec, widened(Weights(*weights)), inputs


def there_and_back(backend, spec, weights, inputs, d):
    end, ys, saved = backend.forward(ONE, spec, weights, inputs)
    full = whole(spec, complete(spec, saved, told_by(spec, ys, inputs)))
    rest = (None,), full, inputs.masks, *d
    return end, ys, saved, backend.backward(ONE, spec, weights, *rest)


def gradients_for(inputs):
    y = jnp.zeros((T, *inputs.state[0].shape), inputs.x[0].dtype)
    return drawn((inputs.state, (y,)), 3)


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", ["", "lengths and resets", "mask"])
@pytest.mark.parametrize("name", ["lstm", "gru", *WRITTEN])
def test_gives_what_the_loop_gives(name, kind):
    """The same parts, where what is saved and given is None too."""
    given = *direct(name, kind, reverse=True), gradients_for(direct(name, kind)[2])
    got, want = (
        jax.jit(partial(there_and_back, backend, given[0]))(*given[1:])
        for backend in (steps, LOOP)
    )
    # what is saved of a step that is not valid is never read
    assert_near(got, want)


def test_saves_only_what_the_gradient_reads():
    saved = {}
    for name in ("rnn", "lstm", "gru"):
        run = partial(steps.forward, ONE, direct(name)[0])
        _, _, saved[name] = jax.eval_shape(run, *direct(name)[1:])
    is_kept = lambda parts: [a is not None for a in parts]
    # gru reads z_x and the product apart; the h that it reads is y
    assert [is_kept(s.z_x) for s in saved.values()] == [[False], [False], [True]]
    assert [is_kept(s.state) for s in saved.values()] == [
        [False],
        [False, True],
        [False],
    ]


def test_on_a_simulated_tpu(monkeypatch):
    """Memory that nothing was written to is NaN there, and out of bounds an error."""
    simulated = pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True)
    monkeypatch.setattr(call, "INTERPRET", simulated)
    one = lambda f: partial(jax.tree.map, f)
    # its effects are not let through by `custom_vmap`
    alone = lambda kernel, _, operands: one(lambda a: a[0])(
        kernel(one(lambda a: a[None])(operands))
    )
    monkeypatch.setattr(steps, "call", alone)
    spec, weights, inputs = direct("peephole", reverse=True)
    args = weights, inputs, gradients_for(inputs)
    got, want = (
        jax.jit(partial(there_and_back, backend, spec))(*args)
        for backend in (steps, LOOP)
    )
    assert_near(got, want)


MAPPED = {
    "inputs": (Problem(None, 0, 0, None), 0),
    "cotangents": (None, 0),
    "members": (0, 0),
    "weights alone": (Problem(0, None, None, None), None),
}


@pytest.mark.parametrize("axes", MAPPED.values(), ids=MAPPED)
def test_vmap(axes):
    update, problem = problem_of("gru", 3)
    args = problem, drawn(outputs_like(update, problem), 3)
    options = options_of("lengths and resets", 3)
    scales = jnp.asarray([1, 1.25], jnp.float32)
    mapped = jax.tree.map(
        lambda axis, part: (
            part
            if axis is None
            else jax.tree.map(lambda a: jnp.stack([a * s for s in scales]), part)
        ),
        axes,
        args,
        is_leaf=lambda a: a is None,
    )
    run = lambda how: jax.jit(
        jax.vmap(partial(with_gradients, how, update, options), axes)
    )(*mapped)
    assert_near(run("pallas"), run("scan"))


def test_vmap_of_vmap():
    """Members of members, with the weights mapped by the outer and by the inner."""
    update, problem = problem_of("rnn", 2)
    d = drawn(outputs_like(update, problem), 3)

    def run(how, s, t):
        w_h, x = problem.params.w_h * s, problem.x * t
        scaled = problem._replace(params=problem.params._replace(w_h=w_h), x=x)
        return with_gradients(how, update, {}, scaled, d)

    s, t = (jnp.asarray(a, jnp.float32) for a in ([1, 0.5], [1, 2, -1]))
    for outer, inner in (((0, None), (None, 0)), ((None, 0), (0, None))):
        both = lambda how, o=outer, i=inner: jax.jit(
            jax.vmap(jax.vmap(partial(run, how), i), o)
        )(s, t)
        assert_near(both("pallas"), both("scan"))


@pytest.mark.parametrize(
    "how, batch",
    [("jit", 4), ("jit", 3), ("explicit", 4), ("shard_map", 4), ("unchecked", 4)],
)
def test_shared_by_two_devices(how, batch):
    """`jit` splits the batch if it can; what cannot be split runs on each device."""
    update, problem = problem_of("gru", batch)
    problem = problem._replace(start=None)
    d = drawn(outputs_like(update, problem), 3)
    resets = jnp.asarray(options_of("resets", batch)["resets"])

    def run(implementation, params, x, state, resets, d):
        def one(x, state):
            now = Problem(params, x, state, None)
            return forward(implementation, update, {"resets": resets}, now)

        out, back = jax.vjp(one, x, state)
        return out, back(d)

    args = problem.params, problem.x, problem.state, resets, d
    want = jax.jit(partial(run, "scan"))(*args)
    run = partial(run, "pallas")
    kind = AxisType.Explicit if how == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(kind,))
    whole = PartitionSpec()
    batched = PartitionSpec("batch") if batch % 2 == 0 else whole
    specs = whole, batched, batched, batched, batched
    put = lambda tree, spec: jax.device_put(tree, NamedSharding(mesh, spec))
    with jax.set_mesh(mesh):
        placed = tuple(map(put, args, specs))
        if how in ("shard_map", "unchecked"):
            run = jax.shard_map(
                run, in_specs=specs, out_specs=batched, check_vma=how == "shard_map"
            )
        lowered = jax.jit(run).lower(*placed)
        got = lowered.compile()(*placed)
    # that of a kernel is not split by XLA
    assert "manual_computation" in lowered.as_text()
    if batch % 2 == 0:
        assert not any(a.is_fully_replicated for a in jax.tree.leaves(got))
    assert_near(got, want)


def test_members_shared_by_two_devices():
    update, problem = problem_of("rnn", 3)
    members = jax.tree.map(lambda a: jnp.stack([a, a / 2]), problem)
    d = drawn(outputs_like(update, problem), 3)
    run = lambda how: jax.vmap(partial(with_gradients, how, update, {}), (0, None))
    want = jax.jit(run("scan"))(members, d)
    mesh = jax.make_mesh((2,), ("members",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        apart = NamedSharding(mesh, PartitionSpec("members"))
        got = jax.jit(run("pallas"))(jax.device_put(members, apart), d)
    assert_near(got, want)


def kernels_in(jaxpr):
    for e in jaxpr.eqns:
        if e.primitive.name == "pallas_call":
            yield e
        else:
            for inner in jaxprs_in_params(e.params):
                yield from kernels_in(inner)


def read_by(jaxpr):
    """Of each argument whether a value that is loaded from it goes on from there."""
    alive, read = {v for v in jaxpr.outvars if type(v) is not Literal}, set()
    for e in reversed(jaxpr.eqns):
        inner = list(jaxprs_in_params(e.params))
        if e.primitive.name == "get":
            read |= {e.invars[0]} if alive & set(e.outvars) else set()
        elif e.primitive.name == "swap" or inner or alive & set(e.outvars):
            alive |= {v for v in e.invars if type(v) is not Literal}
        for body in inner:  # its arguments are the last ones
            args = e.invars[len(e.invars) - len(body.invars) :]
            read |= {v for v, yes in zip(args, read_by(body), strict=True) if yes}
    return [v in read for v in jaxpr.invars]


def operands_read(spec, weights, inputs):
    """Of each operand of the two kernels whether it is read."""
    run = partial(there_and_back, steps, spec)
    args = weights, inputs, gradients_for(inputs)
    found = list(kernels_in(jax.make_jaxpr(run)(*args).jaxpr))
    assert len(found) == 2
    return [
        read_by(e.params["jaxpr"])[: e.params["grid_mapping"].num_inputs] for e in found
    ]


@pytest.mark.parametrize("kind", ["", "lengths", "mask and resets"])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "peephole"])
def test_every_operand_is_read(name, kind):
    """Others may put zeros into these: https://github.com/jax-ml/jax/issues/39744."""
    assert all(map(all, operands_read(*direct(name, kind))))


def test_an_operand_that_is_not_read_is_left_out(monkeypatch):
    def update(z_x, h, w_h, extra):
        return jnp.tanh(z_x + w_h(h) + extra[0])

    extra = jnp.ones(H, "float32"), jnp.ones(H, "float32")
    init = lambda key, D, H: jaxseq.cell_init(key, D, H, (H, H), extra=extra)
    like = lambda params, batch: jaxseq.cell_zeros(params.w_h.shape[0], batch)
    cell = jaxseq.Cell(update, init, like)
    monkeypatch.setitem(WRITTEN, "ignorant", cell)
    there, back = operands_read(*direct("ignorant", ""))
    assert there == [True] * 4 and all(back)  # forward w_h, the one, h and z_x
    monkeypatch.setattr(scan, "only_read", lambda step, operands: (step, operands))
    there, back = operands_read(*direct("ignorant", ""))
    assert there.count(False) == back.count(False) == 1


def test_what_a_chip_has(monkeypatch):
    info = SimpleNamespace(vmem_capacity_bytes=128 << 20, num_cores=2)
    monkeypatch.setattr(tiles.pltpu, "get_tpu_info", lambda: info)
    assert tiles.chip(ONE) == Chip(vmem=128 << 20, cores=2)


V5E, V4 = Chip(128 << 20, 1), Chip(16 << 20, 1)


def test_tiles(monkeypatch):
    monkeypatch.undo()
    tile = tiles.tiles
    size = Bytes(fixed=1 << 20, row=1 << 10, step=1 << 10)
    assert tile(64, 1000, size, V5E) == (64, 32)
    assert tile(300, 1000, size, V5E) == (112, 32)
    assert tile(5, 3, size, V5E) == (16, 3)
    assert tile(64, 33, size, V5E) == (64, 17)  # and not 32 and 1
    assert tile(64, 1000, size, Chip(128 << 20, cores=2)) == (32, 32)
    assert tile(64, 1000, size, Chip(2 << 20, 1)) == (64, 11)
    assert tile(64, 1000, size, Chip(3 << 19, 1)) == (32, 9)
    assert tile(64, 1000, size, Chip(1200 << 10, 1)) is None
    for B, T, vmem in np.ndindex(200, 40, 4):
        chip = Chip((vmem + 2) << 20, 1)
        rows, steps = tile(B + 1, T + 1, size, chip)
        total = (1 << 20) + rows * (1 << 10) + rows * steps * (1 << 10)
        assert size.total(rows, steps) == total < chip.vmem


def test_bytes():
    """Of a matrix, a vector, what stays, what is carried and what streams."""
    f32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    weights, row, carry = [f32(100, 128), f32(1, 128)], f32(16, 128), f32(16, 256)
    operands = call.Operands(weights, row, carry, f32(16, 130))
    stream = 2 * 4 * (256 + 128)
    want = Bytes(4 * 128 * (112 + 16), 4 * (5 * 256 + 2 * 128) + stream, stream)
    assert tiles.count(operands, f32(16, 128)) == want


def limit(update, params, x, zeros=H, **options):
    """What `implementation="pallas"` raises of a limit, or None."""
    run = partial(jaxseq.cell, update, zeros=zeros, implementation="pallas", **options)
    try:
        jax.eval_shape(run, params, x)
    except ValueError as error:
        start, _, got = str(error).partition(" here, got ")
        others = "None or 'scan'", "None, 'scan' or 'loop'"
        assert start in [f"implementation: expected {names}" for names in others]
        return got
    return None


def shapes_of(H, dtype=jnp.float32, gates=4, batch=2):
    shape = lambda *s: jax.ShapeDtypeStruct(s, dtype)
    params = CellParams(shape(D, gates * H), shape(H, gates * H), shape(gates * H))
    return params, shape(batch, 3, D)


def lstm_limit(H, dtype, chip, monkeypatch):
    monkeypatch.setattr(limits, "chip", lambda _: chip)
    return limit(lstm_update, *shapes_of(H, dtype), zeros=LSTMState(H, H))


LIMITS = {
    "float64": (128, jnp.float64, V5E, "float64 is neither float32 nor bfloat16"),
    "float16": (128, jnp.float16, V5E, "float16 is neither float32 nor bfloat16"),
    "H": (100, jnp.float32, V5E, "the width 100 is not a multiple of 128"),
    "v4": (1280, jnp.bfloat16, V4, "do not fit into 16 MiB of VMEM"),
    "v5e": (4096, jnp.bfloat16, V5E, "do not fit into 128 MiB of VMEM"),
}


@pytest.mark.parametrize("case", LIMITS.values(), ids=LIMITS)
def test_limits_are_named(case, monkeypatch):
    *args, message = case
    assert message in lstm_limit(*args, monkeypatch)


def rnn_with(f):
    """An RNN whose update is `f` of a sum, the product and the extra weights."""
    return lambda z_x, h, w_h, extra: f(z_x + w_h(h), h, extra)


TABLE = np.eye(128, dtype=np.float32)
UPDATE_LIMITS = {
    "gelu": (lambda a, *_: jax.nn.gelu(a), None, None),
    "elu": (lambda a, *_: jax.nn.elu(a), None, "no kernel has expm1"),
    "sum": (lambda a, *_: a / a.sum(), None, "no kernel has reduce_sum"),
    "vector": (lambda a, h, v: a * v, (128,), None),
    "scalar": (lambda a, h, v: a * v, (), "float32 of shape () in extra is not"),
    "matrix": (lambda a, h, v: a * v[0], (2, 128), "of shape (2, 128) in extra"),
    "table": (lambda a, *_: a * TABLE[0], None, None),
    "relu": (lambda a, *_: jax.nn.relu(a), None, None),
    "short": (lambda a, *_: jnp.concatenate([a[:64]] * 2), None, "array (16, 64)"),
    "cut": (
        lambda a, *_: jax.lax.slice(jnp.concatenate([a, a]), (1,), (129,)),
        None,
        "cuts at (0, 1)",
    ),
    "print": (
        lambda a, *_: (jax.debug.print("{}", a), jnp.tanh(a))[1],
        None,
        "an update with an effect",
    ),
}


@pytest.mark.parametrize("case", UPDATE_LIMITS.values(), ids=UPDATE_LIMITS)
def test_limits_of_the_update(case):
    f, shape, message = case
    params, x = shapes_of(128, gates=1)
    if shape is not None:
        extra = jax.ShapeDtypeStruct(shape, jnp.float32)
        params = params._replace(extra=extra)
    found = limit(rnn_with(f), params, x)
    assert found is None if message is None else message in found


def test_limits_of_the_shapes():
    f, (params, x) = rnn_with(lambda a, *_: jnp.tanh(a)), shapes_of(128, gates=1)
    assert "is empty" in limit(f, *shapes_of(128, gates=1, batch=0))
    blocks = params._replace(w_h=jax.ShapeDtypeStruct((2, 64, 64), jnp.float32))
    assert limit(f, blocks, x) == "a matrix (2, 64, 64) is in blocks"
    flags = jax.ShapeDtypeStruct((2, 3, 128), jnp.int32)
    two = params._replace(w_x=(params.w_x, None), b=(params.b, None))
    keep = lambda z_x, h, w_h, _: jnp.where(z_x[1] > 0, z_x[0] + w_h(h), h)
    assert limit(keep, two, (x, flags)) == "an input is int32"


def test_sizes_that_are_not_known_run_without(monkeypatch):
    monkeypatch.undo()
    run = jax.jit(partial(jaxseq.cell, lstm_update, zeros=LSTMState(H, H)))
    params, x = shapes_of(H)
    (batch,) = jax.export.symbolic_shape("b")
    some = jax.ShapeDtypeStruct((batch, 3, D), x.dtype)
    kernels = [
        jax.export.export(run, platforms=["tpu"])(params, x)
        .mlir_module()
        .count("tpu_custom_call")
        for x in (x, some)
    ]
    assert kernels == [1, 0]


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", [*UPDATES, *WRITTEN])
def test_no_limit_for_usual_sizes(name, dtype, monkeypatch):
    """Also that no new version of JAX brings a primitive that is not known here."""
    update, problem = problem_of(name, 2)
    params, x = jax.tree.map(lambda a: a.astype(dtype), problem[:2])
    widths = jax.tree.map(lambda a: a.shape[-1], problem.state)
    for chip in (V4, V5E):
        monkeypatch.setattr(limits, "chip", lambda _, chip=chip: chip)
        assert limit(update, params, x, widths) is None


def test_the_widest_on_v4(monkeypatch):
    assert lstm_limit(1024, jnp.bfloat16, V4, monkeypatch) is None
    assert lstm_limit(1152, jnp.bfloat16, V4, monkeypatch) is not None


def test_past_the_limit_there_is_no_tile(monkeypatch):
    monkeypatch.setattr(steps, "chip", lambda _: Chip(1 << 16, 1))
    spec, weights, inputs = direct("rnn")
    with pytest.raises(ValueError, match="do not fit"):
        jax.eval_shape(partial(steps.forward, ONE, spec), weights, inputs)


def test_compiles_for_a_tpu():
    """In a process of its own: the topology is read when libtpu is loaded."""
    if find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    command = [sys.executable, "-m", "benchmarks", "compile-tpu", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compiles" in done.stdout and "fails" not in done.stdout


def test_a_training_step_compiles_for_a_slice():
    """And sums all gradients once, in float32, after all loops."""
    if find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    command = [sys.executable, "-m", "benchmarks", "compile-slice", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  4 kernels  all-reduce of 10 f32 1.25 MiB in 1 " in done.stdout


def test_sums_of_16_bits_compiles_to_float32():
    if find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    command = [sys.executable, "-m", "tests.tpu_sums"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
