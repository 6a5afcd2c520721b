"""The TPU kernels in Pallas's interpreter, and compiled if libtpu is installed.

Outputs are held to the equations in NumPy, gradients to the derivative of a plain
scan, both within 1e-5 of the largest value: float32 sums in another order.
"""

import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxseq import _tpu, _tpu_scan
from jaxseq._cell import Masks, form, hidden, make_masks
from jaxseq._fused import Residuals
from jaxseq._gru import gru_maps, gru_update
from jaxseq._lstm import lstm_update
from jaxseq._recurrence import complete, previous
from jaxseq._rnn import RNNUpdate
from jaxseq._tpu import limit
from jaxseq._tpu_scan import Bytes, Chip, tiles
from tests.cells import CELLS, expected, random_problem

ROOT = Path(__file__).parent.parent
UPDATES = {
    "rnn": RNNUpdate(jnp.tanh),
    "rnn_relu": RNNUpdate(jax.nn.relu),
    "lstm": lstm_update,
    "gru": gru_update,
}
B, T, D, H = 19, 7, 3, 128  # no multiples of the tiles
every_update = pytest.mark.parametrize("name", UPDATES)
both_ways = pytest.mark.parametrize("reverse", [False, True])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """The kernels run here, in tiles of 16 rows and 3 steps."""
    monkeypatch.setattr(_tpu_scan, "INTERPRET", True)
    monkeypatch.setattr(_tpu_scan, "MOST_ROWS", 16)
    monkeypatch.setattr(_tpu_scan, "MOST_STEPS", 3)


class Problem(NamedTuple):
    z_x: jax.Array
    w_h: jax.Array
    b_h: jax.Array | None
    state: object
    valid: jax.Array | None
    keep: jax.Array | None


class Gradients(NamedTuple):
    state: object
    y: jax.Array


def masks(kind, batch=B, reverse=False):
    rng = np.random.default_rng(2)
    lengths = rng.integers(0, T + 1, batch) if "lengths" in kind else None
    resets = rng.random((batch, T)) < 0.3 if "resets" in kind else None
    return lengths, resets, make_masks(lengths, resets, T, reverse)


def problem_of(name, kind="lengths and resets", batch=B, reverse=False):
    """A problem in float64 NumPy and the same as the kernels take it."""
    cell = CELLS[name]
    params, x, state = random_problem(cell, batch=(batch,), T=T, D=D, H=H)
    lengths, resets, (valid, keep) = masks(kind, batch, reverse)
    _, w_h, b, b_h = (
        gru_maps(cell.params(*params)) if name == "gru" else (*params, None)
    )
    z_x = x @ params.w_x + b
    args = jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), (z_x, w_h, b_h, state))
    raw = params, x, state, lengths, resets
    return raw, Problem(*args, valid, keep)


def gradients_of(problem, dtype=jnp.float32):
    rng = np.random.default_rng(3)
    draw = lambda a: jnp.asarray(rng.standard_normal(a.shape), a.dtype)
    y = jax.ShapeDtypeStruct((*problem.z_x.shape[:2], H), dtype)
    return Gradients(*jax.tree.map(draw, (problem.state, y)))


def backward(update, problem, saved, y, gradients, *, reverse, dtype):
    z_x, w_h, _, state, valid, keep = problem
    h = previous(y, hidden(state), Masks(valid, keep), reverse)
    old, z = saved
    saved = complete(Residuals(z, old), form(update, z_x, state, dtype), h)
    return _tpu.backward(
        update,
        w_h,
        (saved.old, saved.z),
        valid,
        keep,
        *gradients,
        reverse=reverse,
        dtype=dtype,
    )


def by_kernels(update, problem, gradients, reverse=False, dtype=jnp.float32):
    """`(state, y, d_z_x, d_z_h, d_state)`."""
    how = {"reverse": reverse, "dtype": dtype}

    @jax.jit
    def run(problem, gradients):
        assert limit(update, problem.z_x, problem.state, dtype) is None
        state, y, saved = _tpu.forward(update, *problem, **how, save=True)
        d = backward(update, problem, saved, y, gradients, **how)
        return state, y, *d

    return run(problem, gradients)


def by_scan(update, problem, gradients, reverse=False, dtype=jnp.float32):
    """The same by a plain scan, differentiated by JAX."""
    z_x, w_h, b_h, state, valid, keep = problem
    steps = lambda a: None if a is None else jnp.moveaxis(a, 1, 0)

    def pick(mask, on, off):
        where = lambda a, b: jnp.where(mask[:, None], a, b)
        return on if mask is None else jax.tree.map(where, on, off)

    def run(z_x, shift, state):
        zeros = jax.tree.map(jnp.zeros_like, state)

        def body(state, inputs):
            z_x, shift, valid, keep = inputs
            old = pick(keep, state, zeros)
            rounded = lax.reduce_precision(hidden(old), *bits[dtype])
            z_h = rounded @ w_h + shift + (0 if b_h is None else b_h)
            new = update(z_x, z_h, old)
            y = pick(valid, hidden(new), hidden(zeros)).astype(dtype)
            return pick(valid, new, state), y

        inputs = steps(z_x), steps(shift), steps(valid), steps(keep)
        state, y = lax.scan(body, state, inputs, reverse=reverse)
        return state, jnp.moveaxis(y, 0, 1)

    bits = {jnp.float32: (8, 23), jnp.bfloat16: (8, 7)}

    @jax.jit
    def both(z_x, state, gradients):
        out, pull = jax.vjp(run, z_x, jnp.zeros_like(z_x), state)
        return *out, *pull(tuple(gradients))

    return both(z_x, state, gradients)


def assert_near(got, want, tolerance=1e-5):
    chex.assert_trees_all_equal_structs(got, want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * abs(b).max())


def check_against_scan(name, kind, reverse, batch=B):
    update, (_, problem) = UPDATES[name], problem_of(name, kind, batch, reverse)
    gradients = gradients_of(problem)
    got = by_kernels(update, problem, gradients, reverse)
    assert_near(got, by_scan(update, problem, gradients, reverse))
    return got


@both_ways
@every_update
def test_equations_and_gradients(name, reverse):
    (params, x, state, lengths, resets), _ = problem_of(name)
    end, y, *_ = check_against_scan(name, "lengths and resets", reverse)
    marks = {"lengths": lengths, "resets": resets, "reverse": reverse}
    want = expected(CELLS[name], params, x, state, **marks)
    assert_near((end, y), jax.tree.map(jnp.asarray, want))


@both_ways
@pytest.mark.parametrize("kind", ["no masks", "lengths", "resets"])
def test_masks(kind, reverse):
    check_against_scan("lstm", kind, reverse, batch=3)


@pytest.mark.parametrize("missing", ["valid", "keep"])
def test_one_mask_alone(missing):
    _, problem = problem_of("gru", batch=3)
    problem = problem._replace(**{missing: None})
    gradients = gradients_of(problem)
    got = by_kernels(gru_update, problem, gradients)
    assert_near(got, by_scan(gru_update, problem, gradients))


def test_without_residuals():
    _, problem = problem_of("lstm", batch=3)
    state, y, saved = _tpu.forward(
        lstm_update, *problem, reverse=False, dtype=jnp.float32, save=False
    )
    assert saved is None
    assert_near((state, y), by_scan(lstm_update, problem, gradients_of(problem))[:2])


@every_update
def test_saves_only_what_the_gradient_reads(name):
    _, problem = problem_of(name, batch=3)
    update, how = UPDATES[name], {"reverse": False, "dtype": jnp.float32}

    def run(problem, gradients):
        _, y, saved = _tpu.forward(update, *problem, **how, save=True)
        d = backward(update, problem, saved, y, gradients, **how)
        same.append(d[0] is d[1])
        return saved

    same = []
    old, z = jax.eval_shape(run, problem, gradients_of(problem))
    assert len(z) == (2 if name == "gru" else 1)
    assert same == [name != "gru"]
    # the h that gru reads is y
    saves = {"lstm": (False, True)}.get(name, (False,))
    assert tuple(s is not None for s in old) == saves


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_bfloat16(name):
    _, problem = problem_of(name, batch=3)
    w_h = problem.w_h.astype(jnp.bfloat16).astype(jnp.float32)
    problem = problem._replace(w_h=w_h)
    gradients = gradients_of(problem, jnp.bfloat16)
    how = {"reverse": False, "dtype": jnp.bfloat16}
    got = by_kernels(UPDATES[name], problem, gradients, **how)
    want = by_scan(UPDATES[name], problem, gradients, **how)
    assert got[1].dtype == jnp.bfloat16
    # a sum that falls on the other side of a rounding moves by one part in 256
    assert_near(got, want, 2**-7)


def test_on_a_simulated_tpu(monkeypatch):
    """Memory that nothing was written to is NaN there, and out of bounds an error."""
    simulated = pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True)
    monkeypatch.setattr(_tpu_scan, "INTERPRET", simulated)
    # its effects are no part of the primitive
    monkeypatch.setattr(_tpu_scan, "_bind", lambda scan, _, *args: scan(*args))
    check_against_scan("lstm", "lengths and resets", reverse=True, batch=17)


MAPPED = {
    "inputs": (Problem(0, None, None, 0, 0, 0), Gradients(0, 0)),
    "cotangents": (Problem(*[None] * 6), Gradients(0, None)),
    "members": (Problem(*[0] * 6), Gradients(0, 0)),
    "weights alone": (Problem(None, 0, 0, *[None] * 3), Gradients(None, None)),
}


@pytest.mark.parametrize("axes", MAPPED.values(), ids=MAPPED)
def test_vmap(axes):
    N = 2
    _, problem = problem_of("gru", batch=3)
    args = problem, gradients_of(problem)
    scales = 1 + np.arange(N) / 4

    def member(i, a, axis):
        return a if axis is None or a.dtype == bool else a * np.float32(scales[i])

    none = lambda a: a is None
    members = [
        jax.tree.map(partial(member, i), args, axes, is_leaf=none) for i in range(N)
    ]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *members)
    pick = lambda a, whole, axis: a if axis is None else whole
    mapped = jax.tree.map(pick, args, stacked, axes, is_leaf=none)
    got = jax.vmap(partial(by_kernels, gru_update), axes)(*mapped)
    want = [by_scan(gru_update, *m) for m in members]
    assert_near(got, jax.tree.map(lambda *a: jnp.stack(a), *want))


def test_vmap_of_vmap():
    """Members of members, with the weights mapped by the outer and by the inner."""
    _, problem = problem_of("rnn", "no masks", batch=2)
    scale = lambda a, s: jax.tree.map(lambda b: b * s, a)

    def run(by, s, t):
        p = problem._replace(w_h=problem.w_h * s, z_x=problem.z_x * t)
        return by(UPDATES["rnn"], p, scale(gradients_of(problem), s))

    s, t = (jnp.asarray(a, jnp.float32) for a in ([1, 0.5], [1, 2, -1]))
    for outer, inner in (((0, None), (None, 0)), ((None, 0), (0, None))):
        both = lambda by, o=outer, i=inner: jax.vmap(jax.vmap(partial(run, by), i), o)
        assert_near(both(by_kernels)(s, t), both(by_scan)(s, t))


@pytest.mark.parametrize(
    "how, batch",
    [("jit", 4), ("jit", 3), ("explicit", 4), ("shard_map", 4), ("unchecked", 4)],
)
def test_shared_by_two_devices(how, batch):
    """`jit` splits the batch if it can; what cannot be split runs on each device."""
    _, problem = problem_of("gru", batch=batch)
    args = problem, gradients_of(problem)
    want = by_scan(gru_update, *args)
    run = partial(by_kernels, gru_update)
    kind = AxisType.Explicit if how == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(kind,))
    batched, whole = PartitionSpec("batch"), PartitionSpec()
    specs = jax.tree.map(lambda _: batched if batch % 2 == 0 else whole, args)
    problem_specs = specs[0]._replace(w_h=whole, b_h=whole)
    specs = problem_specs, specs[1]
    put = lambda a, spec: jax.device_put(a, NamedSharding(mesh, spec))
    with jax.set_mesh(mesh):
        placed = jax.tree.map(put, args, specs)
        if how in ("shard_map", "unchecked"):
            run = jax.shard_map(
                run, in_specs=specs, out_specs=batched, check_vma=how == "shard_map"
            )
        got = jax.jit(run)(*placed)
    if batch % 2 == 0:
        assert not any(a.is_fully_replicated for a in jax.tree.leaves(got))
    assert_near(got, want)


V5E, V4 = Chip(128 << 20, 1), Chip(16 << 20, 1)


def test_tiles(monkeypatch):
    monkeypatch.undo()
    size = Bytes(fixed=1 << 20, row=1 << 10, step=1 << 10)
    assert tiles(64, 1000, size, V5E) == (64, 32)
    assert tiles(300, 1000, size, V5E) == (112, 32)
    assert tiles(5, 3, size, V5E) == (16, 3)
    assert tiles(64, 33, size, V5E) == (64, 17)  # and not 32 and 1
    assert tiles(64, 1000, size, Chip(128 << 20, cores=2)) == (32, 32)
    assert tiles(64, 1000, size, Chip(2 << 20, 1)) == (64, 11)
    assert tiles(64, 1000, size, Chip(3 << 19, 1)) == (32, 9)
    assert tiles(64, 1000, size, Chip(1200 << 10, 1)) is None
    for B, T, vmem in np.ndindex(200, 40, 4):
        chip = Chip((vmem + 2) << 20, 1)
        rows, steps = tiles(B + 1, T + 1, size, chip)
        assert size.total(rows, steps) < chip.vmem


def shapes(H, gates=4, batch=2):
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)
    return shape(batch, 3, gates * H), (shape(batch, H), shape(batch, H))


def lstm_tuple(z_x, z_h, state):
    i, f, g, o = jnp.split(jax.nn.sigmoid(z_x + z_h), 4, -1)
    c = f * state[1] + i * g
    return o * jnp.tanh(c), c


LIMITS = {
    "float64": (128, jnp.float64, V5E, "float64 is neither"),
    "float16": (128, jnp.float16, V5E, "float16 is neither"),
    "H": (100, jnp.float32, V5E, "H = 100 is not a multiple of 128"),
    "v4": (1280, jnp.bfloat16, V4, "do not fit into 16 MiB of VMEM"),
    "v5e": (4096, jnp.bfloat16, V5E, "do not fit into 128 MiB of VMEM"),
}


@pytest.mark.parametrize("case", LIMITS.values(), ids=LIMITS)
def test_limits_are_named(case):
    H, dtype, chip, message = case
    assert message in limit(lstm_tuple, *shapes(H), dtype, chip)


def test_limits_of_the_update():
    z, (h, _) = shapes(128, gates=1)
    elman = lambda f: RNNUpdate(f)
    of = lambda f: limit(elman(f), z, h, jnp.float32, V5E)
    assert of(jax.nn.gelu) is None
    assert of(jax.nn.elu) == "no kernel has expm1"
    table = jnp.ones(128, jnp.float32)
    assert "holds arrays" in of(lambda a: a * table)
    empty = jax.ShapeDtypeStruct((0, 3, 128), jnp.float32)
    assert "empty" in limit(elman(jnp.tanh), empty, h, jnp.float32, V5E)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@every_update
def test_no_limit_for_usual_sizes(name, dtype):
    """Also that no new version of JAX brings a primitive that is not known here."""
    _, problem = problem_of(name, batch=2)
    for chip in (V4, V5E):
        assert limit(UPDATES[name], problem.z_x, problem.state, dtype, chip) is None
    wide = lambda H: limit(lstm_tuple, *shapes(H), jnp.bfloat16, V4)
    assert wide(1024) is None and wide(1152) is not None


def test_past_the_limit_there_is_no_tile(monkeypatch):
    monkeypatch.setattr(_tpu_scan, "chip", lambda: Chip(1 << 16, 1))
    _, problem = problem_of("rnn", batch=2)
    how = {"reverse": False, "dtype": jnp.float32, "save": False}
    with pytest.raises(ValueError, match="do not fit"):
        _tpu.forward(UPDATES["rnn"], *problem, **how)


def test_compiles_for_a_tpu():
    """In a process of its own: the topology is read when libtpu is loaded."""
    if find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    command = [sys.executable, "-m", "benchmarks", "compile-tpu", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compiles" in done.stdout and "fails" not in done.stdout
